"""The store that is a directory, with a file for each key."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, TypeVar

from ..errors import ConfigurationError, StoreCorrupted, StoreError
from .codec import dumps, key_hash, loads
from .folder import Folder, failure
from .kernel_lock import KernelLocks, exclusive
from .store import Lock, Record
from .worker import Worker

__all__ = ("FileStore",)

T = TypeVar("T")

_GUARD: Final = "writing.lock"


class FileStore:
    """Keeps tokens in a directory of its own, a file for each key, for the processes of one machine.

    Each file is its owner's alone (mode 0600, in a directory of mode 0700), is replaced at once and durably, and carries a
    checksum. One that is open to others, another user's, or a symbolic link is refused with a StoreError; one that can't be
    read is renamed to ``….corrupt-<time>`` and is a StoreCorrupted, the first time that somebody comes upon it.

    A key's lock is the kernel's: it is free when its holder is dead, and never taken away from one who is slow. The file
    system has to be a local one. On Windows the directory has the permissions that it inherits. For more than some thousand
    keys take :class:`SQLiteStore`.

    :param directory: its path; ``~`` is expanded. It is made when something is stored.
    :raises ConfigurationError: the path is empty.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._path = own_path("FileStore: directory", directory)
        self._worker = Worker("oauth-file-store")
        self._locks = KernelLocks(self._path, self._worker)
        self._swept = False

    def __repr__(self) -> str:
        return f"FileStore({self._path!r})"

    async def load(self, key: str) -> Record | None:
        return await self._run(lambda: self._load(key))

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        return await self._run(lambda: self._save(key, record, expected))

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self._run(lambda: self._delete(key, expected))

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        return self._locks.lock(key, wait=wait)

    async def keys(self) -> AsyncIterator[str]:
        for name in await self._run(self._names):
            found = await self._run(partial(self._found, name, None))
            if found is not None:  # else it was deleted meanwhile
                yield found[0]

    async def aclose(self) -> None:
        """End the thread; the tokens stay, and the store may be used again."""
        self._worker.close()

    async def _run(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                return work()
            except OSError as error:
                raise failure(f"the token store in {self._path}", error) from error

        return await self._worker.run(translated)

    def _load(self, key: str) -> Record | None:
        found = self._found(_name(key), key)
        return None if found is None else found[1]

    def _found(self, name: str, key: str | None) -> tuple[str, Record] | None:
        try:
            with Folder.opened(self._path, create=False) as folder:
                try:
                    return _read(folder, name, key)
                except StoreCorrupted as error:
                    bad = str(error)
                try:
                    # Again, and with nobody writing: what is renamed must be what was found bad.
                    with exclusive(self._path, _GUARD):
                        return _read_or_set_aside(folder, name, key)
                except StoreCorrupted:
                    raise
                except StoreError as error:
                    raise StoreCorrupted(f"{bad}; and it could not be set aside: {error}") from error
        except FileNotFoundError:
            return None

    def _save(self, key: str, record: Record, expected: int) -> bool:
        # The key's own lock is held through a whole renewal, and save() and revoke() write without it: so that no two compare
        # and swap at once, there is another, for the few milliseconds that a write takes.
        with Folder.opened(self._path) as folder, exclusive(self._path, _GUARD):
            self._sweep(folder)
            if _version(folder, key) != expected:
                return False
            folder.write(_name(key), dumps(key, record).encode())
            return True

    def _delete(self, key: str, expected: int | None) -> bool:
        try:
            with Folder.opened(self._path, create=False) as folder, exclusive(self._path, _GUARD):
                if expected is not None and _version(folder, key) != expected:
                    return False
                return folder.remove(_name(key))
        except FileNotFoundError:
            return False

    def _names(self) -> list[str]:
        try:
            with Folder.opened(self._path, create=False) as folder:
                return sorted(name for name in folder.names() if name.endswith(".json"))
        except FileNotFoundError:
            return []

    def _sweep(self, folder: Folder) -> None:
        """Remove, once, what processes that were killed have left half written."""
        if not self._swept:
            for name in folder.names():
                if name.endswith(".tmp"):
                    folder.remove(name)
            self._swept = True


def own_path(argument: str, path: object) -> str:
    """*path*, absolute: what the working directory is later does not matter."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not os.fspath(path):
        raise ConfigurationError(f"{argument} must be a path, as a string or a pathlib.Path")
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def _name(key: str) -> str:
    return f"{key_hash(key)}.json"


def _read(folder: Folder, name: str, key: str | None) -> tuple[str, Record] | None:
    data = folder.read(name)
    return None if data is None else loads(data.decode("ascii", "replace"), folder.where(name), key)


def _read_or_set_aside(folder: Folder, name: str, key: str | None) -> tuple[str, Record] | None:
    try:
        return _read(folder, name, key)
    except StoreCorrupted as error:
        aside = folder.set_aside(name)
        raise StoreCorrupted(f"{error}: {aside}; sign in again, or put a good copy in its place") from None


def _version(folder: Folder, key: str) -> int:
    found = _read_or_set_aside(folder, _name(key), key)
    return 0 if found is None else found[1].version
