"""Events: counted, handed to the hook, and never with a secret."""

from __future__ import annotations

import logging

import pytest

from aiohttp_oauth_middleware import Event
from aiohttp_oauth_middleware.sources.events import Events


def test_F_56_events_are_counted_and_logged_without_a_hook(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_oauth_middleware")
    events = Events(None)
    events.emit(Event("refresh_started", "01234567"))
    events.emit(Event("refresh_failed", "01234567", cause="TokenUnavailable"))
    events.emit(Event("refresh_started", "01234567"))
    assert events.counts == {"refresh_started": 2, "refresh_failed": 1}
    assert "refresh_failed key=01234567 cause=TokenUnavailable" in caplog.text


def test_F_56_the_hook_gets_each_event() -> None:
    seen: list[Event] = []
    events = Events(seen.append)
    event = Event("cooldown_entered", "01234567", cause="TokenUnavailable", retry_after=5.0)
    events.emit(event)
    assert seen == [event]
    assert (event.name, event.key_id, event.cause, event.retry_after) == (
        "cooldown_entered",
        "01234567",
        "TokenUnavailable",
        5.0,
    )


def test_F_56_what_the_hook_raises_is_swallowed_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def hook(event: Event) -> None:
        raise ZeroDivisionError("with a secret in it")

    events = Events(hook)
    for _ in range(3):
        events.emit(Event("signed_out", "01234567"))
    assert events.counts == {"signed_out": 3, "hook_failed": 3}
    [record] = caplog.records
    assert "ZeroDivisionError" in record.getMessage()
    assert "secret" not in record.getMessage()
