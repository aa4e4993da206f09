"""Background refresh: a token that is due serves on while a flight renews it, and nobody waits, or is told what failed."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from yarl import URL

from aiohttp_oauth_middleware import ConfigurationError, Event, LoginRequired, Refusal, Token, Tokens, TokenUnavailable
from aiohttp_oauth_middleware.protocol.challenge import Challenge
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.stores.memory import MemoryStore
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, FaultyStore, StrictServer, turns

LIFETIME = 3600.0
DUE = LIFETIME - 30.0  # whatever the jitter


class Bench:
    """A token that is due and still valid, and what is done about it."""

    def __init__(self, *, store: MemoryStore | None = None, background_refresh: bool = True) -> None:
        self.clock = VirtualClock()
        self.server = StrictServer(self.clock, lifetime=LIFETIME)
        self.store = store if store is not None else MemoryStore()
        self.events: list[Event] = []
        self.tokens = Tokens(
            DirectClient(self.server), store=self.store, background_refresh=background_refresh, on_event=self.events.append
        )
        self.old: Token

    async def due(self) -> Bench:
        self.old = self.server.sign_in()
        await self.tokens.save(self.old)
        self.clock.advance(DUE)
        return self

    async def quiet(self) -> None:
        for flight in self.tokens._common.flights.under_way():
            await asyncio.wait([flight.task])
        await turns(2)

    def failures(self) -> list[str | None]:
        return [event.cause for event in self.events if event.name == "background_refresh_failed"]


@pytest.fixture(autouse=True)
async def unhandled() -> AsyncIterator[None]:
    """Nothing is left unhandled, of errors least of all."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: contexts.append(context))
    yield
    gc.collect()
    await turns(2)
    assert contexts == []


async def test_a_token_that_is_due_is_served_at_once_and_renewed_meanwhile() -> None:
    bench = await Bench().due()
    bench.server.holding = True
    for _ in range(100):
        assert await bench.tokens.token() == bench.old
    await turns(20)
    assert bench.server.held == bench.server.token_requests == 1
    assert await bench.tokens.token() == bench.old
    bench.server.release()
    await bench.quiet()
    new = await bench.tokens.token()
    assert new != bench.old
    assert bench.server.is_current(new.refresh_token)
    assert bench.tokens.ready() == new
    assert bench.server.token_requests == 1


async def test_without_it_whoever_comes_waits() -> None:
    bench = await Bench(background_refresh=False).due()
    assert await bench.tokens.token() != bench.old


async def test_no_timer_renews_what_nobody_asks_for() -> None:
    bench = await Bench().due()
    await turns(50)
    bench.clock.advance(29.0)
    await turns(50)
    assert bench.server.token_requests == 0
    assert bench.clock.sleepers == 0


async def test_a_token_that_has_expired_is_waited_for_and_so_is_one_that_was_refused() -> None:
    bench = await Bench().due()
    bench.clock.advance(30.0)
    newer = await bench.tokens.token()
    assert newer != bench.old
    bench.clock.advance(20.0)
    challenge = Challenge("bearer", {"error": "invalid_token"})
    newest = await bench.tokens.token(Refusal(URL("https://api.example/"), 401, (challenge,), newer))
    assert newest not in (newer, bench.old)


async def test_whoever_can_t_use_the_old_one_any_more_joins_the_flight_that_is_under_way() -> None:
    bench = await Bench().due()
    bench.server.holding = True
    assert await bench.tokens.token() == bench.old
    await turns(20)
    bench.clock.advance(30.0)
    waiter = asyncio.create_task(bench.tokens.token())
    await turns(20)
    assert not waiter.done()
    bench.server.release()
    assert bench.server.accepts((await waiter).access_token)
    assert bench.server.token_requests == 1


async def test_F_56_a_failure_is_told_by_an_event_and_cools_down() -> None:
    bench = await Bench().due()
    bench.server.always = EndpointResponse(503, {"retry-after": "5"}, b"")
    for _ in range(100):
        assert await bench.tokens.token() == bench.old
        await turns(2)
    await bench.quiet()
    assert bench.server.token_requests == 1
    assert bench.failures() == ["TokenUnavailable"]
    assert bench.tokens.counts["background_refresh_failed"] == 1
    bench.clock.advance(11.0)
    bench.server.always = None
    assert await bench.tokens.token() == bench.old
    await bench.quiet()
    assert await bench.tokens.token() != bench.old
    assert bench.server.token_requests == 2


async def test_F_50_a_store_that_fails_is_left_alone_for_a_while() -> None:
    store = FaultyStore()
    bench = await Bench(store=store).due()
    store.calls.clear()
    store.failing = lambda number: True
    for _ in range(100):
        assert await bench.tokens.token() == bench.old
        await turns(5)
    assert store.calls == ["lock"]
    assert bench.failures() == ["StoreError"]
    bench.clock.advance(10.0)
    store.failing = lambda number: False
    assert await bench.tokens.token() == bench.old
    await bench.quiet()
    assert await bench.tokens.token() != bench.old


async def test_F_21_a_refresh_token_that_is_dead_serves_its_access_token_to_the_end() -> None:
    bench = await Bench().due()
    bench.server.end_sign_ins()
    for _ in range(10):
        assert await bench.tokens.token() == bench.old
        await bench.quiet()
    assert bench.server.token_requests == 1
    assert bench.failures() == ["LoginRequired"]
    bench.clock.advance(30.0)
    with pytest.raises(LoginRequired):
        await bench.tokens.token()


async def test_a_failure_in_the_background_is_not_the_next_waiter_s() -> None:
    bench = await Bench().due()
    bench.server.next.append(TokenUnavailable("no route"))
    assert await bench.tokens.token() == bench.old
    await bench.quiet()
    bench.clock.advance(61.0)
    assert bench.server.accepts((await bench.tokens.token()).access_token)


async def test_a_sibling_s_newer_token_is_adopted_without_a_request() -> None:
    bench = await Bench().due()
    sibling = Tokens(DirectClient(bench.server), store=bench.store)
    await sibling.token()  # it has nothing in memory, and finds what is due
    assert bench.server.token_requests == 1
    assert await bench.tokens.token() == bench.old
    await bench.quiet()
    assert await bench.tokens.token() == await sibling.token()
    assert bench.server.token_requests == 1
    assert bench.tokens.counts["refresh_adopted"] == 1


async def test_S_27_after_revoke_the_old_token_is_not_served() -> None:
    bench = await Bench().due()
    bench.server.holding = True
    assert await bench.tokens.token() == bench.old
    await turns(20)
    revoking = asyncio.create_task(bench.tokens.revoke())
    await turns(2)
    with pytest.raises(LoginRequired):
        await bench.tokens.token()
    bench.server.release()
    await revoking
    with pytest.raises(LoginRequired):
        await bench.tokens.token()


def test_P0_F_10_the_end_of_the_loop_does_not_lose_it() -> None:
    bench = Bench()

    async def main() -> None:
        await bench.due()
        assert await bench.tokens.token() == bench.old

    asyncio.run(main())
    new = asyncio.run(bench.tokens.token())
    assert new != bench.old
    assert bench.server.is_current(new.refresh_token)
    assert bench.server.token_requests == 1


async def test_aclose_waits_for_it() -> None:
    bench = await Bench().due()
    assert await bench.tokens.token() == bench.old
    await bench.tokens.aclose()
    assert bench.tokens.ready() != bench.old
    assert bench.server.token_requests == 1


async def test_a_thousand_workers_are_spread_over_half_of_the_leeway() -> None:
    clock = VirtualClock()
    server = StrictServer(clock, lifetime=LIFETIME)
    token = server.sign_in()
    seconds: Counter[int] = Counter()
    for _ in range(1000):
        tokens = Tokens(DirectClient(server), background_refresh=True)
        await tokens.save(token)
        held = tokens._keyed("default").held
        assert held is not None
        seconds[int(held.due - clock.monotonic())] += 1
    assert min(seconds) >= LIFETIME - 60
    assert max(seconds) < LIFETIME - 30
    assert len(seconds) == 30
    assert max(seconds.values()) < 100


def test_it_is_True_or_False() -> None:
    with pytest.raises(ConfigurationError, match="background_refresh"):
        Tokens(DirectClient(StrictServer(VirtualClock())), background_refresh="no")  # type: ignore[arg-type]
