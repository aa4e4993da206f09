"""The token as a value: what it refuses, what it tells, what it hides, and how it is kept."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aiohttp_oauth_middleware
from aiohttp_oauth_middleware.errors import ConfigurationError
from aiohttp_oauth_middleware.token import Token

CANARY = "CANARY-token-mF_9.B5f-4.1JqM"
MEMBERS = ("access_token", "token_type", "expires_at", "obtained_at", "refresh_at", "refresh_token", "scope")

# Not 1*VSCHAR: RFC 6749 appendices A.12 and A.17.
NO_TOKENS: list[Any] = [
    "",
    " ",
    "a b",
    " a",
    "a ",
    "a\tb",
    "a\r\nX-Injected: b",
    "a\n",
    "\na",
    "a\x00",
    "a\x1b[31m",
    "a\x7f",
    "a\x80",
    "é",
    "€",
    "\ud800",
    "\u2028",
    "\uff21",
    None,
    5,
    True,
    b"abc",
    ["a"],
    {"a": "b"},
]

NO_MOMENTS = [
    *(math.nan, math.inf, -math.inf, True, False, "1735689600", [1], 1j),
    pytest.param(10**400, id="too large for a float"),
    pytest.param(-(10**400), id="too small for a float"),
]


class Scope(enum.StrEnum):
    READ = "read"


def own_locals(traceback_: TracebackType | None) -> str:
    """What the frames of the package held when the error left them, as a crash reporter prints them."""
    package = str(Path(aiohttp_oauth_middleware.__path__[0]))
    held = [frame.f_locals for frame, _ in traceback.walk_tb(traceback_) if frame.f_code.co_filename.startswith(package)]
    # Without `self`, whose repr is another test's business.
    return repr([{name: value for name, value in values.items() if name != "self"} for values in held])


# The constructor


@pytest.mark.parametrize("access_token", ["a", "mF_9.B5f-4.1JqM", "a==", "a|b", "!~", '"\\', "x" * 1_000_000])
def test_a_token_is_visible_ascii(access_token: str) -> None:
    assert Token(access_token).access_token == access_token
    assert Token("a", refresh_token=access_token).refresh_token == access_token


@pytest.mark.parametrize("access_token", NO_TOKENS)
def test_S_36_an_access_token_that_no_header_can_carry_is_refused(access_token: Any) -> None:
    with pytest.raises(ConfigurationError, match="access_token must be"):
        Token(access_token)


@pytest.mark.parametrize("refresh_token", [value for value in NO_TOKENS if value is not None])
def test_S_36_a_refresh_token_of_other_characters_is_refused(refresh_token: Any) -> None:
    with pytest.raises(ConfigurationError, match="refresh_token must be"):
        Token("a", refresh_token=refresh_token)


@pytest.mark.parametrize("token_type", ["", None, 5, b"Bearer", ["Bearer"]])
def test_F_55_a_token_type_is_a_string(token_type: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_type must be"):
        Token("a", token_type=token_type)


@pytest.mark.parametrize("token_type", ["Bearer\r\nX-Injected: b", "Bearer\n", "Bea\x00rer", "\x1b[31m", "Bearer€"])
def test_S_36_a_token_type_that_no_header_can_carry_is_refused(token_type: str) -> None:
    with pytest.raises(ConfigurationError, match="token_type must be"):
        Token("a", token_type=token_type)


@pytest.mark.parametrize("scope", [5, True, b"read", ["read"], {"read"}])
def test_F_55_a_scope_is_a_string(scope: Any) -> None:
    with pytest.raises(ConfigurationError, match="scope must be"):
        Token("a", scope=scope)


def test_a_scope_may_be_a_member_of_a_string_enum() -> None:
    token = Token("a", scope=Scope.READ, token_type="Bearer")
    assert token.scope == "read"
    assert token.scopes == {"read"}


@pytest.mark.parametrize("name", ["expires_at", "obtained_at", "refresh_at"])
@pytest.mark.parametrize(("moment", "expected"), [(None, None), (0, 0.0), (-5, -5.0), (1735689600, 1735689600.0), (1.5, 1.5)])
def test_a_moment_is_a_finite_number_or_none(name: str, moment: float | None, expected: float | None) -> None:
    found = getattr(Token("a").replace(**{name: moment}), name)
    assert found == expected
    assert found is None or type(found) is float


@pytest.mark.parametrize("name", ["expires_at", "obtained_at", "refresh_at"])
@pytest.mark.parametrize("moment", NO_MOMENTS)
def test_F_55_a_moment_that_is_none_is_refused(name: str, moment: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be"):
        Token("a").replace(**{name: moment})


@pytest.mark.parametrize("name", MEMBERS)
def test_F_55_extra_can_not_hold_a_field(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        Token("a", extra={"team": "t", name: CANARY})
    assert CANARY not in str(caught.value)


def test_extra_keeps_what_is_not_interpreted() -> None:
    token = Token("a", extra={"instance_url": "https://na1.example.com", "team": {"id": 7}, "none": None})
    assert token.extra["instance_url"] == "https://na1.example.com"
    assert token.extra["team"] == {"id": 7}
    assert token.extra["none"] is None


def test_extra_is_a_read_only_copy() -> None:
    given = {"team": "t"}
    token = Token("a", extra=given)
    given["team"] = "other"
    assert token.extra == {"team": "t"}
    with pytest.raises(TypeError):
        token.extra["team"] = "other"  # type: ignore[index]
    with pytest.raises(TypeError):
        Token("a").extra["team"] = "other"  # type: ignore[index]


def test_what_is_not_given_is_none() -> None:
    token = Token("a")
    assert (token.expires_at, token.obtained_at, token.refresh_at, token.refresh_token, token.scope) == (None,) * 5
    assert token.token_type == "Bearer"
    assert token.extra == {}


# What it tells


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (None, set()),
        ("", set()),
        ("  ", set()),
        ("read", {"read"}),
        ("read write", {"read", "write"}),
        (" write  read read ", {"read", "write"}),
        ("https://api.example.com/read", {"https://api.example.com/read"}),
        ("a,b", {"a,b"}),
    ],
)
def test_scopes_are_a_set(scope: str | None, expected: set[str]) -> None:
    assert Token("a", scope=scope).scopes == expected


@pytest.mark.parametrize(
    ("obtained_at", "expires_at", "expected"),
    [
        (None, None, None),
        (100.0, None, None),
        (None, 100.0, None),
        (100.0, 3700.0, 3600.0),
        (100.0, 100.0, 0.0),
        (100.0, 50.0, 0.0),
        (0, 30, 30.0),
    ],
)
def test_a_lifetime_counts_from_the_request(
    obtained_at: float | None, expires_at: float | None, expected: float | None
) -> None:
    assert Token("a", obtained_at=obtained_at, expires_at=expires_at).lifetime == expected


@pytest.mark.parametrize(
    ("expires_at", "now", "expected"),
    [(None, 1e12, False), (100.0, 99.999, False), (100.0, 100.0, True), (100.0, 101.0, True), (0, 0, True), (-1, 0, True)],
)
def test_a_token_is_expired_from_its_moment_on(expires_at: float | None, now: float, expected: bool) -> None:
    assert Token("a", expires_at=expires_at).is_expired(now) is expected


@pytest.mark.parametrize(("now", "expected"), [(99.0, False), (100.0, True)])
def test_a_token_asks_the_wall_clock_where_no_time_is_given(
    monkeypatch: pytest.MonkeyPatch, now: float, expected: bool
) -> None:
    monkeypatch.setattr("aiohttp_oauth_middleware.token.time.time", lambda: now)
    assert Token("a", expires_at=100.0).is_expired() is expected
    assert Token("a").is_expired() is False


def test_tokens_are_equal_by_their_fields_and_can_be_keys() -> None:
    def make() -> Token:
        return Token("a", refresh_token="r", scope="read", expires_at=1.0, extra={"team": [1]})

    assert make() == make()
    assert hash(make()) == hash(make())
    others: list[dict[str, Any]] = [
        {"access_token": "b"},
        {"token_type": "DPoP"},
        {"refresh_token": None},
        {"scope": "write"},
        {"extra": {}},
        {"expires_at": 2.0},
    ]
    for changes in others:
        assert make().replace(**changes) != make()


def test_replace_refuses_what_the_constructor_refuses() -> None:
    token = Token("a", scope="read")
    assert token.replace(scope="write") == Token("a", scope="write")
    with pytest.raises(ConfigurationError):
        token.replace(access_token="a b")


# What it hides


def full(canary: str = CANARY) -> Token:
    return Token(
        f"{canary}-access",
        expires_at=1735693200.0,
        obtained_at=1735689600.0,
        refresh_at=1735691400.0,
        refresh_token=f"{canary}-refresh",
        scope="read write",
        extra={"id_token": f"{canary}-id"},
    )


@pytest.mark.parametrize("render", [repr, str, "{}".format, lambda it: repr([it]), lambda it: f"{it!s:>9}"])
def test_S_22_a_token_prints_none_of_its_secrets(render: Callable[[Token], str]) -> None:
    text = render(full())
    assert CANARY not in text
    assert "scope='read write'" in text


def test_the_repr_of_a_token_shows_the_rest() -> None:
    assert repr(Token("a", refresh_token="r", scope="read", expires_at=60, extra={"team": "t"})) == (
        "Token(access_token=…, expires_at=60.0, extra=…, refresh_token=…, scope='read', token_type='Bearer')"
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_S_22_a_token_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(full(), protocol)


def test_S_22_a_token_has_no_dict_to_dump() -> None:
    with pytest.raises(TypeError):
        vars(full())


def test_a_copy_of_a_token_is_the_token() -> None:
    token = full()
    assert copy.copy(token) is token
    assert copy.deepcopy(token) is token


MISTAKES: dict[str, Callable[[], object]] = {
    "access token": lambda: Token(f"{CANARY}\r\n"),
    "refresh token": lambda: Token(CANARY, refresh_token=f"{CANARY} "),
    "token type": lambda: Token(CANARY, token_type=""),
    "scope": lambda: Token(CANARY, scope=5),  # type: ignore[arg-type]
    "extra": lambda: Token(CANARY, extra={"scope": CANARY}),
    "moment": lambda: Token(CANARY, refresh_token=CANARY, expires_at=math.nan),
    "replaced": lambda: full().replace(scope=7),
    "access token in a dict": lambda: Token.from_dict({"access_token": f"{CANARY}\n"}),
    "refresh token in a dict": lambda: Token.from_dict({"access_token": CANARY, "refresh_token": 7}),
    "no access token": lambda: Token.from_dict({"refresh_token": CANARY}),
    "no dict": lambda: Token.from_dict(CANARY),  # type: ignore[arg-type]
    "no JSON": lambda: Token.from_json(f'{{"access_token": "{CANARY}'),
    "access token in JSON": lambda: Token.from_json(json.dumps({"access_token": f"{CANARY}\n"})),
    "no object in JSON": lambda: Token.from_json(json.dumps([CANARY])),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_S_22_a_refusal_does_not_repeat_what_it_refuses(mistake: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mistake()
    assert CANARY not in f"{caught.value} {caught.value!r} {caught.value.args}"
    assert CANARY.encode() not in pickle.dumps(caught.value)


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_S_22_a_refusal_keeps_no_secret_in_the_locals_of_our_frames(mistake: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mistake()
    assert CANARY not in own_locals(caught.value.__traceback__)


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_S_22_a_refusal_can_be_printed_with_the_locals(mistake: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mistake()
    printed = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "ConfigurationError" in "".join(printed.format())


def test_S_22_what_is_no_json_does_not_hang_on_the_error() -> None:
    # A JSONDecodeError holds the whole document.
    with pytest.raises(ConfigurationError) as caught:
        Token.from_json(f'{{"access_token": "{CANARY}')
    context = caught.value.__context__
    assert CANARY not in repr(getattr(context, "doc", None))


# To and from the dicts of others


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"access_token": "a"}, Token("a")),
        ({"access_token": "a", "token_type": "bearer"}, Token("a")),
        ({"access_token": "a", "token_type": "BEARER"}, Token("a")),
        ({"access_token": "a", "token_type": None}, Token("a")),
        ({"access_token": "a", "token_type": ""}, Token("a")),
        ({"access_token": "a", "token_type": "mac"}, Token("a", token_type="mac")),
        ({"access_token": "a", "refresh_token": None}, Token("a")),
        ({"access_token": "a", "refresh_token": ""}, Token("a")),
        ({"access_token": "a", "refresh_token": "r"}, Token("a", refresh_token="r")),
        ({"access_token": "a", "scope": None}, Token("a")),
        ({"access_token": "a", "scope": ""}, Token("a")),
        ({"access_token": "a", "scope": []}, Token("a")),
        ({"access_token": "a", "scope": "r w"}, Token("a", scope="r w")),
        ({"access_token": "a", "scope": ["r", "w"]}, Token("a", scope="r w")),
        ({"access_token": "a", "scope": ("r",)}, Token("a", scope="r")),
        (
            {"access_token": "a", "instance_url": "u", "id_token": None},
            Token("a", extra={"instance_url": "u", "id_token": None}),
        ),
        ({"access_token": "a", "refresh_at": "50"}, Token("a", refresh_at=50)),
        # As authlib keeps it: both members, and expires_at counts.
        (
            {"access_token": "a", "token_type": "Bearer", "expires_in": 3600, "expires_at": 5000, "refresh_token": "r"},
            Token("a", expires_at=5000, obtained_at=1400, refresh_token="r"),
        ),
        # As requests-oauthlib keeps it.
        (
            {"access_token": "a", "token_type": "Bearer", "scope": ["r"], "expires_in": "60", "expires_at": 5000.25},
            Token("a", expires_at=5000.25, obtained_at=4940.25, scope="r"),
        ),
    ],
)
def test_a_token_is_read_from_the_dicts_of_others(data: Mapping[str, Any], expected: Token) -> None:
    assert Token.from_dict(data, now=1000.0) == expected


@pytest.mark.parametrize(
    ("members", "expires_at", "obtained_at"),
    [
        ({"expires_in": 60}, 1060.0, 1000.0),
        ({"expires_in": "60"}, 1060.0, 1000.0),
        ({"expires_in": 60.5}, 1060.5, 1000.0),
        ({"expires_in": "1e3"}, 2000.0, 1000.0),
        ({"expires_in": -5}, None, None),
        ({"expires_in": 0}, None, None),  # authlib, too, takes it for 'not said'
        ({"expires_in": None}, None, None),
        ({"expires_in": ""}, None, None),
        ({"expires_in": "soon"}, None, None),
        ({"expires_in": True}, None, None),
        ({"expires_in": [60]}, None, None),
        ({"expires_in": {}}, None, None),
        ({"expires_in": math.nan}, None, None),
        ({"expires_in": math.inf}, None, None),
        ({"expires_in": "1e400"}, None, None),
        ({"expires_in": 10**400}, None, None),
        ({"expires_in": "9" * 5000}, None, None),
        ({"expires_at": 5000}, 5000.0, None),
        ({"expires_at": "5000.5"}, 5000.5, None),
        ({"expires_at": 5000, "expires_in": 60}, 5000.0, 4940.0),
        ({"expires_at": 5000, "obtained_at": 4000, "expires_in": 60}, 5000.0, 4000.0),
        ({"expires_at": 0}, 0.0, None),
        ({"expires_at": "2026-01-01T00:00:00Z", "expires_in": 60}, 1060.0, 1000.0),
        ({"expires_at": None, "expires_in": 60}, 1060.0, 1000.0),
        ({"expires_at": "soon"}, None, None),
        ({"expires_at": math.nan, "obtained_at": math.inf}, None, None),
        ({"expires_at": 10**400}, None, None),
        ({"obtained_at": 900}, None, 900.0),
    ],
)
def test_an_expiry_is_read_in_every_spelling_or_is_unknown(
    members: dict[str, Any], expires_at: float | None, obtained_at: float | None
) -> None:
    token = Token.from_dict({"access_token": "a", **members}, now=1000.0)
    assert (token.expires_at, token.obtained_at) == (expires_at, obtained_at)
    assert token.extra == {}


def test_a_lifetime_counts_from_the_wall_clock_where_no_time_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp_oauth_middleware.token.time.time", lambda: 2000.0)
    assert Token.from_dict({"access_token": "a", "expires_in": 60}).expires_at == 2060.0


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "a",
        [],
        [("access_token", "a")],
        {},
        {"token": "a"},
        {"refresh_token": "r"},
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 5},
        {"access_token": ["a"]},
        {"access_token": "a b"},
        {"access_token": "a", "refresh_token": 5},
        {"access_token": "a", "refresh_token": "a b"},
        {"access_token": "a", "token_type": 7},
        {"access_token": "a", "token_type": ["bearer"]},
        {"access_token": "a", "scope": 5},
    ],
)
def test_F_55_what_is_no_token_is_a_configuration_error(data: Any) -> None:
    with pytest.raises(ConfigurationError):
        Token.from_dict(data)


def test_from_dict_leaves_the_dict_alone() -> None:
    data = {"access_token": "a", "expires_in": 60, "scope": ["r"], "team": {"id": 1}}
    before = copy.deepcopy(data)
    Token.from_dict(data)
    assert data == before


def test_to_dict_is_flat_and_leaves_out_what_is_none() -> None:
    assert Token("a").to_dict() == {"access_token": "a", "token_type": "Bearer"}
    assert full("c").to_dict() == {
        "access_token": "c-access",
        "token_type": "Bearer",
        "expires_at": 1735693200.0,
        "obtained_at": 1735689600.0,
        "refresh_at": 1735691400.0,
        "refresh_token": "c-refresh",
        "scope": "read write",
        "id_token": "c-id",
    }


def test_authlib_can_use_what_to_dict_gives() -> None:
    from authlib.oauth2.rfc6749 import OAuth2Token

    theirs = OAuth2Token.from_dict(full("c").to_dict())
    assert theirs["expires_at"] == 1735693200
    assert theirs.is_expired() is True
    assert Token.from_dict(theirs) == full("c")


# JSON


@pytest.mark.parametrize(
    "token",
    [
        Token("a"),
        full("c"),
        Token("a", expires_at=0.1 + 0.2, obtained_at=-1.5),
        Token("a", extra={"nested": {"list": [1, 2.5, None, True, "é", "\u2028", "\ud800"]}, "": ""}),
        Token("a", token_type="DPoP"),
        Token("a", token_type="bearer"),
        Token("a", scope=""),
    ],
)
def test_a_token_survives_json(token: Token) -> None:
    assert Token.from_json(token.to_json()) == token
    assert Token.from_json(token.to_json().encode()) == token
    assert Token.from_dict(token.to_dict()) == token


def test_an_expires_in_among_the_extra_gives_a_token_no_expiry() -> None:
    # Either it is refused, as the fields are, or it stays what it is: not interpreted.
    try:
        token = Token("a", extra={"expires_in": 60})
    except ConfigurationError:
        return
    assert Token.from_json(token.to_json()) == token


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "5",
        '"a"',
        "[]",
        "{}",
        "{",
        "not json",
        '{"access_token": "a"} trailing',
        '{"access_token": "a b"}',
        b"\xff\xfe\xff",
        b'{"access_token": "\xff"}',
        "[" * 100_000,
        '{"access_token": "a", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"access_token": "a", "expires_at": ' + "9" * 5000 + "}",
    ],
)
def test_F_55_what_is_no_token_in_json_is_a_configuration_error(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError):
        Token.from_json(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
VSCHAR = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
MOMENT = st.none() | st.floats(allow_nan=False, allow_infinity=False)
EXTRA = st.dictionaries(st.text(max_size=10).filter(lambda name: name not in (*MEMBERS, "expires_in")), JSON_VALUES, max_size=4)
TOKENS = st.builds(
    Token,
    VSCHAR,
    token_type=st.sampled_from(["Bearer", "DPoP", "mac", "N_A"]),
    expires_at=MOMENT,
    obtained_at=MOMENT,
    refresh_at=MOMENT,
    refresh_token=st.none() | VSCHAR,
    scope=st.none() | st.text(min_size=1, max_size=40),
    extra=EXTRA,
)


@settings(deadline=None)
@given(TOKENS)
def test_any_token_survives_json(token: Token) -> None:
    assert Token.from_json(token.to_json()) == token


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*MEMBERS, "expires_in", "team"]), JSON_VALUES, max_size=9))
def test_F_55_any_dict_is_a_token_or_a_configuration_error(data: dict[str, Any]) -> None:
    try:
        token = Token.from_dict(data, now=1000.0)
    except ConfigurationError:
        return
    assert token.access_token == data["access_token"]
    for moment in (token.expires_at, token.obtained_at, token.refresh_at):
        assert moment is None or math.isfinite(moment)
