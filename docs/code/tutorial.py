"""The program of the tutorial."""

import asyncio

from aiohttp import ClientSession

from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, OAuth2Auth, Tokens, TokenUnavailable
from aiohttp_oauth_middleware.testing import AuthorizationServer


async def main() -> None:
    # [servers]
    with AuthorizationServer() as server:
        api = server.api(scope="reports:read")
        # [client]
        client = Client(server.issuer, "app", ClientSecret("app-secret"))
        # [tokens]
        tokens = Tokens(client, ClientCredentials(scope="reports:read"))
        # [session]
        async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=api.origin)]) as session:
            # [get]
            async with session.get(api.url / "reports") as response:
                print("the API says", response.status)
            # [count]
            print("token requests:", server.counts.token_requests)
            # [again]
            for _ in range(10):
                async with session.get(api.url / "reports") as response:
                    assert response.status == 200
            print("after ten more:", server.counts.token_requests)
            # [refused]
            server.revoke_all()
            async with session.post(api.url / "reports", json={"title": "Ducks"}) as response:
                print("after a revocation the API says", response.status)
            print("what the API answered:", [request.status for request in api.requests[-2:]])
            print("token requests:", server.counts.token_requests)

            # [storm]
            async def one() -> int:
                async with session.get(api.url / "reports") as response:
                    return response.status

            server.revoke_all()
            statuses = await asyncio.gather(*(one() for _ in range(100)))
            print("a hundred at once:", set(statuses))
            print("token requests:", server.counts.token_requests)
            # [failure]
            await tokens.forget()
            server.fail_next(503, retry_after=60)
            try:
                await one()
            except TokenUnavailable as error:
                print("no token, for", round(error.retry_after or 0), "seconds")
            # [end]


if __name__ == "__main__":
    asyncio.run(main())
