"""The OAuth 1 token as a value: what it refuses, what it hides, and how it is kept."""

from __future__ import annotations

import copy
import json
import math
import pickle
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_oauth_middleware import ConfigurationError, OAuth1Token
from tests.unit.test_token import own_locals

CANARY = "CANARY-oauth1-token-0123456789"
MEMBERS = ("oauth_token", "oauth_token_secret", "oauth_session_handle", "expires_at", "session_expires_at")
LIFETIMES = ("oauth_expires_in", "oauth_authorization_expires_in")
NO_TEXT: tuple[Any, ...] = (
    "a\n",
    "\r\na",
    "a\x00b",
    "a\x1b[31m",
    "a\x7f",
    "\ud800",
    "\u2028",
    5,
    True,
    b"a",
    ["a"],
    {"a": "b"},
)
NO_MOMENTS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, True, False, "1735689600", [1], 1j, 10**400)


def full(canary: str = CANARY) -> OAuth1Token:
    return OAuth1Token(
        f"{canary}-token",
        f"{canary}-secret",
        oauth_session_handle=f"{canary}-handle",
        expires_at=1735693200,
        session_expires_at=1735699999.5,
        extra={"user_id": f"{canary}-user"},
    )


@pytest.mark.parametrize("token", ["a", "tok/en+=", "with space", "é", "令牌", "a" * 4096])
def test_a_token_is_any_text_that_prints(token: str) -> None:
    made = OAuth1Token(token, token)
    assert (made.oauth_token, made.oauth_token_secret, made.oauth_session_handle) == (token, token, None)
    assert (made.expires_at, made.session_expires_at, dict(made.extra)) == (None, None, {})


@pytest.mark.parametrize("value", [*NO_TEXT, "", None], ids=ascii)
def test_F_55_what_is_no_token_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"oauth_token must be"):
        OAuth1Token(value)


@pytest.mark.parametrize("value", [*NO_TEXT, None], ids=ascii)
def test_F_55_what_is_no_secret_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"oauth_token_secret must be"):
        OAuth1Token("a", value)
    assert OAuth1Token("a", "").oauth_token_secret == ""


@pytest.mark.parametrize("value", NO_TEXT, ids=ascii)
def test_F_55_what_is_no_session_handle_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"oauth_session_handle must be"):
        OAuth1Token("a", oauth_session_handle=value)
    assert OAuth1Token("a", oauth_session_handle="").oauth_session_handle is None


@pytest.mark.parametrize("value", NO_MOMENTS, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("name", ["expires_at", "session_expires_at"])
def test_F_55_what_is_no_moment_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} must be None or a finite number"):
        OAuth1Token("a", **{name: value})


@pytest.mark.parametrize(
    "value", [None, 7, "x", [("a", "b")], {7: "b"}, *({name: "x"} for name in (*MEMBERS, *LIFETIMES))], ids=ascii
)
def test_F_55_what_is_no_extra_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="extra must"):
        OAuth1Token("a", extra=value)


def test_a_token_is_immutable_equal_by_its_fields_and_can_be_a_key() -> None:
    token = full()
    assert token == full()
    assert hash(token) == hash(full())
    assert copy.copy(token) is copy.deepcopy(token) is token
    others: list[dict[str, Any]] = [
        {"oauth_token": "b"},
        {"oauth_token_secret": "b"},
        {"oauth_session_handle": None},
        {"expires_at": 1},
        {"session_expires_at": None},
        {"extra": {}},
    ]
    for changes in others:
        assert token.replace(**changes) != token
    with pytest.raises(AttributeError):
        token.oauth_token = "b"
    with pytest.raises(TypeError):
        token.extra["user_id"] = "b"  # type: ignore[index]


def test_the_extra_of_a_token_is_a_copy() -> None:
    extra = {"user_id": "1"}
    token = OAuth1Token("a", extra=extra)
    extra["user_id"] = "2"
    assert token.extra == {"user_id": "1"}


@pytest.mark.parametrize(
    ("expires_at", "now", "expected"),
    [(None, 1e12, False), (100.0, 99.999, False), (100.0, 100.0, True), (100, 101.0, True), (0, 0, True)],
)
def test_a_token_is_expired_from_its_moment_on(expires_at: float | None, now: float, expected: bool) -> None:
    assert OAuth1Token("a", expires_at=expires_at).is_expired(now) is expected


@pytest.mark.parametrize(("now", "expected"), [(99.0, False), (100.0, True)])
def test_a_token_asks_the_wall_clock_where_no_time_is_given(
    monkeypatch: pytest.MonkeyPatch, now: float, expected: bool
) -> None:
    monkeypatch.setattr("aiohttp_oauth_middleware.oauth1.token.time.time", lambda: now)
    assert OAuth1Token("a", expires_at=100.0).is_expired() is expected
    assert OAuth1Token.from_dict({"oauth_token": "a", "oauth_expires_in": "5"}).expires_at == now + 5


# What it hides


@pytest.mark.parametrize("render", [repr, str, "{}".format, lambda it: repr([it]), lambda it: f"{it!s:>9}"])
def test_G_12_S_22_a_token_prints_none_of_its_secrets(render: Callable[[OAuth1Token], str]) -> None:
    text = render(full())
    assert CANARY not in text
    assert "expires_at=1735693200.0" in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_G_12_S_22_a_token_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(full(), protocol)
    with pytest.raises(TypeError):
        vars(full())


MISTAKES: dict[str, Callable[[], object]] = {
    "token": lambda: OAuth1Token(f"{CANARY}\n", CANARY),
    "secret": lambda: OAuth1Token(CANARY, f"{CANARY}\n"),
    "handle": lambda: OAuth1Token(CANARY, CANARY, oauth_session_handle=f"{CANARY}\n"),
    "moment": lambda: OAuth1Token(CANARY, CANARY, expires_at=math.nan, extra={"a": CANARY}),
    "extra": lambda: OAuth1Token(CANARY, CANARY, extra={"oauth_token": CANARY}),
    "replaced": lambda: full().replace(oauth_token_secret=f"{CANARY}\n"),
    "token in a dict": lambda: OAuth1Token.from_dict({"oauth_token": f"{CANARY}\n", "oauth_token_secret": CANARY}),
    "secret in a dict": lambda: OAuth1Token.from_dict({"oauth_token": CANARY, "oauth_token_secret": [CANARY]}),
    "no token": lambda: OAuth1Token.from_dict({"oauth_token_secret": CANARY}),
    "no dict": lambda: OAuth1Token.from_dict(CANARY),  # type: ignore[arg-type]
    "no JSON": lambda: OAuth1Token.from_json(f'{{"oauth_token": "{CANARY}'),
    "token in JSON": lambda: OAuth1Token.from_json(json.dumps({"oauth_token": f"{CANARY}\n"})),
    "no object in JSON": lambda: OAuth1Token.from_json(json.dumps([CANARY])),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_G_12_S_22_a_refusal_shows_nothing_of_what_it_refuses(mistake: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mistake()
    assert CANARY not in f"{caught.value} {caught.value!r} {caught.value.args} {pickle.dumps(caught.value)!r}"
    assert CANARY not in own_locals(caught.value.__traceback__)
    assert CANARY not in repr(getattr(caught.value.__context__, "doc", None))
    printed = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "ConfigurationError" in "".join(printed.format())


# To and from the dicts of others


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"oauth_token": "a"}, OAuth1Token("a")),
        ({"oauth_token": "a", "oauth_token_secret": None}, OAuth1Token("a")),
        ({"oauth_token": "a", "oauth_token_secret": ""}, OAuth1Token("a")),
        ({"oauth_token": "a", "oauth_token_secret": "s"}, OAuth1Token("a", "s")),
        # As authlib and requests-oauthlib keep it.
        (
            {"oauth_token": "a", "oauth_token_secret": "s", "oauth_callback_confirmed": "true"},
            OAuth1Token("a", "s", extra={"oauth_callback_confirmed": "true"}),
        ),
        ({"oauth_token": "a", "oauth_verifier": None}, OAuth1Token("a", extra={"oauth_verifier": None})),
        ({"oauth_token": "a", "oauth_session_handle": "h"}, OAuth1Token("a", oauth_session_handle="h")),
        ({"oauth_token": "a", "oauth_session_handle": ""}, OAuth1Token("a")),
        ({"oauth_token": "a", "user_id": 7, "x": [1]}, OAuth1Token("a", extra={"user_id": 7, "x": [1]})),
        ({"oauth_token": "a", "oauth_expires_in": "3600"}, OAuth1Token("a", expires_at=4600)),
        ({"oauth_token": "a", "oauth_expires_in": 3600, "expires_at": 5000}, OAuth1Token("a", expires_at=5000)),
        (
            {"oauth_token": "a", "oauth_expires_in": "60", "oauth_authorization_expires_in": "600"},
            OAuth1Token("a", expires_at=1060, session_expires_at=1600),
        ),
        ({"oauth_token": "a", "expires_at": "soon"}, OAuth1Token("a")),
        ({"oauth_token": "a", "expires_at": math.nan, "oauth_expires_in": 10**400}, OAuth1Token("a")),
        *(
            ({"oauth_token": "a", "oauth_expires_in": value}, OAuth1Token("a"))
            for value in ("0", "-5", 0, None, "", "soon", True, [60], "1e400", "9" * 5000)
        ),
    ],
)
def test_a_token_is_read_from_the_dicts_of_others(data: Mapping[str, Any], expected: OAuth1Token) -> None:
    before = copy.deepcopy(dict(data))
    assert OAuth1Token.from_dict(data, now=1000.0) == expected
    assert str(before) == str(dict(data))


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "a",
        [],
        {},
        {"token": "a"},
        {"oauth_token": None},
        {"oauth_token": ""},
        {"oauth_token": 5},
        {"oauth_token": "a\n"},
    ],
)
def test_F_55_what_is_no_token_is_a_configuration_error(data: Any) -> None:
    with pytest.raises(ConfigurationError):
        OAuth1Token.from_dict(data)


def test_to_dict_is_flat_and_leaves_out_what_is_none() -> None:
    assert OAuth1Token("a").to_dict() == {"oauth_token": "a", "oauth_token_secret": ""}
    assert full("c").to_dict() == {
        "oauth_token": "c-token",
        "oauth_token_secret": "c-secret",
        "oauth_session_handle": "c-handle",
        "expires_at": 1735693200.0,
        "session_expires_at": 1735699999.5,
        "user_id": "c-user",
    }


@pytest.mark.parametrize("token", [OAuth1Token("a"), full("c"), OAuth1Token("é", "\U0001f511", extra={"": "\ud800"})])
def test_a_token_survives_json(token: OAuth1Token) -> None:
    assert OAuth1Token.from_json(token.to_json()) == token
    assert OAuth1Token.from_json(token.to_json().encode()) == token
    assert OAuth1Token.from_dict(token.to_dict()) == token


@pytest.mark.parametrize(
    "text",
    ["", "null", "5", "[]", "{", '{"oauth_token": "a"} x', b"\xff\xfe\xff", "[" * 100_000, '{"oauth_token": ' + "[" * 100_000],
)
def test_F_55_what_is_no_token_in_json_is_a_configuration_error(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError):
        OAuth1Token.from_json(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*MEMBERS, *LIFETIMES, "user_id"]), JSON_VALUES, max_size=8))
def test_F_55_any_dict_is_a_token_that_survives_json_or_a_configuration_error(data: dict[str, Any]) -> None:
    try:
        token = OAuth1Token.from_dict(data, now=1000.0)
    except ConfigurationError:
        return
    assert token.oauth_token == data["oauth_token"]
    assert OAuth1Token.from_json(token.to_json()) == token
    for moment in (token.expires_at, token.session_expires_at):
        assert moment is None or math.isfinite(moment)
