"""Call sites as users write them, and the types that they get.

Each ``type: ignore`` stands where a type checker has to object: mypy warns of one that is not needed.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, assert_type

import redis
import redis.asyncio
from aiohttp import ClientRequest, ClientResponse, ClientSession, TraceConfig, web
from yarl import URL

import aiohttp_oauth_middleware as oauth
from aiohttp_oauth_middleware import (
    AuthorizationCode,
    BearerHeader,
    CallbackStore,
    Challenge,
    Client,
    ClientCredentials,
    ClientSecret,
    ClientSecretBasic,
    ClientSecretPost,
    EndpointRequest,
    EndpointResponse,
    ErrorResponse,
    Event,
    ExtensionGrant,
    FileStore,
    FormBody,
    Header,
    Hook,
    InsecureQuery,
    KeyringStore,
    LoginRequired,
    MemoryStore,
    NoAuthentication,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    OAuth2Auth,
    OAuthError,
    Quirks,
    Record,
    RedisStore,
    RefreshInDoubt,
    Refusal,
    SealedStore,
    Secret,
    ServerMetadata,
    SignatureMethod,
    SQLiteStore,
    StaticToken,
    Token,
    Tokens,
    TokenSource,
    TokenUnavailable,
    Wanted,
    attach,
)
from aiohttp_oauth_middleware.protocol.password import Password
from aiohttp_oauth_middleware.testing.store_conformance import CHECKS, check_store

# The five lines of the first example.


async def first_example() -> None:
    client = Client("https://login.example.com", "reports", ClientSecret("…"))
    tokens = Tokens(client, ClientCredentials(scope="reports:read"))
    auth = OAuth2Auth(tokens, origins="https://api.example.com")
    async with ClientSession(middlewares=[auth]) as session, session.get("https://api.example.com/reports") as response:
        assert_type(response, ClientResponse)


# Who we are.


def clients(vault: Secret) -> None:
    Client("https://login.example.com", "public")
    Client("https://login.example.com", "public", NoAuthentication())
    Client("https://login.example.com", "reports", ClientSecretBasic("…", encoded=False))
    Client("https://login.example.com", "reports", ClientSecretPost(vault))
    Client("https://login.example.com", "reports", ClientSecret(lambda: "read afresh"))
    Client("https://login.example.com", "reports", ClientSecret(read_secret, probe=True))
    Client(
        ServerMetadata("https://login.example.com", token_endpoint="https://login.example.com/token"),
        "reports",
        timeout=5,
        quirks=Quirks(token_types=["Application Access Token"], default_lifetime=3600),
        session_factory=lambda: ClientSession(trust_env=True),
        hooks=[Hook("access_token_response", rewritten), Hook("access_token_request", signed)],
        insecure_http=True,
    )
    Client("https://login.example.com", "reports", "the secret")  # type: ignore[arg-type]
    Client("https://login.example.com", "reports", ClientSecret)  # type: ignore[arg-type]
    Client(URL("https://login.example.com"), "reports")  # type: ignore[arg-type]
    Hook("some_time", signed)  # type: ignore[arg-type]


async def read_secret() -> str:
    return "…"


def rewritten(response: EndpointResponse) -> EndpointResponse:
    return response.replace(status=200)


async def signed(request: EndpointRequest) -> None:
    request.headers["X-Signature"] = Secret("…")


async def endpoints(client: Client, token: Token) -> None:
    assert_type(await client.metadata(), ServerMetadata)
    assert_type(await client.fetch_token(ClientCredentials()), Token)
    assert_type(await client.refresh(token, scope=["read"]), Token)
    assert_type(await client.refresh("a refresh token"), Token)
    assert_type(await client.introspect(token), Mapping[str, Any])
    await client.revoke("a token", "refresh_token")
    await client.fetch_token("client_credentials")  # type: ignore[arg-type]
    client.fetch_token(ClientCredentials())  # type: ignore[unused-coroutine]


# How a token is earned.


class CardPayment:
    """A grant of the user's own: nothing to inherit."""

    grant_type = "urn:example:card"
    unattended = False
    single_use = True

    def parameters(self) -> list[tuple[str, str | Secret]]:
        return [("card", Secret("…"))]


def grants() -> list[oauth.Grant]:
    ClientCredentials(scopes="reports:read")  # type: ignore[call-arg]
    AuthorizationCode()  # type: ignore[call-arg]
    return [
        ClientCredentials(["reports:read", "reports:write"], resource=["https://api.example.com"], audience="api"),
        AuthorizationCode("code", redirect_uri="https://app.example.com/callback", code_verifier=Secret("…")),
        oauth.RefreshToken(Secret("…"), scope="reports:read"),
        ExtensionGrant("urn:example:grant", {"assertion": Secret("…")}, scope="read", extra={"tenant": "a"}),
        Password("alice", "…"),
        CardPayment(),
    ]


class VaultLogin:
    """A login of the user's own."""

    timeout = 10.0

    async def __call__(self, client: Client, wanted: Wanted) -> Token:
        assert_type(wanted.scope, str | None)
        return Token("…", scope=wanted.scope)


# Where a token comes from.

current_user: ContextVar[str] = ContextVar("current_user")


async def tokens_of_many_users(client: Client) -> None:
    async def audit(token: Token, key: str) -> None:
        print(token, key)

    def on_event(event: Event) -> None:
        assert_type(event.cause, str | None)

    users = Tokens(client, grant_of, store=MemoryStore(), key=current_user.get, on_token=audit, on_event=on_event)
    assert_type(await users.token(), Token)
    assert_type(await users.login(key="alice"), Token)
    assert_type(users.for_key("alice"), TokenSource)
    assert_type([key async for key in users.keys()], list[str])  # noqa: SIM118
    await users.save(Token("…"), key="alice")
    await users.revoke(key="alice")
    await users.forget(key="alice")
    await users.aclose()
    await users.login("alice")  # type: ignore[call-arg]
    await users.save({"access_token": "…"})  # type: ignore[arg-type]
    async with Tokens(client, VaultLogin()) as tokens:
        assert_type(tokens, Tokens)
    Tokens(client, ClientCredentials())
    Tokens(client, logged_in)
    Tokens(client)
    Tokens(client, key=7)  # type: ignore[arg-type]


async def grant_of(user: str) -> oauth.Grant:
    return ExtensionGrant("urn:example:on-behalf-of", {"user": user})


class SessionLogin:
    """A login with a state of its own."""

    timeout = 300.0

    async def __call__(self, client: Client, wanted: Wanted) -> Token:
        return await client.fetch_token(ClientCredentials())


logged_in: oauth.Login = SessionLogin()


class MyStore:
    """A store of the user's own."""

    async def load(self, key: str) -> Record | None:
        return None

    async def save(self, key: str, record: Record, *, expected: int, lock: oauth.Lock | None = None) -> bool:
        assert_type(record.body, bytes)
        return True

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return False

    @contextlib.asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[oauth.Lock]:
        yield MyLock()

    async def keys(self) -> AsyncIterator[str]:
        yield "alice"

    async def aclose(self) -> None:
        pass


class MyLock:
    predecessor_is_dead = True


def saved(key: str, text: str | None) -> None:
    pass


async def saved_slowly(key: str, text: str | None) -> None:
    pass


async def loaded(key: str) -> str | None:
    return None


stores: list[oauth.TokenStore] = [
    MemoryStore(),
    FileStore("~/.config/my-cli/tokens"),
    FileStore(Path("tokens")),
    SQLiteStore("tokens.db"),
    RedisStore(redis.asyncio.Redis(), prefix="tokens:", lease=30, timeout=2.5, replicas=1),
    RedisStore(redis.asyncio.RedisCluster("redis.example.com")),
    RedisStore(lambda: redis.asyncio.Redis(decode_responses=True)),
    RedisStore(redis.asyncio.Sentinel([]).master_for("tokens")),  # type: ignore[no-untyped-call]
    KeyringStore("my-cli", locks=Path("locks"), entry_size=1_200),
    SealedStore(MemoryStore(), SealedStore.generate_key()),
    SealedStore(FileStore("tokens"), [Secret("…"), read_secret, lambda: "…"]),
    CallbackStore({"k": "…"}.get, saved),
    CallbackStore(loaded, saved_slowly, keys=lambda: ["k"]),
    MyStore(),
]


def refused_stores() -> None:
    FileStore(b"tokens")  # type: ignore[arg-type]
    RedisStore(redis.Redis())  # type: ignore[arg-type]
    RedisStore(redis.Redis)  # type: ignore[arg-type]
    RedisStore("redis://localhost")  # type: ignore[arg-type]
    SealedStore(SealedStore.generate_key())  # type: ignore[arg-type, call-arg]
    CallbackStore(loaded)  # type: ignore[call-arg]
    KeyringStore("my-cli", backend={})  # type: ignore[arg-type]


async def checked(folder: Path) -> None:
    await check_store(lambda: SQLiteStore(folder / "tokens.db"), leave_out=["keys_are_any_text"])
    for check in CHECKS:
        await check(MyStore)
    await check_store(MyStore())  # type: ignore[arg-type]


class MySource:
    """A source of the user's own."""

    async def token(self, refused: Refusal | None = None) -> Token | None:
        if refused is not None:
            assert_type(refused.url, URL)
            assert_type(refused.challenges, tuple[Challenge, ...])
            assert_type(refused.verdict, Literal["expired", "perhaps expired", "more wanted", "other"])
            return None
        return Token("…")


class Careless:
    """No source: it takes no refusal."""

    async def token(self) -> Token:
        return Token("…")


# On a session.


async def sessions(tokens: Tokens, session: ClientSession) -> None:
    auth = OAuth2Auth(tokens, origins=["https://api.example.com/v2", URL("https://files.example.com")])
    OAuth2Auth(StaticToken("ghp_…"), origins=lambda url: url.host == "api.example.com", placement=Header(scheme="token"))
    OAuth2Auth(MySource(), placement=FormBody(), fresh_token_delay=0.5, insecure_http=True)
    OAuth2Auth(tokens.for_key("alice"), placement=InsecureQuery("key"), expired_when=says_expired)
    OAuth2Auth(tokens, placement=BearerHeader(), expired_when=lambda response: response.status == 419)
    OAuth2Auth("a token")  # type: ignore[arg-type]
    OAuth2Auth(Careless())  # type: ignore[arg-type]
    OAuth2Auth(tokens, "https://api.example.com")  # type: ignore[call-arg]
    OAuth2Auth(tokens, placement=BearerHeader)  # type: ignore[arg-type]
    detach = attach(session, auth)
    assert_type(detach(), None)
    await session.get("https://api.example.com", middlewares=[auth])
    assert_type(auth.trace_config(), TraceConfig)


async def says_expired(response: ClientResponse) -> bool:
    return b"session expired" in await response.read()


class CookiePlacement:
    """A placement of the user's own."""

    scheme = "bearer"

    def occupied(self, request: ClientRequest) -> bool:
        return "Cookie" in request.headers

    async def place(self, request: ClientRequest, token: Token) -> None:
        request.headers["Cookie"] = f"token={token.access_token}"

    async def clear(self, request: ClientRequest) -> None:
        request.headers.popall("Cookie", None)


placements: list[oauth.Placement] = [BearerHeader(), Header(), FormBody(), InsecureQuery(), CookiePlacement()]


# OAuth 1.


def sign_by_hand(base_string: str, client_secret: str, token_secret: str) -> str:
    return "…"


async def sign_elsewhere(base_string: str, client_secret: str, token_secret: str) -> str:
    return "…"


def sign_wrongly(base_string: str, client_secret: str) -> str:
    return "…"


def consumers(vault: Secret) -> None:
    OAuth1Client("key")
    OAuth1Client("key", None, signature_method=SignatureMethod.rsa("RSA-SHA256", Path("key.pem")), body_hash="on")
    OAuth1Client("key", vault, redirect_uri="https://app.example.com/callback", realm="Photos", placement="form")
    OAuth1Client("key", lambda: "read afresh", signature_method="HMAC-SHA256", placement="query", send_version=False)
    OAuth1Client("key", read_secret, signature_method=SignatureMethod("MINE", sign_by_hand, "sha512"), revision_a=False)
    OAuth1Client("key", "…", signature_method=SignatureMethod("MINE", sign_elsewhere), clock=StoppedClock(), timeout=5)
    OAuth1Client("key", "…", session_factory=lambda: ClientSession(trust_env=True), insecure_http=True)
    OAuth1Client("key", b"x")  # type: ignore[arg-type]
    OAuth1Client("key", "…", placement="body")  # type: ignore[arg-type]
    OAuth1Client("key", "…", body_hash=True)  # type: ignore[arg-type]
    OAuth1Client("key", "…", rsa_key="…")  # type: ignore[call-arg]
    SignatureMethod("MINE", sign_wrongly)  # type: ignore[arg-type]


async def three_legs(client: OAuth1Client, callback: web.Request) -> None:
    request_token = await client.fetch_request_token("https://provider.example.com/initiate", extra={"scope": "read"})
    assert_type(request_token, OAuth1Token)
    assert_type(client.create_authorization_url(URL("https://provider.example.com/authorize"), request_token), str)
    assert_type(client.create_authorization_url("https://provider.example.com/a", "a token", {"lang": "de"}), str)
    assert_type(client.parse_authorization_response(callback.query, request_token), str)
    assert_type(client.parse_authorization_response(callback.url, "a token"), str)
    token = await client.fetch_access_token(URL("https://provider.example.com/token"), request_token, "verifier", method="GET")
    assert_type(token, OAuth1Token)
    assert_type(await client.fetch_access_token("https://h/", extra={"x_auth_password": Secret("…")}), OAuth1Token)
    assert_type(await client.renew_access_token("https://provider.example.com/token", token), OAuth1Token)
    assert_type(await client.sign("POST", "https://api.example.com/", token, form=b"a=b"), str)
    assert_type(await client.sign("GET", URL("https://api.example.com/")), str)
    await client.fetch_access_token("https://h/", "a token")  # type: ignore[arg-type]
    await client.fetch_request_token("https://h/", method="PUT")  # type: ignore[arg-type]
    await client.fetch_request_token("https://h/", extra={"a": 7})  # type: ignore[dict-item]
    client.fetch_request_token("https://h/")  # type: ignore[unused-coroutine]


class MyOAuth1Source:
    """A source of the user's own."""

    async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
        return refused or OAuth1Token("…", "…")


async def signed_sessions(client: OAuth1Client, token: OAuth1Token, session: ClientSession) -> None:
    def on_event(event: Event) -> None:
        assert_type(event.origin, str | None)

    users = OAuth1Tokens(MemoryStore(), key=current_user.get, client=client, renewal_url="https://h/renew", cache_size=5)
    await users.save(token, key="alice")
    assert_type(await users.token(), OAuth1Token)
    assert_type(await users.for_key("alice").token(token), OAuth1Token)
    assert_type([key async for key in users.keys()], list[str])  # noqa: SIM118
    await users.forget(key="alice")
    await users.aclose()
    await users.save({"oauth_token": "…"})  # type: ignore[arg-type]
    OAuth1Tokens(key=7)  # type: ignore[arg-type]
    OAuth1Auth(client)
    OAuth1Auth(client, users, origins=["https://api.example.com", URL("https://files.example.com")], on_event=on_event)
    OAuth1Auth(client, users.for_key("alice"), origins=lambda url: url.host == "api.example.com", insecure_http=True)
    OAuth1Auth(client, MyOAuth1Source())
    OAuth1Auth(client, "a token")  # type: ignore[arg-type]
    OAuth1Auth(client, Token("…"))  # type: ignore[arg-type]
    OAuth1Auth(client, StaticToken("…"))  # type: ignore[arg-type]
    auth = OAuth1Auth(client, token, origins="https://api.example.com")
    assert_type(attach(session, auth)(), None)
    assert_type(auth.trace_config(), TraceConfig)
    await session.get("https://api.example.com", middlewares=[auth])


def oauth1_values(token: OAuth1Token) -> None:
    assert_type(OAuth1Token.from_dict({"oauth_token": "…"}, now=5), OAuth1Token)
    assert_type(OAuth1Token.from_json(token.to_json().encode()), OAuth1Token)
    assert_type(token.to_dict(), dict[str, Any])
    assert_type(token.oauth_session_handle, str | None)
    assert_type(token.is_expired(), bool)
    assert_type(token.replace(oauth_token_secret="…"), OAuth1Token)
    OAuth1Token("…", "…", "a handle")  # type: ignore[call-arg]


# Client authentication and time of the user's own.


class CertificateHeader:
    async def authenticate(self, request: EndpointRequest, client_id: str, supported: tuple[str, ...]) -> None:
        request.form.append(("client_id", client_id))


class StoppedClock:
    def time(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        pass


authentications: list[oauth.ClientAuthentication] = [ClientSecret("…"), NoAuthentication(), CertificateHeader()]
own_clock = Client("https://login.example.com", "reports", CertificateHeader(), clock=StoppedClock())


# Values.


def values(token: Token) -> None:
    assert_type(Token.from_dict({"access_token": "…"}), Token)
    assert_type(Token.from_json(token.to_json()), Token)
    assert_type(token.to_dict(), dict[str, Any])
    assert_type(token.scopes, frozenset[str])
    assert_type(token.expires_at, float | None)
    assert_type(token.replace(scope="read"), Token)
    assert_type(Secret("…").reveal(), str)
    Token(access_token="…", expires_in=3600)  # type: ignore[call-arg]


# Errors.


async def errors(tokens: Tokens) -> float | None:
    try:
        await tokens.token()
    except TokenUnavailable as unavailable:
        return assert_type(unavailable.retry_after, float | None)
    except RefreshInDoubt as doubt:
        return assert_type(doubt.since, float | None)
    except LoginRequired as login:
        assert_type(login.key_id, str | None)
    except ErrorResponse as refusal:
        assert_type(refusal.error, str)
        assert_type(refusal.status, int)
    except OAuthError as error:
        assert_type(error.retryable, bool)
    return None


# The embedded server.


async def in_tests() -> None:
    from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI, OAuth1Server

    with AuthorizationServer(lifetime=60.0, rotation=False) as server:
        assert_type(server.issuer, str)
        assert_type(server.client(), Client)
        assert_type(server.counts.token_requests, int)
        assert_type(server.api(scope="read"), EchoAPI)
        server.protect(web.Application(), scope="reports:read")
        server.fail_next(503, retry_after=5)
        server.expire_all()
        assert_type(server.oauth1, OAuth1Server)
        assert_type(server.oauth1.api(two_legged=True), EchoAPI)
        assert_type(server.oauth1.approve("token", user="bob"), str)
        assert_type(server.oauth1.issue(), dict[str, str])
        assert_type(server.oauth1.requests[0].oauth, Mapping[str, str])
        assert_type(server.oauth1.counts.verdicts, Counter[str])
