"""Many requests at the moment when their token ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp

from aiohttp_oauth_middleware import OAuth2Auth, Token

from .measure import take_turns
from .ours import made_tokens, saved
from .report import Report, Result
from .wire import Wire

__all__ = ("measure_storm",)

SECTION = "Storms; the token endpoint takes 50 ms"
LATENCY = 0.05
REQUESTS = 10_000
ROUNDS = 7
IN_FLIGHT = 1_000
LIFETIMES = (1, 5, 30, 60, 61, 3600)
LEEWAY = 60.0
RUN = 2.5
SLOW = 0.005


async def measure_storm(report: Report, wire: Wire) -> None:
    await wire.control(latency=LATENCY)
    await _at_expiry(report, wire)
    await _revoked(report, wire)
    for lifetime in LIFETIMES:
        await _by_lifetime(report, wire, lifetime)
    await _slow_callbacks(report, wire)
    await wire.control(ttl=3600)


async def _at_expiry(report: Report, wire: Wire) -> None:
    """10,000 requests at once, once with a fresh token and once with an expired one.

    Of so many tasks the garbage collector takes half of the time, in pauses that fall where they fall, so the figures with it
    and without it stand side by side.
    """
    asked: list[int] = []
    failed: list[int] = []

    def storm(expired: bool, collecting: bool) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            generation = (await wire.control(reset=1))["generation"]
            async with _session(wire, saved(generation, expired=expired)) as fetch:
                gc.collect()
                if not collecting:
                    gc.disable()
                try:
                    began = time.perf_counter()
                    statuses = await asyncio.gather(*(fetch() for _ in range(REQUESTS)))
                    seconds = time.perf_counter() - began
                finally:
                    gc.enable()
            if expired:
                asked.append((await wire.control()).get("token_requests", 0))
                failed.append(REQUESTS - statuses.count(200))
            return seconds

        return run

    rounds = await take_turns(
        {
            f"{token}, {'' if collecting else 'not '}collected": storm(token == "expired", collecting)
            for token in ("fresh", "expired")
            for collecting in (True, False)
        },
        ROUNDS,
    )
    ids = ("G-01",)
    title = f"{REQUESTS:,} at expiry: "
    report.add(
        Result(SECTION, f"{title}token requests, the most of {len(asked)} runs", max(asked), "", goal=1, exact=True, ids=ids)
    )
    report.add(Result(SECTION, f"{title}failed requests", sum(failed), "", goal=0, exact=True, ids=ids))
    for how in ("collected", "not collected"):
        with_latency = [seconds + LATENCY for seconds in rounds.figures[f"fresh, {how}"]]
        shares = [one / other for one, other in zip(rounds.figures[f"expired, {how}"], with_latency, strict=True)]
        garbage = "garbage " + ("collected" if how == "collected" else "not collected")
        report.add(
            Result(
                SECTION,
                f"{title}time, to fresh + latency; {garbage}",
                statistics.median(shares),
                "x",
                goal=1.1 if how == "collected" else None,
                ids=ids,
            )
        )
        report.add(Result(SECTION, f"{title}the fresh run; {garbage}", rounds.median(f"fresh, {how}"), "s"))


async def _revoked(report: Report, wire: Wire) -> None:
    """The server revokes the token while 1,000 requests are on their way with it."""
    asked, refused, answered = [], [], []
    for _ in range(ROUNDS):
        generation = (await wire.control(reset=1))["generation"]
        async with _session(wire, saved(generation)) as fetch:
            await wire.control(revoke_after=50)
            statuses = await asyncio.gather(*(fetch() for _ in range(IN_FLIGHT)))
        counts = await wire.control()
        asked.append(counts.get("token_requests", 0))
        refused.append(counts.get("refused", 0))
        answered.append(statuses.count(200))
    ids = ("G-01", "G-15")
    title = f"revoked with {IN_FLIGHT:,} in flight: "
    report.add(
        Result(SECTION, f"{title}token requests, the most of {ROUNDS} runs", max(asked), "", goal=1, exact=True, ids=ids)
    )
    report.add(Result(SECTION, f"{title}answers of 200, the fewest", min(answered), "", goal=IN_FLIGHT, exact=True, ids=ids))
    report.add(Result(SECTION, f"{title}refused once, the most", max(refused), ""))


async def _by_lifetime(report: Report, wire: Wire, lifetime: int) -> None:
    """How often it is renewed under steady load."""
    generation = (await wire.control(reset=1, ttl=lifetime))["generation"]
    failed = 0
    async with _session(wire, saved(generation, expired=True)) as fetch:
        began = time.monotonic()

        async def client() -> None:
            nonlocal failed
            while time.monotonic() - began < RUN:
                failed += await fetch() != 200

        await asyncio.gather(*(client() for _ in range(64)))
        ran = time.monotonic() - began
    asked = (await wire.control()).get("token_requests", 0)
    most = math.ceil(ran / (lifetime - min(LEEWAY, 0.2 * lifetime))) + 1
    title = f"lifetime {lifetime} s, leeway {LEEWAY:g} s, {RUN:g} s of load: "
    report.add(Result(SECTION, f"{title}renewals", asked, "", goal=most, ids=("G-02",)))
    report.add(Result(SECTION, f"{title}failed", failed, "", goal=0, exact=True, ids=("G-02",)))


async def _slow_callbacks(report: Report, wire: Wire) -> None:
    """What asyncio's debug mode says of the loop while clients run and the token is renewed again and again.

    It goes by wall time, so that whatever else runs on the machine counts too: the best of some turns, with us and without.
    """

    def load(ours: bool) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            generation = (await wire.control(reset=1, ttl=1))["generation"]
            async with _session(wire, saved(generation, expired=True) if ours else None) as fetch:
                began = time.monotonic()

                async def client(number: int) -> None:
                    await asyncio.sleep(0.02 * number)  # so that the start is no storm of its own
                    while time.monotonic() - began < RUN:
                        await fetch()
                        await asyncio.sleep(0.02)

                gc.collect()
                gc.disable()
                try:
                    with _slow_log() as slow:
                        await asyncio.gather(*(client(number) for number in range(50)))
                finally:
                    gc.enable()
            return len(slow)

        return run

    rounds = await take_turns({"with us": load(True), "without us": load(False)}, 3)
    title = f"callbacks of more than {SLOW * 1000:g} ms while it is renewed every 0.8 s"
    report.add(Result(SECTION, title, min(rounds.figures["with us"]), "", goal=0, exact=True, ids=("G-17",)))
    report.add(Result(SECTION, "the same without us", min(rounds.figures["without us"]), ""))


@contextlib.asynccontextmanager
async def _session(wire: Wire, token: Token | None) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """A session as a user makes it, with *token* in memory; None for a session without us."""
    tokens = made_tokens(wire.origin, leeway=LEEWAY)
    if token is not None:
        await tokens.save(token)
    middlewares = [OAuth2Auth(tokens, origins=wire.origin)] if token is not None else []
    url = f"{wire.origin}/api"
    async with aiohttp.ClientSession(middlewares=middlewares, timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def fetch() -> int:
            async with session.get(url) as response:
                await response.read()
                return response.status

        yield fetch


@contextlib.contextmanager
def _slow_log() -> Iterator[list[str]]:
    """asyncio's debug mode, and what it says of slow callbacks."""
    loop = asyncio.get_running_loop()
    slow: list[str] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (text := record.getMessage()).startswith("Executing "):
                slow.append(text)

    logger, catch = logging.getLogger("asyncio"), Catch()
    duration, propagate = loop.slow_callback_duration, logger.propagate
    logger.addHandler(catch)
    logger.propagate = False
    loop.set_debug(True)
    loop.slow_callback_duration = SLOW
    try:
        yield slow
    finally:
        loop.set_debug(False)
        loop.slow_callback_duration = duration
        logger.propagate = propagate
        logger.removeHandler(catch)
