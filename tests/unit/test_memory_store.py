"""The store in memory: compare-and-swap, a lock for each key across loops and threads, and no forgetting by itself."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest

from aiohttp_oauth_middleware import MemoryStore, Record, StoreLockTimeout, TokenStore
from aiohttp_oauth_middleware.stores.memory import LocalLocks
from tests.strict_server import all_of, turns


def record(version: int, body: bytes = b"secret body") -> Record:
    return Record(version, "alice", body)


async def test_a_record_is_loaded_as_it_was_saved_and_never_printed() -> None:
    store: TokenStore = MemoryStore()
    assert await store.load("k") is None
    assert await store.save("k", record(1), expected=0)
    assert await store.load("k") == record(1)
    assert await all_of(store.keys()) == ["k"]
    assert "secret body" not in f"{store!r}{await store.load('k')!r}"
    assert repr(store) == "<MemoryStore of 1 records>"
    await store.aclose()
    assert await store.load("k") == record(1)


async def test_a_save_compares_the_version() -> None:
    store = MemoryStore()
    assert not await store.save("k", record(2), expected=1)
    assert await store.load("k") is None
    assert await store.save("k", record(1), expected=0)
    assert not await store.save("k", record(1, b"other"), expected=0)
    assert await store.save("k", record(2), expected=1)
    assert not await store.save("k", record(2, b"late"), expected=1)
    assert await store.load("k") == record(2)


async def test_a_delete_compares_the_version_where_it_is_given_one() -> None:
    store = MemoryStore()
    assert not await store.delete("k")
    assert not await store.delete("k", expected=0)
    await store.save("k", record(1), expected=0)
    assert not await store.delete("k", expected=2)
    assert await store.delete("k", expected=1)
    await store.save("k", record(1), expected=0)
    assert await store.delete("k")
    assert await store.load("k") is None


async def test_F_19_it_never_forgets_to_make_room() -> None:
    store = MemoryStore()
    for number in range(20_000):
        await store.save(str(number), record(1), expected=0)
    assert len(await all_of(store.keys())) == 20_000


async def test_the_lock_excludes_per_key_and_a_kernel_would_say_that_nobody_died() -> None:
    store = MemoryStore()
    async with store.lock("a", wait=0.0) as held:
        assert held.predecessor_is_dead
        async with store.lock("b", wait=0.0):
            pass
        with pytest.raises(StoreLockTimeout):
            async with store.lock("a", wait=0.0):
                pass
    async with store.lock("a", wait=0.0):
        pass
    assert not store._locked


async def test_the_lock_is_freed_by_an_error_and_by_a_cancellation() -> None:
    store = MemoryStore()

    async def hold() -> None:
        async with store.lock("a", wait=0.0):
            await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        async with store.lock("a", wait=0.0):
            raise ZeroDivisionError
    task = asyncio.create_task(hold())
    await turns(2)
    task.cancel()
    await asyncio.wait([task])
    async with store.lock("a", wait=0.0):
        pass


async def test_who_waits_for_the_lock_gets_it_and_a_cancelled_waiter_holds_nothing() -> None:
    store = LocalLocks()

    async def take() -> str:
        async with store.lock("a", wait=60.0):
            return "taken"

    async with store.lock("a", wait=0.0):
        waiting, cancelled = asyncio.create_task(take()), asyncio.create_task(take())
        await turns(3)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert not waiting.done()
    assert await waiting == "taken"
    assert not store._locked


def test_F_15_the_lock_excludes_across_threads_and_loops() -> None:
    store = MemoryStore()
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        for _ in range(25):
            async with store.lock("a", wait=60.0):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not store._locked


def test_F_15_a_loop_that_was_closed_while_it_held_the_lock_does_not_hold_it_for_ever() -> None:
    store = MemoryStore()

    async def hold() -> None:
        async with store.lock("a", wait=0.0):
            await asyncio.Event().wait()

    async def start() -> asyncio.Task[None]:
        task = asyncio.create_task(hold())
        await turns(2)
        return task

    async def take() -> None:
        async with store.lock("a", wait=0.0):
            holder.get_coro().close()  # what the garbage collector does sooner or later
            with pytest.raises(StoreLockTimeout):
                async with store.lock("a", wait=0.0):
                    pass

    loop = asyncio.new_event_loop()
    holder = loop.run_until_complete(start())
    loop.close()
    holder._log_destroy_pending = False  # type: ignore[attr-defined]
    asyncio.run(take())
    gc.collect()
    assert not store._locked


async def test_F_16_a_forked_child_does_not_hold_what_its_parent_held(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with store.lock("a", wait=0.0):
        monkeypatch.setattr(os, "getpid", lambda: 1)  # as in the child
        async with store.lock("a", wait=0.0):
            pass
