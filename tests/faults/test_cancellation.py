"""Whoever is cancelled, times out, closes or ends: the refresh completes, and what it brought is in the store."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout, web

from aiohttp_oauth_middleware import ExtensionGrant, MemoryStore, OAuth2Auth, OAuthError, Secret, Token, Tokens
from aiohttp_oauth_middleware.sources.state import State
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI

ROOT = Path(__file__).resolve().parents[2]


async def with_an_expired_token(server: AuthorizationServer, store: MemoryStore) -> Tokens:
    tokens = Tokens(server.client(), store=store)
    await tokens.client.metadata()
    await tokens.save(server.issue().replace(expires_at=1.0, obtained_at=0.0))
    return tokens


def stored(store: MemoryStore) -> Token:
    [record] = store._records.values()
    token = State.from_body(record.body).token
    assert token is not None
    return token


def check(server: AuthorizationServer, store: MemoryStore) -> None:
    """One refresh, and its refresh token is in the store."""
    assert server.counts.token_requests == server.counts.refreshes == 1
    assert server.counts.reuses == server.counts.families_revoked == 0
    token = stored(store)
    assert server.is_active(token.access_token)
    assert token.refresh_token is not None
    assert server.is_active(token.refresh_token)


async def settled(tokens: Tokens) -> None:
    for flight in tokens._common.flights.under_way():
        await asyncio.wait([flight.task])


async def get(session: ClientSession, api: EchoAPI, timeout: ClientTimeout | None = None) -> int:
    async with session.get(api.url / "thing", timeout=timeout or ClientTimeout(total=60)) as response:
        await response.read()
        return response.status


async def test_P0_F_06_some_waiters_cancelled(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    store = MemoryStore()
    tokens = await with_an_expired_token(oauth_server, store)
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_server.hold() as held:
            requests = [asyncio.create_task(get(session, oauth_api)) for _ in range(20)]
            await held.arrived()
            for request in requests[5:10]:
                request.cancel()
            held.release()
            results = await asyncio.gather(*requests, return_exceptions=True)
    assert [result for result in results if result != 200] == [r for r in results if isinstance(r, asyncio.CancelledError)]
    assert results.count(200) == 15
    check(oauth_server, store)


async def test_P0_F_07_the_leader_cancelled(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    store = MemoryStore()
    tokens = await with_an_expired_token(oauth_server, store)
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_server.hold() as held:
            leader = asyncio.create_task(get(session, oauth_api))
            await held.arrived()
            others = [asyncio.create_task(get(session, oauth_api)) for _ in range(20)]
            leader.cancel()
            await asyncio.wait([leader])
            held.release()
            assert await asyncio.gather(*others) == [200] * 20
    assert leader.cancelled()
    check(oauth_server, store)


async def test_P0_F_08_the_leaders_own_timeout(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    store = MemoryStore()
    tokens = await with_an_expired_token(oauth_server, store)
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_server.hold() as held:
            leader = asyncio.create_task(get(session, oauth_api, ClientTimeout(total=0.05)))
            others = [asyncio.create_task(get(session, oauth_api)) for _ in range(20)]
            await held.arrived()
            with pytest.raises(TimeoutError):
                await leader
            held.release()
            assert await asyncio.gather(*others) == [200] * 20
    check(oauth_server, store)


async def test_P0_F_09_all_waiters_cancelled_and_the_garbage_collected(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    tokens = await with_an_expired_token(oauth_server, store)
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_server.hold() as held:
            requests = [asyncio.create_task(get(session, oauth_api)) for _ in range(20)]
            await held.arrived()
            for request in requests:
                request.cancel()
            await asyncio.wait(requests)
            requests.clear()
            for _ in range(10):
                gc.collect()
                await asyncio.sleep(0)
            held.release()
            await settled(tokens)
        check(oauth_server, store)
        assert await get(session, oauth_api) == 200
    check(oauth_server, store)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_P0_F_11_the_session_closed_in_the_middle(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    tokens = await with_an_expired_token(oauth_server, store)
    session = ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)])
    with oauth_server.hold() as held:
        requests = [asyncio.create_task(get(session, oauth_api)) for _ in range(5)]
        direct = asyncio.create_task(tokens.token())
        await held.arrived()
        await session.close()
        held.release()
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert oauth_server.is_active((await direct).access_token)
    assert all(isinstance(result, Exception) for result in results), "the session is closed"
    await settled(tokens)
    check(oauth_server, store)
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


# The end of a loop. The store outlives it.


def by_run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(main())


def by_runner(main: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner() as runner:
        runner.run(main())


def by_run_app(main: Callable[[], Coroutine[None, None, None]]) -> None:
    async def start(app: web.Application) -> None:
        async def work() -> None:
            await main()
            raise web.GracefulExit

        app["work"] = asyncio.create_task(work())

    app = web.Application()
    app.on_startup.append(start)
    loop = asyncio.new_event_loop()
    with suppress(web.GracefulExit):
        web.run_app(app, host="127.0.0.1", port=0, print=lambda text: None, handle_signals=False, loop=loop)


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
@pytest.mark.parametrize("by", [by_run, by_runner, by_run_app], ids=lambda by: str(by.__name__))
@pytest.mark.parametrize("in_a_thread", [False, True], ids=["main thread", "thread"])
def test_P0_F_10_the_loop_ends_in_the_middle(
    oauth_server: AuthorizationServer,
    by: Callable[[Callable[[], Coroutine[None, None, None]]], None],
    in_a_thread: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    tokens: list[Tokens] = []
    waiting: set[asyncio.Task[Token]] = set()
    held = oauth_server.hold()

    async def main() -> None:
        tokens.append(await with_an_expired_token(oauth_server, store))
        held.close()
        waiting.update(asyncio.create_task(tokens[0].token()) for _ in range(5))
        await held.arrived()
        # The loop is ending by the time that the server goes on.
        threading.Timer(0.05, held.release).start()

    if in_a_thread:
        thread = threading.Thread(target=by, args=(main,))
        thread.start()
        thread.join()
    else:
        by(main)
    check(oauth_server, store)
    again = asyncio.run(tokens[0].token())
    assert again == stored(store)
    check(oauth_server, store)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_P0_F_10_a_process_ends_in_the_middle(oauth_server: AuthorizationServer, tmp_path: Path) -> None:
    kept = tmp_path / "store.json"
    program = textwrap.dedent(
        """
        import asyncio, json, sys
        from aiohttp_oauth_middleware import Client, ClientSecret, MemoryStore, Token, Tokens

        class Kept(MemoryStore):
            async def save(self, key, record, *, expected, lock=None):
                await asyncio.sleep(0)
                done = await super().save(key, record, expected=expected, lock=lock)
                with open(sys.argv[1], "wb") as file:
                    file.write(record.body)
                return done

        async def main():
            tokens = Tokens(Client(sys.argv[2], "app", ClientSecret("app-secret")), store=Kept())
            await tokens.save(Token.from_json(sys.argv[3]))
            await tokens.client.metadata()
            asyncio.create_task(tokens.token()).add_done_callback(lambda task: None)
            sys.stdout.write("sent\\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.readline)

        asyncio.run(main())
        """
    )
    old = oauth_server.issue().replace(expires_at=1.0, obtained_at=0.0)
    with oauth_server.hold() as held:
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, str(kept), oauth_server.issuer, old.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        asyncio.run(held.arrived())
        assert child.stdin is not None
        child.stdin.write("end\n")
        child.stdin.flush()
        threading.Timer(0.1, held.release).start()
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert errors == ""
    assert oauth_server.counts.refreshes == 1
    data = json.loads(kept.read_bytes())
    assert "pending" not in data
    assert data["token"]["refresh_token"] != old.refresh_token
    assert oauth_server.is_active(data["token"]["refresh_token"])


def test_F_10_after_the_grace_the_loop_does_end(oauth_server: AuthorizationServer) -> None:
    store = MemoryStore()
    held = oauth_server.hold()

    async def main() -> None:
        tokens = Tokens(oauth_server.client(timeout=5.0), store=store, shutdown_grace=0.0)
        await tokens.client.metadata()
        await tokens.save(oauth_server.issue().replace(expires_at=1.0, obtained_at=0.0))
        held.close()
        waiting.append(asyncio.create_task(tokens.token()))
        await held.arrived()

    waiting: list[asyncio.Task[Token]] = []
    asyncio.run(main())
    assert waiting[0].cancelled()
    held.release()
    [record] = store._records.values()
    assert State.from_body(record.body).pending is not None, "in doubt, and it says so"


async def test_P0_a_waiter_that_gives_up_and_tries_again_joins_the_same_refresh(oauth_server: AuthorizationServer) -> None:
    store = MemoryStore()
    tokens = await with_an_expired_token(oauth_server, store)
    with oauth_server.hold() as held:
        for _ in range(5):
            waiter = asyncio.create_task(tokens.token())
            await held.arrived()
            waiter.cancel()
            with suppress(asyncio.CancelledError, OAuthError):
                await waiter
        last = asyncio.create_task(tokens.token())
        held.release()
        await last
    check(oauth_server, store)


async def test_P0_F_10_an_answer_that_comes_after_the_grace_is_picked_up_and_nothing_is_sent_twice(
    oauth_server: AuthorizationServer,
) -> None:
    tokens = Tokens(oauth_server.client(), shutdown_grace=0.0)
    old = oauth_server.issue()
    await tokens.save(old.replace(expires_at=1.0, obtained_at=0.0))
    with oauth_server.hold(decided=True) as held:

        def first_loop() -> None:
            async def begin() -> None:
                renewing = asyncio.ensure_future(tokens.token())
                await held.arrived()
                assert not renewing.done()

            asyncio.run(begin())

        await asyncio.to_thread(first_loop)  # it ended while the rotated token was on its way
        second = asyncio.ensure_future(tokens.token())
        done, _ = await asyncio.wait([second], timeout=0)
        assert not done
    token = await second
    assert oauth_server.counts.refreshes == 1
    assert oauth_server.counts.refresh_overlaps == 0
    assert oauth_server.counts.reuses == 0
    assert token.refresh_token is not None
    assert oauth_server.is_active(token.refresh_token)
    assert await tokens.token() == token


async def test_P0_a_refresh_whose_caller_left_is_picked_up_by_the_next_one(oauth_server: AuthorizationServer) -> None:
    client = oauth_server.client()
    old = oauth_server.issue()
    with oauth_server.hold(decided=True) as held:
        first = asyncio.ensure_future(client.refresh(old))
        await held.arrived()
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.ensure_future(client.refresh(old))
        done, _ = await asyncio.wait([second], timeout=0)
        assert not done
    token = await second
    assert token.refresh_token != old.refresh_token
    assert oauth_server.counts.refreshes == 1
    assert oauth_server.counts.reuses == 0


async def test_P0_two_single_use_grants_of_one_client_never_share_an_answer(oauth_server: AuthorizationServer) -> None:
    """Not even where what they spend has a name of the user's own: the other's answer would be another user's token."""
    client = oauth_server.client()
    with oauth_server.hold() as held:
        both = [
            asyncio.ensure_future(client.fetch_token(ExtensionGrant("urn:example:otp", {"otp": Secret(otp)}, single_use=True)))
            for otp in ("alice-once", "bob-once")
        ]
        await held.arrived(2)
    await asyncio.wait(both)
    assert all(isinstance(one.exception(), OAuthError) for one in both)  # this server knows no such grant
    assert oauth_server.counts.token_requests == 2
