"""Where the token goes, and where it does not: real requests and real redirects, read off the wire."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import warnings
from pathlib import Path

import aiohttp
import pytest
from aiohttp import BasicAuth, ClientConnectorError, ClientSession, NonHttpUrlRedirectClientError, TCPConnector
from yarl import URL

from aiohttp_oauth_middleware import (
    BearerHeader,
    ConfigurationError,
    Event,
    FormBody,
    Header,
    InsecureQuery,
    InsecureTransport,
    OAuth2Auth,
    Placement,
    Refusal,
    StaticToken,
    Token,
)
from tests.middleware.corpus import FOREIGN, OWN
from tests.middleware.wire import Rotating, Seen, elsewhere, record, redirect
from tests.raw_server import answer

DEPRECATES_AUTH = tuple(map(int, aiohttp.__version__.split(".")[:2])) >= (3, 14)
SECRET = "s3cr3t-t0ken"
API = "https://api.example.com"
SEEN_AT_HOME = "Bearer s3cr3t-t0ken"


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_F_42_G_13_no_redirect_of_the_corpus_takes_the_token_abroad_and_back_home_it_is_there_again(status: int) -> None:
    auth = OAuth2Auth(StaticToken(SECRET), origins=API)
    steps = itertools.count()
    target = ""

    def reply(seen: Seen) -> bytes:
        return {0: redirect(status, target), 1: redirect(307, f"{API}/back")}.get(next(steps) % 3, answer(200))

    foreign = own = 0
    async with record(reply) as wire, ClientSession(middlewares=[auth, elsewhere(lambda url: wire.url.port)]) as session:
        for target in (*OWN, *FOREIGN):
            steps = itertools.count()
            wire.seen.clear()
            followed = contextlib.suppress(NonHttpUrlRedirectClientError)
            with followed:
                async with session.post(f"{API}/start", data=b"body") as response:
                    assert response.status == 200
            if URL(target).scheme in ("ws", "wss"):
                assert len(wire.seen) == 1, target
                continue
            first, there, back = wire.seen
            assert first.authorization == back.authorization == [SEEN_AT_HOME], target
            if target in OWN:
                own += 1
                assert there.authorization == [SEEN_AT_HOME], target
            else:
                foreign += 1
                assert SECRET.encode() not in there.raw, target
    assert foreign > 190
    assert own > 20


@pytest.mark.aiohttp_versions
async def test_F_43_G_13_no_url_of_the_corpus_gets_the_token_directly_unless_it_is_ours() -> None:
    auth = OAuth2Auth(StaticToken(SECRET), origins=API)
    async with record() as wire, ClientSession(middlewares=[auth, elsewhere(lambda url: wire.url.port)]) as session:
        for url in (*OWN, *FOREIGN):
            wire.seen.clear()
            async with session.get(url) as response:
                assert response.status == 200
            (seen,) = wire.seen
            assert (SECRET.encode() in seen.raw) is (url in OWN), url


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "placement", [BearerHeader(), Header("X-Auth-Token", scheme=""), Header(scheme="token"), FormBody(), InsecureQuery()]
)
async def test_F_42_a_redirect_to_another_port_takes_the_token_of_no_placement_with_it(
    placement: Placement, status: int
) -> None:
    async with record() as foreign, record(lambda seen: redirect(status, f"{foreign.url}x?y=1")) as own:
        auth = OAuth2Auth(StaticToken(SECRET), origins=own.url, placement=placement)
        async with ClientSession(middlewares=[auth]) as session, session.post(f"{own.url}a?b=c", data={"d": "e"}) as response:
            assert response.status == 200
            assert str(response.url) == f"{foreign.url}x?y=1"
        assert SECRET.encode() in own.seen[0].raw
        assert foreign.received
        assert SECRET.encode() not in foreign.seen[0].raw
        assert foreign.seen[0].query == "y=1"


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("placement", [BearerHeader(), Header("X-Auth-Token", scheme=""), InsecureQuery()])
async def test_F_42_a_redirect_within_the_origin_takes_the_token_with_it_once(placement: Placement, status: int) -> None:
    def reply(seen: Seen) -> bytes:
        return redirect(status, "/b?z") if seen.path == "/a" else answer(200)

    async with record(reply) as own:
        auth = OAuth2Auth(StaticToken(SECRET), origins=own.url, placement=placement)
        async with ClientSession(middlewares=[auth]) as session, session.get(own.url / "a") as response:
            assert response.status == 200
        assert [seen.raw.count(SECRET.encode()) for seen in own.seen] == [1, 1]


@pytest.mark.aiohttp_versions
async def test_F_42_a_chain_there_and_back_and_there_again() -> None:
    async with record() as foreign, record() as own:
        foreign.reply = lambda seen: redirect(307, own.url / f"{int(seen.path[1:]) + 1}") if int(seen.path[1:]) < 6 else b""
        own.reply = lambda seen: redirect(307, foreign.url / f"{int(seen.path[1:]) + 1}") if seen.path != "/6" else answer()
        auth = OAuth2Auth(StaticToken(SECRET), origins=own.url)
        async with ClientSession(middlewares=[auth]) as session, session.post(own.url / "0", data=b"x") as response:
            assert response.status == 200
        assert own.authorization == [[SEEN_AT_HOME]] * 4
        assert foreign.authorization == [[]] * 3
        assert own.bodies == [b"x"] * 4


@pytest.mark.aiohttp_versions
async def test_F_42_two_authorization_headers_of_the_users_own_are_left_alone_and_ours_does_not_follow_them() -> None:
    async with record() as foreign, record(lambda seen: redirect(307, foreign.url)) as own:
        auth = OAuth2Auth(StaticToken(SECRET), origins=own.url)
        mine = [("Authorization", "Basic bWluZQ=="), ("Authorization", "Bearer mine")]
        async with ClientSession(middlewares=[auth]) as session, session.get(own.url, headers=mine):
            pass
        assert own.authorization == [["Basic bWluZQ==", "Bearer mine"]]
        assert SECRET.encode() not in foreign.seen[0].raw


async def test_F_42_two_authorization_headers_none_goes_abroad_where_aiohttp_drops_both() -> None:
    async with record() as foreign, record(lambda seen: redirect(307, foreign.url)) as own:
        auth = OAuth2Auth(StaticToken(SECRET), origins=own.url, placement=Header("X-Auth-Token"))
        mine = [("Authorization", "Basic bWluZQ==")]
        async with ClientSession(middlewares=[auth]) as session, session.get(own.url, headers=mine):
            pass
        assert own.authorization == [["Basic bWluZQ=="]]
        assert own.seen[0].get("x-auth-token") == f"Bearer {SECRET}"
        assert foreign.authorization == [[]]
        assert foreign.seen[0].get("x-auth-token") is None


async def test_F_42_credentials_in_the_url_of_a_redirect_do_not_bring_the_token_along() -> None:
    async with record() as foreign, record() as own:
        own.reply = redirect(302, f"http://{own.url.authority}@{foreign.url.authority}/")
        auth = OAuth2Auth(StaticToken(SECRET), origins=own.url)
        async with ClientSession(middlewares=[auth]) as session, session.get(own.url) as response:
            assert response.url.port == foreign.url.port
        assert SECRET.encode() not in foreign.seen[0].raw


@pytest.mark.aiohttp_versions
async def test_S_18_F_43_without_origins_the_first_is_pinned_with_two_warnings_in_all(caplog: pytest.LogCaptureFixture) -> None:
    async with record() as first, record() as second:
        auth = OAuth2Auth(StaticToken(SECRET))
        async with ClientSession(middlewares=[auth]) as session:
            for url in (first.url, second.url, first.url / "x", second.url / "y"):
                async with session.get(url):
                    pass
        assert first.authorization == [[SEEN_AT_HOME]] * 2
        assert second.authorization == [[]] * 2
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert f"127.0.0.1:{first.url.port}" in caplog.messages[0]
        assert f"127.0.0.1:{second.url.port}" in caplog.messages[1]


async def test_S_18_a_request_with_credentials_of_its_own_pins_nothing() -> None:
    async with record() as foreign, record() as own:
        auth = OAuth2Auth(StaticToken(SECRET))
        async with ClientSession(middlewares=[auth]) as session:
            for url, headers in ((foreign.url, {"Authorization": "Bearer mine"}), (own.url, {}), (foreign.url, {})):
                async with session.get(url, headers=headers):
                    pass
        assert foreign.authorization == [["Bearer mine"], []]
        assert own.authorization == [[SEEN_AT_HOME]]


async def test_S_18_of_two_first_requests_at_once_one_is_pinned() -> None:
    async with record() as one, record() as two:
        auth = OAuth2Auth(Rotating())
        async with ClientSession(middlewares=[auth]) as session:
            for response in await asyncio.gather(*(session.get(wire.url) for wire in (one, two, one, two))):
                response.close()
        assert sorted([one.authorization, two.authorization]) == [[[], []], [["Bearer at-1"]] * 2]


async def test_S_18_a_source_that_has_no_token_yet_pins_nothing() -> None:
    class Later:
        have: Token | None = None

        async def token(self, refused: Refusal | None = None) -> Token | None:
            return self.have

    source = Later()
    async with record() as foreign, record() as own:
        auth = OAuth2Auth(source)
        async with ClientSession(middlewares=[auth]) as session:
            async with session.get(foreign.url):
                pass
            source.have = Token(SECRET)
            for url in (own.url, foreign.url):
                async with session.get(url):
                    pass
        assert foreign.authorization == [[], []]
        assert own.authorization == [[SEEN_AT_HOME]]


async def test_S_18_the_origins_may_be_a_callable_that_is_asked_for_each_hop() -> None:
    asked: list[str] = []

    def decide(url: URL) -> bool:
        if url.path not in asked:
            asked.append(url.path)
        return url.path.startswith("/in")

    auth = OAuth2Auth(StaticToken(SECRET), origins=decide)
    async with record(lambda seen: redirect(307, "/out") if seen.path == "/in" else answer()) as wire:
        async with ClientSession(middlewares=[auth]) as session:
            for path in ("in", "in/2"):
                async with session.get(wire.url / path):
                    pass
        assert wire.authorization == [[SEEN_AT_HOME], [], [SEEN_AT_HOME]]
        assert asked == ["/in", "/out", "/in/2"]


async def test_S_18_a_source_may_bring_its_own_origins_and_an_argument_wins() -> None:
    class Bound(Rotating):
        origins: object = None

    async with record() as one, record() as two:
        source = Bound()
        source.origins = [one.url]
        for auth, signed in ((OAuth2Auth(source), one), (OAuth2Auth(source, origins=two.url), two)):
            one.seen.clear()
            two.seen.clear()
            async with ClientSession(middlewares=[auth]) as session:
                for url in (one.url, two.url):
                    async with session.get(url):
                        pass
            for wire in (one, two):
                assert wire.authorization == [["Bearer at-1"] if wire is signed else []]


async def test_S_39_plain_http_beyond_this_machine_is_an_error_before_anything_is_sent() -> None:
    async with record() as wire:
        to_wire = elsewhere(lambda url: wire.url.port)
        for auth in (OAuth2Auth(Rotating()), OAuth2Auth(Rotating(), origins=lambda url: True)):
            async with ClientSession(middlewares=[auth, to_wire]) as session:
                with pytest.raises(InsecureTransport):
                    await session.get("http://api.example.com/")
        assert wire.connections == 0
        with pytest.raises(InsecureTransport):
            OAuth2Auth(Rotating(), origins="http://api.example.com")
        auth = OAuth2Auth(Rotating(), origins="http://api.example.com", insecure_http=True)
        async with ClientSession(middlewares=[auth, to_wire]) as session, session.get("http://api.example.com/"):
            pass
        assert wire.authorization == [["Bearer at-1"]]


async def test_S_39_a_foreign_http_url_passes_untouched() -> None:
    async with record() as wire:
        auth = OAuth2Auth(Rotating(), origins=API)
        async with (
            ClientSession(middlewares=[auth, elsewhere(lambda url: wire.url.port)]) as session,
            session.get("http://api.example.com/"),
        ):
            pass
        assert wire.authorization == [[]]


async def test_F_43_a_foreign_401_is_none_of_our_business() -> None:
    source = Rotating()
    async with record(answer(401, b"", {"WWW-Authenticate": 'Bearer error="invalid_token"'})) as wire:
        async with ClientSession(middlewares=[OAuth2Auth(source, origins=API)]) as session, session.get(wire.url) as response:
            assert response.status == 401
        assert len(wire.seen) == 1
    assert source.asked == 0


@pytest.mark.aiohttp_versions
async def test_S_35_an_own_value_in_the_field_is_left_and_the_one_warning_names_the_four(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Rotating()
    async with record() as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for _ in range(3):
                async with session.get(wire.url, headers={"authorization": "Token mine"}):
                    pass
            async with session.get(wire.url):
                pass
        assert wire.authorization == [["Token mine"]] * 3 + [["Bearer at-1"]]
    (said,) = caplog.messages
    for word in ("headers", "session", "auth=", "URL", "netrc"):
        assert word in said
    assert "mine" not in said
    assert source.asked == 1


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("way", ["netrc", "auth", "url", "session default"])
async def test_S_35_each_of_the_four_that_look_like_an_own_header_switches_us_off_with_a_warning(
    way: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    basic = "Basic dTpw"
    given = BasicAuth("u", "p") if way == "auth" and not DEPRECATES_AUTH else None
    defaults = {"Authorization": basic} if way == "session default" else {}
    async with record(answer(401, b"")) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        url = wire.url.with_user("u").with_password("p") if way == "url" else wire.url
        async with ClientSession(middlewares=[auth], headers=defaults, trust_env=way == "netrc") as session:
            if way == "auth" and DEPRECATES_AUTH:
                with pytest.deprecated_call():
                    given = BasicAuth("u", "p")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    response = await session.get(url, auth=given)
            else:
                response = await session.get(url, auth=given)
            assert response.status == 401
            response.close()
        assert wire.authorization == [[basic]]
    assert len(caplog.messages) == 1
    assert "dTpw" not in caplog.text


async def test_S_18_a_refused_connection_is_the_users_error_and_passes_untouched() -> None:
    async with record() as wire:
        url = wire.url
    async with ClientSession(connector=TCPConnector(), middlewares=[OAuth2Auth(Rotating(), origins=url)]) as session:
        with pytest.raises(ClientConnectorError):
            await session.get(url)


async def test_F_56_each_request_that_goes_without_the_token_is_an_event() -> None:
    events: list[Event] = []

    def hook(event: Event) -> None:
        events.append(event)
        raise ZeroDivisionError  # swallowed: a hook can't break a request

    async with record() as foreign, record() as own:
        auth = OAuth2Auth(StaticToken(SECRET), origins=own.url, on_event=hook)
        async with ClientSession(middlewares=[auth]) as session:
            for url in (own.url, foreign.url, foreign.url):
                async with session.get(url) as response:
                    assert response.status == 200
        assert foreign.authorization == [[], []]
    origin = f"http://127.0.0.1:{foreign.url.port}"
    assert [(event.name, event.key_id, event.origin) for event in events] == [("origin_refused", "", origin)] * 2
    assert SECRET not in repr(events)


def test_an_event_hook_must_be_callable() -> None:
    with pytest.raises(ConfigurationError, match="on_event"):
        OAuth2Auth(StaticToken(SECRET), origins="https://api.example.com", on_event="print")  # type: ignore[arg-type]
