"""The middleware for OAuth 2 tokens."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, TraceConfig, hdrs
from multidict import MultiMapping, istr
from yarl import URL

from ..errors import ConfigurationError, OAuthError, TokenUnavailable
from ..sources.source import Refusal, TokenSource
from ..token import Token
from ..value import check_number

if TYPE_CHECKING:
    from ..protocol.challenge import Challenge
    from ..sources.events import Event
    from .gate import Origins
    from .placement import Header, Placement
    from .resend import Refused

__all__ = ("OAuth2Auth",)

# Tokens younger than this may not have reached every server of the resource yet.
_NEWBORN: Final = 10.0
# What aiohttp would take for a broken connection of the request itself, to run all of this again.
_BROKEN: Final = (aiohttp.ClientError, OSError, TimeoutError)
_EXPIRED: Final = 'Bearer error="invalid_token"'

ExpiredWhen = Callable[[ClientResponse], "bool | Awaitable[bool]"]


class OAuth2Auth:
    """Presents a token with each request, and tries once more with a better one where it is refused.

    Attach it to a session, ``ClientSession(middlewares=[OAuth2Auth(tokens, origins="https://api.example.com")])``, or to one
    that exists, with :func:`attach`, or to a single request, ``session.get(url, middlewares=[auth])``, which then goes without
    the session's own middlewares. It works for WebSocket handshakes too. Among other middlewares it stands after those that log
    and retry, so that each of their tries gets a fresh token, and before those that sign or limit what is really sent.

    A request that carries a value in the token's place already is left as it is: that is how one request opts out.

    A 401 is judged by its challenge: where another token may do, the source is asked for one, and the request is sent again, if
    its body can be. A 403 for too little scope is brought before the source, which may know how to get more. Anything else, and
    a second refusal, is returned as it came.

    :param source: where the token comes from: a :class:`Tokens`, a :class:`StaticToken`, or anything with
        ``async token(refused=None)``.
    :param origins: where the token may go: an origin, an iterable of them, or a callable ``(URL) -> bool``. A path in an entry
        is a prefix. Without it, the first origin that a token goes to is pinned, with a warning.
    :param placement: where in the request it stands.
    :param expired_when: for a server that says so otherwise than with a 401: called with each response, it returns whether that
        one means an expired token. It may be a coroutine function, and read the body, which stays readable.
    :param insecure_http: let tokens travel over plain http beyond this machine, in a closed network.
    :param fresh_token_delay: seconds after which a token that was refused within 10 s of its birth is sent once more, for a
        resource server that learns of new tokens late. None asks for a new one at once.
    :param on_event: called with an :class:`Event` named ``origin_refused`` for each request that goes without the token because
        of where it goes; it must not block.
    :raises ConfigurationError: where an argument can't work.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        origins: Origins | None = None,
        placement: Placement | None = None,
        expired_when: ExpiredWhen | None = None,
        insecure_http: bool = False,
        fresh_token_delay: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        if isinstance(source, type) or not callable(getattr(source, "token", None)):
            del source  # a traceback that shows locals shall not show it: it may be the token itself
            raise ConfigurationError(
                "OAuth2Auth: source must have an async method token(refused=None), as Tokens and StaticToken do"
            )
        members = ("occupied", "place", "clear")
        if placement is not None and (
            isinstance(placement, type) or not all(callable(getattr(placement, name, None)) for name in members)
        ):
            raise ConfigurationError("OAuth2Auth: placement must be an instance, such as BearerHeader()")
        if expired_when is not None and (isinstance(expired_when, type) or not callable(expired_when)):
            raise ConfigurationError("OAuth2Auth: expired_when must be a function of the response that returns a bool")
        if fresh_token_delay is not None:
            check_number("OAuth2Auth: fresh_token_delay", fresh_token_delay, "seconds")
        self._source = source
        from .gate import Gate  # with the first object, not with the import of the package
        from .placement import BearerHeader, Header

        places = origins if origins is not None else getattr(source, "origins", None)
        self._gate = Gate(places, insecure_http=insecure_http, on_event=on_event)
        self._open = self._gate.open
        self._placement: Placement = placement if placement is not None else BearerHeader()
        # The hot path sets a header by itself, for each coroutine on it would cost as much as the header.
        self._field: istr | None = None
        if isinstance(self._placement, Header) and type(self._placement) in (Header, BearerHeader):
            self._field, self._prefix = self._placement.field, self._placement.prefix
        self._ready = _ready_of(source)
        self._expired_when = expired_when
        self._fresh_token_delay = fresh_token_delay

    def __repr__(self) -> str:
        if not hasattr(self, "_placement"):
            return "<OAuth2Auth, refused>"  # a traceback that shows locals shows this one too
        return f"<OAuth2Auth of {self._source!r} for {self._gate!r} as {self._placement!r}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        url = request.url
        known = url.scheme in self._open.get(url.raw_authority, ())
        if not known and not self._gate.allows(url):
            self._gate.say_refused(url)
            return await handler(request)
        # No header and no response is kept in a local across an await: a traceback that shows locals would show their cookies.
        field = self._field
        if field in request.headers if field is not None else self._placement.occupied(request):
            self._gate.say_occupied(url)
            return await handler(request)
        token = self._ready()
        if token is None:
            try:
                token = await self._source.token()
            except OAuthError:
                raise
            except _BROKEN as error:
                raise _unavailable(error) from error
            if token is None:
                return await handler(request)
        if not known and not self._gate.admits(url):
            self._gate.say_refused(url)
            return await handler(request)
        body = request.body  # as it is now: a middleware inside of us may put another one there
        if field is not None and token.token_type == "Bearer":
            request.headers[field] = self._prefix + token.access_token
            try:
                response = await handler(request)
            finally:
                request.headers.pop(field, None)
        else:
            response = await self._send(request, handler, token)
        status = response.status
        if status != 401 and status != 403 and self._expired_when is None:
            return response
        from .resend import Refused  # when something was refused, not before

        refused = Refused(response)
        del response
        return await self._after_refusal(request, handler, refused, token, body)

    def trace_config(self) -> TraceConfig:
        """The same for a session that takes no middlewares, on public API alone: ``session.trace_configs.append(…)``.

        It signs each request, each redirect hop within the origins, and each reconnect. It can't send a request again: a 401 is
        returned, and the next request gets a better token. Only header placements work. The header stays visible in
        ``response.request_info`` afterwards, and the time to obtain a token isn't part of ``ClientTimeout(total=…)``. The
        TraceConfig is frozen already.
        """
        from .placement import Header
        from .trace import Traced  # few sessions need it

        if not isinstance(self._placement, Header):
            raise ConfigurationError("OAuth2Auth.trace_config: a trace hook can only set a header; use a Header placement")
        return Traced(
            self._gate,
            self._placement.field,
            obtain=lambda url: self._token(None),
            value=partial(self._header_value, self._placement),
            refused=self._prepare_for_next,
        ).config()

    async def _header_value(self, placement: Header, token: Token, params: aiohttp.TraceRequestHeadersSentParams) -> str:
        _check_bearer(token, placement)
        return placement.value(token)

    async def _prepare_for_next(self, token: Token, url: URL, status: int, headers: MultiMapping[str]) -> None:
        """Have a better token ready for the next request."""
        if status == 401:
            with contextlib.suppress(OAuthError):  # the next request will say it
                await self._token(Refusal(url, status, self._challenges(headers), token))

    async def _send(self, request: ClientRequest, handler: ClientHandlerType, token: Token) -> ClientResponse:
        placement = self._placement
        _check_bearer(token, placement)
        await placement.place(request, token)
        try:
            return await handler(request)
        finally:
            # ClientResponseError's repr would print it, and a retry middleware outside of us hand it back as the user's own.
            await placement.clear(request)

    async def _after_refusal(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        refused: Refused,
        token: Token,
        body: object,
    ) -> ClientResponse:
        """Send it again, at most once for each cause, for as long as the source has a better token."""
        from .resend import can_send_again, discard

        causes: set[int] = set()
        waited = False
        while (refusal := await self._refusal(request, refused, token)) is not None and refusal.status not in causes:
            better: Token | None = token
            sendable = can_send_again(request, body)
            wait = sendable and not waited and refusal.verdict != "more wanted" and self._is_newborn(token)
            if wait:
                waited = True  # the same token once more; if it is refused again, that counts
            else:
                causes.add(refusal.status)
            try:
                if wait:
                    await asyncio.sleep(self._fresh_token_delay or 0.0)
                elif (better := await self._token(refusal)) is not None and better.access_token == token.access_token:
                    break
            except OAuthError:
                if not sendable:
                    break  # the response is what there is; the next request will say why there is no token
                await discard(request, refused.response)
                raise
            except BaseException:
                refused.response.close()
                raise
            if better is None or not sendable:
                break
            await discard(request, refused.response)
            token = better
            if request.body is not body:
                await request.update_body(body)
            refused.response = await self._send(request, handler, token)
        return refused.response

    async def _refusal(self, request: ClientRequest, refused: Refused, token: Token) -> Refusal | None:
        """What the server says of the token, or None where it says nothing of it."""
        from ..protocol.challenge import parse_challenges  # most programs see no refusal for a long time

        if self._expired_when is not None:
            try:
                expired = self._expired_when(refused.response)
                if inspect.isawaitable(expired):
                    expired = await expired
            except BaseException:
                refused.response.close()
                raise
            if expired:
                return Refusal(request.url, 401, parse_challenges([_EXPIRED]), token)
        status = refused.response.status
        if status not in (401, 403):
            return None
        refusal = Refusal(request.url, status, self._challenges(refused.response.headers), token)
        return None if refusal.verdict == "other" else refusal

    def _challenges(self, headers: MultiMapping[str]) -> list[Challenge]:
        from ..protocol.challenge import Challenge, parse_challenges

        values = headers.getall(hdrs.WWW_AUTHENTICATE, ())
        scheme = self._placement.scheme
        # A challenge under the placement's own scheme ('token', 'OAuth') is about our token as one of Bearer's is.
        return [
            Challenge("bearer", challenge.parameters) if scheme and challenge.scheme == scheme else challenge
            for challenge in parse_challenges(values)
        ]

    def _is_newborn(self, token: Token) -> bool:
        if self._fresh_token_delay is None or token.obtained_at is None:
            return False
        return 0 <= time.time() - token.obtained_at < _NEWBORN

    async def _token(self, refused: Refusal | None) -> Token | None:
        try:
            return await self._source.token(refused)
        except OAuthError:
            raise
        except _BROKEN as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> TokenUnavailable:
    return TokenUnavailable(f"the token source raised {type(error).__name__}")


def _ready_of(source: TokenSource) -> Callable[[], Token | None]:
    """The source's ``ready()``, which saves a coroutine, unless a subclass or a test has put another ``token()`` over it."""
    definer = next((cls for cls in type(source).__mro__ if "token" in vars(cls)), None)
    if definer is None or "ready" not in vars(definer) or "token" in getattr(source, "__dict__", ()):
        return lambda: None
    ready: Callable[[], Token | None] = source.ready  # type: ignore[attr-defined]
    return ready


def _check_bearer(token: Token, placement: Placement) -> None:
    # RFC 9449 section 7.1 and RFC 8705 section 3: a token bound to a key is no bearer token, and is never shown as one.
    if token.token_type != "Bearer":
        raise ConfigurationError(f"{placement!r} presents bearer tokens only, and this token is of another type: it isn't sent")
