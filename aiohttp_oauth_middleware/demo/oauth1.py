"""What is shown of OAuth 1.0a."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from aiohttp import ClientMiddlewareType, ClientSession
from yarl import URL

from ..clock import Clock
from ..oauth1.auth import OAuth1Auth
from ..oauth1.client import OAuth1Client
from ..oauth1.token import OAuth1Token
from ..testing import AuthorizationServer, EchoAPI
from .page import Finding, Points

__all__ = ("POINTS", "MakeAuth", "Stage", "make_auth", "stage")

HOUR: Final = 3600.0
# What is known to be encoded in different ways, by the client, on the way and by the server.
QUERY: Final = {"q": "Ducks & drakes, 50% off: ~(café)*", "list[]": "1+1", "empty": ""}
FORM: Final = {"title": "Ducks & drakes", "a+b": "c=d", "note": "naïve ☃"}
UPLOAD: Final = bytes(range(256)) * 4096

Body = dict[str, str] | bytes | None
MakeAuth = Callable[[OAuth1Client, OAuth1Token, str], ClientMiddlewareType]


def make_auth(client: OAuth1Client, token: OAuth1Token, origin: str) -> ClientMiddlewareType:
    return OAuth1Auth(client, token, origins=origin)


class Counted(NamedTuple):
    """What the server counted during one point."""

    request_tokens: int = 0
    consents: int = 0
    access_tokens: int = 0
    signatures_verified: int = 0
    timestamps_refused: int = 0
    others_refused: int = 0

    def __str__(self) -> str:
        shown = [f"{name.replace('_', ' ')}: {count}" for name, count in self._asdict().items() if count]
        return ", ".join(shown) or "nothing"


class Stage:
    """The server, its APIs, and the client; the token is what the three legs end with."""

    def __init__(self, server: AuthorizationServer, client: OAuth1Client, make_auth: MakeAuth) -> None:
        self.server = server.oauth1
        self.api: EchoAPI = server.oauth1.api()
        self.foreign: EchoAPI = server.foreign_api()
        self.client = client
        self._make_auth = make_auth
        self._token: OAuth1Token | None = None
        self._before = Counted()

    def mark(self) -> None:
        """Count from here."""
        self._before = self._total()

    def finding(self, expected: Counted, *also: bool) -> Finding:
        """Compare what the server has counted since :meth:`mark` with what it should have, and heed what is *also* so."""
        counted = Counted(*(now - before for now, before in zip(self._total(), self._before, strict=True)))
        # RFC 5849 section 3.3: a nonce is good once.
        return Finding.of(counted, expected, *also, max(self.server.counts.nonces.values(), default=0) <= 1)

    def _total(self) -> Counted:
        requests, verdicts = self.server.counts.requests, self.server.counts.verdicts
        accepted, refused = verdicts["accepted"], verdicts["timestamp_refused"]
        legs = requests["request_token"], requests["authorize"], self.server.counts.tokens_issued
        return Counted(*legs, accepted, refused, verdicts.total() - accepted - refused)

    async def sign_in(self) -> None:
        """The three legs, with a person's browser for the second."""
        request_token = await self.client.fetch_request_token(self.server.request_token_url)
        async with ClientSession() as browser:
            url = self.client.create_authorization_url(self.server.authorize_url, request_token)
            async with browser.get(URL(url, encoded=True), allow_redirects=False) as response:
                callback = response.headers["Location"]
        verifier = self.client.parse_authorization_response(callback, request_token)
        self._token = await self.client.fetch_access_token(self.server.access_token_url, request_token, verifier)

    async def send(self, method: str, *paths: str, params: dict[str, str] | None = None, data: Body = None) -> None:
        """Requests on a session with the middleware that is shown."""
        if self._token is None:
            raise LookupError("nobody has signed in")
        async with ClientSession(middlewares=[self._make_auth(self.client, self._token, self.api.origin)]) as session:
            for path in paths:
                async with session.request(method, self.api.origin + path, params=params, data=data):
                    pass


@asynccontextmanager
async def stage(server: AuthorizationServer, clock: Clock, make_auth: MakeAuth) -> AsyncIterator[Stage]:
    """A client of *server*, before it and its APIs; *clock* is the server's too."""
    server.oauth1.register("demo", "demo-secret")
    client = OAuth1Client("demo", "demo-secret", redirect_uri="https://app.example.com/callback", clock=clock)
    yield Stage(server, client, make_auth)


async def three_legs(stage: Stage) -> Finding:
    stage.mark()
    await stage.sign_in()
    return stage.finding(Counted(request_tokens=1, consents=1, access_tokens=1, signatures_verified=2))


async def signed(stage: Stage) -> Finding:
    stage.mark()
    await stage.send("GET", "/photos", params=QUERY)
    await stage.send("POST", "/albums", data=FORM)
    await stage.send("POST", "/photos", data=UPLOAD)
    got, form, upload = stage.server.requests[-3:]
    arrived = [dict(parse_qsl(text, keep_blank_values=True)) for text in (got.target.partition("?")[2], form.body.decode())]
    return stage.finding(Counted(signatures_verified=3), arrived == [QUERY, FORM], upload.body == UPLOAD)


async def redirect(stage: Stage) -> Finding:
    stage.mark()
    await stage.send("POST", f"/redirect?to={stage.foreign.origin}/elsewhere", data=FORM)
    arrived, names = stage.foreign.requests, {name for request in stage.foreign.requests for name in request.oauth1}
    at_home = stage.finding(Counted(signatures_verified=1))
    counted = f"{at_home.text}, requests at the foreign API: {len(arrived)}, oauth_ names there: {len(names)}"
    return Finding(counted, len(arrived) == 1 and not names and at_home.holds)


async def wrong_clock(stage: Stage) -> Finding:
    stage.server.clock_offset = HOUR
    stage.mark()
    await stage.send("GET", *["/photos"] * 10)
    return stage.finding(Counted(signatures_verified=10, timestamps_refused=1))


POINTS: Final[Points[Stage]] = (
    ("The three legs: a request token, a person's consent, an access token.", three_legs),
    ("A GET, a form and an upload of 1 MiB: the server verifies each as it arrived.", signed),
    ("A redirect to another origin: no oauth_ parameter goes there.", redirect),
    ("Our clock is an hour off: learned from one refusal, and right from then on.", wrong_clock),
)
