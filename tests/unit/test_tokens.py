"""The everyday source: its arguments, its keys, its cache, and what it does about grants that depend on the key."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest
from yarl import URL

from aiohttp_oauth_middleware import (
    AuthorizationCode,
    Client,
    ClientCredentials,
    ClientSecret,
    ConfigurationError,
    ExtensionGrant,
    Grant,
    LoginRequired,
    MemoryStore,
    Record,
    Refusal,
    Secret,
    ServerMetadata,
    StoreError,
    Token,
    Tokens,
    TokenSource,
    TokenUnavailable,
    Wanted,
)
from aiohttp_oauth_middleware.protocol.challenge import Challenge
from aiohttp_oauth_middleware.protocol.password import Password
from aiohttp_oauth_middleware.sources.source import Login
from tests.clock import VirtualClock
from tests.strict_server import DirectClient, FaultyStore, StrictServer, all_of, turns


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def server(clock: VirtualClock) -> StrictServer:
    return StrictServer(clock)


@pytest.fixture
def client(server: StrictServer) -> DirectClient:
    return DirectClient(server)


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"client": "https://as.example"}, "client must be a Client"),
        ({"grant": "client_credentials"}, "grant must be"),
        ({"grant": ClientCredentials}, "grant must be"),
        ({"grant": 7}, "grant must be"),
        ({"key": ""}, "key must be"),
        ({"key": None}, "key must be"),
        ({"key": 7}, "key must be"),
        ({"leeway": -1.0}, "leeway must be"),
        ({"leeway": float("nan")}, "leeway must be"),
        ({"cache_size": 0}, "cache_size must be"),
        ({"shutdown_grace": -1.0}, "shutdown_grace must be"),
        ({"shutdown_grace": float("nan")}, "shutdown_grace must be"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_work_is_refused_by_name_before_any_io(
    client: DirectClient, arguments: dict[str, object], name: str
) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Tokens(**({"client": client} | arguments))  # type: ignore[arg-type]


def test_client_credentials_of_a_public_client_are_refused() -> None:
    metadata = ServerMetadata(token_endpoint="https://as.example/token")
    with pytest.raises(ConfigurationError, match=r"needs a Client with authentication.*RFC 6749 section 4\.4"):
        Tokens(Client(metadata, "public"), ClientCredentials())
    Tokens(Client(metadata, "public"))
    Tokens(Client(metadata, "confidential", ClientSecret("s")), ClientCredentials())


def test_S_22_it_prints_neither_key_nor_token(client: DirectClient) -> None:
    for grant, shown in ((None, "stored tokens"), (ClientCredentials(), "client_credentials"), (_grant_of, "login")):
        tokens = Tokens(client, grant, key="alice@example.com")
        assert repr(tokens) == f"<Tokens of {client!r} by {shown}>"
        assert "alice" not in repr(tokens.for_key("alice@example.com"))


async def test_save_takes_only_a_Token(client: DirectClient) -> None:
    with pytest.raises(ConfigurationError, match="from_dict"):
        await Tokens(client).save({"access_token": "a"})  # type: ignore[arg-type]


# Keys.


def _grant_of(key: str) -> Grant:
    return ExtensionGrant("urn:example:on-behalf-of", {"user": key})


async def test_F_19_each_user_has_tokens_of_his_own(client: DirectClient, server: StrictServer) -> None:
    user: ContextVar[str] = ContextVar("user")
    tokens = Tokens(client, _grant_of, key=user.get)

    async def of(name: str) -> Token:
        user.set(name)
        assert await tokens.token() == await tokens.token()
        return await tokens.token()

    alice, bob = await asyncio.gather(asyncio.create_task(of("alice")), asyncio.create_task(of("bob")))
    assert alice != bob
    assert [request["user"] for request in server.requests] == ["alice", "bob"]
    assert await tokens.for_key("alice").token() == alice
    assert sorted(await all_of(tokens.keys())) == ["alice", "bob"]


async def test_a_key_that_cannot_be_found_is_never_the_default_user(client: DirectClient) -> None:
    user: ContextVar[str] = ContextVar("user")
    tokens = Tokens(client, ClientCredentials(), key=user.get)
    for work in (tokens.token, tokens.login, tokens.revoke, tokens.forget, lambda: tokens.save(Token("a"))):
        with pytest.raises(ConfigurationError, match=r"key\(\) found no key"):
            await work()
    for wrong in (None, "", 7):
        with pytest.raises(ConfigurationError, match="never taken for the default user"):
            await Tokens(client, ClientCredentials(), key=lambda wrong=wrong: wrong).token()  # type: ignore[misc]
        with pytest.raises(ConfigurationError, match="never taken for the default user"):
            tokens.for_key(wrong)  # type: ignore[arg-type]
        if wrong is not None:
            with pytest.raises(ConfigurationError, match="never taken for the default user"):
                await tokens.login(key=wrong)  # type: ignore[arg-type]


async def test_for_key_is_a_source_with_the_same_fast_path(
    client: DirectClient, clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(client, ClientCredentials())
    source: TokenSource = tokens.for_key("alice")
    assert isinstance(source, TokenSource)
    first = await source.token()
    assert await source.token() == first
    assert server.token_requests == 1
    clock.advance(20.0)
    refused = Refusal(URL("https://api.example"), 401, (Challenge("bearer", {"error": "invalid_token"}),), first)
    assert await source.token(refused) != first
    clock.advance(3600.0)
    await source.token()
    assert server.token_requests == 3


async def test_a_key_of_any_characters_is_one(client: DirectClient) -> None:
    tokens = Tokens(client, ClientCredentials())
    for key in ("\ud800", "a\0b", "ä" * 10_000):
        await tokens.for_key(key).token()
    assert len(client.strict_server.requests) == 3


async def test_F_19_ten_thousand_users_in_a_bounded_cache_and_none_is_lost(client: DirectClient, server: StrictServer) -> None:
    store = MemoryStore()
    tokens = Tokens(client, ClientCredentials(), store=store, cache_size=100)
    made = await asyncio.gather(*(tokens.for_key(f"user-{number}").token() for number in range(10_000)))
    assert server.token_requests == 10_000
    assert len(tokens._cache) == 100
    assert repr(store) == "<MemoryStore of 10000 records>"
    assert await tokens.for_key("user-0").token() == made[0]
    assert server.token_requests == 10_000, "out of the store again"


async def test_F_19_the_one_who_was_used_last_is_dropped_last(client: DirectClient) -> None:
    tokens = Tokens(client, ClientCredentials(), cache_size=2)
    for key in ("a", "b", "a", "c"):
        await tokens.for_key(key).token()
    assert list(tokens._cache) == ["a", "c"]


async def test_F_19_a_key_that_another_thread_has_just_dropped_is_put_back(client: DirectClient) -> None:
    tokens = Tokens(client, ClientCredentials())
    await tokens.for_key("a").token()
    await tokens.for_key("b").token()
    kept = tokens._cache["a"]

    class Dropping(type(tokens._cache)):  # type: ignore[misc]
        def move_to_end(self, key: str, last: bool = True) -> None:
            self.pop(key)
            super().move_to_end(key, last)

    tokens._cache = Dropping(tokens._cache)
    await tokens.for_key("a").token()
    assert tokens._cache["a"] is kept


async def test_F_19_the_slow_server_of_one_user_does_not_delay_another(client: DirectClient, server: StrictServer) -> None:
    tokens = Tokens(client, ClientCredentials())
    server.holding = True
    slow = asyncio.create_task(tokens.for_key("slow").token())
    while not server.held:
        await turns(1)
    server.holding = False
    await tokens.for_key("quick").token()
    assert not slow.done()
    server.release()
    await slow


async def test_S_21_what_differs_in_server_client_grant_resource_or_scope_shares_no_token(server: StrictServer) -> None:
    store = MemoryStore()
    here, there = DirectClient(server), DirectClient(server, issuer="https://other.example")
    made = [
        Tokens(here, ClientCredentials(), store=store),
        Tokens(there, ClientCredentials(), store=store),
        Tokens(here, ClientCredentials("a"), store=store),
        Tokens(here, ClientCredentials(resource="https://api.example"), store=store),
        Tokens(here, ClientCredentials(audience="https://api.example"), store=store),
        Tokens(here, ExtensionGrant("urn:x"), store=store),
        Tokens(here, ClientCredentials(), store=store, key="alice"),
    ]
    assert len({(await tokens.token()).access_token for tokens in made}) == len(made)
    assert server.token_requests == len(made)
    assert await Tokens(here, ClientCredentials(), store=store).token() == await made[0].token()
    assert await all_of(made[0].keys()) == ["default", "alice"]


@pytest.mark.filterwarnings("ignore:the password grant")
async def test_S_21_whose_password_it_is_tells_two_apart_over_one_store_and_the_default_key(
    server: StrictServer, client: DirectClient
) -> None:
    store = MemoryStore()
    alice, bob = (Tokens(client, Password(name, "password"), store=store) for name in ("alice", "bob"))
    assert await alice.token() != await bob.token()
    assert [request["username"] for request in server.requests] == ["alice", "bob"]
    again = Tokens(client, Password("alice", "a new password"), store=store)
    assert await again.token() == await alice.token(), "the password is no part of whose it is"
    assert server.token_requests == 2


async def test_S_21_so_does_what_an_extension_grant_sends_of_its_own(server: StrictServer, client: DirectClient) -> None:
    store = MemoryStore()
    made = [
        Tokens(client, ExtensionGrant("urn:x", own, scope=scope), store=store)
        for own, scope in (
            ({"user": "alice"}, None),
            ({"user": "bob"}, None),
            ({"subject": "alice"}, None),
            ({"user": ["alice", "bob"]}, None),
            ({}, "alice"),
            ({}, None),
        )
    ]
    assert len({(await tokens.token()).access_token for tokens in made}) == len(made)
    fresh = Tokens(client, ExtensionGrant("urn:x", {"user": "alice", "proof": Secret("afresh")}), store=store)
    assert await fresh.token() == await made[0].token(), "a proof that is made anew each time is no part of whose it is"
    assert server.token_requests == len(made)


async def test_S_21_keys_names_nobody_else_and_nobody_whose_token_is_dead(
    server: StrictServer, client: DirectClient, clock: VirtualClock
) -> None:
    store = MemoryStore()
    tokens, others = Tokens(client, store=store), Tokens(DirectClient(server, issuer="https://other.example"), store=store)
    assert await all_of(tokens.keys()) == []
    for key in ("alice", "bob", "carol"):
        await tokens.save(server.sign_in(), key=key)
    await others.save(server.sign_in(), key="mallory")
    assert sorted(await all_of(tokens.keys())) == ["alice", "bob", "carol"]
    assert await all_of(others.keys()) == ["mallory"]
    clock.advance(3600.0)
    server.end_sign_ins()
    with pytest.raises(LoginRequired):
        await tokens.for_key("bob").token()
    await tokens.forget(key="carol")
    assert await all_of(tokens.keys()) == ["alice"]
    await tokens.save(server.sign_in(), key="bob")
    assert sorted(await all_of(tokens.keys())) == ["alice", "bob"]


async def test_a_stored_token_serves_whatever_attended_way_would_earn_the_next(
    server: StrictServer, client: DirectClient
) -> None:
    store = MemoryStore()
    token = server.sign_in()
    await Tokens(client, store=store).save(token, key="alice")
    assert await Tokens(client, AuthorizationCode("c"), store=store, key="alice").token() == token


async def test_keys_are_those_who_have_a_token_and_vanishing_records_are_passed_over(
    client: DirectClient, server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Vanishing(MemoryStore):
        async def load(self, key: str) -> Record | None:
            return None if key in self.gone else await super().load(key)

        gone: frozenset[str] = frozenset()

    store = Vanishing()
    tokens = Tokens(client, store=store)
    for key in ("alice", "bob", "carol"):
        await tokens.save(server.sign_in(), key=key)
    await tokens.revoke(key="bob")
    store.gone = frozenset([tokens._keyed("carol")._slot.key])
    assert await all_of(tokens.keys()) == ["alice"]
    store._records["x"] = Record(1, "mallory", b"garbage")
    assert await all_of(tokens.keys()) == ["alice"], "one record that can't be read hides nobody else"
    assert "a record is passed over" in caplog.text
    assert "garbage" not in caplog.text


async def test_clean_up_deletes_what_has_been_of_no_use_for_long_and_nothing_else(
    server: StrictServer, client: DirectClient, clock: VirtualClock
) -> None:
    store = MemoryStore()
    tokens, others = Tokens(client, store=store), Tokens(DirectClient(server, issuer="https://other.example"), store=store)
    for key in ("alive", "refused", "signed out", "again"):
        await tokens.save(server.sign_in(), key=key)
    for key in ("expired", "unknown"):
        await tokens.save(server.sign_in().replace(refresh_token=None), key=key)
    await tokens.save(Token("a", expires_at=None), key="for ever")
    await others.save(server.sign_in().replace(refresh_token=None), key="another client's")
    store._records["x"] = Record(1, "mallory", b"garbage")
    clock.advance(3600.0)
    await tokens.for_key("alive").token()
    server.end_sign_ins()
    for key in ("refused", "again"):
        with pytest.raises(LoginRequired):
            await tokens.for_key(key).token()
    for key in ("signed out", "again"):
        await tokens.revoke(key=key)
    assert len(store._records) == 9
    clock.advance(86_400.0)
    assert await tokens.clean_up(older_than=86_400.0) == 0
    await tokens.save(server.sign_in(), key="again")
    clock.advance(1.0)
    assert await tokens.clean_up(older_than=86_400.0) == 4
    assert {record.key_label for record in store._records.values()} == {
        "alive",
        "again",
        "for ever",
        "another client's",
        "mallory",
    }
    assert await tokens.clean_up(older_than=0.0) == 0
    for key in ("refused", "signed out", "expired"):
        with pytest.raises(LoginRequired):
            await tokens.for_key(key).token()
    assert await tokens.for_key("again").token() is not None


async def test_clean_up_leaves_whoever_signs_in_at_that_moment(
    server: StrictServer, client: DirectClient, clock: VirtualClock
) -> None:
    class Meanwhile(MemoryStore):
        async def delete(self, key: str, *, expected: int | None = None) -> bool:
            await Tokens(client, store=self, key="alice").save(server.sign_in())
            return await super().delete(key, expected=expected)

    tokens = Tokens(client, store=Meanwhile(), key="alice")
    await tokens.save(server.sign_in())
    await tokens.revoke()
    clock.advance(10.0)
    assert await tokens.clean_up(older_than=1.0) == 0
    assert server.accepts((await tokens.token()).access_token)


async def test_clean_up_says_what_it_needs_and_what_fails(
    client: DirectClient, server: StrictServer, clock: VirtualClock
) -> None:
    store = FaultyStore()
    tokens = Tokens(client, store=store)
    with pytest.raises(ConfigurationError, match="older_than"):
        await tokens.clean_up(older_than=-1.0)
    await tokens.save(server.sign_in())
    await tokens.revoke()
    clock.advance(10.0)
    store.failing = lambda number: store.calls[-1] == "delete"
    with pytest.raises(StoreError, match="OSError"):
        await tokens.clean_up(older_than=1.0)
    store.error = StoreError("it is down")
    store.error.retryable = True
    store.failing = lambda number: store.calls[-1] == "load"
    with pytest.raises(StoreError, match="it is down"):
        await tokens.clean_up(older_than=1.0)


# Grants that depend on the key.


async def test_a_function_of_the_key_may_be_a_coroutine_function_and_may_return_a_Login(
    client: DirectClient, server: StrictServer
) -> None:
    async def sign_in(client: Client, wanted: Wanted) -> Token:
        return server.sign_in()

    async def how(key: str) -> Grant | Login:
        return sign_in if key == "person" else ClientCredentials()  # type: ignore[return-value]

    tokens = Tokens(client, how)
    await tokens.for_key("person").token()
    assert server.token_requests == 0
    await tokens.for_key("robot").token()
    assert server.token_requests == 1


async def test_F_20_the_function_runs_without_the_context_of_whoever_came_first(client: DirectClient) -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []

    def how(key: str) -> Grant:
        seen.append(user.get())
        return ClientCredentials()

    user.set("alice")
    await Tokens(client, how).token()
    assert seen == ["nobody"]


@pytest.mark.parametrize("made", [None, 7, "grant", ClientCredentials], ids=str)
async def test_a_function_that_returns_neither_is_refused(client: DirectClient, made: Grant) -> None:
    with pytest.raises(ConfigurationError, match="what this one returned is neither"):
        await Tokens(client, lambda key: made).token()


async def test_what_the_function_raises_is_told_by_its_class(client: DirectClient) -> None:
    def broken(key: str) -> Grant:
        raise ZeroDivisionError("a secret")

    def ours(key: str) -> Grant:
        raise LoginRequired("unknown user")

    with pytest.raises(ConfigurationError, match="raised ZeroDivisionError") as caught:
        await Tokens(client, broken).token()
    assert "secret" not in str(caught.value)
    with pytest.raises(LoginRequired, match="unknown user"):
        await Tokens(client, ours).token()


async def test_a_Login_is_told_from_a_function_of_the_key(client: DirectClient, server: StrictServer) -> None:
    class WithTimeout:
        timeout = 5.0

        async def __call__(self, client: Client, wanted: Wanted) -> Token:
            return server.sign_in()

    async def two(client: Client, wanted: Wanted, *, prompt: bool = True) -> Token:
        return server.sign_in()

    for login in (WithTimeout(), two):
        await Tokens(client, login).token()  # type: ignore[arg-type]
    assert server.token_requests == 0


async def test_a_Login_with_a_default_argument_is_a_Login_and_a_plain_function_with_one_is_of_the_key(
    client: DirectClient, server: StrictServer
) -> None:
    async def wanted_by_default(client: Client, wanted: Wanted | None = None) -> Token:
        return server.sign_in()

    async def both_by_default(client: Client | None = None, wanted: Wanted | None = None) -> Token:
        return server.sign_in()

    async def one_more(client: Client, wanted: Wanted, prompt: str = "login") -> Token:
        return server.sign_in()

    for login in (wanted_by_default, both_by_default, one_more):
        tokens = Tokens(client, login)  # type: ignore[arg-type]
        await tokens.token()
        assert tokens.counts["login_succeeded"] == 1
    assert server.token_requests == 0

    def of(key: str, tenant: str = "acme") -> Grant:
        return ExtensionGrant("urn:x", {"user": key, "tenant": tenant})

    tokens = Tokens(client, of)
    await tokens.for_key("alice").token()
    assert [(request["user"], request["tenant"]) for request in server.requests] == [("alice", "acme")]
    assert tokens.counts["login_started"] == 0


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "5", None, True, [], 10**400], ids=ascii)
async def test_a_Login_whose_timeout_is_none_is_refused_by_name(client: DirectClient, timeout: object) -> None:
    class Asking:
        def __init__(self) -> None:
            self.timeout = timeout
            self.asked = 0

        async def __call__(self, client: Client, wanted: Wanted) -> Token:
            self.asked += 1
            return Token("a")

    login = Asking()
    with pytest.raises(ConfigurationError, match="the Login's timeout must be a number of seconds"):
        Tokens(client, login)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="the Login's timeout must be a number of seconds"):
        await Tokens(client, lambda key: login).token()  # type: ignore[arg-type, return-value]
    assert login.asked == 0


async def test_a_callable_without_a_signature_is_taken_for_a_function_of_the_key(client: DirectClient) -> None:
    class Opaque:
        @property
        def __signature__(self) -> object:
            raise ValueError("none to be had")

        def __call__(self, key: str) -> Grant:
            return ClientCredentials()

    await Tokens(client, Opaque()).token()


# The end.


async def test_I8_aclose_waits_for_the_refresh_and_ends_the_login(client: DirectClient, server: StrictServer) -> None:
    async def never(client: Client, wanted: Wanted) -> Token:
        await asyncio.Event().wait()
        raise AssertionError

    async def how(key: str) -> Grant | Login:
        return never if key == "person" else ClientCredentials()  # type: ignore[return-value]

    before = asyncio.all_tasks()
    async with Tokens(client, how) as tokens:
        server.holding = True
        robot = asyncio.create_task(tokens.for_key("robot").token())
        person = asyncio.create_task(tokens.for_key("person").token())
        while not (server.held and tokens.counts["login_started"]):
            await turns(1)
        asyncio.get_running_loop().call_soon(server.release)
    await robot
    await turns(5)
    assert asyncio.all_tasks() == before, "a task of ours is left"
    assert isinstance(person.exception(), TokenUnavailable)


async def test_aclose_keeps_the_tokens_and_closes_the_store(client: DirectClient) -> None:
    class Closing(MemoryStore):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    store = Closing()
    tokens = Tokens(client, ClientCredentials(), store=store)
    token = await tokens.token()
    await tokens.aclose()
    assert store.closed
    assert await tokens.token() == token


# The quick way.


async def test_ready_is_the_token_in_memory_or_None_and_asks_nobody(
    client: DirectClient, clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(client, ClientCredentials())
    assert tokens.ready() is None
    token = await tokens.token()
    await tokens.token()
    assert tokens.ready() == token
    clock.advance(3600.0)
    assert tokens.ready() is None
    assert server.token_requests == 1


async def test_ready_with_a_key_that_is_called(client: DirectClient, server: StrictServer) -> None:
    user: ContextVar[str | None] = ContextVar("user")
    tokens = Tokens(client, ClientCredentials(), key=user.get)  # type: ignore[arg-type]
    assert tokens.ready() is None, "no key"
    user.set("alice")
    assert tokens.ready() is None, "no token"
    token = await tokens.token()
    await tokens.token()
    assert tokens.ready() == token
    for nobody in (None, "", "bob"):
        user.set(nobody)
        assert tokens.ready() is None


async def test_F_53_a_step_of_the_wall_clock_is_noticed_within_a_second(client: DirectClient, clock: VirtualClock) -> None:
    tokens = Tokens(client, ClientCredentials())
    first = await tokens.token()
    assert await tokens.token() == first
    clock.set_wall(10_000.0)
    clock.advance(1.0)
    assert await tokens.token() != first


async def test_S_27_a_refused_or_revoked_token_is_not_ready(
    client: DirectClient, clock: VirtualClock, server: StrictServer
) -> None:
    tokens = Tokens(client)
    await tokens.save(server.sign_in())
    token = await tokens.token()
    await tokens.token()
    clock.advance(0.1)
    refused = Refusal(URL("https://api.example"), 401, (Challenge("bearer", {"error": "invalid_token"}),), token)
    better = await tokens.token(refused)
    assert tokens.ready() != token
    await tokens.token()
    assert tokens.ready() == better
    await tokens.revoke()
    assert tokens.ready() is None
