"""The wall clock steps, the machine sleeps: no token is used after its end, and none is renewed more often than need be."""

from __future__ import annotations

import random
from typing import Final

import pytest

from aiohttp_oauth_middleware import MemoryStore, Tokens
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, StrictServer

YEARS: Final = 10 * 365.25 * 86_400.0
HOUR: Final = 3600.0


class OurClock:
    """A machine's clocks, as wrong as they may be; the server's is the true one.

    :ivar offset: by how much the wall clock is wrong.
    :ivar lost: for how long the monotonic one stood still.
    """

    def __init__(self, true: VirtualClock) -> None:
        self.true = true
        self.offset = 0.0
        self.lost = 0.0

    def time(self) -> float:
        return self.true.time() + self.offset

    def monotonic(self) -> float:
        return self.true.monotonic() - self.lost

    async def sleep(self, seconds: float) -> None:
        await self.true.sleep(seconds)


class Machine:
    """A program that needs a token all the time."""

    def __init__(self, lifetime: float, *, background_refresh: bool = False) -> None:
        self.true = VirtualClock()
        self.server = StrictServer(self.true, lifetime=lifetime)
        self.clock = OurClock(self.true)
        self.client = DirectClient(self.server)
        self.client.clock = self.clock
        self.store = MemoryStore()
        self.tokens = Tokens(self.client, store=self.store, background_refresh=background_refresh)
        self.began = self.true.time()

    async def start(self) -> Machine:
        now = self.clock.time()
        await self.tokens.save(self.server.sign_in().replace(expires_at=now + self.server.lifetime, obtained_at=now))
        return self

    async def work(self, seconds: float, chance: random.Random) -> None:
        end = self.true.time() + seconds
        while self.true.time() < end:
            await self.use()
            self.true.advance(chance.uniform(0.1, self.server.lifetime / 20))

    async def use(self) -> None:
        token = await self.tokens.token()
        _, expires = self.server._access[token.access_token]
        assert self.true.time() <= expires + 1.0, "a token was used after its end"

    def restart(self) -> None:
        self.tokens = Tokens(self.client, store=self.store)

    def check(self, reasons: int) -> None:
        """There was one refresh in a lifetime, and one more for each of so many *reasons*."""
        lifetimes = (self.true.time() - self.began) / (self.server.lifetime * 0.8)
        assert self.server.token_requests <= lifetimes + 1 + reasons, "a refresh storm"
        assert self.server.reuses == 0


@pytest.mark.parametrize("background_refresh", [False, True])
@pytest.mark.parametrize("lifetime", [5.0, 60.0, 3600.0])
@pytest.mark.parametrize("step", [YEARS, -YEARS, HOUR, -HOUR, 0.5, -0.5])
async def test_G_23_F_53_the_wall_clock_steps_while_the_program_runs(
    step: float, lifetime: float, background_refresh: bool
) -> None:
    chance = random.Random(f"{step} {lifetime}")
    machine = await Machine(lifetime, background_refresh=background_refresh).start()
    for number in range(20):
        await machine.work(chance.uniform(0.1, 2.0) * lifetime, chance)
        machine.clock.offset = step if number % 2 == 0 else 0.0
    machine.check(reasons=20)


@pytest.mark.parametrize("lifetime", [60.0, 3600.0])
async def test_G_23_F_53_the_machine_sleeps_for_eight_hours(lifetime: float) -> None:
    chance = random.Random(lifetime)
    machine = await Machine(lifetime).start()
    for _ in range(10):
        await machine.work(chance.uniform(0.1, 2.0) * lifetime, chance)
        machine.true.advance(8 * HOUR)
    await machine.use()
    assert machine.server.token_requests <= 10 * (2.0 / 0.8 + 2)
    machine.check(reasons=0)


async def test_G_23_where_the_monotonic_clock_sleeps_too_the_wall_clock_tells() -> None:
    chance = random.Random(1)
    machine = await Machine(HOUR).start()
    for _ in range(10):
        await machine.work(chance.uniform(0.1, 2.0) * HOUR, chance)
        machine.true.advance(8 * HOUR)
        machine.clock.lost += 8 * HOUR
        machine.true.advance(1.0)  # for which what was looked at before counts
        await machine.use()
    machine.check(reasons=0)


@pytest.mark.parametrize("step", [YEARS, -YEARS, 8 * HOUR])
async def test_F_53_a_restart_makes_no_expired_token_valid_whatever_the_clock_says(step: float) -> None:
    chance = random.Random(step)
    machine = await Machine(HOUR).start()
    for number in range(10):
        await machine.work(chance.uniform(0.1, 2.0) * HOUR, chance)
        machine.true.advance(chance.choice([0.0, 2 * HOUR]))
        machine.clock.offset = step if number % 2 == 0 else 0.0
        machine.restart()
        await machine.use()
    machine.check(reasons=20)
