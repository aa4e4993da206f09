"""The server's endpoints as aiohttp.web serves them: each request is recorded, held, failed or decided, in this order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web
from yarl import URL

from .authlib_grants import Engine
from .controls import Controls, Endpoint
from .faults import Fault, cut
from .ledger import digest
from .messages import Answer, Message
from .records import endpoint_record, message, parse_form

__all__ = ("Endpoints", "server_metadata")


class Endpoints:
    """Makes the web application of a server whose knobs are *controls*."""

    def __init__(self, controls: Controls, engine: Callable[[], Engine]) -> None:
        self._controls = controls
        self._ledger = controls._ledger
        self._engine = engine
        self._refreshing: Counter[str] = Counter()

    def app(self) -> web.Application:
        """A fresh application: one can't be served on two loops in turn."""
        app = web.Application()
        app.router.add_get("/.well-known/oauth-authorization-server", self._discovery)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_post("/revoke", self._revoke)
        app.router.add_post("/introspect", self._introspect)
        return app

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        self._ledger.counts.discoveries += 1
        if (spoilt := await self._spoilt("discovery", request)) is not None:
            return spoilt.response() if not spoilt.cut else cut(request)
        return web.json_response(dict(self._controls.metadata))

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = message(request, list(request.query.items()))
        with self._ledger.lock:
            answer = self._engine().authorize(asked, self._controls.user)
        headers = dict(answer.headers)
        if location := headers.get("Location"):
            # RFC 9207 section 2: "In authorization responses to the client, including error responses, an authorization server
            # supporting this specification MUST indicate its identity by including the iss parameter in the response."
            headers["Location"] = str(URL(location).update_query(iss=self._controls.metadata["issuer"]))
        return _respond(answer, headers)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        counts = self._ledger.counts
        pairs = await parse_form(request)
        form = dict(pairs or ())
        refresh_token = digest(form["refresh_token"]) if form.get("refresh_token") else ""
        with self._ledger.lock:
            counts.token_requests += 1
            counts.by_grant[form.get("grant_type", "")] += 1
            if refresh_token:
                counts.refresh_token_uses[refresh_token] += 1
                counts.refresh_overlaps += self._refreshing[refresh_token] > 0
            self._refreshing[refresh_token] += 1
        try:
            return await self._decide("token", request, pairs, lambda asked: self._engine().token(asked))
        finally:
            self._refreshing[refresh_token] -= 1

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        self._ledger.counts.revocations += 1
        return await self._decide("revocation", request, await parse_form(request), lambda asked: self._engine().revoke(asked))

    async def _introspect(self, request: web.Request) -> web.StreamResponse:
        self._ledger.counts.introspections += 1
        return await self._decide(
            "introspection", request, await parse_form(request), lambda asked: self._engine().introspect(asked)
        )

    async def _decide(
        self,
        endpoint: Endpoint,
        request: web.Request,
        pairs: list[tuple[str, str]] | None,
        decide: Callable[[Message], Answer],
    ) -> web.StreamResponse:
        self._controls._records[endpoint].append(endpoint_record(request, pairs or [], self._ledger.clock()))

        def respond() -> web.Response:
            if pairs is None:
                error = {"error": "invalid_request", "error_description": "The body is no form."}
                return _respond(Answer(400, error, (("Cache-Control", "no-store"),)))
            with self._ledger.lock:
                return _respond(decide(message(request, pairs)))

        return await self.serve(endpoint, request, respond)

    async def serve(self, endpoint: Endpoint, request: web.Request, respond: Callable[[], web.Response]) -> web.StreamResponse:
        """Answer with what *respond* decides, as far as the gates and faults of *endpoint* let it."""
        fault = await self._spoilt(endpoint, request)
        if fault is not None and fault.cut != "after":
            return fault.response() if not fault.cut else cut(request)
        response = respond()
        for gate in tuple(self._controls._gates[endpoint]):
            await gate.wait(request.path, decided=True)
        return response if fault is None else cut(request)

    async def _spoilt(self, endpoint: Endpoint, request: web.Request) -> Fault | None:
        """Wait as long as the knobs say, and take the fault that is meant for this request."""
        if endpoint == "token" and self._controls.latency > 0:
            await asyncio.sleep(self._controls.latency)
        for gate in tuple(self._controls._gates[endpoint]):
            await gate.wait(request.path)
        return self._controls._faults[endpoint].take()


def _respond(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    headers = dict(answer.headers) if headers is None else headers
    if 300 <= answer.status < 400:
        return web.Response(status=answer.status, headers=headers)
    headers.pop("Content-Type", None)
    return web.json_response(dict(answer.body), status=answer.status, headers=headers)


def server_metadata(issuer: str) -> dict[str, Any]:
    """The metadata of :rfc:`8414#section-2`."""
    secret = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/revoke",
        "introspection_endpoint": f"{issuer}/introspect",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "token_endpoint_auth_methods_supported": [*secret, "none"],
        "revocation_endpoint_auth_methods_supported": [*secret, "none"],
        "introspection_endpoint_auth_methods_supported": secret,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
