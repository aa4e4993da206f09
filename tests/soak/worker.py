"""What the client processes do. Where they die is in what they pass to the package, never in the package."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, TCPConnector

from aiohttp_oauth_middleware import (
    Client,
    ClientSecret,
    EndpointRequest,
    EndpointResponse,
    Hook,
    LoginRequired,
    OAuth2Auth,
    Record,
    RefreshInDoubt,
    Tokens,
    TokenStore,
)
from aiohttp_oauth_middleware.sources.state import State
from aiohttp_oauth_middleware.stores.store import Lock
from tests.soak.stores import STORES, Wrapped

__all__ = (
    "HELD_BY_THE_SERVER",
    "POINTS",
    "Load",
    "Pointed",
    "Report",
    "die_at",
    "load",
    "pointed_client",
    "refresh",
    "turns_file",
)

Reached = Callable[[str], None]

# An answer of the API that takes longer, in seconds, says that the machine has too much to do.
SLOW: Final = 0.05

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
    """A store that says which point of a refresh has been reached.

    :param files: also which temporary file was written.
    """

    def __init__(self, store: TokenStore, reached: Reached, *, files: bool = False) -> None:
        super().__init__(store)
        self._reached = reached
        self._writing = ""
        if not files:
            return
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
    tokens = Tokens(pointed_client(issuer, reached), store=Pointed(STORES[store].make(place), reached, files=True))
    asyncio.run(tokens.token())


class Load(NamedTuple):
    """What a worker under load is told.

    :param think: seconds between two requests of one task, on the average.
    """

    store: str
    place: str
    issuer: str
    api: str
    tasks: int = 100
    think: float = 3.0


@dataclass
class Report:
    """What a worker under load has seen: what is bad at once, for it may be killed, and the rest in the end.

    :ivar failed: what became of the requests that failed, and how often.
    :ivar in_doubt: each RefreshInDoubt, as the process that it named, and when that one had sent the refresh token.
    :ivar signed_out: how many failed because the sign-in was over.
    :ivar latencies: of the API's answers, in seconds.
    :ivar lock_waits: for how many seconds the store's lock was waited for.
    :ivar last: whether nothing more comes.
    """

    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    in_doubt: set[tuple[str, float]] = field(default_factory=set)
    signed_out: int = 0
    latencies: list[float] = field(default_factory=list)
    lock_waits: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    last: bool = False


class _Timed(Wrapped):
    """A store that notes for how long its lock is waited for, and, in a file that all see grow, that it was had."""

    def __init__(self, store: TokenStore, place: str, waits: list[float]) -> None:
        super().__init__(store)
        self._place = place
        self._waits = waits

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        began = time.monotonic()
        async with super().lock(key, wait=wait) as held:
            self._waits.append(time.monotonic() - began)
            fd = os.open(turns_file(self._place), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(fd, b".")
            os.close(fd)
            yield held


def turns_file(place: str) -> str:
    """The file that has a byte for each time that a worker had the lock."""
    return f"{place}/turns"


def load(pipe: Connection, order: Load) -> None:
    """Send requests from many tasks until the other end of *pipe* says that it is enough, and report."""
    asyncio.run(_load(pipe, order))


async def _load(pipe: Connection, order: Load) -> None:
    report, told = Report(), asyncio.Event()
    store = _Timed(STORES[order.store].make(order.place), order.place, report.lock_waits)
    tokens = Tokens(Client(order.issuer, "app", ClientSecret("app-secret")), store=store)

    async def timed(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        began = time.monotonic()
        response = await handler(request)
        report.latencies.append(time.monotonic() - began)
        return response

    def bad(what: str) -> None:
        pipe.send(Report(failed=Counter([what])))

    async def one(session: ClientSession) -> None:
        while True:
            # Where the machine is slow there are fewer requests, for what is to be found out is not how slow it is.
            slowness = max(1.0, report.latencies[-1] / SLOW if report.latencies else 0.0)
            await asyncio.sleep(random.uniform(0.0, 2.0 * order.think * slowness))
            try:
                async with session.get(order.api) as response:
                    await response.read()
            except LoginRequired as error:
                report.signed_out += 1
                if isinstance(error, RefreshInDoubt):
                    pipe.send(Report(in_doubt={(error.process or "", error.since or 0.0)}))
            except Exception as error:
                bad(f"{type(error).__name__}: {error}")
            else:
                if response.status == 200:
                    report.ok += 1
                else:
                    bad(f"status {response.status}")

    auth = OAuth2Auth(tokens, origins=order.api)
    async with ClientSession(middlewares=[auth, timed], connector=TCPConnector(limit=0)) as session, tokens:
        await tokens.client.metadata()
        asyncio.get_running_loop().add_reader(pipe.fileno(), told.set)
        tasks = [asyncio.create_task(one(session)) for _ in range(order.tasks)]
        await told.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    report.events, report.last = tokens.counts, True
    pipe.send(report)
