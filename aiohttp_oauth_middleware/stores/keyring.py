"""The store that is the keyring of the desktop."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, Protocol, TypeVar

from ..errors import ConfigurationError, OAuthError, StoreCorrupted, StoreError
from .codec import dumps, key_hash, loads, refusal
from .file import own_path
from .kernel_lock import KernelLocks, exclusive
from .store import Lock, Record
from .worker import Worker

__all__ = ("KeyringBackend", "KeyringStore")

T = TypeVar("T")

# Characters. The Windows Credential Manager takes 2,560 bytes for a password, two for each character; others take more than
# any token has.
_ENTRY: Final = 1_200 if sys.platform == "win32" else 100_000
_PARTS: Final = "parts"
_INDEX: Final = "index"


class KeyringBackend(Protocol):
    """What is needed of a backend of the library keyring."""

    def get_password(self, service: str, username: str) -> str | None:
        """The text of an entry, or None."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Write an entry at once."""

    def delete_password(self, service: str, username: str) -> None:
        """Remove an entry."""


class KeyringStore:
    """Keeps tokens in the keyring of the user's desktop: Secret Service, macOS Keychain, Windows Credential Manager.

    The library `keyring <https://pypi.org/project/keyring/>`_ finds it; a machine without one is a StoreError. A record is one
    entry, or several where the backend takes no more in one, and then another set is written before the one that names the
    set is switched. Whatever else runs as this user can ask the keyring too.

    Its locks are the kernel's, on files in a directory beside it: processes that share the keyring must share that directory.

    :param service: the name of your program, under which the entries are kept.
    :param locks: the directory of the lock files, of its own; by default one in the user's directory for such things
        (``$XDG_STATE_HOME``, ``~/.local/state``; on macOS ``~/Library/Application Support``; on Windows ``%LOCALAPPDATA%``).
    :param backend: a backend of the library's; by default the one that it prefers.
    :param entry_size: characters that the backend takes in one entry; by default what is known of the platform's own.
    :raises ConfigurationError: an argument can't work, or ``keyring`` is not installed.
    """

    def __init__(
        self,
        service: str,
        *,
        locks: str | os.PathLike[str] | None = None,
        backend: KeyringBackend | None = None,
        entry_size: int = _ENTRY,
    ) -> None:
        if not isinstance(service, str) or not service:
            raise ConfigurationError("KeyringStore: service must be the name of your program")
        if not isinstance(entry_size, int) or entry_size < 100:
            raise ConfigurationError("KeyringStore: entry_size must be a number of characters, 100 or more")
        if backend is None and importlib.util.find_spec("keyring") is None:
            raise ConfigurationError("KeyringStore needs the library keyring: pip install 'aiohttp-oauth-middleware[keyring]'")
        self._service = service
        self._backend = backend
        self._entry_size = entry_size
        self._path = own_path("KeyringStore: locks", locks if locks is not None else _state_directory(service))
        self._worker = Worker("oauth-keyring-store")
        # Of its own, for the keyring may wait for its user to unlock it.
        self._lock_worker = Worker("oauth-keyring-locks")
        self._locks = KernelLocks(self._path, self._lock_worker)

    def __repr__(self) -> str:
        return f"KeyringStore({self._service!r})"

    async def load(self, key: str) -> Record | None:
        found = await self._run(lambda: self._found(key_hash(key), key))
        return None if found is None else found[1]

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        return await self._run(lambda: self._save(key, record, expected))

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self._run(lambda: self._delete(key, expected))

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        return self._locks.lock(key, wait=wait)

    async def keys(self) -> AsyncIterator[str]:
        for name in await self._run(self._index):
            found = await self._run(partial(self._found, name, None))
            if found is not None:  # else it was deleted meanwhile
                yield found[0]

    async def aclose(self) -> None:
        """End the threads; the tokens stay, and the store may be used again."""
        self._worker.close()
        self._lock_worker.close()

    async def _run(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                return work()
            except OAuthError:
                raise
            except Exception as error:  # each backend has its own
                raise StoreError(f"the keyring failed ({type(error).__name__}): is it there, and unlocked?") from error

        return await self._worker.run(translated)

    def _found(self, name: str, key: str | None) -> tuple[str, Record] | None:
        entries = self._entries()
        while True:
            head = entries.head(name)
            text = entries.text(name, head)
            if text is not None or head is None:
                try:
                    return None if text is None else loads(text, f"the entry {name} of {self._service} in the keyring", key)
                except StoreCorrupted as error:
                    reason = str(error)
            else:
                reason = f"the entry {name} of {self._service} in the keyring lacks a part"
            del text
            # What is read while it is written has been switched by now.
            if entries.head(name) == head:
                raise StoreCorrupted(f"{reason}: forget() its key, or delete the entry, and sign in again")

    def _save(self, key: str, record: Record, expected: int) -> bool:
        # As in FileStore: save() and revoke() write without the key's own lock.
        with exclusive(self._path, "writing.lock"):
            name = key_hash(key)
            found = self._found(name, key)
            if (found[1].version if found else 0) != expected:
                return False
            entries = self._entries()
            if found is None:
                # Before the record: one that is listed and not there is passed over.
                entries.put(_INDEX, json.dumps(sorted({*self._index(), name})))
            entries.put(name, dumps(key, record))
            return True

    def _delete(self, key: str, expected: int | None) -> bool:
        with exclusive(self._path, "writing.lock"):
            name, entries = key_hash(key), self._entries()
            if expected is not None:
                found = self._found(name, key)
                if found is None or found[1].version != expected:
                    return False
            if not entries.remove(name):
                return False
            entries.put(_INDEX, json.dumps(sorted({*self._index()} - {name})))
            return True

    def _index(self) -> list[str]:
        entries = self._entries()
        while True:
            head = entries.head(_INDEX)
            text = entries.text(_INDEX, head)
            with contextlib.suppress(ValueError):
                if text is not None or head is None:
                    return [] if text is None else [str(name) for name in json.loads(text)]
            if entries.head(_INDEX) == head:
                raise StoreCorrupted(f"the entry {_INDEX} of {self._service} in the keyring can't be read: delete it")

    def _entries(self) -> _Entries:
        return _Entries(self._backend if self._backend is not None else _preferred(), self._service, self._entry_size)


class _Entries:
    """Texts of any length, in entries of *size* characters at the most.

    Where a text is longer, its entry only says which set of parts holds it, and of how many: ``parts:a:3``. A new text goes
    into the other set, then the entry is switched, so one that is half written is never seen.
    """

    def __init__(self, backend: KeyringBackend, service: str, size: int) -> None:
        self._backend = backend
        self._service = service
        self._size = size

    def head(self, name: str) -> str | None:
        return self._backend.get_password(self._service, name)

    def text(self, name: str, head: str | None) -> str | None:
        """The text that *head* stands for; None where there is none, or a part is missing."""
        parts = [self._backend.get_password(self._service, part) for part in _parts(name, head)]
        if not parts:
            return head
        return None if None in parts else "".join(part for part in parts if part)

    def put(self, name: str, text: str) -> None:
        before = self.head(name)
        head = text
        if len(text) > self._size:
            pieces = [text[start : start + self._size] for start in range(0, len(text), self._size)]
            head = f"{_PARTS}:{'b' if (before or '').startswith(f'{_PARTS}:a:') else 'a'}:{len(pieces)}"
            for part, piece in zip(_parts(name, head), pieces, strict=True):
                self._backend.set_password(self._service, part, piece)
        self._backend.set_password(self._service, name, head)
        for part in _parts(name, before):
            self._remove(part)

    def remove(self, name: str) -> bool:
        before = self.head(name)
        if before is None:
            return False
        self._remove(name)
        for part in _parts(name, before):
            self._remove(part)
        return True

    def _remove(self, name: str) -> None:
        if self._backend.get_password(self._service, name) is not None:
            self._backend.delete_password(self._service, name)


def _parts(name: str, head: str | None) -> Iterator[str]:
    """The names of the parts that *head* stands for."""
    kind, _, rest = (head or "").partition(":")
    which, _, number = rest.partition(":")
    if kind == _PARTS and number.isdecimal():
        for part in range(int(number)):
            yield f"{name}.{which}.{part}"


def _preferred() -> KeyringBackend:
    import keyring
    from keyring.backends import fail, null

    backend = keyring.get_keyring()
    if isinstance(backend, fail.Keyring | null.Keyring):
        raise refusal(
            "there is no keyring here that the library keyring can use: install one (`keyring diagnose` tells more), or take "
            "FileStore"
        )
    return backend


def _state_directory(service: str) -> str:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join("~", "AppData", "Local")
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return os.path.join(base, "aiohttp_oauth_middleware", key_hash(service)[:16])
