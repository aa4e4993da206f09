"""From the bytes of a token answer to a token or to one of our errors, fault by fault."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from aiohttp_oauth_middleware import (
    AccessDenied,
    EndpointResponse,
    ErrorResponse,
    InvalidClient,
    InvalidGrant,
    OAuthError,
    Quirks,
    Token,
    TokenResponseError,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.protocol.token_response import error_response, parse_object, parse_token_response, retry_after
from tests.raw_server import response

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "token-responses.json").read_text("utf-8")
)
NOW = 1_700_000_000.0
YEAR = 365 * 86_400.0
STANDARD = Quirks()


def parsed(
    answer: EndpointResponse | dict[str, Any],
    *,
    scope: str | None = None,
    refresh_token: str | None = None,
    quirks: Quirks = STANDARD,
    secrets: tuple[str, ...] = (),
) -> Token:
    if isinstance(answer, dict):
        answer = response(answer)
    return parse_token_response(answer, sent_at=NOW, scope=scope, refresh_token=refresh_token, quirks=quirks, secrets=secrets)


def refused(answer: EndpointResponse | dict[str, Any], **given: Any) -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        parsed(answer, **given)
    return caught.value


def nonsense(answer: EndpointResponse | dict[str, Any], **given: Any) -> TokenResponseError:
    error = refused(answer, **given)
    assert type(error) is TokenResponseError, repr(error)
    # The request was sent: what came back doesn't tell whether the refresh token is spent.
    assert error.maybe_spent
    assert not error.retryable
    assert error.status
    assert "RFC" in str(error)
    return error


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["source"]))
def test_the_examples_of_the_rfcs(vector: dict[str, Any]) -> None:
    answer = EndpointResponse(vector["status"], vector["headers"], json.dumps(vector["body"]).encode())
    quirks = Quirks(token_types=vector["token_types"])
    if error := vector.get("error"):
        caught = refused(answer, quirks=quirks)
        assert isinstance(caught, ErrorResponse)
        assert (caught.error, caught.status) == (error, vector["status"])
        return
    token = parsed(answer, quirks=quirks)
    expected = vector["token"]
    assert {name: getattr(token, name) for name in expected} == expected
    assert (token.obtained_at, token.expires_at) == (NOW, NOW + expected["lifetime"])


def test_S_31_unknown_members_are_ignored_and_kept_apart() -> None:
    token = parsed({"access_token": "a", "instance_url": "https://x.example", "n": {"m": [1, None]}, "obtained_at": 5})
    assert token == Token("a", obtained_at=NOW, extra={"instance_url": "https://x.example", "n": {"m": [1, None]}})


def test_S_31_what_is_absent_stays_as_it_was() -> None:
    token = parsed({"access_token": "a"}, scope="r w", refresh_token="rt")
    assert (token.scope, token.refresh_token, token.expires_at) == ("r w", "rt", None)
    assert parsed({"access_token": "a"}).scope is None


# --- Bodies: F-27 -------------------------------------------------------------------------------------------------------

GOOD = b'{"access_token": "a"}'


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=UTF-8",
        "application/json;charset=ebcdic-cp-us",
        "APPLICATION/JSON",
        "text/html",
        "text/plain",
        "text/javascript",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "image/png",
        "nonsense",
        "",
        None,
    ],
)
def test_F_27_json_is_read_under_any_label(content_type: str | None) -> None:
    assert parsed(response(GOOD, content_type=content_type)) == Token("a", obtained_at=NOW)


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8", "text/plain"]
)
def test_F_27_a_form_is_read_where_it_is_labelled_so_or_as_plain_text(content_type: str) -> None:
    token = parsed(
        response(b"access_token=gho_a&scope=repo%2Cgist&token_type=bearer&expires_in=60&x=", content_type=content_type)
    )
    assert token == Token("gho_a", scope="repo gist", obtained_at=NOW, expires_at=NOW + 60, extra={"x": ""})


@pytest.mark.parametrize("content_type", [None, "text/html", "application/json", "application/octet-stream"])
def test_F_27_a_form_under_another_label_is_none(content_type: str | None) -> None:
    nonsense(response(b"access_token=a&token_type=bearer", content_type=content_type))


@pytest.mark.parametrize(
    "body",
    [b"\xef\xbb\xbf" + GOOD, b"\r\n\t " + GOOD + b"\n\n", b"\xef\xbb\xbf  " + GOOD + b"  "],
    ids=["mark", "space", "both"],
)
def test_F_27_a_byte_order_mark_and_white_space_are_tolerated(body: bytes) -> None:
    assert parsed(response(body)).access_token == "a"


BAD_BODIES: dict[str, bytes] = {
    "empty": b"",
    "white space": b"   \r\n",
    "html": b"<!DOCTYPE html><html><body>access_token=a</body></html>",
    "null": b"null",
    "true": b"true",
    "a number": b"5",
    "a string": b'"a"',
    "a list": b'[{"access_token": "a"}]',
    "utf-16": GOOD.decode().encode("utf-16"),
    "utf-16 without a mark": GOOD.decode().encode("utf-16-le"),
    "utf-32": GOOD.decode().encode("utf-32"),
    "invalid utf-8": b'{"access_token": "a\xff"}',
    "latin-1": b'{"access_token": "a", "x": "\xe9"}',
    "overlong utf-8": b'{"access_token": "a", "x": "\xc0\x80"}',
    "trailing garbage": GOOD + b"x",
    "two documents": GOOD + GOOD,
    "cut off": GOOD[:-1],
    "cut off in a string": GOOD[:-3],
    "single quotes": b"{'access_token': 'a'}",
    "a comma too many": b'{"access_token": "a",}',
    "a comment": b'{"access_token": "a" /* x */}',
    "a control character in a string": b'{"access_token": "a", "x": "\x01"}',
    "a nul before": b"\x00" + GOOD,
    "jsonp": b"callback(" + GOOD + b")",
    "xssi": b")]}'\n" + GOOD,
    "brace alone": b"{",
    "an empty object": b"{}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize(
    "content_type", ["application/json", "text/html", "text/plain", "application/x-www-form-urlencoded", None]
)
def test_F_27_S_26_a_body_that_makes_no_sense_is_one_error(body: bytes, content_type: str | None) -> None:
    error = nonsense(response(body, content_type=content_type), secrets=("rt",))
    assert error.status == 200
    assert f"200 with {len(body)} bytes" in str(error)
    assert "DOCTYPE" not in str(error)


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 418])
def test_F_24_F_27_such_a_body_with_a_4xx_is_the_same(body: bytes, status: int) -> None:
    error = nonsense(response(body, status))
    assert (error.status, error.rule) == (status, "RFC 6749 section 5.2")


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_F_23_F_27_such_a_body_with_a_passing_status_may_pass(body: bytes, status: int) -> None:
    error = refused(response(body, status, "text/html", Retry_After="7"))
    assert type(error) is TokenUnavailable
    assert (error.retry_after, error.maybe_spent, error.retryable) == (7.0, True, True)
    assert str(status) in str(error)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "GZIP", "identity, gzip", "zstd"])
def test_F_29_an_encoded_body_is_not_read(coding: str) -> None:
    assert parse_object(response(GOOD, Content_Encoding=coding)) is None
    nonsense(response(GOOD, Content_Encoding=coding))


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_F_29_identity_is_no_encoding(coding: str) -> None:
    assert parsed(response(GOOD, Content_Encoding=coding)).access_token == "a"


# --- JSON at its edges: F-30, F-31 --------------------------------------------------------------------------------------


def deep(levels: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    return ('{"access_token": "a", "x": ' + opening * levels + "1" + closing * levels + "}").encode()


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('[{"a":', "}]")])
@pytest.mark.parametrize("levels", [40, 900, 5000, 100_000])
def test_F_30_deep_json_is_an_error_and_no_recursion_error(levels: int, opening: str, closing: str) -> None:
    nonsense(response(deep(levels, opening, closing)))
    assert parse_object(response(deep(levels, opening, closing)[: 60 * 1024])) is None


def test_F_30_what_is_not_that_deep_is_read() -> None:
    assert parsed(response(deep(20))).access_token == "a"


@pytest.mark.parametrize(
    "body",
    [
        b'{"access_token": "a", "access_token": "b"}',
        b'{"access_token": "a", "access_\\u0074oken": "b"}',
        b'{"access_token": "a", "x": {"y": 1, "y": 1}}',
        b'{"access_token": "a", "error": "x", "error": null}',
    ],
)
def test_F_31_a_name_that_stands_twice_makes_json_unreadable(body: bytes) -> None:
    nonsense(response(body))


@pytest.mark.parametrize(
    "body", [b"access_token=a&access_token=b", b"access_token=a&access%5ftoken=b", b"access_token=a&x&x=1"]
)
def test_F_31_a_name_that_stands_twice_makes_a_form_unreadable(body: bytes) -> None:
    nonsense(response(body, content_type="application/x-www-form-urlencoded"))


@pytest.mark.parametrize("body", [b"access_token=%ff", b"access_token=a&x=%c0%80", b"&".join(b"a%d=1" % n for n in range(300))])
def test_F_27_a_form_that_is_no_utf_8_or_has_hundreds_of_fields_is_unreadable(body: bytes) -> None:
    nonsense(response(body, content_type="application/x-www-form-urlencoded"))


@pytest.mark.parametrize("body", [b'{"access_token": "a", "x": "\\ud800"}', b'{"access_token": "a", "\\udfff": 1}'])
def test_F_31_a_lone_surrogate_makes_json_unreadable(body: bytes) -> None:
    nonsense(response(body))


@pytest.mark.parametrize(
    "number", ["1" * 5000, "-" + "9" * 5000, "1" * 60_000, "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "-0"]
)
def test_F_31_a_number_at_the_edge_does_no_harm(number: str) -> None:
    token = parsed(response(f'{{"access_token": "a", "x": {number}, "expires_in": {number}}}'.encode()))
    assert token.access_token == "a"
    assert token.expires_at is None
    assert token.extra["x"] is None or math.isfinite(token.extra["x"])
    assert Token.from_json(token.to_json()) == token
    json.loads(token.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_F_31_a_pair_of_surrogates_is_a_character() -> None:
    assert parsed(response(b'{"access_token": "a", "x": "\\ud83d\\ude00"}')).extra["x"] == "\U0001f600"


# --- Lifetimes: F-32 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (3600, 3600),
        ("3600", 3600),
        (" 3600 ", 3600),
        (3600.9, 3600),
        ("3600.9", 3600),
        ("3600.0", 3600),
        ("1e3", 1000),
        (0.5, 0.5),
        (1, 1),
        (2**31, 2**31 if 10 * YEAR > 2**31 else 10 * YEAR),
        (10 * YEAR, 10 * YEAR),
        (10 * YEAR + 1, 10 * YEAR),
        (1e300, 10 * YEAR),
        (10**18, 10 * YEAR),
        ("9" * 30, 10 * YEAR),
    ],
)
def test_F_32_a_lifetime_as_servers_write_it(expires_in: object, lifetime: float) -> None:
    token = parsed({"access_token": "a", "expires_in": expires_in})
    assert (token.expires_at, token.lifetime) == (NOW + min(lifetime, 10 * YEAR), min(lifetime, 10 * YEAR))


UNKNOWN: list[Any] = [
    0,
    -1,
    -3600.5,
    "0",
    "-5",
    "",
    " ",
    "soon",
    "never",
    "1 hour",
    "0x10",
    "9" * 5000,
    True,
    False,
    [],
    [3600],
    {},
    {"s": 1},
]


@pytest.mark.parametrize("expires_in", UNKNOWN, ids=lambda value: repr(value)[:20])
def test_F_32_what_is_no_lifetime_is_unknown(expires_in: object) -> None:
    assert parsed({"access_token": "a", "expires_in": expires_in}).expires_at is None


@pytest.mark.parametrize("expires_in", [None, *UNKNOWN], ids=lambda value: repr(value)[:20])
def test_F_32_a_default_lifetime_stands_in_for_an_unknown_one(expires_in: object) -> None:
    quirks = Quirks(default_lifetime=600)
    assert parsed({"access_token": "a", "expires_in": expires_in}, quirks=quirks).expires_at == NOW + 600
    assert parsed({"access_token": "a"}, quirks=quirks).expires_at == NOW + 600
    assert parsed({"access_token": "a", "expires_in": 5}, quirks=quirks).expires_at == NOW + 5


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "1" * 5000])
def test_F_32_numbers_that_are_none_are_unknown(text: str) -> None:
    assert parsed(response(f'{{"access_token": "a", "expires_in": {text}}}'.encode())).expires_at is None


@pytest.mark.parametrize(
    ("moment", "expires_at"),
    [
        (NOW + 60, NOW + 60),
        (str(int(NOW) + 60), NOW + 60),
        ((NOW + 60) * 1000, NOW + 60),
        ("2023-11-14T22:14:20Z", NOW + 60),
        ("2023-11-14T22:14:20+00:00", NOW + 60),
        ("2023-11-14T23:14:20+01:00", NOW + 60),
        ("2023-11-14 22:14:20", NOW + 60),
        (NOW - 60, NOW - 60),
        ("2001-01-01", 978_307_200.0),
        (NOW + 99 * YEAR, NOW + 10 * YEAR),
        ("9999-12-31T23:59:59", NOW + 10 * YEAR),
    ],
)
def test_F_32_expires_at_counts_in_every_spelling(moment: object, expires_at: float) -> None:
    assert parsed({"access_token": "a", "expires_at": moment}).expires_at == expires_at
    assert parsed({"access_token": "a", "expires_at": moment, "expires_in": None}).expires_at == expires_at


@pytest.mark.parametrize(
    "moment", [None, "", "soon", 0, -5, 1e300, True, [], {}, "2023-99-99", "x" * 65, "0001-01-01T00:00:00+23:59"]
)
def test_F_32_an_expires_at_that_is_none_is_unknown(moment: object) -> None:
    assert parsed({"access_token": "a", "expires_at": moment}).expires_at is None


@pytest.mark.parametrize("expires_in", [60, 0, "soon"])
def test_F_32_expires_at_counts_only_where_there_is_no_expires_in(expires_in: object) -> None:
    token = parsed({"access_token": "a", "expires_in": expires_in, "expires_at": NOW + 5000})
    assert token.expires_at == (NOW + 60 if expires_in == 60 else None)


# --- Members: F-33 to F-35, S-33, S-36 ----------------------------------------------------------------------------------

NO_ACCESS_TOKENS: list[Any] = [None, 5, 1.5, True, False, [], ["a"], {}, {"token": "a"}, ""]
NO_B64TOKENS: list[str] = [
    *(" ", "\t", "a b", " a", "a ", "a\r\nX-Injected: 1", "a\n", "a\x00", "\x00", "a\x7f", "é", "a\u2028b", "a=b", "=", "a,b"),
    *('"a"', "a|b", "a\\b", "a;b", "a:b", "a%20", "\uff41", "a\u0130"),
]


@pytest.mark.parametrize("access_token", NO_ACCESS_TOKENS, ids=repr)
def test_F_33_S_32_an_answer_without_an_access_token_is_an_error(access_token: object) -> None:
    assert "has no access_token" in str(nonsense({"access_token": access_token, "refresh_token": "rt-new"}, refresh_token="rt"))
    nonsense({"token_type": "Bearer", "expires_in": 3600})


@pytest.mark.parametrize("access_token", NO_B64TOKENS, ids=repr)
def test_F_33_S_36_an_access_token_is_a_b64token(access_token: str) -> None:
    error = nonsense({"access_token": access_token})
    assert error.rule == "RFC 6750 section 2.1"
    assert access_token.strip() == "" or len(access_token) < 3 or access_token not in str(error)


@pytest.mark.parametrize("access_token", ["a", "mF_9.B5f-4.1JqM", "a+/~=", "a==", "ya29.a0-_~+/" + "x" * 4000 + "==", "-"])
def test_S_36_what_is_a_b64token_is_taken(access_token: str) -> None:
    assert parsed({"access_token": access_token}).access_token == access_token


@pytest.mark.parametrize("access_token", ["a|b", "a:b", "a,b", "1|laravel", '"a"', "a\\b", "=a=", "a;b"])
def test_S_36_a_quirk_admits_any_visible_ascii(access_token: str) -> None:
    assert parsed({"access_token": access_token}, quirks=Quirks(vschar_tokens=True)).access_token == access_token


@pytest.mark.parametrize(
    "access_token", [t for t in NO_B64TOKENS if not (t.isascii() and t.isprintable() and " " not in t)], ids=repr
)
def test_S_36_and_nothing_else(access_token: str) -> None:
    error = nonsense({"access_token": access_token}, quirks=Quirks(vschar_tokens=True))
    assert "no header can carry" in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", "bEaReR", "BEARER ", " bearer\t", "", None])
def test_F_34_S_33_these_mean_bearer(token_type: object) -> None:
    assert parsed({"access_token": "a", "token_type": token_type}).token_type == "Bearer"
    assert parsed({"access_token": "a"}).token_type == "Bearer"


@pytest.mark.parametrize(
    "token_type", ["mac", "DPoP", "N_A", "Bearer,", "Bearer x", "bearer\x00", 7, True, False, 0, [], ["Bearer"], {}], ids=repr
)
def test_F_34_S_33_a_token_of_another_type_is_never_used(token_type: object) -> None:
    error = nonsense({"access_token": "a", "token_type": token_type})
    assert error.rule == "RFC 6749 section 7.1"
    assert "token_types=" in str(error)


def test_F_34_S_33_a_quirk_names_what_else_means_bearer() -> None:
    quirks = Quirks(token_types=["User Access Token"])
    assert parsed({"access_token": "a", "token_type": "user access token "}, quirks=quirks).token_type == "Bearer"
    nonsense({"access_token": "a", "token_type": "Application Access Token"}, quirks=quirks)


@pytest.mark.parametrize(("new", "kept"), [(None, "old"), ("", "old"), ("old", "old"), ("new", "new")])
def test_F_35_the_old_refresh_token_stays_where_no_other_comes(new: object, kept: str) -> None:
    assert parsed({"access_token": "a", "refresh_token": new}, refresh_token="old").refresh_token == kept


@pytest.mark.parametrize("new", [5, True, False, 0, [], ["rt"], {}], ids=repr)
def test_F_35_a_refresh_token_that_is_no_string_is_refused(new: object) -> None:
    assert "refresh_token" in str(nonsense({"access_token": "a", "refresh_token": new}, refresh_token="old"))


@pytest.mark.parametrize("new", ["a b", "\r\n", "é", "\x00", " "], ids=repr)
def test_F_35_S_36_a_refresh_token_of_other_characters_is_refused(new: str) -> None:
    nonsense({"access_token": "a", "refresh_token": new}, refresh_token="old")


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("r w", "r w"),
        (" r   w ", "r w"),
        ("r\tw\r\nx", "r w x"),
        (["r", "w"], "r w"),
        (["r", 5, None, "w"], "r w"),
        ([" r", "w  x\r\n"], "r w x"),
        ([], "r w"),
        ([None, ""], "r w"),
        ("r,w", "r w"),
        ("r", "r"),
        ("r w admin", "r w admin"),
        ("x", "x"),
        ("r, w", "r, w"),
        (None, "r w"),
        ("", "r w"),
        ("  ", "r w"),
        (5, "r w"),
        ({}, "r w"),
    ],
)
def test_F_35_the_scope_is_recorded_as_granted(scope: object, granted: str) -> None:
    assert parsed({"access_token": "a", "scope": scope}, scope="r w").scope == granted


def test_F_35_a_comma_in_what_was_asked_for_is_part_of_a_scope() -> None:
    assert parsed({"access_token": "a", "scope": "a,b"}, scope="a,b c").scope == "a,b"


def test_F_35_less_scope_than_asked_is_an_error_by_a_quirk_only() -> None:
    strict = Quirks(strict_scope=True)
    assert parsed({"access_token": "a", "scope": "r"}, scope="r w").scope == "r"
    assert nonsense({"access_token": "a", "scope": "r"}, scope="r w", quirks=strict).rule == "RFC 6749 section 3.3"
    for answered in ("w r", "r w x", None, ["w", "r"]):
        assert parsed({"access_token": "a", "scope": answered}, scope="r w", quirks=strict).access_token == "a"
    assert parsed({"access_token": "a", "scope": "x"}, quirks=strict).scope == "x"


def test_quirk_renamed() -> None:
    quirks = Quirks(renamed={"accessToken": "access_token", "expiresIn": "expires_in", "refreshToken": "refresh_token"})
    token = parsed({"accessToken": "a", "expiresIn": "60", "refreshToken": "rt", "tokenType": "x"}, quirks=quirks)
    assert token == Token("a", obtained_at=NOW, expires_at=NOW + 60, refresh_token="rt", extra={"tokenType": "x"})
    nonsense({"accessToken": "a"})


def test_quirk_token_path() -> None:
    quirks = Quirks(token_path=("authed_user",))
    slack = {"ok": True, "team": {"id": "T"}, "access_token": "bot", "authed_user": {"id": "U", "access_token": "user"}}
    assert parsed(slack, quirks=quirks) == Token("user", obtained_at=NOW, extra={"ok": True, "team": {"id": "T"}, "id": "U"})
    assert parsed({"data": {"x": {"access_token": "a"}}}, quirks=Quirks(token_path=("data", "x"))).access_token == "a"
    for bad in ({}, {"authed_user": None}, {"authed_user": "a"}, {"authed_user": [{"access_token": "a"}]}):
        assert "'authed_user'" in str(nonsense(bad, quirks=quirks))
    assert isinstance(refused({"error": "invalid_code", "authed_user": {}}, quirks=quirks), ErrorResponse)


@pytest.mark.parametrize(
    ("refresh_in", "seconds"), [(1800, 1800.0), ("1800", 1800.0), (0, None), ("x", None), (None, None), (-1, None)]
)
def test_the_server_may_advise_when_to_refresh(refresh_in: object, seconds: float | None) -> None:
    token = parsed({"access_token": "a", "expires_in": 3600, "refresh_in": refresh_in})
    assert token.refresh_at == (None if seconds is None else NOW + seconds)
    assert not token.extra


# --- Errors: S-32, F-21 to F-24, F-38 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 400, 401, 403, 404, 409, 428])
@pytest.mark.parametrize(
    ("code", "cls"),
    [
        ("invalid_grant", InvalidGrant),
        ("invalid_client", InvalidClient),
        ("access_denied", AccessDenied),
        ("invalid_request", ErrorResponse),
        ("unauthorized_client", ErrorResponse),
        ("unsupported_grant_type", ErrorResponse),
        ("invalid_scope", ErrorResponse),
        ("authorization_pending", ErrorResponse),
        ("bad_verification_code", ErrorResponse),
        ("INVALID GRANT", ErrorResponse),
    ],
)
def test_F_21_F_22_F_24_S_32_the_body_decides_whatever_the_status(status: int, code: str, cls: type[ErrorResponse]) -> None:
    body = {"error": code, "error_description": "why", "error_uri": "https://as.example/why", "access_token": "a"}
    error = refused(response(body, status))
    assert type(error) is cls
    assert isinstance(error, ErrorResponse)
    assert (error.error, error.error_description, error.error_uri, error.status) == (code, "why", body["error_uri"], status)
    assert (error.retryable, error.maybe_spent) == (False, False)
    assert str(error) == f"the token endpoint answered {status} {code}"


@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize("code", ["server_error", "temporarily_unavailable", "internal_failure", "slow_down"])
@pytest.mark.parametrize("member", ["error", "error_description"])
def test_F_23_S_32_these_may_pass(status: int, code: str, member: str) -> None:
    error = refused(response({"error": "invalid_request", member: code}, status, Retry_After="9"))
    assert type(error) is TokenUnavailable
    # An OAuth error in a 4xx is a definite answer: nothing was spent.
    assert (error.retry_after, error.maybe_spent) == (9.0, False)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_F_23_S_32_a_passing_status_outweighs_the_error(status: int) -> None:
    error = refused(response({"error": "invalid_grant"}, status))
    assert type(error) is TokenUnavailable
    # After a 5xx it stays in doubt, for a gateway may have answered for a server that had already rotated.
    assert error.maybe_spent is (status >= 500)
    assert "invalid_grant" in str(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_F_24_S_19_a_redirect_is_an_error(status: int) -> None:
    error = nonsense(response(GOOD, status, Location="https://evil.example/CANARY?x=CANARY"))
    assert (error.status, error.rule) == (status, "RFC 9700 section 4.12")
    assert "CANARY" not in str(error)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://evil.example/a?b=CANARY#CANARY", "https://evil.example,"),
        ("https://evil.example:8443/", "https://evil.example:8443,"),
        ("http://CANARY:CANARY@evil.example/", "http://evil.example,"),
        ("https://[::1]:8443/", "https://[::1]:8443,"),
        ("https://CANARY.evil.example/", "https://[redacted].evil.example,"),
        ("https://evil\x1b[31m.example/", "an unreadable URL,"),
        ("/CANARY", "another path,"),
        ("//evil.example/CANARY", "another path,"),
        ("", "another path,"),
        (None, "another path,"),
        ("https://[CANARY/", "an unreadable URL,"),
    ],
)
def test_S_19_a_redirect_names_the_origin_of_its_target_and_no_more(location: str | None, target: str) -> None:
    answer = response(GOOD, 307, **({} if location is None else {"Location": location}))
    message = str(nonsense(answer, secrets=("CANARY",)))
    assert f"is a redirect to {target} which is never followed" in message
    assert "CANARY" not in message


@pytest.mark.parametrize("status", [100, 101, 199])
def test_a_status_below_200_is_no_answer(status: int) -> None:
    assert nonsense(response(GOOD, status)).status == status


@pytest.mark.parametrize("status", [200, 201, 202, 203, 226, 299])
def test_S_32_any_2xx_may_carry_a_token(status: int) -> None:
    assert parsed(response(GOOD, status)).access_token == "a"


@pytest.mark.parametrize(
    ("body", "code", "description"),
    [
        ({"error": {"type": "OAuthException", "message": "m", "code": 190}}, "OAuthException", "m"),
        ({"error": {"status": "INVALID_ARGUMENT", "code": 400, "message": "m"}}, "INVALID_ARGUMENT", "m"),
        ({"error": {"code": "invalid_grant", "message": "m"}}, "invalid_grant", "m"),
        ({"error": {"message": 5}, "error_description": "d"}, "error", "d"),
        ({"error": {}}, "error", None),
        ({"error": 190}, "error", None),
        ({"error": ["x"]}, "error", None),
        ({"error": True, "error_reason": "user_denied"}, "error", "user_denied"),
        ({"errors": [{"errorType": "invalid_grant", "message": "m"}], "success": False}, "invalid_grant", "m"),
        ({"errors": [{}]}, "error", None),
        ({"error": "x\u0131\u0000y"}, "x?y", None),
    ],
)
def test_S_32_errors_as_some_servers_write_them(body: dict[str, Any], code: str, description: str | None) -> None:
    error = refused(response(body, 400))
    assert isinstance(error, ErrorResponse)
    assert (error.error, error.error_description) == (code, description)


@pytest.mark.parametrize(
    "body", [{"error": None}, {"error": ""}, {"error": False}, {"error": 0}, {"errors": []}, {"errors": "x"}, {"errors": ["x"]}]
)
def test_an_error_that_is_none_is_none(body: dict[str, Any]) -> None:
    assert parsed({"access_token": "a", **body}).access_token == "a"
    nonsense(response(body, 400))


def test_F_38_S_26_what_the_server_says_is_cleaned_capped_and_kept_out_of_the_message() -> None:
    evil = "\x1b[31mred\x1b[0m\r\nSet-Cookie: x\u202e\x00" + "x" * 10_000
    error = refused(response({"error": evil, "error_description": evil, "error_uri": evil}, 400))
    assert isinstance(error, ErrorResponse)
    assert error.error_description
    assert error.error_uri
    for text, limit in ((error.error, 100), (error.error_description, 200), (error.error_uri, 200), (str(error), 160)):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= limit
    assert "xxxxx" not in str(refused(response({"error": "e", "error_description": evil}, 400)))


def test_F_38_S_26_an_echo_of_what_was_sent_is_taken_out() -> None:
    body = {"error": "bad CANARY-rt", "error_description": "no CANARY-rt here", "error_uri": "https://x.example/?rt=CANARY-rt"}
    error = refused(response(body, 400), secrets=("CANARY-rt",))
    assert isinstance(error, ErrorResponse)
    assert "CANARY" not in f"{error} {error.error} {error.error_description} {error.error_uri} {vars(error)}"
    assert error.error_description == "no [redacted] here"
    passing = refused(response(body, 503), secrets=("CANARY-rt",))
    assert "CANARY" not in f"{passing} {vars(passing)}"


@pytest.mark.parametrize("member", [5, None, [], {}, True])
def test_F_38_descriptions_that_are_no_text_are_none(member: object) -> None:
    error = refused(response({"error": "invalid_grant", "error_description": member, "error_uri": member}, 400))
    assert isinstance(error, InvalidGrant)
    assert (error.error_description, error.error_uri) == (None, None)


def test_the_endpoint_is_named() -> None:
    answer = response({"error": "unsupported_token_type"}, 400)
    error = error_response(answer, parse_object(answer), now=NOW, endpoint="the revocation endpoint")
    assert str(error) == "the revocation endpoint answered 400 unsupported_token_type"
    assert error_response(response(b""), None, now=NOW) is None


# --- Retry-After --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("301", 300.0),
        ("9" * 400, 300.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue Nov 14 22:14:20 2023", 60.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("Tue, 14 Nov 2023 22:13:19 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Tue, 99 Nov 2023 22:14:20 GMT", None),
        ("Fri, 31 Dec 99999999999 23:59:59 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        (" ", None),
        (None, None),
        ("\x00", None),
        (", ,", None),
    ],
)
def test_F_23_retry_after_in_seconds_or_as_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_F_23_retry_after_counts_with_any_error() -> None:
    for status, body in ((400, {"error": "invalid_request"}), (429, {}), (503, {})):
        assert refused(response(body, status, Retry_After="9")).retry_after == 9.0


# --- One row each of what real servers do -------------------------------------------------------------------------------

TOLERATED: dict[str, tuple[EndpointResponse, Token]] = {
    "GitHub without Accept: a form": (
        response(
            b"access_token=gho_16C7&scope=repo%2Cgist&token_type=bearer", content_type="application/x-www-form-urlencoded"
        ),
        Token("gho_16C7", scope="repo gist"),
    ),
    "Facebook of old: a form as text/plain, with expires": (
        response(b"access_token=EAAB&expires=5183999", content_type="text/plain; charset=UTF-8"),
        Token("EAAB", expires_at=NOW + 5183999),
    ),
    "JSON as text/html": (response(b'{"access_token":"a"}', content_type="text/html; charset=utf-8"), Token("a")),
    "JSON as text/javascript": (response(b'{"access_token":"a"}', content_type="text/javascript"), Token("a")),
    "a byte order mark": (response(b'\xef\xbb\xbf{"access_token":"a"}'), Token("a")),
    "LinkedIn and Weibo: no token_type": (
        response({"access_token": "AQX", "expires_in": 5184000}),
        Token("AQX", expires_at=NOW + 5184000),
    ),
    "an upper-case token_type with a space": (response({"access_token": "a", "token_type": "BEARER "}), Token("a")),
    "PayPal, Naver, Azure B2C: expires_in as a string": (
        response({"access_token": "a", "expires_in": "3600"}),
        Token("a", expires_at=NOW + 3600),
    ),
    "expires_in as a float": (response({"access_token": "a", "expires_in": "3600.0"}), Token("a", expires_at=NOW + 3600)),
    "Slack: no expires_in": (response({"ok": True, "access_token": "xoxb-1"}), Token("xoxb-1", extra={"ok": True})),
    "Mailchimp: expires_in 0, scope null": (
        response({"access_token": "a", "expires_in": 0, "scope": None}),
        Token("a", scope="asked for"),
    ),
    "expires_in beyond 32 bits": (response({"access_token": "a", "expires_in": 2**33}), Token("a", expires_at=NOW + 10 * YEAR)),
    "expires_at in ISO 8601": (
        response({"access_token": "a", "expires_at": "2023-11-14T22:14:20Z"}),
        Token("a", expires_at=NOW + 60),
    ),
    "expires_at in milliseconds": (
        response({"access_token": "a", "expires_at": int(NOW + 60) * 1000}),
        Token("a", expires_at=NOW + 60),
    ),
    "Strava: scope with commas": (
        response({"access_token": "a", "scope": "read,activity:read"}),
        Token("a", scope="read activity:read"),
    ),
    "scope as a list": (response({"access_token": "a", "scope": ["r", "w"]}), Token("a", scope="r w")),
    "Google: another scope": (
        response({"access_token": "a", "scope": "openid https://x/userinfo.email"}),
        Token("a", scope="openid https://x/userinfo.email"),
    ),
    "CrowdStrike: 201": (response({"access_token": "a"}, 201), Token("a")),
    "Google: an empty refresh_token": (response({"access_token": "a", "refresh_token": ""}), Token("a", refresh_token="old")),
    "Google: no refresh_token": (response({"access_token": "a"}), Token("a", refresh_token="old")),
    "Microsoft: refresh_in": (
        response({"access_token": "a", "expires_in": 3600, "ext_expires_in": 3600, "refresh_in": 1800}),
        Token("a", expires_at=NOW + 3600, refresh_at=NOW + 1800, extra={"ext_expires_in": 3600}),
    ),
    "Microsoft: refresh_on": (
        response({"access_token": "a", "expires_in": "3600", "refresh_on": str(int(NOW) + 1800)}),
        Token("a", expires_at=NOW + 3600, refresh_at=NOW + 1800),
    ),
}


@pytest.mark.parametrize(("answer", "expected"), TOLERATED.values(), ids=TOLERATED)
def test_what_real_servers_answer_is_tolerated_without_a_word(answer: EndpointResponse, expected: Token) -> None:
    token = parsed(answer, scope="asked for", refresh_token="old")
    scope = expected.scope or "asked for"
    assert token == expected.replace(scope=scope, refresh_token=expected.refresh_token or "old", obtained_at=NOW)


REFUSED: dict[str, tuple[EndpointResponse, type[OAuthError]]] = {
    "Slack: 200 with an error": (response({"ok": False, "error": "invalid_refresh_token"}), ErrorResponse),
    "GitHub: 200 with an error in a form": (
        response(b"error=bad_verification_code&error_description=x", content_type="application/x-www-form-urlencoded"),
        ErrorResponse,
    ),
    "Fitbit: errors as a list": (response({"errors": [{"errorType": "invalid_grant", "message": "x"}]}, 400), InvalidGrant),
    "Facebook: error as an object": (
        response({"error": {"message": "x", "type": "OAuthException", "code": 190}}, 400),
        ErrorResponse,
    ),
    "invalid_grant with 401": (response({"error": "invalid_grant"}, 401), InvalidGrant),
    "invalid_grant with 403": (response({"error": "invalid_grant"}, 403), InvalidGrant),
    "invalid_grant with 404": (response({"error": "invalid_grant"}, 404), InvalidGrant),
    "Google: internal_failure in the description": (
        response({"error": "invalid_request", "error_description": "internal_failure"}, 400),
        TokenUnavailable,
    ),
    "a proxy's page with 502": (response(b"<html>Bad gateway</html>", 502, "text/html"), TokenUnavailable),
    "a proxy's page with 200": (response(b"<html>Welcome</html>", 200, "text/html"), TokenResponseError),
    "an empty body with 200": (response(b"", 200, None), TokenResponseError),
}


@pytest.mark.parametrize(("answer", "cls"), REFUSED.values(), ids=REFUSED)
def test_S_32_what_real_servers_refuse_is_told_by_its_class(answer: EndpointResponse, cls: type[OAuthError]) -> None:
    assert type(refused(answer)) is cls


def test_a_number_of_many_digits_is_kept() -> None:
    assert parsed(response(b'{"access_token": "a", "x": 3.14159265358979323846264338327950288}')).extra["x"] == math.pi
