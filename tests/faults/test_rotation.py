"""What servers do with refresh tokens, and what a failed answer means for them."""

from __future__ import annotations

import pytest

from aiohttp_oauth_middleware import (
    ClientSecret,
    InvalidClient,
    LoginRequired,
    MemoryStore,
    RefreshInDoubt,
    Secret,
    TokenResponseError,
    Tokens,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.sources.state import State
from aiohttp_oauth_middleware.testing import AuthorizationServer
from tests.clock import VirtualClock


def state(store: MemoryStore) -> State:
    [record] = store._records.values()
    return State.from_body(record.body)


async def made(server: AuthorizationServer, clock: VirtualClock) -> tuple[Tokens, MemoryStore]:
    store = MemoryStore()
    tokens = Tokens(server.client(clock=clock), store=store)
    await tokens.save(server.issue().replace(expires_at=clock.time() - 1.0, obtained_at=clock.time() - 3601.0))
    return tokens, store


@pytest.mark.parametrize("how", ["rotates", "rotates with a grace", "never rotates", "rotates sometimes"])
async def test_F_36_S_10_the_newest_refresh_token_is_the_one_that_is_kept(oauth_server: AuthorizationServer, how: str) -> None:
    clock = VirtualClock()
    oauth_server.reuse_grace = 30.0 if how == "rotates with a grace" else 0.0
    tokens, store = await made(oauth_server, clock)
    seen: set[str | None] = set()
    for number in range(6):
        oauth_server.rotation = how.startswith("rotates") and (how != "rotates sometimes" or number % 2 == 0)
        await tokens.token()
        token = state(store).token
        assert token is not None
        assert token.refresh_token is not None
        assert oauth_server.is_active(token.refresh_token)
        seen.add(token.refresh_token)
        clock.advance(3600.0)
    assert oauth_server.counts.refreshes == 6
    assert oauth_server.counts.reuses == oauth_server.counts.families_revoked == 0
    assert len(seen) == {"never rotates": 1, "rotates sometimes": 3}.get(how, 6)


async def test_F_36_the_same_refresh_token_again_is_no_new_one(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    tokens, store = await made(oauth_server, clock)
    before = state(store).token
    assert before is not None
    oauth_server.answer_next(f'{{"access_token":"a","expires_in":60,"refresh_token":"{before.refresh_token}"}}'.encode())
    await tokens.token()
    after = state(store).token
    assert after is not None
    assert after.refresh_token == before.refresh_token


async def test_F_36_F_21_a_refresh_token_that_expired_is_a_login_and_one_request(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    tokens, store = await made(oauth_server, clock)
    oauth_server.revoke_all(refresh_tokens=True)
    for _ in range(20):
        with pytest.raises(LoginRequired):
            await tokens.token()
    assert oauth_server.counts.token_requests == 1
    assert state(store).kind == "dead"


async def test_F_21_an_old_failure_does_not_kill_a_newer_sign_in(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    tokens, _ = await made(oauth_server, clock)
    oauth_server.revoke_all(refresh_tokens=True)
    with pytest.raises(LoginRequired):
        await tokens.token()
    now = clock.time()
    await tokens.save(oauth_server.issue().replace(expires_at=now + 3600.0, obtained_at=now))
    assert oauth_server.is_active((await tokens.token()).access_token)


async def test_F_22_invalid_client_costs_no_refresh_token(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    secrets = ["wrong"]
    store = MemoryStore()
    client = oauth_server.client(authentication=ClientSecret(Secret(lambda: secrets[-1])), clock=clock)
    tokens = Tokens(client, store=store)
    await tokens.save(oauth_server.issue().replace(expires_at=1.0, obtained_at=0.0))
    for _ in range(20):
        with pytest.raises(InvalidClient):
            await tokens.token()
    assert oauth_server.counts.token_requests <= 2, "one for each method that the server takes"
    assert state(store).kind == "ok"
    secrets.append("app-secret")
    assert oauth_server.is_active((await tokens.token()).access_token)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_F_23_a_passing_failure_keeps_the_refresh_token(oauth_server: AuthorizationServer, status: int) -> None:
    clock = VirtualClock()
    tokens, store = await made(oauth_server, clock)
    oauth_server.fail_next(status)
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    assert state(store).pending is not None
    clock.advance(61.0)
    assert oauth_server.is_active((await tokens.token()).access_token)
    assert oauth_server.counts.reuses == 0


async def test_F_25_a_server_that_cannot_be_reached_leaves_no_doubt() -> None:
    clock = VirtualClock()
    with AuthorizationServer() as server:
        tokens, store = await made(server, clock)
        await tokens.client.metadata()
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.token()
    assert state(store).pending is None
    assert caught.value.__cause__ is not None


async def test_F_25_an_answer_that_takes_too_long_leaves_the_refresh_token_in_doubt(oauth_server: AuthorizationServer) -> None:
    store = MemoryStore()
    tokens = Tokens(oauth_server.client(timeout=0.2), store=store)
    await tokens.client.metadata()
    await tokens.save(oauth_server.issue().replace(expires_at=1.0, obtained_at=0.0))
    with oauth_server.hold() as held:
        with pytest.raises(TokenUnavailable, match="did not answer within"):
            await tokens.token()
        assert held.count == 1
    assert state(store).pending is not None


async def test_F_26_a_lost_answer_on_a_strict_server_is_told_truthfully(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    tokens, store = await made(oauth_server, clock)
    oauth_server.lose_next_response()
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    clock.advance(61.0)
    with pytest.raises(RefreshInDoubt) as caught:
        await tokens.token()
    assert caught.value.process
    assert caught.value.since is not None
    assert oauth_server.counts.token_requests == 2
    for _ in range(5):
        with pytest.raises(LoginRequired):
            await tokens.token()
    assert oauth_server.counts.token_requests == 2
    assert state(store).kind == "dead"


async def test_F_26_a_lost_answer_on_a_server_with_a_grace_costs_nothing(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    oauth_server.reuse_grace = 3600.0
    tokens, store = await made(oauth_server, clock)
    oauth_server.lose_next_response()
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    clock.advance(61.0)
    assert oauth_server.is_active((await tokens.token()).access_token)
    assert state(store).pending is None


async def test_F_26_a_request_that_was_cut_off_before_it_was_served_succeeds_the_next_time(
    oauth_server: AuthorizationServer,
) -> None:
    clock = VirtualClock()
    tokens, store = await made(oauth_server, clock)
    oauth_server.cut_next()
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    assert state(store).pending is not None
    clock.advance(61.0)
    assert oauth_server.is_active((await tokens.token()).access_token)


async def test_F_26_F_27_nonsense_leaves_it_in_doubt_and_is_one_request(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    tokens, store = await made(oauth_server, clock)
    oauth_server.answer_next(b"<html>", content_type="text/html")
    for _ in range(20):
        with pytest.raises(TokenResponseError):
            await tokens.token()
    assert oauth_server.counts.token_requests == 1
    assert state(store).pending is not None


async def test_S_27_after_revoke_nothing_is_used_here_or_there(oauth_server: AuthorizationServer) -> None:
    clock = VirtualClock()
    tokens, _ = await made(oauth_server, clock)
    token = await tokens.token()
    await tokens.revoke()
    assert not oauth_server.is_active(token.access_token)
    assert token.refresh_token is not None
    assert not oauth_server.is_active(token.refresh_token)
    with pytest.raises(LoginRequired):
        await tokens.token()
