"""Every store of ours passes the checks that a user's own can be run against, and a store that is wanting does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from aiohttp_oauth_middleware import (
    CallbackStore,
    FileStore,
    KeyringStore,
    MemoryStore,
    Record,
    SealedStore,
    SQLiteStore,
    TokenStore,
)
from aiohttp_oauth_middleware.stores.store import Lock
from aiohttp_oauth_middleware.testing.store_conformance import CHECKS, Check, check_store
from tests.keyring_backend import DictBackend

MakerOf = Callable[[Path], Callable[[], TokenStore]]


def _memory(folder: Path) -> Callable[[], TokenStore]:
    store = MemoryStore()
    return lambda: store


def _callback(folder: Path) -> Callable[[], TokenStore]:
    texts: dict[str, str] = {}

    async def save(key: str, text: str | None) -> None:
        await asyncio.sleep(0)
        if text is None:
            del texts[key]
        else:
            texts[key] = text

    store = CallbackStore(texts.get, save, keys=lambda: list(texts))
    return lambda: store


def _keyring(entry_size: int) -> MakerOf:
    def maker(folder: Path) -> Callable[[], TokenStore]:
        backend = DictBackend(entry_size)
        return lambda: KeyringStore("my-cli", locks=folder / "locks", backend=backend, entry_size=entry_size)

    return maker


def _sealed(inner: MakerOf) -> MakerOf:
    def maker(folder: Path) -> Callable[[], TokenStore]:
        make, key = inner(folder), SealedStore.generate_key()
        return lambda: SealedStore(make(), key)

    return maker


def _file(folder: Path) -> Callable[[], TokenStore]:
    return lambda: FileStore(folder / "tokens")


def _sqlite(folder: Path) -> Callable[[], TokenStore]:
    return lambda: SQLiteStore(folder / "tokens.db")


MAKERS: dict[str, MakerOf] = {
    "memory": _memory,
    "callback": _callback,
    "file": _file,
    "sqlite": _sqlite,
    "keyring": _keyring(100_000),
    "keyring-windows": _keyring(1_200),
    "sealed-memory": _sealed(_memory),
    "sealed-file": _sealed(_file),
    "sealed-sqlite": _sealed(_sqlite),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("store", MAKERS)
async def test_S_23_each_store_passes_each_check(check: Check, store: str, tmp_path: Path) -> None:
    await check(MAKERS[store](tmp_path))


async def test_all_checks_in_one_call() -> None:
    store = MemoryStore()
    await check_store(lambda: store)
    assert repr(store) == "<MemoryStore of 0 records>"


class Careless(MemoryStore):
    """It does not compare."""

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        self._records[key] = record
        return True


async def test_a_store_that_is_wanting_is_told_what_it_lacks() -> None:
    store = Careless()
    with pytest.raises(AssertionError, match="where nothing is, only 0 is expected") as caught:
        await check_store(lambda: store)
    assert caught.value.__notes__ == ["in the check a_save_compares_the_version"]
    assert not store._records
    needs_versions = ("a_save_compares_the_version", "of_fifty_who_write_at_once_each_counts", "threads_exclude_each_other")
    await check_store(lambda: store, leave_out=needs_versions)


async def test_two_objects_that_share_nothing_are_told_apart() -> None:
    with pytest.raises(AssertionError, match="another store object sees it at once"):
        await check_store(MemoryStore)
