"""A web application that warms its token up, answers health checks, and counts what happens to its tokens."""

import logging
import os
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

from aiohttp_oauth_middleware import (
    Client,
    ClientCredentials,
    ClientSecret,
    Event,
    OAuth2Auth,
    OAuthError,
    Tokens,
    TokenUnavailable,
)

log = logging.getLogger("reports")

# [events]
counters: dict[str, int] = {}


def on_event(event: Event) -> None:
    """Hand what happens to a metrics library. It must not block."""
    counters[event.name] = counters.get(event.name, 0) + 1
    if event.cause is not None:
        log.warning("%s for key %s: %s", event.name, event.key_id, event.cause)


client = Client("https://login.example.com", "reports", ClientSecret(os.environ["REPORTS_SECRET"]))
tokens = Tokens(client, ClientCredentials(scope="reports:read"), on_event=on_event)
# [startup]
SESSION = web.AppKey("session", ClientSession)


async def api_session(app: web.Application) -> AsyncIterator[None]:
    try:
        await tokens.token()
    except TokenUnavailable as error:
        # The server is down, and will be up again: no reason not to start.
        log.warning("no token yet: %s", error)
    # Anything else, such as a wrong secret, ends the start here, and not at the first request of a user.
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins="https://api.example.com")]) as session:
        app[SESSION] = session
        yield
    await tokens.aclose()


# [health]
async def health(request: web.Request) -> web.Response:
    try:
        await tokens.token()
    except OAuthError as error:
        problem = {"token": type(error).__name__, "passing": error.retryable}
        headers = {"Retry-After": f"{error.retry_after:.0f}"} if error.retry_after is not None else {}
        return web.json_response(problem, status=503, headers=headers)
    return web.json_response({"token": "ok"})


# [application]
def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(api_session)
    app.router.add_get("/health", health)
    app.router.add_get("/reports", reports)
    return app


async def reports(request: web.Request) -> web.Response:
    async with request.app[SESSION].get("https://api.example.com/reports") as response:
        return web.json_response(await response.json())


# [end]
if __name__ == "__main__":
    web.run_app(make_app())
