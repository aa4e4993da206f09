"""Files that nobody but their owner can read: how they are opened, checked, and replaced.

:rfc:`6819#section-5.3.3`: "Most multi-user operating systems segregate the personal storage of different system users." That
holds for files that are their owner's alone from the moment when they are made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Final, Self

from ..errors import StoreError
from .codec import refusal

__all__ = ("Folder", "check_private", "failure")

if sys.platform == "win32":
    _DIRECTORY: Final = 0
    _SAFELY: Final = os.O_BINARY | os.O_NOINHERIT

    def _flush(fd: int) -> None:
        os.fsync(fd)
else:
    import fcntl

    _DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # O_NONBLOCK: what was put there may be a pipe, which would be waited for.
    _SAFELY: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    # On macOS fsync() hands the data to the drive and doesn't wait until they are on it.
    _FULL_SYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)

    def _flush(fd: int) -> None:
        os.fsync(fd) if _FULL_SYNC is None else fcntl.fcntl(fd, _FULL_SYNC)


class Folder:
    """A directory, opened for one piece of work; what is done in it is done there although its path changes meanwhile."""

    def __init__(self, path: str, fd: int | None) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: str, *, create: bool = True, others_may: int = 0) -> Iterator[Self]:
        """The directory at *path*.

        :param create: make it, for its owner alone, where it is missing; else that is a FileNotFoundError.
        :param others_may: the mode bits of others that are tolerated.
        :raises StoreError: it is not ours alone; or an OSError of what is done in it.
        """
        try:
            if create:
                cls._make(path)
            fd = None if sys.platform == "win32" else os.open(path, _DIRECTORY)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise failure(f"the directory {path}", error) from error
        try:
            found = os.stat(path) if fd is None else os.fstat(fd)
            check_private(found, f"the directory {path}", others_may, directory=True)
            yield cls(path, fd)
        finally:
            if fd is not None:
                os.close(fd)

    @staticmethod
    def _make(path: str) -> None:
        if not os.path.lexists(path):
            parent = os.path.dirname(path)
            os.makedirs(parent, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.mkdir(path, 0o700)
            if sys.platform != "win32":
                fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    _flush(fd)
                finally:
                    os.close(fd)

    def where(self, name: str) -> str:
        """The path of *name*, for messages."""
        return os.path.join(self.path, name)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of the regular file *name*, which is ours alone."""
        fd = os.open(self._at(name), flags | _SAFELY, 0o600, dir_fd=self._fd)
        try:
            check_private(os.fstat(fd), self.where(name))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def is_at(self, name: str, fd: int) -> bool:
        """Whether the file of *fd* is the one that is called *name* now."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def read(self, name: str) -> bytes | None:
        """The bytes of *name*, or None where there is no such file."""
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Put *data* in place of what *name* holds, at once and durably. One at a time: the caller excludes others."""
        temporary = f"{name}.tmp"
        self.remove(temporary)  # left behind by a process that was killed, for nobody else writes now
        fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                _flush(fd)
            finally:
                os.close(fd)
            self.rename(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise

    def rename(self, old: str, new: str) -> None:
        """Rename durably; what *new* was is gone."""
        os.replace(self._at(old), self._at(new), src_dir_fd=self._fd, dst_dir_fd=self._fd)
        self._sync()

    def remove(self, name: str) -> bool:
        """Remove a file durably; False where there is none."""
        try:
            os.unlink(self._at(name), dir_fd=self._fd)
        except FileNotFoundError:
            return False
        self._sync()
        return True

    def set_aside(self, name: str) -> str:
        """Rename *name* so that it is kept and not read again; what became of it, for a message."""
        aside = f"{name}.corrupt-{time.time_ns()}"
        try:
            self.rename(name, aside)
        except OSError as error:
            return f"it could not be set aside ({_reason(error)})"
        return f"it is kept as {aside}"

    def names(self) -> list[str]:
        """What is in the directory."""
        return os.listdir(self.path if self._fd is None else self._fd)

    def _at(self, name: str) -> str:
        return self.where(name) if self._fd is None else name

    def _sync(self) -> None:
        # A name is durable when its directory is; Windows has no such call, and NTFS journals names.
        if self._fd is not None:
            _flush(self._fd)


def check_private(found: os.stat_result, where: str, others_may: int = 0, *, directory: bool = False) -> None:
    """Raise StoreError unless *found* is a regular file, or a *directory*, that is ours and of no use to others."""
    expected, kind = (stat.S_ISDIR, "directory") if directory else (stat.S_ISREG, "regular file")
    if stat.S_ISLNK(found.st_mode):
        raise refusal(f"{where} is a symbolic link, which is not followed: name the place that it points to")
    if not expected(found.st_mode):
        raise refusal(f"{where} is no {kind}: name another place")
    if sys.platform == "win32":
        return
    if found.st_uid != os.geteuid():
        raise refusal(
            f"{where} belongs to user {found.st_uid}, and this process runs as user {os.geteuid()}: run it as that user, or "
            "name a place of its own"
        )
    if stat.S_IMODE(found.st_mode) & 0o077 & ~others_may:
        allowed = stat.S_IMODE(found.st_mode) & (0o700 | others_may)
        if directory and found.st_mode & stat.S_ISVTX:  # /tmp, which is for everybody and has to stay so
            raise refusal(f"{where} is for everybody: name a place in a directory of its own")
        raise refusal(
            f"{where} is open to others (mode {stat.S_IMODE(found.st_mode):04o}): if what it holds may have been read or "
            f"replaced, sign in anew; then chmod {allowed:o} {where.removeprefix('the directory ')}, or name a place of its own"
        )


def failure(where: str, error: OSError) -> StoreError:
    """What the system said about *where*, as a StoreError."""
    if error.errno in (errno.ELOOP, errno.EMLINK):  # FreeBSD says EMLINK
        return refusal(f"{where} is a symbolic link, which is not followed: name the place that it points to")
    if error.errno == errno.ENOTDIR:
        return refusal(f"{where} is no directory, or a symbolic link, which is not followed: name another place")
    return StoreError(f"{where}: {_reason(error)}")


def _reason(error: OSError) -> str:
    return f"{error.strerror or type(error).__name__} ({errno.errorcode.get(error.errno or 0, error.errno)})"
