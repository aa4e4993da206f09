"""A server that says of every request whether oauthlib, which others wrote, verifies its signature.

It hands oauthlib the request target and the body of the wire, as they are: nothing is decoded or encoded again.
"""

# oauthlib ships no types, so nothing of it leaves this module.
# mypy: disable-error-code="misc"
# mypy: disallow-any-unimported=False

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web
from multidict import CIMultiDictProxy
from oauthlib.common import Request
from oauthlib.oauth1 import RequestValidator, SignatureOnlyEndpoint
from oauthlib.oauth1.rfc5849 import SIGNATURE_METHODS
from yarl import URL

__all__ = ("OauthlibServer", "Verdict")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What arrived, and what oauthlib says of it."""

    verified: bool | None
    """None where oauthlib can't read the request, so that it has nothing to say of the signature."""
    reason: str
    """Why not; empty where it is verified."""
    method: str
    target: str
    """Path and query, in the encoding of the wire."""
    headers: CIMultiDictProxy[str]
    body: bytes = field(repr=False)


class OauthlibServer:
    """Verifies what one client sends, with its token and without.

    It answers 200 where oauthlib verified the request, else 401, and adds a :class:`Verdict` before it does::

        async with OauthlibServer() as server, ClientSession() as session:
            async with session.get(server.url / "path", headers=...) as response:
                assert server.verdicts[-1].verified

    Where the fault is oauthlib's: it decodes ``oauth_*`` values in a query or a form twice, so they may hold nothing that looks
    encoded (a PLAINTEXT signature of secrets that need encoding does); and it loses a semicolon that ends the path.

    :param rsa_public_key: a PEM, of which oauthlib makes a key at each request that is signed by RSA, and only there.
    """

    def __init__(
        self,
        *,
        client_id: str = "app",
        client_secret: str = "app-secret",
        token: str = "token",
        token_secret: str = "token-secret",
        rsa_public_key: str | None = None,
    ) -> None:
        self.client_id: Final = client_id
        self.client_secret: Final = client_secret
        self.token: Final = token
        self.token_secret: Final = token_secret
        self.rsa_public_key: Final = rsa_public_key
        self.verdicts: Final[list[Verdict]] = []
        """Of all requests, in the order of their arrival."""
        self._validator = _Validator(self)
        self._endpoint = SignatureOnlyEndpoint(self._validator)
        # What was compressed is not the form that its header speaks of.
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None, auto_decompress=False))
        self._origin: str | None = None

    @property
    def url(self) -> URL:
        """``http://127.0.0.1:<port>/``."""
        assert self._origin is not None
        return URL(self._origin)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        verified, reason = self._verify(request, body)
        self.verdicts.append(Verdict(verified, reason, request.method, request.raw_path, request.headers, body))
        return web.Response(status=200 if verified else 401, text=reason)

    def _verify(self, request: web.BaseRequest, body: bytes) -> tuple[bool | None, str]:
        url = f"http://{request.headers['Host']}{request.raw_path}"
        try:
            verified, read = self._endpoint.validate_request(url, request.method, body.decode("latin-1"), dict(request.headers))
        except ValueError as error:
            return None, f"oauthlib can't read it: {error}"
        if read is not None and read.body and read.decoded_body is None:
            # It goes on as if the form were empty.
            return None, "oauthlib can't read the form"
        if verified:
            self._validator.nonces.add(_nonce(read))
            return True, ""
        if read is None or not read.validator_log:
            return False, "oauthlib finds the protocol parameters wrong"
        return False, ", ".join(f"wrong {name}" for name, valid in read.validator_log.items() if not valid)


class _Validator(RequestValidator):
    """Everything passes but what is signed by somebody else, or a second time."""

    allowed_signature_methods = SIGNATURE_METHODS
    enforce_ssl = False
    timestamp_lifetime = float("inf")
    dummy_client = ""

    def __init__(self, server: OauthlibServer) -> None:
        super().__init__()
        self._server = server
        self.nonces: set[tuple[str, ...]] = set()
        """Of requests that were verified."""

    def check_client_key(self, client_key: str) -> bool:
        return True

    def check_nonce(self, nonce: str) -> bool:
        return True

    def validate_client_key(self, client_key: str, request: Request) -> bool:
        return client_key == self._server.client_id

    def validate_timestamp_and_nonce(
        self,
        client_key: str,
        timestamp: str,
        nonce: str,
        request: Request,
        request_token: str | None = None,
        access_token: str | None = None,
    ) -> bool:
        if _nonce(request) in self.nonces:
            request.validator_log["nonce"] = False
            return False
        return True

    def get_client_secret(self, client_key: str, request: Request) -> str:
        return self._server.client_secret

    def get_access_token_secret(self, client_key: str, token: str, request: Request) -> str:
        return self._server.token_secret if token == self._server.token else ""

    def get_rsa_key(self, client_key: str, request: Request) -> str:
        assert self._server.rsa_public_key is not None
        return self._server.rsa_public_key


def _nonce(request: Request) -> tuple[str, ...]:
    return (request.client_key, request.timestamp, request.nonce, request.resource_owner_key or "")
