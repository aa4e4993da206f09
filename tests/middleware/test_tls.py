"""A certificate that is not valid gets no byte of a credential, on either side; and a proxy's CONNECT gets none at all."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, ClientSSLError, TCPConnector
from yarl import URL

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecret,
    OAuth2Auth,
    ServerMetadata,
    Tokens,
    TokenUnavailable,
)
from tests.clock import VirtualClock
from tests.middleware.tls import Authority
from tests.middleware.wire import Rotating, only, record
from tests.raw_server import token_answer

SECRET = "cl1ent-s3cret"
BAD = ("self-signed", "expired", "another host", "an authority that nobody trusts")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def bad(authority: Authority, how: str, tmp_path: Path) -> ssl.SSLContext:
    if how == "an authority that nobody trusts":
        other = tmp_path / "other"
        other.mkdir()
        return Authority(other).server("127.0.0.1")
    return {
        "self-signed": authority.server("127.0.0.1", self_signed=True),
        "expired": authority.server("127.0.0.1", expired=True),
        "another host": authority.server("api.example.com", "127.0.0.2"),
    }[how]


def tokens_of(url: URL, authority: Authority) -> Tokens:
    def session() -> ClientSession:
        return ClientSession(connector=TCPConnector(ssl=authority.trusting()))

    client = Client(
        ServerMetadata(token_endpoint=str(url / "token")),
        "app",
        ClientSecret(SECRET),
        session_factory=session,
        clock=VirtualClock(),
    )
    return Tokens(client, ClientCredentials())


@pytest.mark.parametrize("how", BAD)
async def test_S_25_an_invalid_certificate_of_the_authorization_server_gets_no_byte(
    how: str, authority: Authority, tmp_path: Path
) -> None:
    async with record(token_answer("at"), tls=bad(authority, how, tmp_path)) as server, record() as api:
        auth = OAuth2Auth(tokens_of(server.url, authority), origins=api.url)
        # The user's session takes any certificate, and that is not inherited.
        async with ClientSession(connector=TCPConnector(ssl=False), middlewares=[auth]) as session:
            with pytest.raises(TokenUnavailable, match="TLS certificate"):
                await session.get(api.url, ssl=False)
        assert server.received == 0
        assert api.received == 0


async def test_S_25_without_a_session_factory_nothing_of_the_users_session_is_inherited_either(authority: Authority) -> None:
    async with record(token_answer("at"), tls=authority.server("127.0.0.1")) as server, record() as api:
        metadata = ServerMetadata(token_endpoint=str(server.url / "token"))
        client = Client(metadata, "app", ClientSecret(SECRET), clock=VirtualClock())
        auth = OAuth2Auth(Tokens(client, ClientCredentials()), origins=api.url)
        for connector in (TCPConnector(ssl=False), TCPConnector(ssl=authority.trusting())):
            async with ClientSession(connector=connector, middlewares=[auth]) as session:
                with pytest.raises(TokenUnavailable):
                    await session.get(api.url)
        assert server.received == 0
        assert api.received == 0


async def test_S_25_a_good_certificate_is_taken_on_both_sides(authority: Authority) -> None:
    good = authority.server("127.0.0.1")
    async with record(token_answer("at"), tls=good) as server, record(tls=good) as api:
        auth = OAuth2Auth(tokens_of(server.url, authority), origins=api.url)
        async with (
            ClientSession(connector=TCPConnector(ssl=authority.trusting()), middlewares=[auth]) as session,
            session.get(api.url) as response,
        ):
            assert response.status == 200
        assert api.authorization == [["Bearer at"]]
        assert len(server.seen) == 1


@pytest.mark.parametrize("how", BAD)
async def test_S_25_an_invalid_certificate_of_the_api_gets_no_byte(how: str, authority: Authority, tmp_path: Path) -> None:
    source = Rotating()
    async with record(tls=bad(authority, how, tmp_path)) as api:
        auth = OAuth2Auth(source, origins=api.url)
        async with ClientSession(connector=TCPConnector(ssl=authority.trusting()), middlewares=[auth]) as session:
            with pytest.raises(ClientSSLError):
                await session.get(api.url)
        assert api.received == 0
    assert source.refusals == []


class Proxy:
    """A small proxy: CONNECT, and plain requests in absolute form, passed on to wherever they point."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.url = URL()
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        onward = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            server, onward = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await asyncio.gather(self._pump(reader, onward), self._pump(server, writer))
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[Proxy]:
    one = Proxy()
    listener = await asyncio.start_server(one.accept, "127.0.0.1", 0)
    one.url = URL(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        yield one
    finally:
        listener.close()
        await one.close()


@pytest.mark.aiohttp_versions
async def test_F_44_connect_through_a_proxy_carries_no_token_and_the_request_inside_does(authority: Authority) -> None:
    async with record(only("at-2"), tls=authority.server("127.0.0.1")) as api, proxy() as between:
        auth = OAuth2Auth(Rotating(), origins=api.url)
        async with (
            ClientSession(connector=TCPConnector(ssl=authority.trusting()), middlewares=[auth]) as session,
            session.get(api.url, proxy=between.url, proxy_headers={"X-Mine": "1"}) as response,
        ):
            assert response.status == 200
        assert api.authorization == [["Bearer at-1"], ["Bearer at-2"]]
    assert between.heads
    for head in between.heads:
        assert head.startswith(b"CONNECT ")
        assert b"x-mine" in head.lower()
        assert b"at-1" not in head
        assert b"at-2" not in head
        assert b"authorization" not in head.lower()


async def test_F_44_a_proxy_that_refuses_is_the_users_error(authority: Authority) -> None:
    async with proxy() as between:
        auth = OAuth2Auth(Rotating(), origins="https://127.0.0.1:1")
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(ClientError):
                await session.get("https://127.0.0.1:1", proxy=between.url)
    assert all(b"at-1" not in head for head in between.heads)
