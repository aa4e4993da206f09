"""The store that every process has: a dict."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import StoreLockTimeout
from .store import Lock, Record

__all__ = ("LocalLocks", "MemoryStore")


class _Held:
    predecessor_is_dead = True  # in one process nobody dies alone

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()

    @property
    def orphaned(self) -> bool:
        """Whether what held it can't release it any more: its loop was closed under it, or this is a forked child."""
        return self.loop.is_closed() or self.process != os.getpid()


class LocalLocks:
    """A lock for each key, across the loops and threads of this process; it exists only while it is held or waited for."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locked: dict[str, _Held] = {}

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        # Within a loop a flight excludes already, so this waits only for another loop or thread: seldom, and by polling, for
        # no primitive of one loop's can wake another's.
        give_up = time.monotonic() + wait
        held = _Held()
        while not self._acquire(key, held):
            if time.monotonic() >= give_up:
                raise StoreLockTimeout(f"the lock of a key was held elsewhere in this process for more than {wait:g} s")
            await asyncio.sleep(random.uniform(0.002, 0.02))
        try:
            yield held
        finally:
            with self._guard:
                if self._locked.get(key) is held:
                    del self._locked[key]

    def _acquire(self, key: str, held: _Held) -> bool:
        with self._guard:
            if (current := self._locked.get(key)) is not None and not current.orphaned:
                return False
            self._locked[key] = held
            return True


class MemoryStore(LocalLocks):
    """Keeps tokens as long as the process lives. It may be shared by several Tokens, loops and threads.

    It forgets on ``forget`` and ``revoke``, never to make room: a refresh token that it dropped would be lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, Record] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._records)} records>"

    async def load(self, key: str) -> Record | None:
        return self._records.get(key)

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        with self._guard:
            current = self._records.get(key)
            if (current.version if current else 0) != expected:
                return False
            self._records[key] = record
            return True

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        with self._guard:
            current = self._records.get(key)
            if current is None or (expected is not None and current.version != expected):
                return False
            del self._records[key]
            return True

    async def keys(self) -> AsyncIterator[str]:
        for key in list(self._records):
            yield key

    async def aclose(self) -> None:
        """Nothing is held open; the tokens stay."""
