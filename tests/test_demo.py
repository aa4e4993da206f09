"""The demonstration: every tick on a sound package, none where the counters don't confirm it."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse
from aiohttp.payload import Payload

from aiohttp_oauth_middleware import (
    ClientCredentials,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth2Auth,
    Refusal,
    Token,
    Tokens,
    TokenSource,
)
from aiohttp_oauth_middleware.__main__ import main
from aiohttp_oauth_middleware.demo import CLAIMS, demo
from aiohttp_oauth_middleware.demo.oauth1 import POINTS as OAUTH1
from aiohttp_oauth_middleware.demo.oauth2 import POINTS as OAUTH2
from aiohttp_oauth_middleware.demo.oauth2 import Clock

REVOKED, EXPIRY, CANCELLED, REDIRECT, UPLOAD, STREAM, RETROFIT = (claim for claim, _ in OAUTH2[2:])
LEGS, SIGNED, ABROAD, CLOCK = (claim for claim, _ in OAUTH1)


def run(*, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "error", "-m", "aiohttp_oauth_middleware", "demo"]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    return subprocess.run(command, env=clean | (environment or {}), capture_output=True, timeout=60, check=False)


@pytest.mark.aiohttp_versions
def test_demo_has_all_ticks_and_exits_with_0() -> None:
    done = run(environment={"PYTHONIOENCODING": "utf-8"})
    text = done.stdout.decode()
    assert done.returncode == 0, text + done.stderr.decode()
    assert done.stderr == b""
    assert [line[2:] for line in text.splitlines() if line.startswith("✓ ")] == list(CLAIMS)
    assert "✗" not in text
    assert "\x1b" not in text


def test_demo_speaks_ascii_where_a_tick_cannot_be_encoded() -> None:
    done = run(environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    lines = done.stdout.decode("ascii").splitlines()
    assert [line[5:] for line in lines if line.startswith("[ok] ")] == list(CLAIMS)


def test_demo_asks_the_stream_what_it_can_encode() -> None:
    page = io.BytesIO()
    out = io.TextIOWrapper(page, encoding="ascii", write_through=True)
    assert demo(out) == 0
    assert page.getvalue().count(b"[ok]") == len(CLAIMS)
    out.detach()


class Terminal(io.TextIOWrapper):
    """Standard output on a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        self.seek(0)
        return self.read()


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_demo_is_coloured_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    assert demo(terminal) == 0
    assert ("\x1b[32m✓\x1b[0m" in terminal.text()) is coloured


def everywhere(source: TokenSource, origin: str) -> ClientMiddlewareType:
    return OAuth2Auth(source, origins=lambda url: True)


class Deaf:
    """A source that hears of no refusal."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def token(self, refused: Refusal | None = None) -> Token | None:
        return await self._source.token()


def deaf(source: TokenSource, origin: str) -> ClientMiddlewareType:
    return OAuth2Auth(Deaf(source), origins=origin)


class Stampede:
    """A source without a single flight: whoever finds the token expired fetches one."""

    def __init__(self, source: TokenSource) -> None:
        assert isinstance(source, Tokens)
        self._client = source.client
        self._token: Token | None = None

    async def token(self, refused: Refusal | None = None) -> Token | None:
        if self._token is None or refused is not None or self._token.is_expired(self._client.clock.time()):
            self._token = await self._client.fetch_token(ClientCredentials())
        return self._token


def stampede(source: TokenSource, origin: str) -> ClientMiddlewareType:
    return OAuth2Auth(Stampede(source), origins=origin)


class Naive:
    """A middleware as it is often written: it sends whatever is left of the body a second time."""

    def __init__(self, source: TokenSource, origin: str) -> None:
        self._source, self._origin = source, origin

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if not str(request.url).startswith(self._origin):
            return await handler(request)
        token = await self._source.token()
        assert token is not None
        request.headers["Authorization"] = f"Bearer {token.access_token}"
        response = await handler(request)
        if response.status == 401:
            response.release()
            await request.update_body(b"")  # what is left of a stream
            token = await self._source.token(Refusal(request.url, 401, (), token))
            assert token is not None
            request.headers["Authorization"] = f"Bearer {token.access_token}"
            response = await handler(request)
        return response


async def broken(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    raise RuntimeError("broken")


MakeAuth = Callable[[TokenSource, str], ClientMiddlewareType]


@pytest.mark.parametrize(
    ("make_auth", "missing"),
    [
        (everywhere, {REDIRECT}),
        (deaf, {REVOKED, UPLOAD, STREAM, RETROFIT}),
        (stampede, {REVOKED, EXPIRY, CANCELLED, UPLOAD, STREAM}),
        (Naive, {UPLOAD, STREAM}),
        (lambda source, origin: broken, {claim for claim, _ in OAUTH2}),
    ],
    ids=["sends tokens everywhere", "hears no refusal", "no single flight", "resends an empty body", "raises"],
)
def test_demo_has_no_tick_and_exits_with_1_where_the_counters_say_otherwise(make_auth: MakeAuth, missing: set[str]) -> None:
    assert_missing(missing, make_auth=make_auth)


def assert_missing(missing: set[str], **broken: Any) -> None:
    """All ticks but these are there, and the exit status says so."""
    terminal = Terminal()
    terminal.isatty = lambda: False  # type: ignore[method-assign]
    assert demo(terminal, **broken) == 1
    lines = terminal.text().splitlines()
    assert {line[2:] for line in lines if line.startswith("✗ ")} == missing
    assert {line[2:] for line in lines if line.startswith("✓ ")} == set(CLAIMS) - missing
    assert f"{len(CLAIMS) - len(missing)} of {len(CLAIMS)} confirmed" in lines[-1]


def everywhere1(client: OAuth1Client, token: OAuth1Token, origin: str) -> ClientMiddlewareType:
    return OAuth1Auth(client, token, origins=lambda url: True)


def of_another(client: OAuth1Client, token: OAuth1Token, origin: str) -> ClientMiddlewareType:
    return OAuth1Auth(client, token.replace(oauth_token_secret="another"), origins=origin)


class Signs:
    """A middleware as it is often written: it signs the URL, and neither a form nor by the server's clock."""

    def __init__(self, client: OAuth1Client, token: OAuth1Token, origin: str) -> None:
        self._client, self._token, self._origin = client, token, origin

    async def header(self, request: ClientRequest) -> str:
        return await self._client.sign(request.method, request.url, self._token)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if str(request.url).startswith(self._origin):
            request.headers["Authorization"] = await self.header(request)
        return await handler(request)


class Drops(Signs):
    """It signs forms too, and loses every other body."""

    async def header(self, request: ClientRequest) -> str:
        body = bytes(await request.body.as_bytes()) if isinstance(request.body, Payload) else b""
        if request.headers.get("Content-Type") != "application/x-www-form-urlencoded":
            await request.update_body(b"")
            body = b""
        return await self._client.sign(request.method, request.url, self._token, form=body)


class Repeats(Signs):
    """It makes one signature, and sends it with every request."""

    _made = ""

    async def header(self, request: ClientRequest) -> str:
        self._made = self._made or await super().header(request)
        return self._made


@pytest.mark.parametrize(
    ("make_auth1", "missing"),
    [
        (everywhere1, {ABROAD}),
        (of_another, {SIGNED, ABROAD, CLOCK}),
        (Signs, {SIGNED, ABROAD, CLOCK}),
        (Drops, {SIGNED, CLOCK}),
        (Repeats, {SIGNED, ABROAD, CLOCK}),
        (lambda client, token, origin: broken, {SIGNED, ABROAD, CLOCK}),
    ],
    ids=["signs everywhere", "another's secret", "signs no form", "drops a body", "repeats a nonce", "raises"],
)
def test_demo_of_oauth_1_has_no_tick_where_the_counters_say_otherwise(
    make_auth1: Callable[[OAuth1Client, OAuth1Token, str], ClientMiddlewareType], missing: set[str]
) -> None:
    assert_missing(missing, make_auth1=make_auth1)


def test_demo_counts_the_three_legs(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = OAuth1Client.fetch_request_token

    async def twice(self: OAuth1Client, url: str) -> OAuth1Token:
        await fetch(self, url)
        return await fetch(self, url)

    monkeypatch.setattr(OAuth1Client, "fetch_request_token", twice)
    assert_missing({LEGS})


def test_demo_has_no_tick_where_nobody_signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OAuth1Client, "parse_authorization_response", lambda self, callback, request_token: "wrong")
    assert_missing({LEGS, SIGNED, ABROAD, CLOCK})


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    assert f"{len(CLAIMS)} of {len(CLAIMS)} confirmed" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_clock_of_the_demo_sleeps_by_the_real_one() -> None:
    clock = Clock()
    asyncio.run(clock.sleep(0))
    clock.advance(3600)
    assert clock.time() > time.time() + 3000
