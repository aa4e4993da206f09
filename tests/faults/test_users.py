"""Many users in one process, and what of one must not reach another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context

from aiohttp import ClientSession, TraceConfig

from aiohttp_oauth_middleware import ClientCredentials, Event, MemoryStore, OAuth2Auth, Token, Tokens
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, SlowStore, StrictServer, turns


async def test_F_19_ten_thousand_users_each_get_his_own_and_one_refresh() -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    user: ContextVar[str] = ContextVar("user")
    tokens = Tokens(DirectClient(server), key=user.get, cache_size=1000)
    signed_in = {f"user-{number}": server.sign_in() for number in range(10_000)}
    for name, token in signed_in.items():
        await tokens.save(token, key=name)
    clock.advance(3600.0)

    async def request(name: str) -> tuple[str, Token]:
        user.set(name)
        await asyncio.sleep(0)
        return name, await tokens.token()

    got = await asyncio.gather(*(request(name) for name in [*signed_in, *signed_in]))
    assert server.token_requests == 10_000
    assert server.reuses == 0
    assert max(server.presented.values()) == 1
    family = server._family_of
    for name, token in got:
        assert family[token.refresh_token or ""] == family[signed_in[name].refresh_token or ""]
    assert len(tokens._cache) <= 1000


async def test_F_19_many_users_are_refreshed_at_the_same_time() -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    tokens = Tokens(DirectClient(server), ClientCredentials(), store=SlowStore())
    server.holding = True
    waiting = [asyncio.create_task(tokens.for_key(f"user-{number}").token()) for number in range(100)]
    while server.held < 100:
        await turns(1)
    assert server.at_once == 100
    server.release()
    await asyncio.gather(*waiting)


async def test_F_20_the_context_of_the_leader_reaches_neither_the_refresh_nor_the_others(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    trace_id: ContextVar[str] = ContextVar("trace_id", default="none")
    seen: dict[str, set[str]] = {}

    def note(where: str) -> None:
        seen.setdefault(where, set()).add(trace_id.get())

    class Noting(MemoryStore):
        def __getattribute__(self, name: str) -> object:
            if name in ("load", "save", "lock"):
                note("store")
            return super().__getattribute__(name)

    def on_event(event: Event) -> None:
        note("event")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note("log")

    async def on_token(token: Token, key: str) -> None:
        note("on_token")

    logger = logging.getLogger("aiohttp_oauth_middleware")
    handler = Handler(logging.DEBUG)
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        tokens = Tokens(oauth_server.client(), ClientCredentials(), store=Noting(), on_event=on_event, on_token=on_token)
        async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:

            async def request(number: int) -> str:
                trace_id.set(f"trace-{number}")
                async with session.get(oauth_api.url) as response:
                    assert response.status == 200
                return trace_id.get()

            tasks = [asyncio.create_task(request(number), context=copy_context()) for number in range(10)]
            assert await asyncio.gather(*tasks) == [f"trace-{number}" for number in range(10)]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert seen == {where: {"none"} for where in ("store", "event", "log", "on_token")}


async def test_F_46_the_token_request_passes_through_nothing_of_the_users_session(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    traced: list[str] = []

    async def on_request_start(session: object, context: object, params: object) -> None:
        traced.append(str(getattr(params, "url", "")))

    trace = TraceConfig()
    trace.on_request_start.append(on_request_start)
    auth = OAuth2Auth(Tokens(oauth_server.client(), ClientCredentials()), origins=[oauth_api.origin, oauth_server.issuer])
    async with (
        ClientSession(
            base_url=oauth_api.origin,
            headers={"X-Session": "mine", "User-Agent": "mine"},
            cookies={"session": "mine"},
            raise_for_status=True,
            trace_configs=[trace],
            middlewares=[auth, auth],
        ) as session,
        session.get("/thing") as response,
    ):
        assert response.status == 200
    [seen] = oauth_server.requests
    names = {name.lower() for name in seen.header_names}
    assert not names & {"x-session", "cookie"}
    assert [url for url in traced if oauth_server.issuer in url] == []
    assert len(oauth_api.requests) == 1
    assert oauth_server.counts.token_requests == 1


async def test_F_46_other_middlewares_may_stand_on_either_side(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    passed: list[str] = []

    def named(name: str) -> Callable[..., Awaitable[object]]:
        async def middleware(request: object, handler: Callable[..., Awaitable[object]]) -> object:
            passed.append(name)
            return await handler(request)

        return middleware

    auth = OAuth2Auth(Tokens(oauth_server.client(), ClientCredentials()), origins=oauth_api.origin)
    async with ClientSession(middlewares=[named("outer"), auth, named("inner")]) as session:  # type: ignore[list-item]
        async with session.get(oauth_api.url) as response:
            assert response.status == 200
        oauth_server.revoke_all()
        passed.clear()
        async with session.get(oauth_api.url) as response:
            await response.read()
    assert passed[0] == "outer"
    assert passed.count("outer") == 1
    assert oauth_server.counts.token_requests <= 2
