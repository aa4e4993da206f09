"""Many processes over one store: how they are started, killed one by one, and asked for what they have seen."""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from aiohttp_oauth_middleware import StoreCorrupted, StoreLockTimeout, Tokens
from tests.soak.server import CONTEXT, DEADLINE, ServerProcess
from tests.soak.stores import STORES
from tests.soak.worker import Load, Report, load, turns_file

__all__ = ("Crew", "Toll", "killed_one_by_one", "percentile", "so_many_refreshes", "under_load")


class Crew:
    """So many workers under the same load."""

    def __init__(self, number: int, order: Load) -> None:
        self._order = order
        self._number = number
        self.workers: dict[Connection, Any] = {}
        self._seen = Report()

    def __enter__(self) -> Self:
        for _ in range(self._number):
            self.hire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for process in self.workers.values():
            process.kill()
            process.join()

    def hire(self) -> None:
        """Start one more."""
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=load, args=(theirs, self._order), daemon=True)
        process.start()
        theirs.close()
        self.workers[ours] = process

    def kill(self, pipe: Connection) -> int:
        """Kill one, as by kill -9, and return its process id."""
        self.listen()
        process = self.workers.pop(pipe)
        process.kill()
        process.join()
        with suppress(EOFError):
            while pipe.poll():
                self._heard(pipe)
        pipe.close()
        return int(process.pid)

    def listen(self) -> None:
        """Hear what they have to say."""
        while ready := wait(list(self.workers), timeout=0):
            for pipe in ready:
                assert isinstance(pipe, Connection)
                self._heard(pipe)

    def report(self) -> Report:
        """Tell all that it is enough, and return what they and those before them have seen."""
        for pipe in self.workers:
            pipe.send("enough")
        for pipe in self.workers:
            while not self._heard(pipe).last:
                pass
        return self._seen

    def _heard(self, pipe: Connection) -> Report:
        assert pipe.poll(DEADLINE), "a worker does not answer"
        report = pipe.recv()
        assert isinstance(report, Report)
        seen = self._seen
        seen.ok += report.ok
        seen.signed_out += report.signed_out
        seen.failed += report.failed
        seen.in_doubt |= report.in_doubt
        seen.latencies += report.latencies
        seen.lock_waits += report.lock_waits
        seen.events += report.events
        return report


async def so_many_refreshes(server: ServerProcess, number: int) -> None:
    """Return once the server has granted so many more."""
    wanted = server.counts().refreshes + number
    give_up = time.monotonic() + DEADLINE + 10.0 * number
    while (granted := server.counts().refreshes) < wanted:
        assert time.monotonic() < give_up, f"{granted} of {wanted} refreshes were granted"
        await asyncio.sleep(0.02)


async def under_load(server: ServerProcess, order: Load, until: Callable[[], Awaitable[None]], *, workers: int = 8) -> Report:
    """What so many workers saw *until* then."""
    await Tokens(server.client(), store=STORES[order.store].make(order.place)).save(server.issue())
    with Crew(workers, order) as crew:
        await until()
        return crew.report()


@dataclass
class Toll:
    """What the kills have cost.

    :ivar corrupt: records that could not be read.
    :ivar stuck: how often nobody had the lock for a second, though somebody wanted it, and nobody was at the server either.
    :ivar sign_ins: how often somebody had to sign in again.
    :ivar killed: the processes.
    :ivar seen: what the workers saw, of those that were killed what was bad.
    """

    corrupt: int = 0
    stuck: int = 0
    sign_ins: int = 0
    killed: set[str] = field(default_factory=set)
    seen: Report = field(default_factory=Report)


async def killed_one_by_one(
    server: ServerProcess, order: Load, times: int, pause: Callable[[], Awaitable[None]], *, workers: int = 8
) -> Toll:
    """Kill one worker after the other, each after a *pause*, and start another in its place."""
    toll = Toll()
    store = STORES[order.store].make(order.place)
    tokens = Tokens(server.client(), store=store)
    await tokens.save(server.issue())
    key = tokens._keyed("default")._slot.key
    with Crew(workers, order) as crew:
        for _ in range(times):
            await pause()
            pid = crew.kill(random.choice(list(crew.workers)))
            crew.hire()
            toll.killed.add(f"{socket.gethostname()}:{pid}")
            before = _progress(server, order)
            try:
                await store.load(key)
                async with store.lock(key, wait=1.0):
                    pass
            except StoreCorrupted:
                toll.corrupt += 1
            except StoreLockTimeout:
                toll.stuck += _progress(server, order) == before
            if server.counts().families_revoked > toll.sign_ins:
                toll.sign_ins += 1
                await tokens.save(server.issue())
        toll.seen = crew.report()
    await tokens.aclose()
    return toll


def _progress(server: ServerProcess, order: Load) -> tuple[int, int]:
    """How often a worker has had the lock, and how often one came to the server."""
    path = turns_file(order.place)
    return os.path.getsize(path) if os.path.exists(path) else 0, server.counts().token_requests


def percentile(values: Iterable[float], share: float) -> float:
    """The value that so large a share of *values* doesn't exceed; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
