"""Sessions that libraries take, sessions that libraries make, and libraries that have none."""

import asyncio
import os
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

from aiohttp import ClientSession
from yarl import URL

from aiohttp_oauth_middleware import Challenge, Client, ClientCredentials, ClientSecret, OAuth2Auth, Refusal, Tokens, attach

client = Client("https://login.example.com", "reports", ClientSecret(os.environ["REPORTS_SECRET"]))
tokens = Tokens(client, ClientCredentials(scope="reports:read"))
auth = OAuth2Auth(tokens, origins="https://api.example.com")


class ReportsSDK:
    """A library that somebody else wrote; it knows nothing of tokens."""

    def __init__(self, session: ClientSession | None = None) -> None:
        self.session = session or ClientSession()

    async def titles(self) -> str:
        async with self.session.get("https://api.example.com/reports", raise_for_status=True) as response:
            return await response.text()


# [takes]
async def a_library_that_takes_a_session() -> str:
    async with ClientSession(middlewares=[auth]) as session:
        return await ReportsSDK(session).titles()


# [attach]
async def a_library_that_makes_its_own_session() -> str:
    sdk = ReportsSDK()
    detach = attach(sdk.session, auth)
    try:
        return await sdk.titles()
    finally:
        detach()
        await sdk.session.close()


# [trace]
async def a_library_that_takes_trace_configs_only() -> str:
    async with ClientSession(trace_configs=[auth.trace_config()]) as session:
        return await ReportsSDK(session).titles()


# [without]
async def with_token(call: Callable[[str], Awaitable[str]]) -> str:
    """Run *call* with the value of an Authorization header, and once more if the server refuses the token."""
    token = await tokens.token()
    try:
        return await call(f"Bearer {token.access_token}")
    except PermissionError:  # with grpc.aio: AioRpcError, where code() is StatusCode.UNAUTHENTICATED
        why = Challenge("bearer", {"error": "invalid_token"})
        better = await tokens.token(Refusal(URL("https://api.example.com/reports"), 401, [why], token))
        if better == token:
            raise
    return await call(f"Bearer {better.access_token}")


# [call]
async def call(authorization: str) -> str:
    """With gRPC: ``await stub.List(request, metadata=[("authorization", authorization)])``."""
    return await asyncio.to_thread(blocking_call, authorization)


def blocking_call(authorization: str) -> str:
    request = urllib.request.Request("https://api.example.com/reports", headers={"Authorization": authorization})
    try:
        with urllib.request.urlopen(request) as response:
            body: bytes = response.read()
            return body.decode()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 401:
            raise PermissionError from error
        raise


# [end]
async def main() -> None:
    for result in (
        await a_library_that_takes_a_session(),
        await a_library_that_makes_its_own_session(),
        await a_library_that_takes_trace_configs_only(),
        await with_token(call),
    ):
        print(result)


if __name__ == "__main__":
    asyncio.run(main())
