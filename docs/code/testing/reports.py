"""The code under test."""

from aiohttp import ClientSession
from yarl import URL

from aiohttp_oauth_middleware import OAuth2Auth, TokenSource


async def titles(api: URL, tokens: TokenSource) -> list[str]:
    """The titles of all reports."""
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=str(api.origin()))], raise_for_status=True) as session:
        async with session.get(api / "reports") as response:
            return [report["title"] for report in await response.json()]
