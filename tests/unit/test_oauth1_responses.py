"""What a server answers to OAuth 1: credentials under any label, problems in header and body, and what its clock says."""

from __future__ import annotations

import contextlib
import math
import pickle
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_oauth_middleware import (
    AccessDenied,
    ErrorResponse,
    InvalidClient,
    InvalidGrant,
    OAuth1Token,
    OAuthError,
    TokenResponseError,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.oauth1.responses import clock_offset, parse_credentials, problem_in, problem_of
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from tests.raw_server import response

NOW = 1_700_000_000.0
CANARY = "CANARY-secret-0123456789"
GOOD = "oauth_token=tok%2Fen&oauth_token_secret=s%26cret&oauth_callback_confirmed=true"


def parsed(one: EndpointResponse, **more: Any) -> OAuth1Token:
    return parse_credentials(one, endpoint="the access token endpoint", sent_at=NOW, **more)


# Credentials


@pytest.mark.parametrize(
    "label",
    [
        None,
        "application/x-www-form-urlencoded",
        "text/plain; charset=utf-8",
        "text/html",
        "application/json",
        "image/png",
        "x",
        "",
    ],
)
@pytest.mark.parametrize("status", [200, 201, 299])
def test_credentials_are_read_under_any_label(label: str | None, status: int) -> None:
    expected = OAuth1Token("tok/en", "s&cret", extra={"oauth_callback_confirmed": "true"})
    assert parsed(response(GOOD, status, label)) == expected
    assert parsed(response(f" {GOOD}\r\n", status, label)) == expected
    assert parsed(response(b"\xef\xbb\xbf" + GOOD.encode(), status, label)) == expected
    in_json = {"oauth_token": "tok/en", "oauth_token_secret": "s&cret", "oauth_callback_confirmed": "true"}
    assert parsed(response(in_json, status, label)) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("oauth_token=a&oauth_token_secret=", OAuth1Token("a")),
        ("oauth_token=a", OAuth1Token("a")),
        ("oauth_token=a+b&oauth_token_secret=%C3%A9", OAuth1Token("a b", "é")),
        ("&oauth_token=a&&x&y=", OAuth1Token("a", extra={"x": "", "y": ""})),
        (
            "oauth_token=a&oauth_session_handle=h&oauth_expires_in=3600&oauth_authorization_expires_in=7200&xoauth_yahoo_guid=G",
            OAuth1Token(
                "a",
                oauth_session_handle="h",
                expires_at=NOW + 3600,
                session_expires_at=NOW + 7200,
                extra={"xoauth_yahoo_guid": "G"},
            ),
        ),
        ("oauth_token=a&user_id=7&screen_name=x", OAuth1Token("a", extra={"user_id": "7", "screen_name": "x"})),
        ('{"oauth_token": "a", "oauth_token_secret": "s", "n": {"x": [1]}}', OAuth1Token("a", "s", extra={"n": {"x": [1]}})),
        ("oauth_token=a&oauth_problem=", OAuth1Token("a", extra={"oauth_problem": ""})),
        ('{"oauth_token": "a", "oauth_problem": null}', OAuth1Token("a", extra={"oauth_problem": None})),
    ],
)
def test_what_the_server_says_besides_is_kept(body: str, expected: OAuth1Token) -> None:
    assert parsed(response(body, 200, "text/html")) == expected


NONSENSE: dict[str, Any] = {
    "nothing": b"",
    "white": b" \r\n",
    "html": b"<html><a href='x'>Hello</a></html>",
    "plain": b"OK",
    "no token": b"oauth_token_secret=CANARY-secret-0123456789",
    "an empty token": b"oauth_token=&oauth_token_secret=CANARY-secret-0123456789",
    "a token with a line break": b"oauth_token=CANARY-secret-0123456789%0A&oauth_token_secret=x",
    "a secret with a null byte": b"oauth_token=a&oauth_token_secret=CANARY-secret-0123456789%00",
    "a token twice": b"oauth_token=a&oauth_token=b&oauth_token_secret=CANARY-secret-0123456789",
    "a secret twice": b"oauth_token=a&oauth_token_secret=b&oauth_token_secret=CANARY-secret-0123456789",
    "not UTF-8": b"oauth_token=a\xff&oauth_token_secret=b",
    "not UTF-8 escaped": b"oauth_token=a%FF&oauth_token_secret=b",
    "a list": b'[{"oauth_token": "CANARY-secret-0123456789"}]',
    "a string": b'"oauth_token"',
    "a null": b"null",
    "JSON cut short": b'{"oauth_token": "CANARY-secret-0123456789"',
    "JSON and more": b'{"oauth_token": "CANARY-secret-0123456789"} x',
    "a name twice in JSON": b'{"oauth_token": "a", "oauth_token": "CANARY-secret-0123456789"}',
    "a number for a token": b'{"oauth_token": 7, "oauth_token_secret": "CANARY-secret-0123456789"}',
    "a list for a secret": b'{"oauth_token": "a", "oauth_token_secret": ["CANARY-secret-0123456789"]}',
    "a surrogate": b'{"oauth_token": "a", "oauth_token_secret": "\\ud800"}',
    "deep": b'{"oauth_token": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "rather deep": b'{"oauth_token": "a", "x": ' + b"[" * 40 + b"]" * 40 + b"}",
    "10 MB of ampersands": b"oauth_token=a" + b"&x=" * 3_333_333,
    "10 MB of JSON": b'{"oauth_token": ' + b"9" * 10_000_000 + b"}",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_F_55_nonsense_is_a_token_response_error_that_quotes_nothing(name: str) -> None:
    with pytest.raises(TokenResponseError) as caught:
        parsed(response(NONSENSE[name], 200, "application/x-www-form-urlencoded"))
    error = caught.value
    assert error.status == 200
    assert error.maybe_spent
    assert not error.retryable
    assert error.rule.startswith("RFC 5849")
    assert CANARY not in f"{error!r} {pickle.dumps(error)!r}"
    assert error.__cause__ is None
    assert CANARY not in repr(vars(error.__context__) if error.__context__ else "")


def test_a_long_answer_is_no_worse_than_a_short_one() -> None:
    # The transport reads 64 KiB.
    assert parsed(response(b"oauth_token=a&x=" + b"x" * 10_000_000, 200, "text/html")).oauth_token == "a"


@pytest.mark.parametrize("encoding", ["gzip", "br", "x"])
def test_F_55_what_is_compressed_though_nobody_asked_is_nonsense(encoding: str) -> None:
    with pytest.raises(TokenResponseError, match="neither a form nor a JSON object"):
        parsed(response(GOOD, 200, "text/plain", Content_Encoding=encoding))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304, 100, 199, 0])
def test_S_19_G_14_a_redirect_is_no_answer(status: int) -> None:
    with pytest.raises(TokenResponseError, match="no answer that is followed") as caught:
        parsed(response(GOOD, status, "text/plain", Location="https://evil.example/?CANARY-secret-0123456789"))
    assert caught.value.status == status
    assert CANARY not in str(caught.value)


# Problems


@pytest.mark.parametrize("status", [500, 502, 503, 599, 408, 429])
@pytest.mark.parametrize("body", ["", GOOD, "oauth_problem=token_rejected", "<html>", b"\xff"])
def test_what_may_pass_is_unavailable_whatever_the_body_says(status: int, body: Any) -> None:
    with pytest.raises(TokenUnavailable, match=str(status)) as caught:
        parsed(response(body, status, None))
    assert caught.value.retryable
    assert caught.value.maybe_spent
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", 5.0),
        ("9" * 9, 300.0),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), None),
        ("x", None),
    ],
)
def test_a_server_may_say_when_to_come_again(value: str, expected: float | None) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        parsed(response("", 503, None, Retry_After=value))
    assert caught.value.retry_after == expected


KINDS: list[tuple[str, type[ErrorResponse]]] = [
    ("consumer_key_unknown", InvalidClient),
    ("consumer_key_rejected", InvalidClient),
    ("consumer_key_refused", InvalidClient),
    ("signature_invalid", InvalidClient),
    ("token_used", InvalidGrant),
    ("token_expired", InvalidGrant),
    ("token_revoked", InvalidGrant),
    ("token_rejected", InvalidGrant),
    ("verifier_invalid", InvalidGrant),
    ("user_refused", AccessDenied),
    ("permission_denied", AccessDenied),
    ("permission_unknown", AccessDenied),
    ("timestamp_refused", ErrorResponse),
    ("nonce_used", ErrorResponse),
    ("parameter_absent", ErrorResponse),
    ("version_rejected", ErrorResponse),
    ("signature_method_rejected", ErrorResponse),
    ("something_else", ErrorResponse),
]


@pytest.mark.parametrize("where", ["header", "unquoted", "second header", "form", "JSON"])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 302])
@pytest.mark.parametrize(("problem", "kind"), KINDS)
def test_F_55_every_problem_has_its_class(problem: str, kind: type[ErrorResponse], status: int, where: str) -> None:
    answers = {
        "header": response("", status, None, WWW_Authenticate=f'OAuth realm="x", oauth_problem="{problem}"'),
        "unquoted": response("", status, None, WWW_Authenticate=f"OAuth oauth_problem={problem}"),
        "second header": response("", status, None, WWW_Authenticate=f'Basic realm="y", OAuth oauth_problem="{problem}"'),
        "form": response(f"oauth_problem={problem}&oauth_problem_advice=Try+again", status, "text/html"),
        "JSON": response({"oauth_problem": problem}, status, "text/html"),
    }
    with pytest.raises(OAuthError) as caught:
        parsed(answers[where])
    error = caught.value
    assert type(error) is kind
    assert (error.error, error.status, error.retryable) == (problem, status, False)
    assert str(error) == f"the access token endpoint answered {status} {problem}"
    assert error.error_description == ("Try again" if where == "form" else None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ErrorResponse), (401, InvalidClient), (403, ErrorResponse), (404, ErrorResponse), (418, ErrorResponse)],
)
@pytest.mark.parametrize(
    "body", ["", "<html>a=b</html>", "Invalid / expired Token", GOOD, b"\xff", '{"errors": [{"code": 32}]}']
)
def test_F_55_a_refusal_without_a_name_is_one_all_the_same(status: int, kind: type[ErrorResponse], body: Any) -> None:
    with pytest.raises(ErrorResponse) as caught:
        parsed(response(body, status, "text/html", WWW_Authenticate='OAuth realm="https://api.example"'))
    assert type(caught.value) is kind
    assert (caught.value.error, caught.value.error_description, caught.value.status) == ("", None, status)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            "oauth_problem=parameter_absent&oauth_parameters_absent=oauth_token%26oauth_nonce",
            "oauth_parameters_absent=oauth_token&oauth_nonce",
        ),
        ("oauth_problem=version_rejected&oauth_acceptable_versions=1.0-1.1", "oauth_acceptable_versions=1.0-1.1"),
        ("oauth_problem=x&oauth_problem_advice=Read%20the%20manual", "Read the manual"),
        ("oauth_problem=x&oauth_problem_advice=a%1B%5B31m%0Ab", "a?[31m?b"),
        ("oauth_problem=x&other=y", None),
    ],
)
@pytest.mark.parametrize("where", ["header", "body"])
def test_what_explains_a_problem_is_kept(parameters: str, expected: str | None, where: str) -> None:
    fields = ", ".join(f'{name}="{value}"' for name, _, value in (part.partition("=") for part in parameters.split("&")))
    answer = (
        response("", 400, None, WWW_Authenticate=f"OAuth {fields}") if where == "header" else response(parameters, 400, None)
    )
    with pytest.raises(ErrorResponse) as caught:
        parsed(answer)
    assert caught.value.error_description == expected


def test_G_12_what_was_sent_is_taken_out_of_what_an_error_keeps() -> None:
    body = f"oauth_problem={CANARY}&oauth_problem_advice=you+said+{CANARY}+{CANARY}"
    with pytest.raises(ErrorResponse) as caught:
        parsed(response(body, 400, None), secrets=[CANARY, CANARY[:10], ""])
    assert CANARY not in f"{caught.value!r} {vars(caught.value)}"
    assert caught.value.error_description == "you said [redacted] [redacted]"


@pytest.mark.parametrize("length", [1000, 100_000])
def test_what_a_server_says_at_length_is_cut_short(length: int) -> None:
    with pytest.raises(ErrorResponse) as caught:
        parsed(response({"oauth_problem": "x" * length, "oauth_problem_advice": "y" * length}, 400))
    assert len(caught.value.error) == 100
    assert len(caught.value.error_description or "") == 200


@pytest.mark.parametrize("value", [["x"], {"a": "b"}, 7, True, 1.5])
def test_F_55_a_problem_that_is_no_string_is_no_name(value: Any) -> None:
    with pytest.raises(ErrorResponse) as caught:
        parsed(response({"oauth_problem": value, "x": "y"}, 400))
    assert caught.value.error == ""
    with pytest.raises(OAuthError):
        parsed(response({"oauth_problem": value, "oauth_token": 7}, 200))


def test_the_header_goes_before_the_body() -> None:
    both = response("oauth_problem=token_used", 401, None, WWW_Authenticate="OAuth oauth_problem=token_expired")
    assert problem_of(both) == {"oauth_problem": "token_expired"}
    body_only = response("oauth_problem=token_used", 401, None, WWW_Authenticate='OAuth realm="x"')
    assert problem_of(body_only) == {"oauth_problem": "token_used"}
    assert problem_of(response(GOOD)) == problem_of(response(b"\xff")) == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], {}),
        (["Basic realm=x"], {}),
        (["OAuth"], {}),
        (["oauth OAUTH_PROBLEM=x"], {"oauth_problem": "x"}),
        (["Basic realm=x", "OAuth oauth_problem=y"], {"oauth_problem": "y"}),
        (["OAuth realm=a", "OAuth oauth_problem=y"], {"oauth_problem": "y"}),
        (["OAuth realm=a", "OAuth realm=b"], {"realm": "a"}),
        (['OAuth oauth_problem_advice="a%20b%2Bc+d"'], {"oauth_problem_advice": "a b+c+d"}),
        (["OAuth \x00"], {}),
        (["\x00"], {}),
    ],
)
def test_a_problem_is_found_among_the_challenges(fields: list[str], expected: dict[str, str]) -> None:
    assert problem_in(fields) == expected


# Its clock


def date(ahead: float) -> str:
    return formatdate(NOW + ahead, usegmt=True)


REFUSED = {"oauth_problem": "timestamp_refused"}


@pytest.mark.parametrize(
    ("status", "problem", "field", "expected"),
    [
        # Without a word about timestamps only a 401 counts, and only a clock that is far off.
        (401, {}, date(0), None),
        (401, {}, date(60), None),
        (401, {}, date(-60), None),
        (401, {}, date(61), 61.0),
        (401, {}, date(-61), -61.0),
        (401, {}, date(86400 * 365), 86400 * 365.0),
        (401, {"oauth_problem": "nonce_used"}, date(3600), 3600.0),
        (400, {}, date(3600), None),
        (403, {}, date(3600), None),
        (200, {}, date(3600), None),
        (500, {}, date(3600), None),
        # With one, any does.
        (401, REFUSED, date(5), 5.0),
        (400, REFUSED, date(-5), -5.0),
        (200, REFUSED, date(5), 5.0),
        (401, REFUSED, None, None),
        # What the server accepts tells more than its date.
        (401, REFUSED | {"oauth_acceptable_timestamps": f"{NOW + 900:.0f}-{NOW + 1100:.0f}"}, date(0), 1000.0),
        (401, REFUSED | {"oauth_acceptable_timestamps": f"{NOW:.0f}-{NOW + 1:.0f}"}, None, 0.5),
        (401, {"oauth_acceptable_timestamps": f"{NOW + 900:.0f}-{NOW + 1100:.0f}"}, date(70), 70.0),
        *(
            (401, REFUSED | {"oauth_acceptable_timestamps": garbage}, date(7), 7.0)
            for garbage in (
                "",
                "-",
                "5",
                "5-",
                "-5",
                "a-b",
                "1-2-3",
                "1.5-2.5",
                "+1-2",
                "\u0661-\u0662",
                "\xb2-\xb3",
                "1 - 2",
                f"1-{'9' * 40}",
            )
        ),
        # Dates of every kind.
        (401, {}, "Tue, 14 Nov 2023 23:13:20 +0100", None),
        (401, {}, "Tue, 14 Nov 2023 23:13:20 +0000", 3600.0),
        (401, {}, "Tue, 14 Nov 2023 23:13:20 -0000", 3600.0),
        (401, {}, "Tuesday, 14-Nov-23 23:13:20 GMT", 3600.0),
        (401, {}, "Tue Nov 14 23:13:20 2023", 3600.0),
        *(
            (status, problem, garbage, None)
            for status, problem in ((401, {}), (400, REFUSED))
            for garbage in (
                None,
                "",
                "soon",
                "1700003600",
                "Tue, 99 Nov 2023 23:13:20 GMT",
                "Tue, 14 Nov 99999 23:13:20 GMT",
                "Tue, 14 Nov 2023 23:13:20 +9999",
                "\x00",
                "," * 1000,
                "9" * 5000,
            )
        ),
    ],
)
def test_F_54_how_far_the_clock_of_a_server_is_ahead(
    status: int, problem: dict[str, str], field: str | None, expected: float | None
) -> None:
    assert clock_offset(status, problem, field, now=NOW) == expected


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_F_54_a_date_is_read_the_same_in_every_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for field in ("Tue, 14 Nov 2023 23:13:20 GMT", "Tue, 14 Nov 2023 23:13:20 -0000", "Tue Nov 14 23:13:20 2023"):
            assert clock_offset(401, {}, field, now=NOW) == 3600.0
    finally:
        monkeypatch.undo()
        time.tzset()


@settings(deadline=None)
@given(st.integers(100, 599), st.text(max_size=60), st.binary(max_size=120), st.text(max_size=60))
def test_F_55_whatever_a_server_sends_is_a_token_or_one_of_our_errors(
    status: int, challenge: str, body: bytes, field: str
) -> None:
    answer = response(body, status, None, WWW_Authenticate=f"OAuth {challenge}", Date=field, Retry_After=field)
    offset = clock_offset(status, problem_of(answer), field, now=NOW)
    assert offset is None or math.isfinite(offset)
    with contextlib.suppress(OAuthError):
        assert parsed(answer).oauth_token
