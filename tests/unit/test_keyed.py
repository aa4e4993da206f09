"""The token of one key: when it is due, what a refusal means for it, what is latched, and how it is signed out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from aiohttp_oauth_middleware import (
    AccessDenied,
    AuthorizationCode,
    Client,
    ClientCredentials,
    ConfigurationError,
    InvalidClient,
    LoginRequired,
    MemoryStore,
    Quirks,
    Refusal,
    Secret,
    StoreError,
    StoreLockTimeout,
    Token,
    Tokens,
    TokenUnavailable,
    Wanted,
)
from aiohttp_oauth_middleware.protocol.challenge import Challenge
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.sources import asking, keyed
from aiohttp_oauth_middleware.sources.held import Held
from aiohttp_oauth_middleware.sources.state import Pending, State
from aiohttp_oauth_middleware.stores.store import Lock, Record
from tests.clock import VirtualClock
from tests.strict_server import LOST, DirectClient, FaultyStore, SlowStore, StrictServer, oauth_error, turns

NOW = 1_700_000_000.0
API = URL("https://api.example/")
DOWN = EndpointResponse(503, {"retry-after": "5"}, b"")


def bare(token: Token) -> Refusal:
    return Refusal(API, 401, (), token)


def expired(token: Token) -> Refusal:
    return Refusal(API, 401, (Challenge("bearer", {"error": "invalid_token"}),), token)


def too_little(token: Token) -> Refusal:
    return Refusal(API, 403, (Challenge("bearer", {"error": "insufficient_scope", "scope": "more"}),), token)


def other(token: Token) -> Refusal:
    return Refusal(API, 401, (Challenge("basic"),), token)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def server(clock: VirtualClock) -> StrictServer:
    return StrictServer(clock)


class Somebody:
    """A Login: a person who signs in, or doesn't."""

    def __init__(self, server: StrictServer) -> None:
        self.server = server
        self.timeout = 300.0
        self.wanted: list[Wanted] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.result: object = None

    async def __call__(self, client: Client, wanted: Wanted) -> Token:
        self.wanted.append(wanted)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.server.sign_in() if self.result is None else self.result  # type: ignore[return-value]


# When it is due.


def held(token: Token, *, leeway: float = 60.0, wall: float = NOW, chance: float = 0.0) -> Held:
    return Held(token, 1000.0, wall, leeway, chance)


@pytest.mark.parametrize(
    ("lifetime", "lead"), [(1.0, 0.2), (5.0, 1.0), (30.0, 6.0), (60.0, 12.0), (300.0, 60.0), (3600.0, 60.0)]
)
def test_F_02_the_leeway_is_at_most_a_fifth_of_the_lifetime(lifetime: float, lead: float) -> None:
    one = held(Token("a", expires_at=NOW + lifetime, obtained_at=NOW))
    assert one.due_at == pytest.approx(NOW + lifetime - lead)
    assert one.due == pytest.approx(1000.0 + lifetime - lead)
    assert (one.expires_at, one.expires) == (NOW + lifetime, 1000.0 + lifetime)


def test_the_leeway_counts_from_the_whole_lifetime_and_not_from_what_is_left_of_it() -> None:
    one = held(Token("a", expires_at=NOW + 10.0, obtained_at=NOW - 90.0))
    assert one.due_at == pytest.approx(NOW - 10.0)
    assert one.born == pytest.approx(910.0)


def test_where_the_birth_is_unknown_what_is_left_counts() -> None:
    one = held(Token("a", expires_at=NOW + 10.0))
    assert one.due_at == pytest.approx(NOW + 8.0)
    assert one.born == -math.inf
    assert held(Token("a", expires_at=NOW - 10.0)).due_at == NOW - 10.0


def test_jitter_makes_the_leeway_smaller_by_a_tenth_at_most() -> None:
    token = Token("a", expires_at=NOW + 3600.0, obtained_at=NOW)
    assert held(token, chance=1.0).due_at == pytest.approx(NOW + 3546.0)
    assert held(token, leeway=0.0).due_at == NOW + 3600.0


def test_a_token_without_an_expiry_is_never_due() -> None:
    one = held(Token("a"))
    assert one.due == one.due_at == one.expires == one.expires_at == math.inf


def test_the_servers_own_advice_makes_it_due_earlier_but_never_at_birth() -> None:
    def advised(refresh_at: float) -> float:
        return held(Token("a", expires_at=NOW + 3600.0, obtained_at=NOW, refresh_at=refresh_at)).due_at

    assert advised(NOW + 1800.0) == NOW + 1800.0
    assert advised(NOW + 9999.0) == NOW + 3540.0
    assert advised(NOW - 5.0) == NOW + 1.0


def test_a_token_from_the_future_is_expired() -> None:
    one = held(Token("a", expires_at=NOW + 7200.0, obtained_at=NOW + 3600.0))
    assert one.expires == one.due == -math.inf
    assert held(Token("a", expires_at=NOW + 7200.0, obtained_at=NOW + 0.5)).expires_at == NOW + 7200.0


def test_a_refused_token_is_due_at_once() -> None:
    one = held(Token("a"))
    one.refuse()
    assert one.refused
    assert one.due == -math.inf


async def test_it_is_renewed_as_soon_as_either_clock_says_so(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    first = await tokens.token()
    clock.advance(3500.0)
    assert await tokens.token() == first
    clock.advance(50.0)
    second = await tokens.token()
    assert second != first
    clock.set_wall(3550.0)
    third = await tokens.token()
    assert third != second
    clock.set_wall(-100_000.0)
    assert await tokens.token() == third, "the wall clock went back, the monotonic one counts"
    clock.advance(3601.0)
    assert await tokens.token() != third
    assert server.token_requests == 4


# What a refusal means.


async def test_I3_of_two_who_look_into_the_store_at_once_the_one_who_is_told_last_does_not_put_an_older_token_into_memory(
    server: StrictServer,
) -> None:
    class Late(MemoryStore):
        async def load(self, key: str) -> Record | None:
            record = await super().load(key)
            if gates:
                await gates.pop().wait()
            return record

    gate = asyncio.Event()
    gates: list[asyncio.Event] = []
    store = Late()
    await Tokens(DirectClient(server), store=store).save(old := server.sign_in())
    tokens = Tokens(DirectClient(server), store=store)
    gates.append(gate)
    first = asyncio.create_task(tokens.token(Refusal(API, 403, (), old)))
    await turns(3)
    await Tokens(DirectClient(server), store=store).save(newer := server.sign_in())
    assert await tokens.token(Refusal(API, 403, (), newer)) == newer
    gate.set()
    await first
    assert await tokens.token() == newer


async def test_F_15_what_another_thread_has_put_into_memory_meanwhile_is_not_renewed_again(
    clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    waiter = asyncio.create_task(tokens.token())
    await turns(1)  # it has found nothing that will do, and its flight has not begun
    newer = server.sign_in()
    tokens._keyed("default")._hold(newer)
    assert await waiter == newer
    assert server.token_requests == 0


async def test_F_12_only_the_current_token_is_renewed(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    first = await tokens.token()
    clock.advance(20.0)
    second = await tokens.token(expired(first))
    assert second != first
    assert await tokens.token(expired(first)) == second
    assert server.token_requests == 2


async def test_F_12_G_15_a_hundred_refusals_of_one_token_are_one_refresh(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    first = await tokens.token()
    clock.advance(20.0)
    server.expire_all()
    better = await asyncio.gather(*(tokens.token(expired(first)) for _ in range(100)))
    assert server.token_requests == 1
    assert len({token.access_token for token in better}) == 1
    assert server.accepts(better[0].access_token)


async def test_F_12_a_refusal_that_comes_before_anything_is_in_memory_asks_the_store_first(
    clock: VirtualClock, server: StrictServer
) -> None:
    store = MemoryStore()
    await Tokens(DirectClient(server), store=store).save(server.sign_in())
    tokens = Tokens(DirectClient(server), store=store)
    token = await tokens.token(expired(Token("older")))
    assert server.accepts(token.access_token)
    assert server.token_requests == 0


async def test_a_refusal_that_is_about_something_else_changes_nothing(server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    first = await tokens.token()
    assert await tokens.token(other(first)) == first
    assert await tokens.token() == first
    assert server.token_requests == 1


async def test_a_refusal_without_a_token_is_a_plain_question(server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    first = await tokens.token(Refusal(API, 401))
    assert await tokens.token(Refusal(API, 401)) == first


async def test_F_39_a_401_without_a_reason_renews_only_a_token_of_some_age(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    first = await tokens.token()
    clock.advance(9.9)
    assert await tokens.token(bare(first)) == first
    clock.advance(0.1)
    assert await tokens.token(bare(first)) != first


async def test_F_13_G_15_a_server_that_refuses_every_new_token_stops_the_refreshes(
    clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    token = await tokens.token()
    before = server.token_requests
    for _ in range(20):
        token = await tokens.token(expired(token))
        clock.advance(0.5)
    assert server.token_requests - before <= 3
    clock.advance(60.0)
    assert await tokens.token(expired(token)) != token, "the cool-down is over"


async def test_F_13_a_token_that_had_served_for_a_while_is_no_strike(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    token = await tokens.token()
    for _ in range(10):
        clock.advance(11.0)
        better = await tokens.token(expired(token))
        assert better != token
        token = better


@pytest.mark.parametrize("refusal", [bare, expired])
async def test_F_13_F_39_a_token_that_is_due_anyway_is_renewed_for_any_refusal_and_is_no_strike(
    clock: VirtualClock, server: StrictServer, refusal: Callable[[Token], Refusal]
) -> None:
    server.lifetime = 1.0
    tokens = Tokens(DirectClient(server), ClientCredentials())
    for _ in range(10):
        token = await tokens.token()
        clock.advance(0.9)  # on its way to the API
        assert await tokens.token(refusal(token)) != token
        clock.advance(1.0)


async def test_F_13_a_refused_token_is_not_served_again_while_its_renewal_fails(
    clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    token = await tokens.token()
    clock.advance(20.0)
    server.always = DOWN
    for _ in range(3):
        with pytest.raises(TokenUnavailable):
            await tokens.token(expired(token))
        with pytest.raises(TokenUnavailable):
            await tokens.token()
    assert server.token_requests == 1


# Failures, and what is latched.


async def test_F_05_a_token_that_is_still_valid_serves_on_while_its_renewal_fails(
    clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    first = await tokens.token()
    server.always = DOWN
    clock.advance(3590.0)
    assert [await tokens.token() for _ in range(50)] == [first] * 50
    assert server.token_requests == 1
    clock.advance(5.0)
    assert await tokens.token() == first
    assert server.token_requests == 2
    clock.advance(5.0)
    with pytest.raises(TokenUnavailable):
        await tokens.token()


async def test_F_05_also_while_it_is_dead_in_the_store(clock: VirtualClock, server: StrictServer) -> None:
    store = MemoryStore()
    tokens = Tokens(DirectClient(server), store=store)
    await tokens.save(server.sign_in())
    first = await tokens.token()
    server.next.append(oauth_error("invalid_grant"))
    clock.advance(3590.0)
    assert await tokens.token() == first
    assert await tokens.token() == first
    assert await Tokens(DirectClient(server), store=store).token() == first
    assert server.token_requests == 1
    clock.advance(10.0)
    with pytest.raises(LoginRequired):
        await tokens.token()


async def test_F_03_F_04_after_a_failure_requests_fail_at_once_until_the_cool_down_is_over(
    clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(DirectClient(server), key="alice")
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.next.append(DOWN)
    errors = await asyncio.gather(*(tokens.token() for _ in range(100)), return_exceptions=True)
    assert {type(error) for error in errors} == {TokenUnavailable}
    assert len({id(error) for error in errors}) == 100
    assert server.token_requests == 1
    clock.advance(2.0)
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.token()
    assert caught.value.retry_after == pytest.approx(3.0)
    assert caught.value.key_id == "2bd806c9"
    assert server.token_requests == 1
    clock.advance(3.0)
    assert server.accepts((await tokens.token()).access_token)
    assert server.token_requests == 2


async def test_F_04_a_second_Tokens_over_the_same_store_heeds_the_cool_down(clock: VirtualClock, server: StrictServer) -> None:
    store = MemoryStore()
    first, second = (Tokens(DirectClient(server), store=store) for _ in range(2))
    await first.save(server.sign_in())
    clock.advance(3600.0)
    server.next.append(DOWN)
    for tokens in (first, second, second):
        with pytest.raises(TokenUnavailable):
            await tokens.token()
    assert server.token_requests == 1


async def test_F_22_invalid_client_latches_until_the_secret_changes_or_the_cool_down_is_over(
    clock: VirtualClock, server: StrictServer
) -> None:
    secrets = ["old"]
    tokens = Tokens(DirectClient(server, secret=Secret(lambda: secrets[-1])))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.next.append(oauth_error("invalid_client", 401))
    tokens._keyed("default")._common.events.counts.clear()
    for _ in range(20):
        with pytest.raises(InvalidClient):
            await tokens.token()
    assert server.token_requests == 1
    secrets.append("new")
    assert server.accepts((await tokens.token()).access_token)
    assert server.requests[-1]["client_secret"] == "new"


async def test_F_21_twenty_requests_after_invalid_grant_are_one_token_request(
    clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.end_sign_ins()
    for _ in range(20):
        with pytest.raises(LoginRequired) as caught:
            await tokens.token()
        assert caught.value.key_id is not None
    assert server.token_requests == 1


async def test_a_store_that_raises_is_a_StoreError_with_its_cause(server: StrictServer) -> None:
    store = FaultyStore(lambda number: True)
    tokens = Tokens(DirectClient(server), ClientCredentials(), store=store)
    works: list[Callable[[], Awaitable[object]]] = [
        tokens.token,
        tokens.revoke,
        tokens.forget,
        lambda: tokens.save(Token("a")),
        lambda: anext(aiter(tokens.keys())),
    ]
    for work in works:
        with pytest.raises(StoreError, match="OSError") as caught:
            await work()
        assert isinstance(caught.value.__cause__, OSError)
    assert server.token_requests == 0


async def test_an_error_of_ours_from_a_store_passes_as_it_is(server: StrictServer) -> None:
    store = FaultyStore(lambda number: True, StoreError("my own"))
    tokens = Tokens(DirectClient(server), ClientCredentials(), store=store)
    works: list[Callable[[], Awaitable[object]]] = [
        tokens.token,
        tokens.revoke,
        tokens.forget,
        lambda: anext(aiter(tokens.keys())),
    ]
    for work in works:
        with pytest.raises(StoreError, match="my own"):
            await work()


async def test_F_50_with_a_valid_token_in_memory_a_broken_store_is_not_noticed(
    clock: VirtualClock, server: StrictServer
) -> None:
    store = FaultyStore()
    tokens = Tokens(DirectClient(server), store=store)
    await tokens.save(server.sign_in())
    first = await tokens.token()
    store.failing = lambda number: True
    clock.advance(3590.0)
    assert await tokens.token() == first
    assert server.token_requests == 0


async def test_F_50_while_the_result_cannot_be_written_the_waiters_have_it_and_no_other_request_is_made(
    server: StrictServer,
) -> None:
    clock = VirtualClock(automatic=False)
    server.clock = clock
    store = FaultyStore()
    client = DirectClient(server)
    tokens = Tokens(client, store=store)
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.holding = True
    waiters = [asyncio.create_task(tokens.token()) for _ in range(20)]
    while not server.held:
        await turns(1)
    store.failing = lambda number: True
    server.release()
    got = await asyncio.gather(*waiters)
    assert server.accepts(got[0].access_token)
    assert [await tokens.token() for _ in range(5)] == [got[0]] * 5
    assert clock.sleepers == 1, "the write goes on"
    store.failing = lambda number: False
    clock.advance(1.0)
    await tokens.aclose()
    assert await Tokens(client, store=store).token() == got[0]
    assert server.token_requests == 1


# What is written meanwhile.


async def test_save_during_a_refresh_wins_in_memory_and_in_the_store(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.holding = True
    waiter = asyncio.create_task(tokens.token())
    while not server.held:
        await turns(1)
    saved = server.sign_in()
    await tokens.save(saved)
    server.release()
    assert await waiter == saved
    assert await tokens.token() == saved
    assert tokens.counts["stale_write_refused"] == 1


@pytest.mark.parametrize("moment", range(1, 30))
async def test_I3_save_at_any_moment_of_a_refresh_is_not_undone_in_memory(
    clock: VirtualClock, server: StrictServer, moment: int
) -> None:
    tokens = Tokens(DirectClient(server), store=SlowStore())
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    waiter = asyncio.create_task(tokens.token())
    await turns(moment)
    saved = server.sign_in()
    await tokens.save(saved)
    await asyncio.wait([waiter])
    await turns(20)
    assert await tokens.token() == saved


@pytest.mark.parametrize("moment", range(1, 30))
@pytest.mark.parametrize("kept", ["refresh", "store"])
async def test_S_27_revoke_at_any_moment_of_a_flight_leaves_no_token_in_use(
    clock: VirtualClock, server: StrictServer, moment: int, kept: str
) -> None:
    store = SlowStore()
    await Tokens(DirectClient(server), store=store).save(server.sign_in())
    tokens = Tokens(DirectClient(server), store=store)
    if kept == "refresh":
        clock.advance(3600.0)
    waiter = asyncio.create_task(tokens.token())
    await turns(moment)
    revoking = asyncio.create_task(tokens.revoke())
    await turns(1)
    was_done = waiter.done()  # it had its token before revoke() was called
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await tokens.token()
    await revoking
    await asyncio.wait([waiter])
    assert was_done or isinstance(waiter.exception(), LoginRequired)
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await tokens.token()
    record = await store.load(tokens._keyed("default")._slot.key)
    assert record is not None
    assert State.from_body(record.body).kind == "signed_out"
    assert not any(server.is_current(f"refresh-{number}") for number in range(10))


async def test_S_27_revoke_while_a_failing_write_goes_on(clock: VirtualClock, server: StrictServer) -> None:
    store = FaultyStore()
    client = DirectClient(server)
    slow = VirtualClock(automatic=False)
    client.clock = slow
    server.clock = slow
    tokens = Tokens(client, store=store)
    await tokens.save(server.sign_in())
    slow.advance(3600.0)
    server.holding = True
    waiter = asyncio.create_task(tokens.token())
    while not server.held:
        await turns(1)
    store.failing = lambda number: True
    revoking = asyncio.create_task(tokens.revoke())
    await turns(2)
    server.release()
    while not slow.sleepers:
        await turns(1)
    with pytest.raises(LoginRequired):
        await tokens.token()
    with pytest.raises(LoginRequired):
        await waiter
    store.failing = lambda number: False
    slow.advance(1.0)
    await revoking
    with pytest.raises(LoginRequired):
        await tokens.token()
    assert server.revoked[0].startswith("refresh")


# Signing out.


async def test_S_27_revoke_sends_the_refresh_token_then_the_access_token(server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server))
    token = server.sign_in()
    await tokens.save(token)
    await tokens.revoke()
    assert server.revoked == [token.refresh_token, token.access_token]
    assert tokens.counts["signed_out"] == 1
    await tokens.revoke()
    assert len(server.revoked) == 2, "there is nothing left to revoke"


async def test_S_27_where_the_server_cannot_be_reached_the_tombstone_stays_and_it_can_be_called_again(
    server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    with monkeypatch.context() as broken:
        broken.setattr(server, "revoke", lambda form: DOWN)
        with pytest.raises(TokenUnavailable):
            await tokens.revoke()
    with pytest.raises(LoginRequired):
        await tokens.token()
    await tokens.revoke()
    assert len(server.revoked) == 2


async def test_revoke_passes_over_a_server_that_revokes_refresh_tokens_only(
    server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(DirectClient(server))

    async def refused_with(error: str) -> None:
        await tokens.save(server.sign_in())
        monkeypatch.setattr(
            server,
            "revoke",
            lambda form: oauth_error(error) if form["token_type_hint"] == "access_token" else EndpointResponse(200, {}, b""),
        )
        await tokens.revoke()

    await refused_with("unsupported_token_type")
    with pytest.raises(Exception, match="invalid_request"):
        await refused_with("invalid_request")


async def test_revoke_without_a_revocation_endpoint_drops_the_token_and_says_so(
    server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = DirectClient(server)
    client._metadata = client._metadata.replace(revocation_endpoint=None) if client._metadata else None
    tokens = Tokens(client)
    await tokens.save(server.sign_in())
    await tokens.revoke()
    assert "no revocation endpoint" in caplog.text
    with pytest.raises(LoginRequired):
        await tokens.token()


async def test_revoke_of_a_token_without_a_refresh_token_and_of_nothing(server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    token = await tokens.token()
    await tokens.revoke()
    assert server.revoked == [token.access_token]
    await Tokens(DirectClient(server)).revoke()
    assert server.revoked == [token.access_token]


async def test_after_revoke_an_unattended_grant_waits_for_login(server: StrictServer) -> None:
    store = MemoryStore()
    tokens = Tokens(DirectClient(server), ClientCredentials(), store=store)
    await tokens.token()
    await tokens.revoke()
    with pytest.raises(LoginRequired):
        await tokens.token()
    with pytest.raises(LoginRequired):
        await Tokens(DirectClient(server), ClientCredentials(), store=store).token()
    token = await tokens.login()
    assert await tokens.token() == token


async def test_a_sign_in_through_another_Tokens_of_the_same_store_ends_the_sign_out_here(server: StrictServer) -> None:
    store = MemoryStore()
    first, second = (Tokens(DirectClient(server), store=store) for _ in range(2))
    await first.save(server.sign_in())
    await first.revoke()
    with pytest.raises(LoginRequired):
        await first.token()
    signed_in = server.sign_in()
    await second.save(signed_in)
    assert await second.token() == signed_in
    assert await first.token() == signed_in, "signed out until this process ends"


async def test_forget_drops_it_here_and_tells_nobody(server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    await tokens.forget()
    with pytest.raises(LoginRequired):
        await tokens.token()
    assert server.revoked == []
    await tokens.revoke()
    await tokens.forget()
    await tokens.save(server.sign_in())
    await tokens.token()


async def test_forget_waits_for_a_refresh_under_way(clock: VirtualClock, server: StrictServer) -> None:
    store = MemoryStore()
    tokens = Tokens(DirectClient(server), store=store)
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.holding = True
    waiter = asyncio.create_task(tokens.token())
    while not server.held:
        await turns(1)
    forgetting = asyncio.create_task(tokens.forget())
    await turns(3)
    assert not forgetting.done()
    server.release()
    await forgetting
    await waiter
    assert repr(store) == "<MemoryStore of 0 records>"


async def test_a_record_that_changes_for_ever_is_a_StoreError(server: StrictServer) -> None:
    class Refusing(MemoryStore):
        async def save(self, *args: object, **more: object) -> bool:
            return False

    with pytest.raises(StoreError, match="changed each time"):
        await Tokens(DirectClient(server), store=Refusing()).save(Token("a"))


@pytest.mark.parametrize("conflicts", [1, 1000])
async def test_S_27_a_sign_out_revokes_what_was_written_meanwhile_too(server: StrictServer, conflicts: int) -> None:
    class Meanwhile(MemoryStore):
        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            nonlocal conflicts
            if State.from_body(record.body).kind == "signed_out" and conflicts:
                conflicts -= 1
                newer = State(owner="", token=server.sign_in())
                await super().save(key, Record(expected + 1, "default", newer.to_body()), expected=expected)
            return await super().save(key, record, expected=expected, lock=lock)

    store = Meanwhile()
    tokens = Tokens(DirectClient(server), store=store)
    await tokens.save(server.sign_in())
    if conflicts > 1:
        with pytest.raises(StoreError, match="changed each time"):
            await tokens.revoke()
    else:
        await tokens.revoke()
        assert len(server.revoked) == 4
    with pytest.raises(LoginRequired):
        await tokens.token()


# Logging in.


async def test_login_with_an_unattended_grant_obtains_a_new_token_whatever_is_stored(server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    first = await tokens.token()
    second = await tokens.login()
    assert second != first
    assert await tokens.token() == second


async def test_login_does_not_heed_a_cool_down(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server, timeout=1.0), ClientCredentials())
    server.next.append(DOWN)
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    await tokens.login()
    assert server.token_requests == 2


async def test_login_without_a_grant_names_the_remedy(server: StrictServer) -> None:
    with pytest.raises(LoginRequired, match=r"save\(\)"):
        await Tokens(DirectClient(server)).login()


async def test_a_Login_is_asked_once_by_all_who_need_a_token(server: StrictServer) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    got = await asyncio.gather(*(tokens.token() for _ in range(100)))
    assert len({token.access_token for token in got}) == 1
    assert somebody.wanted == [Wanted()]
    assert tokens.counts["login_started"] == tokens.counts["login_succeeded"] == 1
    assert await tokens.login() != got[0]
    assert len(somebody.wanted) == 2


async def test_F_21_a_dead_refresh_token_asks_the_Login(clock: VirtualClock, server: StrictServer) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.end_sign_ins()
    assert server.accepts((await tokens.token()).access_token)
    assert len(somebody.wanted) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [(LoginRequired("no"), LoginRequired), (ZeroDivisionError(), LoginRequired), (TimeoutError(), LoginRequired)],
    ids=lambda value: type(value).__name__,
)
async def test_a_refused_login_is_latched_until_login_is_called(
    server: StrictServer, error: Exception, kind: type[Exception]
) -> None:
    somebody = Somebody(server)
    somebody.error = error
    tokens = Tokens(DirectClient(server), somebody)
    for _ in range(20):
        with pytest.raises(kind):
            await tokens.token()
    assert len(somebody.wanted) == 1
    assert tokens.counts["login_failed"] == 1
    somebody.error = None
    await tokens.login()
    await tokens.token()


async def test_a_login_that_fails_for_a_passing_reason_is_not_latched(server: StrictServer) -> None:
    somebody = Somebody(server)
    somebody.error = TokenUnavailable("the network is down")
    tokens = Tokens(DirectClient(server), somebody)
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    somebody.error = None
    await tokens.token()


async def test_a_Login_that_takes_too_long_or_returns_no_token_is_an_error(server: StrictServer) -> None:
    somebody = Somebody(server)
    somebody.gate = asyncio.Event()
    somebody.timeout = 0.0
    with pytest.raises(LoginRequired, match="nobody signed in within 0 s"):
        await Tokens(DirectClient(server), somebody).token()
    somebody = Somebody(server)
    somebody.result = "a token"
    with pytest.raises(ConfigurationError, match="returned no Token"):
        await Tokens(DirectClient(server), somebody).token()


async def test_a_login_stops_when_nobody_waits_for_it(server: StrictServer) -> None:
    somebody = Somebody(server)
    somebody.gate = asyncio.Event()
    tokens = Tokens(DirectClient(server), somebody)
    waiters = [asyncio.create_task(tokens.token()) for _ in range(3)]
    while not somebody.wanted:
        await turns(1)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    await turns(5)
    assert tokens._common.flights.under_way() == []
    somebody.gate.set()
    await tokens.token()


async def test_P0_a_login_that_succeeded_is_stored_although_nobody_waits_any_more(server: StrictServer) -> None:
    for moment in range(12):
        somebody = Somebody(server)
        somebody.gate = asyncio.Event()
        store = SlowStore()
        tokens = Tokens(DirectClient(server), somebody, store=store)
        waiter = asyncio.create_task(tokens.token())
        while not somebody.wanted:
            await turns(1)
        somebody.gate.set()
        before = server._made
        await turns(moment)
        waiter.cancel()
        await asyncio.wait([waiter])
        await turns(30)
        if server._made > before:  # the code is spent, and the token here
            record = await store.load(tokens._keyed("default")._slot.key)
            assert record is not None, f"lost when cancelled after {moment} turns"


async def test_who_logs_in_meanwhile_elsewhere_spares_this_one_the_login(server: StrictServer) -> None:
    store = MemoryStore()
    first, second = Somebody(server), Somebody(server)
    first.gate = asyncio.Event()
    one, two = (Tokens(DirectClient(server), somebody, store=store) for somebody in (first, second))
    waiting = asyncio.create_task(one.token())
    while not first.wanted:
        await turns(1)
    also = asyncio.create_task(two.token())
    await turns(10)
    first.gate.set()
    token = await waiting
    # The lock is given up just before the token is saved, so the second one may have been asked already: never before.
    assert await also == token
    assert second.wanted == []


async def test_F_40_too_little_scope_asks_the_Login_for_more(server: StrictServer) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    first = (await tokens.token()).replace(scope="read")
    await tokens.save(first)
    better = await tokens.token(too_little(first))
    assert better != first
    assert somebody.wanted[-1] == Wanted(scope="read more")
    assert await tokens.token() == better


async def test_F_40_without_a_Login_the_same_token_comes_back(server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), ClientCredentials())
    first = await tokens.token()
    assert await tokens.token(too_little(first)) == first
    assert server.token_requests == 1


async def test_F_40_a_late_403_of_a_replaced_token_asks_nobody(server: StrictServer) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    first = await tokens.token()
    better = await tokens.token(too_little(first))
    assert await tokens.token(too_little(first)) == better
    assert len(somebody.wanted) == 2


async def test_F_40_a_person_who_refused_more_is_not_asked_again_by_the_next_403(server: StrictServer) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    first = await tokens.token()
    somebody.error = LoginRequired("no")
    for _ in range(5):
        try:
            assert await tokens.token(too_little(first)) == first
        except LoginRequired:
            continue
    assert len(somebody.wanted) == 2


@pytest.mark.parametrize("granted", ['rä"d', "a\\b", "\ud800"], ids=ascii)
async def test_F_40_an_odd_scope_that_was_granted_does_not_keep_the_Login_from_being_asked(
    server: StrictServer, granted: str
) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    first = server.sign_in().replace(scope=granted)
    await tokens.save(first)
    assert await tokens.token(too_little(first)) != first
    assert somebody.wanted == [Wanted(scope="more")]


@pytest.mark.parametrize(
    "error", [LoginRequired("no"), ZeroDivisionError(), AccessDenied("no", error="access_denied")], ids=repr
)
async def test_F_40_a_refused_step_up_gives_the_token_back_and_latches_no_ordinary_login(
    clock: VirtualClock, server: StrictServer, error: Exception
) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    first = await tokens.token()
    somebody.error = error
    for _ in range(3):
        assert await tokens.token(too_little(first)) == first, "the 403 is what there is"
    assert len(somebody.wanted) == 2, "and nobody is asked twice"
    somebody.error = None
    clock.advance(3600.0)
    server.end_sign_ins()
    second = await tokens.token()
    assert second != first
    assert somebody.wanted[2:] == [Wanted()]
    assert await tokens.token(too_little(second)) != second, "a new sign-in lifts it"


async def test_F_40_a_refused_login_latches_no_step_up(clock: VirtualClock, server: StrictServer) -> None:
    somebody = Somebody(server)
    store = MemoryStore()
    tokens = Tokens(DirectClient(server), somebody, store=store)
    somebody.error = LoginRequired("no")
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await tokens.token()
    assert len(somebody.wanted) == 1
    somebody.error = None
    elsewhere = server.sign_in()
    await Tokens(DirectClient(server), somebody, store=store).save(elsewhere)
    assert await tokens.token() == elsewhere
    assert await tokens.token(too_little(elsewhere)) != elsewhere


async def test_F_40_a_step_up_that_fails_for_a_passing_reason_says_so_and_is_tried_again(server: StrictServer) -> None:
    somebody = Somebody(server)
    tokens = Tokens(DirectClient(server), somebody)
    first = await tokens.token()
    somebody.error = TokenUnavailable("the network is down")
    for _ in range(2):
        with pytest.raises(TokenUnavailable, match="the network is down"):
            await tokens.token(too_little(first))
    assert len(somebody.wanted) == 3
    somebody.error = None
    assert await tokens.token(too_little(first)) != first


class LockingStore(MemoryStore):
    """A store whose lock for logins fails while it is told to."""

    error: Exception | None = None

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        if self.error is not None and key.endswith(" login"):
            raise self.error
        async with super().lock(key, wait=wait) as held:
            yield held


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StoreLockTimeout("held elsewhere")], ids=repr)
async def test_F_51_a_store_that_fails_in_the_lock_of_a_login_is_no_refusal_of_the_person(
    server: StrictServer, error: Exception
) -> None:
    somebody, store = Somebody(server), LockingStore()
    tokens = Tokens(DirectClient(server), somebody, store=store, key="alice")
    store.error = error
    for work in (tokens.token, tokens.login, tokens.token):
        with pytest.raises(StoreError) as caught:
            await work()
        assert caught.value.retryable
        if not isinstance(error, StoreError):
            assert caught.value.__cause__ is error
            assert caught.value.key_id == "2bd806c9"
    assert somebody.wanted == []
    assert tokens._common.asking._refusals == {}
    assert tokens.counts["login_failed"] == 0
    store.error = None
    await tokens.token()
    assert somebody.wanted == [Wanted()]


async def test_F_51_a_login_whose_result_cannot_be_stored_is_used_and_the_person_is_asked_once(
    clock: VirtualClock, server: StrictServer
) -> None:
    somebody, store = Somebody(server), FaultyStore()
    tokens = Tokens(DirectClient(server), somebody, store=store)
    somebody.gate = asyncio.Event()
    waiting = [asyncio.create_task(tokens.token()) for _ in range(5)]
    while not somebody.wanted:
        await turns(1)
    store.failing = lambda number: True
    somebody.gate.set()
    first, *others = await asyncio.gather(*waiting)
    assert server.accepts(first.access_token)
    assert others == [first] * 4
    assert [await tokens.token() for _ in range(3)] == [first] * 3
    assert somebody.wanted == [Wanted()]
    assert tokens.counts["store_write_failed"] == 1
    assert tokens.counts["login_succeeded"] == 1
    assert tokens.counts["login_failed"] == 0


async def test_I6_what_is_latched_is_bounded_and_the_latest_stays(
    server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LATCHES", 10)
    somebody = Somebody(server)
    somebody.error = LoginRequired("no")
    tokens = Tokens(DirectClient(server), somebody, cache_size=5)
    for number in range(100):
        with pytest.raises(LoginRequired):
            await tokens.for_key(f"user-{number}").token()
    assert len(tokens._common.asking._refusals) == 10
    asked = len(somebody.wanted)
    with pytest.raises(LoginRequired):
        await tokens.for_key("user-99").token()
    assert len(somebody.wanted) == asked


# The rest.


async def test_on_token_hears_of_it_after_it_was_stored(clock: VirtualClock, server: StrictServer) -> None:
    store = MemoryStore()
    heard: list[tuple[Token, str, int]] = []

    def on_token(token: Token, key: str) -> None:
        heard.append((token, key, len(store._records)))

    tokens = Tokens(DirectClient(server), ClientCredentials(), store=store, key="alice", on_token=on_token)
    first = await tokens.token()
    await tokens.save(Token("b"))
    assert heard == [(first, "alice", 1), (Token("b"), "alice", 1)]


async def test_on_token_may_be_a_coroutine_function_and_its_failure_is_logged(
    server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_token(token: Token, key: str) -> None:
        raise ZeroDivisionError(token.access_token)

    tokens = Tokens(DirectClient(server), ClientCredentials(), on_token=on_token)
    token = await tokens.token()
    assert "on_token raised ZeroDivisionError" in caplog.text
    assert token.access_token not in caplog.text


async def test_a_code_is_the_first_token_and_its_refresh_token_the_next(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server), AuthorizationCode("the-code"))
    first = await tokens.token()
    clock.advance(3600.0)
    assert await tokens.token() != first
    assert [request["grant_type"] for request in server.requests] == ["authorization_code", "refresh_token"]
    assert tokens.counts["refresh_started"] == server.token_requests


async def test_refusals_before_latch_reaches_the_state_machine(clock: VirtualClock, server: StrictServer) -> None:
    tokens = Tokens(DirectClient(server, quirks=Quirks(refusals_before_latch=2)))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.next.append(oauth_error("invalid_grant"))
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    clock.advance(60.0)
    await tokens.token()


async def test_F_26_a_lost_answer_on_a_server_that_did_rotate_is_told_truthfully(
    clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(DirectClient(server))
    await tokens.save(server.sign_in())
    clock.advance(3600.0)
    server.next.append(LOST)
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    clock.advance(61.0)
    with pytest.raises(LoginRequired, match="an earlier answer to it had been lost"):
        await tokens.token()
    with pytest.raises(LoginRequired):
        await tokens.token()
    assert server.token_requests == 2


async def test_on_token_that_hangs_delays_nobody_for_ever(
    server: StrictServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keyed, "NOTIFY_TIMEOUT", 0.01)
    called: list[str] = []

    async def on_token(token: Token, key: str) -> None:
        called.append(key)
        await asyncio.Event().wait()

    tokens = Tokens(DirectClient(server), ClientCredentials(), on_token=on_token)
    async with asyncio.timeout(20.0):
        token = await tokens.token()
        assert await tokens.login() != token
        await tokens.save(Token("b"))
    assert called == ["default"] * 3
    assert "on_token raised TimeoutError" in caplog.text


class SlowToDelete(SlowStore):
    """A store that takes its time to delete."""

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        await turns(5)
        deleted = await super().delete(key, expected=expected)
        await turns(5)
        return deleted


@pytest.mark.parametrize("moment", range(1, 40))
async def test_forget_at_any_moment_of_a_flight_is_no_sign_out_for_client_credentials(
    clock: VirtualClock, server: StrictServer, moment: int
) -> None:
    store = SlowToDelete()
    tokens = Tokens(DirectClient(server), ClientCredentials(), store=store)
    await tokens.token()
    clock.advance(3600.0)
    forgetting = asyncio.create_task(tokens.forget())
    await turns(moment)
    meanwhile = [asyncio.create_task(tokens.token()) for _ in range(3)]
    await forgetting
    for token in (*await asyncio.gather(*meanwhile), await tokens.token()):
        assert server.accepts(token.access_token)
    assert tokens.counts["signed_out"] == 0


# A lease, which can't tell whether who held it before is dead.


class LeaseStore(MemoryStore):
    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        async with super().lock(key, wait=wait):
            yield Lease()


class Lease:
    predecessor_is_dead = False


async def of_one_who_was_stopped(server: StrictServer) -> tuple[Tokens, Token, LeaseStore]:
    """Tokens whose store says that another process has begun to renew them; they are due, and valid for 30 seconds."""
    store = LeaseStore()
    tokens = Tokens(DirectClient(server), store=store)
    token = server.sign_in()
    await tokens.save(token)
    write(store, State.from_body(only(store).body).replace(pending=Pending(server.clock.time(), "elsewhere:1")))
    server.clock.advance(server.lifetime - 30.0)
    return tokens, token, store


def only(store: MemoryStore) -> Record:
    [record] = store._records.values()
    return record


def write(store: MemoryStore, state: State) -> None:
    [key] = store._records
    store._records[key] = Record(only(store).version + 1, "default", state.to_body())


async def test_P3_F_48_while_the_token_is_valid_another_s_result_is_waited_for_and_adopted(server: StrictServer) -> None:
    tokens, token, store = await of_one_who_was_stopped(server)
    for _ in range(4):
        assert await tokens.token() == token
        server.clock.advance(5.0)
    newer = token.replace(access_token="newer", expires_at=server.clock.time() + 3600.0)
    write(store, State.from_body(only(store).body).replace(token=newer, pending=None))
    assert await tokens.token() == newer
    assert server.token_requests == 0


@pytest.mark.parametrize("how", ["expired", "refused"])
async def test_P3_F_48_when_it_is_expired_or_refused_its_refresh_token_is_sent(server: StrictServer, how: str) -> None:
    tokens, token, _ = await of_one_who_was_stopped(server)
    assert await tokens.token() == token
    server.clock.advance(31.0 if how == "expired" else 5.0)
    renewed = await tokens.token(expired(token) if how == "refused" else None)
    assert renewed != token
    assert server.accepts(renewed.access_token)
    assert server.token_requests == 1


async def test_P3_F_48_a_process_that_starts_anew_serves_the_stored_token_meanwhile(server: StrictServer) -> None:
    _, token, store = await of_one_who_was_stopped(server)
    assert await Tokens(DirectClient(server), store=store).token() == token
    assert server.token_requests == 0


async def test_P3_F_48_a_newer_stored_token_that_is_valid_is_adopted_meanwhile(server: StrictServer) -> None:
    tokens, token, store = await of_one_who_was_stopped(server)
    server.clock.advance(31.0)
    newer = token.replace(access_token="newer", expires_at=server.clock.time() + 5.0)
    write(store, State.from_body(only(store).body).replace(token=newer))
    assert await tokens.token() == newer
    assert await tokens.token() == newer
    assert server.token_requests == 0
