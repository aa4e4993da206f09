"""The OAuth 1.0a side of the authorization server that tests run against."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final

from aiohttp import web

from ...errors import ConfigurationError
from ..ledger import Family, Ledger, as_tuple
from ..resource import EchoAPI
from .endpoints import Endpoints, Serve
from .engine import SIGNATURE_METHODS
from .ledger import OUT_OF_BAND, OAuth1Counts, OAuth1Ledger, RegisteredClient, with_parameters
from .wire import OAuth1Record

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ("OAuth1Server",)


class OAuth1Server:
    """The OAuth 1.0a side of an :class:`AuthorizationServer`, as its attribute ``oauth1``.

    It serves temporary credentials, the consent of a person, and token credentials (:rfc:`5849#section-2`), xAuth, renewal by
    ``oauth_session_handle``, and verifies what arrives at protected applications by HMAC-SHA1, -SHA256 and -SHA512, RSA-SHA1,
    -SHA256 and -SHA512, and PLAINTEXT, in header, form or query. It reads the bytes of the wire, with authlib's rules and none
    of this package's client.

    ::

        with AuthorizationServer() as server:
            api = server.oauth1.api()
            ...                                                 # the client fetches a request token
            callback = server.oauth1.approve(request_token)     # a person consents
            ...                                                 # the client fetches an access token, and calls api.url
            assert server.oauth1.counts.verdicts == {"accepted": 3}

    The client ``app`` with the secret ``app-secret`` is there from the start, with any callback. ``hold()``, ``fail_next()``,
    ``answer_next()``, ``cut_next()`` and ``lose_next_response()`` of the AuthorizationServer take ``endpoint="request_token"``
    and ``"access_token"``; its ``user`` is who consents at :attr:`authorize_url`.

    :ivar counts: what was seen, an :class:`OAuth1Counts`, and the only truth in a test.
    :ivar requests: an :class:`OAuth1Record` of each request, in order, byte for byte.
    :ivar confirm_callbacks: False makes it a server of OAuth 1.0 before its revision A: no ``oauth_callback_confirmed``, no
        verifier, and a callback that may come with the authorization URL.
    :ivar signature_methods: those that it takes; all seven at first.
    :ivar token_methods: the HTTP methods that the two token endpoints take; ``POST`` at first.
    :ivar require_body_hash: whether a request with a body that is no form must have an ``oauth_body_hash``. One that is there
        is always checked, by the hash of the signature method or by SHA-1.
    :ivar realm: of the challenges; unless it is None an ``Authorization`` header must name the same.
    :ivar clock_offset: by how many seconds the server's clock is ahead, in timestamps and in ``Date``; 0 by default.
    :ivar clock_tolerance: by how many seconds a timestamp may differ from that clock; 300 by default.
    :ivar report_problems: whether a refusal says why, in ``WWW-Authenticate`` and the token endpoints' bodies, in the words of
        the OAuth Problem Reporting extension.
    :ivar json_answers: whether the token endpoints answer with JSON, and not with a form.
    :ivar content_type: what they say that it is, such as ``text/html``; the truth, if None.
    :ivar lifetime: for how many seconds token credentials are good, and the ``oauth_expires_in`` of the answers; None for ever.
    :ivar session_handles: whether the answers have an ``oauth_session_handle``, by which a token can be renewed.
    :ivar passwords: by user, for xAuth: a token for ``x_auth_mode=client_auth``, ``x_auth_username`` and ``x_auth_password``.
    """

    def __init__(
        self,
        shared: Ledger,
        issuer: Callable[[], str],
        user: Callable[[], str | None],
        add: Callable[[EchoAPI], EchoAPI],
    ) -> None:
        self.confirm_callbacks = True
        self.signature_methods: Collection[str] = SIGNATURE_METHODS
        self.token_methods: Collection[str] = ("POST",)
        self.require_body_hash = False
        self.realm: str | None = None
        self.clock_offset = 0.0
        self.clock_tolerance = 300.0
        self.report_problems = True
        self.json_answers = False
        self.content_type: str | None = None
        self.lifetime: float | None = None
        self.session_handles = False
        self.passwords: dict[str, str] = {}
        self.requests: list[OAuth1Record] = []
        self._ledger: Final = OAuth1Ledger(self, shared)
        self._endpoints: Final = Endpoints(self, self._ledger, user)
        self._issuer: Final = issuer
        self._add: Final = add
        self.register("app", "app-secret")

    def __repr__(self) -> str:
        return f"<OAuth1Server: {len(self.requests)} requests>"

    @property
    def counts(self) -> OAuth1Counts:
        """What was seen, counted before the answer was sent."""
        return self._ledger.counts

    # Where it is

    @property
    def request_token_url(self) -> str:
        """Where temporary credentials are had. Raises ConfigurationError before the first start; so do the others."""
        return f"{self._issuer()}/oauth1/request_token"

    @property
    def authorize_url(self) -> str:
        """Where a person consents."""
        return f"{self._issuer()}/oauth1/authorize"

    @property
    def access_token_url(self) -> str:
        """Where token credentials are had, and renewed."""
        return f"{self._issuer()}/oauth1/access_token"

    def add_routes(self, app: web.Application, serve: Serve) -> None:
        self._endpoints.add_routes(app, serve)

    # Clients, people and tokens

    def register(
        self,
        client_id: str,
        client_secret: str | None = None,
        *,
        rsa_public_key: RSAPublicKey | str | bytes | None = None,
        callbacks: str | Iterable[str] = (),
    ) -> None:
        """Add a client, or replace the one of that id.

        :param client_secret: its secret, for HMAC and PLAINTEXT; it may be empty.
        :param rsa_public_key: its key, for RSA, as PEM or an object of cryptography.
        :param callbacks: those that it may use, besides ``oob``; any, if empty.
        :raises ConfigurationError: where it has neither, or the key is none.
        """
        if not client_id:
            raise ConfigurationError("client_id must not be empty")
        if client_secret is None and rsa_public_key is None:
            raise ConfigurationError("a client needs a client_secret or an rsa_public_key")
        key = _public_key(rsa_public_key) if isinstance(rsa_public_key, (str, bytes)) else rsa_public_key
        self._ledger.register(RegisteredClient(client_id, client_secret, key, as_tuple(callbacks)))

    def approve(self, request_token: str, user: str = "alice") -> str:
        """Consent as *user* to the request of that ``oauth_token``.

        :returns: the callback with ``oauth_token`` and ``oauth_verifier``; where the client has none (``oob``), the address of
            a page that shows them to a person, with both in its query.
        :raises ConfigurationError: where no such request is pending.
        """
        return self._decide(request_token, user)

    def deny(self, request_token: str) -> str:
        """Refuse the request of that ``oauth_token``.

        :returns: the callback, as of :meth:`approve`, with ``oauth_problem=permission_denied``.
        :raises ConfigurationError: where no such request is pending.
        """
        return self._decide(request_token, None)

    def _decide(self, request_token: str, user: str | None) -> str:
        with self._ledger.lock:
            temporary = self._ledger.pending(request_token)
            callback = self.authorize_url if temporary.callback == OUT_OF_BAND else temporary.callback
            return with_parameters(callback, self._ledger.decide(temporary, user))

    def issue(self, client_id: str = "app", user: str | None = "alice") -> dict[str, str]:
        """Token credentials out of thin air, as if *user* had consented before. Nothing is counted.

        :returns: ``oauth_token`` and ``oauth_token_secret``; with *session_handles* an ``oauth_session_handle`` too.
        :raises ConfigurationError: where *client_id* isn't registered.
        """
        with self._ledger.lock:
            if self._ledger.client(client_id) is None:
                raise ConfigurationError(f"client_id {client_id!r} is not registered: call register() first")
            return self._ledger.answer(self._ledger.issue(Family(client_id, user, "")))

    def expire_all(self) -> None:
        """Let all token credentials expire now. What can be renewed still can."""
        self._ledger.expire_all()

    def revoke_all(self) -> None:
        """Revoke all token credentials, and the sessions by which they are renewed."""
        self._ledger.revoke_all()

    # Applications that are protected

    def protect(self, app: web.Application, *, two_legged: bool = False) -> None:
        """Add a middleware to *app* that lets nobody through whose signature doesn't verify.

        A handler finds what is known of the token in ``request[TOKEN]``, an :class:`IssuedToken` without a scope. A request
        is read to the end of its body first.

        :param two_legged: whether a client may come without a token; it has no user then.
        """
        app.middlewares.append(self._endpoints.protection(two_legged))

    def api(self, *, two_legged: bool = False) -> EchoAPI:
        """A small API on a port of its own, protected as :meth:`protect` does; it is stopped with the server.

        :raises ConfigurationError: where the server doesn't run.
        """
        return self._add(EchoAPI(self._endpoints.protection(two_legged)))


def _public_key(pem: str | bytes) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    except ValueError as error:
        raise ConfigurationError("rsa_public_key is no PEM of a public key") from error
    if not isinstance(key, RSAPublicKey):
        raise ConfigurationError("rsa_public_key must be an RSA key")
    return key
