"""Every call of a store on disk fails once, in the midst of a renewal: no refresh token is spent without a durable intent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from aiohttp_oauth_middleware import (
    FileStore,
    LoginRequired,
    OAuthError,
    SQLiteStore,
    StoreError,
    Token,
    Tokens,
    TokenStore,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.sources.state import State
from aiohttp_oauth_middleware.stores.codec import loads
from tests.clock import VirtualClock
from tests.strict_server import LOST, DirectClient, StrictServer
from tests.syscalls import Syscalls, fail


def in_files(folder: Path) -> bytes:
    (file,) = (folder / "tokens").glob("*.json")
    return loads(file.read_text(), str(file))[1].body


def in_database(folder: Path) -> bytes:
    connection = sqlite3.connect(folder / "tokens.db")
    try:
        body: bytes = connection.execute("SELECT body FROM records").fetchone()[0]
        return body
    finally:
        connection.close()


STORES: dict[str, tuple[Callable[[Path], TokenStore], Callable[[Path], bytes]]] = {
    "file": (lambda folder: FileStore(folder / "tokens"), in_files),
    "sqlite": (lambda folder: SQLiteStore(folder / "tokens.db"), in_database),
}


class Watching(StrictServer):
    """It looks into the store at the moment when a refresh token arrives."""

    def __init__(self, clock: VirtualClock, durable: Callable[[], State]) -> None:
        super().__init__(clock)
        self.durable = durable
        self.without_intent = 0

    def serve(self, form: dict[str, str]) -> EndpointResponse | Exception:
        state = self.durable()
        token = state.token
        same = token is not None and token.refresh_token == form["refresh_token"]
        self.without_intent += not same or state.pending is None
        return super().serve(form)


async def until_it_works(tokens: Tokens, clock: VirtualClock) -> Token:
    """What a program does: it tries again when the error says so."""
    while True:
        try:
            return await tokens.token()
        except (StoreError, TokenUnavailable) as error:
            if not error.retryable:
                raise
            clock.advance(error.retry_after or 1.0)


async def one_fault(folder: Path, kind: str, at: int, number: int, *, after: bool, lost: bool) -> bool:
    """Whether the renewal came as far as the call *at*."""
    clock = VirtualClock()
    make, durable = STORES[kind]
    os.mkdir(folder)
    server = Watching(clock, lambda: State.from_body(durable(folder)))
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    tokens = Tokens(DirectClient(server), store=make(folder))
    await tokens.save(server.sign_in())
    await tokens.aclose()  # so that the store is opened anew among the calls
    clock.advance(4000.0)
    if lost:
        server.next.append(LOST)
    token: Token | None = None
    with Syscalls(at, fail(number), after=after).intercepted() as calls, contextlib.suppress(OAuthError):
        token = await tokens.token()
    if token is not None:
        assert server.accepts(token.access_token)
    if lost:
        # The server has rotated in the answer that was lost: nobody can do better than to say so.
        with pytest.raises(LoginRequired):
            await until_it_works(tokens, clock)
    else:
        token = await until_it_works(tokens, clock)
        assert server.accepts(token.access_token)
        assert server.reuses == 0
        assert max(server.presented.values()) == 1
    assert server.without_intent == 0, calls.names
    assert server.most_at_once == 1
    await tokens.aclose()
    if not lost:
        # As another process finds it.
        state = State.from_body(durable(folder))
        assert state.token is not None
        assert server.is_current(state.token.refresh_token)
        assert state.pending is None
    assert unhandled == []
    return len(calls.names) > at


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", STORES)
async def test_G_09_F_50_a_call_of_the_store_that_fails_spends_no_refresh_token_without_an_intent(
    tmp_path: Path, kind: str, after: bool
) -> None:
    at = 0
    while await one_fault(tmp_path / str(at), kind, at, errno.EIO if after else errno.ENOSPC, after=after, lost=False):
        at += 1
    assert at > 20


@pytest.mark.parametrize("kind", STORES)
async def test_G_09_F_50_nor_does_one_that_fails_when_the_answer_is_lost_too(tmp_path: Path, kind: str) -> None:
    at = 0
    while await one_fault(tmp_path / str(at), kind, at, errno.ENOSPC, after=False, lost=True):
        at += 1
    assert at > 20
