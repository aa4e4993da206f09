"""Processes that fork in the midst of a refresh: with threads, each with some loops in turn, that all need the token."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

from yarl import URL

from aiohttp_oauth_middleware import MemoryStore, Token, Tokens, TokenStore
from tests.soak.stores import STORES
from tests.soak.worker import HELD_BY_THE_SERVER, POINTS, Pointed, Reached, pointed_client

__all__ = ("fork_at", "fork_often", "orphan")

THREADS: Final = 4
LOOPS: Final = 4
# A process that hangs is killed by it.
DEADLINE: Final = 60


def fork_at(pipe: Connection, store: str, place: str, issuer: str, point: str) -> None:
    """Fork while a thread stands at *point*, and let all threads of parent and child have the token."""
    there, forked, parent = threading.Event(), threading.Event(), os.getpid()

    def reached(name: str) -> None:
        if name == point and os.getpid() == parent and not there.is_set():
            there.set()
            forked.wait()

    signal.alarm(DEADLINE)
    tokens = _tokens(store, place, issuer, reached, pipe.recv() if store == "memory" else None)
    crowd = _Crowd(tokens)
    pipe.recv() if point == HELD_BY_THE_SERVER else there.wait()
    child = _fork(lambda: _connections(issuer) == 0 and _Crowd(tokens).same())
    forked.set()
    pipe.send("forked")
    assert crowd.same()
    _end_of(child)


def orphan(pipe: Connection, store: str, place: str, issuer: str, point: str) -> None:
    """Die at *point*, leaving a child behind, which was forked there and needs the token."""
    parent = os.getpid()

    def reached(name: str) -> None:
        if name == point and os.getpid() == parent and not there.is_set():
            there.set()
            threading.Event().wait()  # for ever

    def child() -> bool:
        pipe.recv()  # the parent is dead
        pipe.send(_Crowd(tokens).same())
        return True

    there = threading.Event()
    signal.alarm(DEADLINE)
    tokens = _tokens(store, place, issuer, reached)
    _Crowd(tokens)
    there.wait()
    _fork(child)
    os.kill(parent, signal.SIGKILL)


def fork_often(store: str, place: str, issuer: str, users: list[dict[str, object]], seed: int) -> None:
    """For each user fork once at some moment of the refresh, which doesn't wait for that."""
    chance = random.Random(seed)
    for user, token in enumerate(users):
        signal.alarm(DEADLINE)
        point, there = chance.choice(POINTS), threading.Event()
        tokens = _tokens(store, place, issuer, _sets(there, point), token, f"user {user}")
        crowd = _Crowd(tokens)
        there.wait(chance.uniform(0.0, 0.01))
        child = _fork(lambda tokens=tokens: _Crowd(tokens).same())  # type: ignore[misc]
        assert crowd.same()
        _end_of(child)
        asyncio.run(tokens.aclose())


def _sets(there: threading.Event, point: str) -> Reached:
    return lambda name: there.set() if name == point else None


def _tokens(
    store: str,
    place: str,
    issuer: str,
    reached: Reached,
    token: dict[str, object] | None = None,
    key: str = "default",
) -> Tokens:
    """Tokens with crash points, over a store into which *token* was put."""
    kept: TokenStore = MemoryStore() if store == "memory" else STORES[store].make(place)
    client = pointed_client(issuer, reached)
    if token is not None:
        asyncio.run(Tokens(client, store=kept, key=key).save(Token.from_dict(token)))
    return Tokens(client, store=Pointed(kept, reached), key=key)


class _Crowd:
    """Threads that need the token, in one loop after another."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._got: list[Token] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        for _ in range(LOOPS):
            self._got.append(asyncio.run(self._tokens.token()))

    def same(self) -> bool:
        """Whether all of them got it, and the same one."""
        for thread in self._threads:
            thread.join()
        return len(self._got) == THREADS * LOOPS and len(set(self._got)) == 1


def _fork(work: Callable[[], bool]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a child has no threads, as of Python 3.12
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(DEADLINE)
        status = 0 if work() else 2
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # and never returns into what the parent does


def _end_of(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"


def _connections(issuer: str) -> int:
    """How many of our descriptors are connections to the server."""
    found = 0
    for fd in os.listdir("/dev/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as one:
            found += one.getpeername() == (URL(issuer).host, URL(issuer).port)
    return found
