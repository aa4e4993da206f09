"""The kernel's locks: exclusion, no lock that outlives its holder, none that is stolen, no descriptor that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aiohttp_oauth_middleware import StoreError, StoreLockTimeout
from aiohttp_oauth_middleware.stores import kernel_lock
from aiohttp_oauth_middleware.stores.codec import key_hash
from aiohttp_oauth_middleware.stores.kernel_lock import KernelLock, KernelLocks, exclusive
from aiohttp_oauth_middleware.stores.worker import Worker

ROOT = Path(__file__).parent.parent.parent

HOLD = """
import asyncio, sys
from aiohttp_oauth_middleware.stores.kernel_lock import KernelLocks
from aiohttp_oauth_middleware.stores.worker import Worker

async def main(path):
    async with KernelLocks(path, Worker("oauth-lock")).lock("a", wait=30.0):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    print("freed", flush=True)

asyncio.run(main(sys.argv[1]))
"""

FORK = """
import asyncio, os, signal, sys
from aiohttp_oauth_middleware import StoreLockTimeout
from aiohttp_oauth_middleware.stores import kernel_lock
from aiohttp_oauth_middleware.stores.kernel_lock import KernelLocks
from aiohttp_oauth_middleware.stores.worker import Worker

locks = KernelLocks(sys.argv[1], Worker("oauth-lock"))
descriptors = lambda: len(os.listdir("/dev/fd"))

def say(line):
    os.write(1, f"{line}\\n".encode())  # at once, for two processes share it

async def take(key, wait):
    try:
        async with locks.lock(key, wait=wait):
            return "taken"
    except StoreLockTimeout:
        return "timeout"

def child(before):
    say(f"child has the descriptor: {descriptors() != before - 1}")
    say(f"child: {asyncio.run(take('a', 0.0))} {asyncio.run(take('b', 0.0))}")
    signal.pause()

async def main():
    async with locks.lock("a", wait=30.0):
        before = descriptors()
        pid = os.fork()
        if not pid:
            asyncio.events._set_running_loop(None)
            child(before)
        # The child lives on while the parent lets go and takes it again.
    say(f"parent: {await take('a', 30.0)}")
    await asyncio.to_thread(sys.stdin.readline)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

asyncio.run(main())
"""


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[KernelLocks]:
    worker = Worker("oauth-lock")
    yield KernelLocks(str(tmp_path / "locks"), worker)
    worker.close()


def started(program: str, path: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", program, str(path)]
    return subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.asynccontextmanager
async def another(path: Path) -> AsyncIterator[subprocess.Popen[str]]:
    """Another process that holds the lock of "a"."""
    with started(HOLD, path) as process:
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "held\n"
            yield process
        finally:
            process.kill()


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def test_S_23_a_lock_file_is_empty_its_owner_s_alone_and_stays(locks: KernelLocks, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        async with locks.lock("a", wait=0.0) as held:
            assert held.predecessor_is_dead
    finally:
        os.umask(umask)
    (file,) = (tmp_path / "locks").iterdir()
    assert file.name == f"{key_hash('a')}.lock"
    assert file.stat().st_size == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_F_49_a_lock_whose_holder_was_killed_is_free_at_once(locks: KernelLocks, tmp_path: Path) -> None:
    async with another(tmp_path / "locks") as process:
        with pytest.raises(StoreLockTimeout, match=r"could not be had within 0 s.*when its holder is done or dead"):
            async with locks.lock("a", wait=0.0):
                pass
        process.kill()
        await asyncio.to_thread(process.wait)
        async with locks.lock("a", wait=0.0):
            pass


async def test_F_48_a_lock_whose_holder_is_stopped_is_never_stolen(locks: KernelLocks, tmp_path: Path) -> None:
    async with another(tmp_path / "locks") as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreLockTimeout):
            async with locks.lock("a", wait=0.1):
                pass
        process.send_signal(signal.SIGCONT)
        out, _ = await asyncio.to_thread(process.communicate, "\n")
        assert out == "freed\n"
        async with locks.lock("a", wait=0.0):
            pass


async def test_F_52_a_lock_file_that_is_deleted_before_it_is_locked_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "locks", kernel_lock._lock

    def lock_late(fd: int) -> None:
        monkeypatch.setattr(kernel_lock, "_lock", real)
        (path / "a").unlink()
        real(fd)

    monkeypatch.setattr(kernel_lock, "_lock", lock_late)
    before = descriptors()
    first, second = KernelLock(str(path), "a"), KernelLock(str(path), "a")
    assert not first.try_acquire(), "what it had locked has no name any more"
    assert descriptors() == before
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


async def test_F_52_a_lock_file_that_another_has_put_there_meanwhile_is_the_one_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "locks", kernel_lock._lock
    other = KernelLock(str(path), "a")

    def lock_late(fd: int) -> None:
        monkeypatch.setattr(kernel_lock, "_lock", real)
        (path / "a").unlink()
        assert other.try_acquire()
        real(fd)

    monkeypatch.setattr(kernel_lock, "_lock", lock_late)
    late = KernelLock(str(path), "a")
    assert not late.try_acquire()
    assert not late.try_acquire(), "it is held"
    other.release()
    assert late.try_acquire()
    late.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_F_16_a_forked_child_keeps_no_lock_of_its_parent(tmp_path: Path) -> None:
    with started(FORK, tmp_path / "locks") as process:
        assert process.stdout is not None
        lines = {await asyncio.to_thread(process.stdout.readline) for _ in range(3)}
        await asyncio.to_thread(process.communicate, "\n")
    assert "child has the descriptor: False\n" in lines
    assert "parent: taken\n" in lines, "the child, which is alive, does not keep it"
    assert lines & {"child: timeout taken\n", "child: taken taken\n"}
    assert process.returncode == 0


def test_F_16_what_a_child_begins_with_is_closed_and_not_unlocked(tmp_path: Path) -> None:
    path = str(tmp_path / "locks")
    lock = KernelLock(path, "a")
    assert lock.try_acquire()
    copy = os.dup(lock._open[0][0])  # the parent's, as it were
    try:
        kernel_lock._let_go_in_child()
        assert not kernel_lock._held
        lock.release()
        assert not KernelLock(path, "a").try_acquire(), "the parent still has it"
    finally:
        os.close(copy)
    again = KernelLock(path, "a")
    assert again.try_acquire()
    again.release()


def test_F_15_a_loop_that_was_closed_while_it_held_the_lock_does_not_hold_it_for_ever(locks: KernelLocks) -> None:
    held = threading.Event()

    async def hold() -> None:
        async with locks.lock("a", wait=30.0):
            held.set()
            await asyncio.Event().wait()

    async def start() -> asyncio.Task[None]:
        task = asyncio.create_task(hold())
        await asyncio.to_thread(held.wait, 30.0)
        return task

    async def take() -> None:
        async with locks.lock("a", wait=0.0):
            holder.get_coro().close()  # what the garbage collector does sooner or later
            with pytest.raises(StoreLockTimeout):
                async with locks.lock("a", wait=0.0):
                    pass

    loop = asyncio.new_event_loop()
    holder = loop.run_until_complete(start())
    loop.close()
    holder._log_destroy_pending = False  # type: ignore[attr-defined]
    asyncio.run(take())
    gc.collect()
    assert not kernel_lock._held


async def test_an_attempt_that_is_given_up_while_the_thread_is_at_it_holds_nothing(
    locks: KernelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_it, go_on, real = threading.Event(), threading.Event(), kernel_lock._lock

    def slow(fd: int) -> None:
        at_it.set()
        assert go_on.wait(30.0)
        real(fd)

    async def take() -> None:
        async with locks.lock("a", wait=30.0):
            pass

    monkeypatch.setattr(kernel_lock, "_lock", slow)
    before = descriptors()
    task = asyncio.create_task(take())
    await asyncio.to_thread(at_it.wait, 30.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await locks._worker.run(lambda: None)  # which comes after
    assert not kernel_lock._held
    assert descriptors() == before
    monkeypatch.setattr(kernel_lock, "_lock", real)
    async with locks.lock("a", wait=0.0):
        pass


async def test_F_19_thousands_of_keys_keep_no_descriptor_open(locks: KernelLocks) -> None:
    async with locks.lock("warm", wait=0.0):
        before = descriptors()
    for number in range(3_000):
        async with locks.lock(str(number), wait=0.0):
            pass
    assert descriptors() == before - 1


async def test_F_19_locks_held_at_once_leave_most_descriptors_to_the_program(
    locks: KernelLocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (80, 80))
    async with contextlib.AsyncExitStack() as held:
        for number in range(20):
            await held.enter_async_context(locks.lock(str(number), wait=0.0))
        with pytest.raises(StoreLockTimeout):
            await held.enter_async_context(locks.lock("one more", wait=0.05))
        with exclusive(str(tmp_path / "locks"), "a write, for which those wait"):
            pass
        monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
        await held.enter_async_context(locks.lock("one more", wait=0.0))


async def test_a_lock_that_the_system_refuses_is_a_store_error(
    locks: KernelLocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(kernel_lock, "_lock", refuse)
    before = descriptors()
    with pytest.raises(StoreError, match=r"locks/\w{64}\.lock: No locks available \(ENOLCK\)"):
        async with locks.lock("a", wait=0.0):
            pass
    assert descriptors() == before
    monkeypatch.undo()
    (tmp_path / "locks").chmod(0o755)
    with pytest.raises(StoreError, match=r"locks is open to others \(mode 0755\).*chmod 700"):
        async with locks.lock("a", wait=0.0):
            pass


def test_the_short_lock_is_waited_for_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_lock, "WRITE_WAIT", 0.01)
    path = str(tmp_path / "locks")
    too_long = pytest.raises(StoreLockTimeout, match=r"locks/a was held for more than 0\.01 s")
    with exclusive(path, "a"), too_long, exclusive(path, "a"):
        pass
    with exclusive(path, "a"):
        pass


async def test_F_19_where_this_process_may_hold_no_more_locks_the_error_says_so(
    locks: KernelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_lock, "_most", lambda: 0)
    with pytest.raises(StoreLockTimeout, match=r"ulimit -n"):
        async with locks.lock("k", wait=0.0):
            pass
