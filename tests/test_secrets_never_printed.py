"""Canaries in the place of every secret, through the main flows and the failures: none is ever printed.

Looked at are: what all loggers are told, down to level 1; warnings; the text of errors, their tracebacks with the locals of our
frames, and their pickles; ``repr`` and ``str`` of the public objects; events; the names of tasks and threads.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import io
import json
import logging
import pickle
import threading
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from aiohttp import (
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    CookieJar,
    RequestInfo,
    TCPConnector,
    WSServerHandshakeError,
)
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

import aiohttp_oauth_middleware as package
from aiohttp_oauth_middleware import (
    AuthorizationCode,
    BearerHeader,
    Challenge,
    Client,
    ClientCredentials,
    ClientSecret,
    ClientSecretBasic,
    ClientSecretPost,
    ConfigurationError,
    EndpointRequest,
    EndpointResponse,
    Event,
    ExtensionGrant,
    FormBody,
    Grant,
    Header,
    Hook,
    MemoryStore,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    OAuth2Auth,
    OAuthError,
    Quirks,
    Record,
    RefreshToken,
    Refusal,
    Secret,
    ServerMetadata,
    SignatureMethod,
    StaticToken,
    StoreCorrupted,
    Token,
    Tokens,
    Wanted,
    attach,
)
from aiohttp_oauth_middleware.protocol.password import Password
from tests.clock import VirtualClock
from tests.middleware.wire import INVALID, Seen, Wire, record, redirect
from tests.raw_server import answer, json_answer, token_answer

PACKAGE = Path(package.__file__).parent

CANARIES = {
    name: f"CANARY-{name}-{number:04d}" + "-0123456789" * 3
    for number, name in enumerate(
        (
            "client-secret",
            "access-token",
            "refresh-token",
            "code",
            "verifier",
            "dpop-key",
            "oauth1-consumer-secret",
            "oauth1-token-secret",
            "oauth1-token",
            "oauth1-verifier",
            "oauth1-handle",
            "oauth1-password",
            "assertion",
            "id-token",
            "state",
            "nonce",
            "store-key",
            "cookie",
            "password",
        )
    )
}
SECRET = CANARIES["client-secret"]
BASIC = base64.b64encode(f"app:{SECRET}".encode()).decode()
EXTRA = {
    "id_token": CANARIES["id-token"],
    "dpop_key": {"kty": "EC", "d": CANARIES["dpop-key"]},
    "oauth_consumer_secret": CANARIES["oauth1-consumer-secret"],
    "oauth_token_secret": CANARIES["oauth1-token-secret"],
    "state": CANARIES["state"],
    "nonce": CANARIES["nonce"],
}
COOKIE = {"Set-Cookie": f"session={CANARIES['cookie']}; Path=/"}


def leaked(text: str) -> list[str]:
    return [name for name, value in {**CANARIES, "basic": BASIC}.items() if value in text]


class Sink(logging.Handler):
    """Everything that could be read by somebody who should not."""

    def __init__(self) -> None:
        super().__init__(1)
        self.texts: list[tuple[str, str]] = []
        self.errors: list[BaseException] = []

    def note(self, where: str, text: object) -> None:
        self.texts.append((where, text if isinstance(text, str) else repr(text)))

    def emit(self, record: logging.LogRecord) -> None:
        self.note(f"log {record.name}", f"{record.getMessage()} {record.args!r}")
        if record.exc_info and record.exc_info[1] is not None:
            self.error(record.exc_info[1])

    def event(self, event: Event) -> None:
        self.note("event", f"{event!r} {event} {pickle.dumps(event)!r}")

    def error(self, error: BaseException) -> None:
        """An error as a logger, a debugger or a reporting service would show it."""
        self.errors.append(error)
        for one in chained(error):
            where = f"error {type(one).__name__}"
            self.note(where, f"{one!r} {one} {one.args!r} {getattr(one, '__notes__', '')!r}")
            self.note(where, "".join(traceback.format_exception(one)))
            for frame, line in traceback.walk_tb(one.__traceback__):
                file, name = Path(frame.f_code.co_filename), frame.f_code.co_name
                if file.is_relative_to(PACKAGE):
                    shown = {local: shown_as(value) for local, value in frame.f_locals.items()}
                    self.note(f"locals of {file.relative_to(PACKAGE)}:{line} {name}", str(shown))
            if isinstance(one, OAuthError):
                self.note(where, f"{vars(one)!r} {one.again()!r}")
                self.note(f"pickle of {type(one).__name__}", repr(pickle.dumps(one)))

    def objects(self, *found: object) -> None:
        for one in found:
            self.note(type(one).__name__, f"{one!r} {one} {[one]!r} {copy.copy(one)!r}")
            if hasattr(one, "__dict__"):
                self.note(f"vars of {type(one).__name__}", repr(vars(one)))

    def tasks(self) -> None:
        """The names of what is running, and what asyncio would print of it."""
        for task in asyncio.all_tasks():
            self.note("task", f"{task.get_name()} {task!r}")
            into = io.StringIO()
            task.print_stack(file=into)
            self.note("task", into.getvalue())
        for thread in threading.enumerate():
            self.note("thread", f"{thread.name} {thread!r}")

    @contextlib.contextmanager
    def fails(self, *kinds: type[BaseException]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not isinstance(error, kinds or OAuthError):
                raise
            self.error(error)
            return
        raise AssertionError("nothing was raised")

    def check(self) -> None:
        found: dict[str, set[str]] = {}
        for where, text in self.texts:
            # The cookies of a request are aiohttp's own, and its error shows them.
            if names := {name for name in leaked(text) if not (name == "cookie" and "ClientResponseError" in text)}:
                found.setdefault(where, set()).update(names)
        assert not found, "\n".join(f"{where}: {sorted(names)}" for where, names in sorted(found.items()))


def shown_as(value: object) -> str:
    """As ``traceback.TracebackException(…, capture_locals=True)`` of Python 3.12 and later shows a local."""
    try:
        return repr(value)
    except Exception:
        return "<local repr() failed>"


def chained(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__]


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    root = logging.getLogger()
    loggers = [root, *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    loggers += [logging.getLogger("aiohttp_oauth_middleware"), logging.getLogger("asyncio")]
    levels = [(one, one.level, one.disabled) for one in loggers]
    for one in loggers:
        one.setLevel(1)
        one.disabled = False
    root.addHandler(sink)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield sink
    root.removeHandler(sink)
    for logger, level, disabled in levels:
        logger.setLevel(level)
        logger.disabled = disabled
    for warning in caught:
        sink.note("warning", f"{warning.message!r} {warning.message} {warning}")
    sink.check()


class SealingStore(MemoryStore):
    """A store with a key of its own, which can break."""

    def __init__(self) -> None:
        super().__init__()
        self.sealing = Secret(CANARIES["store-key"])
        self.broken: str | None = None

    async def load(self, key: str) -> Record | None:
        used = self.sealing.reveal()
        if self.broken == "load":
            raise OSError(5, "the disk is on fire")
        found = await super().load(key)
        if found is not None and self.broken == "corrupt":
            return found.replace(body=found.body[: len(found.body) // 2])
        assert used
        return found

    async def save(self, key: str, record: Record, **kwargs: Any) -> bool:
        if self.broken == "save":
            raise OSError(28, "no space left")
        return await super().save(key, record, **kwargs)


def body(**members: object) -> bytes:
    """A token answer with a canary wherever one may be."""
    return token_answer(CANARIES["access-token"], refresh_token=CANARIES["refresh-token"], **EXTRA, **members)


def server_of(wire: Wire, *, authentication: Any = None, **kwargs: Any) -> Client:
    metadata = ServerMetadata(
        token_endpoint=f"{wire.url}token",
        revocation_endpoint=f"{wire.url}revoke",
        introspection_endpoint=f"{wire.url}introspect",
    )
    given = authentication if authentication is not None else ClientSecret(SECRET)
    return Client(metadata, "app", given, clock=kwargs.pop("clock", None) or VirtualClock(time.time()), **kwargs)


def grants() -> list[Grant]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        password = Password("alice", CANARIES["password"])
    more = {"state": Secret(CANARIES["state"]), "nonce": Secret(CANARIES["nonce"])}
    return [
        ClientCredentials("read"),
        AuthorizationCode(CANARIES["code"], code_verifier=CANARIES["verifier"], redirect_uri="https://app/cb", extra=more),
        RefreshToken(CANARIES["refresh-token"]),
        password,
        ExtensionGrant("urn:x", {"assertion": Secret(CANARIES["assertion"]), "n": Secret(CANARIES["nonce"])}),
    ]


def full_token(**changes: Any) -> Token:
    fields: dict[str, Any] = {
        "refresh_token": CANARIES["refresh-token"],
        "extra": EXTRA,
        "expires_at": time.time() + 3600,
        "obtained_at": time.time() - 60,
    }
    return Token(CANARIES["access-token"], **(fields | changes))


ECHO = " ".join(CANARIES.values())
JSON = {"Content-Type": "application/json"}

FAULTS: dict[str, Any] = {
    "invalid_grant": json_answer({"error": "invalid_grant", "error_description": "no"}, 400),
    "invalid_client": json_answer({"error": "invalid_client"}, 401, {"WWW-Authenticate": f'Basic realm="{ECHO}"'}),
    "an error that quotes": lambda text: json_answer({"error": text, "error_description": text, "error_uri": text}, 400),
    "a known error that quotes": lambda text: json_answer({"error": "invalid_grant", "error_description": text}, 400),
    "500": answer(500, ECHO.encode()),
    "503": answer(503, b"", {"Retry-After": "5"}),
    "html": answer(200, f"<html>{ECHO}</html>".encode(), {"Content-Type": "text/html"}),
    "no json": answer(200, ECHO.encode(), JSON),
    "json cut short": answer(200, json.dumps({"access_token": ECHO}).encode()[:-5], JSON),
    "a list": answer(200, json.dumps([ECHO]).encode(), JSON),
    "no access_token": json_answer({"refresh_token": CANARIES["refresh-token"], **EXTRA}),
    "a bad access_token": json_answer({"access_token": f"{CANARIES['access-token']}\n"}),
    "an access_token that is a list": json_answer({"access_token": [CANARIES["access-token"]]}),
    "a bad refresh_token": json_answer({"access_token": "x", "refresh_token": {"a": CANARIES["refresh-token"]}}),
    "another token_type": json_answer({"access_token": CANARIES["access-token"], "token_type": CANARIES["nonce"]}),
    "a bad expiry": json_answer({"access_token": CANARIES["access-token"], "token_type": "Bearer", "expires_in": [ECHO]}),
    "too long": answer(200, b'{"access_token": "' + ECHO.encode() + b"x" * 100_000 + b'"}', JSON),
    "redirect": redirect(307, f"https://evil.example/?code={CANARIES['code']}"),
    "nonsense": b"HTTP/1.1 2zz " + ECHO.encode() + b"\r\n\r\n",
    "a bad header": b"HTTP/1.1 200 OK\r\nX-" + CANARIES["code"].encode() + b"\x00: " + ECHO.encode() + b"\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: " + ECHO.encode() + b"\r\n\r\n",
    "an answer cut short": answer(200, b'{"access_token": "' + ECHO.encode(), {"Content-Length": "99999"}),
}


@contextlib.asynccontextmanager
async def answering(fault: bytes | Callable[[str], bytes]) -> AsyncIterator[Wire]:
    async def reply(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        # One that quotes knows what it was sent.
        sent = f"{seen.get('authorization') or ''} {' '.join(value for _, value in parse_qsl(seen.body.decode()))}"
        writer.write(fault if isinstance(fault, bytes) else fault(sent))
        await writer.drain()
        return None

    async with record(reply) as wire:
        yield wire


@pytest.mark.parametrize("authentication", [ClientSecret, ClientSecretBasic, ClientSecretPost])
async def test_G_12_S_22_no_grant_shows_a_secret_when_it_works(authentication: Any, sink: Sink) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with record(body()) as wire:
        client = server_of(wire, authentication=authentication(SECRET))
        token = full_token()
        for grant in grants():
            token = await client.fetch_token(grant)
            sink.objects(grant, token, client, client.authentication)
            sink.tasks()
            assert token.access_token == CANARIES["access-token"]
        sink.objects(await client.refresh(token))
        sent = b"".join(bytes(seen.raw) for seen in wire.seen).decode()
    planted = set(leaked(sent))
    assert {"code", "verifier", "refresh-token", "password", "assertion", "state", "nonce"} <= planted
    assert planted & {"basic", "client-secret"}


@pytest.mark.parametrize("fault", FAULTS)
async def test_G_12_S_22_S_26_no_grant_shows_a_secret_when_the_server_fails(fault: str, sink: Sink) -> None:
    async with answering(FAULTS[fault]) as wire:
        for authentication in (ClientSecretBasic(SECRET), ClientSecretPost(SECRET)):
            client = server_of(wire, authentication=authentication)
            for grant in grants():
                with contextlib.suppress(AssertionError) if fault == "a bad expiry" else contextlib.nullcontext(), sink.fails():
                    await client.fetch_token(grant)
            with contextlib.suppress(AssertionError) if fault == "a bad expiry" else contextlib.nullcontext(), sink.fails():
                await client.refresh(full_token())
            for call in (client.revoke, client.introspect):
                with contextlib.suppress(OAuthError):
                    try:
                        await call(full_token())
                    except OAuthError as error:
                        sink.error(error)
                        raise
        sink.tasks()


@pytest.mark.parametrize("quirks", [Quirks(insecure_get_request=True), Quirks()])
async def test_G_12_S_22_nor_where_nobody_answers(quirks: Quirks, sink: Sink) -> None:
    async def silent(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return None

    async with record(silent) as wire:
        client = server_of(wire, quirks=quirks)
        for grant in grants():
            with sink.fails():
                await client.fetch_token(grant)
    for grant in grants():  # now the connection is refused
        with sink.fails():
            await client.fetch_token(grant)


@pytest.mark.parametrize("fault", FAULTS)
async def test_G_12_S_22_no_refresh_shows_a_secret_when_the_server_fails(fault: str, sink: Sink) -> None:
    """Through the middleware: the API refuses the token, and the server fails."""

    def api(seen: Seen) -> bytes:
        return answer(401, ECHO.encode(), {"WWW-Authenticate": INVALID, **COOKIE})

    store = SealingStore()
    async with answering(FAULTS[fault]) as server, record(api) as resource:
        tokens = Tokens(server_of(server), ClientCredentials(), store=store, on_event=sink.event)
        await tokens.save(full_token())
        auth = OAuth2Auth(tokens, origins=resource.url)
        jar = CookieJar(unsafe=True)
        jar.update_cookies({"mine": CANARIES["cookie"]}, resource.url)
        async with ClientSession(middlewares=[auth], cookie_jar=jar, raise_for_status=True) as session:
            for _ in range(2):
                with sink.fails(OAuthError, ClientResponseError):
                    await session.post(resource.url, data=b"body")
            sink.tasks()
            with sink.fails(OAuthError, ClientResponseError, WSServerHandshakeError):
                await session.ws_connect(resource.url)
        sink.objects(tokens, auth, store, tokens.for_key("default"), tokens.counts)
        assert leaked(b"".join(bytes(seen.raw) for seen in resource.seen).decode()) == ["access-token", "cookie"]
    with contextlib.suppress(OAuthError):
        await tokens.revoke()


async def test_G_12_S_22_the_main_flow_shows_no_secret(sink: Sink) -> None:
    asyncio.get_running_loop().set_debug(True)
    stored: list[object] = []

    async def on_token(token: Token, key: str) -> None:
        sink.objects(token)
        stored.append(token)
        raise RuntimeError("mine")

    def on_event(event: Event) -> None:
        sink.event(event)
        sink.tasks()
        raise RuntimeError("mine")

    def api(seen: Seen) -> bytes:
        sink.tasks()
        if len(resource.seen) % 2:
            return answer(401, b"", {"WWW-Authenticate": INVALID, **COOKIE})
        return answer(200, b"fine", COOKIE)

    numbers = iter(range(1000))

    def reply(seen: Seen) -> bytes:
        return token_answer(
            f"{CANARIES['access-token']}{next(numbers)}", refresh_token=CANARIES["refresh-token"], expires_in=3600, **EXTRA
        )

    async with record(reply) as server, record(api) as resource:
        store = SealingStore()
        tokens = Tokens(server_of(server), ClientCredentials(), store=store, on_token=on_token, on_event=on_event)
        await tokens.save(full_token())
        auth = OAuth2Auth(tokens, origins=resource.url)
        async with ClientSession(middlewares=[auth], cookie_jar=CookieJar(unsafe=True)) as session:
            detach = attach(session, OAuth2Auth(tokens, origins=resource.url))
            for data in (None, b"body", {"form": "1"}):
                async with session.post(resource.url, data=data) as response:
                    assert response.status == 200
                    sink.note("request_info", repr(response.request_info.headers.get("Authorization")))
            sink.objects(tokens, auth, store, tokens.client, session.headers, detach)
        async for label in tokens.keys():
            sink.note("key", label)
        await tokens.aclose()
    assert stored
    assert {event for event, number in tokens.counts.items() if number} >= {"refresh_succeeded", "hook_failed"}


@pytest.mark.parametrize("placement", [BearerHeader(), Header("X-Auth-Token", scheme=""), FormBody()])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
async def test_G_12_F_55_no_response_error_shows_a_secret(placement: Any, status: int, sink: Sink) -> None:
    async with record(answer(status, ECHO.encode(), {"WWW-Authenticate": INVALID})) as resource:
        auth = OAuth2Auth(StaticToken(CANARIES["access-token"]), origins=resource.url, placement=placement)
        async with ClientSession(middlewares=[auth], raise_for_status=True) as session:
            with sink.fails(ClientResponseError):
                await session.post(resource.url, data={"a": "1"})
        (seen,) = resource.seen
        assert CANARIES["access-token"].encode() in seen.raw
    (error,) = sink.errors
    assert isinstance(error, ClientResponseError)
    sink.note("request_info", repr(error.request_info))


@pytest.mark.parametrize("how", ["load", "save", "corrupt"])
async def test_G_12_S_22_a_store_that_breaks_shows_no_secret(how: str, sink: Sink) -> None:
    store = SealingStore()
    async with record(body()) as server:
        tokens = Tokens(server_of(server), ClientCredentials(), store=store, on_event=sink.event)
        await tokens.save(full_token(expires_at=time.time() - 5))
        again = Tokens(server_of(server), ClientCredentials(), store=store, on_event=sink.event)
        store.broken = how
        for source in (tokens, again):
            try:
                await source.token()
            except OAuthError as error:
                sink.error(error)
        if how == "save":
            with sink.fails():
                await tokens.save(full_token())
        sink.tasks()
    assert sink.errors


@pytest.mark.parametrize("work", ["token", "login", "revoke"])
async def test_G_12_S_22_F_51_a_record_that_cannot_be_read_shows_no_secret(work: str, sink: Sink) -> None:
    store = SealingStore()
    async with record(body()) as server:
        tokens = Tokens(server_of(server), ClientCredentials(), store=store, on_event=sink.event)
        await tokens.save(full_token())
        again = Tokens(server_of(server), ClientCredentials(), store=store, on_event=sink.event)
        store.broken = "corrupt"
        with sink.fails(StoreCorrupted):
            await getattr(again, work)()
    (error,) = sink.errors
    for one in chained(error):
        # A JSONDecodeError has the whole text in its ``doc``, where no repr shows it.
        assert not leaked(repr(vars(one))), type(one)


async def test_G_12_S_22_what_the_users_callables_raise_shows_no_secret(sink: Sink) -> None:
    def secret() -> str:
        raise KeyError("vault")

    def session() -> ClientSession:
        raise KeyError("proxy")

    def change(request: EndpointRequest) -> None:
        sink.objects(request)
        raise KeyError("hook")

    def answered(response: EndpointResponse) -> EndpointResponse:
        sink.objects(response)
        raise KeyError("hook")

    def spoil(request: EndpointRequest) -> None:
        request.headers["X-Bad"] = f"{CANARIES['assertion']}\r\nX: y"

    async with record(body()) as server:
        for client in (
            server_of(server, authentication=ClientSecretBasic(secret)),
            server_of(server, session_factory=session),
            server_of(server, hooks=[Hook("access_token_request", change)]),
            server_of(server, hooks=[Hook("access_token_response", answered)]),
            server_of(server, hooks=[Hook("access_token_request", spoil)]),
        ):
            for grant in grants():
                with sink.fails(Exception):
                    await client.fetch_token(grant)
            tokens = Tokens(client, ClientCredentials(), on_event=sink.event)
            with sink.fails(Exception):
                await tokens.token()


@pytest.mark.parametrize("error", [KeyError("x"), OSError(5, "x"), TimeoutError(), ClientResponseError])
@pytest.mark.parametrize("refused", [False, True])
async def test_G_12_S_22_a_source_that_breaks_shows_no_secret(error: Any, refused: bool, sink: Sink) -> None:
    # A source with HTTP of its own: what its error knows of its request is not ours to show.
    quoted = RequestInfo(URL("https://vault.example/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("https://vault.example/"))

    class Broken:
        async def token(self, refusal: Refusal | None = None) -> Token | None:
            if refusal is None and refused:
                return full_token()
            raise error if isinstance(error, BaseException) else ClientResponseError(quoted, (), status=500)

    async with record(answer(401, ECHO.encode(), {"WWW-Authenticate": INVALID, **COOKIE})) as resource:
        auth = OAuth2Auth(Broken(), origins=resource.url)
        async with ClientSession(middlewares=[auth], cookie_jar=CookieJar(unsafe=True)) as session:
            for _ in range(2):
                with sink.fails(Exception):
                    await session.get(resource.url, headers={"Cookie": CANARIES["cookie"]})


@pytest.mark.parametrize("when", ["expired_when", "inside", "placement"])
async def test_G_12_S_22_what_breaks_around_the_middleware_shows_no_secret(when: str, sink: Sink) -> None:
    async def inside(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        response.close()
        raise KeyError("inside")

    def expired(response: ClientResponse) -> bool:
        raise KeyError("expired_when")

    async with record(answer(401, ECHO.encode(), {"WWW-Authenticate": INVALID, **COOKIE})) as resource:
        token = full_token(token_type="DPoP") if when == "placement" else full_token()
        auth = OAuth2Auth(StaticToken(token), origins=resource.url, expired_when=expired if when == "expired_when" else None)
        chain: list[Any] = [auth, inside] if when == "inside" else [auth]
        async with ClientSession(connector=TCPConnector(), middlewares=chain) as session:
            with sink.fails(Exception):
                await session.get(resource.url, headers={"Cookie": CANARIES["cookie"]})


CONSUMER = CANARIES["oauth1-consumer-secret"]
# A key of the right form; none of it is anybody's.
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARIES['dpop-key']}\n-----END PRIVATE KEY-----\n"


def oauth1_token() -> OAuth1Token:
    return OAuth1Token(
        CANARIES["oauth1-token"],
        CANARIES["oauth1-token-secret"],
        oauth_session_handle=CANARIES["oauth1-handle"],
        expires_at=time.time() + 3600,
        extra={"id_token": CANARIES["id-token"], "state": CANARIES["state"], "nonce": CANARIES["nonce"]},
    )


def oauth1_body(**members: object) -> bytes:
    """A token answer with a canary wherever one may be."""
    token = {"oauth_token": CANARIES["oauth1-token"], "oauth_token_secret": CANARIES["oauth1-token-secret"]}
    more = {
        "oauth_session_handle": CANARIES["oauth1-handle"],
        "oauth_callback_confirmed": "true",
        "id_token": CANARIES["id-token"],
    }
    return answer(200, urlencode(token | more | members).encode(), COOKIE)


def oauth1_legs(client: OAuth1Client, url: str) -> list[Callable[[], Awaitable[OAuth1Token]]]:
    password = {"x_auth_username": "alice", "x_auth_password": CANARIES["oauth1-password"]}
    return [
        lambda: client.fetch_request_token(url, extra={"x": CANARIES["nonce"]}),
        lambda: client.fetch_access_token(url, oauth1_token(), CANARIES["oauth1-verifier"]),
        lambda: client.fetch_access_token(url, extra=password),
        lambda: client.renew_access_token(url, oauth1_token()),
    ]


METHODS = ["HMAC-SHA1", "PLAINTEXT"]


@pytest.mark.parametrize("placement", ["header", "form", "query"])
@pytest.mark.parametrize("method", METHODS)
async def test_G_12_S_22_the_legs_of_oauth_1_show_no_secret_when_they_work(method: str, placement: Any, sink: Sink) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with record(oauth1_body()) as wire:
        client = OAuth1Client("app", CONSUMER, signature_method=method, placement=placement, redirect_uri="https://app/cb")
        for work in oauth1_legs(client, str(wire.url)):
            token = await work()
            sink.objects(token, client, client.signer, client.signer.method)
            sink.tasks()
            assert token.oauth_token == CANARIES["oauth1-token"]
        sent = b"".join(bytes(seen.raw) for seen in wire.seen).decode()
    planted = {"oauth1-token", "oauth1-verifier", "oauth1-handle", "oauth1-password", "nonce"}
    assert set(leaked(sent)) == planted | (
        {"oauth1-consumer-secret", "oauth1-token-secret"} if method == "PLAINTEXT" else set()
    )


OAUTH1_FAULTS: dict[str, Any] = {
    **FAULTS,
    "a problem that quotes": lambda text: answer(
        400, urlencode({"oauth_problem": text, "oauth_problem_advice": text}).encode()
    ),
    "a known problem that quotes": lambda text: json_answer(
        {"oauth_problem": "token_rejected", "oauth_problem_advice": text}, 401
    ),
    "a challenge that quotes": lambda text: answer(
        401,
        b"",
        {"WWW-Authenticate": f'OAuth oauth_problem="{quote(text)[:3000]}", oauth_parameters_absent="{quote(text)[:3000]}"'},
    ),
    "a token that is none": answer(200, f"oauth_token={ECHO}%0A&oauth_token_secret={ECHO}".encode()),
    "a token twice": answer(200, f"oauth_token={ECHO}&oauth_token={ECHO}".encode()),
    "a callback that is not confirmed": oauth1_body(oauth_callback_confirmed="false"),
}


@pytest.mark.parametrize("placement", ["header", "form", "query"])
@pytest.mark.parametrize("fault", OAUTH1_FAULTS)
async def test_G_12_S_22_the_legs_of_oauth_1_show_no_secret_when_the_server_fails(
    fault: str, placement: Any, sink: Sink
) -> None:
    async with answering(OAUTH1_FAULTS[fault]) as wire:
        for method in METHODS:
            client = OAuth1Client("app", CONSUMER, signature_method=method, placement=placement)
            for number, work in enumerate(oauth1_legs(client, str(wire.url))):
                if number == 0 or "confirmed" not in fault:
                    with sink.fails():
                        await work()
        sink.tasks()
    for work in oauth1_legs(OAuth1Client("app", CONSUMER, placement=placement), str(wire.url)):  # the connection is refused
        with sink.fails():
            await work()


@pytest.mark.parametrize("fault", OAUTH1_FAULTS)
async def test_G_12_S_22_no_renewal_of_oauth_1_shows_a_secret_when_the_server_fails(fault: str, sink: Sink) -> None:
    """Through the middleware: the API says that the token has expired, and the server fails."""
    refusal = answer(401, ECHO.encode(), {"WWW-Authenticate": "OAuth oauth_problem=token_expired", **COOKIE})
    store = SealingStore()
    async with answering(OAUTH1_FAULTS[fault]) as server, record(refusal) as resource:
        client = OAuth1Client("app", CONSUMER, signature_method="PLAINTEXT")
        tokens = OAuth1Tokens(store, client=client, renewal_url=str(server.url))
        await tokens.save(oauth1_token())
        auth = OAuth1Auth(client, tokens, origins=resource.url, on_event=sink.event)
        jar = CookieJar(unsafe=True)
        jar.update_cookies({"mine": CANARIES["cookie"]}, resource.url)
        async with ClientSession(middlewares=[auth], cookie_jar=jar, raise_for_status=True) as session:
            for _ in range(2):
                with sink.fails(OAuthError, ClientResponseError):
                    await session.post(resource.url, data=b"body")
            with sink.fails(OAuthError, ClientResponseError, WSServerHandshakeError):
                await session.ws_connect(resource.url)
            sink.tasks()
        sink.objects(tokens, auth, store, tokens.for_key("default"))
        planted = {"oauth1-consumer-secret", "oauth1-token-secret", "oauth1-token", "cookie"}
        assert planted <= set(leaked(b"".join(bytes(seen.raw) for seen in resource.seen).decode()))


@pytest.mark.parametrize("placement", ["header", "form"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
async def test_G_12_F_55_no_response_error_of_a_signed_request_shows_a_secret(
    status: int, method: str, placement: Any, sink: Sink
) -> None:
    challenge = {"WWW-Authenticate": 'OAuth oauth_problem="nonce_used"', "Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
    async with record(answer(status, ECHO.encode(), challenge)) as resource:
        client = OAuth1Client("app", CONSUMER, signature_method=method, placement=placement, body_hash="draft")
        auth = OAuth1Auth(client, oauth1_token(), origins=resource.url, on_event=sink.event)
        async with ClientSession(middlewares=[auth], raise_for_status=True) as session:
            with contextlib.nullcontext() if status == 200 else sink.fails(ClientResponseError):
                async with session.post(resource.url, data={"a": "1"}) as response:
                    sink.note("request_info", repr(response.request_info))
            with sink.fails(WSServerHandshakeError, ConfigurationError, ClientResponseError):
                await session.ws_connect(resource.url)
        sink.objects(auth, client)
        sent = set(leaked(bytes(resource.seen[0].raw).decode()))
    assert sent == {"oauth1-token"} | ({"oauth1-consumer-secret", "oauth1-token-secret"} if method == "PLAINTEXT" else set())
    for error in sink.errors:
        if isinstance(error, ClientResponseError):
            sink.note("request_info", repr(error.request_info))


class OAuth1Source:
    """A source of tokens of the user's own."""

    def __init__(self, token: Any) -> None:
        self._token = token

    async def token(self, refused: OAuth1Token | None = None) -> Any:
        if isinstance(self._token, Exception):
            raise self._token
        return self._token


def oauth1_failing(what: str) -> Any:
    """A client and a token of which one fails when a request is to be signed."""

    def fails(*arguments: str) -> str:
        raise KeyError("mine")

    def no_signature(*arguments: str) -> Any:
        return None

    def no_text() -> str:
        return CONSUMER + "\ud800"

    makers: dict[str, Callable[[], tuple[OAuth1Client, Any]]] = {
        "sign": lambda: (OAuth1Client("app", CONSUMER, signature_method=SignatureMethod("MINE", fails)), oauth1_token()),
        "no signature": lambda: (
            OAuth1Client("app", CONSUMER, signature_method=SignatureMethod("M", no_signature)),
            oauth1_token(),
        ),
        "secret": lambda: (OAuth1Client("app", fails), oauth1_token()),
        "a secret that is no text": lambda: (OAuth1Client("app", no_text), oauth1_token()),
        "a key that is none": lambda: (
            OAuth1Client("app", signature_method=SignatureMethod.rsa("RSA-SHA1", PEM)),
            oauth1_token(),
        ),
        "the source": lambda: (OAuth1Client("app", CONSUMER), OAuth1Source(OAuthError("mine"))),
        "the source's network": lambda: (OAuth1Client("app", CONSUMER), OAuth1Source(OSError(5, "mine"))),
        "no token": lambda: (OAuth1Client("app", CONSUMER), OAuth1Source(CANARIES["oauth1-token"])),
        "a dict": lambda: (OAuth1Client("app", CONSUMER), OAuth1Source(oauth1_token().to_dict())),
    }
    return makers[what]()


FAILING = [
    "sign",
    "no signature",
    "secret",
    "a secret that is no text",
    "a key that is none",
    "the source",
    "no token",
    "a dict",
]


@pytest.mark.parametrize("what", FAILING)
async def test_G_12_S_22_what_breaks_while_a_request_is_signed_shows_no_secret(what: str, sink: Sink) -> None:
    client, token = oauth1_failing(what)
    async with record() as resource:
        auth = OAuth1Auth(client, token, origins=resource.url, on_event=sink.event)
        sink.objects(auth, client, client.signer, client.signer.method)
        async with ClientSession(middlewares=[auth]) as session:
            with sink.fails():
                await session.post(resource.url, data={"x_auth_password": CANARIES["oauth1-password"]})
            with sink.fails():
                await session.ws_connect(resource.url)
        assert resource.received == 0
    if not isinstance(token, OAuth1Source):
        for work in oauth1_legs(client, "https://provider.example/token"):
            with sink.fails():
                await work()
        with sink.fails():
            await client.sign("POST", "https://h/", token, form={"x": CANARIES["oauth1-password"]})
        with sink.fails():
            await client.sign("POST", "https://h/", token, form=f"x={CANARIES['oauth1-password']}")


async def test_G_12_S_22_a_parameter_that_is_refused_shows_no_secret(sink: Sink) -> None:
    client = OAuth1Client("app", CONSUMER)
    async with record() as resource:
        async with ClientSession(middlewares=[OAuth1Auth(client, oauth1_token(), origins=resource.url)]) as session:
            with sink.fails(ConfigurationError):
                await session.post(
                    resource.url, data={"oauth_token": CANARIES["oauth1-token"], "p": CANARIES["oauth1-password"]}
                )
        assert resource.received == 0
    url = "https://provider.example/token?oauth_verifier=x"
    with sink.fails(ConfigurationError):
        await client.fetch_access_token(url, oauth1_token(), CANARIES["oauth1-verifier"])


@pytest.mark.parametrize("how", ["load", "corrupt"])
async def test_G_12_S_22_F_51_a_store_of_oauth_1_tokens_that_breaks_shows_no_secret(how: str, sink: Sink) -> None:
    store = SealingStore()
    tokens = OAuth1Tokens(store)
    await tokens.save(oauth1_token())
    store.broken = how
    with sink.fails():
        await OAuth1Tokens(store).token()
    store.broken = "save"
    with sink.fails():
        await tokens.save(oauth1_token())
    for error in sink.errors:
        for one in chained(error):
            assert not leaked(repr(vars(one))), type(one)


def objects() -> dict[str, object]:
    """One of each public class, with canaries in it."""
    metadata = ServerMetadata(token_endpoint="https://as.example/token")
    client = Client(metadata, "app", ClientSecret(SECRET))
    tokens = Tokens(client, ClientCredentials())
    static = StaticToken(CANARIES["access-token"])
    refusal = Refusal(URL("https://api.example.com/"), 401, [Challenge("bearer", {"error": "invalid_token"})], full_token())
    found: list[object] = [
        *grants(),
        metadata,
        client,
        client.authentication,
        ClientSecretBasic(SECRET),
        ClientSecretPost(SECRET),
        ClientSecretPost(lambda: SECRET),
        tokens,
        tokens.for_key("key"),
        static,
        StaticToken(Secret(CANARIES["access-token"])),
        StaticToken(full_token()),
        StaticToken(lambda: CANARIES["access-token"]),
        OAuth2Auth(static),
        refusal,
        refusal.wanted,
        Wanted(),
        full_token(),
        Secret(SECRET),
        Secret(lambda: SECRET),
        Record(1, "label", CANARIES["refresh-token"].encode()),
        EndpointRequest(
            "https://as.example/t", [("code", Secret(CANARIES["code"])), ("n", CANARIES["nonce"])], {"A": Secret(BASIC)}
        ),
        EndpointResponse(200, {"set-cookie": CANARIES["cookie"]}, ECHO.encode()),
        Event("refresh_started", "0123abcd"),
        Quirks(),
        BearerHeader(),
        FormBody(),
        oauth1_token(),
        (consumer := OAuth1Client("app", CONSUMER)),
        OAuth1Client("app", lambda: CONSUMER, signature_method="PLAINTEXT"),
        consumer.signer,
        SignatureMethod.rsa("RSA-SHA256", PEM),
        SignatureMethod.rsa("RSA-SHA256", PEM.encode()),
        (users := OAuth1Tokens(client=consumer)),
        users.for_key("key"),
        OAuth1Auth(consumer, oauth1_token()),
        OAuth1Auth(consumer, users),
    ]
    return {f"{number} {type(one).__name__}": one for number, one in enumerate(found)}

    return URL("https://api.example.com/")


@pytest.mark.parametrize("name", objects())
def test_G_12_S_22_neither_repr_nor_str_nor_vars_of_a_public_object_shows_a_secret(name: str, sink: Sink) -> None:
    sink.objects(objects()[name])


@pytest.mark.parametrize("name", objects())
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_G_12_S_22_what_holds_a_secret_is_not_pickled(name: str, protocol: int, sink: Sink) -> None:
    try:
        text = pickle.dumps(objects()[name], protocol)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        sink.error(error)
    else:
        assert not leaked(text.decode("latin-1"))


BAD: list[Callable[[], object]] = [
    lambda: Token(CANARIES["access-token"] + "\n"),
    lambda: Token(CANARIES["access-token"], refresh_token=f"{CANARIES['refresh-token']} x"),
    lambda: Token(CANARIES["access-token"], extra={"access_token": CANARIES["access-token"]}),
    lambda: Token.from_dict({"access_token": CANARIES["access-token"] + "\0"}),
    lambda: Token.from_dict({"token": CANARIES["access-token"]}),
    lambda: Token.from_json('{"access_token": "' + CANARIES["access-token"]),
    lambda: AuthorizationCode(CANARIES["code"], code_verifier=CANARIES["verifier"] + "!"),
    lambda: AuthorizationCode(CANARIES["code"], extra={"code": Secret(CANARIES["code"])}),
    lambda: RefreshToken(CANARIES["refresh-token"], scope='"'),
    lambda: ExtensionGrant("x", {"client_secret": Secret(SECRET)}),
    lambda: ExtensionGrant("x", {"assertion": Secret(CANARIES["assertion"])}, extra={"assertion": Secret("other")}),
    lambda: Password("", CANARIES["password"]),
    lambda: Client("https://as.example", "app", SECRET),  # type: ignore[arg-type]
    lambda: Client("https://as.example/?x=1", "app", ClientSecret(SECRET)),
    lambda: StaticToken(CANARIES["access-token"] + " "),
    lambda: OAuth2Auth(CANARIES["access-token"]),  # type: ignore[arg-type]
    lambda: OAuth2Auth(StaticToken(CANARIES["access-token"]), origins="http://api.example.com"),
    lambda: OAuth1Token(CANARIES["oauth1-token"], CANARIES["oauth1-token-secret"] + "\n"),
    lambda: OAuth1Token(CANARIES["oauth1-token"] + "\n", oauth_session_handle=CANARIES["oauth1-handle"]),
    lambda: OAuth1Token.from_dict(
        {"oauth_token": CANARIES["oauth1-token"], "oauth_token_secret": [CANARIES["oauth1-token-secret"]]}
    ),
    lambda: OAuth1Token.from_json('{"oauth_token": "' + CANARIES["oauth1-token"]),
    lambda: OAuth1Client("app", CONSUMER, signature_method=PEM),
    lambda: OAuth1Client("app", CONSUMER + "\n"),
    lambda: OAuth1Client("app", CONSUMER, timeout=-1),
    lambda: OAuth1Client("app", [CONSUMER]),  # type: ignore[arg-type]
    lambda: SignatureMethod.rsa("RSA-MD5", PEM),
    lambda: SignatureMethod.rsa("RSA-SHA1", CANARIES["dpop-key"]),
    lambda: OAuth1Auth(OAuth1Client("app", CONSUMER), CANARIES["oauth1-token"]),  # type: ignore[arg-type]
    lambda: OAuth1Auth(OAuth1Client("app", CONSUMER), oauth1_token().to_dict()),  # type: ignore[arg-type]
    lambda: OAuth1Auth(OAuth1Client("app", CONSUMER), oauth1_token(), origins="http://api.example.com"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_G_12_S_22_a_refused_argument_is_not_shown(number: int, sink: Sink) -> None:
    with sink.fails(ConfigurationError):
        BAD[number]()


async def test_G_12_S_22_a_refused_source_token_is_not_shown(sink: Sink) -> None:
    async with record() as resource:
        auth = OAuth2Auth(StaticToken(lambda: CANARIES["access-token"] + "\r\nX: y"), origins=resource.url)
        async with ClientSession(middlewares=[auth]) as session:
            with sink.fails(ConfigurationError):
                await session.get(resource.url)
        assert resource.received == 0


def test_G_12_the_sink_would_notice() -> None:
    sink = Sink()

    def leak() -> None:
        raise ValueError(CANARIES["code"])

    with sink.fails(ValueError):
        leak()
    with pytest.raises(AssertionError, match="code"):
        sink.check()
    sink = Sink()
    sink.note("x", BASIC)
    with pytest.raises(AssertionError, match="basic"):
        sink.check()
    assert len(CANARIES) >= 14
