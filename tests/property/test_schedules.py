"""The whole of a refresh under a scheduler that runs its callbacks in whatever order a seed picks.

Three Tokens share a store, as three processes would, and one of them renews in the background. Two are behind the middleware,
whose requests end in a function of this module. ``SCHEDULES=100000`` runs so many seeds; without it, 2,000 are run. A seed that
has failed is kept below.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self, cast

import pytest
from aiohttp import ClientRequest, ClientResponse
from multidict import CIMultiDict
from yarl import URL

from aiohttp_oauth_middleware import LoginRequired, OAuth2Auth, Refusal, Token, TokenResponseError, Tokens, TokenUnavailable
from aiohttp_oauth_middleware.protocol.challenge import Challenge
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.sources.state import State
from tests.scheduler import LoopClock, run_permuted
from tests.strict_server import LOST, DirectClient, StrictServer, WatchedStore, oauth_error, turns

SCHEDULES: Final = int(os.environ.get("SCHEDULES", "2000"))
BLOCKS: Final = 10
FAILED_ONCE: Final = (5419, 12002, 21685, 30284, 44821, 50538, 60798, 69938, 70398, 80794, 91545)

API: Final = URL("https://api.example/")
FOREIGN: Final = URL("https://elsewhere.example/")
INVALID: Final = 'Bearer error="invalid_token"'
FAULTS: Final[list[Callable[[], EndpointResponse | Exception | str]]] = [
    lambda: EndpointResponse(503, {}, b""),
    lambda: LOST,
    lambda: TokenUnavailable("no route"),
    lambda: EndpointResponse(200, {}, b"<html>"),
    lambda: oauth_error("invalid_grant"),
]


class Request:
    """What the middleware needs of a request."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.body = b"the body"
        self.sent: list[tuple[str | None, bytes]] = []


class Response:
    """And of a response."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers = CIMultiDict({"WWW-Authenticate": INVALID} if status == 401 else {})
        self.content = self

    async def readany(self) -> bytes:
        return b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *problem: object) -> None:
        pass

    def close(self) -> None:
        pass


class Schedule:
    """One seed's world."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = LoopClock()
        self.server = StrictServer(self.clock, lifetime=self.chance.choice([5.0, 60.0, 3600.0]))
        self.store = WatchedStore(lambda: self.chance.randint(0, 2), self.server)
        client = DirectClient(self.server, hops=lambda: self.chance.randint(0, 2))
        self.processes = [Tokens(client, store=self.store, background_refresh=number == 1) for number in range(3)]
        self.auths = [OAuth2Auth(tokens, origins="https://api.example") for tokens in self.processes[:2]]
        self.seen: list[Token] = []
        self.wrong: list[str] = []
        self.newest = [0] * len(self.processes)
        self.tasks: list[asyncio.Task[object]] = []

    async def run(self) -> None:
        await self.processes[2].save(self.server.sign_in())
        happenings: list[Callable[[], Coroutine[Any, Any, object]]] = [
            *[self.request] * 6,
            *[self.refused] * 2,
            *[self.time_passes] * 3,
            self.access_tokens_revoked,
            self.fault,
            self.cancel,
            self.close,
            self.other_process_writes,
        ]
        for _ in range(self.chance.randint(4, 14)):
            self.tasks.append(asyncio.create_task(self.somewhen(self.chance.choice(happenings))))
        await asyncio.wait(self.tasks)
        for task in self.tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, LoginRequired | TokenUnavailable | TokenResponseError), error
        await self.end()

    async def somewhen(self, happening: Callable[[], Coroutine[Any, Any, object]]) -> object:
        await turns(self.chance.randint(0, 30))
        try:
            return await happening()
        finally:
            self.look()

    # What happens

    async def request(self) -> None:
        url = API if self.chance.random() < 0.8 else FOREIGN
        request = Request(url)
        auth = self.chance.choice(self.auths)

        async def handler(request: ClientRequest) -> ClientResponse:
            value, body = request.headers.get("Authorization"), cast(bytes, request.body)
            cast(Request, request).sent.append((value, body))
            await turns(self.chance.randint(0, 3))
            access_token = (value or "").removeprefix("Bearer ")
            if value is not None and access_token not in self.store.version_of:
                self.wrong.append("I2: a request went out before its token was durable")
            return cast(ClientResponse, Response(200 if self.server.accepts(access_token) else 401))

        await auth(cast(ClientRequest, request), handler)
        if url is FOREIGN and [value for value, _ in request.sent if value is not None]:
            self.wrong.append("I5: a token went to a foreign origin")
        if len(request.sent) > 2 or {body for _, body in request.sent} != {b"the body"}:
            self.wrong.append("I6: a request was sent more than once for one cause, or with another body")

    async def refused(self) -> None:
        tokens = self.chance.choice(self.processes)
        refused = self.chance.choice(self.seen) if self.seen else await tokens.token()
        token = await tokens.token(Refusal(API, 401, (Challenge("bearer", {"error": "invalid_token"}),), refused))
        self.seen.append(token)
        if token.access_token not in self.store.version_of:
            self.wrong.append("I2: a waiter woke before its token was durable")

    async def time_passes(self) -> None:
        # Due and valid still, or expired.
        self.clock.advance(self.server.lifetime * self.chance.choice([0.85, 1.1]))

    async def access_tokens_revoked(self) -> None:
        self.server.expire_all()

    async def fault(self) -> None:
        self.server.next.append(self.chance.choice(FAULTS)())

    async def cancel(self) -> None:
        self.chance.choice(self.tasks).cancel()

    async def close(self) -> None:
        await self.chance.choice(self.processes).aclose()

    async def other_process_writes(self) -> None:
        await self.processes[2].save(self.server.sign_in())

    # What must hold

    def look(self) -> None:
        """The invariants, at any moment."""
        server, store = self.server, self.store
        assert self.wrong == []
        assert store.faults == []
        for refresh_token, number in server.presented.items():
            assert number <= store.intents[refresh_token], "I1: it left without an intent that was durable"
        assert server.reuses == 0, "P0: a superseded refresh token was presented"
        assert server.after_refusal == 0, "P0: a refused refresh token was presented again"
        assert server.most_at_once <= 1, "I4: two token requests at once"
        for versions in store.versions.values():
            assert versions == sorted(set(versions)), "I3: a version in the store went back"
        for number, tokens in enumerate(self.processes):
            held = tokens._keyed("default").held
            if held is not None:
                version = store.version_of[held.token.access_token]
                assert version >= self.newest[number], "I3: memory went back to an older token"
                self.newest[number] = version

    async def end(self) -> None:
        """When all is quiet: nothing is left, and whoever needs a token gets it, or hears why not."""
        for tokens in self.processes:
            await tokens.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "I8: a task is left"
        assert not self.store._locked, "I8: a lock is held"
        self.server.next.clear()
        self.clock.advance(4000.0)
        [record] = self.store._records.values()
        alive = State.from_body(record.body).kind == "ok"
        for tokens in self.processes:
            try:
                token = await tokens.token()
            except LoginRequired:
                # The refusal that made it so was of this very sign-in: of an older one it would be I7.
                [record] = self.store._records.values()
                state = State.from_body(record.body)
                assert state.kind == "dead", "I7: a refusal reached beyond its token"
                assert not alive or self.server.lost, "I7: nobody had refused it"
            else:
                assert self.server.accepts(token.access_token), "what was handed out is not valid"
        self.look()


def run(seed: int) -> list[str]:
    """The order in which the callbacks were run."""
    random.seed(seed)  # the package's own jitter
    schedule = Schedule(seed)
    try:
        _, order = run_permuted(schedule.run(), schedule.chance, schedule.clock)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return order


@pytest.mark.parametrize("block", range(BLOCKS))
def test_G_18_P0_I1_to_I8_hold_in_whatever_order_callbacks_are_run(block: int) -> None:
    for seed in range(block * SCHEDULES // BLOCKS, (block + 1) * SCHEDULES // BLOCKS):
        run(seed)


def test_G_18_a_seed_that_failed_once_holds() -> None:
    for seed in FAILED_ONCE:
        run(seed)


def test_G_18_the_same_seed_is_the_same_order_and_another_is_another() -> None:
    assert run(7) == run(7)
    assert run(7) != run(8)


def test_who_waits_for_ever_is_found_out() -> None:
    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="somebody waits"):
        run_permuted(stuck(), random.Random(1), LoopClock())
