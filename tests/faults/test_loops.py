"""One object, several loops and threads: no future crosses loops, nothing hangs, and there is one refresh."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ClientSession

from aiohttp_oauth_middleware import ClientCredentials, OAuth2Auth, RefreshInDoubt, Token, Tokens
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, SlowStore, StrictServer, turns


def test_F_15_threads_with_loops_of_their_own_make_one_refresh(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client())
    asyncio.run(tokens.save(oauth_server.issue().replace(expires_at=1.0, obtained_at=0.0)))
    auth = OAuth2Auth(tokens, origins=oauth_api.origin)
    together = threading.Barrier(4)

    async def work() -> list[int]:
        async with ClientSession(middlewares=[auth]) as session:

            async def one() -> int:
                async with session.get(oauth_api.url) as response:
                    return response.status

            await asyncio.to_thread(together.wait)
            return await asyncio.gather(*(one() for _ in range(25)))

    with ThreadPoolExecutor(4) as pool:
        results = [future.result(60) for future in [pool.submit(asyncio.run, work()) for _ in range(4)]]
    assert results == [[200] * 25] * 4
    assert oauth_server.counts.token_requests == 1
    assert oauth_server.counts.reuses == oauth_server.counts.refresh_overlaps == 0


@pytest.mark.parametrize("debug", [False, True])
def test_F_15_loops_in_turn_share_one_object(oauth_server: AuthorizationServer, oauth_api: EchoAPI, debug: bool) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    auth = OAuth2Auth(tokens, origins=oauth_api.origin)

    async def work() -> int:
        async with ClientSession(middlewares=[auth]) as session, session.get(oauth_api.url) as response:
            return response.status

    assert [asyncio.run(work(), debug=debug) for _ in range(3)] == [200] * 3
    assert oauth_server.counts.token_requests == 1


def test_F_15_one_loop_runs_inside_the_thread_of_another(oauth_server: AuthorizationServer) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())

    async def outer() -> tuple[Token, Token]:
        inner = asyncio.to_thread(asyncio.run, tokens.token())
        return await asyncio.gather(tokens.token(), inner)

    one, other = asyncio.run(outer())
    assert one == other
    assert oauth_server.counts.token_requests == 1


def test_F_15_a_loop_that_was_closed_in_the_middle_does_not_block_the_next() -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    store = SlowStore()
    abandoned: set[asyncio.Task[Any]] = set()
    for point in range(2, 30):
        tokens = Tokens(DirectClient(server), store=store, key=f"user {point}")
        asyncio.run(tokens.save(server.sign_in()))
        clock.advance(3600.0)

        async def begin(tokens: Tokens = tokens, point: int = point) -> None:
            abandoned.add(asyncio.create_task(tokens.token()))
            await turns(point)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        abandoned.update(asyncio.all_tasks(loop))
        loop.close()

        async def go_on(tokens: Tokens = tokens) -> Token | BaseException:
            async with asyncio.timeout(5.0):
                return (await asyncio.gather(tokens.token(), return_exceptions=True))[0]

        # What had been sent is lost with a loop that nobody let end, and then it says so; it doesn't hang.
        outcome = asyncio.run(go_on())
        assert isinstance(outcome, Token | RefreshInDoubt)
    for task in abandoned:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        with suppress(RuntimeError):
            task.get_coro().close()
