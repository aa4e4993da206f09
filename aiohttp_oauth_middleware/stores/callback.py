"""The store that is two functions of the user's."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

from ..errors import ConfigurationError, OAuthError, StoreError
from ..value import Secret
from .codec import dumps, loads
from .memory import LocalLocks
from .store import Lock, Record

__all__ = ("CallbackStore",)

T = TypeVar("T")

# Seconds that one write waits for another of the same key.
_WRITE_WAIT: Final = 60.0


class CallbackStore:
    """Keeps tokens wherever two functions of yours put them: a column of a table, a secret of a vault.

    They get and give text, whose form is this package's own. Each may be a coroutine function; a plain one is called on the
    event loop, and must not block. What they raise is a :class:`StoreError`.

    Within one process it is as good as any store. Beyond that it promises nothing: its locks are this process's own, and of
    two processes that write at once the later one wins, so a refresh token may be spent twice. And a token is as durable as
    *save* makes it. For several processes take another store, or write one: :class:`TokenStore` says how.

    :param load: the text that was saved under a key, or None.
    :param save: called with a key and its text, or None to delete it. When it returns, the text must be durable.
    :param keys: all keys that something is saved under, for :meth:`Tokens.keys`; without it, that is a StoreError.
    :raises ConfigurationError: one of them can't be called.
    """

    def __init__(
        self,
        load: Callable[[str], str | Awaitable[str | None] | None],
        save: Callable[[str, str | None], Awaitable[None] | None],
        *,
        keys: Callable[[], Iterable[str] | Awaitable[Iterable[str]]] | None = None,
    ) -> None:
        for name, function in (("load", load), ("save", save), ("keys", keys)):
            if not callable(function) and not (name == "keys" and function is None):
                raise ConfigurationError(f"CallbackStore: {name} must be a function")
        self._load = load
        self._save = save
        self._keys = keys
        self._locks = LocalLocks()
        self._writes = LocalLocks()

    def __repr__(self) -> str:
        return f"<CallbackStore of {getattr(self._load, '__qualname__', 'a function')}>"

    async def load(self, key: str) -> Record | None:
        text = await self._text(key)
        return None if text is None else loads(text.reveal(), "what CallbackStore's load returned", key)[1]

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        async with self._writes.lock(key, wait=_WRITE_WAIT):
            if await self._version(key) != expected:
                return False
            await _called("save", lambda: self._save(key, dumps(key, record)))
            return True

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        async with self._writes.lock(key, wait=_WRITE_WAIT):
            if await self._text(key) is None or (expected is not None and await self._version(key) != expected):
                return False
            await _called("save", lambda: self._save(key, None))
            return True

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        return self._locks.lock(key, wait=wait)

    async def keys(self) -> AsyncIterator[str]:
        if self._keys is None:
            raise StoreError("CallbackStore can't list its keys: give it a function keys=")
        for key in await _called("keys", self._keys):
            yield key

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _text(self, key: str) -> Secret | None:
        text: object = await _called("load", lambda: self._load(key))
        if isinstance(text, str):
            return Secret(text)
        if text is None:
            return None
        raise StoreError(f"CallbackStore: load returned {type(text).__name__}, and neither text nor None")

    async def _version(self, key: str) -> int:
        record = await self.load(key)
        return 0 if record is None else record.version


async def _called(name: str, function: Callable[[], T | Awaitable[T]]) -> T:
    try:
        value = function()
        return await value if inspect.isawaitable(value) else value
    except OAuthError:
        raise
    except Exception as error:
        raise StoreError(f"CallbackStore: {name} raised {type(error).__name__}") from error
