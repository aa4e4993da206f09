"""Whichever call of a store fails, and however: no refresh token is spent without a durable intent, and none is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiohttp_oauth_middleware import OAuthError, Record, StoreError, StoreLockTimeout, Tokens
from aiohttp_oauth_middleware.stores.store import Lock
from tests.clock import VirtualClock
from tests.soak.stores import Wrapped
from tests.strict_server import DirectClient, StrictServer, WatchedStore

ERRORS: list[Callable[[], Exception]] = [
    lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    lambda: StoreError("it failed"),
    lambda: StoreLockTimeout("it was held"),
    lambda: sqlite3.OperationalError("database is locked"),
    lambda: RuntimeError("a defect of the store"),
    lambda: TimeoutError(),
]
CALLS = range(12)


class Failing(Wrapped):
    """A store of which so many calls fail.

    :param calls: their numbers.
    :param after: whether they have their effect all the same.
    """

    def __init__(self, store: WatchedStore, calls: range, error: Callable[[], Exception], after: bool) -> None:
        super().__init__(store)
        self.calls = calls
        self.error = error
        self.after = after
        self.made = 0

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        number, self.made = self.made, self.made + 1
        if number in self.calls and not self.after:
            raise self.error()
        yield
        if number in self.calls and self.after:
            raise self.error()

    async def load(self, key: str) -> Record | None:
        async with self._call():
            return await super().load(key)

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        async with self._call():
            return await super().save(key, record, expected=expected, lock=lock)

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        async with self._call():
            held = super().lock(key, wait=wait)
        async with held as lock:
            yield lock


def noted() -> list[dict[str, Any]]:
    """What nobody handles from now on."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    return unhandled


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("length", [1, 2, 3, 30])
async def test_G_09_F_50_P0_whichever_calls_of_a_store_fail_nothing_is_spent_in_vain(length: int, after: bool) -> None:
    unhandled = noted()
    for first in CALLS:
        for error in ERRORS:
            where = f"calls {first} to {first + length - 1}, {error()!r}"
            clock = VirtualClock()
            server = StrictServer(clock)
            chance = random.Random(where)
            watched = WatchedStore(lambda chance=chance: chance.randint(0, 2), server)  # type: ignore[misc]
            store = Failing(watched, range(0), error, after)
            workers = [Tokens(DirectClient(server), store=store) for _ in range(2)]
            await workers[0].save(server.sign_in())
            clock.advance(3600.0)
            store.made, store.calls = 0, range(first, first + length)
            crowd = [asyncio.create_task(workers[number % 2].token()) for number in range(6)]
            await asyncio.wait(crowd)
            for task in crowd:
                failure = task.exception()
                assert failure is None or isinstance(failure, OAuthError), where
                assert failure is not None or server.accepts(task.result().access_token), where
            check(server, watched, where)
            # The store is mended, and what is being written is written. Where it had stayed broken for too long, only who
            # got the token knows that the refresh token in the store was replaced; here it is he who comes first.
            store.calls = range(0)
            for tokens in workers:
                await tokens.aclose()
            for _ in range(3):
                clock.advance(3600.0)
                for tokens in workers:
                    assert server.accepts((await tokens.token()).access_token), where
                    check(server, watched, where)
    assert unhandled == []


def check(server: StrictServer, watched: WatchedStore, where: str) -> None:
    assert server.reuses == server.after_refusal == 0, where
    assert server.most_at_once <= 1, where
    assert watched.faults == [], where
    for refresh_token, number in server.presented.items():
        assert number <= watched.intents[refresh_token], f"{where}: it was sent without a durable intent"
