"""The OAuth 1 endpoints and the protection of applications, as aiohttp.web serves them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Final, Literal, Protocol, TypeVar
from urllib.parse import quote, urlencode

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..resource import TOKEN
from .engine import Engine
from .ledger import OUT_OF_BAND, OAuth1Ledger, Policy, with_parameters
from .wire import FORM, Kind, OAuth1Record, Problem, oauth1_record

__all__ = ("Endpoints", "Serve")

T = TypeVar("T")

Serve = Callable[
    [Literal["request_token", "access_token"], web.Request, Callable[[], web.Response]], Awaitable[web.StreamResponse]
]


class Knobs(Policy, Protocol):
    """Those that shape the answers, beside those that decide them; see :class:`OAuth1Server`."""

    json_answers: bool
    content_type: str | None
    report_problems: bool
    requests: list[OAuth1Record]


class Endpoints:
    """Serves what the engine decides.

    :param user: who is signed in at the authorization endpoint now, and consents at once; None refuses.
    """

    def __init__(self, knobs: Knobs, ledger: OAuth1Ledger, user: Callable[[], str | None]) -> None:
        self._knobs: Final = knobs
        self._ledger: Final = ledger
        self._engine: Final = Engine(ledger)
        self._user: Final = user

    def add_routes(self, app: web.Application, serve: Serve) -> None:
        """Add the three endpoints to *app*; *serve* holds and spoils the requests to two of them."""

        async def request_token(request: web.Request) -> web.StreamResponse:
            record = await self._arrived("request_token", request)
            return await serve("request_token", request, lambda: self._answer(record, self._engine.request_token))

        async def access_token(request: web.Request) -> web.StreamResponse:
            record = await self._arrived("access_token", request)
            return await serve("access_token", request, lambda: self._answer(record, self._engine.access_token))

        app.router.add_route("*", "/oauth1/request_token", request_token)
        app.router.add_get("/oauth1/authorize", self._authorize)
        app.router.add_route("*", "/oauth1/access_token", access_token)

    async def _arrived(self, kind: Kind, request: web.Request) -> OAuth1Record:
        record = await oauth1_record(kind, request, self._ledger.shared.clock())
        # The application that is protected may run in any thread.
        with self._ledger.lock:
            self._ledger.counts.requests[kind] += 1
            self._knobs.requests.append(record)
        return record

    def _decide(self, record: OAuth1Record, decide: Callable[[OAuth1Record], T]) -> T | Problem:
        counts = self._ledger.counts
        with self._ledger.lock:
            try:
                decided = decide(record)
            except Problem as problem:
                record.verdict = problem.problem
                counts.verdicts[problem.problem] += 1
                return problem
            record.verdict = "accepted"
            counts.verdicts["accepted"] += 1
            counts.signature_methods[record.oauth["oauth_signature_method"]] += 1
            counts.placements[record.placement or ""] += 1
            return decided

    def _answer(self, record: OAuth1Record, decide: Callable[[OAuth1Record], dict[str, str]]) -> web.Response:
        decided = self._decide(record, decide)
        if not isinstance(decided, Problem):
            # RFC 5849 section 2.1: "in the body of the HTTP response using the "application/x-www-form-urlencoded" content
            # type [...] with a 200 status code (OK)".
            return self._body(decided, 200, {})
        told = _told(decided) if self._knobs.report_problems else {}
        return self._body(told, decided.status, self._challenge(decided))

    def _body(self, members: Mapping[str, str], status: int, headers: Mapping[str, str]) -> web.Response:
        as_json = self._knobs.json_answers
        body = json.dumps(members) if as_json else urlencode(members)
        content_type = self._knobs.content_type or ("application/json" if as_json else FORM)
        sent = {"Content-Type": content_type, "Cache-Control": "no-store", "Date": self._date(), **headers}
        return web.Response(status=status, body=body.encode(), headers=sent)

    def _challenge(self, problem: Problem) -> dict[str, str]:
        parameters = [] if self._knobs.realm is None else [f'realm="{_quoted(self._knobs.realm)}"']
        if self._knobs.report_problems and problem.problem != "missing":
            parameters += [f'{name}="{quote(value, safe="~")}"' for name, value in _told(problem).items()]
        return {"WWW-Authenticate": f"OAuth {', '.join(parameters)}".rstrip()}

    def _date(self) -> str:
        return formatdate(self._ledger.now(), usegmt=True)

    async def _authorize(self, request: web.Request) -> web.Response:
        with self._ledger.lock:
            self._ledger.counts.requests["authorize"] += 1
            temporary = self._ledger.temporary(request.query.get("oauth_token", ""))
            if temporary is None or temporary.used:
                return web.Response(status=400, text="This oauth_token is none, or was used already.")
            # OAuth Core 1.0, before its revision A, named the callback here.
            if not self._knobs.confirm_callbacks and temporary.callback == OUT_OF_BAND:
                temporary.callback = request.query.get("oauth_callback", OUT_OF_BAND)
            told = self._ledger.decide(temporary, self._user())
        if temporary.callback == OUT_OF_BAND:
            return web.Response(text="".join(f"{name}: {value}\n" for name, value in told.items()))
        return web.Response(status=302, headers={"Location": with_parameters(temporary.callback, told)})

    def protection(self, two_legged: bool) -> Middleware:
        """A middleware that lets nobody through whose signature doesn't verify; see :meth:`OAuth1Server.protect`."""

        @web.middleware
        async def protect(request: web.Request, handler: Handler) -> web.StreamResponse:
            record = await self._arrived("resource", request)
            decided = self._decide(record, lambda arrived: self._engine.resource(arrived, two_legged))
            if isinstance(decided, Problem):
                headers = self._challenge(decided) | {"Date": self._date()}
                return web.json_response({"refused": decided.problem}, status=decided.status, headers=headers)
            request[TOKEN] = decided
            response = await handler(request)
            if not response.prepared:
                response.headers["Date"] = self._date()
            return response

        return protect


def _told(problem: Problem) -> dict[str, str]:
    return {"oauth_problem": problem.problem} | problem.details


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
