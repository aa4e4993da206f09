"""The three legs of OAuth 1.0a, on the command line, and then signed requests."""

import asyncio
import os
import sys

# [client]
from aiohttp import ClientSession

from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client, OAuth1Token

client = OAuth1Client("photos", os.environ["PHOTOS_SECRET"], redirect_uri="https://printer.example.com/ready")


# [request token]
async def fetch_request_token() -> OAuth1Token:
    return await client.fetch_request_token("https://login.example.com/oauth1/request_token")


# [authorization url]
def create_authorization_url(request_token: OAuth1Token) -> str:
    return client.create_authorization_url("https://login.example.com/oauth1/authorize", request_token)


# [access token]
async def fetch_access_token(request_token: OAuth1Token, callback: str) -> OAuth1Token:
    verifier = client.parse_authorization_response(callback, request_token)
    return await client.fetch_access_token("https://login.example.com/oauth1/access_token", request_token, verifier)


# [requests]
async def use(token: OAuth1Token) -> None:
    auth = OAuth1Auth(client, token, origins="https://photos.example.com")
    async with ClientSession("https://photos.example.com", middlewares=[auth], raise_for_status=True) as session:
        async with session.get("/albums", params={"title": "Ducks & drakes"}) as response:
            print(await response.json())
        async with session.post("/albums", data={"title": "Ducks & drakes"}) as response:
            print(response.status)
        async with session.post("/albums", json={"title": "Ducks & drakes"}) as response:
            print(response.status)


# [main]
async def main() -> None:
    request_token = await fetch_request_token()
    print("Please open", create_authorization_url(request_token))
    print("and paste the address of the page on which you end up:")
    callback = await asyncio.to_thread(sys.stdin.readline)
    token = await fetch_access_token(request_token, callback.strip())
    await use(token)


if __name__ == "__main__":
    asyncio.run(main())
# [end]
