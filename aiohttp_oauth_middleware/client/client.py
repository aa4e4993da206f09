"""The client: who we are at one authorization server, and one small method for each of its endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from yarl import URL

from ..clock import Clock, SystemClock
from ..errors import ConfigurationError, InvalidClient, OAuthError, TokenResponseError, TokenUnavailable
from ..flight import Flights, finish, outlast
from ..protocol.client_auth import ClientAuthentication, ClientSecret, NoAuthentication
from ..protocol.endpoint import EndpointRequest, EndpointResponse, Hook, HookPoint
from ..protocol.grants import Grant, RefreshToken, joined_scope
from ..token import Token
from ..urls import absolute_url, require_tls
from ..value import Secret, check_flags, check_number

if TYPE_CHECKING:
    from ..protocol.metadata import ServerMetadata
    from ..protocol.quirks import Quirks
    from .transport import SessionFactory

__all__ = ("Client",)

TOKEN_BODY_LIMIT = 64 * 1024
METADATA_BODY_LIMIT = 1024 * 1024


class Client:
    """Who we are at one authorization server: its metadata, our ``client_id``, and how we prove it.

    It holds no session and no loop: it may be made at import time, and used from several loops and threads.

    :param server: the issuer, whose metadata is then discovered at first need, or the :class:`ServerMetadata` itself.
    :param client_id: as the server registered it.
    :param authentication: :class:`ClientSecret`, :class:`ClientSecretBasic`, :class:`ClientSecretPost`, a class of your own, or
        None for a public client.
    :param metadata_issuer: what the server's metadata calls its issuer, where that is not the URL at which it is published and
        you trust it all the same; see :rfc:`8414#section-3.3`.
    :param quirks: what this server does otherwise than the RFCs.
    :param session_factory: makes the :class:`aiohttp.ClientSession` for the exchanges with this server: for a proxy, a private
        CA, a resolver, a User-Agent. It is called on another event loop, so make session and connector inside of it.
    :param timeout: seconds for one exchange, from the connection to the last byte.
    :param hooks: run in this order, on requests and answers at the points they name.
    :param insecure_http: allow endpoints over plain http beyond this machine: for a closed container network.
    :param token_body_limit: bytes of a token answer that are read.
    :param metadata_body_limit: bytes of a metadata document that are read.
    :param clock: where the time comes from.
    :raises ConfigurationError: where an argument can't work.
    """

    def __init__(
        self,
        server: str | ServerMetadata,
        client_id: str,
        authentication: ClientAuthentication | None = None,
        *,
        metadata_issuer: str | None = None,
        quirks: Quirks | None = None,
        session_factory: SessionFactory | None = None,
        timeout: float = 30.0,
        hooks: Iterable[Hook] = (),
        insecure_http: bool = False,
        token_body_limit: int = TOKEN_BODY_LIMIT,
        metadata_body_limit: int = METADATA_BODY_LIMIT,
        clock: Clock | None = None,
    ) -> None:
        # Before anything is refused, for a traceback that shows locals shows this object too.
        self.client_id = client_id
        self.issuer: str | None = None
        self._metadata: ServerMetadata | None = None
        if not isinstance(client_id, str) or not client_id or not client_id.isprintable():
            raise ConfigurationError("Client: client_id must be a non-empty string of printable characters")
        if isinstance(authentication, str | Secret):
            del authentication  # a traceback that shows locals shall not show it
            raise ConfigurationError("Client: authentication must be an object such as ClientSecret(…), not the secret itself")
        if authentication is not None and (
            isinstance(authentication, type) or not isinstance(authentication, ClientAuthentication)
        ):
            raise ConfigurationError("Client: authentication must have a method authenticate(request, client_id, supported)")
        check_number("Client: timeout", timeout, "seconds", above=0)
        check_number("Client: token_body_limit", token_body_limit, "bytes", above=0)
        check_number("Client: metadata_body_limit", metadata_body_limit, "bytes", above=0)
        check_flags("Client", insecure_http=insecure_http)
        if session_factory is not None and not callable(session_factory):
            raise ConfigurationError("Client: session_factory must be a callable that makes a new ClientSession")
        if metadata_issuer is not None and not isinstance(server, str):
            raise ConfigurationError("Client: metadata_issuer only goes with an issuer that is discovered")
        if metadata_issuer is not None and (not isinstance(metadata_issuer, str) or not metadata_issuer):
            raise ConfigurationError("Client: metadata_issuer must be the issuer that the metadata names")
        if not isinstance(hooks, Iterable):
            raise ConfigurationError("Client: hooks must be a list of Hook(…) values")
        if clock is not None and (
            isinstance(clock, type) or not all(callable(getattr(clock, name, None)) for name in ("time", "monotonic", "sleep"))
        ):
            raise ConfigurationError("Client: clock must have time(), monotonic() and sleep(seconds)")
        self.authentication: ClientAuthentication = authentication if authentication is not None else NoAuthentication()
        if quirks is None:
            from ..protocol.quirks import Quirks

            quirks = Quirks()
        if isinstance(quirks, type) or not hasattr(quirks, "request_encoding"):
            raise ConfigurationError("Client: quirks must be a Quirks(…)")
        self.quirks = quirks
        self.timeout = timeout
        self.hooks = tuple(hooks)
        self.clock: Clock = clock if clock is not None else SystemClock()
        if not all(isinstance(hook, Hook) for hook in self.hooks):
            raise ConfigurationError("Client: hooks must be Hook(…) values")
        self._insecure_http = insecure_http
        # The sessions are kept by factory, and one that compares by its fields may not be hashable.
        unhashable = session_factory is not None and type(session_factory).__hash__ is None
        self._session_factory = partial(session_factory) if session_factory is not None and unhashable else session_factory
        self._token_body_limit = token_body_limit
        self._metadata_body_limit = metadata_body_limit
        self._working_candidate = 0
        self._discoveries: Flights[ServerMetadata] = Flights()
        # What the metadata has to name; None where it was given as values and there is nothing to discover.
        self._expected_issuer: str | None = None
        if isinstance(server, str):
            issuer = absolute_url("Client: server", server)
            # RFC 8414 section 2, issuer: "a URL that uses the "https" scheme and has no query or fragment components"
            if issuer.raw_query_string or "?" in server:
                raise ConfigurationError("Client: server, the issuer, must not have a query (RFC 8414 section 2)")
            require_tls("Client: server", issuer, insecure_http)
            self.issuer = server
            self._expected_issuer = metadata_issuer or server
        else:
            self._metadata = _given(server, insecure_http)
            self.issuer = server.issuer

    def __repr__(self) -> str:
        return f"<Client {self.client_id!r} at {self.server.partition('?')[0]!r}>"

    @property
    def server(self) -> str:
        """The issuer, or, where the metadata names none, the token endpoint."""
        return self.issuer or (self._metadata.token_endpoint if self._metadata else None) or ""

    @property
    def public(self) -> bool:
        """Whether this client authenticates with nothing, as :rfc:`6749#section-2.1` says of one that can't keep a secret."""
        return isinstance(self.authentication, NoAuthentication)

    async def fingerprint(self) -> str:
        """A digest of the secret as it is now, to tell whether it has been changed; empty where there is none to read."""
        secret = getattr(self.authentication, "secret", None)
        try:
            return hashlib.sha256((await secret.read()).encode()).hexdigest() if isinstance(secret, Secret) else ""
        except Exception:
            return ""

    async def metadata(self, *, refresh: bool = False) -> ServerMetadata:
        """The server's metadata, discovered once and kept.

        :param refresh: discover it anew.
        :raises DiscoveryError: there is none, or it names another issuer.
        :raises TokenUnavailable: the server can't answer now.
        """
        if self._metadata is None or (refresh and self._expected_issuer is not None):
            return await self._discoveries.join("metadata", lambda flight: self._discover())
        return self._metadata

    async def discovered_token_endpoint(self) -> str | None:
        """The token endpoint that the server's metadata names; None where the metadata was given as values."""
        return (await self.metadata()).token_endpoint if self._expected_issuer is not None else None

    async def _discover(self) -> ServerMetadata:
        assert self.issuer is not None
        assert self._expected_issuer is not None
        from .discovery import discover

        try:
            async with asyncio.timeout(self.timeout):  # for all the places together
                self._metadata = await discover(
                    self.issuer,
                    self._fetch_document,
                    expected_issuer=self._expected_issuer,
                    insecure_http=self._insecure_http,
                    now=self.clock.time(),
                )
        except TimeoutError:
            raise TokenUnavailable(f"the metadata of {self.issuer} was not found within {self.timeout:g} s") from None
        return self._metadata

    async def _fetch_document(self, request: EndpointRequest, name: str) -> EndpointResponse:
        from .transport import exchange

        return await exchange(
            request,
            name=name,
            timeout=self.timeout,
            body_limit=self._metadata_body_limit,
            session_factory=self._session_factory,
        )

    async def fetch_token(self, grant: Grant, *, shutdown_grace: float = 0.0) -> Token:
        """One request to the token endpoint; :rfc:`6749#section-3.2`. It is never repeated.

        :param grant: how the token is earned.
        :param shutdown_grace: for so many seconds a cancellation of the caller waits for the answer.
        :raises ErrorResponse: the server said no: :class:`InvalidGrant`, :class:`InvalidClient`, or another.
        :raises TokenUnavailable: it could not answer now.
        :raises TokenResponseError: its answer makes no sense.
        """
        return await self._token_request(grant, "access_token", None, None, shutdown_grace)

    async def refresh(
        self,
        token: Token | str,
        *,
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] = (),
        extra: Mapping[str, str] | None = None,
        shutdown_grace: float = 0.0,
    ) -> Token:
        """A new token for the refresh token of *token*; :rfc:`6749#section-6`. It is sent once.

        The new token keeps the refresh token and the scope of the old one where the answer brings none.

        :param scope: to ask for less than was granted.
        """
        old = token if isinstance(token, Token) else None
        refresh_token = Secret((token.refresh_token or "") if isinstance(token, Token) else token)
        del token
        if not refresh_token:
            raise ConfigurationError("Client.refresh: this token has no refresh token")
        wanted = joined_scope(scope)
        # RFC 6749 section 6: "The requested scope MUST NOT include any scope not originally granted by the resource owner".
        if wanted and old is not None and old.scope and not set(wanted.split()) <= old.scopes:
            raise ConfigurationError("Client.refresh: scope must not go beyond what was granted (RFC 6749 section 6)")
        if wanted is None and old is not None and self.quirks.scope_on_refresh:
            with contextlib.suppress(ConfigurationError):  # a scope that was granted in characters that none may have
                wanted = joined_scope(old.scope)
        grant = RefreshToken(refresh_token, scope=wanted, resource=resource, extra=extra or {})
        return await self._token_request(grant, "refresh_token", old, refresh_token, shutdown_grace)

    async def revoke(self, token: Token | str, hint: str | None = None) -> None:
        """Tell the server that *token* is not needed any more; :rfc:`7009#section-2.1`.

        :param token: of a :class:`Token` the refresh token is revoked, or, where it has none, the access token.
        :param hint: ``"access_token"`` or ``"refresh_token"``, for a string.
        """
        from ..protocol.token_response import parse_object

        if isinstance(token, Token):
            hint = "refresh_token" if token.refresh_token else "access_token"
        secret = Secret((token.refresh_token or token.access_token) if isinstance(token, Token) else token)
        del token
        response, request = await self._endpoint_request("revocation", secret, hint, "revoke_token_request")
        # RFC 7009 section 2.2: "The authorization server responds with HTTP status code 200 if the token has been revoked
        # successfully or if the client submitted an invalid token."
        self._raise_error(response, parse_object(response), request, "the revocation endpoint")

    async def introspect(self, token: Token | str, hint: str | None = None) -> Mapping[str, Any]:
        """What the server knows of *token*; :rfc:`7662#section-2`. ``["active"]`` is always there, a bool.

        :param token: of a :class:`Token` the access token is meant.
        :param hint: ``"access_token"`` or ``"refresh_token"``.
        """
        from ..protocol.token_response import parse_object

        if isinstance(token, Token):
            hint = hint or "access_token"
        secret = Secret(token.access_token if isinstance(token, Token) else token)
        del token
        response, request = await self._endpoint_request("introspection", secret, hint, "introspect_token_request")
        # Not kept in a local before: a traceback that shows those shall not show what the server quotes.
        self._raise_error(response, parse_object(response), request, "the introspection endpoint")
        data = parse_object(response)
        # RFC 7662 section 2.2: "active REQUIRED. Boolean indicator of whether or not the presented token is currently active."
        if data is None or not isinstance(data.get("active"), bool):
            data = None
            raise TokenResponseError(
                f"the answer of the introspection endpoint, {response.status}, has no boolean 'active'",
                rule="RFC 7662 section 2.2",
                status=response.status,
            )
        return data

    async def _token_request(
        self, grant: Grant, kind: str, previous: Token | None, in_hand: Secret | None, shutdown_grace: float
    ) -> Token:
        from ..protocol.token_response import parse_token_response

        if isinstance(grant, type) or not isinstance(grant, Grant):
            raise ConfigurationError("Client.fetch_token: grant must be a grant, such as ClientCredentials()")
        if grant.grant_type == "client_credentials" and self.public:
            # RFC 6749 section 4.4: "The client credentials grant type MUST only be used by confidential clients."
            raise ConfigurationError("the client_credentials grant needs a client with authentication (RFC 6749 section 4.4)")
        metadata = await self.metadata()
        if metadata.token_endpoint is None:
            raise ConfigurationError(f"{self!r}: the metadata has no token_endpoint; give one in ServerMetadata(…)")
        while True:
            request = EndpointRequest(metadata.token_endpoint, _parameters_of(grant))
            own = {name for name, _ in request.form}
            request.encoding = self.quirks.request_encoding
            request.method = "GET" if request.encoding == "query" else "POST"
            candidate = self._working_candidate
            before: HookPoint = "refresh_token_request" if kind == "refresh_token" else "access_token_request"
            await self._complete(request, "token", metadata, before)
            if grant.single_use:
                request.spends = _spent(self.server, self.client_id, request, own)
            arrival = self._exchange(request, "token", self._token_body_limit)
            sent_at = self.clock.time() - request.sent_before
            response = await outlast(arrival, shutdown_grace)
            point: HookPoint = "refresh_token_response" if kind == "refresh_token" else "access_token_response"
            for hook in self.hooks:
                if hook.point == point:
                    response = await finish(partial(self._rewritten, hook, response), shutdown_grace)
            scope = getattr(grant, "scope", None) or (previous.scope if previous else None)
            try:
                return parse_token_response(
                    response,
                    sent_at=sent_at,
                    scope=scope,
                    refresh_token=None if in_hand is None else in_hand.reveal(),
                    quirks=self.quirks,
                    secrets=request.secrets(),
                )
            except OAuthError as error:
                another = isinstance(error, InvalidClient) and self._try_next_method(
                    candidate, metadata.methods_supported("token")
                )
                if not another:
                    raise error.bare() from error.__cause__

    def _try_next_method(self, refused: int, supported: tuple[str, ...]) -> bool:
        """Whether there is another authentication method to try after the one of index *refused*."""
        if not isinstance(self.authentication, ClientSecret) or not self.authentication.probe:
            return False
        if self._working_candidate == refused:
            self._working_candidate = (refused + 1) % len(self.authentication.candidates(supported))
        # Back at the first one, all have been refused.
        return self._working_candidate != 0

    async def _endpoint_request(
        self, endpoint: str, token: Secret, hint: str | None, point: HookPoint
    ) -> tuple[EndpointResponse, EndpointRequest]:
        metadata = await self.metadata()
        url: str | None = getattr(metadata, f"{endpoint}_endpoint")
        if url is None:
            raise ConfigurationError(f"{self!r}: the metadata has no {endpoint}_endpoint; give one in ServerMetadata(…)")
        if not token:
            raise ConfigurationError(f"Client: there is no token to send to the {endpoint} endpoint")
        request = EndpointRequest(url, [("token", token)])
        if hint is not None:
            request.form.append(("token_type_hint", hint))
        await self._complete(request, endpoint, metadata, point)
        return await self._exchange(request, endpoint, self._token_body_limit), request

    def _raise_error(
        self, response: EndpointResponse, data: Mapping[str, Any] | None, request: EndpointRequest, endpoint: str
    ) -> None:
        from ..protocol.token_response import error_response

        error = error_response(response, data, now=self.clock.time(), secrets=request.secrets(), endpoint=endpoint)
        del data
        if error is not None:
            raise error

    async def _complete(self, request: EndpointRequest, endpoint: str, metadata: ServerMetadata, point: HookPoint) -> None:
        """Authenticate *request* and let the hooks see it; after that nothing of the user's is called any more."""
        supported = metadata.methods_supported(endpoint)
        authentication = self.authentication
        if isinstance(authentication, ClientSecret):
            # What was found by probing was found at the token endpoint.
            listed = metadata.methods_supported("token") if authentication.probe else supported
            authentication = authentication.candidates(listed)[self._working_candidate]
        try:
            await authentication.authenticate(request, self.client_id, supported)
            if self.quirks.client_id_in_body and not any(name == "client_id" for name, _ in request.form):
                request.form.append(("client_id", self.client_id))
            request.headers.setdefault("Accept", "application/json")
            request.headers.setdefault("Accept-Encoding", "identity")
            if request.method != "GET":
                label = "application/json" if request.encoding == "json" else "application/x-www-form-urlencoded"
                request.headers.setdefault("Content-Type", label)
            for hook in self.hooks:
                if hook.point == point:
                    answer = hook.function(request)  # type: ignore[arg-type]
                    if inspect.isawaitable(answer):
                        await answer
            await request.settle()
        except OAuthError:
            raise
        except Exception as error:
            raise TokenUnavailable(
                f"the request to the {endpoint} endpoint was not sent: a secret's callable, the authentication or a hook "
                f"raised {type(error).__name__}"
            ) from error
        require_tls(f"the {endpoint} endpoint", absolute_url(f"the {endpoint} endpoint", request.url), self._insecure_http)

    async def _rewritten(self, hook: Hook, response: EndpointResponse) -> EndpointResponse:
        try:
            answer = hook.function(response)  # type: ignore[arg-type]
            if inspect.isawaitable(answer):
                answer = await answer
        except OAuthError:
            raise
        except Exception as error:
            raise TokenResponseError(
                f"the hook at {hook.point} raised {type(error).__name__}", status=response.status
            ) from error
        if not isinstance(answer, EndpointResponse):
            raise TokenResponseError(f"the hook at {hook.point} returned no EndpointResponse", status=response.status)
        return answer

    def _exchange(self, request: EndpointRequest, endpoint: str, body_limit: int) -> asyncio.Future[EndpointResponse]:
        # Here, as all that the first request needs, for the sake of whoever only imports.
        from .transport import exchange

        return exchange(
            request,
            name=f"the {endpoint} endpoint",
            timeout=self.timeout,
            body_limit=body_limit,
            session_factory=self._session_factory,
        )


def _given(metadata: ServerMetadata, insecure_http: bool) -> ServerMetadata:
    """Metadata that was given as values, once its endpoints are seen to be safe."""
    from ..protocol.metadata import ServerMetadata

    if not isinstance(metadata, ServerMetadata):
        raise ConfigurationError("Client: server must be the issuer's URL or a ServerMetadata")
    for name in metadata._fields:
        if (name == "issuer" or name.endswith("_endpoint")) and (url := getattr(metadata, name)) is not None:
            require_tls(f"Client: the metadata's {name}", URL(url, encoded=True), insecure_http)
    return metadata


def _spent(server: str, client_id: str, request: EndpointRequest, names: set[str]) -> str:
    """A digest of what *request* spends, so that it can be recognised without being kept.

    :param names: of the grant's own parameters, all of which count: what proves who the client is differs from time to time.
    """
    spent = [f"{name}={v.reveal() if isinstance(v, Secret) else v}" for name, v in request.form if name in names]
    return hashlib.sha256("\0".join((server, client_id, *spent)).encode("utf-8", "surrogatepass")).hexdigest()


def _parameters_of(grant: Grant) -> list[tuple[str, str | Secret]]:
    try:
        parameters = [("grant_type", grant.grant_type), *grant.parameters()]
        fits = all(isinstance(name, str) and isinstance(value, str | Secret) for name, value in parameters)
    except OAuthError:
        raise
    except Exception as error:
        raise ConfigurationError(f"the grant's parameters() raised {type(error).__name__}") from error
    if not fits:
        del parameters
        raise ConfigurationError("the grant's parameters() must return pairs of a name and a string or Secret")
    return parameters
