"""Asking a person, or whatever a Login asks: within a time, and not again and again after a refusal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError, LoginRequired, OAuthError
from ..token import Token
from .source import Login, Wanted

if TYPE_CHECKING:
    from ..client.client import Client
    from .events import Events

__all__ = ("Asking", "timeout_of")

TIMEOUT: Final = 300.0
LATCHES: Final = 10_000


def timeout_of(login: Login) -> float:
    """Seconds that *login* may take."""
    return getattr(login, "timeout", TIMEOUT)


class Asking:
    """The Logins of all keys, and the refusals that stand until somebody calls for another try."""

    __slots__ = ("_client", "_events", "_refusals")

    def __init__(self, client: Client, events: Events) -> None:
        self._client = client
        self._events = events
        # Not on the KeyedToken, for those are dropped when the cache is full.
        self._refusals: dict[tuple[str, bool], OAuthError] = {}

    def refusal(self, key: str, *, step_up: bool) -> OAuthError | None:
        """What the last Login of *key* was refused with, if another try would not help; a step-up apart from others."""
        return self._refusals.get((key, step_up))

    def forgive(self, key: str) -> None:
        """Let *key* be asked again."""
        for step_up in (False, True):
            self._refusals.pop((key, step_up), None)

    async def ask(self, login: Login, wanted: Wanted, key: str, *, step_up: bool) -> Token:
        """What the Login yields; what it raises is one of our errors, and latched where another try would not help."""
        timeout = timeout_of(login)
        self._events.emit("login_started", key)
        try:
            async with asyncio.timeout(timeout):
                token = await login(self._client, wanted)
            if not isinstance(token, Token):
                raise ConfigurationError("the Login returned no Token")
        except OAuthError as error:
            self._refused(error, key, step_up)
            raise
        except TimeoutError:
            raise self._refused(LoginRequired(f"nobody signed in within {timeout:g} s"), key, step_up) from None
        except Exception as error:
            raise self._refused(LoginRequired(f"the Login raised {type(error).__name__}"), key, step_up) from error
        return token

    def _refused(self, error: OAuthError, key: str, step_up: bool) -> OAuthError:
        """Latch *error*, so that a fleet of requests doesn't ask a person again and again."""
        if not error.retryable:
            self._refusals[key, step_up] = error.again()
            while len(self._refusals) > LATCHES:
                del self._refusals[next(iter(self._refusals))]
        self._events.emit("login_failed", key, error)
        return error.about(key)
