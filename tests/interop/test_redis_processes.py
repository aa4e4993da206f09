"""Processes that share a sign-in in Redis: one that is stopped past its lease, or for less; and eight that renew at once.

The counters of the authorization server are the truth; it revokes the sign-in when a superseded refresh token arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from aiohttp_oauth_middleware import RedisStore, RefreshInDoubt, Token, Tokens
from aiohttp_oauth_middleware.testing import AuthorizationServer
from tests.clock import VirtualClock
from tests.interop.redis_server import RedisServer

ROOT: Final = Path(__file__).parents[2]
# 10 here, 60 by `make soak`.
SECONDS: Final = float(os.environ.get("G_05_SECONDS", "10"))


class Process:
    """Another process, of redis_child.py, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def go(self) -> None:
        """What it waits for."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def until(self, *wanted: str) -> dict[str, Any]:
        """Read on until it says one of *wanted*."""
        assert self._process.stdout is not None
        while True:
            line = await self._process.stdout.readline()
            assert line, f"it ended, having said {self.said}"
            self.said.append(json.loads(line))
            if self.said[-1]["what"] in wanted:
                return self.said[-1]


class World:
    """An authorization server, a Redis, and this process's tokens in it."""

    def __init__(self, server: AuthorizationServer, port: int, client: Redis, clock: VirtualClock) -> None:
        self.server = server
        self.prefix = f"{secrets.token_hex(4)}:"
        self.client = client
        self.clock = clock
        self._port = port
        self.tokens = self.with_lease(30.0)

    def with_lease(self, lease: float) -> Tokens:
        self.lease = lease
        store = RedisStore(self.client, prefix=self.prefix, lease=lease)
        self.tokens = Tokens(self.server.client(clock=self.clock), store=store)
        return self.tokens

    async def sign_in(self, *, left: float) -> Token:
        """A token that the server takes for long, and of which its client thinks that it has so many seconds left."""
        now = time.time()
        token = self.server.issue().replace(expires_at=now + left, obtained_at=now - 3600.0)
        await self.tokens.save(token)
        return token

    @contextlib.asynccontextmanager
    async def process(self, what: str, *more: str) -> AsyncIterator[Process]:
        command = [sys.executable, "-m", "tests.interop.redis_child", what, "--issuer", self.server.issuer]
        command += ["--port", str(self._port), "--prefix", self.prefix, "--lease", str(self.lease), *more]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            yield Process(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]

    async def locked(self) -> bool:
        """Whether somebody has the lock."""
        return bool([name async for name in self.client.scan_iter(match=f"{self.prefix}*:lock")])


async def poll(happened: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(3000):
        if await happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 30 seconds")


@pytest.fixture
async def world(redis_alone: RedisServer) -> AsyncIterator[World]:
    with AuthorizationServer() as server:
        async with Redis(port=redis_alone.port) as client:
            yield World(server, redis_alone.port, client, VirtualClock(time.time()))


async def test_F_48_G_08_a_process_that_is_stopped_for_less_than_its_lease_is_waited_for(world: World) -> None:
    await world.sign_in(left=-1.0)
    with world.server.hold() as held:
        async with world.process("ask") as other:
            await other.until("refresh_started")
            await held.arrived()
            other.send_signal(signal.SIGSTOP)
            waiting = asyncio.create_task(world.tokens.token())
            asked = (await world.client.info("commandstats"))["cmdstat_eval"]["calls"]

            async def has_asked_often() -> bool:
                return bool((await world.client.info("commandstats"))["cmdstat_eval"]["calls"] > asked + 5)

            await poll(has_asked_often)
            assert not waiting.done()
            world.clock.advance(60.0)  # a token that was born in the future is not adopted
            held.release()
            other.send_signal(signal.SIGCONT)
            theirs = await other.until("token")
            assert (await waiting).access_token == theirs["access_token"]
    counts = world.server.counts
    assert (counts.token_requests, counts.refreshes, counts.reuses, counts.families_revoked) == (1, 1, 0, 0)
    assert world.tokens.counts["refresh_adopted"] == 1


async def test_F_48_P3_while_the_access_token_serves_the_result_of_who_was_stopped_past_his_lease_is_waited_for(
    world: World,
) -> None:
    tokens = world.with_lease(0.3)
    token = await world.sign_in(left=30.0)
    with world.server.hold() as held:
        async with world.process("ask") as other:
            await other.until("refresh_started")
            await held.arrived()
            other.send_signal(signal.SIGSTOP)
            await poll(lambda: negated(world.locked()))
            for _ in range(3):
                assert await tokens.token() == token, "it serves on, and nothing is sent"
                world.clock.advance(5.0)
            held.release()
            other.send_signal(signal.SIGCONT)
            theirs = await other.until("token")
    assert theirs["access_token"] != token.access_token
    world.clock.advance(5.0)
    assert (await tokens.token()).access_token == theirs["access_token"], "written though the lease had run out"
    counts = world.server.counts
    assert (counts.token_requests, counts.refreshes, counts.reuses, counts.families_revoked) == (1, 1, 0, 0)


async def negated(answer: Awaitable[bool]) -> bool:
    return not await answer


@pytest.mark.parametrize("grace", [60.0, 0.0], ids=["server with grace", "strict server"])
async def test_F_48_G_08_P3_the_write_of_who_was_stopped_past_his_lease_is_refused_where_another_acted(
    world: World, grace: float
) -> None:
    world.server.reuse_grace = grace
    tokens = world.with_lease(0.3)
    await world.sign_in(left=-1.0)
    with world.server.hold(decided=True) as held:
        async with world.process("ask") as other:
            await other.until("refresh_started")
            await held.arrived()
            other.send_signal(signal.SIGSTOP)
            await poll(lambda: negated(world.locked()))
            held.release()
            token: Token | None = None
            if grace:
                token = await tokens.token()
                assert world.server.is_active(token.access_token)
            else:
                with pytest.raises(RefreshInDoubt) as caught:
                    await tokens.token()
                assert caught.value.process is not None
            other.send_signal(signal.SIGCONT)
            theirs = await other.until("token", "LoginRequired")
            counted = await other.until("counts")
    assert counted["stale_write_refused"] == 1
    if token is not None:
        assert theirs["access_token"] == token.access_token, "he adopts what the other wrote"
        assert await Tokens(world.server.client(clock=world.clock), store=tokens._store).token() == token
    else:
        assert theirs["what"] == "LoginRequired"
    counts = world.server.counts
    assert (counts.token_requests, counts.reuses, counts.families_revoked) == (2, 1, 0 if grace else 1)


async def test_G_05_F_16_eight_processes_share_one_rotating_sign_in(world: World) -> None:
    world.server.lifetime = 1.0
    api = world.server.api()
    await world.sign_in(left=-1.0)
    more = ("--api", api.origin, "--tasks", "100", "--seconds", str(SECONDS), "--think", "5")
    async with contextlib.AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(world.process("load", *more)) for _ in range(8)]
        for process in processes:
            await process.until("ready")
        for process in processes:
            process.go()
        told = [await process.until("answers") for process in processes]
    answers: Counter[str] = Counter()
    for one in told:
        answers.update(one["answers"])
    counts = world.server.counts
    slowest = max(one["slowest"] for one in told)
    print(f"{dict(answers)}, {counts.refreshes} refreshes, {counts.reuses} reuses, the slowest answer after {slowest:.2f} s")
    assert set(answers) == {"200"}, "no request failed"
    assert counts.reuses == counts.families_revoked == counts.refresh_overlaps == 0
    assert set(counts.refresh_token_uses.values()) == {1}
    assert counts.refreshes > SECONDS / 2
    assert sum(one["counts"].get("refresh_adopted", 0) for one in told) > 0
