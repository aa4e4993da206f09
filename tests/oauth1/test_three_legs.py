"""The client of the three legs, against the embedded server: whose callback it is, and whose clock."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientSession
from multidict import MultiDict
from yarl import URL

from aiohttp_oauth_middleware import (
    AccessDenied,
    CallbackError,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    StateMismatch,
    TokenResponseError,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.testing import AuthorizationServer

CALLBACK = "https://app.example.com/callback?stay=1"


def client(**arguments: Any) -> OAuth1Client:
    return OAuth1Client("app", "app-secret", **{"redirect_uri": CALLBACK} | arguments)


async def test_S_62_a_callback_counts_only_for_the_request_token_that_is_pending() -> None:
    with AuthorizationServer() as server:
        mine, theirs = [await client().fetch_request_token(server.oauth1.request_token_url) for _ in range(2)]
        callback = server.oauth1.approve(theirs.oauth_token, user="mallory")
        with pytest.raises(StateMismatch, match="another login"):
            client().parse_authorization_response(callback, mine)
        with pytest.raises(StateMismatch):
            client().parse_authorization_response({"denied": theirs.oauth_token}, mine)
        assert server.oauth1.counts.requests["access_token"] == 0
        verifier = client().parse_authorization_response(callback, theirs)
        token = await client().fetch_access_token(server.oauth1.access_token_url, theirs, verifier)
        assert server.oauth1.counts.tokens_issued == 1
        assert token.oauth_token != theirs.oauth_token


@pytest.mark.parametrize(
    "callback",
    [
        f"{CALLBACK}&oauth_token=t&oauth_token=t&oauth_verifier=v",
        URL(f"{CALLBACK}&oauth_token=t&oauth_verifier=v&oauth_verifier=w"),
        MultiDict([("oauth_token", "t"), ("oauth_verifier", "v"), ("oauth_verifier", "w")]),
        MultiDict([("oauth_token", "other"), ("oauth_token", "t"), ("oauth_verifier", "v")]),
        {"oauth_token": "t"},
    ],
)
def test_S_62_a_callback_without_a_verifier_or_with_two_is_none(callback: Any) -> None:
    with pytest.raises(CallbackError) as caught:
        client().parse_authorization_response(callback, "t")
    assert not isinstance(caught.value, StateMismatch)


@pytest.mark.parametrize(
    "told", [{"oauth_problem": "user_refused"}, {"oauth_token": "t", "oauth_problem": "x"}, {"denied": "t"}]
)
def test_S_62_a_person_who_says_no_is_an_error_of_its_own(told: dict[str, str]) -> None:
    with pytest.raises(AccessDenied):
        client().parse_authorization_response(told, "t")


async def test_S_62_a_server_that_confirms_no_callback_has_to_be_named() -> None:
    with AuthorizationServer() as server:
        server.oauth1.confirm_callbacks = False
        with pytest.raises(TokenResponseError, match="revision_a=False"):
            await client().fetch_request_token(server.oauth1.request_token_url)
        old = client(revision_a=False)
        token = await old.fetch_request_token(server.oauth1.request_token_url)
        assert "oauth_callback" not in server.oauth1.requests[-1].oauth
        assert URL(old.create_authorization_url(server.oauth1.authorize_url, token)).query["oauth_callback"] == CALLBACK
        assert old.parse_authorization_response(server.oauth1.approve(token.oauth_token), token) == ""
        assert isinstance(await old.fetch_access_token(server.oauth1.access_token_url, token), OAuth1Token)


async def test_F_54_a_wrong_clock_is_learned_by_the_first_leg_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with AuthorizationServer() as server:
        server.oauth1.clock_offset = -7200
        ours = client()
        for _ in range(3):
            await ours.fetch_request_token(server.oauth1.request_token_url)
        assert server.oauth1.counts.verdicts == {"timestamp_refused": 1, "accepted": 3}
    assert caplog.text.count("from ours") == 1


async def test_F_12_where_the_server_says_expired_a_renewal_that_fails_is_told_and_the_401_is_not() -> None:
    with AuthorizationServer() as server:
        server.oauth1.session_handles = True
        api = server.oauth1.api()
        tokens = OAuth1Tokens(client=client(), renewal_url=server.oauth1.access_token_url)
        await tokens.save(OAuth1Token.from_dict(server.oauth1.issue()))
        server.oauth1.expire_all()
        server.fail_next(503, endpoint="access_token")
        async with ClientSession(middlewares=[OAuth1Auth(client(), tokens, origins=api.origin)]) as session:
            with pytest.raises(TokenUnavailable):
                await session.get(api.url)
        assert server.oauth1.counts.requests == {"resource": 1, "access_token": 1}
