"""Applications that take the server's tokens: the middleware that protects them, and a small API to call."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from ..errors import ConfigurationError
from .faults import Fault, Faults, Held, cut
from .ledger import IssuedToken, Ledger
from .records import APIRequest, api_record, oauth1_names
from .thread import Site

__all__ = ("TOKEN", "EchoAPI", "protection")

if TYPE_CHECKING or hasattr(web, "RequestKey"):
    TOKEN: Final = web.RequestKey("token", IssuedToken)
    """Under this key a protected handler finds the token of its request: ``request[TOKEN]``, an :class:`IssuedToken`."""
    _RECORD: Final = web.RequestKey("record", APIRequest)
else:  # aiohttp before 3.14
    TOKEN, _RECORD = f"{__name__}.TOKEN", f"{__name__}.record"

_FORM: Final = "application/x-www-form-urlencoded"


def protection(ledger: Ledger, *, scope: str | None, realm: str, header: str, prefix: str) -> Middleware:
    """A middleware that lets nobody through without a good token; see :meth:`AuthorizationServer.protect`."""
    wanted = frozenset((scope or "").split())
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')

    def count(verdict: str) -> None:
        # The application that is protected may run in any thread.
        with ledger.lock:
            ledger.counts.presented[verdict] += 1

    def refuse(status: int, verdict: str, *details: str) -> web.Response:
        count(verdict)
        # RFC 6750 section 3.1: "If the request lacks any authentication information [...], the resource server SHOULD NOT
        # include an error code or other error information."
        error = () if verdict == "missing" else (f'error="{verdict}"',)
        challenge = ", ".join((f'Bearer realm="{quoted}"', *error, *details))
        return web.json_response({"refused": verdict}, status=status, headers={"WWW-Authenticate": challenge})

    @web.middleware
    async def protect(request: web.Request, handler: Handler) -> web.StreamResponse:
        found = await _presented(request, header, prefix)
        if not found:
            return refuse(401, "missing")
        # RFC 6750 section 2: "Clients MUST NOT use more than one method to transmit the token in each request."
        if len(found) > 1 or not found[0]:
            return refuse(400, "invalid_request")
        token = ledger.verify(found[0])
        if token is None:
            return refuse(401, "invalid_token", 'error_description="The access token expired or was revoked"')
        if not wanted <= token.scopes:
            return refuse(403, "insufficient_scope", f'scope="{" ".join(sorted(wanted))}"')
        count("accepted")
        request[TOKEN] = token
        return await handler(request)

    return protect


async def _presented(request: web.Request, header: str, prefix: str) -> list[str]:
    """The tokens that the request carries: in the header, in the form (:rfc:`6750#section-2.2`), in the query."""
    found = []
    if (value := request.headers.get(header)) is not None:
        scheme, _, token = value.partition(" ") if prefix else ("", "", value)
        if scheme.lower() == prefix.lower():
            found.append(token.strip())
    if request.method != "GET" and request.content_type == _FORM:
        found += [value for value in (await request.post()).getall("access_token", []) if isinstance(value, str)]
    return found + request.query.getall("access_token", [])


class EchoAPI:
    """A small API on a loopback port of its own, which remembers what it was sent; made by :meth:`AuthorizationServer.api`
    and :meth:`OAuth1Server.api`.

    Any path answers with JSON: ``method``, ``path``, ``length`` and ``sha256`` of the body, ``client`` and ``user`` of the
    token. Besides, ``/redirect?to=URL&status=307`` redirects, ``/status/418`` answers so, ``/ws`` is a WebSocket that echoes.

    :ivar requests: every request that arrived, in order.
    :ivar answered: how many answers there were of each status.
    :ivar early_refusal: whether a request is refused before its body was read, as many servers do; False here, so that a record
        of a refused upload is complete.
    """

    def __init__(self, protect: Middleware | None = None) -> None:
        self.requests: Final[list[APIRequest]] = []
        self.answered: Final[Counter[int]] = Counter()
        self.early_refusal = False
        self.site: Final = Site(self._make)
        self._protect = protect
        self._faults = Faults()
        self._gates: list[Held] = []

    def __repr__(self) -> str:
        kind = "foreign" if self._protect is None else "protected"
        return f"<EchoAPI: {kind}, {self.origin}, {len(self.requests)} requests>"

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:<port>``, without a slash at its end."""
        return self.site.origin

    @property
    def url(self) -> URL:
        """The origin as a URL, so that ``api.url / "reports"`` is one too."""
        return URL(self.origin + "/")

    def answer_next(
        self,
        status: int,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        times: int = 1,
        path: str | None = None,
    ) -> None:
        """Answer the next request in this way, whatever token it has; *path* limits it to requests to that path."""
        self._faults.add(Fault(status, body, dict(headers or {}), path=path), times)

    def cut_next(self, *, times: int = 1, path: str | None = None) -> None:
        """Cut the connection of the next request once it was read, without an answer.

        aiohttp itself sends an idempotent request (a GET) a second time where the connection was a kept one: count two for it.
        """
        self._faults.add(Fault(cut="before", path=path), times)

    def hold(self, path: str | None = None) -> Held:
        """Keep requests (those to *path*, if given) waiting; their token is judged once they go on.

        Use it as ``with api.hold("/slow") as held: …``.
        """
        return Held(self._gates, path)

    def _make(self) -> web.Application:
        inside: Iterable[Middleware] = () if self._protect is None else (self._protect,)
        app = web.Application(middlewares=[self._record, *inside], client_max_size=2**31)
        app.on_response_prepare.append(self._note)
        app.router.add_route("*", "/redirect", _redirect)
        app.router.add_route("*", "/status/{status:[2-5][0-9][0-9]}", _status)
        app.router.add_route("GET", "/ws", _websocket)
        app.router.add_route("*", "/{path:.*}", _echo)
        return app

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request[_RECORD] = record = api_record(request)
        self.requests.append(record)
        if not self.early_refusal:
            await _read(request)
        for gate in tuple(self._gates):
            await gate.wait(request.path)
        fault = self._faults.take(request.path)
        if fault is None:
            return await handler(request)
        return cut(request) if fault.cut else fault.response()

    async def _note(self, request: web.Request, response: web.StreamResponse) -> None:
        record: APIRequest | None = request.get(_RECORD)
        if record is not None and request.transport is not None and not request.transport.is_closing():
            record.status = response.status
            self.answered[response.status] += 1


async def _read(request: web.Request) -> None:
    body = await request.read()
    record: APIRequest = request[_RECORD]
    record.length, record.sha256 = len(body), hashlib.sha256(body).hexdigest()
    record.oauth1 |= oauth1_names(body)


async def _echo(request: web.Request) -> web.Response:
    await _read(request)
    record: APIRequest = request[_RECORD]
    token = request.get(TOKEN)
    return web.json_response(
        {
            "method": request.method,
            "path": request.path,
            "length": record.length,
            "sha256": record.sha256,
            "client": token and token.client_id,
            "user": token and token.user,
        }
    )


async def _redirect(request: web.Request) -> web.Response:
    status = request.query.get("status", "307")
    if status not in ("301", "302", "303", "307", "308") or "to" not in request.query:
        raise web.HTTPBadRequest(text="/redirect needs a to=URL, and a status of 301, 302, 303, 307 or 308")
    return web.Response(status=int(status), headers={"Location": request.query["to"]})


async def _status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["status"]))


async def _websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def check_protection(header: str, realm: str) -> None:
    """Raise ConfigurationError where a challenge could not be built of it."""
    if not header or not realm.isprintable():
        raise ConfigurationError("header must not be empty, and realm must be printable")
