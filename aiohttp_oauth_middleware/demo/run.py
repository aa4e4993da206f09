"""The demonstration from its first line to its exit status."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Final, TextIO, TypeVar

from ..testing import AuthorizationServer
from . import oauth1, oauth2
from .page import Finding, Page, Points

__all__ = ("CLAIMS", "demo")

CLAIMS: Final = tuple(claim for points in (oauth2.POINTS, oauth1.POINTS) for claim, _ in points)
PATIENCE: Final = 5.0

Stage = TypeVar("Stage")


def demo(
    out: TextIO | None = None,
    *,
    make_auth: oauth2.MakeAuth = oauth2.make_auth,
    make_auth1: oauth1.MakeAuth = oauth1.make_auth,
) -> int:
    """Run the demonstration.

    :param out: where it is told; standard output if None.
    :param make_auth: makes the middleware that is shown, from a source and the origin that may have its tokens.
    :param make_auth1: likewise that of OAuth 1, from a client, a token and the origin.
    :returns: the exit status: 0 if every point was confirmed, else 1.
    """
    silent = logging.NullHandler()  # what the library logs is told here in other words
    log = logging.getLogger("aiohttp_oauth_middleware")
    log.addHandler(silent)
    try:
        return asyncio.run(_demo(Page(sys.stdout if out is None else out), make_auth, make_auth1))
    finally:
        log.removeHandler(silent)


async def _demo(page: Page, make_auth: oauth2.MakeAuth, make_auth1: oauth1.MakeAuth) -> int:
    started = time.monotonic()
    clock = oauth2.Clock()
    async with AuthorizationServer(lifetime=oauth2.HOUR, clock=clock.time) as server:
        async with oauth2.stage(server, clock, make_auth) as second:
            page.line("An authorization server and two APIs, all on this machine:")
            page.line(f"  authorization server  {server.issuer}")
            page.line(f"  the API               {second.api.origin}")
            page.line(f"  a foreign API         {second.foreign.origin}")
            page.line("and a session: ClientSession(middlewares=[OAuth2Auth(tokens, origins=<the API>)])")
            page.line()
            confirmed = await _shown(page, oauth2.POINTS, second)
        page.line()
        async with oauth1.stage(server, clock, make_auth1) as first:
            page.line("The same server speaks OAuth 1.0a:")
            page.line(f"  an API of OAuth 1.0a  {first.api.origin}")
            page.line("and a session: ClientSession(middlewares=[OAuth1Auth(client, token, origins=<the API>)])")
            page.line()
            confirmed += await _shown(page, oauth1.POINTS, first)
    page.line()
    seconds = time.monotonic() - started
    page.line(f"{sum(confirmed)} of {len(confirmed)} confirmed by the servers' own counters, in {seconds:.1f} s.")
    return 0 if all(confirmed) else 1


async def _shown(page: Page, points: Points[Stage], stage: Stage) -> list[bool]:
    confirmed = []
    for claim, point in points:
        try:
            async with asyncio.timeout(PATIENCE):
                finding = await point(stage)
        except Exception as error:
            finding = Finding(f"it ended with {type(error).__name__}", False)
        page.point(claim, finding)
        confirmed.append(finding.holds)
    return confirmed
