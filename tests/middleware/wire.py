"""A recorder of what really goes over the wire, and a token source whose steps a test can count."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession
from yarl import URL

from aiohttp_oauth_middleware import Refusal, Token
from tests.raw_server import answer

__all__ = ("Rotating", "Seen", "Wire", "elsewhere", "only", "prepared", "record", "redirect")

INVALID = 'Bearer error="invalid_token"'


class Seen:
    """One request, byte by byte.

    :ivar body: what was received of the body, its chunks joined.
    :ivar complete: whether all of it came.
    """

    def __init__(self, head: bytes) -> None:
        self.raw = bytearray(head)
        line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.method, self.target, _ = line.split(" ", 2)
        self.path, _, self.query = self.target.partition("?")
        self.fields = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        self.body = bytearray()
        self.complete = False

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name.lower()]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    @property
    def authorization(self) -> list[str]:
        return self.all("authorization")


Reply = Callable[[Seen], bytes]
SlowReply = Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]


class Wire:
    """What came, and over how many connections."""

    def __init__(self, reply: Reply | SlowReply | bytes, early: Callable[[Seen], bool]) -> None:
        self.reply = reply
        self.seen: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.received = 0
        self.closed = asyncio.Event()
        self.url = URL()
        self._early = early
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def authorization(self) -> list[list[str]]:
        """The values of Authorization of each request."""
        return [seen.authorization for seen in self.seen]

    @property
    def bodies(self) -> list[bytes]:
        return [bytes(seen.body) for seen in self.seen]

    async def until_closed(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(20):
            while self.open:
                self.closed.clear()
                await self.closed.wait()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self.open -= 1
            self.closed.set()
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        seen = Seen(await reader.readuntil(b"\r\n\r\n"))
        self.received += len(seen.raw)
        self.seen.append(seen)
        early = self._early(seen)
        if early:
            await self._write(seen, writer)
        elif seen.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if seen.get("transfer-encoding") == "chunked":
            await self._chunks(seen, reader)
        else:
            left = int(seen.get("content-length") or 0)
            while left:
                part = await reader.read(min(left, 65536))
                if not part:
                    return False
                left -= len(part)
                self._got(seen, part)
        seen.complete = True
        return early or await self._write(seen, writer)

    async def _chunks(self, seen: Seen, reader: asyncio.StreamReader) -> None:
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            self._got(seen, await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")

    def _got(self, seen: Seen, part: bytes) -> None:
        seen.body += part
        seen.raw += part
        self.received += len(part)

    async def _write(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        if isinstance(self.reply, bytes):
            made: bytes | None = self.reply
        elif inspect.iscoroutinefunction(self.reply):
            made = await self.reply(seen, writer)
        else:
            made = self.reply(seen)  # type: ignore[call-arg, assignment]
        if made is None:
            return False
        writer.write(made)
        await writer.drain()
        return True

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def record(
    reply: Reply | SlowReply | bytes | None = None,
    *,
    early: bool | Callable[[Seen], bool] = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Wire]:
    """A recorder on a port of its own.

    :param reply: the bytes of every answer, a function of the request that yields them, or a coroutine function of the request
        and the writer, which returns None to have the connection closed.
    :param early: whether it answers before the body is read.
    """
    wire = Wire(reply if reply is not None else answer(200, b"ok"), early if callable(early) else lambda seen: early)
    listener = await asyncio.start_server(wire.accept, "127.0.0.1", 0, ssl=tls, limit=2**20)
    port = listener.sockets[0].getsockname()[1]
    wire.url = URL(f"{'https' if tls else 'http'}://127.0.0.1:{port}/")
    try:
        yield wire
    finally:
        listener.close()
        await wire.close()


def only(*tokens: str, status: int = 401, challenge: str | None = INVALID, body: bytes = b"no") -> Reply:
    """A resource server that takes these tokens, and refuses others in this way."""

    def reply(seen: Seen) -> bytes:
        if seen.authorization in [[f"Bearer {token}"] for token in tokens]:
            return answer(200, b"ok")
        return answer(status, body, {"WWW-Authenticate": challenge} if challenge is not None else {})

    return reply


def redirect(status: int, to: object) -> bytes:
    return answer(status, b"", {"Location": str(to)})


def elsewhere(port_of: Callable[[URL], int | None]) -> Callable[[ClientRequest, ClientHandlerType], Awaitable[ClientResponse]]:
    """An innermost middleware that sends a request to a port of this machine, as a resolver and a tunnel would."""

    async def send(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        port = port_of(request.url)
        if port is None:
            return await handler(request)
        named = request.url
        path, query = named.raw_path or "/", named.raw_query_string
        request.url = URL.build(scheme="http", host="127.0.0.1", port=port, path=path, query_string=query, encoded=True)
        try:
            return await handler(request)
        finally:
            request.url = named

    return send


class Rotating:
    """A source of ``at-1``; each time that its current token is refused, it has the next.

    :ivar refusals: what it was told.
    :ivar asked: how often it was asked.
    """

    def __init__(self, last: int = 1_000_000) -> None:
        self.refusals: list[Refusal] = []
        self.asked = 0
        self.number = 1
        self._last = last

    async def token(self, refused: Refusal | None = None) -> Token | None:
        self.asked += 1
        await asyncio.sleep(0)
        if refused is not None:
            self.refusals.append(refused)
            if refused.token == self.current and self.number < self._last:
                self.number += 1
        return self.current

    @property
    def current(self) -> Token:
        return Token(f"at-{self.number}")


class _Stop(Exception):
    pass


async def prepared(method: str, url: str | URL, **kwargs: Any) -> ClientRequest:
    """The request as a middleware gets it; nothing is sent."""
    requests: list[ClientRequest] = []

    async def stop(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        requests.append(request)
        raise _Stop

    async with ClientSession() as session:
        with contextlib.suppress(_Stop):
            await session.request(method, url, middlewares=[stop], **kwargs)
    return requests[0]
