"""All records of one client: who has a token, and what can be of no use any more."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

from ..errors import OAuthError, StoreError
from ..stores.store import Record, TokenStore
from .state import State

__all__ = ("delete_dead", "keys_with_token")

_log = logging.getLogger("aiohttp_oauth_middleware")


async def keys_with_token(store: TokenStore, owner: str) -> AsyncIterator[str]:
    """The keys of the users who have a token.

    :param owner: the digest of what the tokens belong to besides the key.
    """
    async for _, record, state in _records(store, owner):
        if state.kind == "ok" and state.token is not None:
            yield record.key_label


async def delete_dead(store: TokenStore, owner: str, *, before: float) -> int:
    """Delete what was of no use any more *before* then, in epoch seconds; how many records that were."""
    deleted = 0
    async for key, record, state in _records(store, owner):
        if state.dead_since is not None and state.dead_since < before:
            with _store_errors():
                # Whoever signs in at this moment has written another version.
                deleted += await store.delete(key, expected=record.version)
    return deleted


async def _records(store: TokenStore, owner: str) -> AsyncIterator[tuple[str, Record, State]]:
    with _store_errors():
        async for key in store.keys():
            try:
                record = await store.load(key)
                state = State.from_body(record.body) if record is not None else None
            except StoreError as error:
                if error.retryable:
                    raise
                _log.warning("a record is passed over: %s", error)
                continue
            if record is not None and state is not None and state.owner == owner:
                yield key, record, state


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except OAuthError:
        raise
    except Exception as error:
        raise StoreError(f"the token store raised {type(error).__name__}") from error
