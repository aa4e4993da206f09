"""A whole request on loopback, against aiohttp without any middleware, and what others add to theirs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp

from aiohttp_oauth_middleware import OAuth2Auth

from .measure import Rounds, take_turns
from .ours import made_tokens, saved
from .report import Report, Result
from .wire import Wire

__all__ = ("add_fine", "fetching", "measure_end_to_end")

SECTION = "End to end on loopback"
PEERS_SECTION = "End to end on loopback, peers; coarse: differences under a fifth mean nothing"
IN_FLIGHT = 64
FINE = {1: (48, 200), IN_FLIGHT: (128, 200)}
COARSE = {1: (48, 8), IN_FLIGHT: (128, 8)}

Fetch = Callable[[], Awaitable[object]]


async def measure_end_to_end(report: Report, wire: Wire) -> None:
    async with contextlib.AsyncExitStack() as stack:
        url = f"{wire.origin}/open"
        tokens = made_tokens(wire.origin)
        await tokens.save(saved())
        bare = await stack.enter_async_context(aiohttp.ClientSession())
        header = await stack.enter_async_context(aiohttp.ClientSession(headers={"Authorization": "Bearer " + "x" * 160}))
        auth = OAuth2Auth(tokens, origins=wire.origin)
        ours = await stack.enter_async_context(aiohttp.ClientSession(middlewares=[auth]))
        fine = {
            "bare": fetching(bare, url),
            "the same header on the session": fetching(header, url),
            "OAuth2Auth": fetching(ours, url),
        }
        await add_fine(report, SECTION, fine, {"OAuth2Auth": 1.05}, ids=("G-17",))
        coarse = {"bare": fine["bare"], "OAuth2Auth": fine["OAuth2Auth"]}
        for peer in (_aiohttp_oauth2_client, _google_auth, _authlib):
            name, fetch = await stack.enter_async_context(peer(wire, url))
            if fetch is None:
                report.note(f"{name} is not installed")
            else:
                coarse[name] = fetch
        for in_flight, (requests, rounds) in COARSE.items():
            cpu, _ = await _compare(coarse, in_flight, requests, rounds)
            how = "sequential" if in_flight == 1 else f"{in_flight} in flight"
            for name in coarse:
                if name != "bare":
                    report.add(Result(PEERS_SECTION, f"{how}: {name}: client CPU", cpu.ratio(name, "bare"), "x bare"))


async def add_fine(
    report: Report, section: str, fetches: dict[str, Fetch], goals: dict[str, float], *, ids: tuple[str, ...] = ()
) -> None:
    """Measure *fetches*, of which one is ``"bare"``, with so many rounds that a few percent can be told."""
    for in_flight, (requests, rounds) in FINE.items():
        cpu, wall = await _compare(fetches, in_flight, requests, rounds)
        how = "sequential" if in_flight == 1 else f"{in_flight} in flight"
        report.add(Result(section, f"{how}: bare aiohttp, a request", cpu.median("bare") / 1000, "µs"))
        for name in fetches:
            if name != "bare":
                goal, title = goals.get(name), f"{how}: {name}: "
                client_cpu = cpu.ratio(name, "bare")
                report.add(
                    Result(section, f"{title}client CPU", client_cpu, "x bare", goal=goal, ids=ids if goal is not None else ())
                )
                report.add(Result(section, f"{title}requests per second", wall.ratio("bare", name), "x bare"))


async def _compare(fetches: dict[str, Fetch], in_flight: int, requests: int, rounds: int) -> tuple[Rounds, Rounds]:
    walls: dict[str, list[float]] = {name: [] for name in fetches}

    def block(name: str) -> Callable[[], Awaitable[float]]:
        fetch = fetches[name]

        async def some(count: int) -> None:
            for _ in range(count):
                await fetch()

        async def run() -> float:
            began, cpu = time.perf_counter_ns(), time.thread_time_ns()
            if in_flight == 1:
                await some(requests)
            else:
                await asyncio.gather(*(some(requests // in_flight) for _ in range(in_flight)))
            cpu = time.thread_time_ns() - cpu
            walls[name].append((time.perf_counter_ns() - began) / requests)
            return cpu / requests

        return run

    cpu = await take_turns({name: block(name) for name in fetches}, rounds)
    return cpu, Rounds({name: each[1:] for name, each in walls.items()})


def fetching(session: aiohttp.ClientSession, url: str) -> Fetch:
    async def fetch() -> None:
        async with session.get(url) as response:
            await response.read()
            assert response.status == 200

    return fetch


@contextlib.asynccontextmanager
async def _aiohttp_oauth2_client(wire: Wire, url: str) -> AsyncIterator[tuple[str, Fetch | None]]:
    name = "aiohttp-oauth2-client's OAuth2Middleware"
    try:
        grants: Any = importlib.import_module("aiohttp_oauth2_client.grant.client_credentials")
        package: Any = importlib.import_module("aiohttp_oauth2_client.middleware")
    except ImportError:
        yield name, None
        return
    async with (
        grants.ClientCredentialsGrant(f"{wire.origin}/token", "app", "app-secret") as grant,
        aiohttp.ClientSession(middlewares=[package.OAuth2Middleware(grant)]) as session,
    ):
        yield name, fetching(session, url)


@contextlib.asynccontextmanager
async def _google_auth(wire: Wire, url: str) -> AsyncIterator[tuple[str, Fetch | None]]:
    name = "google-auth's AsyncAuthorizedSession (static token)"
    try:
        credentials: Any = importlib.import_module("google.auth.aio.credentials")
        sessions: Any = importlib.import_module("google.auth.aio.transport.sessions")
    except ImportError:
        yield name, None
        return
    session = sessions.AsyncAuthorizedSession(credentials.StaticCredentials("x" * 160))

    async def fetch() -> None:
        response = await session.request("GET", url)
        await response.read()
        assert response.status_code == 200

    try:
        yield name, fetch
    finally:
        await session.close()


@contextlib.asynccontextmanager
async def _authlib(wire: Wire, url: str) -> AsyncIterator[tuple[str, Fetch | None]]:
    name = "authlib's AsyncOAuth2Client (httpx)"
    try:
        client_class: Any = importlib.import_module("authlib.integrations.httpx_client").AsyncOAuth2Client
    except ImportError:
        yield name, None
        return
    token = {"access_token": "x" * 160, "token_type": "Bearer", "expires_at": int(time.time()) + 86400}
    async with client_class("app", "app-secret", token=token, token_endpoint=f"{wire.origin}/token") as client:

        async def fetch() -> None:
            response = await client.get(url)
            assert response.status_code == 200

        yield name, fetch
