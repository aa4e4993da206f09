"""A resource server of somebody who checks each token by introspection, written without the code under test."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web
from yarl import URL


class Api:
    """A running API. *answered* is what it said, in order."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.url = URL()


@contextlib.asynccontextmanager
async def introspecting_api(introspection_endpoint: str, client_id: str, secret: str) -> AsyncIterator[Api]:
    """An API on a loopback port which lets those in whose token is active."""
    api = Api()
    # Both are plain ASCII, so the form encoding of RFC 6749 section 2.3.1 changes nothing.
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()

    async def answer(request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        active = False
        if scheme == "Bearer":
            async with session.post(
                introspection_endpoint, data={"token": token}, headers={"Authorization": f"Basic {basic}"}
            ) as verdict:
                active = verdict.status == 200 and (await verdict.json())["active"] is True
        api.answered.append(200 if active else 401)
        if active:
            return web.json_response({"body": (await request.read()).decode()})
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with ClientSession() as session:
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            api.url = URL.build(scheme="http", host="127.0.0.1", port=runner.addresses[0][1])
            yield api
        finally:
            await runner.cleanup()
