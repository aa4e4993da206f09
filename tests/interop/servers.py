"""What the tests know of a server, whoever wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from aiohttp import ClientSession
from yarl import URL

from aiohttp_oauth_middleware import AuthorizationCode, Client, ClientSecretBasic, ClientSecretPost, Token
from tests.interop.browser import REDIRECT_URI, Verifier, consent

# Of every confidential client that the servers have in common.
SECRET: Final = "a-client-secret"


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server with the clients ``machine-basic``, ``machine-post``, ``web-basic`` and ``public``.

    :param browser: opens the session of a browser whose user consents to all that he is asked.
    :param login_scope: brings a refresh token and opens the userinfo endpoint.
    :param login_parameters: what the authorization request has to say besides.
    :param drop_url: takes an access token to drop, where revoking it would revoke the refresh token too.
    """

    issuer: str
    browser: Callable[[], AbstractAsyncContextManager[ClientSession]]
    login_scope: str
    login_parameters: Mapping[str, str]
    drop_url: str | None = None

    def client(self, client_id: str, secret: str = SECRET) -> Client:
        """Our client, by discovery, with the authentication that its name says."""
        if client_id == "public":
            return Client(self.issuer, client_id)
        kind = ClientSecretPost if client_id.endswith("-post") else ClientSecretBasic
        return Client(self.issuer, client_id, kind(secret))

    async def code(self, client: Client, **changes: str) -> AuthorizationCode:
        """What a login by a browser yields; *changes* replace arguments of the grant."""
        endpoint = (await client.metadata()).authorization_endpoint
        assert endpoint is not None
        verifier = Verifier()
        async with self.browser() as session:
            code = await consent(session, endpoint, client.client_id, self.login_scope, verifier, **self.login_parameters)
        return AuthorizationCode(
            code,
            redirect_uri=changes.get("redirect_uri", REDIRECT_URI),
            code_verifier=changes.get("code_verifier", verifier.verifier),
        )

    async def login(self, client: Client) -> Token:
        """A token with a refresh token."""
        return await client.fetch_token(await self.code(client))

    async def drop_access_token(self, client: Client, token: Token) -> None:
        """Have the server refuse the access token of *token* from now on, and leave the refresh token alone."""
        if self.drop_url is None:
            await client.revoke(token.access_token, "access_token")
            return
        async with ClientSession() as session, session.post(self.drop_url, data=token.access_token) as response:
            assert response.status == 204

    async def userinfo_url(self, client: Client) -> URL:
        """An endpoint of the server's own that a login's token opens."""
        url = (await client.metadata()).extra["userinfo_endpoint"]
        assert isinstance(url, str)
        return URL(url)
