"""Tests of the code in reports.py, against the embedded authorization server."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from reports import titles
from yarl import URL

from aiohttp_oauth_middleware import ClientCredentials, Tokens, TokenUnavailable
from aiohttp_oauth_middleware.testing import TOKEN, AuthorizationServer, EchoAPI


# [app]
async def list_reports(request: web.Request) -> web.Response:
    assert request[TOKEN].client_id == "app"
    return web.json_response([{"title": "Ducks"}])


@pytest.fixture
async def reports_app(oauth_server: AuthorizationServer) -> AsyncIterator[URL]:
    app = web.Application()
    app.router.add_get("/reports", list_reports)
    oauth_server.protect(app, scope="reports:read")
    async with TestServer(app) as server:
        yield server.make_url("/")


@pytest.fixture
def tokens(oauth_server: AuthorizationServer) -> Tokens:
    return Tokens(oauth_server.client(), ClientCredentials("reports:read"))


# [expiry]
async def test_titles_survive_the_expiry_of_the_token(
    oauth_server: AuthorizationServer, reports_app: URL, tokens: Tokens
) -> None:
    assert await titles(reports_app, tokens) == ["Ducks"]
    oauth_server.expire_all()
    assert await titles(reports_app, tokens) == ["Ducks"]
    # What the server counted is the only truth in a test.
    assert oauth_server.counts.token_requests == 2
    assert oauth_server.counts.presented == {"accepted": 2, "invalid_token": 1}


# [outage]
async def test_titles_say_so_when_the_login_server_is_down(
    oauth_server: AuthorizationServer, reports_app: URL, tokens: Tokens
) -> None:
    oauth_server.fail_next(503, retry_after=120)
    with pytest.raises(TokenUnavailable) as caught:
        await titles(reports_app, tokens)
    assert caught.value.retry_after == 120


# [echo]
async def test_the_path_is_right(oauth_api: EchoAPI, tokens: Tokens) -> None:
    oauth_api.answer_next(200, body=b"[]", headers={"Content-Type": "application/json"})
    assert await titles(oauth_api.url, tokens) == []
    assert [request.path for request in oauth_api.requests] == ["/reports"]
