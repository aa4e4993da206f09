"""What the client processes do. Where they die is in what they pass to the package, never in the package."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp_oauth_middleware import Client, ClientSecret, EndpointRequest, EndpointResponse, Hook, Record, Tokens, TokenStore
from aiohttp_oauth_middleware.sources.state import State
from aiohttp_oauth_middleware.stores.store import Lock
from tests.soak.stores import STORES, Wrapped

__all__ = ("HELD_BY_THE_SERVER", "POINTS", "Pointed", "die_at", "pointed_client", "refresh")

Reached = Callable[[str], None]

HELD_BY_THE_SERVER: Final = "sent, the answer not read"

# In the order in which a refresh comes upon them.
POINTS: Final = (
    "lock taken",
    "temporary file of the intent written",
    "intent durable",
    "about to be sent",
    HELD_BY_THE_SERVER,
    "answer read",
    "temporary file of the result written",
    "result durable, lock held",
    "lock released",
)


class Pointed(Wrapped):
    """A store that says which point of a refresh has been reached."""

    def __init__(self, store: TokenStore, reached: Reached) -> None:
        super().__init__(store)
        self._reached = reached
        self._writing = ""
        replace = os.replace

        def replaced(*arguments: Any, **names: Any) -> None:
            if self._writing:
                reached(f"temporary file of the {self._writing} written")
            replace(*arguments, **names)

        os.replace = replaced  # of this process alone, which is there for nothing else

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        intent = State.from_body(record.body).pending is not None
        self._writing = "intent" if intent else "result"
        done = await super().save(key, record, expected=expected, lock=lock)
        self._writing = ""
        self._reached("intent durable" if intent else "result durable, lock held")
        return done

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        async with super().lock(key, wait=wait) as held:
            self._reached("lock taken")
            yield held
        self._reached("lock released")


def pointed_client(issuer: str, reached: Reached) -> Client:
    """A Client that says so too."""

    def request(request: EndpointRequest) -> None:
        reached("about to be sent")

    def response(response: EndpointResponse) -> EndpointResponse:
        reached("answer read")
        return response

    hooks = (Hook("refresh_token_request", request), Hook("refresh_token_response", response))
    return Client(issuer, "app", ClientSecret("app-secret"), hooks=hooks)


def die_at(point: str | None) -> Reached:
    """Kill this process, as by kill -9, at *point*."""

    def reached(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def refresh(store: str, place: str, issuer: str, crash_at: str | None = None) -> None:
    """Renew the token that is in the store, and die on the way where *crash_at* says so."""
    reached = die_at(crash_at)
    tokens = Tokens(pointed_client(issuer, reached), store=Pointed(STORES[store].make(place), reached))
    asyncio.run(tokens.token())
