"""The other side of the wire: a raw HTTP/1.1 server in a process of its own, so that what is measured is the client.

It answers three things. ``/open`` answers 200 to anybody. ``/api`` answers 200 to a token of the current generation, and
otherwise 401. ``/token`` issues a token of the current generation, after ``latency`` seconds, for ``ttl`` seconds. ``/control``
sets these, ends a generation, and tells what was counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from .measure import SERVER_CORE, pin

__all__ = ("Wire", "wire")

PAYLOAD = json.dumps({"items": list(range(20))}).encode()


class _State:
    def __init__(self) -> None:
        self.generation = 0
        self.revoke_after = 0
        self.latency = 0.05
        self.ttl = 3600.0
        self.issued = 0
        self.counts: Counter[str] = Counter()

    def control(self, options: dict[str, str]) -> bytes:
        if "reset" in options:
            self.counts.clear()
        self.latency = float(options.get("latency", self.latency))
        self.ttl = float(options.get("ttl", self.ttl))
        self.revoke_after = int(options.get("revoke_after", self.revoke_after))
        return json.dumps({"generation": self.generation, **self.counts}).encode()

    def token(self) -> bytes:
        self.counts["token_requests"] += 1
        self.issued += 1
        token = f"g{self.generation}.{self.issued}.".ljust(160, "x")
        return json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": self.ttl}).encode()

    def admits(self, head: bytes) -> bool:
        if self.revoke_after:
            self.revoke_after -= 1
            if not self.revoke_after:
                self.generation += 1
        admitted = f"\r\nAuthorization: Bearer g{self.generation}.".encode() in head
        self.counts["admitted" if admitted else "refused"] += 1
        return admitted


class _Connection(asyncio.Protocol):
    def __init__(self, state: _State) -> None:
        self._state = state
        self._buffer = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of WriteTransport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            label = head.lower().find(b"\r\ncontent-length:")
            length = int(head[label + 17 :].split(b"\r\n", 1)[0]) if label >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        target = head.split(b" ", 2)[1]
        if target.startswith(b"/open"):
            self._write(200, PAYLOAD)
        elif target.startswith(b"/api"):
            if self._state.admits(head):
                self._write(200, PAYLOAD)
            else:
                self._write(401, b"{}", b'WWW-Authenticate: Bearer error="invalid_token"\r\n')
        elif target.startswith(b"/token"):
            body = self._state.token()
            asyncio.get_running_loop().call_later(self._state.latency, self._write, 200, body)
        else:
            self._write(200, self._state.control(dict(parse_qsl(urlsplit(target.decode()).query, keep_blank_values=True))))

    def _write(self, status: int, body: bytes, fields: bytes = b"") -> None:
        self._transport.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (status, fields, len(body), body)
        )


async def _serve() -> None:
    state = _State()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0, backlog=1024)
    pin(SERVER_CORE)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started it goes
    server.close()


class Wire:
    """The server, seen from the process that measures."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self._session = session

    async def control(self, **options: float) -> dict[str, int]:
        async with self._session.get(f"{self.origin}/control", params={k: str(v) for k, v in options.items()}) as response:
            counts: dict[str, int] = await response.json()
        return counts


@contextlib.contextmanager
def _process() -> Iterator[int]:
    """The server's process, which ends with its standard input; the port it listens on."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.wire"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["port"]
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    """A server that runs for as long as the context."""
    with _process() as port:
        async with aiohttp.ClientSession() as session:
            yield Wire(port, session)


def _run() -> None:
    run: Callable[..., None] = asyncio.run
    with contextlib.suppress(ImportError):
        run = importlib.import_module("uvloop").run
    run(_serve())


if __name__ == "__main__":
    _run()
