"""Events: counted, handed to the hook, and never with a secret."""

from __future__ import annotations

import logging

import pytest

from aiohttp_oauth_middleware import Event, TokenUnavailable
from aiohttp_oauth_middleware.sources.events import Events


def test_F_56_events_are_counted_and_logged_without_a_hook(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_oauth_middleware")
    events = Events(None)
    events.emit("refresh_started", "alice")
    events.emit("refresh_failed", "alice", TokenUnavailable("with a secret in it"))
    events.emit("refresh_started", "alice")
    assert events.counts == {"refresh_started": 2, "refresh_failed": 1}
    assert "refresh_failed key=2bd806c9 cause=TokenUnavailable" in caplog.text
    assert "secret" not in caplog.text
    assert "alice" not in caplog.text


def test_F_56_the_hook_gets_each_event() -> None:
    seen: list[Event] = []
    events = Events(seen.append)
    events.emit("cooldown_entered", "alice", TokenUnavailable(), 5.0)
    [event] = seen
    assert event == Event("cooldown_entered", "2bd806c9", cause="TokenUnavailable", retry_after=5.0)
    assert (event.name, event.key_id, event.cause, event.retry_after) == (
        "cooldown_entered",
        "2bd806c9",
        "TokenUnavailable",
        5.0,
    )


def test_F_56_what_the_hook_raises_is_swallowed_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def hook(event: Event) -> None:
        raise ZeroDivisionError("with a secret in it")

    events = Events(hook)
    for _ in range(3):
        events.emit("signed_out", "alice")
    assert events.counts == {"signed_out": 3, "hook_failed": 3}
    [record] = caplog.records
    assert "ZeroDivisionError" in record.getMessage()
    assert "secret" not in record.getMessage()
