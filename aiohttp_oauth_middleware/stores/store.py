"""What a store is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from ..errors import ConfigurationError
from ..value import Value

__all__ = ("Lock", "Record", "TokenStore", "check_store", "next_version")


class Record(Value):
    """What a store keeps under a key.

    :param version: positive, and one more each time.
    :param key_label: the key as the user wrote it, in the clear.
    :param body: opaque to the store, and secret.
    """

    __slots__ = ("body", "key_label", "version")
    _hidden = frozenset({"body"})

    version: int
    key_label: str
    body: bytes

    def __init__(self, version: int, key_label: str, body: bytes) -> None:
        self._freeze(version=version, key_label=key_label, body=body)


class Lock(Protocol):
    """A lock that is held."""

    @property
    def predecessor_is_dead(self) -> bool:
        """Whether nobody who held it before can still be at work: a kernel knows, a lease only guesses."""


class TokenStore(Protocol):
    """Persistence for tokens. A class of the user's own that has these methods is one.

    Every method may raise :class:`StoreError`; what else it raises is taken for one.
    """

    async def load(self, key: str) -> Record | None:
        """The record of *key*, or None."""

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        """Put *record* in place if the version there is *expected* (0: none is there). Durable when it returns True.

        :param lock: the lock under which it is done, if any, so that a lease that was lost can refuse the write.
        """

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove the record of *key* if its version is *expected*, or whatever it is where that is None."""

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        """Exclude all others who lock *key*, across loops, threads, and whoever else shares the store.

        Raises :class:`StoreLockTimeout` after *wait* seconds.
        """

    def keys(self) -> AsyncIterator[str]:
        """The keys of all records."""

    async def aclose(self) -> None:
        """Release what the store holds open."""


def next_version(version: int) -> int:
    """The version of what replaces *version*, 0 being none.

    A first one begins where no earlier record of this key can have been: by its version an outcome that comes late is told from
    what was written since, although the record was deleted meanwhile.
    """
    return version + 1 if version else time.time_ns() // 1_000


_METHODS: Final = ("load", "save", "delete", "lock", "keys", "aclose")


def check_store(owner: str, store: object) -> None:
    """Raise ConfigurationError unless *store* has the methods of one."""
    if isinstance(store, type) or not all(callable(getattr(store, name, None)) for name in _METHODS):
        raise ConfigurationError(f"{owner}: store must be an object with the methods {', '.join(_METHODS)}")
