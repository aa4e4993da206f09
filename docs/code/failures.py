"""What to do about each kind of error."""

import asyncio
import logging
import os

from aiohttp import ClientResponseError, ClientSession

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecret,
    LoginRequired,
    OAuth2Auth,
    OAuthError,
    Tokens,
)

log = logging.getLogger("reports")
client = Client("https://login.example.com", "reports", ClientSecret(os.environ["REPORTS_SECRET"]))
tokens = Tokens(client, ClientCredentials("reports:read"))


# [catch]
async def fetch(session: ClientSession) -> str:
    try:
        async with session.get("https://api.example.com/reports", raise_for_status=True) as response:
            return await response.text()
    except LoginRequired:
        return "please sign in"
    except OAuthError as error:
        if error.retryable:
            return f"please try again in {error.retry_after or 1:.0f} s"
        # The configuration, or the server, has to be put right; the message says how, and holds no secret.
        log.error("%s", error)
        return "sorry, this is out of order"
    except ClientResponseError as error:
        return f"the API says {error.status}"


# [end]
async def main() -> None:
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins="https://api.example.com")]) as session:
        print(await fetch(session))


if __name__ == "__main__":
    asyncio.run(main())
