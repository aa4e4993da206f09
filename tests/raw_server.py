"""A server that is nothing but a socket: it keeps what came, byte by byte, and answers with whatever bytes a test wants."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse

__all__ = ("RawServer", "Request", "answer", "basic_of", "json_answer", "response", "serve", "token_answer")


class Request:
    """One request as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.method, self.target, _ = line.split(" ", 2)
        self.path = self.target.partition("?")[0]
        self.fields = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        self.headers = dict(self.fields)
        self.body = body

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The form, or the query of a GET."""
        text = self.body.decode() if self.body else self.target.partition("?")[2]
        return parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))

    @property
    def form(self) -> dict[str, str]:
        """The form of which no name stands twice."""
        form = dict(self.pairs)
        assert len(form) == len(self.pairs), f"a parameter is repeated: {self.pairs}"
        return form


Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[bytes | None]]


class RawServer:
    """What it saw: each connection that was made to it, and each request."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.connections = 0
        self.open_connections = 0
        self.requests: list[Request] = []
        self.changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.port = 0

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for *condition*, looked at whenever something happens here."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self.changed.wait()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        self.changed.set()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                request = Request(head, await reader.readexactly(length))
                self.requests.append(request)
                self.changed.set()
                reply = await self._reply(request, writer)
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            self.changed.set()
            writer.transport.abort()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serve(reply: bytes | Callable[[Request], bytes] | Reply | None = None) -> AsyncIterator[RawServer]:
    """A raw server on a port of its own.

    :param reply: the bytes of every answer; or a function of the request that yields them; or a coroutine function of the
        request and the writer, which may write by itself and returns None to have the connection closed.
    """

    async def write(request: Request, writer: asyncio.StreamWriter) -> bytes | None:
        if reply is None:
            return answer(404)
        if isinstance(reply, bytes):
            return reply
        if inspect.iscoroutinefunction(reply):
            written: bytes | None = await reply(request, writer)
            return written
        return reply(request)  # type: ignore[call-arg, return-value]

    server = RawServer(write)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{server.port}"
    try:
        yield server
    finally:
        listener.close()
        await server.close()


def answer(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """An answer as bytes; without a content type unless *headers* has one."""
    fields = {"Content-Length": str(len(body))} | dict(headers or {})
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    return answer(status, json.dumps(data).encode(), {"Content-Type": "application/json"} | dict(headers or {}))


def token_answer(access_token: str = "at", **members: object) -> bytes:
    return json_answer({"access_token": access_token, "token_type": "Bearer", "expires_in": 3600, **members})


def basic_of(request: Request) -> str | None:
    """What stands in ``Authorization: Basic``, decoded from base64 only."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return base64.b64decode(value).decode() if scheme == "Basic" else None


def response(
    body: bytes | str | Mapping[str, object], status: int = 200, content_type: str | None = "application/json", **headers: str
) -> EndpointResponse:
    """An answer as a parser gets it; underscores in the names of *headers* are dashes."""
    if isinstance(body, Mapping):
        body = json.dumps(body)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        fields["Content-Type"] = content_type
    return EndpointResponse(status, fields, body.encode() if isinstance(body, str) else body)
