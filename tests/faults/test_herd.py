"""Many requests at once: at expiry, at a failure, at a refusal. What is counted is counted by the servers."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections import Counter
from math import ceil

import pytest
from aiohttp import ClientSession, TCPConnector

from aiohttp_oauth_middleware import (
    ClientCredentials,
    OAuth2Auth,
    OAuthError,
    Token,
    Tokens,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, StrictServer, turns

DOWN = EndpointResponse(503, {"retry-after": "5"}, b"")


async def statuses(session: ClientSession, api: EchoAPI, number: int) -> Counter[int]:
    async def one() -> int:
        async with session.get(api.url / "thing") as response:
            await response.read()
            return response.status

    return Counter(await asyncio.gather(*(one() for _ in range(number))))


def expired(token: Token) -> Token:
    return token.replace(expires_at=1.0, obtained_at=0.0)


async def test_F_01_G_01_ten_thousand_requests_at_expiry_are_one_token_request(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(expired(oauth_server.issue()))
    auth = OAuth2Auth(tokens, origins=oauth_api.origin)
    async with ClientSession(connector=TCPConnector(limit=50), middlewares=[auth]) as session:
        assert await statuses(session, oauth_api, 10_000) == {200: 10_000}
    assert oauth_server.counts.token_requests == 1
    assert oauth_server.counts.reuses == 0
    assert oauth_api.answered == {200: 10_000}
    assert tokens.counts["refresh_started"] == 1


@pytest.mark.parametrize("lifetime", [1.0, 5.0, 30.0, 60.0, 61.0, 3600.0])
async def test_F_02_G_02_there_is_one_refresh_in_a_lifetime_however_short_it_is(lifetime: float) -> None:
    clock = VirtualClock()
    server = StrictServer(clock, lifetime=lifetime)
    tokens = Tokens(DirectClient(server), leeway=60.0)
    await tokens.save(server.sign_in())
    length = 20 * lifetime
    step = lifetime / 50
    passed = 0.0
    while passed < length:
        got = await asyncio.gather(*(tokens.token() for _ in range(20)))
        assert all(server.accepts(token.access_token) for token in got)
        clock.advance(step)
        passed += step
    leeway = min(60.0, 0.2 * lifetime)
    assert server.token_requests <= ceil(length / (lifetime - leeway)) + 1
    assert server.reuses == 0
    assert max(server.presented.values()) == 1


async def test_F_03_a_failed_refresh_is_one_token_request_and_each_waiter_has_an_error_of_its_own(
    oauth_server: AuthorizationServer,
) -> None:
    clock = VirtualClock()
    tokens = Tokens(oauth_server.client(clock=clock))
    await tokens.save(expired(oauth_server.issue()))
    oauth_server.fail_next(503, retry_after=5)
    errors = await asyncio.gather(*(tokens.token() for _ in range(200)), return_exceptions=True)
    assert oauth_server.counts.token_requests == 1
    assert {type(error) for error in errors} == {TokenUnavailable}
    assert len({id(error) for error in errors}) == 200
    frames = {len(traceback.extract_tb(error.__traceback__)) for error in errors if isinstance(error, OAuthError)}
    assert len(frames) == 1, "tracebacks don't grow from one waiter to the next"
    clock.advance(5.0)
    await tokens.token()
    assert oauth_server.counts.token_requests == 2


@pytest.mark.parametrize(
    ("stated", "first_try"),
    [("5", 5.0), ("0000000007", 7.0), ("Thu, 01 Jan 2026 00:00:09 GMT", 9.0), ("4000", 300.0)],
)
async def test_F_04_Retry_After_is_kept_to_the_second(stated: str, first_try: float) -> None:
    clock = VirtualClock(1_767_225_600.0)  # Thu, 01 Jan 2026 00:00:00 GMT
    server = StrictServer(clock)
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock._wall, clock._monotonic = clock._wall, clock._monotonic + 3600.0  # expired by the monotonic clock alone
    server.next.append(EndpointResponse(429, {"retry-after": stated}, b""))
    for _ in range(10):
        with pytest.raises(TokenUnavailable):
            await tokens.token()
    clock.advance(first_try - 0.5)
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.token()
    assert caught.value.retry_after == pytest.approx(0.5)
    assert server.token_requests == 1
    clock.advance(0.5)
    await tokens.token()


@pytest.mark.parametrize(
    "stated", ["-5", "soon", "", "1e400", "Thu, 01 Jan 1970 00:00:00 GMT", "٣", "99999999999999999999999x"]
)
async def test_F_04_nonsense_in_Retry_After_is_ignored_and_the_backoff_counts(stated: str) -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.next.append(EndpointResponse(503, {"retry-after": stated}, b""))
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.token()
    assert caught.value.retry_after is not None
    assert 0.0 <= caught.value.retry_after <= 2.0


async def test_F_04_a_Retry_After_of_zero_is_no_leave_to_storm() -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.always = EndpointResponse(503, {"retry-after": "0"}, b"")
    for _ in range(100):
        with pytest.raises(TokenUnavailable):
            await tokens.token()
    assert server.token_requests < 100, "each request is a token request while the server is down"


@pytest.mark.parametrize("grant", [None, ClientCredentials()], ids=["refresh token", "client credentials"])
async def test_F_04_G_04_a_server_that_is_down_for_a_minute_sees_thirteen_requests_at_most(
    grant: ClientCredentials | None,
) -> None:
    clock = VirtualClock(automatic=False)
    server = StrictServer(clock)
    tokens = Tokens(DirectClient(server), grant)
    if grant is None:
        await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.always = DOWN
    began = clock.time()
    failed = 0
    waiting: set[asyncio.Task[Token]] = set()
    for _ in range(60 * 10):
        waiting |= {asyncio.create_task(tokens.token()) for _ in range(50)}
        await turns(8)
        clock.advance(0.1)
    server.always = None
    seen = server.token_requests
    assert seen <= 13
    back = clock.time()
    while server.token_requests == seen:
        waiting.add(asyncio.create_task(tokens.token()))
        await turns(8)
        clock.advance(0.1)
    assert server.times[-1] - back <= 6.0
    assert server.times[-1] - began >= 60.0
    await turns(8)
    assert server.accepts((await tokens.token()).access_token)
    for task in waiting:
        assert task.done()
        failed += isinstance(task.exception(), TokenUnavailable)
    assert failed > 0
    assert server.token_requests == seen + 1


async def test_F_05_G_04_while_the_token_is_valid_no_request_fails() -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock.advance(3540.0)
    server.always = DOWN
    for _ in range(59):
        for token in await asyncio.gather(*(tokens.token() for _ in range(500))):
            assert server.accepts(token.access_token)
        clock.advance(1.0)
    assert server.token_requests <= 13


async def test_F_12_G_15_a_hundred_in_flight_with_a_revoked_token_are_one_refresh(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_api.hold() as held:
            requests = asyncio.create_task(statuses(session, oauth_api, 100))
            await held.arrived(100)
            oauth_server.revoke_all()
            held.release()
            assert await requests == {200: 100}
    assert oauth_server.counts.token_requests == 1
    assert oauth_server.counts.reuses == 0
    assert oauth_api.answered == {401: 100, 200: 100}


async def test_F_12_G_15_a_late_401_is_repeated_with_the_newer_token_without_a_refresh(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_api.hold("/late") as held:
            late = asyncio.create_task(session.get(oauth_api.url / "late"))
            await held.arrived()
            oauth_server.revoke_all()
            assert await statuses(session, oauth_api, 1) == {200: 1}
            held.release()
            assert (await late).status == 200
            late.result().release()
    assert oauth_server.counts.token_requests == 1


async def test_F_13_G_15_an_api_that_says_401_for_ever(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        assert await statuses(session, oauth_api, 1) == {200: 1}
        oauth_api.answer_next(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}, times=1000)
        for _ in range(20):
            before = len(oauth_api.requests)
            assert await statuses(session, oauth_api, 1) == {401: 1}
            assert len(oauth_api.requests) - before <= 2
    assert oauth_server.counts.token_requests - 1 <= 3


async def test_F_14_a_token_that_is_refused_at_birth_is_sent_once_more_where_the_user_chose_so(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    auth = OAuth2Auth(tokens, origins=oauth_api.origin, fresh_token_delay=0.0)
    oauth_api.answer_next(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    async with ClientSession(middlewares=[auth]) as session:
        assert await statuses(session, oauth_api, 1) == {200: 1}
    assert oauth_server.counts.token_requests == 1
    assert [request.status for request in oauth_api.requests] == [401, 200]


async def test_F_18_requests_are_under_way_at_once(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_api.hold() as held:
            requests = asyncio.create_task(statuses(session, oauth_api, 100))
            await held.arrived(100)
            held.release()
            assert await requests == {200: 100}


async def test_F_18_a_refresh_does_not_hold_up_those_who_still_have_a_token(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials(), key="alice")
    async with ClientSession(middlewares=[OAuth2Auth(tokens.for_key("bob"), origins=oauth_api.origin)]) as session:
        assert await statuses(session, oauth_api, 1) == {200: 1}
        with oauth_server.hold() as held:
            alice = asyncio.create_task(tokens.token())
            await held.arrived()
            assert await statuses(session, oauth_api, 10) == {200: 10}
            held.release()
        await alice


async def test_F_56_the_events_agree_with_the_servers_counters(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    tokens = Tokens(oauth_server.client(clock=clock))
    await tokens.save(expired(oauth_server.issue()))
    for status in (503, 429):
        oauth_server.fail_next(status)
        with pytest.raises(TokenUnavailable):
            await tokens.token()
        clock.advance(60.0)
    await tokens.token()
    counts = tokens.counts
    assert counts["refresh_started"] == oauth_server.counts.token_requests == 3
    assert counts["refresh_succeeded"] == oauth_server.counts.refreshes == 1
    assert counts["refresh_failed"] == counts["cooldown_entered"] == 2
    assert json.dumps(counts)
