"""What a person's browser does in a login, by plain HTTP: follow redirects, keep cookies, stop at the application's address."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import ClientSession, CookieJar
from yarl import URL

REDIRECT_URI = "http://127.0.0.1/callback"


class Verifier:
    """A PKCE pair, made here and not by the code under test."""

    def __init__(self) -> None:
        self.verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self.challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def browser(origin: str = "", cookies: Mapping[str, str] = MappingProxyType({})) -> ClientSession:
    """A session that keeps cookies of an IP address, as a browser does, and comes with *cookies* for *origin*."""
    jar = CookieJar(unsafe=True)
    jar.update_cookies(cookies, URL(origin))
    return ClientSession(cookie_jar=jar)


async def walk(session: ClientSession, url: URL) -> dict[str, str]:
    """Follow *url* to the redirect URI; the parameters that come back with it."""
    for _ in range(20):
        async with session.get(url, allow_redirects=False) as response:
            if response.status not in (302, 303):
                raise AssertionError(f"{response.status} from {url.path}: {(await response.text())[:500]}")
            url = url.join(URL(response.headers["Location"]))
        if url.with_query(None).with_fragment(None) == URL(REDIRECT_URI):
            return dict(url.query)
    raise AssertionError("20 redirects and no end")


async def consent(
    session: ClientSession, authorization_endpoint: str, client_id: str, scope: str, verifier: Verifier, **more: str
) -> str:
    """An authorization code for *client_id*, from a user who agrees to everything."""
    state = secrets.token_urlsafe(8)
    request = URL(authorization_endpoint).update_query(
        response_type="code",
        client_id=client_id,
        redirect_uri=REDIRECT_URI,
        scope=scope,
        state=state,
        nonce=secrets.token_urlsafe(8),
        code_challenge=verifier.challenge,
        code_challenge_method="S256",
        **more,
    )
    answer = await walk(session, request)
    assert answer["state"] == state
    assert "error" not in answer, answer
    return answer["code"]
