"""An authorization server and an API in a process of their own; what they counted is the only truth."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

from aiohttp_oauth_middleware import Client, ClientSecret, Token
from aiohttp_oauth_middleware.testing import AuthorizationServer, Counts

__all__ = ("CONTEXT", "ServerProcess", "client_of")

DEADLINE: Final = 60.0

# Children of a process that has imported everything and has no threads: one more costs a fork, not a second of imports.
CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.soak.worker", "aiohttp_oauth_middleware.testing.authlib_grants"])


class ServerProcess:
    """An authorization server that rotates refresh tokens and ends a sign-in whose superseded one is presented.

    :param lifetime: of its access tokens, in seconds.
    :param grace: for how many seconds a superseded refresh token is still taken.
    :param latency: for how many seconds the token endpoint waits before it does anything.
    """

    def __init__(self, *, lifetime: float = 3600.0, grace: float = 0.0, latency: float = 0.0) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs, lifetime, grace, latency), daemon=True)
        self._process.start()
        theirs.close()
        self.issuer: str
        self.api: str
        self.issuer, self.api = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._pipe.close()  # at which it ends
        self._process.join()

    def client(self) -> Client:
        """A Client of this server in the caller's process."""
        return client_of(self.issuer)

    def issue(self) -> Token:
        """A token out of thin air, as if a user had signed in."""
        return Token.from_dict(self._ask("issue"))

    def counts(self) -> Counts:
        """What the server saw."""
        counts = self._ask("counts")
        assert isinstance(counts, Counts)
        return counts

    def is_active(self, token: str | None) -> bool:
        """Whether that access or refresh token would be taken now."""
        return token is not None and bool(self._ask("is_active", token))

    def hold(self) -> None:
        """Keep token requests waiting from now on, with their answer decided: what it says has been issued and rotated."""
        self._ask("hold")

    def release(self) -> None:
        """Let everybody go who is held."""
        self._ask("release")

    async def arrived(self, number: int = 1) -> None:
        """Return once so many requests are held."""
        give_up = time.monotonic() + DEADLINE
        while (count := int(self._ask("arrived"))) < number:
            assert time.monotonic() < give_up, f"{count} of {number} requests have arrived"
            await asyncio.sleep(0.005)

    def _ask(self, name: str, *arguments: object) -> Any:
        self._pipe.send((name, arguments))
        return self._answer()

    def _answer(self) -> Any:
        assert self._pipe.poll(DEADLINE), "the server's process does not answer"
        return self._pipe.recv()


def client_of(issuer: str) -> Client:
    """The one client that the server knows."""
    return Client(issuer, "app", ClientSecret("app-secret"))


def _serve(pipe: Connection, lifetime: float, grace: float, latency: float) -> None:
    with AuthorizationServer(lifetime=lifetime) as server:
        server.reuse_grace = grace
        server.latency = latency
        api, gates = server.api(), [server.hold(decided=True)]

        def hold() -> None:
            gates.append(server.hold(decided=True))
            gates[-1].close()

        commands: dict[str, Callable[..., object]] = {
            "issue": lambda: server.issue().to_dict(),
            "counts": lambda: server.counts,
            "is_active": server.is_active,
            "hold": hold,
            "release": lambda: gates[-1].release(),
            "arrived": lambda: gates[-1].count,
        }
        pipe.send((server.issuer, api.origin))
        with suppress(EOFError):  # whoever asked is gone
            while True:
                name, arguments = pipe.recv()
                pipe.send(commands[name](*arguments))
