"""What every token store has to do, as checks that any store can be run against, one of your own too.

Each check is a coroutine function that takes a function which makes the store, and raises AssertionError where it is wanting::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_store(check, tmp_path):
        await check(lambda: MyStore(tmp_path))

Whatever the function returns must be over the same records each time: another object, so that the checks show how two exclude
each other, or the same one. It is called on the loop that uses the store. The records that the checks make are under keys of
their own, and are deleted in the end, so a database with other records in it will do. pytest is not needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Final

from ..errors import StoreLockTimeout
from ..stores.store import Record, TokenStore

__all__ = ("CHECKS", "Check", "MakeStore", "check_store")

MakeStore = Callable[[], TokenStore]
Check = Callable[[MakeStore], Awaitable[None]]

# Seconds: for ever, as far as a check goes.
_LONG: Final = 60.0

UNUSUAL_TEXTS: Final = (
    "",
    " ",
    ".",
    "../../etc/passwd",
    "a/b",
    "a\\b",
    "CON",
    "k.json",
    "k.lock",
    "Case",
    "case",
    "line\nbreak",
    "nul\0byte",
    "%00",
    "'; DROP TABLE records; --",
    "{hash}{tag}",
    "\u00fc",
    "u\u0308",  # another text, though it looks the same
    "\U0001f511",
    "\ud800",  # half of a pair, which UTF-8 can't say
    "long " * 20_000,
)
"""Keys and labels that a store may trip over."""


async def check_store(make_store: MakeStore, *, leave_out: Collection[str] = ()) -> None:
    """Run all checks.

    :param make_store: see above.
    :param leave_out: names of checks that this store need not pass.
    :raises AssertionError: one failed; a note on it names the check.
    """
    for check in CHECKS:
        if check.__name__ not in leave_out:
            try:
                await check(make_store)
            except BaseException as error:
                error.add_note(f"in the check {check.__name__}")
                raise


async def records_come_back_as_they_were_saved(make_store: MakeStore) -> None:
    """Any bytes, any label, any version."""
    async with _records(make_store) as (store, key):
        _expect(await store.load(key) is None, "where nothing was saved, load() returns None")
        bodies = (b"", b"\x00\xff\r\n\x1a", b'{"schema":1}', "\u00fc".encode("latin-1"), os.urandom(1_000_000))
        for version, body in enumerate(bodies, 1):
            record = Record(version, "alice", body)
            _expect(await store.save(key, record, expected=version - 1), "save() with the right version returns True")
            _expect(await store.load(key) == record, f"a body of {len(body)} bytes comes back as it was")
            _expect(await make_store().load(key) == record, "another store object sees it at once")
        for version, label in enumerate(UNUSUAL_TEXTS, len(bodies) + 1):
            record = Record(version, label, b"body")
            _expect(await store.save(key, record, expected=version - 1), "a label may be any text")
            _expect(await store.load(key) == record, f"the label {label[:30]!r} comes back as it was")
    async with _records(make_store) as (store, key):
        high = Record(2**40, "alice", b"body")
        _expect(await store.save(key, high, expected=0), "a version may be any whole number")
        _expect(await store.load(key) == high, "a high version comes back as it was")


async def a_save_compares_the_version(make_store: MakeStore) -> None:
    """Of two who have read the same version, one writes."""
    async with _records(make_store) as (store, key):
        first, other = Record(1, "alice", b"first"), Record(1, "alice", b"other")
        _expect(not await store.save(key, Record(2, "alice", b""), expected=1), "where nothing is, only 0 is expected")
        _expect(await store.load(key) is None, "a save that was refused writes nothing")
        _expect(await store.save(key, first, expected=0), "0 is expected where nothing is")
        _expect(not await store.save(key, other, expected=0), "0 is not expected where something is")
        second = Record(2, "alice", b"second")
        _expect(await make_store().save(key, second, expected=1), "the version that is there is the one to expect")
        _expect(not await store.save(key, Record(2, "alice", b"late"), expected=1), "an older version is not")
        _expect(await store.load(key) == second, "a save that was refused changes nothing")


async def a_delete_compares_the_version(make_store: MakeStore) -> None:
    """Where it is given one."""
    async with _records(make_store) as (store, key):
        _expect(not await store.delete(key), "where nothing is, nothing is deleted")
        _expect(not await store.delete(key, expected=1), "nor is it where a version is expected")
        await store.save(key, Record(1, "alice", b"body"), expected=0)
        _expect(not await store.delete(key, expected=2), "another version is not deleted")
        _expect(await store.load(key) is not None, "and is still there")
        _expect(await make_store().delete(key, expected=1), "the expected version is")
        _expect(await store.load(key) is None, "and is gone")
        _expect(await store.save(key, Record(1, "alice", b"again"), expected=0), "then 0 is expected again")
        _expect(await store.delete(key), "without a version whatever is there is deleted")
        _expect(await store.load(key) is None, "and is gone as well")


async def keys_are_any_text(make_store: MakeStore) -> None:
    """Of any length, and each for itself."""
    prefix = secrets.token_hex(8)
    store = make_store()
    keys = [prefix + text for text in UNUSUAL_TEXTS]
    try:
        for number, key in enumerate(keys):
            _expect(await store.save(key, Record(1, key, b"%d" % number), expected=0), f"{key[:40]!r} is a key of its own")
            async with store.lock(key, wait=_LONG):
                pass
        for number, key in enumerate(keys):
            _expect(await store.load(key) == Record(1, key, b"%d" % number), f"{key[:40]!r} has what was saved under it")
        listed = [key async for key in store.keys() if key.startswith(prefix)]  # noqa: SIM118
        _expect(sorted(listed) == sorted(keys), "keys() yields each key once, as it was given")
    finally:
        for key in keys:
            await store.delete(key)
        await store.aclose()


async def keys_lists_what_is_there(make_store: MakeStore) -> None:
    """And no longer what was deleted; the caller may write and delete meanwhile."""
    async with _records(make_store) as (store, key):
        keys = [f"{key} {number}" for number in range(30)]
        for one in keys:
            await store.save(one, Record(1, one, b"body"), expected=0)
        await store.delete(keys.pop())
        listed = set()
        async for one in make_store().keys():
            if one.startswith(f"{key} "):
                listed.add(one)
                await store.delete(one)
        _expect(listed == set(keys), "keys() yields the keys of all records, though they are deleted on the way")
        rest = [one async for one in store.keys() if one.startswith(f"{key} ")]  # noqa: SIM118
        _expect(rest == [], "keys() yields none of a record that was deleted")


async def of_fifty_who_write_at_once_each_counts(make_store: MakeStore) -> None:
    """Nobody's write is lost: each is refused until it builds upon the one before."""
    async with _records(make_store) as (_, key):

        async def add_one(store: TokenStore) -> None:
            while True:
                record = await store.load(key)
                version, count = (record.version, int(record.body)) if record is not None else (0, 0)
                if await store.save(key, Record(version + 1, "alice", b"%d" % (count + 1)), expected=version):
                    return

        stores = [make_store() for _ in range(5)]
        await asyncio.gather(*(add_one(stores[number % 5]) for number in range(50)))
        _expect(await stores[0].load(key) == Record(50, "alice", b"50"), "50 writes add up to 50")
        for store in stores:
            await store.aclose()


async def the_lock_excludes(make_store: MakeStore) -> None:
    """One at a time for each key, whichever store object it is asked of."""
    async with _records(make_store) as (store, key):
        inside, most = 0, 0

        async def work(own: TokenStore) -> None:
            nonlocal inside, most
            async with own.lock(key, wait=_LONG) as held:
                _expect(isinstance(held.predecessor_is_dead, bool), "predecessor_is_dead is True or False")
                inside += 1
                most = max(most, inside)
                await own.load(key)
                inside -= 1

        others = [make_store() for _ in range(5)]
        await asyncio.gather(*(work(own) for own in others for _ in range(4)))
        _expect(most == 1, f"{most} held the lock of one key at once")
        async with store.lock(key, wait=0.0), others[0].lock(f"{key} 2", wait=_LONG):
            pass  # of another key
        for other in others:
            await other.aclose()


async def the_lock_is_waited_for_within_a_bound(make_store: MakeStore) -> None:
    """Then it is StoreLockTimeout, and whoever holds it keeps it."""
    async with _records(make_store) as (store, key):
        other = make_store()
        async with store.lock(key, wait=_LONG):
            for wait in (0.0, 0.05):
                try:
                    async with other.lock(key, wait=wait):
                        _expect(False, "nobody gets a lock that is held")
                except StoreLockTimeout:
                    pass
            _expect(await other.save(key, Record(1, "alice", b""), expected=0), "save() does not need the lock")
            _expect(await store.load(key) is not None, "nor does load()")
        async with other.lock(key, wait=_LONG):
            pass
        await other.aclose()


async def the_lock_is_freed_whatever_happens(make_store: MakeStore) -> None:
    """By an error, by a cancellation of who holds it, and by one of who waits for it."""
    async with _records(make_store) as (store, key):
        with contextlib.suppress(ZeroDivisionError):
            async with store.lock(key, wait=_LONG):
                raise ZeroDivisionError
        holding = asyncio.Event()

        async def hold() -> None:
            async with store.lock(key, wait=_LONG):
                holding.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold())
        await holding.wait()
        # Each is cancelled at another point of its wait.
        waiting = [asyncio.create_task(hold()) for _ in range(10)]
        for turns, task in enumerate(waiting):
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait(waiting)
        _expect(all(task.cancelled() for task in waiting), "a wait can be cancelled")
        holder.cancel()
        await asyncio.wait([holder])
        other = make_store()
        async with other.lock(key, wait=_LONG):
            pass
        await other.aclose()


async def a_closed_store_keeps_its_records(make_store: MakeStore) -> None:
    """``aclose()`` may be called twice, and the store used again."""
    async with _records(make_store) as (store, key):
        record = Record(1, "alice", b"body")
        await store.save(key, record, expected=0)
        await store.aclose()
        await store.aclose()
        _expect(await make_store().load(key) == record, "another store object has the records")
        _expect(await store.load(key) == record, "and so has the closed one")
        async with store.lock(key, wait=_LONG):
            pass


async def two_loops_in_turn_use_one_store(make_store: MakeStore) -> None:
    """As programs do that call ``asyncio.run`` more than once."""
    store, key = make_store(), secrets.token_hex(8)

    async def one_more() -> int:
        async with store.lock(key, wait=_LONG):
            record = await store.load(key)
            version = record.version if record is not None else 0
            _expect(await store.save(key, Record(version + 1, "alice", b""), expected=version), "save() works on each loop")
            return version + 1

    async def clean() -> None:
        await store.delete(key)
        await store.aclose()

    def in_turn() -> None:
        try:
            _expect([asyncio.run(one_more()) for _ in range(3)] == [1, 2, 3], "each loop sees what the one before has saved")
        finally:
            asyncio.run(clean())

    await asyncio.to_thread(in_turn)


async def threads_exclude_each_other(make_store: MakeStore) -> None:
    """Four of them, each with a loop, and a store object from the function."""
    async with _records(make_store) as (store, key):
        inside, most = 0, 0

        async def work() -> None:
            nonlocal inside, most
            own = make_store()
            for _ in range(10):
                async with own.lock(key, wait=_LONG):
                    inside += 1
                    most = max(most, inside)
                    record = await own.load(key)
                    version = record.version if record is not None else 0
                    await own.save(key, Record(version + 1, "alice", b""), expected=version)
                    inside -= 1
            await own.aclose()

        await asyncio.gather(*(asyncio.to_thread(asyncio.run, work()) for _ in range(4)))
        _expect(most == 1, f"{most} threads held the lock of one key at once")
        _expect(await store.load(key) == Record(40, "alice", b""), "40 writes in four threads add up to 40")


CHECKS: Final[tuple[Check, ...]] = (
    records_come_back_as_they_were_saved,
    a_save_compares_the_version,
    a_delete_compares_the_version,
    keys_are_any_text,
    keys_lists_what_is_there,
    of_fifty_who_write_at_once_each_counts,
    the_lock_excludes,
    the_lock_is_waited_for_within_a_bound,
    the_lock_is_freed_whatever_happens,
    a_closed_store_keeps_its_records,
    two_loops_in_turn_use_one_store,
    threads_exclude_each_other,
)


@contextlib.asynccontextmanager
async def _records(make_store: MakeStore) -> AsyncIterator[tuple[TokenStore, str]]:
    """A store, and a key that nobody else has; what stands under it is deleted afterwards."""
    store, key = make_store(), secrets.token_hex(8)
    try:
        yield store, key
    finally:
        async for one in store.keys():
            if one.startswith(key):
                await store.delete(one)
        await store.aclose()


def _expect(holds: bool, what: str) -> None:
    # No assert statement: python -O would leave it out.
    if not holds:
        raise AssertionError(f"not so: {what}")
