"""What both servers do: each test runs against oidc-provider and against glewlwyd."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecret,
    LoginRequired,
    OAuth2Auth,
    OAuthError,
    Token,
    Tokens,
)
from tests.interop.api import introspecting_api
from tests.interop.servers import SECRET, Server


async def introspection_endpoint(client: Client) -> str:
    endpoint = (await client.metadata()).introspection_endpoint
    assert endpoint is not None
    return endpoint


async def status(session: ClientSession, url: object) -> int:
    async with session.get(str(url)) as response:
        return response.status


@pytest.fixture(params=["oidc_provider", "glewlwyd"])
def server(request: pytest.FixtureRequest) -> Server:
    name: str = request.param
    server = request.getfixturevalue(f"{name}_server")
    assert isinstance(server, Server)
    return server


async def test_metadata_is_discovered_from_the_issuer(server: Server) -> None:
    metadata = await server.client("public").metadata()
    assert metadata.issuer == server.issuer
    for endpoint in (
        metadata.authorization_endpoint,
        metadata.token_endpoint,
        metadata.revocation_endpoint,
        metadata.introspection_endpoint,
    ):
        assert endpoint is not None
        assert endpoint.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("client_id", ["machine-basic", "machine-post"])
async def test_client_credentials(server: Server, client_id: str) -> None:
    token = await server.client(client_id).fetch_token(ClientCredentials("reports:read"))
    assert token.token_type == "Bearer"
    assert token.scope == "reports:read"
    assert token.refresh_token is None
    assert (token.expires_at or 0) > (token.obtained_at or 0) + 3590


async def test_client_secret_picks_a_method_that_the_server_takes(server: Server) -> None:
    client = Client(server.issuer, "machine-basic", ClientSecret(SECRET))
    assert (await client.fetch_token(ClientCredentials("reports:read"))).scope == "reports:read"


async def test_a_wrong_client_secret_is_refused_with_an_error_of_ours(server: Server) -> None:
    with pytest.raises(OAuthError) as caught:
        await server.client("machine-basic", "another-secret").fetch_token(ClientCredentials("reports:read"))
    assert "another-secret" not in repr(caught.value)


async def test_introspection_tells_an_active_token_from_a_revoked_one(server: Server) -> None:
    client = server.client("machine-basic")
    token = await client.fetch_token(ClientCredentials("reports:read"))
    seen = await client.introspect(token)
    assert seen["active"] is True
    assert seen["client_id"] == "machine-basic"
    assert seen["scope"] == "reports:read"
    await client.revoke(token)
    assert dict(await client.introspect(token)) == {"active": False}


async def test_a_token_that_the_server_never_issued_is_not_active(server: Server) -> None:
    client = server.client("machine-basic")
    assert (await client.introspect("nobody-issued-this", "access_token"))["active"] is False
    # RFC 7009 section 2.2: "invalid tokens do not cause an error response"
    await client.revoke("nobody-issued-this", "access_token")


async def test_a_revoked_token_is_replaced_and_the_same_upload_is_answered(server: Server) -> None:
    client = server.client("machine-basic")
    tokens = Tokens(client, ClientCredentials("reports:read"))
    async with introspecting_api(await introspection_endpoint(client), "machine-basic", SECRET) as api:
        auth = OAuth2Auth(tokens, origins=str(api.url))
        async with ClientSession(middlewares=[auth]) as session:
            async with session.post(api.url, data=b"first") as response:
                assert (response.status, await response.json()) == (200, {"body": "first"})
            first = await tokens.token()
            await client.revoke(first)
            async with session.post(api.url, data=b"second") as response:
                assert (response.status, await response.json()) == (200, {"body": "second"})
            assert await tokens.token() != first
    assert api.answered == [200, 401, 200]
    await tokens.aclose()


@pytest.mark.parametrize("client_id", ["web-basic", "public"])
async def test_code_with_pkce(server: Server, client_id: str) -> None:
    client = server.client(client_id)
    token = await server.login(client)
    assert token.refresh_token
    assert set(server.login_scope.split()) <= token.scopes
    url = await server.userinfo_url(client)
    tokens = Tokens(client)
    await tokens.save(token)
    auth = OAuth2Auth(tokens, origins=str(url.origin()))
    async with ClientSession(middlewares=[auth]) as session, session.get(url) as response:
        assert response.status == 200
        assert (await response.json())["sub"]
    await tokens.aclose()


async def test_a_code_is_not_exchanged_with_another_verifier(server: Server) -> None:
    client = server.client("web-basic")
    grant = await server.code(client, code_verifier="v" * 43)
    with pytest.raises(OAuthError) as caught:
        await client.fetch_token(grant)
    assert not caught.value.retryable


async def test_a_code_is_exchanged_once(server: Server) -> None:
    client = server.client("web-basic")
    grant = await server.code(client)
    assert isinstance(await client.fetch_token(grant), Token)
    with pytest.raises(OAuthError) as caught:
        await client.fetch_token(grant)
    assert not caught.value.retryable


@pytest.mark.parametrize("client_id", ["web-basic", "public"])
async def test_a_refresh_rotates_the_refresh_token(server: Server, client_id: str) -> None:
    client = server.client(client_id)
    first = await server.login(client)
    second = await client.refresh(first)
    third = await client.refresh(second)
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert len({first.access_token, second.access_token, third.access_token}) == 3
    assert third.scopes == first.scopes


async def test_a_spent_refresh_token_is_refused_and_takes_its_successor_with_it(server: Server) -> None:
    client = server.client("web-basic")
    first = await server.login(client)
    second = await client.refresh(first)
    for spent_or_revoked in (first, second):
        with pytest.raises(OAuthError) as caught:
            await client.refresh(spent_or_revoked)
        assert not caught.value.retryable
        assert (first.refresh_token or "") not in repr(caught.value)


async def test_a_refused_access_token_is_refreshed_and_the_request_answered(server: Server) -> None:
    client = server.client("web-basic")
    first = await server.login(client)
    tokens = Tokens(client)
    await tokens.save(first)
    url = await server.userinfo_url(client)
    async with introspecting_api(await introspection_endpoint(client), "web-basic", SECRET) as api:
        auth = OAuth2Auth(tokens, origins=[str(api.url), str(url.origin())])
        async with ClientSession(middlewares=[auth]) as session:
            assert await status(session, api.url) == 200
            await server.drop_access_token(client, first)
            assert await status(session, api.url) == 200
            assert await status(session, url) == 200
    second = await tokens.token()
    assert api.answered == [200, 401, 200]
    assert second.refresh_token != first.refresh_token
    await tokens.aclose()


async def test_fifty_requests_with_a_refused_token_spend_one_refresh_token(server: Server) -> None:
    client = server.client("web-basic")
    first = await server.login(client)
    tokens = Tokens(client)
    await tokens.save(first)
    async with (
        introspecting_api(await introspection_endpoint(client), "web-basic", SECRET) as api,
        ClientSession(middlewares=[OAuth2Auth(tokens, origins=str(api.url))]) as session,
    ):
        await server.drop_access_token(client, first)
        statuses = await asyncio.gather(*(status(session, api.url) for _ in range(50)))
    assert set(statuses) == {200}
    # A second use of the first refresh token would have had the server revoke all that came of the login.
    second = await tokens.token()
    third = await client.refresh(second)
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert tokens.counts["refresh_started"] == 1
    await tokens.aclose()


async def test_a_cancelled_request_does_not_lose_the_rotated_refresh_token(server: Server) -> None:
    client = server.client("web-basic")
    first = await server.login(client)
    started = asyncio.Event()
    tokens = Tokens(client, on_event=lambda event: started.set() if event.name == "refresh_started" else None)
    # Expired by what we know, so that the next request refreshes before anything else.
    await tokens.save(first.replace(expires_at=1.0))
    leader = asyncio.create_task(tokens.token())
    await started.wait()
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    second = await tokens.token()
    assert second.refresh_token != first.refresh_token
    assert (await client.refresh(second)).refresh_token != second.refresh_token
    assert tokens.counts["refresh_started"] == 1
    await tokens.aclose()


async def test_signing_out_revokes_the_tokens_at_the_server(server: Server) -> None:
    client = server.client("web-basic")
    token = await server.login(client)
    tokens = Tokens(client)
    await tokens.save(token)
    await tokens.revoke()
    assert (await client.introspect(token))["active"] is False
    with pytest.raises(OAuthError):
        await client.refresh(token)
    with pytest.raises(LoginRequired):
        await tokens.token()
    await tokens.aclose()
