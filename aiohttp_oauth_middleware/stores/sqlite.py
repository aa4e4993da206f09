"""The store that is one SQLite database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakSet, finalize

from ..errors import ConfigurationError, StoreCorrupted, StoreError
from .codec import refusal
from .file import own_path
from .folder import Folder, check_private, failure
from .kernel_lock import KernelLocks, exclusive
from .store import Lock, Record
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Values = Callable[[], tuple[object, ...]]

__all__ = ("SQLiteStore",)

SCHEMA: Final = 1
_APPLICATION_ID: Final = 0x4F417554
_BUSY: Final = 10.0
_PAGE: Final = 1_000
# What others may do with the directory: read it and go through it, for the files in it are closed to them.
_READ: Final = 0o055

_CREATE: Final = f"""
    BEGIN;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {SCHEMA};
    CREATE TABLE records (key BLOB PRIMARY KEY, version INTEGER NOT NULL, label BLOB NOT NULL, body BLOB NOT NULL);
    COMMIT;
    PRAGMA journal_mode = WAL;
"""


class SQLiteStore:
    """Keeps tokens in one SQLite database, for the processes of one machine; 100,000 keys and more.

    The database and the files that SQLite puts beside it are their owner's alone (mode 0600), in a directory that nobody else
    may write to. One that is open to others, another user's, a symbolic link, damaged, or another program's is refused with a
    StoreError that says which, and left as it is. A commit is durable: the journal is a write-ahead log, synchronised in full.

    A key's lock is the kernel's, on a file of its own in the directory ``<path>-locks``: it is free when its holder is dead,
    and never taken away from one who is slow. The file system has to be a local one.

    :param path: of the database; ``~`` is expanded. It is made when something is stored.
    :raises ConfigurationError: the path is empty, or SQLite's name for a database in memory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if path == ":memory:":
            raise ConfigurationError("SQLiteStore: a database in memory would be one for each process; take MemoryStore()")
        self._path = own_path("SQLiteStore: path", path)
        self._worker = Worker("oauth-sqlite-store")
        self._locks = KernelLocks(f"{self._path}-locks", self._worker)
        self._database = _Database(self._path)
        finalize(self, self._database.close)

    def __repr__(self) -> str:
        return f"SQLiteStore({self._path!r})"

    async def load(self, key: str) -> Record | None:
        rows = await self._read("SELECT version, label, body FROM records WHERE key = ?", lambda: (_blob(key),))
        return Record(rows[0][0], _text(rows[0][1]), rows[0][2]) if rows else None

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        if expected == 0:
            return await self._write(
                "INSERT INTO records (version, label, body, key) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                lambda: (record.version, _blob(record.key_label), record.body, _blob(key)),
            )
        return await self._write(
            "UPDATE records SET version = ?, label = ?, body = ? WHERE key = ? AND version = ?",
            lambda: (record.version, _blob(record.key_label), record.body, _blob(key), expected),
        )

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        if expected is None:
            return await self._write("DELETE FROM records WHERE key = ?", lambda: (_blob(key),))
        return await self._write("DELETE FROM records WHERE key = ? AND version = ?", lambda: (_blob(key), expected))

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        return self._locks.lock(key, wait=wait)

    async def keys(self) -> AsyncIterator[str]:
        # By pages, for a long read would keep the write-ahead log from being folded in.
        sql = "SELECT key FROM records WHERE key > ? ORDER BY key LIMIT ?"
        last: object = 0  # every blob is greater than a number
        while rows := await self._read(sql, partial(tuple, (last, _PAGE))):
            for (key,) in rows:
                yield _text(key)
            last = rows[-1][0]

    async def aclose(self) -> None:
        """Close the database; the tokens stay in it, and the store may be used again."""
        await self._worker.run(self._database.close)
        self._worker.close()

    # The values come out of a function in the thread: a traceback that shows locals shall not show them.

    async def _read(self, sql: str, values: _Values) -> list[Any]:
        return await self._worker.run(lambda: self._database.read(sql, values))

    async def _write(self, sql: str, values: _Values) -> bool:
        return await self._worker.run(lambda: self._database.write(sql, values))


class _Database:
    """The connection, in whatever thread; it is open in one process only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        _databases.add(self)

    def read(self, sql: str, values: _Values) -> list[Any]:
        """The rows of a query; none where there is no database yet."""
        with self._connected() as connection:
            return [] if connection is None else connection.execute(sql, values()).fetchall()

    def write(self, sql: str, values: _Values) -> bool:
        """Whether the statement changed a row, which is durable then. One that inserts makes the database first."""
        # A statement outside of a transaction is one by itself, and as short as can be: SQLite begins it as a writer
        # (BEGIN IMMEDIATE) and commits it, so the version is compared and the record swapped at once.
        with self._connected(create=sql.startswith("INSERT")) as connection:
            return connection is not None and connection.execute(sql, values()).rowcount == 1

    def close(self) -> None:
        """Close the connection, unless another thread is at work: it may be called by a garbage collection, in any thread."""
        if _guard.acquire(blocking=False):
            try:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close()
            finally:
                _guard.release()

    @contextlib.contextmanager
    def _connected(self, *, create: bool = False) -> Iterator[sqlite3.Connection | None]:
        with _guard:
            try:
                yield self._current(create)
            except sqlite3.Error as error:
                self.close()  # what failed may have left a transaction open
                raise _translated(self._path, error) from error
            except OSError as error:
                raise failure(self._path, error) from error

    def _current(self, create: bool) -> sqlite3.Connection | None:
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            if not create:
                return None
            self._create()
            found = os.stat(self._path, follow_symlinks=False)
        check_private(found, self._path)
        # A database that was deleted or replaced is still written to by whoever has it open.
        if self._connection is None or self._identity != (found.st_dev, found.st_ino):
            self.close()
            if found.st_size == 0:
                raise StoreCorrupted(f"{self._path} is empty: put a copy in its place, or delete it and sign in again")
            self._connection = self._opened()
            self._identity = found.st_dev, found.st_ino
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        with Folder.opened(os.path.dirname(self._path), create=False, others_may=_READ):
            for suffix in ("-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    check_private(os.stat(f"{self._path}{suffix}", follow_symlinks=False), f"{self._path}{suffix}")
        connection = _connect(self._path)
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if application != _APPLICATION_ID:
                raise refusal(f"{self._path} is the database of another program: name another path")
            if schema > SCHEMA:
                raise refusal(
                    f"{self._path} was made by a newer version of this package (schema {schema}; this one reads {SCHEMA}): "
                    "update aiohttp-oauth-middleware here, or name another path"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        """Make the database beside its place, and then put it there: one that is half made is never seen."""
        directory, name = os.path.split(self._path)
        new = f"{name}.new"
        with Folder.opened(directory, others_may=_READ) as folder, exclusive(f"{self._path}-locks", "making.lock"):
            if os.path.lexists(self._path):  # another process was faster
                return
            for suffix in ("", "-journal", "-wal", "-shm"):
                folder.remove(f"{new}{suffix}")
            # SQLite gives the files that it makes beside a database the same mode.
            os.close(folder.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            connection = _connect(folder.where(new))
            try:
                connection.executescript(_CREATE)
            finally:
                connection.close()
            folder.rename(new, name)


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        # NORMAL, which many take with a write-ahead log, may lose the last commits with the power.
        # secure_delete: what is deleted or replaced is overwritten in the file.
        for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _translated(path: str, error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupted(
            f"{path} is damaged, or no SQLite database ({name}): it is left as it is; end all who use it, then put a copy in "
            "its place, or move it away with its -wal and sign in again"
        )
    return StoreError(f"the token store {path}: {error} ({name})")


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")


# One database at a time, so that none is open while the process forks: SQLite's own account of the locks would be the child's
# too, who has none of them. The parent's last close then removes the write-ahead log under the child, and what the child
# commits is lost.
_guard = threading.RLock()
_databases: WeakSet[_Database] = WeakSet()


def _pause() -> None:
    _guard.acquire()
    for database in list(_databases):
        database.close()


def _resume_in_child() -> None:
    global _guard
    _guard = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause, after_in_parent=lambda: _guard.release(), after_in_child=_resume_in_child)
