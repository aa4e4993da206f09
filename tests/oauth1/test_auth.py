"""The middleware on the wire: what is signed is what arrives, and nothing of it arrives elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import (
    BasicAuth,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    FormData,
    NonHttpUrlRedirectClientError,
    WSServerHandshakeError,
)
from yarl import URL

from aiohttp_oauth_middleware import (
    ConfigurationError,
    Event,
    InsecureTransport,
    LoginRequired,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    OAuth2Auth,
    StaticToken,
    attach,
)
from aiohttp_oauth_middleware.oauth1.client import Placement
from tests.clock import VirtualClock
from tests.middleware.corpus import FOREIGN, OWN
from tests.middleware.test_replay import REPLAYED
from tests.middleware.wire import Seen, elsewhere, record, redirect
from tests.oauth1.oracle import CLIENT_SECRET, TOKEN_SECRET, is_by_the_letter, is_verified, parameters
from tests.raw_server import answer

TOKEN = OAuth1Token("tok-1", TOKEN_SECRET)
API = "https://api.example.com"
FORM = "application/x-www-form-urlencoded"


def client(**arguments: Any) -> OAuth1Client:
    return OAuth1Client("key", CLIENT_SECRET, **arguments)


def oauth_parameters(seen: Seen) -> dict[str, str]:
    """Wherever they stand."""
    if seen.authorization:
        return parameters(seen)
    text = seen.query if "oauth_signature=" in seen.query else bytes(seen.body).decode()
    return dict(URL(f"http://h/?{text}", encoded=True).query)


async def chunks() -> AsyncIterator[bytes]:
    yield b"abc"
    yield b"def"


# What is signed.

URLS = (
    "",
    "a/b?x=1",
    "?z=1&a=2&a=1&a=",
    "?valueless&other",
    "?a=b+c&d=e%20f",
    "?a=;b;c",
    "?[k]=[v]&{a}={b}",
    "?price=$5&it's=(1)*!",
    "?q=%E2%98%83&ü=日本語",
    "?a=b=c&=empty-name&x==",
    "?a=%2B%26%3D%25",
    "path%20with%20spaces/and+plus",
    "~tilde/%7Etilde;p=1/*'()!$,:@",
    "%C3%BC/é",
    "a//b/./c/../d",
    "?next=https://evil.example/?a=1&b=2",
)
ENCODED = (
    "?a=%41%7e%2d&b=%c3%bc",
    "%2F%2f/%41?z&&y=&",
    "?plus=a+b&pct=a%20b&Plus=A+B",
    "?a=1;b=2&c='$'",
)
# What oauthlib refuses to judge.
BY_THE_LETTER = (
    "?oauth_extra=mine",
    "?a=%&b=%4&c=%zz",
    "?a=%FF%FE&raw=[]|^`{}",
    '?quote="&lt=<&space',
    "?ü=é",
)


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512"])
@pytest.mark.parametrize("placement", ["header", "query"])
async def test_S_63_the_signature_is_that_of_the_url_as_it_goes_out(placement: Placement, method: str) -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(signature_method=method, placement=placement), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for url in [URL(f"{wire.url}{one}") for one in URLS] + [URL(f"{wire.url}{one}", encoded=True) for one in ENCODED]:
                wire.seen.clear()
                async with session.get(url) as response:
                    assert response.status == 200
                assert is_verified(wire.seen[0]), url
                assert wire.seen[0].target.startswith(url.raw_path_qs), url


@pytest.mark.aiohttp_versions
async def test_S_63_whatever_the_query_is_its_bytes_are_signed() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for one in (*BY_THE_LETTER, *URLS, *ENCODED):
                wire.seen.clear()
                async with session.get(URL(f"{wire.url}{one}", encoded=True)):
                    assert is_by_the_letter(wire.seen[0]), one
            for body in (b"a=%FF&b=x;y", b"a=%&oauth_extra=1", b"\xff=\xfe&c", "ü=é".encode()):
                wire.seen.clear()
                async with session.post(wire.url, data=body, headers={"Content-Type": FORM}):
                    assert is_by_the_letter(wire.seen[0]), body


@pytest.mark.aiohttp_versions
async def test_S_63_hosts_and_ports_are_signed_as_the_host_field_has_them() -> None:
    async with record() as wire:
        bound = elsewhere(lambda url: wire.url.port)
        hosts = ("api.example.com", "API.Example.COM:80", "api.example.com:8080", "bücher.example", "[2001:db8::1]:81", "[::1]")
        auth = OAuth1Auth(client(), TOKEN, origins=lambda url: True, insecure_http=True)
        async with ClientSession(middlewares=[auth, bound]) as session:
            for scheme, host in itertools.product(("http", "https"), hosts):
                wire.seen.clear()
                async with session.get(f"{scheme}://{host}/a?b=c"):
                    assert is_verified(wire.seen[0], scheme=scheme), (scheme, host)
            wire.seen.clear()
            async with session.get("http://api.example.com/", headers={"Host": "Other.example:80"}):
                assert is_verified(wire.seen[0])


def form_data() -> FormData:
    data = FormData()
    data.add_field("a", "1 2")
    data.add_field("a", "ü&=")
    return data


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "dict": lambda: {"data": {"a": "b c", "ü": "&=+%", "empty": ""}},
    "pairs": lambda: {"data": [("a", "2"), ("a", "1"), ("b", "x")]},
    "FormData": lambda: {"data": form_data()},
    "str": lambda: {"data": "c2&a3=2+q&x=%7e", "headers": {"Content-Type": FORM}},
    "bytes": lambda: {"data": b"a=1&b=%C3%BC&c=x;y", "headers": {"Content-Type": f"{FORM}; charset=utf-8"}},
    "empty": lambda: {"data": b"", "headers": {"Content-Type": FORM}},
    "a file": lambda: {"data": io.BytesIO(b"a=b&c=d"), "headers": {"Content-Type": FORM}},
}


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("placement", ["header", "query", "form"])
async def test_S_63_a_form_is_signed_and_sent_unchanged(placement: Placement, kind: str) -> None:
    if placement == "form" and kind == "a file":
        kind = "bytes"
    async with record() as wire, ClientSession() as session:
        async with session.post(f"{wire.url}f?q=1", **FORMS[kind]()):
            bare = bytes(wire.seen[0].body)
        auth = OAuth1Auth(client(placement=placement), TOKEN, origins=wire.url)
        async with session.post(f"{wire.url}f?q=1", **FORMS[kind](), middlewares=[auth]):
            seen = wire.seen[1]
        assert is_verified(seen)
        assert seen.get("content-type") == wire.seen[0].get("content-type")
        if placement == "form":
            assert bytes(seen.body).startswith(bare + (b"&oauth_" if bare else b"oauth_"))
        else:
            assert bytes(seen.body) == bare


def body_of(kind: str, path: Path) -> dict[str, Any]:
    return REPLAYED[kind](path) if kind in REPLAYED else {"data": chunks()}


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("placement", ["header", "query"])
@pytest.mark.parametrize("kind", [*REPLAYED, "a stream"])
async def test_S_63_any_other_body_is_sent_unchanged_and_not_signed(kind: str, placement: Placement, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    async with record() as wire, ClientSession() as session:
        async with session.post(wire.url, **body_of(kind, tmp_path / "file")):
            bare = wire.seen[0]
        auth = OAuth1Auth(client(placement=placement), TOKEN, origins=wire.url)
        async with session.post(wire.url, **body_of(kind, tmp_path / "file"), middlewares=[auth]):
            seen = wire.seen[1]
    assert is_verified(seen)
    boundary = [(one.get("content-type") or "").partition("boundary=")[2].encode() for one in (bare, seen)]
    assert bytes(bare.body).replace(boundary[0] or b"\0", b"") == bytes(seen.body).replace(boundary[1] or b"\0", b"")


@pytest.mark.aiohttp_versions
async def test_S_63_a_form_that_is_a_stream_is_refused_before_anything_is_sent() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(ConfigurationError, match="stream"):
                await session.post(wire.url, data=chunks(), headers={"Content-Type": FORM})
        assert wire.seen == []


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("body", [{"json": {"a": 1}}, {"data": b"x"}, {"data": chunks}])
async def test_S_63_the_form_placement_refuses_a_body_that_is_no_form(body: dict[str, Any]) -> None:
    body = {name: value() if callable(value) else value for name, value in body.items()}
    async with record() as wire:
        auth = OAuth1Auth(client(placement="form"), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(ConfigurationError, match="form"):
                await session.post(wire.url, **body)
            with pytest.raises(ConfigurationError, match="form"):
                await session.get(wire.url)
        assert wire.seen == []


@pytest.mark.aiohttp_versions
async def test_S_63_the_form_placement_makes_a_form_of_a_post_without_a_body() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(placement="form"), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.post(wire.url):
            assert is_verified(wire.seen[0])
            assert wire.seen[0].get("content-type") == FORM


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("placement", ["header", "query", "form"])
@pytest.mark.parametrize("status", [307, 308])
async def test_S_60_each_redirect_hop_is_signed_anew_and_nothing_doubles(status: int, placement: Placement) -> None:
    async with record(
        lambda seen: answer(200) if seen.path == "/3" else redirect(status, f"/{int(seen.path[1:]) + 1}")
    ) as wire:
        auth = OAuth1Auth(client(placement=placement), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.post(f"{wire.url}1", data={"a": "b"}) as response:
            assert response.status == 200
        assert len(wire.seen) == 3
        assert all(is_verified(seen) for seen in wire.seen)
        assert len({oauth_parameters(seen)["oauth_nonce"] for seen in wire.seen}) == 3
        assert {bytes(seen.body).count(b"a=b") for seen in wire.seen} == {1}
        assert max(bytes(seen.raw).count(b"oauth_signature=") for seen in wire.seen) == 1


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("placement", ["header", "query"])
async def test_S_60_a_post_that_becomes_a_get_is_signed_as_one(placement: Placement) -> None:
    async with record(lambda seen: answer(200) if seen.method == "GET" else redirect(303, "/there?a=1")) as wire:
        auth = OAuth1Auth(client(placement=placement), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.post(wire.url, data={"a": "b"}):
            assert [is_verified(seen) for seen in wire.seen] == [True, True]


@pytest.mark.aiohttp_versions
async def test_S_60_F_45_when_aiohttp_reconnects_there_is_a_new_nonce() -> None:
    async def reply(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return None if len(wire.seen) == 2 else answer(200)

    async with record(reply) as wire:
        auth = OAuth1Auth(client(), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for _ in range(2):
                async with session.get(wire.url) as response:
                    assert response.status == 200
        assert len({parameters(seen)["oauth_nonce"] for seen in wire.seen}) == 3


async def test_S_60_in_our_own_name_there_is_no_token() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(realm="Photos"), origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(wire.url):
            assert "oauth_token" not in parameters(wire.seen[0])
            assert wire.seen[0].authorization[0].startswith('OAuth realm="Photos", oauth_consumer_key=')
            assert is_verified(wire.seen[0], token_secret="")


async def test_S_63_a_parameter_that_would_stand_twice_is_refused() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for kwargs in ({"params": {"oauth_token": "x"}}, {"data": {"oauth_nonce": "x"}}):
                with pytest.raises(ConfigurationError, match="oauth_"):
                    await session.post(wire.url, **kwargs)  # type: ignore[arg-type]
        assert wire.seen == []


# The body's hash.


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize(
    ("mode", "method", "kwargs", "hashed"),
    [
        ("off", "POST", {"data": b"Hello World!"}, None),
        ("on", "POST", {"data": b"Hello World!"}, "Lve95gjOVATpfV8EL5X4nxwjKHE="),
        ("on", "POST", {"data": io.BytesIO(b"Hello World!")}, "Lve95gjOVATpfV8EL5X4nxwjKHE="),
        ("on", "GET", {}, "2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        ("on", "POST", {"data": {"a": "b"}}, None),
        ("draft", "POST", {"data": b"Hello World!"}, "Lve95gjOVATpfV8EL5X4nxwjKHE="),
        ("draft", "GET", {}, None),
        ("draft", "DELETE", {}, "2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        ("draft", "GET", {"data": b"Hello World!"}, None),
        ("draft", "POST", {"data": {"a": "b"}}, None),
        ("draft", "POST", {"data": chunks}, None),
        ("draft", "POST", {"data": b"Hello World!", "compress": True}, None),
    ],
)
async def test_S_63_the_hash_of_the_body(mode: Any, method: str, kwargs: dict[str, Any], hashed: str | None) -> None:
    kwargs = {name: value() if callable(value) else value for name, value in kwargs.items()}
    async with record() as wire:
        auth = OAuth1Auth(client(body_hash=mode), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.request(method, wire.url, **kwargs):
            assert parameters(wire.seen[0]).get("oauth_body_hash") == hashed
            assert is_verified(wire.seen[0])


async def test_S_63_the_hash_of_the_body_follows_the_method_and_covers_a_multipart_body() -> None:
    import base64
    import hashlib

    async with record() as wire:
        auth = OAuth1Auth(client(body_hash="on", signature_method="HMAC-SHA256"), TOKEN, origins=wire.url)
        data = FormData({"a": "b"})
        data.add_field("file", io.BytesIO(b"content"), filename="f")
        async with ClientSession(middlewares=[auth]) as session, session.post(wire.url, data=data):
            digest = hashlib.sha256(bytes(wire.seen[0].body)).digest()
            assert parameters(wire.seen[0])["oauth_body_hash"] == base64.b64encode(digest).decode()


async def test_S_63_a_request_whose_body_becomes_a_form_has_no_hash_of_it() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(body_hash="on", placement="form"), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.post(wire.url):
            assert is_verified(wire.seen[0])
            assert b"oauth_body_hash" not in wire.seen[0].body


@pytest.mark.parametrize("kwargs", [{"data": chunks}, {"data": b"x", "compress": True}])
async def test_S_63_where_the_hash_is_a_must_what_cannot_be_hashed_is_refused(kwargs: dict[str, Any]) -> None:
    kwargs = {name: value() if callable(value) else value for name, value in kwargs.items()}
    async with record() as wire:
        auth = OAuth1Auth(client(body_hash="on"), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(ConfigurationError, match="body_hash"):
                await session.post(wire.url, **kwargs)
        assert wire.seen == []


# Where it goes.


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("placement", ["header", "query", "form"])
async def test_S_64_F_42_no_redirect_of_the_corpus_takes_anything_of_ours_abroad(placement: Placement) -> None:
    auth = OAuth1Auth(client(placement=placement, signature_method="PLAINTEXT"), TOKEN, origins=API)
    steps = itertools.count()
    target = ""

    def reply(seen: Seen) -> bytes:
        return {0: redirect(307, target), 1: redirect(307, f"{API}/back")}.get(next(steps) % 3, answer(200))

    foreign = own = 0
    async with record(reply) as wire, ClientSession(middlewares=[auth, elsewhere(lambda url: wire.url.port)]) as session:
        for target in (*OWN, *FOREIGN):
            steps = itertools.count()
            wire.seen.clear()
            with contextlib.suppress(NonHttpUrlRedirectClientError):
                async with session.post(f"{API}/start", data={"a": "b"}) as response:
                    assert response.status == 200
            if URL(target).scheme in ("ws", "wss"):
                continue
            first, there, back = wire.seen
            assert b"oauth_signature" in first.raw
            assert b"oauth_signature" in back.raw
            if target in OWN:
                own += 1
                assert b"oauth_signature" in there.raw, target
            else:
                foreign += 1
                for trace in (b"oauth_", b"OAuth ", b"s3cret", b"tok-1"):
                    assert trace not in there.raw, target
    assert foreign > 190
    assert own > 20


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_S_64_a_redirect_to_another_port_is_not_signed_and_back_home_it_is(status: int) -> None:
    async with record() as abroad, record() as home:
        abroad.reply = lambda seen: redirect(status, f"{home.url}back")
        home.reply = lambda seen: redirect(status, abroad.url) if seen.path == "/" else answer(200)
        auth = OAuth1Auth(client(), TOKEN, origins=home.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(home.url) as response:
            assert response.status == 200
        assert [is_verified(seen) for seen in home.seen] == [True, True]
        assert b"oauth" not in abroad.seen[0].raw.lower()


async def test_S_61_plaintext_over_http_beyond_this_machine_is_an_error_and_no_connection() -> None:
    async with record() as wire:
        for origins, insecure in (("http://api.example.com", True), (lambda url: True, True), (None, True)):
            auth = OAuth1Auth(client(signature_method="PLAINTEXT"), TOKEN, origins=origins, insecure_http=insecure)
            async with ClientSession(middlewares=[auth, elsewhere(lambda url: wire.url.port)]) as session:
                with pytest.raises(InsecureTransport, match="PLAINTEXT"):
                    await session.get("http://api.example.com/")
                with pytest.raises(InsecureTransport, match="PLAINTEXT"):
                    await session.ws_connect("ws://api.example.com/")
        assert wire.connections == 0
        with pytest.raises(InsecureTransport):
            OAuth1Auth(client(), TOKEN, origins="http://api.example.com")


async def test_S_61_plaintext_over_tls_and_on_this_machine() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(signature_method="PLAINTEXT"), TOKEN, origins=[API, wire.url])
        async with ClientSession(middlewares=[auth, elsewhere(lambda url: wire.url.port)]) as session:
            for url in (API, wire.url):
                async with session.get(url):
                    assert is_verified(wire.seen[-1], scheme="https")


async def test_S_64_without_origins_the_first_is_pinned(caplog: pytest.LogCaptureFixture) -> None:
    async with record() as home, record() as abroad:
        async with ClientSession(middlewares=[OAuth1Auth(client(), TOKEN)]) as session:
            for url in (home.url, abroad.url, home.url):
                async with session.get(url):
                    pass
        assert [len(seen.authorization) for seen in (*home.seen, *abroad.seen)] == [1, 1, 0]
    assert caplog.text.count("origins") == 2


async def test_S_64_what_goes_without_is_an_event() -> None:
    events: list[Event] = []
    async with record() as wire:
        auth = OAuth1Auth(client(), TOKEN, origins=API, on_event=events.append)
        async with ClientSession(middlewares=[auth]) as session, session.get(wire.url):
            assert [(event.name, event.origin) for event in events] == [("origin_refused", str(wire.url.origin()))]


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize(
    ("placement", "kwargs"),
    [
        ("header", {"headers": {"Authorization": "Basic mine"}}),
        ("header", {"auth": "me"}),
        ("header", {"params": {"oauth_signature": "mine"}}),
        ("query", {"params": {"oauth_signature": "mine"}}),
        ("form", {"data": {"oauth_signature": "mine"}}),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_S_64_what_is_signed_already_or_has_credentials_is_left_alone(
    placement: Placement, kwargs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    if "auth" in kwargs:
        kwargs = {"auth": BasicAuth("me", "mine")}
    async with record() as wire:
        auth = OAuth1Auth(client(placement=placement), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for _ in range(2):
                async with session.post(wire.url, **kwargs):
                    assert b"oauth_consumer_key" not in wire.seen[-1].raw
    assert caplog.text.count("said once") == 1


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("placement", ["header", "query", "form"])
async def test_G_12_S_22_nothing_of_a_signature_is_left_in_the_request(placement: Placement) -> None:
    seen: list[ClientRequest] = []

    async def outside(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        seen.append(request)
        before = (str(request.url), dict(request.headers), request.body)
        try:
            return await handler(request)
        finally:
            assert (str(request.url), dict(request.headers), request.body) == before

    async with record(answer(500)) as wire:
        auth = OAuth1Auth(client(placement=placement, signature_method="PLAINTEXT"), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[outside, auth], raise_for_status=True) as session:
            with pytest.raises(ClientResponseError) as caught:
                await session.post(wire.url, data={"a": "b"})
        assert b"oauth_signature" in wire.seen[0].raw
        if placement != "query":  # aiohttp's RequestInfo has the URL as it was sent
            assert "s3cret" not in repr(caught.value)
        assert len(seen) == 1


# Once more.


def at(moment: float, status: int = 401, problem: str | None = None) -> dict[str, Any]:
    from email.utils import formatdate

    challenge = f'OAuth realm="x", oauth_problem="{problem}"' if problem else 'OAuth realm="x"'
    return {"status": status, "headers": {"Date": formatdate(moment, usegmt=True), "WWW-Authenticate": challenge}}


class Skewed:
    """A server whose clock is *ahead* of *clock*, and that takes timestamps within 30 s."""

    def __init__(self, clock: VirtualClock, ahead: float, problem: str | None, status: int = 401) -> None:
        self.clock, self.ahead, self.problem, self.status = clock, ahead, problem, status

    def __call__(self, seen: Seen) -> bytes:
        now = self.clock.time() + self.ahead
        if abs(int(oauth_parameters(seen)["oauth_timestamp"]) - now) <= 30:
            return answer(200, b"ok")
        made = at(now, self.status, self.problem)
        return answer(made["status"], b"no", made["headers"])


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("ahead", [-86_400.0, -400.0, 400.0, 1e9])
@pytest.mark.parametrize(("problem", "status"), [(None, 401), ("timestamp_refused", 401), ("timestamp_refused", 400)])
async def test_F_54_a_clock_that_differs_is_learned_once(problem: str | None, status: int, ahead: float) -> None:
    clock, events = VirtualClock(1.7e9), list[Event]()
    async with record(Skewed(clock, ahead, problem, status)) as wire:
        signing = client(clock=clock)
        auth = OAuth1Auth(signing, TOKEN, origins=wire.url, on_event=events.append)
        async with ClientSession(middlewares=[auth]) as session:
            for _ in range(3):
                async with session.post(wire.url, data={"a": "b"}) as response:
                    assert response.status == 200
        assert len(wire.seen) == 4
        assert len({parameters(seen)["oauth_nonce"] for seen in wire.seen}) == 4
        assert wire.bodies == [b"a=b"] * 4
        # Whoever else signs for this client knows it too.
        again = OAuth1Auth(signing, TOKEN, origins=wire.url)
        async with ClientSession() as session, session.get(wire.url, middlewares=[again]) as response:
            assert response.status == 200
        assert len(wire.seen) == 5
    assert [event.name for event in events] == ["clock_offset_learned"]


async def test_F_54_the_acceptable_timestamps_that_a_server_names_are_believed() -> None:
    clock = VirtualClock(1.7e9)
    challenge = 'OAuth oauth_problem="timestamp_refused", oauth_acceptable_timestamps="1700004900-1700005100"'

    def reply(seen: Seen) -> bytes:
        stamped = parameters(seen)["oauth_timestamp"]
        return answer(200) if stamped == "1700005000" else answer(401, b"", {"WWW-Authenticate": challenge})

    async with record(reply) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(wire.url) as response:
            assert response.status == 200


async def test_F_54_a_401_that_another_time_does_not_cure_is_returned_and_the_clock_is_not_believed_for_a_while() -> None:
    clock = VirtualClock(1.7e9)
    made = at(1.8e9)
    async with record(answer(401, b"no", made["headers"])) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for sent in (2, 3, 4):
                async with session.get(wire.url) as response:
                    assert response.status == 401
                assert len(wire.seen) == sent
            clock.advance(301)
            async with session.get(wire.url) as response:
                assert response.status == 401
            assert len(wire.seen) == 6
        assert int(parameters(wire.seen[2])["oauth_timestamp"]) == 1_700_000_000


@pytest.mark.parametrize("date", [None, "yesterday", "Thu, 99 Jan 1970 00:00:00 GMT", "near"])
async def test_F_54_a_401_without_a_date_that_is_far_from_ours_is_returned(date: str | None) -> None:
    clock = VirtualClock(1.7e9)
    headers = at(1.7e9 + 50)["headers"] if date == "near" else {"Date": date} if date else {}
    async with record(answer(401, b"no", headers)) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(wire.url) as response:
            assert response.status == 401
        assert len(wire.seen) == 1


async def test_F_54_G_16_a_stream_is_not_sent_again_and_the_next_request_has_the_right_time() -> None:
    clock = VirtualClock(1.7e9)
    async with record(Skewed(clock, 4000.0, "timestamp_refused")) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            async with session.post(wire.url, data=chunks()) as response:
                assert response.status == 401
            async with session.post(wire.url, data=chunks()) as response:
                assert response.status == 200
        assert wire.bodies == [b"abcdef"] * 2


async def test_F_54_a_date_alone_is_not_believed_unproved() -> None:
    clock = VirtualClock(1.7e9)
    async with record(answer(401, b"no", at(1.8e9)["headers"])) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for _ in range(2):
                async with session.post(wire.url, data=chunks()) as response:
                    assert response.status == 401
        assert {parameters(seen)["oauth_timestamp"] for seen in wire.seen} == {"1700000000"}


async def test_F_54_a_401_that_becomes_another_answer_shows_that_the_time_was_right() -> None:
    clock = VirtualClock(1.7e9)
    skewed = Skewed(clock, 4000.0, None)
    async with record(lambda seen: answer(403) if b"200" in (made := skewed(seen))[:15] else made) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for sent in (2, 3):
                async with session.get(wire.url) as response:
                    assert response.status == 403
                assert len(wire.seen) == sent


async def test_F_54_a_clock_that_is_set_right_later_is_learned_again() -> None:
    clock = VirtualClock(1.7e9)
    skewed = Skewed(clock, 4000.0, None)
    async with record(skewed) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for ahead in (4000.0, 0.0, -500.0):
                skewed.ahead = ahead
                async with session.get(wire.url) as response:
                    assert response.status == 200
        assert len(wire.seen) == 6


class Renewing:
    """A source whose next token comes when the one it has is said to have expired."""

    def __init__(self, error: Exception | None = None) -> None:
        self.number, self.refused, self.error = 1, list[OAuth1Token](), error

    async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
        if refused is not None:
            if self.error is not None:
                raise self.error
            self.refused.append(refused)
            self.number += 1
        return OAuth1Token(f"tok-{self.number}", TOKEN_SECRET)


def expiring(seen: Seen) -> bytes:
    if parameters(seen)["oauth_token"] == "tok-2":
        return answer(200, b"ok")
    return answer(401, b"", {"WWW-Authenticate": 'OAuth oauth_problem="token_expired"'})


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("problem", ["token_expired", "token_revoked", "token_rejected"])
async def test_F_12_a_token_that_is_good_no_more_is_replaced_and_the_request_sent_again_once(problem: str) -> None:
    source = Renewing()

    def refusing(seen: Seen) -> bytes:
        return expiring(seen).replace(b"token_expired", problem.encode())

    async with record(refusing) as wire:
        async with ClientSession(middlewares=[OAuth1Auth(client(), source, origins=wire.url)]) as session:
            for _ in range(2):
                async with session.put(wire.url, data=b"body") as response:
                    assert response.status == 200
        assert [parameters(seen)["oauth_token"] for seen in wire.seen] == ["tok-1", "tok-2", "tok-2"]
        assert all(is_verified(seen) for seen in wire.seen)
        assert wire.bodies == [b"body"] * 3
        assert len(source.refused) == 1


async def test_F_41_a_stream_gets_its_401_and_what_fails_to_renew_is_raised_else() -> None:
    async with record(expiring) as wire:
        failing = Renewing(LoginRequired("sign in"))
        async with ClientSession(middlewares=[OAuth1Auth(client(), failing, origins=wire.url)]) as session:
            async with session.post(wire.url, data=chunks()) as response:
                assert response.status == 401
            with pytest.raises(LoginRequired):
                await session.post(wire.url, data=b"x")
            failing.error = ZeroDivisionError()
            with pytest.raises(ZeroDivisionError):
                await session.post(wire.url, data=b"x")
            failing.error = None
            async with session.post(wire.url, data=chunks()) as response:
                assert response.status == 401
            async with session.post(wire.url, data=chunks()) as response:
                assert response.status == 200


async def test_F_41_a_token_that_nobody_renews_gets_its_401() -> None:
    async with record(expiring) as wire:
        for token in (TOKEN, OAuth1Tokens()):
            if isinstance(token, OAuth1Tokens):
                await token.save(TOKEN)
            wire.seen.clear()
            auth = OAuth1Auth(client(), token, origins=wire.url)
            async with ClientSession(middlewares=[auth]) as session, session.get(wire.url) as response:
                assert response.status == 401
            assert len(wire.seen) == 1


@pytest.mark.aiohttp_versions
async def test_F_58_a_hundred_repetitions_over_one_connection_leak_nothing() -> None:
    from aiohttp import TCPConnector

    clock = VirtualClock(1.7e9)
    async with record(Skewed(clock, 4000.0, None)) as wire:
        async with ClientSession(connector=TCPConnector(limit=1)) as session:
            for _ in range(100):
                auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url)
                async with session.post(wire.url, data=b"x", middlewares=[auth]) as response:
                    assert response.status == 200
        assert wire.connections == 1


# Many users, other ways in.


async def test_S_60_many_users_in_one_session() -> None:
    from contextvars import ContextVar

    user: ContextVar[str] = ContextVar("user")
    tokens = OAuth1Tokens(key=user.get)
    for name in ("alice", "bob"):
        await tokens.save(OAuth1Token(f"tok-{name}", f"secret-{name}"), key=name)
    async with record() as wire:
        async with ClientSession(middlewares=[OAuth1Auth(client(), tokens, origins=wire.url)]) as session:

            async def of(name: str) -> None:
                user.set(name)
                async with session.get(wire.url, params={"name": name}):
                    pass

            await asyncio.gather(*(of(name) for name in ("alice", "bob") * 20))
            with pytest.raises(ConfigurationError, match="no key"):
                await session.get(wire.url)
            user.set("carol")
            with pytest.raises(LoginRequired):
                await session.get(wire.url)
        assert len(wire.seen) == 40
        for seen in wire.seen:
            name = seen.query.removeprefix("name=")
            assert parameters(seen)["oauth_token"] == f"tok-{name}"
            assert is_verified(seen, token_secret=f"secret-{name}")


@pytest.mark.aiohttp_versions
async def test_F_46_attached_to_a_session_that_exists_and_for_one_request() -> None:
    async with record() as wire, ClientSession() as session:
        auth = OAuth1Auth(client(), TOKEN, origins=wire.url)
        detach = attach(session, auth)
        async with session.get(wire.url):
            detach()
        async with session.get(wire.url):
            pass
        async with session.get(wire.url, middlewares=[auth]):
            pass
        assert [bool(seen.authorization) for seen in wire.seen] == [True, False, True]


@pytest.mark.aiohttp_versions
async def test_F_44_a_websocket_handshake_is_signed() -> None:
    async with record(answer(403)) as wire:
        auth = OAuth1Auth(client(), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(WSServerHandshakeError):
                await session.ws_connect(wire.url.with_scheme("ws") / "socket")
        assert is_verified(wire.seen[0])


@pytest.mark.aiohttp_versions
async def test_F_46_with_oauth_2_beside_it_each_api_gets_its_own() -> None:
    async with record() as one, record() as two:
        auths = OAuth1Auth(client(), TOKEN, origins=one.url), OAuth2Auth(StaticToken("bearer"), origins=two.url)
        async with ClientSession(middlewares=auths) as session:
            for url in (one.url, two.url):
                async with session.get(url):
                    pass
        assert is_verified(one.seen[0])
        assert two.authorization == [["Bearer bearer"]]


@pytest.mark.aiohttp_versions
async def test_F_46_a_trace_hook_signs_each_hop_at_home_and_none_abroad() -> None:
    async with record() as abroad:
        places = {"/": "/b?x=1", "/b": None}

        def reply(seen: Seen) -> bytes:
            return redirect(302, places[seen.path] or abroad.url)

        async with record(reply) as wire, ClientSession() as session:
            session.trace_configs.append(OAuth1Auth(client(), TOKEN, origins=wire.url).trace_config())
            async with session.get(wire.url, headers={"X-Mine": "1"}) as response:
                assert response.status == 200
            assert [is_verified(seen) for seen in wire.seen] == [True, True]
            assert len({parameters(seen)["oauth_nonce"] for seen in wire.seen}) == 2
            assert b"oauth" not in abroad.seen[0].raw.lower()


@pytest.mark.aiohttp_versions
async def test_S_63_a_trace_hook_refuses_a_form_that_it_cannot_see_and_signs_other_bodies() -> None:
    async with record() as wire:
        for method, refused in (("HMAC-SHA1", True), ("PLAINTEXT", False)):
            async with ClientSession() as session:
                auth = OAuth1Auth(client(signature_method=method), TOKEN, origins=wire.url)
                session.trace_configs.append(auth.trace_config())
                with pytest.raises(ConfigurationError, match="form") if refused else contextlib.nullcontext():
                    async with session.post(wire.url, data={"a": "b"}):
                        pass
                async with session.post(wire.url, json={"a": "b"}):
                    assert is_verified(wire.seen[-1])
                async with session.get(wire.url, headers={"Authorization": "mine"}):
                    assert wire.seen[-1].authorization == ["mine"]


@pytest.mark.aiohttp_versions
async def test_F_54_a_trace_hook_learns_the_time_for_the_next_request() -> None:
    clock = VirtualClock(1.7e9)
    async with record(Skewed(clock, 4000.0, None)) as wire, ClientSession() as session:
        session.trace_configs.append(OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url).trace_config())
        statuses = []
        for _ in range(3):
            async with session.get(wire.url) as response:
                statuses.append(response.status)
        assert statuses == [401, 200, 200]


@pytest.mark.parametrize("arguments", [{"placement": "query"}, {"placement": "form"}, {"body_hash": "on"}])
def test_S_63_a_trace_hook_can_only_set_a_header(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="trace hook"):
        OAuth1Auth(client(**arguments), TOKEN, origins=API).trace_config()


def test_F_46_the_object_compares_by_identity_and_prints_no_secret() -> None:
    one, two = (OAuth1Auth(client(), TOKEN, origins=API) for _ in range(2))
    assert one != two
    assert len({one, two}) == 2
    assert repr(one) == "<OAuth1Auth of <OAuth1Client 'key'> for http://x>".replace(
        "http://x", f"{API}:443, wss://api.example.com:443"
    )


def test_F_46_made_outside_of_any_loop_it_serves_two_loops_one_after_the_other() -> None:
    auth = OAuth1Auth(client(), TOKEN, origins=lambda url: True)

    async def main() -> bool:
        async with record() as wire, ClientSession(middlewares=[auth]) as session, session.get(wire.url):
            return is_verified(wire.seen[0])

    assert asyncio.run(main())
    assert asyncio.run(main())


@pytest.mark.parametrize("method_name", ["get", "post"])
async def test_S_63_a_signing_callable_of_the_users_own(method_name: str, caplog: pytest.LogCaptureFixture) -> None:
    from aiohttp_oauth_middleware import SignatureMethod, TokenUnavailable

    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    async def sign(text: str, client_secret: str, token_secret: str) -> str:
        assert (client_secret, token_secret) == (CLIENT_SECRET, TOKEN_SECRET)
        await asyncio.sleep(0)
        if text.startswith("DELETE"):
            raise ZeroDivisionError
        texts.append(text)
        return "signed: " + text.partition("&")[0]

    async with record() as wire:
        auth = OAuth1Auth(client(signature_method=SignatureMethod("HSM-1", sign)), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            async with session.request(method_name, wire.url):
                found = parameters(wire.seen[0])
            with pytest.raises(TokenUnavailable, match="ZeroDivisionError"):
                await session.delete(wire.url)
    assert found["oauth_signature_method"] == "HSM-1"
    assert found["oauth_signature"] == f"signed: {method_name.upper()}"
    assert len(texts) == 1


async def test_S_64_of_two_first_requests_at_once_one_is_pinned() -> None:
    gate = asyncio.Event()

    class Late:
        async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
            await gate.wait()
            return TOKEN

    events: list[Event] = []
    async with record() as one, record() as two:
        auth = OAuth1Auth(client(), Late(), on_event=events.append)
        async with ClientSession(middlewares=[auth]) as session:
            requests = [asyncio.create_task(session.request("GET", url)) for url in (one.url, two.url)]
            await asyncio.sleep(0)
            gate.set()
            for request in requests:
                (await request).close()
        assert sorted(len(seen.authorization) for seen in (*one.seen, *two.seen)) == [0, 1]
    assert [event.name for event in events] == ["origin_refused"]


async def test_F_12_a_source_with_nothing_better_gets_the_401_returned() -> None:
    class Stubborn:
        async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
            return TOKEN

    async with record(expiring) as wire:
        auth = OAuth1Auth(client(), Stubborn(), origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(wire.url) as response:
            assert response.status == 401
        assert len(wire.seen) == 1


async def test_F_54_F_12_a_wrong_clock_and_then_an_expired_token_are_two_causes_and_no_more() -> None:
    clock = VirtualClock(1.7e9)
    skewed = Skewed(clock, 4000.0, None)

    def reply(seen: Seen) -> bytes:
        made = skewed(seen)
        return expiring(seen) if b"200" in made[:15] else made

    async with record(reply) as wire, ClientSession() as session:
        attach(session, OAuth1Auth(client(clock=clock), Renewing(), origins=wire.url))
        for sent in (3, 4):
            async with session.get(wire.url) as response:
                assert response.status == 200
            assert len(wire.seen) == sent


async def test_G_16_a_body_that_an_inner_middleware_rewrote_starts_from_the_original_the_second_time() -> None:
    async def shout(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await request.update_body(bytes(await request.body.as_bytes()) + b"!")  # type: ignore[union-attr]
        return await handler(request)

    async with record(expiring) as wire:
        auth = OAuth1Auth(client(), Renewing(), origins=wire.url)
        async with ClientSession(middlewares=[auth, shout]) as session, session.post(wire.url, data=b"hey") as response:
            assert response.status == 200
        assert wire.bodies == [b"hey!"] * 2


# What attacks found.


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_S_64_S_60_a_redirect_that_keeps_the_query_takes_none_of_ours_along(status: int, method: str) -> None:
    async with record() as home, record() as abroad:
        target = {"/abroad": f"{str(abroad.url).rstrip('/')}", "/slash": ""}

        def reply(seen: Seen) -> bytes:
            if seen.path not in target:
                return answer(200)
            return redirect(status, f"{target[seen.path]}{seen.path}/?{seen.query}")

        home.reply = reply
        auth = OAuth1Auth(client(placement="query"), TOKEN, origins=home.url)
        async with ClientSession(middlewares=[auth]) as session:
            async with session.request(method, f"{home.url}abroad?x=1&y") as response:
                assert response.status == 200
            assert abroad.seen[0].query == "x=1&y"
            async with session.request(method, f"{home.url}slash?x=1"):
                first, second = home.seen[-2:]
        assert is_verified(first)
        assert is_verified(second)
        assert oauth_parameters(first)["oauth_nonce"] != oauth_parameters(second)["oauth_nonce"]
        assert second.query.count("oauth_nonce=") == 1


@pytest.mark.parametrize("query", ["my_oauth_signature=1", "u=http://x/?oauth_signature=abc"])
async def test_S_64_a_name_that_only_ends_like_ours_opts_nobody_out(query: str) -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(URL(f"{wire.url}?{query}", encoded=True)):
            assert is_verified(wire.seen[0])


async def test_F_54_a_hundred_who_learn_of_a_wrong_clock_at_once_say_it_once(caplog: pytest.LogCaptureFixture) -> None:
    clock, events = VirtualClock(1.7e9), list[Event]()
    async with record(Skewed(clock, 7200.0, None)) as wire:
        auth = OAuth1Auth(client(clock=clock), TOKEN, origins=wire.url, on_event=events.append)
        async with ClientSession(middlewares=[auth]) as session:

            async def one() -> int:
                async with session.get(wire.url) as response:
                    return response.status

            assert set(await asyncio.gather(*(one() for _ in range(100)))) == {200}
    assert [event.name for event in events] == ["clock_offset_learned"]
    assert caplog.text.count("from ours") == 1


async def test_S_61_a_trace_hook_makes_no_connection_for_plaintext_over_http() -> None:
    async with record() as wire, ClientSession() as session:
        auth = OAuth1Auth(client(signature_method="PLAINTEXT"), TOKEN, origins=lambda url: True, insecure_http=True)
        session.trace_configs.append(auth.trace_config())
        with pytest.raises(InsecureTransport, match="PLAINTEXT"):
            await session.get(wire.url.with_host("0.0.0.0"))
        assert wire.connections == 0


async def test_S_61_plaintext_goes_through_no_proxy_in_the_clear() -> None:
    async with record() as proxy:
        auth = OAuth1Auth(client(signature_method="PLAINTEXT"), TOKEN, origins="http://localhost:9")
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(InsecureTransport, match="PLAINTEXT"):
                await session.get("http://localhost:9/", proxy=proxy.url)
        assert proxy.connections == 0


async def test_S_63_the_form_placement_puts_no_form_under_another_label() -> None:
    async with record() as wire:
        auth = OAuth1Auth(client(placement="form"), TOKEN, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(ConfigurationError, match="form"):
                await session.post(wire.url, headers={"Content-Type": "application/json"})
        assert wire.seen == []
