"""A request that is sent again is the same to the byte, or it is not sent; and the first answer leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import io
import os
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import (
    ClientError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    CookieJar,
    FormData,
    MultipartWriter,
    TCPConnector,
)
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from aiohttp_oauth_middleware import OAuth2Auth, StaticToken, Token
from aiohttp_oauth_middleware.middleware import resend
from tests.middleware.wire import INVALID, Rotating, Seen, only, record, redirect
from tests.raw_server import answer

pytestmark = pytest.mark.aiohttp_versions

BIG = bytes(range(256)) * 4096  # 1 MiB


class Pipe(io.RawIOBase):
    """A file that can't be rewound."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


class OneShot(Payload):
    """A payload of the user's own that has its data once, and doesn't say so."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._parts = [data]

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError

    async def write(self, writer: AbstractStreamWriter) -> None:
        while self._parts:
            await writer.write(self._parts.pop())


async def generated(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class Iterable:
    def __aiter__(self) -> AsyncIterator[bytes]:
        return generated(b"abc", b"def")


def at(position: int) -> io.BytesIO:
    file = io.BytesIO(b"0123456789")
    file.seek(position)
    return file


def form(*files: Any) -> FormData:
    data = FormData()
    data.add_field("a", "1")
    for number, file in enumerate(files):
        data.add_field(f"file{number}", file, filename=f"{number}.bin", content_type="application/x-test")
    return data


def parts(*bodies: Any, boundary: str = "bound") -> MultipartWriter:
    writer = MultipartWriter("mixed", boundary=boundary)
    for body in bodies:
        writer.append(body)
    return writer


def gzipped() -> MultipartWriter:
    writer = MultipartWriter("mixed", boundary="bound")
    writer.append(b"abc" * 100, {"Content-Encoding": "gzip"})
    return writer


Make = Callable[[Path], dict[str, Any]]

REPLAYED: dict[str, Make] = {
    "none": lambda path: {},
    "bytes": lambda path: {"data": b"abc"},
    "empty bytes": lambda path: {"data": b""},
    "a megabyte": lambda path: {"data": BIG},
    "bytearray": lambda path: {"data": bytearray(b"abc")},
    "memoryview": lambda path: {"data": memoryview(b"abc")},
    "str": lambda path: {"data": "äöü"},
    "json": lambda path: {"json": {"a": [1, "ä"]}},
    "form": lambda path: {"data": {"a": "1", "b": "ä &="}},
    "form list": lambda path: {"data": [("a", "1"), ("a", "2")]},
    "FormData": lambda path: {"data": FormData({"a": "1"})},
    "BytesIO": lambda path: {"data": io.BytesIO(b"abc")},
    "BytesIO, a megabyte": lambda path: {"data": io.BytesIO(BIG)},
    "BytesIO, not from its start": lambda path: {"data": at(4)},
    "StringIO": lambda path: {"data": io.StringIO("äöü")},
    "file": lambda path: {"data": path.open("rb")},
    "text file": lambda path: {"data": path.open(encoding="latin-1")},
    "multipart form of files": lambda path: {"data": form(path.open("rb"), io.BytesIO(b"abc"), b"def")},
    "multipart writer": lambda path: {"data": parts(b"abc", "text", io.BytesIO(b"def"))},
    "nested multipart": lambda path: {"data": parts(b"abc", parts(b"def", boundary="inner"))},
    "multipart with a compressed part": lambda path: {"data": gzipped()},
    "compress": lambda path: {"data": b"abc" * 1000, "compress": True},
    "compress by name": lambda path: {"data": b"abc" * 1000, "compress": "gzip"},
    "chunked": lambda path: {"data": b"abc", "chunked": True},
    "compressed by the user": lambda path: {"data": zlib.compress(b"abc"), "headers": {"Content-Encoding": "deflate"}},
}

NOT_REPLAYED: dict[str, Make] = {
    "async generator": lambda path: {"data": generated(b"abc", b"def")},
    "async iterable": lambda path: {"data": Iterable()},
    "unseekable file": lambda path: {"data": Pipe(b"abcdef")},
    "one-shot payload of the user's": lambda path: {"data": OneShot(b"abcdef")},
    "multipart form with a stream": lambda path: {"data": form(generated(b"abc"))},
    "multipart form with an unseekable file": lambda path: {"data": form(Pipe(b"abc"))},
    "multipart with a stream deep inside": lambda path: {"data": parts(parts(generated(b"abc"), boundary="inner"))},
    "expect": lambda path: {"data": b"abcdef", "expect100": True},
    "expect by header": lambda path: {"data": b"abcdef", "headers": {"Expect": "100-continue"}},
}


def plain(seen: Seen) -> bytes:
    """The body, decoded."""
    if seen.get("content-encoding") == "gzip":
        return gzip.decompress(bytes(seen.body))
    if seen.get("content-encoding") == "deflate":
        return zlib.decompress(bytes(seen.body))
    return bytes(seen.body)


def framing(seen: Seen) -> list[str | None]:
    names = ("content-length", "transfer-encoding", "content-type", "content-encoding", "content-md5")
    return [seen.method, *(seen.get(name) for name in names)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "upload").write_bytes(BIG)
    return tmp_path / "upload"


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("kind", REPLAYED)
async def test_F_41_G_16_after_a_401_the_same_bytes_go_out_again(kind: str, method: str, path: Path) -> None:
    source = Rotating()
    connector = TCPConnector(limit=1)
    async with record(only("at-2")) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        async with (
            ClientSession(connector=connector, middlewares=[auth]) as session,
            session.request(method, wire.url, **REPLAYED[kind](path)) as response,
        ):
            assert response.status == 200
            assert response.history == ()
        first, second = wire.seen
        assert [seen.authorization for seen in wire.seen] == [["Bearer at-1"], ["Bearer at-2"]]
        assert first.complete
        assert second.complete
        assert second.body == first.body
        assert framing(second) == framing(first)
        assert bool(second.body) is (kind not in ("none", "empty bytes"))
        assert plain(second) == plain(first)
        if "megabyte" in kind or kind == "file":
            assert bytes(second.body) == BIG
        if kind == "BytesIO, not from its start":
            assert bytes(second.body) == b"456789"


@pytest.mark.parametrize("kind", NOT_REPLAYED)
async def test_F_41_G_16_what_cannot_be_sent_again_gets_its_401_and_the_next_request_the_better_token(
    kind: str, path: Path
) -> None:
    source = Rotating()
    async with record(only("at-2")) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            async with session.post(wire.url, **NOT_REPLAYED[kind](path)) as response:
                assert response.status == 401
                assert await response.read() == b"no"
                assert response.headers["WWW-Authenticate"] == INVALID
            async with session.post(wire.url, data=b"next") as response:
                assert response.status == 200
        assert [seen.authorization for seen in wire.seen] == [["Bearer at-1"], ["Bearer at-2"]]
        assert b"abc" in wire.bodies[0]
        assert wire.bodies[1] == b"next"
    assert len(source.refusals) == 1


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("kind", REPLAYED)
async def test_F_41_G_16_over_a_redirect_and_a_401_behind_it_the_same_bytes_go_out(kind: str, status: int, path: Path) -> None:
    def reply(seen: Seen) -> bytes:
        return redirect(status, "/there") if seen.path == "/" else only("at-2")(seen)

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session,
            session.post(wire.url, **REPLAYED[kind](path)) as response,
        ):
            assert response.status == 200
        assert [seen.path for seen in wire.seen] == ["/", "/there", "/there"]
        for seen in wire.seen:
            assert seen.complete
            assert plain(seen) == plain(wire.seen[0])


@pytest.mark.parametrize("kind", [kind for kind in NOT_REPLAYED if "expect" not in kind])
async def test_F_41_G_16_no_401_behind_a_redirect_makes_a_stream_go_out_empty(kind: str, path: Path) -> None:
    def reply(seen: Seen) -> bytes:
        return redirect(307, "/there") if seen.path == "/" else only("at-2")(seen)

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            with contextlib.suppress(ClientError):
                async with session.post(wire.url, **NOT_REPLAYED[kind](path)):
                    pass
        # What aiohttp itself does with a stream over a redirect is its own; none is sent again because of us.
        assert len([seen for seen in wire.seen if seen.path == "/there"]) <= 1


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_F_41_a_redirect_that_becomes_a_get_has_no_body_and_is_repeated_without_one(status: int) -> None:
    def reply(seen: Seen) -> bytes:
        return redirect(status, "/there") if seen.path == "/" else only("at-2")(seen)

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.post(wire.url, data=b"abc") as response:
            assert response.status == 200
        assert [seen.method for seen in wire.seen] == ["POST", "GET", "GET"]
        assert wire.bodies == [b"abc", b"", b""]


async def test_F_41_a_body_that_a_middleware_outside_put_there_is_sent_again() -> None:
    async def replace(request: Any, handler: Any) -> Any:
        await request.update_body(b"signed:" + bytes(request.body._value))
        return await handler(request)

    async with record(only("at-2")) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[replace, auth]) as session, session.post(wire.url, data=b"abc"):
            pass
        assert wire.bodies == [b"signed:abc"] * 2


async def test_F_41_a_refused_expectation_returns_the_401_and_the_session_lives_on() -> None:
    source = Rotating()
    async with record(only("at-2"), early=lambda seen: seen.get("expect") is not None) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        timeout = ClientTimeout(total=20)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth], timeout=timeout) as session:
            async with session.post(wire.url, data=b"abc", expect100=True) as response:
                assert response.status == 401
            async with session.post(wire.url, data=b"def") as response:
                assert response.status == 200
        posts = [seen for seen in wire.seen if seen.authorization]
        assert [bytes(seen.body) for seen in posts][-1] == b"def"
        assert b"abc" not in posts[0].body


@pytest.mark.parametrize("size", [0, 10, 60_000, 64 * 1024, 4 * 2**20])
async def test_F_39_F_58_a_refused_response_of_any_size_frees_the_one_connection(size: int) -> None:
    async with record(only("at-2", body=b"x" * size)) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        timeout = ClientTimeout(total=60)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth], timeout=timeout) as session:
            for _ in range(3):
                async with session.get(wire.url) as response:
                    assert response.status == 200
                    assert await response.read() == b"ok"
        assert wire.connections == (1 if size <= 64 * 1024 else 2)


async def test_F_39_F_58_a_refused_response_in_chunks_is_drained() -> None:
    def reply(seen: Seen) -> bytes:
        if seen.authorization == ["Bearer at-2"]:
            return answer()
        head = f"HTTP/1.1 401 No\r\nWWW-Authenticate: {INVALID}\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head.encode() + b"5\r\nhello\r\n" * 1000 + b"0\r\n\r\n"

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session,
            session.get(wire.url) as response,
        ):
            assert response.status == 200
        assert wire.connections == 1


async def test_F_58_a_refused_response_that_never_ends_costs_its_connection_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resend, "DRAIN_TIME", 0.02)

    async def reply(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.authorization == ["Bearer at-2"]:
            return answer()
        writer.write(answer(401, b"a", {"WWW-Authenticate": INVALID, "Content-Length": "1000000"}))
        await asyncio.Event().wait()
        return None

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session,
            session.get(wire.url) as response,
        ):
            assert response.status == 200
        assert wire.connections == 2


async def test_F_58_a_refused_response_that_breaks_off_is_no_matter() -> None:
    async def reply(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.authorization == ["Bearer at-2"]:
            return answer()
        writer.write(answer(401, b"a", {"WWW-Authenticate": INVALID, "Content-Length": "100"}))
        await writer.drain()
        return None

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session,
            session.get(wire.url) as response,
        ):
            assert response.status == 200


@pytest.mark.parametrize("kind", ["BytesIO", "file"])
async def test_F_41_F_58_a_401_in_the_midst_of_a_large_upload_ends_it_and_all_of_it_goes_out_again(
    kind: str, tmp_path: Path
) -> None:
    data = os.urandom(2**20) * 24
    (tmp_path / "large").write_bytes(data)
    given = io.BytesIO(data) if kind == "BytesIO" else (tmp_path / "large").open("rb")

    def early(seen: Seen) -> bool:
        return seen.authorization != ["Bearer at-2"]

    async with record(only("at-2"), early=early) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        timeout = ClientTimeout(total=60)
        before = asyncio.all_tasks()
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth], timeout=timeout) as session:
            async with session.post(wire.url, data=given) as response:
                assert response.status == 200
            assert not [task for task in asyncio.all_tasks() - before if "write_bytes" in repr(task)]
        assert wire.seen[-1].complete
        assert bytes(wire.seen[-1].body) == data
        assert len(wire.seen) == 2


async def test_F_58_ten_thousand_repetitions_leak_no_connection() -> None:
    source = Rotating()
    turn = [0]

    def reply_in_turn(seen: Seen) -> bytes:
        wire.seen.clear()
        turn[0] += 1
        return answer() if turn[0] % 2 == 0 else answer(401, b"x" * 2000, {"WWW-Authenticate": INVALID})

    async with record(reply_in_turn) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        connector = TCPConnector(limit=1)
        async with ClientSession(connector=connector, middlewares=[auth]) as session:
            for _ in range(10_000):
                async with session.get(wire.url) as response:
                    assert response.status == 200
        assert turn[0] == 20_000
        assert wire.connections == 1
    gc.collect()  # an unclosed response would warn now, and a warning is an error here


async def test_F_58_what_is_returned_is_not_released_and_can_be_read_in_parts() -> None:
    body = b"x" * 300_000
    async with record(only(status=403, challenge='Bearer error="other"', body=body)) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(wire.url) as response:
            assert response.status == 403
            assert not response.closed
            assert b"".join([chunk async for chunk in response.content.iter_chunked(1000)]) == body


async def test_F_58_a_second_refusal_is_returned_unread_too() -> None:
    body = b"x" * 300_000
    async with record(only(body=body)) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session,
            session.get(wire.url) as response,
        ):
            assert response.status == 401
            assert b"".join([chunk async for chunk in response.content.iter_chunked(1000)]) == body
        assert [seen.authorization for seen in wire.seen] == [["Bearer at-1"], ["Bearer at-2"]]


async def test_F_58_the_cookies_of_a_swallowed_401_are_kept_for_the_next_request() -> None:
    def reply(seen: Seen) -> bytes:
        head = b"HTTP/1.1 401 No\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Path=/x\r\nWWW-Authenticate: Bearer\r\n"
        return answer() if seen.authorization == ["Bearer at-2"] else head + b"Content-Length: 0\r\n\r\n"

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[auth], cookie_jar=CookieJar(unsafe=True)) as session:
            async with session.get(wire.url / "x") as response:
                assert response.history == ()
                assert not response.cookies
            async with session.get(wire.url / "x/y"):
                pass
            assert {(cookie.key, cookie.value) for cookie in session.cookie_jar} == {("a", "1"), ("b", "2")}
        assert set((wire.seen[-1].get("cookie") or "").split("; ")) == {"a=1", "b=2"}


async def test_F_58_a_caller_who_is_cancelled_while_the_source_is_asked_leaves_no_connection_behind() -> None:
    class Slow(Rotating):
        waiting = asyncio.Event()

        async def token(self, refused: Any = None) -> Any:
            if refused is not None:
                self.waiting.set()
                await asyncio.Event().wait()
            return await super().token(refused)

    source = Slow()
    async with record(only("at-2", body=b"x" * 4 * 2**20)) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            task = asyncio.create_task(session.get(wire.url))
            await source.waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not session.connector._acquired  # type: ignore[union-attr]
            async with session.get(wire.url, middlewares=[]) as response:
                assert response.status == 401


async def test_F_14_F_58_a_caller_who_is_cancelled_during_the_delay_leaves_no_connection_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = asyncio.Event()
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        if seconds == 1234.0:
            waiting.set()
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", slept)
    source = StaticToken(Token("young", obtained_at=time.time()))
    async with record(only("at-2", body=b"x" * 4 * 2**20)) as wire:
        auth = OAuth2Auth(source, origins=wire.url, fresh_token_delay=1234.0)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            task = asyncio.create_task(session.get(wire.url))
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not session.connector._acquired  # type: ignore[union-attr]


async def test_G_16_a_body_that_an_inner_middleware_rewrote_starts_from_the_original_the_second_time() -> None:
    """Doubled once by each send, not twice by the second; and a stream that was turned into bytes is not sent again."""

    async def double(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        body = bytes(await request.body.as_bytes())  # type: ignore[union-attr]
        await request.update_body(body + body)
        return await handler(request)

    async def stream() -> AsyncIterator[bytes]:
        yield b"abc"

    async with record(only("at-2")) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[auth, double]) as session:
            async with session.post(wire.url, data=b"abc") as response:
                assert response.status == 200
            assert [bytes(seen.body) for seen in wire.seen] == [b"abcabc", b"abcabc"]
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(middlewares=[auth, double]) as session,
            session.post(wire.url, data=stream()) as response,
        ):
            assert response.status == 401
        assert [bytes(seen.body) for seen in wire.seen][2:] == [b"abcabc"]
