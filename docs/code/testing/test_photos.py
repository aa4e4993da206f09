"""Tests of code that signs by OAuth 1.0a, against the embedded server."""

from aiohttp import ClientSession

from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client, OAuth1Token
from aiohttp_oauth_middleware.testing import EchoAPI, OAuth1Server

client = OAuth1Client("app", "app-secret", redirect_uri="https://app.example.com/callback")


# [legs]
async def test_photos_are_read_once_a_person_consented(oauth1_server: OAuth1Server, oauth1_api: EchoAPI) -> None:
    request_token = await client.fetch_request_token(oauth1_server.request_token_url)
    callback = oauth1_server.approve(request_token.oauth_token)
    verifier = client.parse_authorization_response(callback, request_token)
    token = await client.fetch_access_token(oauth1_server.access_token_url, request_token, verifier)
    async with ClientSession(middlewares=[OAuth1Auth(client, token, origins=oauth1_api.origin)]) as session:
        async with session.get(oauth1_api.url / "photos") as response:
            assert (await response.json())["user"] == "alice"
    assert oauth1_server.counts.verdicts == {"accepted": 3}


# [clock]
async def test_a_clock_that_is_an_hour_late_is_found_out(oauth1_server: OAuth1Server, oauth1_api: EchoAPI) -> None:
    oauth1_server.clock_offset = 3600.0
    token = OAuth1Token.from_dict(oauth1_server.issue())
    async with ClientSession(middlewares=[OAuth1Auth(client, token, origins=oauth1_api.origin)]) as session:
        async with session.get(oauth1_api.url / "photos") as response:
            assert response.status == 200
    assert oauth1_server.counts.verdicts == {"timestamp_refused": 1, "accepted": 1}
