"""The way of nearly every request: a valid token is in memory. The middleware is called directly, with nothing behind it."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse, hdrs
from yarl import URL

from aiohttp_oauth_middleware import OAuth2Auth, StaticToken

from .measure import take_turns
from .ours import made_tokens, saved
from .report import Report, Result

__all__ = ("measure_hot_path",)

SECTION = "Hot path, called directly, a valid token in memory"
ORIGIN = "https://api.example.com"
# So few that they are still in the processor's caches, as a request is that was made a moment ago.
REQUESTS = 64
ROUNDS = 400
USERS = 10_000

_user: ContextVar[str] = ContextVar("user")


class _Answer:
    status = 200


_ANSWER: Any = _Answer()
_VALUE = "Bearer " + "x" * 160


async def _handler(request: ClientRequest) -> ClientResponse:
    return _ANSWER  # type: ignore[no-any-return]


async def _minimal(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    request.headers[hdrs.AUTHORIZATION] = _VALUE
    return await handler(request)


async def measure_hot_path(report: Report) -> None:
    _user.set("alice")
    one, users, crowd = made_tokens(ORIGIN), made_tokens(ORIGIN, key=_user.get), made_tokens(ORIGIN, key=_user.get)
    await one.save(saved())
    await users.save(saved())
    for number in range(USERS - 1):
        await crowd.save(saved(), key=f"user-{number}")
    await crowd.save(saved())
    middlewares: dict[str, ClientMiddlewareType] = {
        "minimal": _minimal,
        "one key": OAuth2Auth(one, origins=ORIGIN),
        "key=ContextVar.get": OAuth2Auth(users, origins=ORIGIN),
        "key=ContextVar.get, 10,000 keys in memory": OAuth2Auth(crowd, origins=ORIGIN),
        "for_key()": OAuth2Auth(one.for_key("default"), origins=ORIGIN),
        "StaticToken": OAuth2Auth(StaticToken(saved()), origins=ORIGIN),
        "a path prefix as origin": OAuth2Auth(one, origins=f"{ORIGIN}/items"),
        "a callable as origins": OAuth2Auth(one, origins=lambda url: url.raw_host == "api.example.com"),
        "a foreign origin, passed by": OAuth2Auth(one, origins="https://other.example.com"),
    }
    async with aiohttp.ClientSession() as session:
        beside = await _peers(report)
        loop = asyncio.get_running_loop()

        def candidate(middleware: ClientMiddlewareType) -> Callable[[], Awaitable[float]]:
            async def block() -> float:
                def fresh() -> list[ClientRequest]:
                    urls = (URL(f"{ORIGIN}/items/{number}?page=2") for number in range(REQUESTS))
                    return [ClientRequest("GET", url, loop=loop, session=session) for url in urls]

                for request in fresh():  # the interpreter adapts to whoever is on
                    await middleware(request, _handler)
                requests = fresh()
                began = time.thread_time_ns()
                for request in requests:
                    await middleware(request, _handler)
                return (time.thread_time_ns() - began) / REQUESTS

            return block

        rounds = await take_turns({name: candidate(each) for name, each in (middlewares | beside).items()}, ROUNDS)
    report.add(Result(SECTION, "smallest hand-written middleware", rounds.median("minimal"), "ns"))
    goals = {"one key": 4.5, "key=ContextVar.get": 5.5}
    for name in middlewares:
        if name != "minimal":
            report.add(Result(SECTION, name, rounds.ratio(name, "minimal"), "x", goal=goals.get(name), ids=("G-17",)))
    for name in goals:
        report.add(Result(SECTION, f"{name}: added", rounds.added(name, "minimal") / 1000, "µs", goal=1.5, ids=("G-17",)))
    for name in beside:
        report.add(Result(SECTION, name, rounds.ratio(name, "minimal"), "x"))


async def _peers(report: Report) -> dict[str, ClientMiddlewareType]:
    found: dict[str, ClientMiddlewareType] = {}
    try:
        grants: Any = importlib.import_module("aiohttp_oauth2_client.grant.client_credentials")
        package: Any = importlib.import_module("aiohttp_oauth2_client.middleware")
    except ImportError:
        report.note("aiohttp-oauth2-client is not installed")
    else:
        token = {"access_token": "x" * 160, "token_type": "Bearer", "expires_in": 86400}
        grant = grants.ClientCredentialsGrant("https://as.example.com/token", "app", "app-secret", token)
        await grant.close()
        found["aiohttp-oauth2-client's OAuth2Middleware"] = package.OAuth2Middleware(grant)
    try:
        credentials: Any = importlib.import_module("google.auth.aio.credentials").StaticCredentials("x" * 160)
    except ImportError:
        report.note("google-auth is not installed")
    else:

        async def google(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
            await credentials.before_request(None, "GET", request.url, request.headers)
            return await handler(request)

        found["google-auth's StaticCredentials (no expiry, no origins)"] = google
    return found
