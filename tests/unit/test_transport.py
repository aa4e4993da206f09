"""The exchange with the authorization server: a thread, a loop and a session of its own, and nothing of the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aiohttp_oauth_middleware import (
    AuthorizationCode,
    Client,
    ClientCredentials,
    ClientSecret,
    ConfigurationError,
    EndpointRequest,
    EndpointResponse,
    OAuthError,
    Secret,
    ServerMetadata,
    Token,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.client import transport
from aiohttp_oauth_middleware.client.transport import close_exchanges, exchange
from tests.clock import VirtualClock
from tests.raw_server import RawServer, Request, answer, serve, token_answer

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def fresh_lane() -> Iterator[None]:
    """Each test starts and ends without the thread."""
    close_exchanges()
    transport._forget_lane()  # also of the answers that nobody came for
    yield
    close_exchanges()
    assert exchange_threads() == []


def exchange_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "oauth-exchange"]


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # another thread does it, which sets no event of this loop


def send(url: str, *, factory: Any = None, timeout: float = 10.0, **headers: str | Secret) -> Awaitable[EndpointResponse]:
    request = EndpointRequest(url, [("refresh_token", Secret("CANARY-rt"))], headers)
    return exchange(request, name="the token endpoint", timeout=timeout, body_limit=65_536, session_factory=factory)


async def unavailable(url: str, **given: Any) -> TokenUnavailable:
    with pytest.raises(TokenUnavailable) as caught:
        await send(url, **given)
    assert "CANARY" not in f"{caught.value} {caught.value.__cause__!r}"
    return caught.value


# --- What rides along: nothing ------------------------------------------------------------------------------------------


async def test_F_46_the_exchange_runs_on_a_thread_of_its_own_that_holds_up_no_exit() -> None:
    seen: list[threading.Thread] = []

    def make() -> aiohttp.ClientSession:
        seen.append(threading.current_thread())
        return aiohttp.ClientSession()

    async with serve(token_answer()) as server:
        await send(server.url, factory=make)
    (thread,) = seen
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert [thread] == exchange_threads()


async def test_F_46_nothing_of_the_callers_session_rides_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login CANARY password CANARY\ndefault login CANARY password CANARY\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with serve(token_answer()) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        traced: list[object] = []

        async def trace(*args: object) -> None:
            traced.append(args)

        async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            traced.append(request)
            return await handler(request)

        config = aiohttp.TraceConfig()
        config.on_request_start.append(trace)
        async with serve(answer(200, b"{}", {"Set-Cookie": "CANARY=1; Path=/"})) as server:
            async with aiohttp.ClientSession(
                headers={"X-Mine": "CANARY", "User-Agent": "CANARY"},
                cookies={"CANARY": "1"},
                trace_configs=[config],
                trust_env=True,
                middlewares=[middleware],
                raise_for_status=True,
            ):
                # The second time the server has set a cookie.
                await send(server.url)
                await send(server.url)
            assert traced == []
            assert proxy.connections == 0
            for request in server.requests:
                assert set(request.headers) == {
                    "host",
                    "user-agent",
                    "content-length",
                    "content-type",
                    "accept",
                    "accept-encoding",
                }
                assert "CANARY" not in str(request.fields)
                assert request.body == b"refresh_token=CANARY-rt"


async def test_F_46_no_netrc_replaces_our_credentials_in_a_session_that_trusts_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login CANARY password CANARY\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(trust_env=True)

    async with serve(token_answer()) as server:
        await send(server.url, factory=make, Authorization=Secret("Basic b3VyczpvdXJz"))
        await send(server.url, factory=make)
    assert server.requests[0].headers["authorization"] == "Basic b3VyczpvdXJz"
    assert "authorization" not in server.requests[1].headers


async def test_F_46_a_session_of_the_users_own_adds_no_middleware_and_no_credentials_to_its_traces() -> None:
    seen: list[str] = []

    async def started(session: Any, context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        seen.append(f"start {dict(params.headers)}")

    async def ended(session: Any, context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        seen.append(f"end {dict(params.headers)} {dict(params.response.request_info.headers)}")

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append("middleware")
        return await handler(request)

    def make() -> aiohttp.ClientSession:
        config = aiohttp.TraceConfig()
        config.on_request_start.append(started)
        config.on_request_end.append(ended)
        return aiohttp.ClientSession(trace_configs=[config], middlewares=[middleware])

    async with serve(token_answer()) as server:
        await send(server.url, factory=make, Authorization=Secret("Basic CANARY"))
    assert [line.split()[0] for line in seen] == ["start", "end"]
    assert "CANARY" not in " ".join(seen)
    assert server.requests[0].headers["authorization"] == "Basic CANARY"


async def test_the_callers_session_may_be_closed_while_an_exchange_is_under_way() -> None:
    gate = asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> bytes:
        await gate.wait()
        return token_answer()

    async with serve(slowly) as server:
        async with aiohttp.ClientSession():
            waiting = asyncio.ensure_future(send(server.url))
            await server.until(lambda: len(server.requests) == 1)
        gate.set()
        assert (await waiting).status == 200


# --- The caller goes away -----------------------------------------------------------------------------------------------


async def test_P0_an_exchange_ends_although_nobody_waits_for_it_any_more() -> None:
    gate, answered = asyncio.Event(), asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> bytes:
        await gate.wait()
        answered.set()
        return token_answer()

    async with serve(slowly) as server:
        waiting = asyncio.ensure_future(send(server.url))
        await server.until(lambda: len(server.requests) == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert server.open_connections == 1
        gate.set()
        await answered.wait()
        await until(lambda: transport._lane._under_way == 0)
        # What was to be handed over finds nobody.
        await asyncio.to_thread(close_exchanges)
        await asyncio.sleep(0)


def spending(url: str, spends: str = "digest") -> Awaitable[EndpointResponse]:
    request = EndpointRequest(url, [("refresh_token", Secret("CANARY-rt"))])
    request.spends = spends
    return exchange(request, name="the token endpoint", timeout=10.0, body_limit=65_536)


async def left(server: RawServer, arrival: Awaitable[EndpointResponse], number: int = 1) -> None:
    """Stop waiting for *arrival*, once the request has come."""
    waiting = asyncio.ensure_future(arrival)
    await server.until(lambda: len(server.requests) == number)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_P0_an_exchange_that_nobody_heard_of_and_that_failed_is_not_picked_up() -> None:
    gate = asyncio.Event()

    async def broken_at_first(request: Request, writer: asyncio.StreamWriter) -> bytes | None:
        if len(server.requests) > 1:
            return token_answer("second")
        await gate.wait()
        return None

    async with serve(broken_at_first) as server:
        await left(server, spending(server.url))
        ((outcome, _),) = transport._lane._unclaimed.values()
        gate.set()
        await until(outcome.done)
        assert isinstance(outcome.exception(), TokenUnavailable)
        assert b"second" in (await spending(server.url)).body
        assert len(server.requests) == 2
        assert transport._lane._unclaimed == {}


async def test_P0_an_exchange_that_has_ended_unheard_is_picked_up_once() -> None:
    made = iter(range(1, 9))
    async with serve(lambda request: token_answer(f"at-{next(made)}")) as server:
        await left(server, spending(server.url))
        ((outcome, _),) = transport._lane._unclaimed.values()
        await until(outcome.done)
        assert b"at-1" in (await spending(server.url)).body
        assert len(server.requests) == 1
        assert transport._lane._unclaimed == {}
        assert b"at-2" in (await spending(server.url)).body, "it was heard: this is another request"


async def test_P0_S_22_answers_that_nobody_comes_for_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    monkeypatch.setattr(transport, "time", clock)
    monkeypatch.setattr(transport, "UNCLAIMED_MOST", 5)
    async with serve(token_answer()) as server:
        lane = transport._lane
        for number in range(20):
            await left(server, spending(server.url, f"{number}"), number + 1)
            await until(lane._unclaimed[f"{number}"][0].done)
        assert list(lane._unclaimed) == ["15", "16", "17", "18", "19"]
        clock.advance(601.0)
        await left(server, spending(server.url), 21)
        assert list(lane._unclaimed) == ["digest"]


async def test_P0_what_spends_nothing_is_never_picked_up() -> None:
    gate = asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> bytes:
        await gate.wait()
        return token_answer()

    async with serve(slowly) as server:
        await left(server, send(server.url))
        assert transport._lane._unclaimed == {}
        again = asyncio.ensure_future(send(server.url))
        await server.until(lambda: len(server.requests) == 2)
        gate.set()
        await again


def earned_by_code(client: Client, secret: str) -> Awaitable[Token]:
    return client.fetch_token(AuthorizationCode(secret))


def earned_by_refresh(client: Client, secret: str) -> Awaitable[Token]:
    return client.refresh(secret)


@pytest.mark.parametrize("earn", [earned_by_code, earned_by_refresh])
async def test_P0_an_answer_that_is_picked_up_counts_from_when_its_request_was_sent(
    earn: Callable[[Client, str], Awaitable[Token]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, clock = asyncio.Event(), VirtualClock()
    monkeypatch.setattr(transport, "time", clock)

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> bytes:
        await gate.wait()
        return token_answer(f"at-{len(server.requests)}", expires_in=3600)

    async with serve(slowly) as server:
        metadata = ServerMetadata(token_endpoint=server.url)
        client, other = (Client(metadata, name, ClientSecret("s"), clock=clock) for name in ("id", "other"))
        sent_at = clock.time()
        waiting = asyncio.ensure_future(earn(client, "one"))
        await server.until(lambda: len(server.requests) == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        clock.advance(100.0)
        second = asyncio.ensure_future(earn(client, "one"))
        foreign = [asyncio.ensure_future(earn(*given)) for given in ((other, "one"), (client, "another"))]
        await server.until(lambda: len(server.requests) == 3)
        gate.set()
        token = await second
        assert (token.obtained_at, token.expires_at) == (sent_at, sent_at + 3600.0)
        for waiter in foreign:
            assert (await waiter).obtained_at == sent_at + 100.0, "another client or another secret is another request"
        assert len(server.requests) == 3
    assert transport._lane._unclaimed == {}


def test_the_loop_that_asked_may_be_closed_before_the_answer() -> None:
    arrived, gate, served = threading.Event(), threading.Event(), threading.Event()
    url: list[str] = []
    stop = threading.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await asyncio.to_thread(gate.wait, 20)
        served.set()
        return token_answer()

    async def host() -> None:
        async with serve(slowly) as server:
            url.append(server.url)
            arrived.clear()
            await asyncio.to_thread(stop.wait, 20)

    async def ask() -> None:
        waiting = send(url[0])
        assert await asyncio.to_thread(arrived.wait, 20)
        del waiting

    hosting = threading.Thread(target=lambda: asyncio.run(host()))
    hosting.start()
    try:
        deadline = time.monotonic() + 20
        while not url and time.monotonic() < deadline:
            time.sleep(0.005)
        asyncio.run(ask())
        gate.set()
        assert served.wait(20)
        while transport._lane._under_way and time.monotonic() < deadline:
            time.sleep(0.005)
        assert transport._lane._under_way == 0
    finally:
        stop.set()
        gate.set()
        hosting.join(20)


async def test_what_is_under_way_when_the_process_ends_is_told_as_in_doubt() -> None:
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(never) as server:
        waiting = asyncio.ensure_future(send(server.url))
        await server.until(lambda: len(server.requests) == 1)
        await asyncio.to_thread(close_exchanges)
        with pytest.raises(TokenUnavailable) as caught:
            await waiting
        assert caught.value.maybe_spent
    close_exchanges()  # a second time is harmless


async def test_what_was_not_sent_when_the_process_ends_is_told_too() -> None:
    opening = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def never() -> aiohttp.ClientSession:
        loop.call_soon_threadsafe(opening.set)
        await asyncio.Event().wait()
        raise AssertionError

    waiting = asyncio.ensure_future(send("http://127.0.0.1:1/", factory=never))
    await opening.wait()
    await asyncio.to_thread(close_exchanges)
    with pytest.raises(TokenUnavailable, match="this process is ending"):
        await waiting


# --- Whether the request had left: F-25 ---------------------------------------------------------------------------------


async def test_F_25_what_never_connected_was_not_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = await unavailable(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert (refused.maybe_spent, refused.retryable) == (False, True)
    assert isinstance(refused.__cause__, aiohttp.ClientConnectorError)


async def test_F_25_what_could_not_be_resolved_was_not_sent() -> None:
    class Nowhere(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[aiohttp.abc.ResolveResult]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def close(self) -> None:
            pass

    def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Nowhere()))

    error = await unavailable("http://as.example/token", factory=make)
    assert (error.maybe_spent, error.retryable) == (False, True)
    assert isinstance(error.__cause__, aiohttp.ClientConnectorDNSError)


@contextlib.contextmanager
def serve_in_a_thread(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of blocking sockets, each closed before this returns: a loop would leave half a TLS handshake to the garbage."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(20)
                    if ending:
                        return
                    handle(connection)

        ending: list[bool] = []
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ending.append(True)
            with contextlib.suppress(OSError):
                socket.create_connection(listener.getsockname(), 20).close()
            thread.join(20)


async def test_F_25_where_there_is_no_tls_nothing_was_sent() -> None:
    received: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        received.append(connection.recv(65_536))
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with serve_in_a_thread(handle) as port:
        error = await unavailable(f"https://127.0.0.1:{port}/")
    assert (error.maybe_spent, error.retryable) == (False, True)
    assert not any(b"CANARY" in data for data in received)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@contextlib.contextmanager
def serve_tls(certificate: tuple[Path, Path]) -> Iterator[tuple[str, list[bytes]]]:
    """A server with TLS, and what it read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    received: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := secured.recv(65_536)):
                    return
                data += more
            received.append(data)
            secured.sendall(token_answer())

    with serve_in_a_thread(handle) as port:
        yield f"https://127.0.0.1:{port}/token", received


async def test_F_25_S_29_a_certificate_that_can_not_be_verified_gets_nothing(certificate: tuple[Path, Path]) -> None:
    with serve_tls(certificate) as (url, received):
        error = await unavailable(url)
        assert (error.maybe_spent, error.retryable, received) == (False, True, [])
        assert "has a TLS certificate that can't be verified" in str(error)


async def test_a_private_ca_is_a_session_factory(certificate: tuple[Path, Path]) -> None:
    def make() -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    with serve_tls(certificate) as (url, received):
        assert (await send(url, factory=make)).status == 200
        assert len(received) == 1


async def test_F_25_a_handshake_without_an_end_times_out_and_nothing_was_sent() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        error = await unavailable(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.2)
    assert not error.maybe_spent
    assert "did not answer within 0.2 s" in str(error)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_F_25_F_26_what_was_sent_is_in_doubt(reset: bool) -> None:
    async def broken(request: Request, writer: asyncio.StreamWriter) -> None:
        if reset:
            writer.transport.abort()

    async with serve(broken) as server:
        error = await unavailable(server.url)
        assert (error.maybe_spent, error.retryable) == (True, True)
        assert len(server.requests) == 1


async def test_F_25_F_45_each_request_is_marked_for_itself() -> None:
    """A connection that is reused doesn't lend its mark, and a POST on a stale one is not sent again."""
    async with serve(lambda request: token_answer()) as server:
        await send(server.url)
    # The connection is kept, and its server is gone.
    error = await unavailable(server.url, timeout=5)
    assert len(server.requests) == 1
    assert error.retryable


async def test_a_server_that_answers_before_the_request_is_over_is_heard() -> None:
    async def early(request: Request, writer: asyncio.StreamWriter) -> bytes:
        return answer(413, b'{"error": "invalid_request"}', {"Connection": "close"})

    async with serve(early) as server:
        assert (await send(server.url)).status == 413


# --- Sessions for bursts, and the end of the thread ---------------------------------------------------------------------


async def test_connections_are_reused_in_bursts_and_closed_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SESSION_IDLE", 0.05)
    async with serve(token_answer()) as server:
        await send(server.url)
        await send(server.url)
        assert server.connections == 1
        await server.until(lambda: server.open_connections == 0)
        await until(lambda: exchange_threads() == [])
        # And it starts again at need.
        assert (await send(server.url)).status == 200
        assert len(exchange_threads()) == 1
        await until(lambda: exchange_threads() == [])


async def test_a_session_in_use_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SESSION_IDLE", 0.02)
    gate = asyncio.Event()
    idle: list[aiohttp.ClientSession] = []

    def make() -> aiohttp.ClientSession:
        idle.append(aiohttp.ClientSession())
        return idle[-1]

    async def reply(request: Request, writer: asyncio.StreamWriter) -> bytes:
        if request.path == "/slow":
            await gate.wait()
        return token_answer()

    async with serve(reply) as server:
        waiting = asyncio.ensure_future(send(server.url + "/slow"))
        await server.until(lambda: len(server.requests) == 1)
        thread = exchange_threads()
        for _ in range(2):
            await send(server.url + "/quick", factory=make)
            await until(lambda: idle[-1].closed)
        assert len(idle) == 2
        assert exchange_threads() == thread
        gate.set()
        assert (await waiting).status == 200
        await until(lambda: exchange_threads() == [])


async def test_a_session_that_is_being_made_anew_is_not_tidied_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SESSION_IDLE", 0.02)
    gate, made = threading.Event(), list[aiohttp.ClientSession]()

    async def make() -> aiohttp.ClientSession:
        if made:
            await asyncio.to_thread(gate.wait)
        made.append(aiohttp.ClientSession())
        return made[-1]

    async with serve(token_answer()) as server:
        await send(server.url, factory=make)
        lane = transport._lane
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(made[0].close(), made[0]._loop))
        again = asyncio.ensure_future(send(server.url, factory=make))
        try:
            await until(lambda: make not in lane._sessions)
            assert make in lane._opening, "who comes now would make a session besides"
        finally:
            gate.set()
        await again
    assert len(made) == 2


async def test_what_else_the_user_sends_with_such_a_session_marks_nothing() -> None:
    made: list[tuple[aiohttp.ClientSession, asyncio.AbstractEventLoop]] = []

    def make() -> aiohttp.ClientSession:
        made.append((aiohttp.ClientSession(), asyncio.get_running_loop()))
        return made[-1][0]

    async with serve(token_answer()) as server:
        await send(server.url, factory=make)
        ((session, loop),) = made

        async def other() -> int:
            async with session.get(server.url + "/other") as response:
                return response.status

        assert await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(other(), loop)) == 200
        assert server.paths() == ["/", "/other"]


async def test_each_factory_has_a_session_of_its_own_and_all_others_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[aiohttp.ClientSession] = []

    def first() -> aiohttp.ClientSession:
        opened.append(aiohttp.ClientSession())
        return opened[-1]

    def second() -> aiohttp.ClientSession:
        return first()

    monkeypatch.setattr(transport, "SESSION_IDLE", 0.05)
    async with serve(token_answer()) as server:
        for factory in (first, second, first, second, None, None):
            await send(server.url, factory=factory)
        assert len(opened) == 2
        assert len(transport._lane._sessions) == 3
        await until(lambda: exchange_threads() == [])
        assert all(session.closed for session in opened)
        assert not transport._lane._sessions


async def test_many_at_once_open_one_session() -> None:
    opened: list[int] = []

    async def make() -> aiohttp.ClientSession:
        await asyncio.sleep(0.01)
        opened.append(1)
        return aiohttp.ClientSession()

    async with serve(token_answer()) as server:
        await asyncio.gather(*(send(server.url, factory=make) for _ in range(20)))
    assert len(opened) == 1


async def test_the_thread_ends_although_no_session_was_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SESSION_IDLE", 0.02)

    async def bad() -> aiohttp.ClientSession:
        await asyncio.sleep(0.01)
        raise OSError

    results = await asyncio.gather(*(send("http://127.0.0.1:1/", factory=bad) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, ConfigurationError) for result in results)
    await until(lambda: exchange_threads() == [])
    assert not transport._lane._opening
    # The next loop is not confused by what the last one left behind.
    results = await asyncio.gather(*(send("http://127.0.0.1:1/", factory=bad) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, ConfigurationError) for result in results)


async def test_a_timeout_holds_for_a_session_factory_too() -> None:
    async def never() -> aiohttp.ClientSession:
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(5):
        with pytest.raises(OAuthError) as caught:
            await send("http://127.0.0.1:1/", factory=never, timeout=0.1)
    assert not caught.value.maybe_spent


async def test_no_resource_is_left_behind(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(transport, "SESSION_IDLE", 0.02)
    async with serve(token_answer()) as server:
        for _ in range(3):
            await send(server.url)
            await until(lambda: exchange_threads() == [])
        await send(server.url)
        await asyncio.to_thread(close_exchanges)
        await server.until(lambda: server.open_connections == 0)
    gc.collect()
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, ResourceWarning)] == []


async def test_exchanges_from_several_threads_share_the_lane() -> None:
    async with serve(token_answer()) as server:
        url = server.url

        async def some() -> list[int]:
            return [(await send(url)).status for _ in range(5)]

        results = await asyncio.gather(*(asyncio.to_thread(lambda: asyncio.run(some())) for _ in range(4)))
        assert results == [[200] * 5] * 4
        assert len(exchange_threads()) == 1


# --- Fork, and the end of the process -----------------------------------------------------------------------------------

SERVER = """
    import asyncio, gc, json, os, sys, threading, warnings
    from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, ServerMetadata
    from aiohttp_oauth_middleware.client import transport

    client = Client(ServerMetadata(token_endpoint=sys.argv[1] + "/token"), "id", ClientSecret("s"))

    async def fetch(path=""):
        c = Client(ServerMetadata(token_endpoint=sys.argv[1] + "/token" + path), "id", ClientSecret("s"))
        return (await c.fetch_token(ClientCredentials())).access_token
"""


async def script(code: str, server: RawServer, *options: str) -> tuple[int, str, str]:
    """Run *code* with ResourceWarnings shown, and yield its exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error::RuntimeWarning", "-W", "ignore::DeprecationWarning", *options),
        *("-c", textwrap.dedent(SERVER) + textwrap.dedent(code), server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_program_ends_at_once_and_without_a_warning() -> None:
    async with serve(token_answer()) as server:
        code, out, err = await script("print(asyncio.run(fetch()), asyncio.run(fetch()))", server)
    assert (code, out.strip(), err) == (0, "at at", "")


async def test_a_program_ends_although_an_exchange_is_under_way() -> None:
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(never) as server:
        code, out, err = await script(
            """
            async def main():
                task = asyncio.create_task(fetch())
                while not transport._lane._sessions:
                    await asyncio.sleep(0.01)
                task.cancel()
            asyncio.run(main())
            print("end")
            """,
            server,
        )
    assert (code, out.strip(), err) == (0, "end", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_F_16_a_forked_child_has_a_lane_of_its_own_and_leaves_that_of_its_parent_alone() -> None:
    gate = asyncio.Event()

    async def reply(request: Request, writer: asyncio.StreamWriter) -> bytes:
        if request.path == "/token/parent":
            await gate.wait()
            return token_answer("parent")
        if request.path == "/token/child":
            gate.set()
        return token_answer("child")

    async with serve(reply) as server:
        code, out, err = await script(
            """
            def child():
                assert not [t for t in threading.enumerate() if t.name == "oauth-exchange"]
                gc.collect()
                print(asyncio.run(fetch("/child")), flush=True)
                transport.close_exchanges()
                gc.collect()
                os._exit(0)

            async def main():
                await fetch("/warm")
                task = asyncio.create_task(fetch("/parent"))
                while not any(kept.users for kept in transport._lane._sessions.values()):
                    await asyncio.sleep(0.01)
                pid = os.fork()
                if not pid:
                    asyncio.events._set_running_loop(None)
                    child()
                status = await asyncio.to_thread(os.waitpid, pid, 0)
                assert status[1] == 0, status
                print(await task, flush=True)

            asyncio.run(main())
            """,
            server,
        )
        assert (code, out.split(), err) == (0, ["child", "parent"], "")
        # The child's request came over a connection of its own.
        assert server.connections == 2


async def test_F_16_what_a_child_begins_with_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(token_answer()) as server:
        await send(server.url)
        parents = transport._lane
        monkeypatch.setattr(transport, "_lane", parents)
        transport._forget_lane()
        assert transport._lane is not parents
        assert not transport._lane._sessions
        assert (await send(server.url)).status == 200
        assert server.connections == 2
        close_exchanges()


async def test_a_client_serves_before_and_after_the_lane_has_ended() -> None:
    async with serve(token_answer()) as server:
        client = Client(ServerMetadata(token_endpoint=server.url + "/token"), "id", ClientSecret("s"))
        for _ in range(3):
            assert (await client.fetch_token(ClientCredentials())).access_token == "at"
            await asyncio.to_thread(close_exchanges)
        assert server.connections == 3
