"""The stores that the fault bench is run with, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple

from aiohttp_oauth_middleware import FileStore, Record, SQLiteStore, TokenStore
from aiohttp_oauth_middleware.stores.store import Lock

__all__ = ("STORES", "Kind", "Wrapped")


class Kind(NamedTuple):
    """How a store of that kind is made.

    :param make: a store of the directory that it is given, the same one in every process.
    :param kernel_lock: whether the lock of a process that was killed is free at that moment; a lease has to run out first.
    """

    make: Callable[[str], TokenStore]
    kernel_lock: bool = True


STORES: Final[dict[str, Kind]] = {
    "file": Kind(lambda place: FileStore(f"{place}/tokens")),
    "sqlite": Kind(lambda place: SQLiteStore(f"{place}/tokens.db")),
}


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
