"""panva's oidc-provider: what it has and glewlwyd has not, or does otherwise."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import ClientSession

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecretBasic,
    DiscoveryError,
    InvalidClient,
    InvalidGrant,
    LoginRequired,
    OAuth2Auth,
    Tokens,
)
from tests.interop.conftest import SHORT_TTL
from tests.interop.servers import Server


async def test_a_secret_of_awkward_characters_is_form_encoded_before_it_goes_into_basic(oidc_provider_server: Server) -> None:
    # RFC 6749 section 2.3.1; this server decodes what it receives.
    client = Client(oidc_provider_server.issuer, "machine:awkward", ClientSecretBasic('s3cr:t +%&=/~"'))
    assert (await client.fetch_token(ClientCredentials("reports:read"))).scope == "reports:read"


async def test_a_wrong_secret_is_invalid_client(oidc_provider_server: Server) -> None:
    with pytest.raises(InvalidClient) as caught:
        await oidc_provider_server.client("machine-basic", "another-secret").fetch_token(ClientCredentials())
    assert caught.value.status == 401
    assert caught.value.error == "invalid_client"


async def test_a_confidential_web_client_authenticates_by_post(oidc_provider_server: Server) -> None:
    client = oidc_provider_server.client("web-post")
    token = await oidc_provider_server.login(client)
    assert (await client.refresh(token)).refresh_token != token.refresh_token


async def test_an_issuer_that_differs_by_a_slash_is_another_issuer(oidc_provider_server: Server) -> None:
    # RFC 8414 section 3.3: the values must be identical.
    client = Client(f"{oidc_provider_server.issuer}/", "public")
    with pytest.raises(DiscoveryError):
        await client.metadata()


async def test_a_spent_refresh_token_is_invalid_grant(oidc_provider_server: Server) -> None:
    client = oidc_provider_server.client("public")
    token = await oidc_provider_server.login(client)
    await client.refresh(token)
    with pytest.raises(InvalidGrant) as caught:
        await client.refresh(token)
    assert (caught.value.error, caught.value.status) == ("invalid_grant", 400)


async def test_the_resource_is_in_the_audience(oidc_provider_server: Server) -> None:
    client = oidc_provider_server.client("machine-basic")
    token = await client.fetch_token(ClientCredentials("reports:read", resource="https://api.example.com/reports"))
    assert (await client.introspect(token))["aud"] == "https://api.example.com/reports"


async def test_the_servers_own_challenge_leads_to_a_refresh(oidc_provider_server: Server) -> None:
    client = oidc_provider_server.client("public")
    first = await oidc_provider_server.login(client)
    tokens = Tokens(client)
    await tokens.save(first)
    url = await oidc_provider_server.userinfo_url(client)
    await oidc_provider_server.drop_access_token(client, first)
    auth = OAuth2Auth(tokens, origins=str(url.origin()))
    async with ClientSession(middlewares=[auth]) as session, session.get(url) as response:
        assert response.status == 200
    assert (await tokens.token()).refresh_token != first.refresh_token
    await tokens.aclose()


async def test_a_login_that_the_server_revoked_altogether_needs_another_login(oidc_provider_server: Server) -> None:
    client = oidc_provider_server.client("public")
    token = await oidc_provider_server.login(client)
    tokens = Tokens(client)
    await tokens.save(token)
    url = await oidc_provider_server.userinfo_url(client)
    # RFC 7009 section 2.1: "If the token passed to the request is an access token, the server MAY revoke the respective
    # refresh token as well." This one does.
    await client.revoke(token.access_token, "access_token")
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=str(url.origin()))]) as session:
        with pytest.raises(LoginRequired) as caught:
            await session.get(url)
        assert isinstance(caught.value.__cause__, InvalidGrant)
        with pytest.raises(LoginRequired):
            await session.get(url)
    assert tokens.counts["refresh_started"] == 1
    await tokens.aclose()


async def test_tokens_are_renewed_before_the_server_calls_them_expired(short_lived_oidc_provider_server: Server) -> None:
    server = short_lived_oidc_provider_server
    client = server.client("public")
    first = await server.login(client)
    tokens = Tokens(client)
    await tokens.save(first)
    url = await server.userinfo_url(client)
    seen = {first.access_token}
    deadline = time.monotonic() + 10 * SHORT_TTL
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=str(url.origin()))]) as session:
        while len(seen) < 3:
            assert time.monotonic() < deadline
            async with session.get(url) as response:
                assert response.status == 200
            seen.add((await tokens.token()).access_token)
            await asyncio.sleep(0.05)
    assert tokens.counts["refresh_succeeded"] >= 2
    await tokens.aclose()
