"""A proxy, a private CA, and a closed network."""

import asyncio
import os
import ssl
from pathlib import Path

from aiohttp import ClientSession, TCPConnector

from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, OAuth2Auth, Tokens


# [proxy]
def through_the_proxy() -> ClientSession:
    """A session for the exchanges with the authorization server. It is made where it is used: on another event loop."""
    return ClientSession(
        proxy="http://proxy.example.com:3128",
        connector=TCPConnector(ssl=ssl.create_default_context()),
        headers={"User-Agent": "reports/1.0"},
    )


behind_a_proxy = Client(
    "https://login.example.com",
    "reports",
    ClientSecret(os.environ["REPORTS_SECRET"]),
    session_factory=through_the_proxy,
    timeout=10,
)


# [secret]
def secret() -> str:
    """Read at each use, so that the secret can be changed while the program runs."""
    return Path(os.environ["REPORTS_SECRET_FILE"]).read_text(encoding="utf-8").strip()


with_a_mounted_secret = Client("https://login.example.com", "reports", ClientSecret(secret))

# [closed]
closed_network = Client("http://login.internal:8080", "reports", ClientSecret(os.environ["REPORTS_SECRET"]), insecure_http=True)
auth = OAuth2Auth(
    Tokens(closed_network, ClientCredentials("reports:read")), origins="http://api.internal:8080", insecure_http=True
)
# [end]


async def main() -> None:
    for client in (behind_a_proxy, with_a_mounted_secret):
        token = await Tokens(client, ClientCredentials("reports:read")).token()
        print(client, token)


if __name__ == "__main__":
    asyncio.run(main())
