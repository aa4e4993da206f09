"""OAuth 1.0a in its other forms."""

import asyncio
import base64
import logging
import os
from pathlib import Path

from aiohttp import ClientResponseError, ClientSession

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecret,
    Event,
    LoginRequired,
    MemoryStore,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    OAuth2Auth,
    OAuthError,
    SignatureMethod,
    Tokens,
)

log = logging.getLogger("photos")
SECRET = os.environ["PHOTOS_SECRET"]
API = "https://photos.example.com"
client = OAuth1Client("photos", SECRET)


# [oob]
async def sign_in_by_a_code() -> OAuth1Token:
    request_token = await client.fetch_request_token("https://login.example.com/oauth1/request_token")
    url = client.create_authorization_url("https://login.example.com/oauth1/authorize", request_token)
    verifier = await asyncio.to_thread(input, f"Please open {url} and type the code that you are shown: ")
    return await client.fetch_access_token("https://login.example.com/oauth1/access_token", request_token, verifier)


# [own name]
in_our_own_name = OAuth1Auth(client, origins=API)


# [xauth]
async def sign_in_with_a_password(username: str, password: str) -> OAuth1Token:
    return await client.fetch_access_token(
        "https://login.example.com/oauth1/access_token",
        extra={"x_auth_mode": "client_auth", "x_auth_username": username, "x_auth_password": password},
    )


# [hmac]
by_sha256 = OAuth1Client("photos", SECRET, signature_method="HMAC-SHA256")

# [rsa]
by_rsa = OAuth1Client("photos", signature_method=SignatureMethod.rsa("RSA-SHA256", Path("/etc/photos/private.pem")))

# [plaintext]
in_plain_text = OAuth1Client("photos", SECRET, signature_method="PLAINTEXT")


# [own method]
async def sign(base_string: str, client_secret: str, token_secret: str) -> str:
    async with ClientSession(raise_for_status=True) as session:
        async with session.post("https://vault.example.com/keys/photos/sign", data=base_string.encode()) as response:
            return base64.b64encode(await response.read()).decode()


by_a_vault = OAuth1Client("photos", signature_method=SignatureMethod("RSA-SHA256", sign, "sha256"))

# [placements]
in_the_form = OAuth1Client("photos", SECRET, placement="form")
in_the_url = OAuth1Client("photos", SECRET, placement="query")

# [hash]
with_a_hash = OAuth1Client("photos", SECRET, signature_method="HMAC-SHA256", body_hash="on")

# [realm]
with_a_realm = OAuth1Client("photos", SECRET, signature_method="HMAC-SHA256", realm="1234567_SB1")

# [old]
of_1_0 = OAuth1Client("photos", SECRET, redirect_uri="https://printer.example.com/ready", revision_a=False)

# [renewal]
tokens = OAuth1Tokens(MemoryStore(), client=client, renewal_url="https://login.example.com/oauth1/access_token")
renewing = OAuth1Auth(client, tokens, origins=API)


# [clock]
def on_event(event: Event) -> None:
    if event.name == "clock_offset_learned":
        log.warning("the clock of %s and ours differ", event.origin)


watching = OAuth1Auth(client, tokens, origins=API, on_event=on_event)


# [errors]
async def albums(session: ClientSession) -> str:
    try:
        async with session.get(f"{API}/albums", raise_for_status=True) as response:
            return await response.text()
    except LoginRequired:
        return "please sign in"
    except OAuthError as error:
        if error.retryable:
            return "please try again in a moment"
        log.error("%s", error)  # the message says what to put right, and holds no secret
        return "sorry, this is out of order"
    except ClientResponseError as error:
        if error.status == 401:
            return "please sign in"  # the token was revoked, or the server wants something else: see its challenge
        return f"the API says {error.status}"


# [both]
async def both(token: OAuth1Token) -> None:
    reports = Tokens(
        Client("https://login.example.com", "reports", ClientSecret(os.environ["REPORTS_SECRET"])),
        ClientCredentials("reports:read"),
    )
    photos_auth = OAuth1Auth(client, token, origins="https://photos.example.com")
    reports_auth = OAuth2Auth(reports, origins="https://api.example.com")
    async with ClientSession(middlewares=[photos_auth, reports_auth]) as session:
        for url in ("https://photos.example.com/albums", "https://api.example.com/reports"):
            async with session.get(url) as response:
                print(response.status)


# [elsewhere]
async def header_for(token: OAuth1Token) -> dict[str, str]:
    form = "title=Ducks%20%26%20drakes"
    return {"Authorization": await client.sign("POST", f"{API}/albums?draft=1", token, form=form)}


# [end]
