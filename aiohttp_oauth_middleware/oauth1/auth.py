"""The middleware that signs requests; :rfc:`5849#section-3`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, TraceConfig, hdrs
from aiohttp.payload import BytesPayload, Payload
from multidict import MultiMapping
from yarl import URL

from ..errors import ConfigurationError, OAuthError, TokenUnavailable
from ..middleware.gate import Gate, Origins
from ..middleware.placement import has_form, replace_form
from ..middleware.resend import Refused, can_send_again, discard, is_replayable
from ..sources.events import Event, Events
from .client import PROTOCOL_PARAMETERS, OAuth1Client
from .responses import clock_offset, problem_in
from .signature import authorization_header, body_hash, encode
from .token import OAuth1Token
from .tokens import OAuth1TokenSource

__all__ = ("OAuth1Auth",)

_REFUSALS: Final = (400, 401, 403)
# Of the Problem Reporting extension: what another token may cure.
_TOKEN_PROBLEMS: Final = frozenset({"token_expired", "token_revoked", "token_rejected"})


class OAuth1Auth:
    """Signs each request as it is truly sent, and once more where the server's clock or the token asks for it.

    Attach it to a session, ``ClientSession(middlewares=[OAuth1Auth(client, token, origins="https://api.example.com")])``, or to
    one that exists, with :func:`attach`, or to a single request, ``session.get(url, middlewares=[auth])``, which then goes
    without the session's own middlewares. It works for WebSocket handshakes too. Among other middlewares it stands last: what
    one after it changes of the URL, the ``Host`` field or a form is not what was signed.

    Every send, redirect hop and reconnect has a nonce, a timestamp and a signature of its own. A body that is a form is signed
    and sent unchanged; any other body is sent unchanged. A request that is signed already, or, where we sign in the header, has
    an ``Authorization`` of its own, is left as it is: that is how one request opts out.

    Where the server refuses the timestamp (``oauth_problem=timestamp_refused``, or a 401 whose ``Date`` is more than a minute
    away from our clock), the difference is learned and the request sent again, once, if its body can be; where it says that
    the token has expired, or is good no more, and an :class:`OAuth1Tokens` has or can get another, likewise.

    :param client: who we are, and how we sign.
    :param token: the token that is signed for; an :class:`OAuth1Tokens`, or anything with ``async token(refused=None)``, for
        many users; None for a request in our own name ("two-legged").
    :param origins: where signatures may go, as for :class:`OAuth2Auth`.
    :param insecure_http: sign requests that travel over plain http beyond this machine. ``PLAINTEXT`` never does.
    :param on_event: called with an :class:`Event` named ``origin_refused`` or ``clock_offset_learned``; it must not block.
    :raises ConfigurationError: where an argument can't work.
    """

    def __init__(
        self,
        client: OAuth1Client,
        token: OAuth1Token | OAuth1TokenSource | None = None,
        *,
        origins: Origins | None = None,
        insecure_http: bool = False,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        if not isinstance(client, OAuth1Client):
            del token
            raise ConfigurationError("OAuth1Auth: client must be an OAuth1Client")
        source = None if token is None or isinstance(token, OAuth1Token) else token
        if source is not None and (isinstance(source, type) or not callable(getattr(source, "token", None))):
            del token, source  # a traceback that shows locals shall not show it: it may be the token itself
            raise ConfigurationError("OAuth1Auth: token must be an OAuth1Token, an OAuth1Tokens, or None")
        self._client = client
        self._signer = client.signer
        self._token = token if isinstance(token, OAuth1Token) else None
        self._source: OAuth1TokenSource | None = source
        self._gate = Gate(origins, insecure_http=insecure_http, on_event=on_event)
        self._events = Events(on_event)

    def __repr__(self) -> str:
        gate = getattr(self, "_gate", "refused")  # a traceback that shows locals shows this one too
        return f"<OAuth1Auth of {getattr(self, '_client', None)!r} for {gate!r}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if self._client.placement == "query":
            request.url = self._without_ours(request.url)
        url = request.url
        known = url.scheme in self._gate.open.get(url.raw_authority, ())
        if not known and not self._gate.allows(url):
            self._gate.say_refused(url)
            return await handler(request)
        if self._is_signed(request):
            self._gate.say_occupied(url)
            return await handler(request)
        self._signer.check_transport("the request's URL", url, through=request.proxy)
        token = self._token if self._source is None else await self._ask(None)
        if not known and not self._gate.admits(url):
            self._gate.say_refused(url)
            return await handler(request)
        body = request.body  # as it is now: a middleware inside of us may put another one there
        offset = self._signer.clocks.offset(url)
        response = await self._send(request, handler, token, offset)
        if response.status not in _REFUSALS:
            return response
        # Not kept in a local across an await: a traceback that shows locals would show its cookies.
        refused = Refused(response)
        del response
        await self._after_refusal(request, handler, refused, token, body, offset)
        return refused.response

    def trace_config(self) -> TraceConfig:
        """The same for a session that takes no middlewares, on public API alone: ``session.trace_configs.append(…)``.

        It signs each request, each redirect hop within the origins, and each reconnect, in the ``Authorization`` header. It
        sees no body, so a request with a form is refused with a ConfigurationError (but for ``PLAINTEXT``, which covers none),
        and there is no ``oauth_body_hash``. It can't send a request again: what a 401 says of the clock helps the next one.
        The header stays visible in ``response.request_info`` afterwards. The TraceConfig is frozen already.
        """
        if self._client.placement != "header" or self._client.body_hash == "on":
            raise ConfigurationError(
                'OAuth1Auth.trace_config: a trace hook sees no body and can only set a header; it needs placement="header" and '
                'no body_hash="on"'
            )
        from ..middleware.trace import Traced

        return Traced(
            self._gate, hdrs.AUTHORIZATION, obtain=self._obtain, value=self._header_value, refused=self._prepare_for_next
        ).config()

    def _is_signed(self, request: ClientRequest) -> bool:
        placement = self._client.placement
        if placement == "header" and hdrs.AUTHORIZATION in request.headers:
            return True
        if "oauth_signature=" in request.url.raw_query_string and "oauth_signature" in _names(request.url.raw_query_string):
            return True
        body = request.body
        return placement == "form" and isinstance(body, BytesPayload) and "oauth_signature" in _names(bytes(body._value))

    def _without_ours(self, url: URL) -> URL:
        """*url* without what an earlier hop had in its query: a server that redirects may have kept it."""
        query = url.raw_query_string
        if "oauth_signature=" not in query or f"oauth_consumer_key={encode(self._client.client_id)}" not in query.split("&"):
            return url
        rest = "&".join(part for part in query.split("&") if part.partition("=")[0] not in PROTOCOL_PARAMETERS)
        return URL(f"{url.with_query(None)}{'?' if rest else ''}{rest}", encoded=True)

    async def _send(
        self, request: ClientRequest, handler: ClientHandlerType, token: OAuth1Token | None, offset: float
    ) -> ClientResponse:
        client = self._client
        body = request.body
        form = b""
        protocol: tuple[tuple[str, str], ...] = ()
        labelled = isinstance(body, Payload) or hdrs.CONTENT_TYPE in request.headers
        if client.placement == "form" and ((labelled and not has_form(request)) or request.method in ("GET", "HEAD")):
            # RFC 5849 section 3.5.2 wants a single-part form.
            raise ConfigurationError(
                'OAuth1Client(placement="form"): this request has no form for its body; send data={…} with POST'
            )
        if isinstance(body, Payload):
            if has_form(request):
                form = await _bytes_of(body, "a form that is a stream can't be signed: give it as a dict, str or bytes")
            elif client.body_hash != "off":
                protocol = await self._hash(request, body)
        elif client.hashes_body(request.method) and client.placement != "form":
            protocol = (("oauth_body_hash", body_hash(b"", self._signer.method.hash_name)),)
        try:
            parameters = await self._signer.sign(
                request.method,
                request.url,
                request.headers.get(hdrs.HOST, ""),
                token=token,
                form=form,
                protocol=protocol,
                offset=offset,
            )
        except BaseException:
            del form  # a traceback that shows locals shall not show what the user sends
            raise
        if client.placement != "form":
            del form
        if client.placement == "header":
            request.headers[hdrs.AUTHORIZATION] = authorization_header(parameters, client.realm)
            del parameters
            try:
                return await handler(request)
            finally:
                # ClientResponseError's repr would print it, and a retry middleware outside of us hand it back as the user's.
                request.headers.popall(hdrs.AUTHORIZATION, None)
        if client.placement == "query":
            url = request.url
            request.url = URL(f"{url}{'&' if url.raw_query_string else '?'}{parameters}", encoded=True)
            del parameters
            try:
                return await handler(request)
            finally:
                request.url = url
        label = request.headers.get(hdrs.CONTENT_TYPE)
        await replace_form(request, form + (b"&" if form else b"") + parameters.encode())
        del parameters, form
        try:
            return await handler(request)
        finally:
            # aiohttp feeds the body of this hop to the next one.
            await request.update_body(body)
            if label is not None:
                request.headers[hdrs.CONTENT_TYPE] = label
            else:
                request.headers.popall(hdrs.CONTENT_TYPE, None)

    async def _hash(self, request: ClientRequest, body: Payload) -> tuple[tuple[str, str], ...]:
        # OAuth Request Body Hash 1.0, draft 4, leaves out forms, and GET and HEAD.
        if self._client.body_hash == "draft":
            known = hdrs.CONTENT_ENCODING not in request.headers and is_replayable(body)
            if not known or not self._client.hashes_body(request.method):
                return ()
        elif hdrs.CONTENT_ENCODING in request.headers:
            raise ConfigurationError('OAuth1Client(body_hash="on"): a body that is compressed on the way can\'t be hashed')
        data = await _bytes_of(body, 'OAuth1Client(body_hash="on"): a stream can\'t be hashed before it is sent')
        return (("oauth_body_hash", body_hash(data, self._signer.method.hash_name)),)

    async def _after_refusal(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        refused: Refused,
        token: OAuth1Token | None,
        body: object,
        offset: float,
    ) -> None:
        """Send it again, at most once for each cause: our clock, and the token."""
        clocks, clock, url = self._signer.clocks, self._signer.clock, request.url
        causes: set[str] = set()
        while refused.response.status in _REFUSALS:
            sendable = can_send_again(request, body)
            ahead = None
            if "clock" not in causes and clocks.trusts(url, clock.monotonic()):
                ahead = self._ahead(refused.response.status, refused.response.headers, offset)
            if ahead is not None:
                causes.add("clock")
                offset += ahead
                if not sendable:
                    if _problem(refused.response.headers) == "timestamp_refused":
                        self._learn(url, offset)  # a Date alone would have to prove itself
                    return
                await discard(request, refused.response)
            elif "token" not in causes and token is not None and self._wants_another_token(refused.response.headers):
                causes.add("token")
                better = await self._better(request, refused, token, sendable)
                if better is None or better == token or not sendable:
                    return
                token = better
                await discard(request, refused.response)
            else:
                return
            if request.body is not body:
                await request.update_body(body)
            refused.response = await self._send(request, handler, token, offset)
            if "clock" in causes and ahead is not None:
                self._judge(url, refused.response, offset)

    def _ahead(self, status: int, headers: MultiMapping[str], offset: float) -> float | None:
        problem = problem_in(headers.getall(hdrs.WWW_AUTHENTICATE, ()))
        return clock_offset(status, problem, headers.get(hdrs.DATE), now=self._signer.clock.time() + offset)

    def _judge(self, url: URL, response: ClientResponse, offset: float) -> None:
        """Keep *offset* if the request passed with it, or failed for another reason that the server names."""
        problem = _problem(response.headers)
        if problem != "timestamp_refused" and (problem is not None or response.status != 401):
            self._learn(url, offset)
        else:
            self._signer.clocks.distrust(url, self._signer.clock.monotonic())

    def _learn(self, url: URL, offset: float) -> None:
        if self._signer.clocks.learn(url, offset):
            self._events.hand_over(Event("clock_offset_learned", origin=f"{url.scheme}://{url.raw_host}:{url.port}"))

    def _wants_another_token(self, headers: MultiMapping[str]) -> bool:
        return self._source is not None and _problem(headers) in _TOKEN_PROBLEMS

    async def _better(self, request: ClientRequest, refused: Refused, token: OAuth1Token, sendable: bool) -> OAuth1Token | None:
        try:
            return await self._ask(token)
        except OAuthError:
            if not sendable:
                return None  # the response is what there is; the next request will say why there is no token
            await discard(request, refused.response)
            raise
        except BaseException:
            refused.response.close()
            raise

    async def _obtain(self, url: URL) -> tuple[OAuth1Token | None]:
        self._signer.check_transport("the request's URL", url)  # before there is a connection
        return (self._token if self._source is None else await self._ask(None),)

    async def _ask(self, refused: OAuth1Token | None) -> OAuth1Token:
        """The source's token, once it is seen to be one."""
        assert self._source is not None
        try:
            token: object = await (self._source.token() if refused is None else self._source.token(refused))
        except OAuthError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TokenUnavailable(f"the token source raised {type(error).__name__}") from error
        if isinstance(token, OAuth1Token):
            return token
        del token  # a traceback that shows locals shall not show it
        raise ConfigurationError("OAuth1Auth: the token source must return an OAuth1Token")

    async def _header_value(self, credentials: tuple[OAuth1Token | None], params: aiohttp.TraceRequestHeadersSentParams) -> str:
        self._signer.check_transport("the request's URL", params.url)
        label = params.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
        if label == "application/x-www-form-urlencoded" and self._signer.method.name != "PLAINTEXT":
            raise ConfigurationError(
                "OAuth1Auth.trace_config: a trace hook can't see the form that has to be signed; use middlewares= or attach()"
            )
        host = params.headers.get(hdrs.HOST, "")
        parameters = await self._signer.sign(params.method, params.url, host, token=credentials[0])
        return authorization_header(parameters, self._client.realm)

    async def _prepare_for_next(
        self, credentials: tuple[OAuth1Token | None], url: URL, status: int, headers: MultiMapping[str]
    ) -> None:
        clocks = self._signer.clocks
        offset = clocks.offset(url)
        ahead = self._ahead(status, headers, offset) if status in _REFUSALS else None
        if ahead is not None and clocks.trusts(url, self._signer.clock.monotonic()):
            self._learn(url, offset + ahead)


def _names(parameters: str | bytes) -> set[str]:
    text = parameters if isinstance(parameters, str) else parameters.decode("latin-1")
    return {part.partition("=")[0] for part in text.split("&")}


def _problem(headers: MultiMapping[str]) -> str | None:
    return problem_in(headers.getall(hdrs.WWW_AUTHENTICATE, ())).get("oauth_problem")


async def _bytes_of(body: Payload, problem: str) -> bytes:
    """What *body* will send, which afterwards it still can; *problem* is said where that can't be had."""
    if isinstance(body, BytesPayload):
        return bytes(body._value)
    if not is_replayable(body):
        raise ConfigurationError(problem)
    return bytes(await body.as_bytes())
