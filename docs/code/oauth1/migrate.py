"""What was written for another library of OAuth 1, written for this one."""

import asyncio
import os
from pathlib import Path

from aiohttp import ClientSession

from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client, OAuth1Token, SignatureMethod

REQUEST_TOKEN = "https://login.example.com/oauth1/request_token"
AUTHORIZE = "https://login.example.com/oauth1/authorize"
ACCESS_TOKEN = "https://login.example.com/oauth1/access_token"

# [client]
client = OAuth1Client("photos", os.environ["PHOTOS_SECRET"], redirect_uri="https://printer.example.com/ready")


# [legs]
async def sign_in() -> OAuth1Token:
    request_token = await client.fetch_request_token(REQUEST_TOKEN)
    print("Please open", client.create_authorization_url(AUTHORIZE, request_token))
    callback = await asyncio.to_thread(input, "and paste the address on which you end up: ")
    verifier = client.parse_authorization_response(callback, request_token)
    return await client.fetch_access_token(ACCESS_TOKEN, request_token, verifier)


# [requests]
async def print_albums(token: OAuth1Token) -> None:
    auth = OAuth1Auth(client, token, origins="https://photos.example.com")
    async with ClientSession(middlewares=[auth]) as session:
        async with session.get("https://photos.example.com/albums") as response:
            print(await response.text())
        async with session.post("https://photos.example.com/albums", json={"title": "Ducks"}) as response:
            print(await response.text())


# [one request]
async def one_request(session: ClientSession, auth: OAuth1Auth) -> int:
    async with session.get("https://photos.example.com/albums", middlewares=[auth]) as response:
        return response.status


# [kept]
def kept_by_another_library() -> OAuth1Token:
    return OAuth1Token.from_json(Path("token.json").read_text())


# [keys]
by_rsa = OAuth1Client("photos", signature_method=SignatureMethod.rsa("RSA-SHA1", Path("/etc/photos/private.pem")))


def sign(base_string: str, client_secret: str, token_secret: str) -> str:
    return f"{len(base_string)} characters of {client_secret}"


of_my_own = OAuth1Client("photos", "a-secret", signature_method=SignatureMethod("LENGTH", sign))


# [sign]
async def header(token: OAuth1Token) -> str:
    return await client.sign("GET", "https://photos.example.com/albums?order=newest", token)


# [end]
