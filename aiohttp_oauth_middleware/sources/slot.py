"""One record in the store: as bytes, and as a State."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from ..errors import OAuthError, StoreCorrupted, StoreError
from ..stores.store import Record, TokenStore, next_version
from ..token import Token
from .state import State, new_sign_in

__all__ = ("Slot", "StateSlot")

T = TypeVar("T")

_CONFLICTS = 100


class Content(Protocol):
    """What a record's body is made of; the bytes stay out of sight, for a traceback that shows locals would show them."""

    def to_body(self) -> bytes: ...


class Slot:
    """Where the store keeps what is known of one user's key. What a store raises leaves it as a StoreError.

    :param owner: the digest of what that belongs to besides the key.
    :param label: the user's key.
    """

    __slots__ = ("_label", "_owner", "_store")

    def __init__(self, store: TokenStore, owner: str, label: str) -> None:
        self._store = store
        self._owner = owner
        self._label = label

    @property
    def key(self) -> str:
        """The store's key: what the token belongs to, and whose it is, in one digest."""
        return hashlib.sha256(f"{self._owner}\0{self._label}".encode("utf-8", "surrogatepass")).hexdigest()

    async def record(self) -> Record | None:
        """What is there."""
        return await self._guarded(self._store.load(self.key))

    async def replaced(self, record: Record | None, content: Content) -> bool:
        """Whether *content* could be put in place of *record*: it could not where another is there by now."""
        version = record.version if record is not None else 0
        new = Record(next_version(version), self._label, content.to_body())
        return await self._guarded(self._store.save(self.key, new, expected=version))

    async def put(self, content: Content) -> None:
        """Put *content* in place of whatever is there, without the lock of a refresh, whose holder then adopts it."""
        for _ in range(_CONFLICTS):
            try:
                record = await self.record()
            except StoreCorrupted:
                # What nobody can read any more shall not keep somebody out who signs in again.
                await self.delete()
                record = None
            if await self.replaced(record, content):
                return
        raise self._contended()

    async def delete(self) -> None:
        """Remove whatever is there."""
        await self._guarded(self._store.delete(self.key))

    def _contended(self) -> StoreError:
        return StoreError("the record of this key changed each time it was about to be written").about(self._label)

    async def _guarded(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except OAuthError:
            raise
        except Exception as error:
            raise StoreError(f"the token store raised {type(error).__name__}").about(self._label) from error


class StateSlot(Slot):
    """The slot of a token that :mod:`.refresh` renews."""

    __slots__ = ()

    async def load(self) -> State:
        """What is there; an empty State where nothing is."""
        return _state_of(await self.record())

    async def keep(self, token: Token) -> None:
        """Write *token* in place of whatever is there."""
        await self.put(State(owner=self._owner, sign_in=new_sign_in(), token=token))

    async def sign_out(self, end: Callable[[State], Awaitable[None]], *, now: float) -> None:
        """Call *end* with what is there, and again with what came meanwhile, then write that the user is signed out."""
        signed_out = State("signed_out", owner=self._owner, since=now)
        for _ in range(_CONFLICTS):
            record = await self.record()
            await end(_state_of(record))
            if await self.replaced(record, signed_out):
                return
        raise self._contended()


def _state_of(record: Record | None) -> State:
    return State.from_body(record.body) if record is not None else State()
