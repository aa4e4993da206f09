"""The authorization server that tests run against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web

from ..errors import ConfigurationError
from ..token import Token
from .authlib_grants import Engine, check_metadata
from .controls import Controls
from .endpoints import Endpoints, server_metadata
from .ledger import GRANT_TYPES, Family, RegisteredClient, as_tuple, new_code, new_values
from .oauth1.server import OAuth1Server
from .resource import EchoAPI, check_protection, protection
from .thread import ServerThread, Site

if TYPE_CHECKING:
    from ..client.client import Client
    from ..client.transport import SessionFactory
    from ..clock import Clock
    from ..protocol.client_auth import ClientAuthentication
    from ..protocol.endpoint import Hook
    from ..protocol.quirks import Quirks

__all__ = ("AuthorizationServer",)


class AuthorizationServer(Controls):
    """An OAuth 2.0 authorization server on loopback, made to be broken by tests.

    It serves discovery (:rfc:`8414`), client credentials, authorization code with PKCE (:rfc:`7636`), refresh tokens with
    rotation and reuse detection (:rfc:`9700#section-4.14`), revocation (:rfc:`7009`) and introspection (:rfc:`7662`), on a loop
    in a thread of its own: so it works under any async plugin, and in a test that blocks its loop. Every method and attribute
    may be used from any thread, and takes effect at once.

    ::

        with AuthorizationServer() as server:
            api = server.api(scope="read")
            tokens = Tokens(server.client(), ClientCredentials(scope="read"))
            ...
            server.expire_all()
            ...
            assert server.counts.token_requests == 2

    The client ``app`` with the secret ``app-secret`` is there from the start: any scope, any redirect URI,
    ``client_secret_basic`` and ``client_secret_post``. A server that was stopped may be started again, and keeps its ports and
    its tokens.

    :param lifetime: for how many seconds an access token is good, and the ``expires_in`` of the answers; with None the answers
        don't say, and it doesn't expire.
    :param rotation: whether each refresh supersedes the refresh token.
    :param reuse_detection: whether a superseded refresh token that is presented ends the whole sign-in.
    :param clock: the server's time in epoch seconds.
    :raises ConfigurationError: where *lifetime* is negative.

    :ivar reuse_grace: for how many seconds a superseded refresh token is still taken; 0 by default.
    :ivar latency: for how many seconds the token endpoint waits before it does anything; 0 by default.
    :ivar user: who is signed in at the authorization endpoint, and consents at once; None refuses with ``access_denied``.
    :ivar metadata: what discovery answers, from the first start on; a dict that a test may change.
    :ivar oauth1: the OAuth 1.0a side, an :class:`OAuth1Server`, with counters of its own.
    :ivar counts: what the server saw, and the only truth in a test.
    :ivar requests: a record of each request to the token endpoint, in order; likewise *revocation_requests* and
        *introspection_requests*.
    """

    def __init__(
        self,
        *,
        lifetime: float | None = 3600.0,
        rotation: bool = True,
        reuse_detection: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(lifetime=lifetime, rotation=rotation, reuse_detection=reuse_detection, clock=clock)
        self._endpoints: Final = Endpoints(self, self._engine)
        self._site: Final = Site(self._make)
        self.oauth1: Final = OAuth1Server(self._ledger, lambda: self.issuer, lambda: self.user, self._add)
        self._authlib: Engine | None = None
        self._apis: list[EchoAPI] = []
        self._thread: ServerThread | None = None
        self.register("app", "app-secret", authentication=("client_secret_basic", "client_secret_post"))

    def __repr__(self) -> str:
        return f"<AuthorizationServer: {self._site.origin if self._site.port else 'not started yet'}>"

    # Running

    def start(self) -> None:
        """Serve; returns once requests are answered. Raises ConfigurationError where it runs already."""
        if self._thread is not None:
            raise ConfigurationError("the server has been started already")
        thread = ServerThread()
        try:
            for site in (self._site, *(api.site for api in self._apis)):
                thread.serve(site)
            metadata = server_metadata(self.issuer)
            check_metadata(metadata)
            self.metadata.update(metadata | self.metadata)
        except BaseException:
            thread.stop()
            raise
        self._thread = thread

    def _make(self) -> web.Application:
        app = self._endpoints.app()
        self.oauth1.add_routes(app, self._endpoints.serve)
        return app

    def _engine(self) -> Engine:
        if self._authlib is None:
            self._authlib = Engine(self._ledger, self.issuer)
        return self._authlib

    def stop(self) -> None:
        """Close all connections and end the thread. What is held or delayed is dropped. A second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # Where it is

    @property
    def issuer(self) -> str:
        """The issuer identifier, ``http://127.0.0.1:<port>``. Raises ConfigurationError before the first start."""
        return self._site.origin

    @property
    def authorization_endpoint(self) -> str:
        """The URL of the authorization endpoint."""
        return f"{self.issuer}/authorize"

    @property
    def token_endpoint(self) -> str:
        """The URL of the token endpoint."""
        return f"{self.issuer}/token"

    @property
    def revocation_endpoint(self) -> str:
        """The URL of the revocation endpoint."""
        return f"{self.issuer}/revoke"

    @property
    def introspection_endpoint(self) -> str:
        """The URL of the introspection endpoint."""
        return f"{self.issuer}/introspect"

    # Clients and tokens

    def register(
        self,
        client_id: str,
        client_secret: str | None = None,
        *,
        authentication: str | Iterable[str] | None = None,
        redirect_uris: Iterable[str] = (),
        scope: str = "",
        grant_types: Iterable[str] = GRANT_TYPES,
        refresh_token_for_client_credentials: bool = False,
    ) -> None:
        """Add a client, or replace the one of that id.

        :param client_secret: its secret; None for a public client.
        :param authentication: the method or methods that it may use: ``client_secret_basic`` (what it is if None, for a client
            with a secret), ``client_secret_post``, ``none``; and ``client_secret_basic_raw``, for a server that doesn't
            form-decode the Basic header and so breaks :rfc:`6749#section-2.3.1`.
        :param redirect_uris: those that it may use; any, if empty.
        :param scope: the scope that it may have, also granted where it asks for none; any, if empty.
        :param refresh_token_for_client_credentials: whether that grant yields a refresh token, which :rfc:`6749#section-4.4.3`
            says it should not, and some servers do.
        :raises ConfigurationError: where these contradict each other.
        """
        if authentication is None:
            authentication = "none" if client_secret is None else "client_secret_basic"
        client = RegisteredClient(
            client_id,
            client_secret,
            as_tuple(authentication),
            as_tuple(redirect_uris),
            scope,
            as_tuple(grant_types),
            refresh_token_for_client_credentials,
        )
        self._ledger.register(client)

    def client(
        self,
        client_id: str = "app",
        authentication: ClientAuthentication | None = None,
        *,
        metadata_issuer: str | None = None,
        quirks: Quirks | None = None,
        session_factory: SessionFactory | None = None,
        timeout: float = 30.0,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
    ) -> Client:
        """A :class:`~aiohttp_oauth_middleware.Client` of this server, found by discovery.

        :param authentication: how it proves who it is; as it is registered, if None.
        :param timeout: in seconds, as for Client; so are the others.
        :raises ConfigurationError: where *client_id* isn't registered, or the server was not started.
        """
        from ..client.client import Client

        registered = self._ledger.registered(client_id)
        if authentication is None:
            authentication = _authentication(registered)
        return Client(
            self.issuer,
            client_id,
            authentication,
            metadata_issuer=metadata_issuer,
            quirks=quirks,
            session_factory=session_factory,
            timeout=timeout,
            hooks=hooks,
            clock=clock,
        )

    def issue(self, client_id: str = "app", scope: str = "", user: str | None = "alice", refresh_token: bool = True) -> Token:
        """A token out of thin air, as if *user* had signed in before. Nothing is counted.

        :raises ConfigurationError: where *client_id* isn't registered.
        """
        registered = self._ledger.registered(client_id)
        family = Family(client_id, user, scope or registered.scope)
        values = new_values(refresh_token)
        issued = self._ledger.issue(family, values, scope=family.scope, resource=(), audience=(), lifetime=self.lifetime)
        return Token(
            values[0],
            refresh_token=values[1],
            scope=family.scope or None,
            expires_at=issued.expires_at,
            obtained_at=issued.issued_at,
        )

    def authorize(
        self,
        client_id: str,
        redirect_uri: str | None,
        code_challenge: str,
        scope: str = "",
        user: str = "alice",
        *,
        resource: Iterable[str] = (),
    ) -> str:
        """A code, as if *user* had consented at the authorization endpoint. It is good for 600 seconds, and once.

        :param code_challenge: by the method S256, :rfc:`7636#section-4.2`.
        :raises ConfigurationError: where *client_id* isn't registered, or may not use *redirect_uri*.
        """
        registered = self._ledger.registered(client_id)
        if registered.redirect_uris and redirect_uri not in registered.redirect_uris:
            raise ConfigurationError("redirect_uri is not among those of the client")
        code = new_code()
        family = Family(client_id, user, scope or registered.scope, as_tuple(resource))
        self._ledger.save_code(code, family, redirect_uri, code_challenge)
        return code

    # Applications that take the tokens

    def protect(
        self,
        app: web.Application,
        *,
        scope: str | None = None,
        realm: str = "api",
        header: str = "Authorization",
        prefix: str = "Bearer",
    ) -> None:
        """Add a middleware to *app* that lets nobody through without a token of this server.

        The token is taken from the header, from a form's ``access_token`` or from the query's. Without one the answer is 401
        and a bare challenge; with a bad one, 401 and ``invalid_token``; with two, 400 and ``invalid_request``; without the
        *scope*, 403 and ``insufficient_scope`` (:rfc:`6750#section-3.1`). A handler finds what is known of it in
        ``request[TOKEN]``, an :class:`IssuedToken`; ``counts.presented`` counts the verdicts.

        :param scope: the scope that a token must have, its values separated by spaces.
        :param header: the header that carries the token, after the word *prefix* (nothing, if empty).
        """
        check_protection(header, realm)
        app.middlewares.append(protection(self._ledger, scope=scope, realm=realm, header=header, prefix=prefix))

    def api(
        self,
        *,
        scope: str | None = None,
        realm: str = "api",
        header: str = "Authorization",
        prefix: str = "Bearer",
    ) -> EchoAPI:
        """A small API on a port of its own, protected as :meth:`protect` does; it is stopped with the server.

        :raises ConfigurationError: where the server doesn't run.
        """
        check_protection(header, realm)
        return self._add(EchoAPI(protection(self._ledger, scope=scope, realm=realm, header=header, prefix=prefix)))

    def foreign_api(self) -> EchoAPI:
        """An API on an origin of its own which protects nothing, and records everything that it is sent.

        :raises ConfigurationError: where the server doesn't run.
        """
        return self._add(EchoAPI())

    def _add(self, api: EchoAPI) -> EchoAPI:
        if self._thread is None:
            raise ConfigurationError("the server does not run: use it in a with block, or call start()")
        self._thread.serve(api.site)
        self._apis.append(api)
        return api


def _authentication(registered: RegisteredClient) -> ClientAuthentication | None:
    """How the client proves who it is, as it is registered."""
    from ..protocol.client_auth import ClientSecret, ClientSecretBasic, ClientSecretPost

    secret, methods = registered.client_secret, registered.authentication
    if secret is None:
        return None
    if {"client_secret_basic", "client_secret_post"} <= set(methods):
        return ClientSecret(secret)
    if "client_secret_post" in methods:
        return ClientSecretPost(secret)
    return ClientSecretBasic(secret, encoded="client_secret_basic" in methods)
