"""Who signs in, out, and in again, while something else goes on: here, at another worker, or in a store that can't be read."""

from __future__ import annotations

import asyncio

import pytest

from aiohttp_oauth_middleware import (
    LoginRequired,
    MemoryStore,
    Record,
    RefreshToken,
    SealedStore,
    StoreCorrupted,
    StoreError,
    Tokens,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.sources.state import State
from aiohttp_oauth_middleware.stores.store import Lock
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, StrictServer, all_of, turns


def workers(number: int = 2, *, lifetime: float = 3600.0) -> tuple[StrictServer, list[Tokens]]:
    server, store = StrictServer(VirtualClock(), lifetime=lifetime), MemoryStore()
    return server, [Tokens(DirectClient(server), store=store) for _ in range(number)]


@pytest.mark.parametrize("first_use", [False, True])
async def test_P0_S_27_a_late_result_never_replaces_who_signed_in_after_a_forget(
    first_use: bool,
) -> None:
    server = StrictServer(VirtualClock())
    store, client = MemoryStore(), DirectClient(server)
    old = server.sign_in()
    slow = Tokens(client, RefreshToken(old.refresh_token or "") if first_use else None, store=store)
    other = Tokens(client, RefreshToken("unused") if first_use else None, store=store)
    if not first_use:
        await slow.save(old.replace(expires_at=0.0))
    server.holding = True
    flying = asyncio.create_task(slow.token())
    await turns(20)
    assert server.held == 1
    newest = server.sign_in()
    await other.forget()
    for token in (server.sign_in(), newest) if not first_use else (newest,):
        await other.save(token)
    server.release()
    assert await flying == newest
    assert await Tokens(client, RefreshToken("unused") if first_use else None, store=store).token() == newest


class FullStore(MemoryStore):
    """A store that takes intents, but no results while it is full."""

    full = False

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        if self.full and State.from_body(record.body).pending is None:
            raise OSError(28, "No space left on device")
        return await super().save(key, record, expected=expected, lock=lock)


async def test_F_50_P0_what_the_store_would_not_take_is_known_though_the_user_fell_out_of_the_cache() -> None:
    server, store = StrictServer(VirtualClock(), lifetime=60.0), FullStore()
    tokens = Tokens(DirectClient(server), store=store, cache_size=1, key=lambda: "alice")
    await tokens.save(server.sign_in().replace(expires_at=server.clock.time()), key="alice")
    store.full = True
    renewed = await tokens.for_key("alice").token()
    await tokens.aclose()  # the writing has been given up
    with pytest.raises(LoginRequired):
        await tokens.for_key("bob").token()
    assert "alice" not in tokens._cache
    store.full = False
    server.clock.advance(61)
    better = await tokens.for_key("alice").token()
    assert renewed is not None
    assert better is not None
    assert server.is_current(better.refresh_token)
    assert server.reuses == 0


async def test_S_27_F_50_a_sign_out_revokes_the_newer_token_that_the_store_would_not_take() -> None:
    server, store = StrictServer(VirtualClock(), lifetime=60.0), FullStore()
    tokens = Tokens(DirectClient(server), store=store)
    await tokens.save(server.sign_in().replace(expires_at=server.clock.time()))
    store.full = True
    newest = await tokens.token()
    await tokens.aclose()
    store.full = False
    await tokens.revoke()
    assert server.revoked[0] == newest.refresh_token
    assert not server.is_current(newest.refresh_token)
    assert tokens._common.unwritten == {}


async def test_S_27_who_signed_in_again_elsewhere_is_let_in_though_the_sign_out_here_could_not_be_finished() -> None:
    server, (here, elsewhere) = workers()
    await here.save(server.sign_in())
    here_client = here.client
    assert isinstance(here_client, DirectClient)
    server.revoke = lambda form: EndpointResponse(503, {}, b"")  # type: ignore[method-assign]
    with pytest.raises(TokenUnavailable):
        await here.revoke()
    with pytest.raises(LoginRequired):
        await here.token()
    again = server.sign_in()
    await elsewhere.save(again)
    assert await here.token() == again


async def test_S_27_a_refresh_elsewhere_is_no_new_sign_in() -> None:
    server, (here, elsewhere) = workers(lifetime=60.0)
    await here.save(server.sign_in())
    server.revoke = lambda form: EndpointResponse(503, {}, b"")  # type: ignore[method-assign]
    await elsewhere.token()
    with pytest.raises(TokenUnavailable):
        await here.revoke()
    server.clock.advance(61)
    assert server.is_current((await elsewhere.token()).refresh_token)
    with pytest.raises(LoginRequired):
        await here.token()


async def test_F_04_while_a_failure_cools_down_whoever_signed_in_elsewhere_is_served() -> None:
    server, (here, elsewhere) = workers(lifetime=60.0)
    await here.save(server.sign_in())
    server.clock.advance(61)
    server.next.append(EndpointResponse(503, {"retry-after": "120"}, b""))
    with pytest.raises(TokenUnavailable):
        await here.token()
    with pytest.raises(TokenUnavailable):
        await here.token()
    again = server.sign_in()
    await elsewhere.save(again)
    assert await here.token() == again
    assert server.token_requests == 1


async def test_S_27_a_record_that_nobody_can_read_keeps_nobody_from_signing_in_again(caplog: pytest.LogCaptureFixture) -> None:
    server, inner = StrictServer(VirtualClock()), MemoryStore()
    client = DirectClient(server)
    lost = Tokens(client, store=SealedStore(inner, SealedStore.generate_key()))
    for user in ("alice", "bob"):
        await lost.save(server.sign_in(), key=user)
    tokens = Tokens(client, store=SealedStore(inner, SealedStore.generate_key()))
    with pytest.raises(StoreCorrupted):
        await tokens.for_key("alice").token()
    await tokens.save(server.sign_in(), key="alice")
    assert await tokens.for_key("alice").token() is not None
    assert await all_of(tokens.keys()) == ["alice"]
    assert await tokens.clean_up(older_than=0.0) == 0
    assert caplog.text.count("passed over") == 2


async def test_F_05_the_first_request_of_a_process_is_served_in_the_background_too() -> None:
    server, (one, _) = workers(lifetime=100.0)
    await one.save(server.sign_in())
    server.clock.advance(95)
    fresh = Tokens(one.client, store=one._store, background_refresh=True)
    server.holding = True
    served = await fresh.token()
    assert server.accepts(served.access_token)
    server.release()
    await fresh.aclose()
    assert (await fresh.token()) != served


@pytest.mark.parametrize("error", [OSError("down"), StoreError("down")])
async def test_F_50_a_store_that_is_down_is_not_taken_for_one_with_bad_records(error: Exception) -> None:
    server, (tokens, _) = workers()
    await tokens.save(server.sign_in())

    async def load(key: str) -> Record | None:
        raise error

    tokens._store.load = load  # type: ignore[method-assign]
    with pytest.raises(StoreError, match=r"down|OSError"):
        await all_of(tokens.keys())


async def test_F_04_F_50_where_the_store_is_down_too_the_failure_that_cools_down_is_what_is_told() -> None:
    server, (tokens, _) = workers(lifetime=60.0)
    await tokens.save(server.sign_in())
    server.clock.advance(61)
    server.next.append(EndpointResponse(503, {"retry-after": "120"}, b""))
    with pytest.raises(TokenUnavailable):
        await tokens.token()

    async def load(key: str) -> Record | None:
        raise OSError("down")

    tokens._store.load = load  # type: ignore[method-assign]
    with pytest.raises(TokenUnavailable, match="120 s"):
        await tokens.token()


async def test_F_05_in_the_background_whoever_signed_out_is_asked_to_sign_in() -> None:
    server, (one, _) = workers()
    await one.save(server.sign_in())
    await one.revoke()
    with pytest.raises(LoginRequired):
        await Tokens(one.client, store=one._store, background_refresh=True).token()
