"""A loop in a thread of its own, and the web applications that it serves on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web

from ..errors import ConfigurationError

__all__ = ("HOST", "ServerThread", "Site")

HOST: Final = "127.0.0.1"

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Site:
    """One web application and its port; 0 until it is first served, and then the same each time."""

    make: Callable[[], web.Application]
    port: int = 0

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:<port>``. Raises ConfigurationError before it was first served."""
        if not self.port:
            raise ConfigurationError("the server has not been started: use it in a with block, or call start()")
        return f"http://{HOST}:{self.port}"


class ServerThread:
    """Serves sites until it is stopped. Its methods are called from any other thread, and block until they are done."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None
        self._runners: list[web.AppRunner] = []
        self._thread = threading.Thread(target=self._run, name="oauth-test-server", daemon=True)
        self._thread.start()
        self._ready.wait()

    def serve(self, site: Site) -> None:
        """Serve *site* on its port, or on one that is free."""
        self._call(self._serve(site))

    def stop(self) -> None:
        """Close every connection and end the thread."""
        assert self._loop is not None
        assert self._done is not None
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._ready.set()
        await self._done.wait()
        for runner in reversed(self._runners):
            await runner.cleanup()
        # A connection that is aborted is closed one turn of the loop later.
        await asyncio.sleep(0)

    async def _serve(self, site: Site) -> None:
        # The handlers that are still busy when the server stops are waited for no longer than this, in seconds.
        runner = web.AppRunner(site.make(), access_log=None, handle_signals=False, shutdown_timeout=0.01)
        await runner.setup()
        self._runners.append(runner)
        # Room for a thousand clients that come at once, which else wait for a second each.
        tcp = web.TCPSite(runner, HOST, site.port, backlog=2048)
        await tcp.start()
        site.port = runner.addresses[0][1]
