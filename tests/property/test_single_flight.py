"""Tokens under whatever order of requests, refusals, cancellations, sign-ins, sign-outs, failures and passing time.

Two Tokens share a store, as two workers would. Time is virtual, and a seed says how many turns of the event loop each step of
the store and of the server takes. ``SEEDS=1000`` runs a hundred times as many examples.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from yarl import URL

from aiohttp_oauth_middleware import (
    ClientCredentials,
    LoginRequired,
    OAuthError,
    Refusal,
    Token,
    Tokens,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.protocol.challenge import Challenge
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.sources.state import State
from tests.clock import VirtualClock
from tests.strict_server import LOST, DirectClient, SlowStore, StrictServer, WatchedStore, oauth_error, turns

API = URL("https://api.example/")
FAULTS: dict[str, Callable[[], EndpointResponse | Exception | str]] = {
    "down": lambda: EndpointResponse(503, {"retry-after": "5"}, b""),
    "overloaded": lambda: EndpointResponse(429, {}, b'{"error":"slow_down"}'),
    "lost": lambda: LOST,
    "never sent": lambda: TokenUnavailable("no route"),
    "nonsense": lambda: EndpointResponse(200, {}, b"<html>"),
    "refused": lambda: oauth_error("invalid_grant"),
    "invalid client": lambda: oauth_error("invalid_client", 401),
}


class SingleFlight(RuleBasedStateMachine):
    """The machine."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.tasks: list[asyncio.Task[Any]] = []
        self.seen: list[Token] = []
        self.faults: list[str] = []
        self.sign_ins = 0
        self.signed_out_by: Tokens | None = None

    @initialize(seed=st.integers(0, 2**16), unattended=st.booleans(), lifetime=st.sampled_from([5.0, 60.0, 3600.0]))
    def start(self, seed: int, unattended: bool, lifetime: float) -> None:
        chance = random.Random(seed)
        self.clock = VirtualClock()
        self.server = StrictServer(self.clock, lifetime=lifetime, give_refresh_tokens=seed % 2 == 0)
        self.store = WatchedStore(lambda: chance.randint(0, 2), self.server)
        client = DirectClient(self.server, hops=lambda: chance.randint(0, 3))
        grant = ClientCredentials() if unattended else None
        self.workers = [Tokens(client, grant, store=self.store) for _ in range(2)]
        self.newest = [0, 0]
        self.go(self.workers[0].save(self.server.sign_in()))
        self.turn(20)

    def go(self, work: Coroutine[Any, Any, Any]) -> None:
        self.tasks.append(self.loop.create_task(work))

    @rule(number=st.integers(1, 30))
    def turn(self, number: int) -> None:
        self.loop.run_until_complete(turns(number))

    @rule(worker=st.integers(0, 1), number=st.integers(1, 5))
    def get(self, worker: int, number: int) -> None:
        for _ in range(number):
            self.go(self.request(self.workers[worker], None))

    @rule(worker=st.integers(0, 1), index=st.integers(0, 50), bare=st.booleans())
    def refused(self, worker: int, index: int, bare: bool) -> None:
        if self.seen:
            challenges = () if bare else (Challenge("bearer", {"error": "invalid_token"}),)
            self.go(self.request(self.workers[worker], Refusal(API, 401, challenges, self.seen[-1 - index % len(self.seen)])))

    async def request(self, tokens: Tokens, refusal: Refusal | None) -> None:
        signed_out, sign_ins = self.signed_out_by is tokens, self.sign_ins
        try:
            token = await tokens.token(refusal)
        except OAuthError:
            return
        if refusal is None or token != refusal.token:
            self.seen.append(token)
            if token.access_token not in self.store.version_of:
                self.faults.append("I2: a waiter woke before its token was durable")
        if signed_out and sign_ins == self.sign_ins:
            self.faults.append("S-27: a token was handed out after the sign-out")

    @rule(index=st.integers(0, 50))
    def cancel(self, index: int) -> None:
        waiting = [task for task in self.tasks if not task.done()]
        if waiting:
            waiting[index % len(waiting)].cancel()

    @rule(worker=st.integers(0, 1))
    def save(self, worker: int) -> None:
        self.sign_ins += 1
        self.signed_out_by = None
        self.go(self.workers[worker].save(self.server.sign_in()))

    @precondition(lambda self: self.signed_out_by is None)
    @rule(worker=st.integers(0, 1))
    def revoke(self, worker: int) -> None:
        self.turn(60)  # no save() is under way: of two that come at once either may be the last
        self.go(self.workers[worker].revoke())
        self.turn(1)
        self.signed_out_by = self.workers[worker]

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 30.0, 60.0, 4000.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-4000.0, -1.0, 1.0, 4000.0]))
    def step_the_wall_clock(self, seconds: float) -> None:
        self.clock.set_wall(seconds)

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    def fail(self, fault: str) -> None:
        self.server.next.append(FAULTS[fault]())

    @rule()
    def revoke_the_access_tokens(self) -> None:
        self.server.expire_all()

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.faults == []
        if not hasattr(self, "server"):
            return
        assert self.store.faults == []
        for refresh_token, number in self.server.presented.items():
            assert number <= self.store.intents[refresh_token], "I1: it left without an intent that was durable"
        assert self.server.reuses == 0, "P0: a superseded refresh token was presented"
        assert self.server.after_refusal == 0, "P0: a refused refresh token was presented again"
        assert self.server.most_at_once <= 1, "I4: two requests at once"
        for versions in self.store.versions.values():
            assert versions == sorted(set(versions)), "I3: a version in the store went back"
        for number, tokens in enumerate(self.workers):
            held = tokens._keyed("default").held
            if held is not None:
                version = self.store.version_of[held.token.access_token]
                assert version >= self.newest[number], "I3: memory went back to an older token"
                self.newest[number] = version

    def teardown(self) -> None:
        async def end() -> None:
            for tokens in self.workers:
                await tokens.aclose()
            if self.tasks:
                await asyncio.wait(self.tasks)

        try:
            if hasattr(self, "server"):
                self.loop.run_until_complete(end())
                self.nothing_is_wrong()
                assert not self.store._locked, "I8: a lock is held"
                assert not asyncio.all_tasks(self.loop), "I8: a task is left"
                for task in self.tasks:
                    if not task.cancelled() and (error := task.exception()) is not None:
                        assert isinstance(error, LoginRequired | TokenUnavailable), error
        finally:
            self.loop.close()


def test_P0_S_10_S_27_under_whatever_order_of_events_one_flies_and_nothing_is_lost() -> None:
    run_state_machine_as_test(
        SingleFlight,
        settings=settings(
            max_examples=10 * int(os.environ.get("SEEDS", "10")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("block", range(10))
def test_S_27_memory_holds_what_the_store_was_told_last_by_save_revoke_and_forget_at_once(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        asyncio.run(_changed_at_once(seed))


async def _changed_at_once(seed: int) -> None:
    chance = random.Random(seed)
    server = StrictServer(VirtualClock(), lifetime=5.0)
    store = SlowStore(lambda: chance.randint(0, 2))
    tokens = Tokens(DirectClient(server, hops=lambda: chance.randint(0, 3)), store=store)
    await tokens.save(server.sign_in())
    used = await tokens.token()
    changes: list[Callable[[], Coroutine[Any, Any, object]]] = [
        lambda: tokens.save(server.sign_in()),
        tokens.revoke,
        tokens.forget,
        tokens.token,
        lambda: tokens.token(Refusal(API, 401, (Challenge("bearer", {"error": "invalid_token"}),), used)),
        lambda: turns(10),
    ]
    tasks = []
    for _ in range(6):
        tasks.append(asyncio.create_task(chance.choice(changes)()))
        await turns(chance.randint(0, 10))
    done, _ = await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), LoginRequired | None) for task in done), seed
    key = tokens._keyed("default")._slot.key
    record = await store.load(key)
    held = tokens._keyed("default").held
    state = State.from_body(record.body) if record is not None else State()
    assert held is None or held.token == state.token, seed
    assert not (state.kind == "ok" and tokens._common.signed_out), seed
