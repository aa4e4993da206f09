"""What oauthlib, whose provider side others wrote, says of a request as it arrived; and what the letter of RFC 5849 does."""

from __future__ import annotations

import base64
import hmac
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from oauthlib.oauth1 import RequestValidator, SignatureOnlyEndpoint

from tests.middleware.wire import Seen

__all__ = (
    *("CLIENT_SECRET", "PROTOCOL", "TOKEN_SECRET", "in_header", "is_by_the_letter", "is_misread", "is_verified", "pairs"),
    *("parameters", "verify"),
)

CLIENT_SECRET = "c0nsumer s3cret&+ü"
TOKEN_SECRET = "t0ken s3cret=%"
PROTOCOL = frozenset(
    f"oauth_{name}".encode()
    for name in ("body_hash", "consumer_key", "nonce", "signature", "signature_method", "timestamp", "token", "version")
)


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
    """The same for what oauthlib doesn't judge: a query that is no UTF-8, a lone percent sign, an ``oauth_`` name elsewhere."""
    label = (seen.get("content-type") or "").partition(";")[0]
    form = bytes(seen.body) if label == "application/x-www-form-urlencoded" else b""
    (header,) = seen.authorization
    host = seen.get("host") or ""
    return verify(seen.method, "http", host, seen.target.encode("latin-1"), form, header, (CLIENT_SECRET, TOKEN_SECRET))


def verify(
    method: str,
    scheme: str,
    host: str,
    target: bytes,
    form: bytes,
    authorization: str,
    secrets: tuple[str, str],
    rsa_key: RSAPublicKey | None = None,
) -> bool:
    """Whether the signature of a request is what RFC 5849 section 3.4 says, worked out step by step and without haste.

    :param form: the body, where it is a form.
    :param authorization: of the header, with the protocol parameters or empty.
    :param secrets: the client's and the token's.
    """
    path, _, query = target.partition(b"?")
    header = in_header(authorization).items() if authorization else ()
    decoded = [*pairs(query), *pairs(form), *((name.encode(), value.encode()) for name, value in header if name != "realm")]
    (signature,) = (value.decode() for name, value in decoded if name == b"oauth_signature")
    (name,) = (value.decode() for name, value in decoded if name == b"oauth_signature_method")
    signed = [tuple(quote(one, safe="~") for one in pair) for pair in decoded if pair[0] != b"oauth_signature"]
    normalized = "&".join("=".join(pair) for pair in sorted(signed))
    netloc = host.lower().removesuffix({"http": ":80", "https": ":443"}[scheme])
    uri = f"{scheme}://{netloc}".encode() + (path or b"/")
    text = "&".join(quote(one, safe="~") for one in (method, uri, normalized)).encode()
    key = "&".join(quote(one, safe="~") for one in secrets)
    if name == "PLAINTEXT":
        return signature == key
    kind, _, hash_name = name.lower().partition("-")
    if kind == "hmac":
        return signature == base64.b64encode(hmac.digest(key.encode(), text, hash_name)).decode()
    assert rsa_key is not None
    try:
        rsa_key.verify(base64.b64decode(signature), text, padding.PKCS1v15(), getattr(hashes, hash_name.upper())())
    except InvalidSignature:
        return False
    return True


def pairs(text: bytes) -> list[tuple[bytes, bytes]]:
    """What a query or a form holds, as bytes, decoded once."""
    parts = (part.replace(b"+", b" ").partition(b"=") for part in text.split(b"&") if part)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in parts]


def is_misread(target: bytes, form: bytes) -> bool:
    """Whether oauthlib, without a word, makes of this request another one than RFC 5849 does.

    It puts a question mark for what is no UTF-8, decodes the values of ``oauth_`` parameters twice, wants all parameters of
    that name in one place, and loses a semicolon that ends the path.
    """
    path, _, query = target.partition(b"?")
    users = [pair for pair in (*pairs(query), *pairs(form)) if pair[0] not in PROTOCOL]
    try:
        b"".join(b"".join(pair) for pair in users).decode()
    except UnicodeDecodeError:
        return True
    return path.endswith(b";") or any(name.startswith(b"oauth_") for name, _ in users)


def in_header(value: str) -> dict[str, str]:
    """The protocol parameters, out of the header, and its realm."""
    scheme, _, rest = value.partition(" ")
    assert scheme == "OAuth"
    found = [part.strip().partition("=") for part in rest.split(",")]
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names)
    return {name: unquote(quoted.strip('"')) for name, _, quoted in found}


def parameters(seen: Seen) -> dict[str, str]:
    """Those of the one header."""
    (value,) = seen.authorization
    return in_header(value)
