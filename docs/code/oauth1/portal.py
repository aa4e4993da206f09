"""A web application whose users connect their accounts at a server of OAuth 1.0a."""

import os
import secrets
from collections.abc import AsyncIterator
from contextvars import ContextVar

from aiohttp import ClientSession, web
from aiohttp.typedefs import Handler

from aiohttp_oauth_middleware import (
    AccessDenied,
    CallbackError,
    InvalidGrant,
    LoginRequired,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
)

# [tokens]
current_user: ContextVar[str] = ContextVar("current_user")

client = OAuth1Client("portal", os.environ["PORTAL_SECRET"], redirect_uri="https://portal.example.com/callback")
users = OAuth1Tokens(key=current_user.get, client=client)

# [sessions]
SESSIONS: dict[str, dict[str, str]] = {}  # by cookie, on the server's side; in earnest, the work of a session library


def session_of(request: web.Request) -> dict[str, str]:
    try:
        return SESSIONS[request.cookies["session"]]
    except KeyError:
        raise web.HTTPForbidden(text="Please sign in to this portal first.") from None


@web.middleware
async def remember_user(request: web.Request, handler: Handler) -> web.StreamResponse:
    current_user.set(session_of(request)["user"])
    try:
        return await handler(request)
    except LoginRequired:
        raise web.HTTPFound("/connect") from None


# [connect]
async def connect(request: web.Request) -> web.Response:
    request_token = await client.fetch_request_token("https://login.example.com/oauth1/request_token")
    session_of(request)["request_token"] = request_token.to_json()
    raise web.HTTPFound(client.create_authorization_url("https://login.example.com/oauth1/authorize", request_token))


# [callback]
async def callback(request: web.Request) -> web.Response:
    # Taken out, not only read: a request token counts once.
    pending = session_of(request).pop("request_token", None)
    if pending is None:
        raise web.HTTPBadRequest(text="Nothing was begun here. Please try again.")
    request_token = OAuth1Token.from_json(pending)
    try:
        verifier = client.parse_authorization_response(request.query, request_token)
        token = await client.fetch_access_token("https://login.example.com/oauth1/access_token", request_token, verifier)
    except AccessDenied:
        raise web.HTTPForbidden(text="You said no, so your photos stay where they are.") from None
    except (CallbackError, InvalidGrant):
        raise web.HTTPBadRequest(text="This was not begun here, or is over. Please try again.") from None
    await users.save(token)
    raise web.HTTPFound("/albums")


# [albums]
SESSION = web.AppKey("session", ClientSession)


async def api_session(app: web.Application) -> AsyncIterator[None]:
    auth = OAuth1Auth(client, users, origins="https://photos.example.com")
    async with ClientSession(middlewares=[auth]) as session:
        app[SESSION] = session
        yield
    await users.aclose()


async def albums(request: web.Request) -> web.Response:
    async with request.app[SESSION].get("https://photos.example.com/albums") as response:
        if response.status == 401:
            raise web.HTTPFound("/connect")  # the user took the permission back at the server
        return web.json_response(await response.json())


async def disconnect(request: web.Request) -> web.Response:
    await users.forget()
    return web.Response(text="Your account is connected no more.")


# [end]
def make_app() -> web.Application:
    app = web.Application(middlewares=[remember_user])
    app.cleanup_ctx.append(api_session)
    handlers = (("/connect", connect), ("/callback", callback), ("/albums", albums), ("/disconnect", disconnect))
    for path, handler in handlers:
        app.router.add_get(path, handler)
    return app


if __name__ == "__main__":
    SESSIONS[secrets.token_urlsafe(32)] = {"user": "alice"}
    web.run_app(make_app())
