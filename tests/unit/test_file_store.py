"""The store that is a directory: who can read it, what a damaged file leads to, and a write that fails or dies at any call."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from aiohttp_oauth_middleware import (
    ConfigurationError,
    FileStore,
    OAuthError,
    Record,
    StoreCorrupted,
    StoreError,
    StoreLockTimeout,
)
from aiohttp_oauth_middleware.stores import folder as folder_module
from aiohttp_oauth_middleware.stores import kernel_lock
from aiohttp_oauth_middleware.stores.codec import dumps, key_hash
from aiohttp_oauth_middleware.stores.kernel_lock import KernelLock
from tests.strict_server import all_of
from tests.syscalls import Syscalls, fail

ROOT = Path(__file__).parent.parent.parent
ERRNOS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.EMFILE)


def record(version: int, body: bytes = b"secret body") -> Record:
    return Record(version, "alice", body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def store(path: Path) -> Iterator[FileStore]:
    store = FileStore(path)
    yield store
    store._worker.close()


def file_of(path: Path, key: str = "k") -> Path:
    return path / f"{key_hash(key)}.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def set_aside(path: Path) -> list[Path]:
    return list(path.glob("*.corrupt-*"))


async def error_of(work: Awaitable[object]) -> StoreError | None:
    """What *work* fails with; anything but a StoreError goes through."""
    try:
        await work
    except StoreError as error:
        return error
    return None


# Who can read it.


async def test_S_23_what_is_stored_is_its_owner_s_alone_whatever_the_umask(store: FileStore, path: Path) -> None:
    umask = os.umask(0)
    try:
        await store.save("k", record(1), expected=0)
        await store.save("k", record(2), expected=1)
    finally:
        os.umask(umask)
    assert mode(path) == 0o700
    assert {mode(path / name) for name in names(path)} == {0o600}
    assert names(path) == sorted([f"{key_hash('k')}.json", "writing.lock"])


async def test_S_23_no_file_is_open_to_others_for_an_instant(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int, int]] = []
    real = os.open

    def spy(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            made.append((name, flags, mode))
        return real(name, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", spy)
    await store.save("k", record(1), expected=0)
    assert [name for name, _, _ in made] == ["writing.lock", f"{key_hash('k')}.json.tmp"]
    assert all(mode == 0o600 and flags & os.O_NOFOLLOW and flags & os.O_CLOEXEC for _, flags, mode in made)
    assert made[1][1] & os.O_EXCL


@pytest.mark.parametrize("bits", [0o604, 0o640, 0o620, 0o602, 0o610])
async def test_S_23_F_51_a_file_that_is_open_to_others_is_refused_and_left(store: FileStore, path: Path, bits: int) -> None:
    await store.save("k", record(1), expected=0)
    file_of(path).chmod(bits)
    for attempt in (store.load("k"), store.save("k", record(2), expected=1), all_of(store.keys())):
        with pytest.raises(StoreError, match=rf"\.json is open to others \(mode {bits:04o}\).*chmod 600 /") as caught:
            await attempt
        assert not caught.value.retryable
    file_of(path).chmod(0o600)
    assert await store.load("k") == record(1)


async def test_S_23_F_51_a_directory_that_is_open_to_others_is_refused(store: FileStore, path: Path) -> None:
    await store.save("k", record(1), expected=0)
    os.chmod(path, 0o750)
    for attempt in (store.load("k"), store.save("k", record(2), expected=1), store.delete("k"), all_of(store.keys())):
        with pytest.raises(StoreError, match=r"the directory /.* is open to others \(mode 0750\).*chmod 700 "):
            await attempt


async def test_S_23_F_51_another_user_s_directory_or_file_is_refused(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save("k", record(1), expected=0)
    me, real = os.geteuid(), os.fstat
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(StoreError, match=rf"the directory .* belongs to user {me}, and this process runs as user {me + 1}"):
        await store.load("k")
    monkeypatch.undo()

    def foreign_file(fd: int) -> os.stat_result:
        found = real(fd)
        if stat.S_ISDIR(found.st_mode):
            return found
        return os.stat_result((*found[:4], me + 1, *found[5:]))

    monkeypatch.setattr(os, "fstat", foreign_file)
    with pytest.raises(StoreError, match=rf"\.json belongs to user {me + 1}, and this process runs as user {me}"):
        await store.load("k")


async def test_S_23_F_51_symbolic_links_are_refused(tmp_path: Path, path: Path) -> None:
    store, other, target = FileStore(path), tmp_path / "other", tmp_path / "target"
    await store.save("k", record(1), expected=0)
    file_of(path).rename(target)
    file_of(path).symlink_to(target)
    for attempt in (store.load("k"), store.save("k", record(2), expected=1)):
        with pytest.raises(StoreError, match="is a symbolic link"):
            await attempt
    other.symlink_to(path)
    with pytest.raises(StoreError, match="is no directory, or a symbolic link"):
        await FileStore(other).load("k")
    # One that was put where a temporary file goes is not written through.
    file_of(path).unlink()
    target.write_text("precious")
    (path / f"{file_of(path).name}.tmp").symlink_to(target)
    assert await store.save("k", record(1), expected=0)
    assert target.read_text() == "precious"
    assert not file_of(path).is_symlink()


async def test_F_51_what_is_no_file_or_no_directory_is_refused(store: FileStore, path: Path, tmp_path: Path) -> None:
    await store.save("other", record(1), expected=0)
    os.mkfifo(file_of(path), 0o600)
    with pytest.raises(StoreError, match=r"\.json is no regular file"):
        await store.load("k")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file is no directory"):
        await FileStore(tmp_path / "file").load("k")
    with pytest.raises(StoreError, match=r"file/below: File exists \(EEXIST\)"):
        await FileStore(tmp_path / "file" / "below").save("k", record(1), expected=0)


# What a damaged file leads to.

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "is empty": lambda data: b"",
    "is cut off": lambda data: data[:100],
    "does not match its checksum": lambda data: data.replace(b'"alice"', b'"mallory"'),
    "does not match its checksum ": lambda data: b'"}',
    "does not match its checksum  ": lambda data: data.replace(b"{", b"\xff{", 1),
    "does not match its checksum   ": lambda data: b'{"schema":true,"record":[],"sha256":""}',
    "holds the record of another key": lambda data: dumps("other", record(1)).encode(),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_F_51_a_damaged_file_is_kept_aside_and_never_taken_for_no_token(store: FileStore, path: Path, what: str) -> None:
    await store.save("k", record(1), expected=0)
    bad = DAMAGE[what](file_of(path).read_bytes())
    file_of(path).write_bytes(bad)
    with pytest.raises(
        StoreCorrupted, match=rf"\.json {what.strip()}: it is kept as \w+\.json\.corrupt-\d+; sign in again"
    ) as caught:
        await store.load("k")
    assert not caught.value.retryable
    (aside,) = set_aside(path)
    assert aside.read_bytes() == bad
    assert mode(aside) == 0o600
    assert aside.name in str(caught.value)
    # Now somebody can sign in.
    assert await store.load("k") is None
    assert await all_of(store.keys()) == []
    assert await store.save("k", record(1), expected=0)


async def test_F_51_a_damaged_file_stops_a_write_too_and_the_list_of_keys(store: FileStore, path: Path) -> None:
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: store.save("k", record(2), expected=1),
        lambda: store.delete("k", expected=1),
        lambda: all_of(store.keys()),
    ]
    for number, attempt in enumerate(attempts):
        await store.save("k", record(1), expected=0)
        file_of(path).write_bytes(b"")
        with pytest.raises(StoreCorrupted, match="is empty"):
            await attempt()
        assert len(set_aside(path)) == number + 1


async def test_F_51_to_forget_a_damaged_file_is_a_way_out(store: FileStore, path: Path) -> None:
    await store.save("k", record(1), expected=0)
    file_of(path).write_bytes(b"")
    assert await store.delete("k")
    assert await store.load("k") is None


async def test_F_51_a_good_file_that_replaces_a_damaged_one_meanwhile_is_not_set_aside(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save("k", record(1), expected=0)
    good = file_of(path).read_bytes()
    file_of(path).write_bytes(b"")
    real = KernelLock.try_acquire

    def repaired_first(self: KernelLock) -> bool:
        file_of(path).write_bytes(good)
        return real(self)

    monkeypatch.setattr(KernelLock, "try_acquire", repaired_first)
    assert await store.load("k") == record(1)
    assert set_aside(path) == []


async def test_F_51_a_damaged_file_that_can_t_be_set_aside_is_an_error_each_time(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save("k", record(1), expected=0)
    file_of(path).write_bytes(b"")
    monkeypatch.setattr(os, "replace", lambda *arguments, **names: fail(errno.EROFS)("replace"))
    for _ in range(2):
        with pytest.raises(StoreCorrupted, match=r"is empty: it could not be set aside \(Read-only file system \(EROFS\)\)"):
            await store.load("k")
    monkeypatch.setattr(kernel_lock, "_lock", lambda fd: fail(errno.EROFS)("flock"))
    with pytest.raises(StoreCorrupted, match=r"is empty; and it could not be set aside: .*\(EROFS\)"):
        await store.load("k")


async def test_F_51_a_newer_version_s_file_is_refused_and_left(store: FileStore, path: Path) -> None:
    await store.save("k", record(1), expected=0)
    file_of(path).write_text(json.dumps({"schema": 2, "record": {"any": "thing"}}))
    for attempt in (store.load("k"), store.save("k", record(2), expected=1), all_of(store.keys())):
        with pytest.raises(StoreError, match=r"newer version of this package \(schema 2; this one reads 1\): update") as caught:
            await attempt
        assert not isinstance(caught.value, StoreCorrupted)
    assert file_of(path).exists()


async def test_S_22_no_error_has_a_frame_with_the_record_in_its_locals(store: FileStore, path: Path) -> None:
    with Syscalls(6, fail(errno.ENOSPC)).intercepted(), pytest.raises(StoreError) as caught:
        await store.save("k", record(1), expected=0)
    shown: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "test_file_store" not in trace.tb_frame.f_code.co_filename:
                shown.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    assert shown
    assert "secret" not in "".join(shown)
    assert "c2VjcmV0" not in "".join(shown)


# A write that fails at any call.


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", ERRNOS, ids=lambda number: errno.errorcode[number])
async def test_G_09_F_50_a_save_that_fails_at_any_call_loses_nothing(path: Path, number: int, after: bool) -> None:
    before = descriptors()
    at = 0
    while True:
        store = FileStore(path / str(at))
        await store.save("k", record(1), expected=0)
        with Syscalls(at, fail(number), after=after).intercepted() as calls:
            error = await error_of(store.save("k", record(2, b"new"), expected=1))
        if len(calls.names) <= at:
            break
        found = await FileStore(path / str(at)).load("k")
        if error is None:
            assert found == record(2, b"new"), calls.names
        else:
            assert found in (record(1), record(2, b"new")), calls.names
            assert f"{os.strerror(number)} ({errno.errorcode[number]})" in str(error)
            assert error.retryable
        # As the refresh does: what was not confirmed is written again.
        if found == record(1):
            assert await store.save("k", record(2, b"new"), expected=1), calls.names
        assert names(path / str(at)) == sorted([f"{key_hash('k')}.json", "writing.lock"]), calls.names
        await store.aclose()
        at += 1
    assert error is None
    assert {"open", "write", "fsync", "replace", "flock"} <= set(calls.names)
    await store.aclose()
    assert descriptors() <= before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO], ids=lambda number: errno.errorcode[number])
async def test_G_09_F_50_whatever_else_fails_is_a_store_error(path: Path, number: int) -> None:
    at = 0
    while True:
        store, new = FileStore(path / str(at)), FileStore(path / str(at) / "new" / "deep")
        await store.save("k", record(1), expected=0)
        works: list[Coroutine[object, object, object]] = [
            store.load("k"),
            all_of(store.keys()),
            store.delete("k", expected=1),
            new.save("k", record(1), expected=0),
            _locked(store),
        ]
        most = 0
        for work in works:
            with Syscalls(at, fail(number)).intercepted() as calls:
                error = await error_of(work)
            assert error is None or errno.errorcode[number] in str(error)
            most = max(most, len(calls.names))
        await store.aclose()
        await new.aclose()
        if most <= at:
            break
        at += 1
    assert at > 10


async def _locked(store: FileStore) -> None:
    async with store.lock("k", wait=0.0):
        pass


async def test_F_50_a_short_write_is_continued(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    await store.save("k", record(1), expected=0)
    monkeypatch.undo()
    assert await store.load("k") == record(1)


async def test_F_50_a_write_that_another_process_blocks_is_given_up_in_the_end(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save("k", record(1), expected=0)
    monkeypatch.setattr("aiohttp_oauth_middleware.stores.kernel_lock.WRITE_WAIT", 0.01)
    other = KernelLock(str(path), "writing.lock")
    assert other.try_acquire()
    with pytest.raises(StoreLockTimeout, match="its holder is stopped, or the disk hangs"):
        await store.save("k", record(2), expected=1)
    assert await store.load("k") == record(1), "to read needs no lock"
    other.release()
    assert await store.save("k", record(2), expected=1)


# A process that dies.

KILLED = """
import asyncio, os, sys
from aiohttp_oauth_middleware import FileStore, Record
from aiohttp_oauth_middleware.stores.codec import key_hash
from tests.syscalls import Syscalls, die

path = sys.argv[1]
OLD, NEW = Record(1, "alice", b"old" * 1000), Record(2, "alice", b"new" * 1000)

async def save(store, record, expected):
    assert await store.save("k", record, expected=expected)
    await store.aclose()

at, outcomes = 0, []
while True:
    place = os.path.join(path, str(at))
    asyncio.run(save(FileStore(place), OLD, 0))
    pid = os.fork()
    if not pid:
        with Syscalls(at, die).intercepted():
            asyncio.run(save(FileStore(place), NEW, 1))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status == 0:
        break
    assert os.WTERMSIG(status) == 9, status

    async def afterwards(place):
        store = FileStore(place)
        found = await store.load("k")
        assert found in (OLD, NEW), found
        async with store.lock("k", wait=0.0):
            if found == OLD:
                assert await store.save("k", NEW, expected=1)
            else:
                assert await store.save("k", Record(3, "alice", b""), expected=2)
        await store.aclose()
        return found.version

    outcomes.append(asyncio.run(afterwards(place)))
    left = sorted(os.listdir(place))
    assert left == sorted([key_hash("k") + ".json", key_hash("k") + ".lock", "writing.lock"]), left
    at += 1
print(outcomes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_F_47_F_49_a_process_that_is_killed_at_any_call_of_a_save_leaves_a_whole_file(path: Path) -> None:
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    outcomes = json.loads(ran.stdout)
    assert set(outcomes) == {1, 2}
    assert outcomes == sorted(outcomes), "the old record up to one call, the new one from there on"


async def test_F_49_what_killed_processes_have_left_half_written_is_removed(path: Path) -> None:
    store = FileStore(path)
    await store.save("k", record(1), expected=0)
    await store.aclose()
    for name in (f"{key_hash('k')}.json.tmp", f"{key_hash('another')}.json.tmp"):
        (path / name).write_bytes(b'{"schema":1,')
        (path / name).chmod(0o600)
    store = FileStore(path)
    assert await all_of(store.keys()) == ["k"]
    await store.save("k", record(2), expected=1)
    assert names(path) == sorted([f"{key_hash('k')}.json", "writing.lock"])


# What else.


async def test_F_17_no_call_to_the_disk_is_made_on_the_loop(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()

    def spy(name: str) -> None:
        real = getattr(os, name)

        def spied(*arguments: object, **names: object) -> object:
            threads.add(threading.current_thread().name)
            return real(*arguments, **names)

        monkeypatch.setattr(os, name, spied)

    for name in ("open", "write", "fsync", "replace", "unlink", "listdir"):
        spy(name)
    async with store.lock("k", wait=0.0):
        await store.save("k", record(1), expected=0)
    await store.load("k")
    await all_of(store.keys())
    await store.delete("k")
    assert threads == {"oauth-file-store_0"}


async def test_what_reads_makes_no_directory(store: FileStore, path: Path) -> None:
    assert await store.load("k") is None
    assert await all_of(store.keys()) == []
    assert not await store.delete("k")
    assert names(path.parent) == []


async def test_a_home_directory_is_expanded_and_the_place_is_fixed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    home, relative = FileStore("~/.config/my-cli/tokens"), FileStore("tokens")
    monkeypatch.chdir("/")
    await home.save("k", record(1), expected=0)
    await relative.save("k", record(1), expected=0)
    assert mode(tmp_path / ".config" / "my-cli" / "tokens") == mode(tmp_path / "tokens") == 0o700
    assert repr(relative) == f"FileStore({str(tmp_path / 'tokens')!r})"
    await home.aclose()
    await relative.aclose()


@pytest.mark.parametrize("bad", ["", None, 7, b"tokens"])
def test_a_path_that_is_none_is_refused_at_once(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="FileStore: directory must be a path"):
        FileStore(bad)  # type: ignore[arg-type]


async def test_two_objects_over_one_directory_compare_and_swap(path: Path) -> None:
    first, second = FileStore(path), FileStore(path)
    assert await first.save("k", record(1), expected=0)
    assert not await second.save("k", record(1, b"late"), expected=0)
    assert await second.save("k", record(2), expected=1)
    assert not await first.save("k", record(2, b"late"), expected=1)
    assert await first.load("k") == record(2)
    for store in (first, second):
        await store.aclose()


async def test_a_loop_that_is_closed_meanwhile_gets_no_answer_and_nothing_complains(
    store: FileStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def begin() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(store._worker.run(lambda: go_on.wait(30.0)))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()

    await asyncio.to_thread(begin)
    go_on.set()
    await store.save("k", record(1), expected=0)
    assert not caplog.records


def test_macos_is_asked_to_reach_the_drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []
    monkeypatch.setattr(folder_module, "_FULL_SYNC", 51)
    monkeypatch.setattr("fcntl.fcntl", lambda fd, command: asked.append(command))
    folder_module._flush(0)
    assert asked == [51]


def test_every_error_of_the_store_is_one_of_ours() -> None:
    assert issubclass(StoreError, OAuthError)
