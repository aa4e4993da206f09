"""What a test can make go wrong: answers that are prepared in advance, requests that are held, connections that are cut."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from ..errors import ConfigurationError

__all__ = ("Fault", "Faults", "Held")


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one request.

    :param cut: ``"before"``: the connection is cut and nothing was done; ``"after"``: it was done, and the answer is lost.
    """

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cut: str = ""
    path: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.status, bool) or not isinstance(self.status, int) or not 200 <= self.status <= 599:
            raise ConfigurationError("status must be an HTTP status between 200 and 599")

    def response(self) -> web.Response:
        """The answer, byte for byte."""
        return web.Response(status=self.status, body=self.body, headers=self.headers)


class Faults:
    """Faults in the order in which they were asked for; each request takes one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Fault] = deque()

    def add(self, fault: Fault, times: int = 1) -> None:
        """Queue *fault* for the next *times* requests."""
        if times < 1:
            raise ConfigurationError("times must be at least 1")
        with self._lock:
            self._queue.extend([fault] * times)

    def take(self, path: str | None = None) -> Fault | None:
        """The first fault that is meant for *path*, taken out of the queue."""
        with self._lock:
            for index, fault in enumerate(self._queue):
                if fault.path is None or fault.path == path:
                    del self._queue[index]
                    return fault
            return None


class Held:
    """A gate that requests wait at; ``with server.hold() as held:`` closes it, and leaving the block opens it for good."""

    def __init__(self, gates: list[Held], path: str | None = None, decided: bool = False) -> None:
        self._gates = gates
        self._path = path
        self._decided = decided
        self._lock = threading.Lock()
        self._arrived = 0
        self._closed = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def __repr__(self) -> str:
        return f"<Held: {self.count} arrived, {'closed' if self._closed else 'open'}>"

    @property
    def count(self) -> int:
        """How many requests have arrived at the gate since it was closed."""
        with self._lock:
            return self._arrived

    def close(self) -> None:
        """Let nobody through from now on."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._gates.append(self)

    def release(self) -> None:
        """Let everybody through who waits, and everybody who comes."""
        with self._lock:
            if self._closed:
                self._closed = False
                self._gates.remove(self)
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            # A server that was stopped meanwhile has no loop any more, and nobody who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    async def arrived(self, n: int = 1, *, timeout: float = 30.0) -> None:
        """Return once *n* requests have arrived at the gate; the caller's loop goes on meanwhile.

        :param timeout: seconds after which it is given up.
        :raises TimeoutError: where fewer came.
        """
        deadline = time.monotonic() + timeout
        while (count := self.count) < n:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{count} of {n} requests arrived within {timeout} s")
            await asyncio.sleep(0.002)

    async def wait(self, path: str, decided: bool = False) -> None:
        """Wait at the gate, if it is meant for this request at this stage; called on the server's loop."""
        with self._lock:
            if not self._closed or self._path not in (None, path) or self._decided is not decided:
                return
            self._arrived += 1
            event = asyncio.Event()
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()

    def __enter__(self) -> Self:
        self.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()


def cut(request: web.Request) -> web.Response:
    """Cut the connection of *request*, so that the answer is lost however far it got."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)
