"""Two APIs in one session, the order among other middlewares, and opting out."""

import asyncio
import os

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession

from aiohttp_oauth_middleware import BearerHeader, Client, ClientCredentials, ClientSecret, OAuth2Auth, Tokens

client = Client("https://login.example.com", "reports", ClientSecret(os.environ["REPORTS_SECRET"]))

# [two]
reports = OAuth2Auth(Tokens(client, ClientCredentials("reports:read")), origins="https://api.example.com")
orders = OAuth2Auth(Tokens(client, ClientCredentials("orders:read")), origins="https://orders.example.com")


async def two_apis() -> None:
    async with ClientSession(middlewares=[reports, orders]) as session:
        async with session.get("https://api.example.com/reports") as response:
            print(await response.json())
        async with session.get("https://orders.example.com/orders") as response:
            print(await response.json())


# [order]
async def retry(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Outside: each of its tries goes through the authorisation again, and so has a token that is fresh then."""
    for pause in (0.05, 0.1):
        response = await handler(request)
        if response.status != 503:
            return response
        response.release()
        await asyncio.sleep(pause)
    return await handler(request)


limit = asyncio.Semaphore(4)


async def limiter(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Inside: it counts what is really sent, the second try after a 401 too."""
    async with limit:
        return await handler(request)


async def in_order() -> None:
    async with ClientSession(middlewares=[retry, reports, limiter]) as session:
        async with session.get("https://api.example.com/reports") as response:
            print(response.status)


# [one]
async def for_one_request() -> None:
    async with ClientSession() as session:
        async with session.get("https://api.example.com/reports", middlewares=[reports]) as response:
            print(response.status)


# [out]
async def opting_out() -> None:
    async with ClientSession(middlewares=[reports]) as session:
        # A header of your own wins.
        token = "Bearer a-token-of-my-own"
        async with session.get("https://api.example.com/reports", headers={"Authorization": token}) as response:
            print(response.status)
        # No middlewares, no token.
        async with session.get("https://api.example.com/reports", middlewares=()) as response:
            print(response.status)


# [prefix]
narrow = OAuth2Auth(
    Tokens(client, ClientCredentials("reports:read")),
    origins=["https://api.example.com/reports", "https://orders.example.com"],
    placement=BearerHeader(),
)
# [end]


async def main() -> None:
    await two_apis()
    await in_order()
    await for_one_request()
    await opting_out()


if __name__ == "__main__":
    asyncio.run(main())
