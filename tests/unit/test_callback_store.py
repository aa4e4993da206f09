"""The store that is two functions of the user's."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from aiohttp_oauth_middleware import CallbackStore, ConfigurationError, Record, StoreCorrupted, StoreError
from tests.strict_server import all_of


def record(version: int = 1, body: bytes = b"secret body") -> Record:
    return Record(version, "alice", body)


class Table:
    """Where a user keeps texts."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def load(self, key: str) -> str | None:
        return self.texts.get(key)

    def save(self, key: str, text: str | None) -> None:
        if text is None:
            del self.texts[key]
        else:
            self.texts[key] = text

    async def load_slowly(self, key: str) -> str | None:
        await asyncio.sleep(0)
        return self.load(key)

    async def save_slowly(self, key: str, text: str | None) -> None:
        await asyncio.sleep(0)
        self.save(key, text)


async def test_plain_functions_and_coroutine_functions_get_and_give_text() -> None:
    table = Table()
    for store in (CallbackStore(table.load, table.save), CallbackStore(table.load_slowly, table.save_slowly)):
        assert await store.load("k") is None
        assert await store.save("k", record(), expected=0)
        assert table.texts["k"].isascii()
        assert await store.load("k") == record()
        assert not await store.save("k", record(), expected=0)
        assert not await store.delete("k", expected=2)
        assert await store.delete("k", expected=1)
        assert not await store.delete("k")
        assert table.texts == {}
        await store.aclose()


async def test_of_two_who_write_at_once_in_a_process_one_does() -> None:
    table = Table()
    store = CallbackStore(table.load_slowly, table.save_slowly)
    assert sorted(await asyncio.gather(*(store.save("k", record(), expected=0) for _ in range(10)))) == [False] * 9 + [True]


async def test_keys_are_listed_where_a_function_does() -> None:
    table = Table()

    async def keys() -> list[str]:
        return list(table.texts)

    store = CallbackStore(table.load, table.save, keys=keys)
    await store.save("k", record(), expected=0)
    assert await all_of(store.keys()) == ["k"]
    with pytest.raises(StoreError, match="give it a function keys="):
        await all_of(CallbackStore(table.load, table.save).keys())


async def test_F_50_what_a_function_raises_is_a_store_error() -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("no such table")

    table = Table()
    for store, name in ((CallbackStore(broken, table.save), "load"), (CallbackStore(table.load, broken), "save")):
        with pytest.raises(StoreError, match=f"CallbackStore: {name} raised KeyError") as caught:
            await store.save("k", record(), expected=0)
        assert isinstance(caught.value.__cause__, KeyError)

    def own(key: str) -> str:
        raise StoreError("the vault is sealed")

    with pytest.raises(StoreError, match="the vault is sealed"):
        await CallbackStore(own, table.save).load("k")


async def test_F_51_what_is_not_what_was_saved_is_corrupt_and_not_shown() -> None:
    table = Table()
    store = CallbackStore(table.load, table.save)
    await store.save("k", record(), expected=0)
    bad = table.texts["k"] = table.texts["k"].replace("alice", "mallory")
    with pytest.raises(StoreCorrupted, match="what CallbackStore's load returned does not match its checksum") as caught:
        await store.load("k")
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert bad not in shown.partition("callback.py")[2]
    table.texts["k"] = b"bytes"  # type: ignore[assignment]
    with pytest.raises(StoreError, match="load returned bytes, and neither text nor None"):
        await store.load("k")


def test_what_can_t_be_called_is_refused_at_once() -> None:
    table = Table()
    for arguments in ((None, table.save, None), (table.load, "save", None), (table.load, table.save, ["k"])):
        with pytest.raises(ConfigurationError, match="must be a function"):
            CallbackStore(arguments[0], arguments[1], keys=arguments[2])  # type: ignore[arg-type]
    assert repr(CallbackStore(table.load, table.save)) == "<CallbackStore of Table.load>"
