"""The cases in which this package is compared with others: here, what it does itself. The numbers are those of the comparison.

Cases four, five, six and twenty-one, somebody's cancellation, are in ``test_cancellation.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecret,
    InsecureTransport,
    LoginRequired,
    OAuth2Auth,
    OAuthError,
    ServerMetadata,
    Token,
    TokenResponseError,
    Tokens,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.strict_server import FaultyStore


async def statuses(session: ClientSession, api: EchoAPI, number: int) -> Counter[int | str]:
    async def one() -> int | str:
        try:
            async with session.get(api.url / "thing") as response:
                return response.status
        except OAuthError as error:
            return type(error).__name__

    return Counter(await asyncio.gather(*(one() for _ in range(number))))


async def expired_tokens(server: AuthorizationServer, store: FaultyStore | None = None) -> Tokens:
    tokens = Tokens(server.client(), store=store)
    await tokens.save(server.issue().replace(expires_at=1.0, obtained_at=0.0))
    return tokens


def session_of(tokens: Tokens, api: EchoAPI) -> ClientSession:
    return ClientSession(middlewares=[OAuth2Auth(tokens, origins=api.origin)])


@pytest.mark.parametrize("lifetime", [3600.0, 30.0], ids=["case one", "case two: shorter than the leeway"])
async def test_F_01_F_02_two_hundred_at_expiry(oauth_server: AuthorizationServer, oauth_api: EchoAPI, lifetime: float) -> None:
    oauth_server.lifetime = lifetime
    tokens = await expired_tokens(oauth_server)
    async with session_of(tokens, oauth_api) as session:
        assert await statuses(session, oauth_api, 200) == {200: 200}
        assert await statuses(session, oauth_api, 200) == {200: 200}
    assert oauth_server.counts.token_requests == 1
    assert oauth_api.answered == {200: 400}


async def test_F_03_case_three_a_503_to_the_refresh(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = await expired_tokens(oauth_server)
    oauth_server.fail_next(503, retry_after=5)
    async with session_of(tokens, oauth_api) as session:
        assert await statuses(session, oauth_api, 100) == {"TokenUnavailable": 100}
        assert await statuses(session, oauth_api, 100) == {"TokenUnavailable": 100}
    assert oauth_server.counts.token_requests == 1
    assert oauth_api.requests == []


async def test_F_12_case_seven_a_token_revoked_at_the_server(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue())
    oauth_server.revoke_all()
    async with session_of(tokens, oauth_api) as session:
        assert await statuses(session, oauth_api, 20) == {200: 20}
    assert oauth_server.counts.token_requests == 1


async def test_F_13_case_eight_401_for_ever(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    oauth_api.answer_next(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}, times=1000)
    async with session_of(tokens, oauth_api) as session:
        assert await statuses(session, oauth_api, 20) == {401: 20}
    assert oauth_server.counts.token_requests <= 1 + 3
    assert len(oauth_api.requests) <= 40


async def test_F_42_S_18_cases_nine_and_ten_another_origin_sees_no_token(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    foreign = oauth_server.foreign_api()
    async with session_of(Tokens(oauth_server.client(), ClientCredentials()), oauth_api) as session:
        for status in (301, 302, 303, 307, 308):
            target = (oauth_api.url / "redirect").with_query(to=str(foreign.url), status=str(status))
            async with session.get(target) as response:
                assert response.url.origin() == foreign.url.origin()
        async with session.get(foreign.url):
            pass
    assert len(foreign.requests) == 6
    assert [request.authorization for request in foreign.requests] == [None] * 6
    assert oauth_api.answered[401] == 0


async def test_S_19_case_eleven_a_redirect_of_the_token_endpoint_is_not_followed(oauth_server: AuthorizationServer) -> None:
    foreign = oauth_server.foreign_api()
    tokens = await expired_tokens(oauth_server)
    oauth_server.fail_next(307, headers={"Location": str(foreign.url)})
    with pytest.raises(TokenResponseError, match="redirect"):
        await tokens.token()
    assert foreign.requests == []


def test_S_29_case_twelve_plain_http_is_refused() -> None:
    with pytest.raises(InsecureTransport):
        Client(ServerMetadata(token_endpoint="http://as.example/token"), "id", ClientSecret("s"))


async def test_F_28_case_thirteen_a_body_without_end_is_not_read(oauth_server: AuthorizationServer) -> None:
    tokens = await expired_tokens(oauth_server)
    oauth_server.answer_next(b'{"access_token":"' + b"a" * 10_000_000)
    with pytest.raises(TokenResponseError, match="longer than 65536 bytes"):
        await tokens.token()


@pytest.mark.parametrize("value", ["NaN", "1e400", '"soon"', "[1]", "true", "1" * 5000, "[" * 100_000])
async def test_F_30_F_32_case_fourteen_expires_in(oauth_server: AuthorizationServer, value: str) -> None:
    tokens = await expired_tokens(oauth_server)
    oauth_server.answer_next(f'{{"access_token":"a","expires_in":{value}}}'.encode())
    [outcome] = await asyncio.gather(tokens.token(), return_exceptions=True)
    assert isinstance(outcome, TokenResponseError | Token)


@pytest.mark.parametrize("value", [r"a\r\nEvil: 1", "a€", "a b", "", r"a\u0000"])
async def test_S_36_F_33_case_fifteen_a_token_that_no_header_can_carry(oauth_server: AuthorizationServer, value: str) -> None:
    tokens = await expired_tokens(oauth_server)
    oauth_server.answer_next(f'{{"access_token":"{value}","expires_in":60}}'.encode())
    with pytest.raises(TokenResponseError) as caught:
        await tokens.token()
    assert "Evil" not in str(caught.value)


async def test_S_22_case_sixteen_no_secret_in_a_repr(oauth_server: AuthorizationServer) -> None:
    tokens = await expired_tokens(oauth_server)
    token = await tokens.token()
    shown = f"{token!r} {token} {tokens!r} {tokens.client!r} {OAuth2Auth(tokens, origins=oauth_server.issuer)!r}"
    assert token.access_token not in shown
    assert token.refresh_token is not None
    assert token.refresh_token not in shown
    assert "app-secret" not in shown


async def test_F_50_case_seventeen_a_full_disk_fails_nobody(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    store = FaultyStore()
    tokens = await expired_tokens(oauth_server, store=store)
    begun = len(store.calls)
    store.failing = lambda number: number in (begun + 3, begun + 4)  # after the lock, the look and the intent: the result
    async with session_of(tokens, oauth_api) as session:
        assert await statuses(session, oauth_api, 50) == {200: 50}
    await tokens.aclose()
    assert tokens.counts["store_write_retried"] == 2
    assert oauth_server.counts.token_requests == 1
    again = Tokens(oauth_server.client(), store=store)
    assert await again.token() == await tokens.token()


async def test_S_31_F_36_case_eighteen_a_server_that_leaves_the_refresh_token_out(oauth_server: AuthorizationServer) -> None:
    oauth_server.rotation = False
    tokens = await expired_tokens(oauth_server)
    token = await tokens.token()
    assert token.refresh_token is not None
    assert oauth_server.is_active(token.refresh_token)


async def test_S_10_case_nineteen_several_Tokens_over_one_store(oauth_server: AuthorizationServer) -> None:
    first = await expired_tokens(oauth_server)
    workers = [Tokens(oauth_server.client(), store=first._store) for _ in range(4)]
    got = await asyncio.gather(*(worker.token() for worker in workers for _ in range(25)))
    assert len({token.access_token for token in got}) == 1
    assert oauth_server.counts.token_requests == 1
    assert oauth_server.counts.reuses == oauth_server.counts.refresh_overlaps == 0
    assert sum(worker.counts["refresh_adopted"] for worker in workers) <= 3


async def test_F_41_case_twenty_a_stream_is_never_sent_empty(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 1000

    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue())
    oauth_server.revoke_all()
    async with session_of(tokens, oauth_api) as session:
        async with session.post(oauth_api.url, data=stream()) as response:
            assert response.status == 401
        async with session.post(oauth_api.url, data=stream()) as response:
            assert response.status == 200
    assert {request.length for request in oauth_api.requests} == {4000}
    assert {request.sha256 for request in oauth_api.requests} == {hashlib.sha256(b"x" * 4000).hexdigest()}


async def test_F_21_case_twenty_two_invalid_grant(oauth_server: AuthorizationServer) -> None:
    tokens = await expired_tokens(oauth_server)
    oauth_server.revoke_all(refresh_tokens=True)
    for _ in range(20):
        with pytest.raises(LoginRequired):
            await tokens.token()
    assert oauth_server.counts.token_requests == 1


async def test_F_55_what_fails_says_whether_and_when_to_try_again(oauth_server: AuthorizationServer) -> None:
    tokens = await expired_tokens(oauth_server)
    oauth_server.fail_next(503, retry_after=7)
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.token()
    assert (caught.value.retryable, caught.value.retry_after) == (True, 7.0)
    assert caught.value.key_id == hashlib.sha256(b"default").hexdigest()[:8]
