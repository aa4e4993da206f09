"""What happened, for logs and metrics: never with a secret in it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Literal

from ..errors import key_id
from ..value import Value

__all__ = ("Event", "EventName", "Events")

EventName = Literal[
    "refresh_started",
    "refresh_adopted",
    "refresh_succeeded",
    "refresh_failed",
    "in_doubt",
    "stale_write_refused",
    "store_write_retried",
    "store_write_failed",
    "cooldown_entered",
    "login_started",
    "login_succeeded",
    "login_failed",
    "signed_out",
    "origin_refused",
    "clock_offset_learned",
]

_log = logging.getLogger("aiohttp_oauth_middleware")


class Event(Value):
    """Something that happened to the token of a key.

    :param name: what.
    :param key_id: whose token it is, as the first 8 hexadecimal digits of the SHA-256 of the key; empty for
        ``origin_refused`` and ``clock_offset_learned``, which no key has a part in.
    :param origin: of those two: where a request went without the token, and whose clock differs from ours.
    :param cause: the class of the error, where there was one.
    :param retry_after: seconds, of ``cooldown_entered``.
    """

    __slots__ = ("cause", "key_id", "name", "origin", "retry_after")

    name: EventName
    key_id: str
    cause: str | None
    retry_after: float | None
    origin: str | None

    def __init__(
        self,
        name: EventName,
        key_id: str = "",
        *,
        cause: str | None = None,
        retry_after: float | None = None,
        origin: str | None = None,
    ) -> None:
        self._freeze(name=name, key_id=key_id, cause=cause, retry_after=retry_after, origin=origin)


class Events:
    """Counts events and hands them to the user's hook, whose failures are counted and swallowed."""

    def __init__(self, hook: Callable[[Event], None] | None) -> None:
        self._hook = hook
        self.counts: Counter[str] = Counter()

    def emit(self, name: EventName, key: str, error: BaseException | None = None, retry_after: float | None = None) -> None:
        """Say that *name* happened to the token of *key*."""
        cause = type(error).__name__ if error is not None else None
        self.hand_over(Event(name, key_id(key), cause=cause, retry_after=retry_after))

    def hand_over(self, event: Event) -> None:
        """Count *event*, and let the hook have it."""
        self.counts[event.name] += 1
        _log.debug("%s key=%s cause=%s", event.name, event.key_id, event.cause)
        if self._hook is None:
            return
        try:
            self._hook(event)
        except Exception as error:
            self.counts["hook_failed"] += 1
            if self.counts["hook_failed"] == 1:
                _log.warning("on_event raised %s; it is called again, and this is said once", type(error).__name__)
