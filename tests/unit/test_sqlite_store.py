"""The store that is a SQLite database: who can read it, what a damaged one leads to, failures, kills, and forks."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from aiohttp_oauth_middleware import ConfigurationError, Record, SQLiteStore, StoreCorrupted, StoreError
from aiohttp_oauth_middleware.stores import sqlite as sqlite_module
from tests.strict_server import all_of
from tests.syscalls import Syscalls, fail

ROOT = Path(__file__).parent.parent.parent


def record(version: int, body: bytes = b"secret body") -> Record:
    return Record(version, "alice", body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    asyncio.run(store.aclose())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def delete(path: Path) -> None:
    path.unlink(missing_ok=True)


async def error_of(work: Awaitable[object]) -> StoreError | None:
    """What *work* fails with; anything but a StoreError goes through."""
    try:
        await work
    except StoreError as error:
        return error
    return None


async def run(program: str, *arguments: object) -> str:
    """What *program* prints in a process of its own."""
    # Newer Pythons warn of a fork beside threads, which is what is tested.
    warnings = ["-W", "error", "-W", "ignore:.*fork:DeprecationWarning"]
    command = [sys.executable, *warnings, "-c", program, *map(str, arguments)]
    ran = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


async def statement(store: SQLiteStore, sql: str) -> list[tuple[object, ...]]:
    """What a statement on the store's own connection yields."""
    return await store._worker.run(lambda: store._database.read(sql, tuple))


# Who can read it.


async def test_S_23_what_is_stored_is_its_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        store = SQLiteStore(tmp_path / "new" / "tokens.db")
        await store.save("k", record(1), expected=0)
        async with store.lock("k", wait=0.0):
            pass
    finally:
        os.umask(umask)
    folder = tmp_path / "new"
    assert names(folder) == ["tokens.db", "tokens.db-locks", "tokens.db-shm", "tokens.db-wal"]
    assert {name: mode(folder / name) for name in names(folder) if name != "tokens.db-locks"} == dict.fromkeys(
        ["tokens.db", "tokens.db-shm", "tokens.db-wal"], 0o600
    )
    assert mode(folder) == mode(folder / "tokens.db-locks") == 0o700
    await store.aclose()
    assert names(folder) == ["tokens.db", "tokens.db-locks"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
async def test_S_23_F_51_a_file_that_is_open_to_others_is_refused(store: SQLiteStore, path: Path, suffix: str) -> None:
    await store.save("k", record(1), expected=0)
    keeps_open = SQLiteStore(path)
    await keeps_open.load("k")
    await store.aclose()
    os.chmod(f"{path}{suffix}", 0o640)
    for attempt in (store.load("k"), store.save("k", record(2), expected=1), store.delete("k"), all_of(store.keys())):
        with pytest.raises(StoreError, match=rf"tokens\.db{suffix} is open to others \(mode 0640\).*chmod 600") as caught:
            await attempt
        assert not caught.value.retryable
    os.chmod(f"{path}{suffix}", 0o600)
    assert await store.load("k") == record(1)
    await keeps_open.aclose()


async def test_S_23_F_51_a_database_that_is_opened_to_others_under_way_is_refused(store: SQLiteStore, path: Path) -> None:
    await store.save("k", record(1), expected=0)
    os.chmod(path, 0o644)
    with pytest.raises(StoreError, match=r"mode 0644"):
        await store.load("k")


async def test_S_23_F_51_a_directory_that_others_can_write_to_is_refused_and_one_that_they_can_read_is_not(
    store: SQLiteStore, tmp_path: Path
) -> None:
    os.chmod(tmp_path, 0o755)
    await store.save("k", record(1), expected=0)
    await store.aclose()
    os.chmod(tmp_path, 0o775)
    with pytest.raises(StoreError, match=r"the directory .* is open to others \(mode 0775\).*chmod 755"):
        await store.load("k")
    os.chmod(tmp_path, 0o700)


async def test_S_23_F_51_another_user_s_database_is_refused(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save("k", record(1), expected=0)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(StoreError, match=r"tokens\.db belongs to user \d+, and this process runs as user"):
        await store.load("k")


async def test_S_23_F_51_a_symbolic_link_is_refused(store: SQLiteStore, tmp_path: Path) -> None:
    await store.save("k", record(1), expected=0)
    (tmp_path / "link.db").symlink_to(tmp_path / "tokens.db")
    (tmp_path / "dangling.db").symlink_to(tmp_path / "nowhere.db")
    for name in ("link.db", "dangling.db"):
        linked = SQLiteStore(tmp_path / name)
        for attempt in (linked.load("k"), linked.save("k", record(1), expected=0)):
            with pytest.raises(StoreError, match="is a symbolic link, which is not followed"):
                await attempt
        await linked.aclose()
    assert "nowhere.db" not in names(tmp_path)


async def test_S_22_what_is_replaced_or_deleted_is_overwritten_in_the_file(store: SQLiteStore, path: Path) -> None:
    await store.save("a", record(1, b"first secret" * 500), expected=0)
    await store.save("a", record(2, b"other"), expected=1)
    await store.save("b", record(1, b"third secret" * 500), expected=0)
    await store.delete("b")
    await store.aclose()
    content = content_of(path)
    assert b"other" in content
    assert b"first secret" not in content
    assert b"third secret" not in content


# What a damaged one leads to.


async def damaged(store: SQLiteStore, path: Path, change: Callable[[bytes], bytes]) -> bytes:
    for number in range(200):
        await store.save(str(number), record(1, b"x" * 500), expected=0)
    await store.aclose()
    bad = change(content_of(path))
    put(path, bad)
    return bad


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": ("is empty: put a copy in its place, or delete it", lambda data: b""),
    "text": (r"is damaged, or no SQLite database \(SQLITE_NOTADB\)", lambda data: b"user=alice\n" * 1000),
    "cut": (r"is damaged, or no SQLite database \(SQLITE_(CORRUPT|NOTADB)\w*\)", lambda data: data[:5000]),
    "scribbled": (
        r"is damaged, or no SQLite database \(SQLITE_CORRUPT\w*\)",
        lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_F_51_a_damaged_database_is_never_taken_for_no_token_and_left_as_it_is(
    store: SQLiteStore, path: Path, what: str
) -> None:
    message, change = DAMAGE[what]
    bad = await damaged(store, path, change)
    for _ in range(2):
        for attempt in (store.load("7"), store.save("7", record(2), expected=1), all_of(store.keys())):
            with pytest.raises(StoreCorrupted, match=message) as caught:
                await attempt
            assert not caught.value.retryable
    await store.aclose()
    assert content_of(path) == bad


async def test_F_51_another_program_s_database_is_refused_and_left_as_it_is(store: SQLiteStore, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE records (id)")
    other.close()
    os.chmod(path, 0o600)
    before = content_of(path)
    for attempt in (store.load("k"), store.save("k", record(1), expected=0)):
        with pytest.raises(StoreError, match=r"tokens\.db is the database of another program: name another path"):
            await attempt
    assert content_of(path) == before


async def test_F_51_a_newer_version_s_database_is_refused_and_left_as_it_is(store: SQLiteStore, path: Path) -> None:
    await store.save("k", record(1), expected=0)
    await statement(store, "PRAGMA user_version = 2")
    await store.aclose()
    for attempt in (store.load("k"), store.save("k", record(2), expected=1)):
        with pytest.raises(StoreError, match=r"newer version of this package \(schema 2; this one reads 1\): update"):
            await attempt


async def test_F_52_a_database_that_is_deleted_under_way_is_noticed(store: SQLiteStore, path: Path) -> None:
    await store.save("k", record(1), expected=0)
    delete(path)
    assert await store.load("k") is None
    for suffix in ("-wal", "-shm"):
        delete(Path(f"{path}{suffix}"))
    assert await store.save("k", record(1, b"new"), expected=0)
    other = SQLiteStore(path)
    assert await other.load("k") == record(1, b"new")
    await other.aclose()


# Calls that fail.


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_G_09_F_50_a_save_that_fails_at_any_call_loses_nothing(tmp_path: Path, after: bool) -> None:
    at = 0
    while True:
        path = tmp_path / f"{at}.db"
        store = SQLiteStore(path)
        await store.save("k", record(1), expected=0)
        await store.aclose()
        with Syscalls(at, fail(errno.EIO), after=after).intercepted() as calls:
            error = await error_of(store.save("k", record(2, b"new"), expected=1))
        if len(calls.names) <= at:
            break
        other = SQLiteStore(path)
        found = await other.load("k")
        if error is None:
            assert found == record(2, b"new"), calls.names
        else:
            assert found in (record(1), record(2, b"new")), calls.names
            assert "Input/output error" in str(error)
            assert error.retryable
        if found == record(1):
            assert await store.save("k", record(2, b"new"), expected=1), calls.names
        await other.aclose()
        await store.aclose()
        at += 1
    await store.aclose()
    assert error is None
    assert {"execute", "stat", "open", "fstat"} <= set(calls.names)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_G_09_F_50_a_database_that_can_t_be_made_is_made_the_next_time(tmp_path: Path, number: int, after: bool) -> None:
    at = 0
    while True:
        path = tmp_path / str(at) / "tokens.db"
        store = SQLiteStore(path)
        with Syscalls(at, fail(number), after=after).intercepted() as calls:
            error = await error_of(store.save("k", record(1), expected=0))
        if len(calls.names) <= at:
            break
        if error is not None:
            found = await store.load("k")
            assert found in (None, record(1))
            if found is None:
                assert await store.save("k", record(1), expected=0), calls.names
        assert await store.load("k") == record(1)
        await store.aclose()
        assert names(path.parent) == ["tokens.db", "tokens.db-locks"]
        at += 1
    await store.aclose()
    assert {"execute", "executescript", "mkdir", "open", "flock", "replace", "fsync"} <= set(calls.names)


async def test_F_50_a_full_disk_is_a_store_error_and_what_was_there_stays(store: SQLiteStore) -> None:
    await store.save("k", record(1), expected=0)
    pages = await statement(store, "PRAGMA page_count")
    await statement(store, f"PRAGMA max_page_count = {pages[0][0]}")
    with pytest.raises(StoreError, match=r"tokens\.db: database or disk is full \(SQLITE_FULL\)") as caught:
        await store.save("k", record(2, b"x" * 100_000), expected=1)
    assert caught.value.retryable
    assert await store.load("k") == record(1)
    assert await store.save("k", record(2, b"x" * 100_000), expected=1), "a connection of its own has no such limit"


async def test_F_50_a_database_that_another_holds_is_given_up_in_the_end(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "_BUSY", 0.01)
    await store.save("k", record(1), expected=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"database is locked \(SQLITE_BUSY\)") as caught:
        await store.save("k", record(2), expected=1)
    assert caught.value.retryable
    assert await store.load("k") == record(1), "to read needs no lock"
    other.execute("ROLLBACK")
    assert await store.save("k", record(2), expected=1)
    other.close()


async def test_S_22_no_error_has_a_frame_with_the_record_in_its_locals(store: SQLiteStore) -> None:
    await store.save("k", record(1), expected=0)
    await store.aclose()
    saves = store.save("k", record(2), expected=1)
    with Syscalls(10, fail(errno.EIO)).intercepted(), pytest.raises(StoreError, match="Input/output error") as caught:
        await saves
    shown: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "test_sqlite_store" not in trace.tb_frame.f_code.co_filename:
                shown.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    assert shown
    assert "secret" not in "".join(shown)


# Processes.

KILLED = """
import asyncio, os, sys
from aiohttp_oauth_middleware import SQLiteStore, Record
from tests.syscalls import Syscalls, die

folder, begin_with = sys.argv[1], int(sys.argv[2])
OLD, NEW = Record(1, "alice", b"old" * 1000), Record(2, "alice", b"new" * 1000)
STEPS = [OLD, NEW][begin_with:]

async def save(path, records):
    store = SQLiteStore(path)
    for record in records:
        assert await store.save("k", record, expected=record.version - 1)
    await store.aclose()

async def load(path):
    store = SQLiteStore(path)
    found = await store.load("k")
    await store.aclose()
    return found

at, outcomes = 0, []
while True:
    path = os.path.join(folder, f"{at}.db")
    asyncio.run(save(path, [OLD][:begin_with]))
    pid = os.fork()
    if not pid:
        with Syscalls(at, die, after=sys.argv[3] == "after").intercepted():
            asyncio.run(save(path, STEPS))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status == 0:
        break
    assert os.WTERMSIG(status) == 9, status
    found = asyncio.run(load(path))
    assert found in (None, OLD, NEW), found
    asyncio.run(save(path, [OLD, NEW][found.version if found else 0:]))
    assert asyncio.run(load(path)) == NEW
    outcomes.append(found.version if found else 0)
    at += 1
print(outcomes)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("begin_with", [0, 1], ids=["new", "there"])
async def test_F_47_F_49_a_process_that_is_killed_at_any_call_leaves_a_whole_database(
    tmp_path: Path, begin_with: int, when: str
) -> None:
    outcomes = json.loads(await run(KILLED, tmp_path, begin_with, when))
    assert outcomes == sorted(outcomes)
    assert outcomes[0] == begin_with
    assert outcomes[-1] >= 1


FORK = """
import asyncio, os, sys
from aiohttp_oauth_middleware import SQLiteStore, Record

store, path = SQLiteStore(sys.argv[1]), sys.argv[1]

async def save(key):
    assert await store.save(key, Record(1, key, b"body"), expected=0)

async def keys():
    return [key async for key in store.keys()]

asyncio.run(save("before the fork"))
assert store._database._connection is not None
to_child, from_child = os.pipe(), os.pipe()
pid = os.fork()
if not pid:
    os.close(to_child[1])
    asyncio.run(save("by the child"))
    os.write(from_child[1], b"x")
    os.read(to_child[0], 1)  # the parent has closed the database
    asyncio.run(save("by the child, later"))
    os._exit(0)
os.close(from_child[1])
os.read(from_child[0], 1)
asyncio.run(keys())
asyncio.run(store.aclose())
os.write(to_child[1], b"x")
os.waitpid(pid, 0)
print(sorted(asyncio.run(keys())))
asyncio.run(store.aclose())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_F_16_what_a_forked_child_commits_is_not_lost_when_the_parent_closes(path: Path) -> None:
    assert await run(FORK, path) == "['before the fork', 'by the child', 'by the child, later']\n"


FORKS_UNDER_WAY = """
import asyncio, os, sys
from aiohttp_oauth_middleware import SQLiteStore, Record

store = SQLiteStore(sys.argv[1])

async def saves(name, number):
    for one in range(number):
        assert await store.save(f"{name} {one}", Record(1, name, b"body"), expected=0)

async def count():
    return len([key async for key in store.keys()])

async def main():
    work = asyncio.create_task(saves("parent", 100))
    children = []
    for number in range(10):
        await asyncio.sleep(0.001)
        pid = os.fork()
        if not pid:
            asyncio.events._set_running_loop(None)
            asyncio.run(saves(f"child {number}", 10))
            os._exit(0)
        children.append(pid)
    await work
    for pid in children:
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0, status
    print(await count())
    await store.aclose()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_F_16_forks_while_the_store_is_at_work_lose_nothing(path: Path) -> None:
    assert await run(FORKS_UNDER_WAY, path) == "200\n"


FIRST = """
import asyncio, sys
from aiohttp_oauth_middleware import SQLiteStore, Record

async def main(path, name):
    store = SQLiteStore(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for one in range(20):
        assert await store.save(f"{name} {one}", Record(1, name, b"body"), expected=0)
    await store.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def all_at_once(path: Path, number: int) -> list[int]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST, str(path), str(one)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for one in range(number)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    return [process.returncode for process in processes]


async def test_processes_that_come_first_at_once_make_one_database(store: SQLiteStore, path: Path) -> None:
    assert await asyncio.to_thread(all_at_once, path, 4) == [0] * 4
    assert len(await all_of(store.keys())) == 80


# What else.


async def test_F_17_no_call_to_the_database_is_made_on_the_loop(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    real = sqlite3.connect

    class Connection(sqlite3.Connection):
        def execute(self, *arguments: object) -> sqlite3.Cursor:
            threads.add(threading.current_thread().name)
            return super().execute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **names: real(*args, factory=Connection, **names))
    async with store.lock("k", wait=0.0):
        await store.save("k", record(1), expected=0)
    await store.load("k")
    await all_of(store.keys())
    await store.delete("k")
    assert threads == {"oauth-sqlite-store_0"}


async def test_a_commit_is_durable(store: SQLiteStore) -> None:
    await store.save("k", record(1), expected=0)
    assert await statement(store, "PRAGMA journal_mode") == [("wal",)]
    assert await statement(store, "PRAGMA synchronous") == [(2,)]


async def test_keys_come_in_pages_and_none_is_missed(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "_PAGE", 3)
    keys = ["", *(str(number) for number in range(10))]
    for key in keys:
        await store.save(key, record(1), expected=0)
    assert sorted(await all_of(store.keys())) == sorted(keys)


async def test_what_reads_makes_no_database(store: SQLiteStore, tmp_path: Path) -> None:
    assert await store.load("k") is None
    assert await all_of(store.keys()) == []
    assert not await store.delete("k")
    assert not await store.save("k", record(2), expected=1)
    assert names(tmp_path) == []


async def test_a_store_that_is_dropped_closes_its_database(path: Path) -> None:
    store = SQLiteStore(path)
    await store.save("k", record(1), expected=0)
    database = store._database
    assert database._connection is not None
    del store
    # The thread may hold the last reference for a moment, and then it is the one that closes it.
    async with asyncio.timeout(20):
        while database._connection is not None:
            gc.collect()
            await asyncio.sleep(0)


@pytest.mark.parametrize("bad", ["", None, 7, ":memory:"])
def test_a_path_that_is_none_is_refused_at_once(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="SQLiteStore: "):
        SQLiteStore(bad)  # type: ignore[arg-type]


def test_its_repr_is_its_path() -> None:
    assert repr(SQLiteStore("/var/lib/app/tokens.db")) == "SQLiteStore('/var/lib/app/tokens.db')"


async def test_S_23_a_directory_for_everybody_is_no_place_and_is_not_to_be_changed(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    with pytest.raises(StoreError, match="for everybody: name a place in a directory of its own") as caught:
        await SQLiteStore(place / "tokens.db").save("k", record(1), expected=0)
    assert "chmod" not in str(caught.value)
