"""A service that calls another one on behalf of each of its users, by token exchange (RFC 8693)."""

import asyncio
import os
from contextvars import ContextVar

from aiohttp import ClientSession

from aiohttp_oauth_middleware import Client, ClientSecret, ExtensionGrant, OAuth2Auth, Secret, Tokens

# [tokens]
current_user: ContextVar[str] = ContextVar("current_user")
inbound: dict[str, Secret] = {}  # a user to the token with which that user last came to us


def exchange(user: str) -> ExtensionGrant:
    """How the token of *user* is earned: in exchange for the one that the user came with."""
    return ExtensionGrant(
        "urn:ietf:params:oauth:grant-type:token-exchange",
        {"subject_token": inbound[user], "subject_token_type": "urn:ietf:params:oauth:token-type:access_token"},
        audience="https://api.example.com",
        scope="reports:read",
    )


client = Client("https://login.example.com", "portal", ClientSecret(os.environ["PORTAL_SECRET"]))
tokens = Tokens(client, exchange, key=current_user.get)


async def reports_of(session: ClientSession, user: str, token: Secret) -> str:
    current_user.set(user)
    inbound[user] = token
    async with session.get("https://api.example.com/reports") as response:
        return await response.text()


# [end]
async def main() -> None:
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins="https://api.example.com")]) as session:
        print(await reports_of(session, "alice", Secret("the-token-that-alice-came-with")))


if __name__ == "__main__":
    asyncio.run(main())
