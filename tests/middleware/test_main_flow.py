"""The main job from end to end, and each placement over the redirects that keep a body."""

from __future__ import annotations

import asyncio
import time
import zlib

import pytest
from aiohttp import ClientSession

from aiohttp_oauth_middleware import (
    BearerHeader,
    ClientCredentials,
    ConfigurationError,
    FormBody,
    Header,
    InsecureQuery,
    OAuth2Auth,
    Placement,
    Tokens,
)
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.middleware.wire import INVALID, Rotating, Seen, record, redirect
from tests.raw_server import answer

pytestmark = pytest.mark.aiohttp_versions


async def test_S_38_a_token_is_fetched_reused_and_replaced_when_it_is_revoked(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials(scope="read"))
    auth = OAuth2Auth(tokens, origins=oauth_api.origin)
    async with ClientSession(middlewares=[auth]) as session:
        for _ in range(3):
            async with session.get(oauth_api.url / "report") as response:
                assert response.status == 200
                assert (await response.json())["client"] == "app"
        assert oauth_server.counts.token_requests == 1
        oauth_server.expire_all()
        async with session.post(oauth_api.url / "report", json={"a": 1}) as response:
            assert response.status == 200
            assert (await response.json())["length"] == 8
    assert oauth_server.counts.token_requests == 2
    assert oauth_api.answered == {200: 4, 401: 1}


async def test_F_15_a_first_burst_is_one_token_request(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        responses = await asyncio.gather(*(session.get(oauth_api.url) for _ in range(50)))
        assert {response.status for response in responses} == {200}
        for response in responses:
            response.close()
    assert oauth_server.counts.token_requests == 1


async def test_S_10_over_many_refreshes_no_superseded_refresh_token_is_presented(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        for number in range(1, 6):
            await tokens.save((await tokens.token()).replace(obtained_at=time.time() - 60))
            oauth_server.expire_all()
            async with session.get(oauth_api.url) as response:
                assert response.status == 200
            assert oauth_server.counts.token_requests == number
    assert oauth_server.counts.reuses == 0


@pytest.mark.parametrize(
    ("placement", "header", "prefix"),
    [(Header("X-Auth-Token", scheme=""), "X-Auth-Token", ""), (Header(scheme="token"), "Authorization", "token")],
)
async def test_S_35_the_server_takes_the_token_in_another_header_or_under_another_scheme(
    placement: Placement, header: str, prefix: str, oauth_server: AuthorizationServer
) -> None:
    api = oauth_server.api(header=header, prefix=prefix)
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    auth = OAuth2Auth(tokens, origins=api.origin, placement=placement)
    async with ClientSession(middlewares=[auth]) as session:
        for _ in range(2):
            async with session.get(api.url) as response:
                assert response.status == 200
            oauth_server.expire_all()
    assert oauth_server.counts.token_requests == 2


@pytest.mark.parametrize("placement", [FormBody(), InsecureQuery()])
async def test_S_35_the_server_takes_the_token_in_the_form_or_in_the_query(
    placement: Placement, oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    auth = OAuth2Auth(tokens, origins=oauth_api.origin, placement=placement)
    async with ClientSession(middlewares=[auth]) as session:
        for _ in range(2):
            async with session.post(oauth_api.url, data={"a": "1"}) as response:
                assert response.status == 200
            oauth_server.expire_all()
    assert oauth_server.counts.token_requests == 2
    assert oauth_api.answered == {200: 2, 401: 1}


def chain(seen: Seen) -> bytes:
    """307, 308, then a 401, then fine."""
    if seen.path in ("/0", "/1"):
        return redirect(307 + int(seen.path[1:]), f"/{int(seen.path[1:]) + 1}?q=%41")
    return answer(200) if b"at-2" in seen.raw else answer(401, b"", {"WWW-Authenticate": INVALID})


@pytest.mark.parametrize("label", [None, "application/x-www-form-urlencoded; charset=utf-8"])
async def test_S_35_F_41_the_form_placement_does_not_double_over_redirects_and_repetitions(label: str | None) -> None:
    async with record(chain) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, placement=FormBody())
        headers = {} if label is None else {"Content-Type": label}
        async with (
            ClientSession(middlewares=[auth]) as session,
            session.post(wire.url / "0", data={"a": "1", "b": "ä"}, headers=headers) as response,
        ):
            assert response.status == 200
        tokens = [f"a=1&b=%C3%A4&access_token=at-{number}".encode() for number in (1, 1, 1, 2)]
        assert wire.bodies == tokens
        for seen in wire.seen:
            assert seen.all("content-type") == [label or "application/x-www-form-urlencoded"]
            assert seen.all("content-length") == [str(len(seen.body))]
            assert seen.authorization == []


async def test_S_35_the_form_placement_with_a_compressed_and_a_chunked_form() -> None:
    async with record(chain) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, placement=FormBody())
        async with ClientSession(middlewares=[auth]) as session:
            async with session.post(wire.url / "2", data={"a": "1"}, compress="deflate") as response:
                assert response.status in (200, 401)
            assert zlib.decompress(bytes(wire.seen[0].body)) == b"a=1&access_token=at-1"
            wire.seen.clear()
            async with session.post(wire.url / "2", data={"a": "1"}, chunked=True) as response:
                assert response.status == 200
            assert bytes(wire.seen[-1].body) == b"a=1&access_token=at-2"
            assert wire.seen[-1].all("content-length") == []


async def test_S_35_F_42_the_query_placement_keeps_the_query_and_does_not_follow_a_redirect() -> None:
    async with record(chain) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, placement=InsecureQuery())
        async with ClientSession(middlewares=[auth]) as session, session.post(f"{wire.url}0?x=1&y", data=b"b") as response:
            assert response.status == 200
            assert "at-" not in str(response.url)
        assert [seen.query for seen in wire.seen] == [
            "x=1&y&access_token=at-1",
            "q=A&access_token=at-1",
            "q=A&access_token=at-1",
            "q=A&access_token=at-2",
        ]


async def test_S_35_a_request_without_a_form_is_refused_by_the_form_placement_before_anything_is_sent() -> None:
    async with record() as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, placement=FormBody())
        async with ClientSession(middlewares=[auth]) as session:
            for method, body in (("GET", None), ("POST", b"x")):
                with pytest.raises(ConfigurationError, match="form body"):
                    await session.request(method, wire.url, data=body)
        assert wire.received == 0


@pytest.mark.parametrize("placement", [BearerHeader(), Header("X-Auth-Token", scheme=""), FormBody()])
async def test_S_16_no_other_placement_puts_the_token_into_a_url(placement: Placement) -> None:
    async with record(chain) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, placement=placement)
        async with (
            ClientSession(middlewares=[auth]) as session,
            session.post(f"{wire.url}0?x=1", data={"a": "1"}) as response,
        ):
            assert response.status == 200
        assert len(wire.seen) == 4
        for seen in wire.seen:
            assert b"at-" in seen.raw
            assert "at-" not in seen.target
