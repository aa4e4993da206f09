"""Every await point of a refresh: somebody is cancelled, times out, or the loop ends there, and nothing is lost.

Each case is a number of turns of the event loop after which it happens, and a seed, from which store and server draw how many
turns each of their steps takes. ``SEEDS=1000`` runs so many of each; without it, 50.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable

import pytest

from aiohttp_oauth_middleware import ClientCredentials, EndpointResponse, Grant, Hook, LoginRequired, Token, Tokens
from aiohttp_oauth_middleware.sources.state import State
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, SlowStore, StrictServer, turns

SEEDS = int(os.environ.get("SEEDS", "50"))
POINTS = range(60)


class Case:
    """A token that has expired, and all that it takes to renew it."""

    def __init__(self, name: str, point: int, seed: int, grant: Grant | None = None, hooks: tuple[Hook, ...] = ()) -> None:
        self.random = random.Random(f"{name} {point} {seed}")
        self.clock = VirtualClock()
        self.server = StrictServer(self.clock, give_refresh_tokens=True)
        self.store = SlowStore(lambda: self.random.randint(0, 3))
        self.client = DirectClient(self.server, hops=lambda: self.random.randint(0, 4), hooks=hooks)
        self.tokens = Tokens(self.client, grant, store=self.store)
        self.where = f"{name}, at turn {point}, seed {seed}"
        asyncio.run(self.tokens.save(self.server.sign_in()))
        self.clock.advance(3600.0)

    async def come(self) -> Token:
        await turns(self.random.randint(0, 5))
        return await self.tokens.token()

    async def crowd(self) -> list[asyncio.Task[Token]]:
        """Some who need a token; the first one leads."""
        leader = asyncio.create_task(self.tokens.token())
        return [leader, *(asyncio.create_task(self.come()) for _ in range(5))]

    def stored(self) -> State:
        [record] = self.store._records.values()
        return State.from_body(record.body)

    def check(self) -> None:
        """What must hold in the end, whatever happened."""
        server = self.server
        assert server.reuses == 0, f"{self.where}: a superseded refresh token was presented"
        assert server.after_refusal == 0, f"{self.where}: a refused refresh token was presented again"
        assert server.most_at_once <= 1, f"{self.where}: two token requests at once"
        assert max(server.presented.values(), default=0) <= 1, f"{self.where}: a refresh token was presented twice"
        for versions in self.store.versions.values():
            assert versions == sorted(set(versions)), f"{self.where}: a version went back"
        assert not self.store._locked, f"{self.where}: the lock is held for ever"

    def check_stored(self) -> None:
        token = self.stored().token
        assert token is not None
        assert self.server.is_current(token.refresh_token), f"{self.where}: the rotated refresh token was lost"


async def settled(tokens: Tokens) -> None:
    for flight in tokens._common.flights.under_way():
        await asyncio.wait([flight.task])


async def leader_cancelled(case: Case, point: int) -> None:
    leader, *others = await case.crowd()
    await turns(point)
    leader.cancel()
    for token in await asyncio.gather(*others):
        assert case.server.accepts(token.access_token), case.where
    await asyncio.wait([leader])


async def leader_timed_out(case: Case, point: int) -> None:
    async def impatient() -> Token:
        async with asyncio.timeout(None) as deadline:
            deadlines.append(deadline)
            return await case.tokens.token()

    deadlines: list[asyncio.Timeout] = []
    leader = asyncio.create_task(impatient())
    others = [asyncio.create_task(case.come()) for _ in range(5)]
    await turns(point + 1)
    if not leader.done():
        deadlines[0].reschedule(asyncio.get_running_loop().time() - 1.0)
    for token in await asyncio.gather(*others):
        assert case.server.accepts(token.access_token), case.where
    await asyncio.wait([leader])
    assert leader.exception() is None or isinstance(leader.exception(), TimeoutError)


async def all_cancelled(case: Case, point: int) -> None:
    crowd = await case.crowd()
    await turns(point)
    for task in crowd:
        task.cancel()
    await asyncio.wait(crowd)
    await settled(case.tokens)


async def loop_ended(case: Case, point: int) -> None:
    await case.crowd()
    await turns(point)


async def cancelled_one_by_one(case: Case, point: int) -> None:
    crowd = await case.crowd()
    await turns(point)
    case.random.shuffle(crowd)
    for task in crowd[:-1]:
        task.cancel()
        await turns(case.random.randint(0, 3))
    assert case.server.accepts((await crowd[-1]).access_token), case.where


Scenario = Callable[[Case, int], Awaitable[None]]
SCENARIOS: list[Scenario] = [leader_cancelled, leader_timed_out, all_cancelled, loop_ended, cancelled_one_by_one]


def run(scenario: Scenario, case: Case, point: int) -> None:
    async def main() -> None:
        await scenario(case, point)

    asyncio.run(main())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.__name__))
def test_G_03_P0_F_06_F_07_F_08_F_09_F_10_a_refresh_survives_at_each_await_point(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    for point in POINTS:
        for seed in range(SEEDS):
            case = Case(scenario.__name__, point, seed)
            run(scenario, case, point)
            case.check()
            started = bool(case.server.presented)
            if started:
                case.check_stored()
            token = asyncio.run(case.tokens.token())
            assert case.server.accepts(token.access_token), case.where
            case.check()
            case.check_stored()
            assert case.server.token_requests == 1, case.where
    assert caplog.records == []


async def _slow_hook(response: EndpointResponse) -> EndpointResponse:
    await turns(3)
    return response


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.__name__))
def test_G_03_P0_nor_does_a_hook_that_takes_its_time_lose_the_answer_at_each_await_point(scenario: Scenario) -> None:
    for point in POINTS:
        for seed in range(max(1, SEEDS // 2)):
            case = Case(scenario.__name__, point, seed, hooks=(Hook("refresh_token_response", _slow_hook),))
            run(scenario, case, point)
            case.check()
            if case.server.presented:
                case.check_stored()
            assert case.server.accepts(asyncio.run(case.tokens.token()).access_token), case.where
            case.check()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.__name__))
def test_G_03_P0_F_21_a_refused_refresh_token_is_never_presented_again_at_each_await_point(scenario: Scenario) -> None:
    for point in POINTS:
        for seed in range(max(1, SEEDS // 2)):
            case = Case(scenario.__name__, point, seed)
            case.server.end_sign_ins()
            with contextlib.suppress(LoginRequired):
                run(scenario, case, point)
            with pytest.raises(LoginRequired):
                asyncio.run(case.tokens.token())
            with pytest.raises(LoginRequired):
                asyncio.run(Tokens(case.client, store=case.store).token())
            case.check()
            assert case.stored().kind == "dead", case.where


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.__name__))
def test_G_03_P0_F_21_nor_where_the_grant_earns_another_at_each_await_point(scenario: Scenario) -> None:
    for point in POINTS:
        for seed in range(max(1, SEEDS // 2)):
            case = Case(scenario.__name__, point, seed, ClientCredentials())
            asyncio.run(case.tokens.token())
            case.clock.advance(3600.0)
            case.server.end_sign_ins()
            case.server.presented.clear()
            run(scenario, case, point)
            token = asyncio.run(case.tokens.token())
            assert case.server.accepts(token.access_token), case.where
            case.check()
            case.check_stored()
