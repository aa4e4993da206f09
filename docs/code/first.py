"""The first example."""

import asyncio
import os

from aiohttp import ClientSession

from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, OAuth2Auth, Tokens

client = Client("https://login.example.com", "reports", ClientSecret(os.environ["REPORTS_SECRET"]))
tokens = Tokens(client, ClientCredentials(scope="reports:read"))


async def main() -> None:
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins="https://api.example.com")]) as session:
        async with session.get("https://api.example.com/reports") as response:
            print(await response.json())


if __name__ == "__main__":
    asyncio.run(main())
