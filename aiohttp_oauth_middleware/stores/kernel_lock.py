"""Locks that the kernel keeps: whoever holds one is alive, and whoever dies lets go of it at that moment.

There is one empty file for each key, and it is never deleted: of two processes that lock by name, one could hold a file that
the other has just deleted, and both would be inside. That costs a directory entry and an inode for each key that was ever
asked for: 11 MB for 100,000. Files shared by several keys would cost less, and let one user's slow server keep another user
waiting. Byte ranges of one file would cost nothing, but only on Linux are there such locks that exclude within a process.

flock and not fcntl's POSIX locks: those belong to the process, so two loops of one would both get in, and closing any other
descriptor of the file would drop them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from ..errors import StoreLockTimeout
from .codec import key_hash
from .folder import Folder, failure
from .store import Lock
from .worker import Worker

__all__ = ("KernelLock", "KernelLocks", "exclusive")

# Seconds; a write takes milliseconds.
WRITE_WAIT = 10.0

if sys.platform == "win32":
    import msvcrt

    _MOST: Final = 2_000
    _TAKEN: Final = (errno.EACCES, errno.EDEADLK)

    def _most() -> int:
        return _MOST

    def _lock(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
else:
    import fcntl
    import resource

    _TAKEN: Final = (errno.EWOULDBLOCK,)

    def _most() -> int:
        # A lock that is held is a descriptor that is open; most of them are the program's own.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return sys.maxsize if limit == resource.RLIM_INFINITY else max(16, limit // 4)

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


# From the opening of a file until it stands among those held nobody forks: the child would keep the lock.
_opening = threading.RLock()
_held: dict[tuple[int, int], KernelLock] = {}


class KernelLock:
    """One attempt at the lock *name* in the directory at *path*, and the lock once it is held.

    :param loop: the loop that it is held for; when that is closed, whoever comes next in this process may have the lock.
    """

    predecessor_is_dead: Final = True

    def __init__(self, path: str, name: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._path = path
        self._name = name
        self._loop = loop
        self._given_up = False
        # One descriptor at the most; a list, because append() and pop() are atomic, and release() waits for nobody.
        self._open: list[tuple[int, tuple[int, int]]] = []

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it. This touches the disk."""
        with _opening:
            # One without a loop is a write's, for which those who hold the others wait.
            if self._loop is not None and len(_held) >= _most():
                return False
            try:
                with Folder.opened(self._path) as folder:
                    return self._try(folder)
            except OSError as error:
                raise failure(os.path.join(self._path, self._name), error) from error

    def _try(self, folder: Folder) -> bool:
        fd = folder.open(self._name, os.O_RDWR | os.O_CREAT)
        try:
            found = os.fstat(fd)
            identity = found.st_dev, found.st_ino
            taken = _locked(fd) or (_left_behind(identity) and _locked(fd))
            # One that was deleted before it was locked excludes nobody who comes later.
            if not taken or not folder.is_at(self._name, fd):
                os.close(fd)
                return False
        except BaseException:
            os.close(fd)
            raise
        _held[identity] = self
        self._open.append((fd, identity))
        if self._given_up:
            self.release()
        return not self._given_up

    def release(self) -> None:
        """Let go of the lock, or of the attempt that is under way. This does not block."""
        self._given_up = True
        try:
            fd, identity = self._open.pop()
        except IndexError:
            return
        _held.pop(identity, None)
        try:
            # Before it is closed, for a child that was forked right now may have the descriptor too.
            _unlock(fd)
        finally:
            os.close(fd)

    def _close_in_child(self) -> None:
        # Closed and not unlocked: the lock is the parent's.
        while self._open:
            os.close(self._open.pop()[0])

    @property
    def orphaned(self) -> bool:
        """Whether the loop that it is held for is closed: what a task held there, it can't release any more."""
        return self._loop is not None and self._loop.is_closed()


def _locked(fd: int) -> bool:
    try:
        _lock(fd)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _left_behind(identity: tuple[int, int]) -> bool:
    """Release the lock if a loop of this process was closed while it held it."""
    holder = _held.get(identity)
    if holder is None or not holder.orphaned:
        return False
    holder.release()
    return True


def _of_many() -> str:
    """What else may be the reason."""
    if len(_held) < _most():
        return ""
    return f"; and this process holds {len(_held)} locks, the most that its limit of open files (ulimit -n) leaves for them"


class KernelLocks:
    """A lock for each key, in the directory at *path*: across loops, threads and processes of one machine.

    :param worker: the thread that touches the disk.
    """

    def __init__(self, path: str, worker: Worker) -> None:
        self._path = path
        self._worker = worker

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        # By polling, for a thread that waits in the kernel can't be cancelled.
        give_up = time.monotonic() + wait
        held = KernelLock(self._path, f"{key_hash(key)}.lock", asyncio.get_running_loop())
        try:
            while not await self._worker.run(held.try_acquire):
                if time.monotonic() >= give_up:
                    raise StoreLockTimeout(
                        f"the lock of a key in {self._path} could not be had within {wait:g} s; it is freed when its holder is "
                        f"done or dead, and by nobody else{_of_many()}"
                    )
                await asyncio.sleep(random.uniform(0.002, 0.02))
            yield held
        finally:
            held.release()


@contextlib.contextmanager
def exclusive(path: str, name: str) -> Iterator[None]:
    """The lock *name* in the directory at *path*, for a few milliseconds, in a thread that may block."""
    wait = WRITE_WAIT
    give_up = time.monotonic() + wait
    held = KernelLock(path, name)
    try:
        while not held.try_acquire():
            if time.monotonic() >= give_up:
                raise StoreLockTimeout(
                    f"{os.path.join(path, name)} was held for more than {wait:g} s, where a write takes milliseconds: its "
                    "holder is stopped, or the disk hangs"
                )
            time.sleep(random.uniform(0.0005, 0.005))
        yield
    finally:
        held.release()


def _let_go_in_child() -> None:
    global _opening
    for lock in list(_held.values()):
        lock._close_in_child()
    _held.clear()
    _opening = threading.RLock()


if sys.platform != "win32":
    os.register_at_fork(
        before=lambda: _opening.acquire(),
        after_in_parent=lambda: _opening.release(),
        after_in_child=_let_go_in_child,
    )
