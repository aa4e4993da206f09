"""The body of a record: what is written is read, and what can't be read is never 'no token'."""

from __future__ import annotations

import inspect
import json
import os
import traceback

import pytest

from aiohttp_oauth_middleware import StoreCorrupted, Token
from aiohttp_oauth_middleware.sources.state import Pending, State

TOKEN = Token("access", refresh_token="refresh", expires_at=7.0, obtained_at=5.0, scope="a b", extra={"team": "x"})
WHOLE = State(
    "dead",
    owner="o",
    endpoint="https://as/token",
    sign_in="5f",
    token=TOKEN,
    pending=Pending(3.0, "host:1"),
    cooldown_until=9.0,
    failures=2,
    refusals=1,
    since=8.0,
)


@pytest.mark.parametrize("state", [State(), WHOLE, State("signed_out", owner="o"), State(refusals=1)], ids=lambda s: s.kind)
def test_a_state_is_read_as_it_was_written(state: State) -> None:
    assert State.from_body(state.to_body()) == state


def test_an_intent_says_which_process_it_is_of() -> None:
    assert Pending(3.0).process.endswith(f":{os.getpid()}")
    assert Pending(3.0, "host:1").process == "host:1"


def test_S_22_a_state_prints_no_secret() -> None:
    assert "access" not in repr(WHOLE).replace("access_token", "")
    assert "'refresh'" not in repr(WHOLE)


def changed(**members: object) -> bytes:
    return json.dumps(json.loads(WHOLE.to_body()) | members).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\x01",
        b"\xff\xfe{",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"schema":1}',
        WHOLE.to_body()[:-2],
        b"[" * 100_000,
        changed(schema=2),
        changed(schema=None),
        changed(state="asleep"),
        changed(state=[]),
        changed(token=None),
        changed(token={}),
        changed(token={"access_token": "a b"}),
        changed(token={"access_token": 7}),
        changed(pending=7),
        changed(pending={"since": "soon", "process": ""}),
        changed(pending={"since": 7}),
        changed(pending={"since": 10**400, "process": ""}),
        changed(failures="many"),
        changed(failures=None),
        changed(failures=float("inf")),
        changed(refusals=float("nan")),
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_F_51_what_cannot_be_read_is_StoreCorrupted(body: bytes) -> None:
    with pytest.raises(StoreCorrupted) as caught:
        State.from_body(body)
    assert "refresh" not in str(caught.value)


def test_a_cool_down_that_is_no_number_counts_as_none() -> None:
    assert State.from_body(changed(cooldown_until="soon")).cooldown_until == 0.0
    assert State.from_body(changed(cooldown_until=None)).cooldown_until == 0.0


@pytest.mark.parametrize(
    ("state", "moment"),
    [
        (State(), None),
        (State(token=TOKEN), None),
        (State(token=TOKEN.replace(refresh_token=None)), 7.0),
        (State(token=TOKEN.replace(refresh_token=None), pending=Pending(3.0)), None),
        (State(token=TOKEN.replace(refresh_token=None, expires_at=None)), None),
        (State("dead", token=TOKEN, since=6.0), 7.0),
        (State("dead", token=TOKEN, since=8.0), 8.0),
        (State("dead", token=TOKEN), 7.0),
        (State("signed_out", since=8.0), 8.0),
        (State("signed_out"), None),
    ],
)
def test_since_when_nothing_in_it_can_be_of_use(state: State, moment: float | None) -> None:
    assert state.dead_since == moment


CUT_SHORT = Token("CANARY-access", refresh_token="CANARY-refresh", extra={"id_token": "CANARY-id"})


@pytest.mark.parametrize(
    "body",
    [
        State(token=CUT_SHORT).to_body()[:-2],
        State(token=CUT_SHORT).to_body() + b"}",
        State(token=CUT_SHORT).to_body().replace(b'"schema":1', b'"schema":2'),
        State(token=CUT_SHORT).to_body().replace(b'"ok"', b'"asleep"'),
        State(token=CUT_SHORT).to_body().replace(b"CANARY-access", b"CANARY access"),
        State(token=CUT_SHORT).to_body().replace(b'"owner"', b'"failures":[],"owner"'),
    ],
    ids=["cut short", "too long", "another schema", "another state", "a bad token", "bad failures"],
)
def test_S_22_F_51_the_traceback_of_a_record_that_cannot_be_read_has_no_token_in_its_locals(body: bytes) -> None:
    with pytest.raises(StoreCorrupted) as caught:
        State.from_body(body)
    # The parser's own errors hold the whole text.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if frame.f_code.co_filename == inspect.getfile(State)]
    assert ours
    for frame in ours:
        assert "CANARY" not in repr(frame.f_locals)
