"""The stores that the fault bench is run with, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp_oauth_middleware import FileStore, Record, RedisStore, SQLiteStore, TokenStore
from aiohttp_oauth_middleware.stores.store import Lock
from tests.interop import redis_server

__all__ = ("KERNEL_LOCKED", "STORES", "Kind", "Wrapped")

# Of a lock in Redis, in seconds.
LEASE: Final = 1.0


class Kind(NamedTuple):
    """How a store of that kind is made.

    :param make: a store of the directory that it is given, the same one in every process.
    :param kernel_lock: whether the lock of a process that was killed is free at that moment; a lease has to run out first.
    :param running: what has to run meanwhile.
    :param needs: the fixture that says whether it can.
    """

    make: Callable[[str], TokenStore]
    kernel_lock: bool = True
    running: Callable[[str], AbstractContextManager[None]] = lambda place: nullcontext()
    needs: str = ""


@contextmanager
def _redis(place: str) -> Iterator[None]:
    """A server in memory, whose port is in a file."""
    with redis_server.redis_server(Path(place)) as server:
        Path(place, "port").write_text(str(server.port))
        yield


def _redis_store(place: str) -> TokenStore:
    from redis.asyncio import Redis

    port = int(Path(place, "port").read_text())
    return RedisStore(lambda: Redis(port=port), lease=LEASE)


STORES: Final[dict[str, Kind]] = {
    "file": Kind(lambda place: FileStore(f"{place}/tokens")),
    "sqlite": Kind(lambda place: SQLiteStore(f"{place}/tokens.db")),
    "redis": Kind(_redis_store, kernel_lock=False, running=_redis, needs="redis_is_there"),
}
KERNEL_LOCKED: Final = [name for name, kind in STORES.items() if kind.kernel_lock]


class Wrapped:
    """A store around another one, for what a test has to add."""

    def __init__(self, store: TokenStore) -> None:
        self.inner = store

    async def load(self, key: str) -> Record | None:
        return await self.inner.load(key)

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        return await self.inner.save(key, record, expected=expected, lock=lock)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self.inner.delete(key, expected=expected)

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        return self.inner.lock(key, wait=wait)

    def keys(self) -> AsyncIterator[str]:
        return self.inner.keys()

    async def aclose(self) -> None:
        await self.inner.aclose()
