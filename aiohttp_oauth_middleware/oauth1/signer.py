"""Who signs, and by which clock: what the client of the three legs and the middleware have in common."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable
from typing import Final

from yarl import URL

from ..clock import Clock
from ..errors import ConfigurationError, InsecureTransport, OAuthError, TokenUnavailable
from ..urls import is_loopback
from ..value import Secret
from .signature import SignatureMethod, base_string, base_string_uri, encode, encode_again, parameters_of
from .token import OAuth1Token

__all__ = ("Clocks", "Signer")

_Origin = tuple[str | None, int | None]

ORIGINS: Final = 100
# Requests that were refused at once learn the same, but for some seconds.
SAME: Final = 30.0
# After an offset did not help, the server's clock is believed no more for so many seconds.
DISTRUST: Final = 300.0

_log = logging.getLogger("aiohttp_oauth_middleware")


class Clocks:
    """By how much the clocks of the servers that refused our time are ahead of ours, by origin, in seconds."""

    __slots__ = ("_distrusted", "_offsets")

    def __init__(self) -> None:
        self._offsets: dict[_Origin, float] = {}
        self._distrusted: dict[_Origin, float] = {}

    def offset(self, url: URL) -> float:
        return self._offsets.get((url.raw_host, url.port), 0.0) if self._offsets else 0.0

    def trusts(self, url: URL, monotonic: float) -> bool:
        """Whether it is worth while to believe the clock at *url*."""
        return self._distrusted.get((url.raw_host, url.port), monotonic) <= monotonic

    def learn(self, url: URL, offset: float) -> bool:
        """With *offset* a request was accepted; whether that is news."""
        news = abs(offset - self.offset(url)) > SAME
        self._keep(self._offsets, url, offset)
        if news:
            _log.warning("the clock of %s is %+.0f s from ours: requests there are signed by its time", url.raw_host, offset)
        return news

    def distrust(self, url: URL, monotonic: float) -> None:
        """It was not."""
        self._keep(self._distrusted, url, monotonic + DISTRUST)

    def _keep(self, where: dict[_Origin, float], url: URL, value: float) -> None:
        where[url.raw_host, url.port] = value
        while len(where) > ORIGINS:
            del where[next(iter(where))]


class Signer:
    """A client's identity, and how it signs.

    :param send_version: whether ``oauth_version`` is sent; :rfc:`5849#section-3.1` makes it optional.
    """

    __slots__ = ("_client_id", "_client_secret", "_encoded_id", "_encoded_name", "_send_version", "clock", "clocks", "method")

    def __init__(
        self, client_id: str, client_secret: Secret, method: SignatureMethod, *, send_version: bool, clock: Clock
    ) -> None:
        self._client_id = client_id
        self._encoded_id = encode(client_id)
        self._client_secret = client_secret
        self._send_version = send_version
        self._encoded_name = encode(method.name)
        self.method = method
        self.clock = clock
        self.clocks = Clocks()

    def check_transport(self, name: str, url: URL, through: URL | None = None) -> None:
        """Raise InsecureTransport where the signature itself would tell the secrets.

        :param through: a proxy, which could read them.

        RFC 5849 section 3.4.4: "The "PLAINTEXT" method does not employ a signature algorithm. It MUST be used with a
        transport-layer mechanism such as TLS or SSL".
        """
        if self.method.name != "PLAINTEXT" or url.scheme in ("https", "wss"):
            return
        if through is not None or not is_loopback(url.raw_host):
            raise InsecureTransport(f"{name} is plain {url.scheme}, and PLAINTEXT sends both secrets: use https or HMAC-SHA256")

    def known_secret(self) -> str:
        """The client's secret, in the clear, where it is no callable's."""
        return self._client_secret.reveal() if self._client_secret.is_constant else ""

    async def sign(
        self,
        method: str,
        url: URL,
        host: str,
        *,
        token: OAuth1Token | None = None,
        form: str | bytes = b"",
        protocol: Iterable[tuple[str, str]] = (),
        offset: float | None = None,
    ) -> str:
        """The protocol parameters of one request, encoded, the signature last; nonce and timestamp are new at every call.

        :param host: as in the ``Host`` field.
        :param form: the body, where it is a form.
        :param protocol: more parameters: ``oauth_callback``, ``oauth_verifier``, …
        :param offset: seconds that are added to our clock; what was learned of the server's if None.
        """
        if offset is None:
            offset = self.clocks.offset(url)
        parameters = (
            f"oauth_consumer_key={self._encoded_id}"
            # RFC 5849 section 3.3: "The nonce value MUST be unique across all requests with the same timestamp, client
            # credentials, and token combinations." 128 bits of the kernel's are, on both sides of a fork too.
            f"&oauth_nonce={os.urandom(16).hex()}"
            f"&oauth_signature_method={self._encoded_name}"
            f"&oauth_timestamp={int(self.clock.time() + offset)}"
        )
        others = text = token_secret = ""
        try:
            if token is not None:
                if not isinstance(token, OAuth1Token):
                    raise ConfigurationError("a request is signed for an OAuth1Token, and the source of tokens returned none")
                parameters += f"&oauth_token={encode_again(token.oauth_token)}"
                token_secret = token.oauth_token_secret
            if self._send_version:
                parameters += "&oauth_version=1.0"
            for name, value in protocol:
                parameters += f"&{encode_again(name)}={encode(value)}"
            text = parameters
            for sent in (url.raw_query_string, form):
                if others := parameters_of(sent):
                    _check_once(parameters, others)
                    text += f"&{others}"
            text = base_string(method, base_string_uri(url.scheme, host, url.raw_path), text)
            return f"{parameters}&oauth_signature={encode(await self._signature(text, token_secret))}"
        except BaseException:
            parameters = ""
            raise
        finally:
            # A traceback that shows locals shall show neither a secret nor what is sent along.
            del token, token_secret, text, others, form, protocol
            name = value = sent = ""

    async def _signature(self, text: str, token_secret: str) -> str:
        secret = self._client_secret
        signature: object = None
        try:
            signature = self.method.sign(text, secret.reveal() if secret.is_constant else await secret.read(), token_secret)
            if not isinstance(signature, str) and inspect.isawaitable(signature):
                signature = await signature
            if isinstance(signature, str) and signature and signature.isprintable():
                return signature
        except OAuthError:
            raise
        except UnicodeEncodeError:  # it has the whole text in it, and so is no cause that can be shown
            pass
        except Exception as error:
            raise TokenUnavailable(f"the request could not be signed: a callable raised {type(error).__name__}") from error
        finally:
            del text, token_secret, signature
        raise ConfigurationError(
            "OAuth1Client: client_secret or signature_method yielded what can't be: a secret must be text, and a signature "
            "a non-empty string of printable characters"
        )


def _check_once(ours: str, others: str) -> None:
    # RFC 5849 section 3.1: "Each parameter MUST NOT appear more than once per request".
    if "oauth_" not in others:
        return
    twice = min(_names(others) & (_names(ours) | {"oauth_signature"}), default=None)
    del ours, others  # a traceback that shows locals shall not show the values
    if twice is not None:
        raise ConfigurationError(
            f"the request has a parameter {twice} of its own, as the signature has (RFC 5849 section 3.1): take it out"
        )


def _names(parameters: str) -> set[str]:
    return {parameter.partition("=")[0] for parameter in parameters.split("&")}
