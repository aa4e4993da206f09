"""What oauthlib, whose provider side others wrote, says of a request as it arrived."""

from __future__ import annotations

import base64
import hmac
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from oauthlib.oauth1 import RequestValidator, SignatureOnlyEndpoint
from yarl import URL

from tests.middleware.wire import Seen

__all__ = ("CLIENT_SECRET", "TOKEN_SECRET", "is_by_the_letter", "is_verified", "parameters")

CLIENT_SECRET = "c0nsumer s3cret&+ü"
TOKEN_SECRET = "t0ken s3cret=%"


class _Validator(RequestValidator):  # type: ignore[misc, no-any-unimported]
    enforce_ssl = False
    client_key_length = nonce_length = access_token_length = (1, 200)
    safe_characters = set(map(chr, range(33, 127)))  # noqa: RUF012
    dummy_client = "nobody"

    def __init__(self, token_secret: str, client_secret: str) -> None:
        super().__init__()
        self.token_secret, self.client_secret = token_secret, client_secret

    def get_client_secret(self, *arguments: Any) -> str:
        return self.client_secret

    def get_access_token_secret(self, *arguments: Any) -> str:
        return self.token_secret

    def validate_client_key(self, *arguments: Any) -> bool:
        return True

    def validate_timestamp_and_nonce(self, *arguments: Any, **more: Any) -> bool:
        return True


def is_verified(
    seen: Seen, *, scheme: str = "http", token_secret: str = TOKEN_SECRET, client_secret: str = CLIENT_SECRET
) -> bool:
    """Whether the signature is that of what arrived."""
    endpoint = SignatureOnlyEndpoint(_Validator(token_secret, client_secret))
    label = (seen.get("content-type") or "").partition(";")[0]
    body = bytes(seen.body).decode("latin-1") if label == "application/x-www-form-urlencoded" else None
    url = f"{scheme}://{seen.get('host')}{seen.target}"
    verified, _ = endpoint.validate_request(url, seen.method, body, {name.title(): value for name, value in seen.fields})
    return bool(verified)


def is_by_the_letter(seen: Seen) -> bool:
    """The same for what oauthlib doesn't judge: a query that is no UTF-8, a lone percent sign, an ``oauth_`` name elsewhere.

    An HMAC-SHA1 in a header, worked out step by step as RFC 5849 section 3.4.1 tells it.
    """
    label = (seen.get("content-type") or "").partition(";")[0]
    sources = [seen.query.encode("latin-1"), bytes(seen.body) if label == "application/x-www-form-urlencoded" else b""]
    pairs = [part.partition(b"=")[::2] for source in sources for part in source.split(b"&") if part]
    decoded = [tuple(unquote_to_bytes(one.replace(b"+", b" ")) for one in pair) for pair in pairs]
    sent = parameters(seen)
    signature = sent.pop("oauth_signature")
    decoded += [(name.encode(), value.encode()) for name, value in sent.items() if name != "realm"]
    normalized = "&".join("=".join(pair) for pair in sorted(tuple(quote(one, safe="~") for one in pair) for pair in decoded))
    uri = f"http://{(seen.get('host') or '').lower().removesuffix(':80')}{seen.path}"
    text = "&".join(quote(one.encode("latin-1"), safe="~") for one in (seen.method, uri, normalized))
    key = "&".join(quote(one, safe="~") for one in (CLIENT_SECRET, TOKEN_SECRET))
    return base64.b64encode(hmac.digest(key.encode(), text.encode(), "sha1")).decode() == signature


def parameters(seen: Seen) -> dict[str, str]:
    """The protocol parameters, out of the header."""
    (value,) = seen.authorization
    scheme, _, rest = value.partition(" ")
    assert scheme == "OAuth"
    found = [part.strip().partition("=") for part in rest.split(",")]
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names)
    return {name: str(URL(f"http://h/?v={quoted.strip(chr(34))}", encoded=True).query["v"]) for name, _, quoted in found}
