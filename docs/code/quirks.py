"""What real servers do otherwise than the RFCs, and how to say so."""

import asyncio
import json
import os

from aiohttp import ClientResponse, ClientSession

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecret,
    ClientSecretBasic,
    EndpointRequest,
    EndpointResponse,
    FormBody,
    Header,
    Hook,
    InsecureQuery,
    OAuth2Auth,
    Quirks,
    ServerMetadata,
    StaticToken,
    Tokens,
)

ISSUER = "https://login.example.com"
SECRET = os.environ["REPORTS_SECRET"]

# [metadata]
no_metadata = Client(ServerMetadata(token_endpoint="https://login.example.com/token"), "reports", ClientSecret(SECRET))
another_issuer = Client(ISSUER, "reports", ClientSecret(SECRET), metadata_issuer="https://tenant.example.com/")

# [authentication]
raw_basic = Client(ISSUER, "reports", ClientSecretBasic(SECRET, encoded=False))
whatever_works = Client(ISSUER, "reports", ClientSecret(SECRET, probe=True))

# [answers]
ebay = Quirks(token_types=["Application Access Token"])
slack = Quirks(token_path=["authed_user"])
camel_case = Quirks(renamed={"accessToken": "access_token", "expiresIn": "expires_in"})
no_expiry = Quirks(default_lifetime=3600)
flaky = Quirks(refusals_before_latch=3)

# [requests]
azure = Quirks(scope_on_refresh=True)
json_only = Quirks(json_request=True)
id_in_the_form_too = Quirks(client_id_in_body=True)
audience = ClientCredentials("reports:read", audience="https://api.example.com", extra={"organization": "acme"})


# [hooks]
def call_it_appid(request: EndpointRequest) -> None:
    request.form = [("appid" if name == "client_id" else name, value) for name, value in request.form]


def unpack(response: EndpointResponse) -> EndpointResponse:
    body = json.loads(response.body)
    return response.replace(body=json.dumps(body.get("data", body)).encode())


hooked = Client(
    ISSUER,
    "reports",
    ClientSecret(SECRET),
    quirks=Quirks(client_id_in_body=True),
    hooks=[Hook("access_token_request", call_it_appid), Hook("access_token_response", unpack)],
)

# [placements]
API = "https://api.example.com"
github = OAuth2Auth(StaticToken(lambda: os.environ["GITHUB_TOKEN"]), origins=API, placement=Header(scheme="token"))
gitlab = OAuth2Auth(StaticToken("a-token"), origins=API, placement=Header("PRIVATE-TOKEN", scheme=""))
in_the_form = OAuth2Auth(StaticToken("a-token"), origins=API, placement=FormBody("token"))
in_the_url = OAuth2Auth(StaticToken("a-token"), origins=API, placement=InsecureQuery("access_token"))


# [expired]
async def says_so_in_the_body(response: ClientResponse) -> bool:
    return response.status == 200 and b'"error":"token_expired"' in (await response.read()).replace(b" ", b"")


tokens = Tokens(Client(ISSUER, "reports", ClientSecret(SECRET)), ClientCredentials("reports:read"))
by_the_body = OAuth2Auth(tokens, origins=API, expired_when=says_so_in_the_body)
by_the_status = OAuth2Auth(tokens, origins=API, expired_when=lambda response: response.status == 419)

# [late]
learns_late = OAuth2Auth(tokens, origins=API, fresh_token_delay=1.0)
# [end]


async def main() -> None:
    for client in (no_metadata, raw_basic, whatever_works, hooked):
        await client.fetch_token(ClientCredentials("reports:read"))
    for auth in (by_the_body, by_the_status, learns_late):
        async with ClientSession(middlewares=[auth]) as session, session.get(f"{API}/reports") as response:
            print(response.status)


if __name__ == "__main__":
    asyncio.run(main())
