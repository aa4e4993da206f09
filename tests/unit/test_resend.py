"""Which bodies can go out twice, and what becomes of the response that is dropped in between."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    FormData,
    MultipartWriter,
    ServerTimeoutError,
)
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import IOBasePayload, Payload
from multidict import CIMultiDict
from yarl import URL

from aiohttp_oauth_middleware.middleware import resend
from aiohttp_oauth_middleware.middleware.resend import DRAIN_LIMIT, can_send_again, discard
from tests.middleware.wire import prepared


async def sendable(method: str, **kwargs: Any) -> bool:
    """What is said of a request while a middleware has it."""
    said: list[bool] = []

    async def look(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        said.append(can_send_again(request, request.body))
        raise KeyError

    async with ClientSession() as session:
        with contextlib.suppress(KeyError):
            await session.request(method, "http://127.0.0.1/", middlewares=[look], **kwargs)
    return said[0]


async def generated() -> AsyncIterator[bytes]:
    yield b"abc"


class Unseekable(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: Any) -> int:
        return 0


class Own(Payload):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return "own"

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(b"own")


def parts(*bodies: Any) -> MultipartWriter:
    writer = MultipartWriter("mixed")
    for body in bodies:
        writer.append(body)
    return writer


def form_with(body: Any) -> FormData:
    form = FormData()
    form.add_field("a", "1")
    form.add_field("file", body, filename="x.bin")
    return form


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_F_41_no_body_can_be_sent_again(method: str) -> None:
    assert await sendable(method)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"data": b"abc"},
        {"data": b""},
        {"data": bytearray(b"abc")},
        {"data": memoryview(b"abc")},
        {"data": "text"},
        {"json": {"a": 1}},
        {"data": {"a": "1"}},
        {"data": FormData({"a": "1"})},
        {"data": io.BytesIO(b"abc")},
        {"data": io.StringIO("abc")},
        {"data": form_with(io.BytesIO(b"abc"))},
        {"data": form_with(b"abc")},
        {"data": parts(b"abc", "text")},
        {"data": parts(parts(b"abc"), io.BytesIO(b"abc"))},
        {"data": b"abc", "chunked": True},
        {"data": b"abc", "compress": True},
    ],
    ids=str,
)
async def test_F_41_G_16_what_is_in_memory_or_seekable_can_be_sent_again(kwargs: dict[str, Any]) -> None:
    assert await sendable("POST", **kwargs)


@pytest.mark.parametrize(
    "data",
    [
        generated,
        lambda: Unseekable(),
        lambda: Own("x"),
        lambda: form_with(Unseekable()),
        lambda: parts(b"abc", parts(Own("x"))),
    ],
)
async def test_F_41_G_16_a_stream_or_a_body_of_unknown_kind_cannot(data: Any) -> None:
    assert not await sendable("POST", data=data())


async def test_F_41_a_file_and_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    for mode in ("rb", "r"):
        with (tmp_path / "f").open(mode) as file:
            assert await sendable("POST", data=file)
    reader, writer = os.pipe()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert not await sendable("POST", data=pipe)


async def test_F_41_a_file_that_was_closed_meanwhile_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    request = await prepared("POST", "http://127.0.0.1/", data=(tmp_path / "f").open("rb"))
    assert isinstance(request.body, IOBasePayload)
    request.body._value.close()
    assert not can_send_again(request, request.body)


async def test_F_41_a_file_payload_whose_file_nobody_can_ask_is_not_sent_again() -> None:
    class Odd(IOBasePayload):
        def __init__(self) -> None:
            super().__init__(io.BytesIO(b"abc"))
            self._value = object()  # type: ignore[assignment]

    request = await prepared("POST", "http://127.0.0.1/")
    request._body = Odd()
    assert not can_send_again(request, request.body)


async def test_F_41_what_says_that_it_was_consumed_is_not_sent_again() -> None:
    request = await prepared("POST", "http://127.0.0.1/", data=io.BytesIO(b"abc"))
    assert isinstance(request.body, Payload)
    request.body._consumed = True
    assert not can_send_again(request, request.body)


@pytest.mark.parametrize("name", ["Expect", "expect"])
async def test_F_41_a_request_that_expects_100_is_not_sent_again(name: str) -> None:
    assert not await sendable("POST", data=b"abc", headers={name: "100-continue"})
    assert not await sendable("POST", data=b"abc", expect100=True)


class Content:
    """A body that yields these chunks, and what else it is told."""

    def __init__(self, *steps: bytes | BaseException | asyncio.Event) -> None:
        self._steps = list(steps)
        self.read = 0

    async def readany(self) -> bytes:
        step = self._steps.pop(0) if self._steps else b""
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, asyncio.Event):
            await step.wait()
            return b""
        self.read += len(step)
        return step


class Response:
    def __init__(self, content: Content) -> None:
        self.content = content
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.url = URL("http://127.0.0.1/")
        self.left = 0

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left += 1


async def discarded(*steps: bytes | BaseException | asyncio.Event) -> Response:
    request: ClientRequest = await prepared("GET", "http://127.0.0.1/")
    response = Response(Content(*steps))
    await discard(request, response)  # type: ignore[arg-type]
    return response


async def test_F_39_F_58_a_body_is_read_up_to_a_bound_and_the_response_is_left_once() -> None:
    short = await discarded(b"a" * 10, b"b" * 10)
    assert (short.content.read, short.left) == (20, 1)
    long = await discarded(*[b"x" * 1000] * 1000)
    assert DRAIN_LIMIT <= long.content.read < DRAIN_LIMIT + 1000
    assert long.left == 1
    huge = await discarded(b"x" * 10_000_000, b"more")
    assert (huge.content.read, huge.left) == (10_000_000, 1)
    assert (await discarded()).left == 1


@pytest.mark.parametrize("error", [ClientConnectionError("reset"), OSError("reset"), ServerTimeoutError()])
async def test_F_58_a_connection_that_breaks_while_it_is_read_is_no_matter(error: Exception) -> None:
    response = await discarded(b"a", error)
    assert (response.content.read, response.left) == (1, 1)


async def test_F_58_the_caller_s_own_timeout_is_passed_on_so_that_nothing_more_is_sent() -> None:
    request = await prepared("GET", "http://127.0.0.1/")
    response = Response(Content(TimeoutError()))
    with pytest.raises(TimeoutError):
        await discard(request, response)  # type: ignore[arg-type]
    assert response.left == 1


async def test_F_58_a_body_that_never_ends_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "DRAIN_TIME", 0.01)
    assert (await discarded(b"a", asyncio.Event())).left == 1


async def test_F_58_a_cancellation_while_it_is_read_leaves_the_response_and_goes_on() -> None:
    request = await prepared("GET", "http://127.0.0.1/")
    response = Response(Content(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await discard(request, response)  # type: ignore[arg-type]
    assert response.left == 1
