"""The tokens of many users: whose they are, where they are kept, and how they are renewed."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from aiohttp_oauth_middleware import (
    ConfigurationError,
    ErrorResponse,
    InsecureTransport,
    InvalidClient,
    InvalidGrant,
    LoginRequired,
    MemoryStore,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    OAuthError,
    Record,
    StoreCorrupted,
    StoreError,
    StoreLockTimeout,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.errors import key_id
from aiohttp_oauth_middleware.oauth1.tokens import COOLDOWN, LEEWAY
from aiohttp_oauth_middleware.stores.store import Lock
from tests.clock import VirtualClock
from tests.raw_server import RawServer, Request, answer, serve
from tests.unit.test_client import told
from tests.unit.test_token import own_locals

NOW = 1_700_000_000.0


def token_of(name: str, **more: Any) -> OAuth1Token:
    return OAuth1Token(name, f"CANARY-secret-of-{name}", **more)


def renewable(name: str = "old", expires_in: float | None = 3600.0, **more: Any) -> OAuth1Token:
    return token_of(
        name, oauth_session_handle="CANARY-handle", expires_at=None if expires_in is None else NOW + expires_in, **more
    )


class FailingStore(MemoryStore):
    """A store that does what a test says before it does its work.

    :ivar before: by the name of a method, what is called (and awaited) first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Callable[[], Any]] = {}
        self.calls: list[str] = []

    async def _before(self, name: str) -> None:
        self.calls.append(name)
        if name in self.before and (result := self.before[name]()) is not None:
            await result

    async def load(self, key: str) -> Record | None:
        await self._before("load")
        return await super().load(key)

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        await self._before("save")
        return await super().save(key, record, expected=expected, lock=lock)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        await self._before("delete")
        return await super().delete(key, expected=expected)

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        await self._before("lock")
        async with super().lock(key, wait=wait) as lock:
            yield lock

    async def keys(self) -> AsyncIterator[str]:
        await self._before("keys")
        async for key in super().keys():
            yield key


def fail(error: Exception | None = None) -> Callable[[], None]:
    def raise_it() -> None:
        raise error or OSError(28, "no space left")

    return raise_it


class Renewing:
    """A client of a server that renews, and the tokens that it does so for."""

    def __init__(self, server: RawServer, clock: VirtualClock) -> None:
        self.server, self.clock = server, clock
        self.client = OAuth1Client("id", "CANARY-client-secret", clock=clock)

    def tokens(self, **more: Any) -> OAuth1Tokens:
        return OAuth1Tokens(client=self.client, renewal_url=self.server.url + "/renew", **more)

    @property
    def renewals(self) -> int:
        return len(self.server.requests)


class Script:
    """What the server does: it gives out ``new-1``, ``new-2``, …

    :ivar reply: what it answers instead, if anything.
    :ivar lifetime: in seconds, of what it gives out.
    :ivar go: cleared while it has to wait.
    """

    def __init__(self) -> None:
        self.reply: bytes | None = None
        self.lifetime = "3600"
        self.go = asyncio.Event()
        self.go.set()
        self.number = 0

    async def answered(self, request: Request, writer: asyncio.StreamWriter) -> bytes:
        await self.go.wait()
        if self.reply is not None:
            return self.reply
        self.number += 1
        new = f"new-{self.number}"
        return answer(200, f"oauth_token={new}&oauth_token_secret=CANARY-{new}&oauth_expires_in={self.lifetime}".encode())


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def renewing(clock: VirtualClock, script: Script) -> AsyncIterator[Renewing]:
    async with serve(script.answered) as server:
        yield Renewing(server, clock)
        script.go.set()


# Whose it is


current: ContextVar[str] = ContextVar("current")


async def test_many_users_have_a_token_each() -> None:
    tokens = OAuth1Tokens(key=current.get)
    for name in ("alice", "bob"):
        await tokens.save(token_of(name), key=name)

    async def as_user(name: str) -> str:
        current.set(name)
        return (await tokens.token()).oauth_token

    names = ["alice", "bob"] * 20
    assert await asyncio.gather(*(asyncio.create_task(as_user(name)) for name in names)) == names
    current.set("carol")
    with pytest.raises(LoginRequired, match="sign in") as caught:
        await tokens.token()
    assert caught.value.key_id == key_id("carol")
    assert not caught.value.retryable
    await tokens.save(token_of("carol"))
    assert (await tokens.token()).oauth_token == "carol"


async def test_without_a_key_there_is_one_user() -> None:
    tokens = OAuth1Tokens()
    with pytest.raises(LoginRequired):
        await tokens.token()
    await tokens.save(token_of("a"))
    assert await tokens.token() == token_of("a")
    assert await tokens.for_key("default").token() == token_of("a")


async def test_one_user_may_be_named() -> None:
    tokens = OAuth1Tokens(key="alice")
    await tokens.save(token_of("a"))
    assert [key async for key in tokens.keys()] == ["alice"]  # noqa: SIM118


def no_user() -> str:
    raise LookupError("nobody")


@pytest.mark.parametrize("key", [no_user, lambda: None, lambda: "", lambda: 7, lambda: b"alice", ContextVar[str]("nobody").get])
async def test_F_55_a_key_that_is_none_is_never_somebody_else(key: Any) -> None:
    tokens = OAuth1Tokens(key=key)
    await tokens.save(token_of("a"), key="default")
    calls: list[Callable[[], Awaitable[object]]] = [tokens.token, tokens.forget, lambda: tokens.save(token_of("b"))]
    for work in calls:
        with pytest.raises(ConfigurationError, match="key"):
            await work()
    assert await tokens.for_key("default").token() == token_of("a")


@pytest.mark.parametrize("key", ["", 7, b"alice", ["x"]])
async def test_F_55_a_key_is_a_string_that_is_not_empty(key: Any) -> None:
    tokens = OAuth1Tokens()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: tokens.forget(key=key),
        lambda: tokens.save(token_of("b"), key=key),
    ]
    for work in calls:
        with pytest.raises(ConfigurationError, match="key must be a non-empty string"):
            await work()
    with pytest.raises(ConfigurationError, match="key must be a non-empty string"):
        tokens.for_key(key)


@pytest.mark.parametrize("token", [None, 7, "CANARY", {"oauth_token": "CANARY"}, OAuth1Token])
async def test_F_55_what_is_saved_has_to_be_a_token(token: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"save: token must be an OAuth1Token") as caught:
        await OAuth1Tokens().save(token)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float])
async def test_F_55_what_json_cannot_say_is_not_saved(value: object) -> None:
    store = MemoryStore()
    token = OAuth1Token("CANARY-a", "CANARY-b", extra={"x": value, "y": "CANARY-c"})
    with pytest.raises(ConfigurationError, match="extra that JSON can't say") as caught:
        await OAuth1Tokens(store).save(token)
    assert repr(store) == "<MemoryStore of 0 records>"
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)


def test_neither_shows_a_token() -> None:
    assert repr(OAuth1Tokens()) == "<OAuth1Tokens>"
    tokens = OAuth1Tokens(client=OAuth1Client("id", "CANARY"))
    assert repr(tokens) == "<OAuth1Tokens of <OAuth1Client 'id'>>"
    assert repr(tokens.for_key("CANARY")) == "<OAuth1Tokens of <OAuth1Client 'id'>>.for_key(…)"


# Where they are kept


async def test_a_token_outlives_the_object_in_its_store() -> None:
    store = MemoryStore()
    token = token_of("ä", oauth_session_handle="h", expires_at=5, session_expires_at=7.5, extra={"user_id": "7", "n": [1]})
    await OAuth1Tokens(store).save(token)
    tokens = OAuth1Tokens(store)
    assert await tokens.token() == token
    await tokens.forget()
    for one in (tokens, OAuth1Tokens(store)):
        with pytest.raises(LoginRequired):
            await one.token()
    await tokens.forget()


async def test_clients_that_share_a_store_do_not_share_tokens() -> None:
    store = MemoryStore()
    first, second = OAuth1Client("first", "s"), OAuth1Client("second", "s")
    one, other, neither = OAuth1Tokens(store, client=first), OAuth1Tokens(store, client=second), OAuth1Tokens(store)
    for number, tokens in enumerate((one, other, neither)):
        for user in ("alice", "bob")[: number + 1]:
            await tokens.save(token_of(f"{number}{user}"), key=user)
    assert [key async for key in one.keys()] == ["alice"]  # noqa: SIM118
    assert [key async for key in other.keys()] == ["alice", "bob"]  # noqa: SIM118
    assert (await one.for_key("alice").token()).oauth_token == "0alice"
    assert (await other.for_key("alice").token()).oauth_token == "1alice"
    with pytest.raises(LoginRequired):
        await one.for_key("bob").token()
    await other.forget(key="alice")
    assert (await one.for_key("alice").token()).oauth_token == "0alice"
    assert (await neither.for_key("alice").token()).oauth_token == "2alice"


async def test_F_51_tokens_of_oauth_2_in_the_same_store_are_none_of_ours() -> None:
    from aiohttp_oauth_middleware import Client, ServerMetadata, Token, Tokens

    store = MemoryStore()
    theirs = Tokens(Client(ServerMetadata("https://as.example", token_endpoint="https://as.example/t"), "id"), store=store)
    ours = OAuth1Tokens(store, client=OAuth1Client("id"))
    await theirs.save(Token("a"), key="alice")
    await ours.save(token_of("b"), key="bob")
    assert [key async for key in ours.keys()] == ["bob"]  # noqa: SIM118
    assert [key async for key in theirs.keys()] == ["alice"]  # noqa: SIM118


async def test_F_19_the_cache_is_bounded_and_nothing_is_lost() -> None:
    store = FailingStore()
    tokens = OAuth1Tokens(store, cache_size=2)
    for name in "abcd":
        await tokens.save(token_of(name), key=name)
    assert list(tokens._cache) == ["c", "d"]
    store.calls.clear()
    await tokens.for_key("c").token()
    assert store.calls == []
    assert (await tokens.for_key("a").token()).oauth_token == "a"
    assert store.calls == ["load"]
    assert list(tokens._cache) == ["c", "a"], "the one used last is dropped last"


async def test_a_thousand_who_come_at_once_read_the_store_once() -> None:
    store = FailingStore()
    await OAuth1Tokens(store).save(token_of("a"))
    store.calls.clear()
    tokens = OAuth1Tokens(store)
    await asyncio.gather(*(tokens.token() for _ in range(1000)))
    assert store.calls == ["load"]


async def test_F_46_memory_holds_what_the_store_was_told_last() -> None:
    store = FailingStore()
    tokens = OAuth1Tokens(store)
    await OAuth1Tokens(store).save(token_of("old"))
    slow = asyncio.Event()

    async def hang() -> None:
        store.before.clear()
        await slow.wait()

    store.before["load"] = hang
    reading = asyncio.ensure_future(tokens.token())
    saving = asyncio.ensure_future(tokens.save(token_of("new")))
    for _ in range(5):
        await asyncio.sleep(0)
    slow.set()
    assert (await reading).oauth_token == "old"
    await saving
    assert await tokens.token() == await OAuth1Tokens(store).token() == token_of("new")


BODIES: dict[str, bytes] = {
    "cut short": b'{"schema":1,"owner":"x","oauth1":{"oauth_token":"CANARY"',
    "nothing": b"",
    "null": b"null",
    "a list": b"[1]",
    "a number": b"7",
    "another schema": b'{"schema":2,"oauth1":{"oauth_token":"CANARY"}}',
    "no schema": b'{"oauth1":{"oauth_token":"CANARY"}}',
    "no token": b'{"schema":1}',
    "a token that is none": b'{"schema":1,"oauth1":{"oauth_token":"CANARY\\n"}}',
    "a token that is a list": b'{"schema":1,"oauth1":["CANARY"]}',
    "an OAuth 2 record": b'{"schema":1,"state":"ok","owner":"x","token":{"access_token":"CANARY"}}',
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BODIES)
async def test_F_51_a_record_that_cannot_be_read_is_never_taken_for_no_token(name: str) -> None:
    store = MemoryStore()
    tokens = OAuth1Tokens(store)
    await tokens.save(token_of("a"), key="alice")
    ((key, record),) = store._records.items()
    store._records[key] = record.replace(body=BODIES[name])
    for _ in range(2):
        with pytest.raises(StoreCorrupted) as caught:
            await OAuth1Tokens(store).for_key("alice").token()
        assert caught.value.key_id == key_id("alice")
        assert not caught.value.retryable
        assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)
    assert store._records[key].body == BODIES[name], "it stays where it is"
    await OAuth1Tokens(store).save(token_of("b"), key="alice")
    assert (await OAuth1Tokens(store).for_key("alice").token()).oauth_token == "b"


@pytest.mark.parametrize("method", ["load", "save", "delete", "keys"])
@pytest.mark.parametrize("error", [OSError(5, "the disk is on fire"), KeyError("x"), StoreLockTimeout("mine")])
async def test_F_55_what_a_store_raises_is_a_store_error(method: str, error: Exception) -> None:
    store = FailingStore()
    tokens = OAuth1Tokens(store)
    await tokens.save(token_of("a"))
    store.before[method] = fail(error)

    async def listed() -> list[str]:
        return [key async for key in tokens.keys()]  # noqa: SIM118

    work: Any = {
        "load": OAuth1Tokens(store).token,
        "save": lambda: tokens.save(token_of("b")),
        "delete": tokens.forget,
        "keys": listed,
    }
    with pytest.raises(StoreError) as caught:
        await work[method]()
    assert caught.value is error if isinstance(error, OAuthError) else caught.value.__cause__ is error
    store.before.clear()
    assert await tokens.token() == token_of("a"), "what could not be done was not done in memory either"


# Renewals


async def test_a_token_that_lasts_is_not_renewed(renewing: Renewing) -> None:
    tokens = renewing.tokens()
    for token in (token_of("a"), renewable("b", None), renewable("c", LEEWAY + 1), token_of("d", expires_at=1)):
        await tokens.save(token)
        assert await tokens.token() == token
    assert renewing.renewals == 0


@pytest.mark.parametrize("expires_in", [LEEWAY, 1, 0, -1e6])
async def test_P0_a_token_is_renewed_before_it_expires_and_stored_before_anybody_gets_it(
    expires_in: float, renewing: Renewing
) -> None:
    store = FailingStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=expires_in))
    expected = renewable("new-1").replace(oauth_token_secret="CANARY-new-1")
    assert await tokens.token() == expected
    assert await OAuth1Tokens(store, client=renewing.client).token() == expected
    assert await tokens.token() == expected
    assert renewing.renewals == 1


async def test_F_01_a_thousand_who_come_at_once_cause_one_renewal(renewing: Renewing) -> None:
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    found = await asyncio.gather(*(tokens.token() for _ in range(1000)))
    assert {token.oauth_token for token in found} == {"new-1"}
    assert renewing.renewals == 1


async def test_F_19_the_renewal_of_one_user_does_not_delay_another(renewing: Renewing, script: Script) -> None:
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0), key="alice")
    await tokens.save(renewable("fine"), key="bob")
    script.go.clear()
    waiting = asyncio.ensure_future(tokens.for_key("alice").token())
    await renewing.server.until(lambda: renewing.renewals == 1)
    assert (await tokens.for_key("bob").token()).oauth_token == "fine"
    script.go.set()
    assert (await waiting).oauth_token == "new-1"


async def test_P0_two_on_one_store_renew_once(renewing: Renewing) -> None:
    store = MemoryStore()
    first, second = renewing.tokens(store=store), renewing.tokens(store=store)
    await first.save(renewable(expires_in=0))
    found = await asyncio.gather(*(tokens.token() for tokens in (first, second) for _ in range(10)))
    assert {token.oauth_token for token in found} == {"new-1"}
    assert renewing.renewals == 1


async def test_a_token_that_the_server_calls_expired_is_renewed_whatever_the_clock_says(renewing: Renewing) -> None:
    tokens = renewing.tokens()
    old = renewable(expires_in=None)
    await tokens.save(old)
    assert (await tokens.token(old)).oauth_token == "new-1"
    assert (await tokens.token(old)).oauth_token == "new-1", "a late refusal of the old one changes nothing"
    assert (await tokens.for_key("default").token(old)).oauth_token == "new-1"
    assert renewing.renewals == 1


async def test_F_13_a_token_refused_at_its_birth_is_not_renewed_again_and_again(
    renewing: Renewing, clock: VirtualClock
) -> None:
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    new = await tokens.token()
    for _ in range(5):
        assert await tokens.token(new) == new, "there is nothing better"
    assert renewing.renewals == 1
    clock.advance(COOLDOWN)
    assert (await tokens.token(new)).oauth_token == "new-2"


async def test_a_token_that_lives_for_less_than_the_leeway_is_not_renewed_each_time(
    renewing: Renewing, script: Script, clock: VirtualClock
) -> None:
    script.lifetime = "30"
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    for _ in range(5):
        assert (await tokens.token()).oauth_token == "new-1"
    clock.advance(COOLDOWN)
    assert (await tokens.token()).oauth_token == "new-2"
    assert renewing.renewals == 2


async def test_a_token_that_lives_for_less_than_the_rest_is_renewed_when_it_has_expired(
    renewing: Renewing, script: Script, clock: VirtualClock
) -> None:
    script.lifetime = "5"
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    await tokens.token()
    clock.advance(5)
    assert (await tokens.token()).oauth_token == "new-2"


async def test_without_a_way_to_renew_a_refused_token_is_looked_up_once_more() -> None:
    store = MemoryStore()
    here, elsewhere = OAuth1Tokens(store), OAuth1Tokens(store)
    await here.save(token_of("old"))
    assert await here.token(token_of("old")) == token_of("old"), "there is nothing better"
    await elsewhere.save(token_of("new"))
    assert await here.token() == token_of("old")
    assert await here.token(token_of("old")) == await here.token() == token_of("new")
    await elsewhere.forget()
    with pytest.raises(LoginRequired):
        await here.token(token_of("new"))


REFUSALS: list[tuple[bytes, type[OAuthError], bool]] = [
    (answer(401, b"oauth_problem=token_rejected"), LoginRequired, False),
    (answer(401, b"oauth_problem=token_expired"), LoginRequired, False),
    (answer(403, b"oauth_problem=permission_denied"), LoginRequired, False),
    (answer(401, b"no"), LoginRequired, False),
    (answer(400, b"oauth_problem=something_else"), LoginRequired, False),
    (answer(401, b"oauth_problem=consumer_key_refused"), InvalidClient, True),
    (answer(401, b"oauth_problem=signature_invalid"), InvalidClient, True),
    (answer(400, b"oauth_problem=nonce_used"), ErrorResponse, True),
    (answer(400, b"oauth_problem=parameter_absent"), ErrorResponse, True),
    (answer(404, b"<html>"), ErrorResponse, True),
    (answer(503, b""), TokenUnavailable, True),
    (answer(200, b"<html>"), OAuthError, True),
]


@pytest.mark.parametrize(("reply", "kind", "again"), REFUSALS, ids=range(len(REFUSALS)))
async def test_F_13_F_55_a_renewal_that_fails_is_left_alone_for_a_while(
    reply: bytes, kind: type[OAuthError], again: bool, renewing: Renewing, script: Script, clock: VirtualClock
) -> None:
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    script.reply = reply
    for _ in range(3):
        with pytest.raises(kind) as caught:
            await tokens.token()
        assert type(caught.value) is kind or kind is OAuthError
        assert caught.value.key_id == key_id("default")
        assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)
        if kind is LoginRequired:
            assert isinstance(caught.value.__cause__, ErrorResponse)
    assert renewing.renewals == 1, "the cool-down"
    clock.advance(COOLDOWN)
    script.reply = None
    if again:
        assert (await tokens.token()).oauth_token == "new-1"
    else:
        with pytest.raises(LoginRequired):
            await tokens.token()
        assert renewing.renewals == 1, "what was refused for good is not sent again"
        await tokens.save(renewable("fresh"))
        assert (await tokens.token()).oauth_token == "fresh"


async def test_F_13_a_cool_down_is_as_long_as_the_server_asks(renewing: Renewing, script: Script, clock: VirtualClock) -> None:
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    script.reply = answer(503, b"", {"Retry-After": "120"})
    for waited, left in ((0, 120.0), (20, 100.0), (99, 1.0)):
        clock.advance(waited)
        with pytest.raises(TokenUnavailable) as caught:
            await tokens.token()
        assert caught.value.retry_after == left
    assert renewing.renewals == 1
    clock.advance(1)
    script.reply = None
    assert (await tokens.token()).oauth_token == "new-1"


@pytest.mark.parametrize("reply", [one[0] for one in REFUSALS], ids=range(len(REFUSALS)))
async def test_F_31_a_token_serves_on_while_a_renewal_fails(
    reply: bytes, renewing: Renewing, script: Script, clock: VirtualClock
) -> None:
    tokens = renewing.tokens()
    old = renewable(expires_in=LEEWAY)
    await tokens.save(old)
    script.reply = reply
    for _ in range(3):
        assert await tokens.token() == old
    assert renewing.renewals == 1
    clock.advance(LEEWAY)
    with pytest.raises(OAuthError):
        await tokens.token()


@pytest.mark.parametrize(
    ("reply", "kind"), [(answer(503), TokenUnavailable), (answer(401, b"oauth_problem=token_rejected"), LoginRequired)]
)
async def test_F_31_of_one_that_was_refused_it_is_said_why_there_is_no_better(
    reply: bytes, kind: type[OAuthError], renewing: Renewing, script: Script
) -> None:
    tokens = renewing.tokens()
    old = renewable(expires_in=None)
    await tokens.save(old)
    script.reply = reply
    with pytest.raises(kind):
        await tokens.token(old)
    assert await tokens.token() == old


async def test_each_of_many_waiters_gets_an_error_of_its_own(renewing: Renewing, script: Script) -> None:
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    script.reply = answer(401, b"oauth_problem=token_rejected")
    found = await asyncio.gather(*(tokens.token() for _ in range(10)), return_exceptions=True)
    assert len({id(error) for error in found}) == 10
    assert {type(error) for error in found} == {LoginRequired}
    assert all(isinstance(error, OAuthError) and isinstance(error.__cause__, InvalidGrant) for error in found)


@pytest.mark.parametrize("method", ["load", "lock"])
@pytest.mark.parametrize("error", [OSError(5, "x"), StoreLockTimeout("held")])
async def test_F_55_a_store_that_fails_before_a_renewal_lets_nothing_be_sent(
    method: str, error: Exception, renewing: Renewing, clock: VirtualClock
) -> None:
    store = FailingStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))
    store.before[method] = fail(error)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            await tokens.token()
        assert caught.value.key_id == key_id("default")
        assert caught.value.retry_after == COOLDOWN
    assert renewing.renewals == 0
    store.before.clear()
    clock.advance(COOLDOWN)
    assert (await tokens.token()).oauth_token == "new-1"


async def test_P0_a_write_that_fails_once_is_done_again(renewing: Renewing) -> None:
    store = FailingStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))

    def once() -> None:
        store.before.clear()
        raise OSError(28, "no space left")

    store.before["save"] = once
    new = await tokens.token()
    assert await OAuth1Tokens(store, client=renewing.client).token() == new


async def test_P0_a_renewed_token_that_cannot_be_stored_is_used_and_stored_later(
    renewing: Renewing, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = FailingStore()
    tokens = renewing.tokens(store=store, cache_size=1)
    await tokens.save(renewable(expires_in=0))
    await tokens.save(renewable("other"), key="other")  # and the first is dropped from the cache
    store.before["save"] = fail()
    with caplog.at_level(logging.WARNING, "aiohttp_oauth_middleware"):
        new = await tokens.token()
    assert new.oauth_token == "new-1"
    (said,) = [record.getMessage() for record in caplog.records]
    assert "kept in memory, for the store failed (OSError)" in said
    assert "CANARY" not in caplog.text
    assert (await tokens.for_key("other").token()).oauth_token == "other"
    assert await tokens.token() == new, "nothing that is not stored is dropped"
    writes = store.calls.count("save")
    for _ in range(3):
        assert await tokens.token() == new
    assert store.calls.count("save") == writes, "it is not tried each time"
    clock.advance(COOLDOWN)
    with caplog.at_level(logging.WARNING, "aiohttp_oauth_middleware"):
        assert await tokens.token() == new
    assert "fails still (OSError)" in caplog.text
    clock.advance(COOLDOWN)
    store.before.clear()
    assert await tokens.token() == new
    assert await OAuth1Tokens(store, client=renewing.client).token() == new
    assert renewing.renewals == 1


async def test_P0_what_could_not_be_stored_is_stored_at_the_end(renewing: Renewing) -> None:
    store = FailingStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable("fine"), key="fine")
    await tokens.save(renewable(expires_in=0))
    store.before["save"] = fail()
    new = await tokens.token()
    store.before.clear()
    await tokens.aclose()
    assert await OAuth1Tokens(store, client=renewing.client).token() == new


async def test_P0_what_could_not_be_stored_is_renewed_from_memory(renewing: Renewing, clock: VirtualClock) -> None:
    store = FailingStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))
    store.before["save"] = fail()
    await tokens.token()
    clock.advance(3600)
    assert (await tokens.token()).oauth_token == "new-2"
    store.before.clear()
    clock.advance(COOLDOWN)
    assert (await tokens.token()).oauth_token == "new-2"
    assert (await OAuth1Tokens(store, client=renewing.client).token()).oauth_token == "new-2"


@pytest.mark.parametrize("how", ["save", "forget"])
async def test_F_46_what_somebody_does_meanwhile_counts_more_than_what_could_not_be_stored(
    how: str, renewing: Renewing, clock: VirtualClock
) -> None:
    store = FailingStore()
    tokens, elsewhere = renewing.tokens(store=store), renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))
    store.before["save"] = fail()
    await tokens.token()
    store.before.clear()
    await (elsewhere.save(renewable("fresh")) if how == "save" else elsewhere.forget())
    clock.advance(COOLDOWN)
    if how == "save":
        assert (await tokens.token()).oauth_token == "fresh"
    else:
        with pytest.raises(LoginRequired):
            await tokens.token()


async def test_F_46_what_could_not_be_stored_is_forgotten_by_a_save(renewing: Renewing) -> None:
    store = FailingStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))
    store.before["save"] = fail()
    await tokens.token()
    store.before.clear()
    await tokens.save(renewable("fresh"))
    await tokens.aclose()
    assert (await OAuth1Tokens(store, client=renewing.client).token()).oauth_token == "fresh"


async def test_F_46_a_token_saved_during_a_renewal_is_not_overwritten(renewing: Renewing, script: Script) -> None:
    store = MemoryStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))
    script.go.clear()
    waiting = asyncio.ensure_future(tokens.token())
    await renewing.server.until(lambda: renewing.renewals == 1)
    await tokens.save(renewable("fresh"))
    assert (await tokens.token()).oauth_token == "fresh"
    script.go.set()
    assert (await waiting).oauth_token == "fresh"
    assert (await tokens.token()).oauth_token == "fresh"
    assert (await OAuth1Tokens(store, client=renewing.client).token()).oauth_token == "fresh"


async def test_a_user_who_is_forgotten_during_a_renewal_stays_forgotten(renewing: Renewing, script: Script) -> None:
    store = MemoryStore()
    tokens, elsewhere = renewing.tokens(store=store), OAuth1Tokens(store, client=renewing.client)
    await tokens.save(renewable(expires_in=0))
    script.go.clear()
    waiting = asyncio.ensure_future(tokens.token())
    await renewing.server.until(lambda: renewing.renewals == 1)
    await elsewhere.forget()  # it has no renewals, and does not wait for them
    forgetting = asyncio.ensure_future(tokens.forget())
    script.go.set()
    with pytest.raises(LoginRequired):
        await waiting
    await forgetting
    assert repr(store) == "<MemoryStore of 0 records>"
    with pytest.raises(LoginRequired):
        await tokens.token()


async def test_forget_waits_for_a_renewal(renewing: Renewing, script: Script) -> None:
    store = MemoryStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))
    script.go.clear()
    waiting = asyncio.ensure_future(tokens.token())
    await renewing.server.until(lambda: renewing.renewals == 1)
    forgetting = asyncio.ensure_future(tokens.forget())
    await asyncio.sleep(0)
    assert not forgetting.done()
    script.go.set()
    assert (await waiting).oauth_token == "new-1"
    await forgetting
    assert repr(store) == "<MemoryStore of 0 records>"


async def test_P0_a_waiter_that_is_cancelled_leaves_the_renewal_to_the_others(renewing: Renewing, script: Script) -> None:
    tokens = renewing.tokens()
    await tokens.save(renewable(expires_in=0))
    script.go.clear()
    waiters = [asyncio.ensure_future(tokens.token()) for _ in range(3)]
    await renewing.server.until(lambda: renewing.renewals == 1)
    waiters[0].cancel()
    script.go.set()
    assert {(await waiter).oauth_token for waiter in waiters[1:]} == {"new-1"}
    assert renewing.renewals == 1


async def test_P0_a_renewal_that_nobody_waits_for_is_stored_all_the_same(renewing: Renewing, script: Script) -> None:
    store = MemoryStore()
    tokens = renewing.tokens(store=store)
    await tokens.save(renewable(expires_in=0))
    script.go.clear()
    waiter = asyncio.ensure_future(tokens.token())
    await renewing.server.until(lambda: renewing.renewals == 1)
    waiter.cancel()
    script.go.set()
    await tokens.aclose()
    assert (await OAuth1Tokens(store, client=renewing.client).token()).oauth_token == "new-1"


def test_P0_the_end_of_a_loop_does_not_cut_off_a_renewal(
    script: Script, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiohttp_oauth_middleware.oauth1.tokens.SHUTDOWN_GRACE", 60.0)  # however busy the machine is
    store = MemoryStore()

    async def serving() -> None:
        async with serve(script.answered) as server:
            renewing = Renewing(server, clock)
            tokens = renewing.tokens(store=store)
            await tokens.save(renewable(expires_in=0))
            script.go.clear()
            sent, ending = threading.Event(), threading.Event()

            async def a_program() -> None:
                renewal = asyncio.ensure_future(tokens.token())
                await asyncio.to_thread(sent.wait, 20)
                assert not renewal.done()
                ending.set()

            running = asyncio.ensure_future(asyncio.to_thread(asyncio.run, a_program()))
            await server.until(lambda: len(server.requests) == 1)
            sent.set()
            await asyncio.to_thread(ending.wait, 20)
            script.go.set()
            await running
            assert (await OAuth1Tokens(store, client=renewing.client).token()).oauth_token == "new-1"
            assert len(server.requests) == 1

    asyncio.run(serving())
    gc.collect()


# Arguments


def test_F_55_a_renewal_needs_a_client_and_https() -> None:
    with pytest.raises(ConfigurationError, match="renewal_url needs client"):
        OAuth1Tokens(renewal_url="https://h/renew")
    with pytest.raises(InsecureTransport, match="renewal_url"):
        OAuth1Tokens(client=OAuth1Client("id"), renewal_url="http://h/renew")
    client = OAuth1Client("id", signature_method="PLAINTEXT", insecure_http=True)
    with pytest.raises(InsecureTransport, match="PLAINTEXT"):
        OAuth1Tokens(client=client, renewal_url="http://h/renew")


async def test_what_is_written_can_be_read_as_authlib_keeps_it() -> None:
    store = MemoryStore()
    await OAuth1Tokens(store).save(OAuth1Token("a", "s", extra={"user_id": "7"}), key="alice")
    (record,) = store._records.values()
    assert (record.version > 0, record.key_label) == (True, "alice")
    assert json.loads(record.body)["oauth1"] == {"oauth_token": "a", "oauth_token_secret": "s", "user_id": "7"}
