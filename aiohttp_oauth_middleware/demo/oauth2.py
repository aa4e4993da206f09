"""What is shown of OAuth 2.0."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from aiohttp import ClientMiddlewareType, ClientSession

from ..client.client import Client
from ..middleware.attach import attach
from ..middleware.oauth2 import OAuth2Auth
from ..protocol.client_auth import ClientSecret
from ..protocol.grants import ClientCredentials
from ..sources.source import TokenSource
from ..sources.tokens import Tokens
from ..testing import AuthorizationServer, EchoAPI
from .page import Finding, Points

__all__ = ("HOUR", "POINTS", "Clock", "MakeAuth", "Stage", "make_auth", "stage")

HOUR: Final = 3600.0
UPLOAD: Final = bytes(range(256)) * 4096

MakeAuth = Callable[[TokenSource, str], ClientMiddlewareType]


def make_auth(source: TokenSource, origin: str) -> ClientMiddlewareType:
    return OAuth2Auth(source, origins=origin)


class Clock:
    """A clock that the demonstration can move, so that nobody has to wait an hour for a token to expire."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def time(self) -> float:
        return time.time() + self._ahead

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once, for the client and for the authorization server."""
        self._ahead += seconds


class Counted(NamedTuple):
    """What the servers counted during one point."""

    token_requests: int = 0
    refreshes: int = 0
    spent_refresh_tokens: int = 0
    answers_200: int = 0
    answers_401: int = 0

    def __str__(self) -> str:
        shown = [f"{name.replace('_', ' ')}: {count}" for name, count in self._asdict().items() if count]
        return ", ".join(shown) or "nothing"


class Stage:
    """The servers, and the session under test."""

    def __init__(
        self, server: AuthorizationServer, session: ClientSession, make_auth: MakeAuth, tokens: Tokens, clock: Clock
    ) -> None:
        self.server = server
        self.api: EchoAPI = server.api()
        self.foreign: EchoAPI = server.foreign_api()
        self.clock = clock
        self.auth = make_auth(tokens, self.api.origin)
        self.session = session
        attach(session, self.auth)
        self._before = Counted()

    def mark(self) -> None:
        """Count from here."""
        self._before = self._total()

    def finding(self, expected: Counted, *also: bool) -> Finding:
        """Compare what the servers have counted since :meth:`mark` with what they should have, and heed what is *also* so."""
        counted = Counted(*(now - before for now, before in zip(self._total(), self._before, strict=True)))
        return Finding.of(counted, expected, *also)

    def _total(self) -> Counted:
        counts = self.server.counts
        return Counted(counts.token_requests, counts.refreshes, counts.reuses, self.api.answered[200], self.api.answered[401])

    async def get(self, path: str = "/reports", session: ClientSession | None = None) -> None:
        async with (session or self.session).get(self.api.origin + path):
            pass


@asynccontextmanager
async def stage(server: AuthorizationServer, clock: Clock, make_auth: MakeAuth) -> AsyncIterator[Stage]:
    """A session of that middleware, before *server* and its APIs; *clock* is the server's too."""
    # A refresh token comes with the token, and a new one with each refresh; an old one that comes back ends it all.
    server.register("demo", "demo-secret", refresh_token_for_client_credentials=True)
    client = Client(server.issuer, "demo", ClientSecret("demo-secret"), clock=clock)
    async with Tokens(client, ClientCredentials("reports:read")) as tokens, ClientSession() as session:
        yield Stage(server, session, make_auth, tokens, clock)


async def first_use(stage: Stage) -> Finding:
    stage.mark()
    await stage.get()
    return stage.finding(Counted(token_requests=1, answers_200=1))


async def reuse(stage: Stage) -> Finding:
    stage.mark()
    for _ in range(10):
        await stage.get()
    return stage.finding(Counted(answers_200=10))


async def revoked(stage: Stage) -> Finding:
    stage.clock.advance(60)
    stage.server.revoke_all()
    stage.mark()
    await stage.get("/reports/7")
    paths = [request.path for request in stage.api.requests[-2:]]
    return stage.finding(
        Counted(token_requests=1, refreshes=1, answers_200=1, answers_401=1), paths == ["/reports/7", "/reports/7"]
    )


async def expiry(stage: Stage) -> Finding:
    stage.clock.advance(HOUR)
    stage.mark()
    await asyncio.gather(*(stage.get() for _ in range(100)))
    return stage.finding(Counted(token_requests=1, refreshes=1, answers_200=100))


async def cancelled(stage: Stage) -> Finding:
    stage.clock.advance(HOUR)
    stage.mark()
    with stage.server.hold() as held:
        leader = asyncio.create_task(stage.get())
        await held.arrived(timeout=2)
        leader.cancel()
        await asyncio.wait([leader])
    await stage.get()
    # Had the new refresh token been lost with the leader, the next refresh would present the old one.
    stage.clock.advance(HOUR)
    await stage.get()
    return stage.finding(Counted(token_requests=2, refreshes=2, answers_200=2), leader.cancelled())


async def redirect(stage: Stage) -> Finding:
    stage.mark()
    await stage.get(f"/redirect?to={stage.foreign.origin}/elsewhere")
    arrived = stage.foreign.requests
    seen = stage.api.requests[-1].authorization or ""
    held = [name for request in arrived for name, value in request.headers.items() if seen.partition(" ")[2] in value]
    counted = f"counted: requests at the foreign API: {len(arrived)}, tokens there: {len(held)}"
    return Finding(counted, len(arrived) == 1 and not held and bool(seen) and stage.finding(Counted()).holds)


async def upload(stage: Stage) -> Finding:
    stage.clock.advance(60)
    stage.server.revoke_all()
    stage.mark()
    async with stage.session.post(stage.api.origin + "/upload", data=io.BytesIO(UPLOAD)):
        pass
    sent = [request.sha256 for request in stage.api.requests if request.path == "/upload"]
    expected = Counted(token_requests=1, refreshes=1, answers_200=1, answers_401=1)
    return stage.finding(expected, sent == [hashlib.sha256(UPLOAD).hexdigest()] * 2)


async def stream(stage: Stage) -> Finding:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(8):
            yield b"%d" % number * 1024

    stage.clock.advance(60)
    stage.server.revoke_all()
    stage.mark()
    async with stage.session.post(stage.api.origin + "/stream", data=chunks()):
        pass
    lengths = [request.length for request in stage.api.requests if request.path == "/stream"]
    # The 401 came back as it was, and the next request has a new token.
    await stage.get()
    return stage.finding(Counted(token_requests=1, refreshes=1, answers_200=1, answers_401=1), lengths == [8 * 1024])


async def retrofit(stage: Stage) -> Finding:
    stage.mark()
    async with ClientSession() as session:
        await stage.get("/bare", session)
        detach = attach(session, stage.auth)
        await stage.get("/attached", session)
        detach()
        await stage.get("/detached", session)
    answers = {request.path: request.status for request in stage.api.requests[-3:]}
    return stage.finding(Counted(answers_200=1, answers_401=2), answers == {"/bare": 401, "/attached": 200, "/detached": 401})


POINTS: Final[Points[Stage]] = (
    ("The first request fetches a token.", first_use),
    ("The next ten use it again: no token request.", reuse),
    ("The server revokes it: 401, a refresh, and the same request is answered.", revoked),
    ("100 requests at once when it expires: one token request.", expiry),
    ("The request that leads a refresh is cancelled: nothing is lost.", cancelled),
    ("A redirect to another origin: no token goes there.", redirect),
    ("An upload of 1 MiB that meets a 401 is sent again, byte for byte.", upload),
    ("A stream that meets a 401 is never sent again empty; the 401 is returned.", stream),
    ("A session that exists already: 401, then 200 with attach(), then 401 after detach().", retrofit),
)
