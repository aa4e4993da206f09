"""Many users in one session: sign-in, requests on behalf of each, sign-out."""

import base64
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextvars import ContextVar

from aiohttp import ClientSession, web
from aiohttp.typedefs import Handler
from yarl import URL

from aiohttp_oauth_middleware import AuthorizationCode, Client, ClientSecret, LoginRequired, OAuth2Auth, Tokens

# [tokens]
current_user: ContextVar[str] = ContextVar("current_user")

client = Client("https://login.example.com", "portal", ClientSecret(os.environ["PORTAL_SECRET"]))
users = Tokens(client, key=current_user.get)
# [middleware]
SIGNED_IN: dict[str, str] = {}  # a session's id to its user; in earnest, the work of a session library


@web.middleware
async def remember_user(request: web.Request, handler: Handler) -> web.StreamResponse:
    if user := SIGNED_IN.get(request.cookies.get("session", "")):
        current_user.set(user)
    try:
        return await handler(request)
    except LoginRequired:
        raise web.HTTPFound("/login") from None


# [reports]
SESSION = web.AppKey("session", ClientSession)


async def api_session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(middlewares=[OAuth2Auth(users, origins="https://api.example.com")]) as session:
        app[SESSION] = session
        yield
    await users.aclose()


async def reports(request: web.Request) -> web.Response:
    if current_user.get(None) is None:
        raise web.HTTPFound("/login")
    async with request.app[SESSION].get("https://api.example.com/reports") as response:
        return web.json_response(await response.json())


# [login]
REDIRECT_URI = "https://portal.example.com/callback"
PENDING: dict[str, tuple[str, str]] = {}  # a session's id to the state and the code verifier of its login


async def login(request: web.Request) -> web.Response:
    session, state, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    PENDING[session] = (state, verifier)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    metadata = await client.metadata()
    url = URL(metadata.authorization_endpoint or "").update_query(
        response_type="code",
        client_id=client.client_id,
        redirect_uri=REDIRECT_URI,
        scope="reports:read",
        state=state,
        code_challenge=challenge,
        code_challenge_method="S256",
    )
    answer = web.HTTPFound(url)
    answer.set_cookie("session", session, httponly=True, samesite="Lax")
    raise answer


async def callback(request: web.Request) -> web.Response:
    session = request.cookies.get("session", "")
    # Taken out, not only read: a login counts once.
    state, verifier = PENDING.pop(session, (None, ""))
    if state is None or not secrets.compare_digest(request.query.get("state", ""), state):
        raise web.HTTPBadRequest(text="This login was not begun here. Please try again.")
    token = await client.fetch_token(
        AuthorizationCode(request.query["code"], redirect_uri=REDIRECT_URI, code_verifier=verifier)
    )
    user = str((await client.introspect(token))["sub"])
    await users.save(token, key=user)
    SIGNED_IN[session] = user
    raise web.HTTPFound("/reports")


# [logout]
async def logout(request: web.Request) -> web.Response:
    if user := SIGNED_IN.pop(request.cookies.get("session", ""), None):
        await users.revoke(key=user)
    return web.Response(text="You are signed out.")


# [clean up]
async def every_night() -> None:
    await users.clean_up(older_than=90 * 86_400)


# [end]
def make_app() -> web.Application:
    app = web.Application(middlewares=[remember_user])
    app.cleanup_ctx.append(api_session)
    for path, handler in (("/login", login), ("/callback", callback), ("/reports", reports), ("/logout", logout)):
        app.router.add_get(path, handler)
    return app


if __name__ == "__main__":
    web.run_app(make_app())
