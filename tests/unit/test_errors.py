"""The one tree of errors: what a caller can tell from each, and what none of them ever says."""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
import traceback
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_oauth_middleware import errors
from aiohttp_oauth_middleware.errors import (
    AccessDenied,
    CallbackError,
    ConfigurationError,
    DiscoveryError,
    ErrorResponse,
    InsecureTransport,
    InvalidClient,
    InvalidGrant,
    LoginRequired,
    OAuthError,
    ProtocolViolation,
    RefreshInDoubt,
    StateMismatch,
    StoreCorrupted,
    StoreError,
    StoreLockTimeout,
    TokenResponseError,
    TokenUnavailable,
    clean,
)

CANARY = "CANARY-error-gX1fBat3bV"
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

# Class, its parent, retryable, maybe_spent.
TREE: list[tuple[type[OAuthError], type[Exception], bool, bool]] = [
    (OAuthError, aiohttp.ClientError, False, False),
    (ConfigurationError, OAuthError, False, False),
    (InsecureTransport, ConfigurationError, False, False),
    (ProtocolViolation, OAuthError, False, False),
    (DiscoveryError, ProtocolViolation, False, False),
    (TokenResponseError, ProtocolViolation, False, True),
    (CallbackError, ProtocolViolation, False, False),
    (StateMismatch, CallbackError, False, False),
    (ErrorResponse, OAuthError, False, False),
    (InvalidGrant, ErrorResponse, False, False),
    (InvalidClient, ErrorResponse, False, False),
    (AccessDenied, ErrorResponse, False, False),
    (TokenUnavailable, OAuthError, True, False),
    (LoginRequired, OAuthError, False, False),
    (RefreshInDoubt, LoginRequired, False, False),
    (StoreError, OAuthError, True, False),
    (StoreCorrupted, StoreError, False, False),
    (StoreLockTimeout, StoreError, True, False),
]
CLASSES = [row[0] for row in TREE]

# One of each, with everything that it can carry.
FULL: list[OAuthError] = [
    OAuthError("m", retry_after=1.5, maybe_spent=True),
    ConfigurationError("m"),
    InsecureTransport("m"),
    ProtocolViolation("m", rule="RFC 9207 section 2.4"),
    DiscoveryError("m", rule="RFC 8414 section 3.3"),
    TokenResponseError("m", rule="RFC 6750 section 2.1", status=200),
    *(
        cls(
            "m",
            error="invalid_grant",
            error_description="gone",
            error_uri="https://as.example/e",
            status=400,
            retryable=True,
            retry_after=3.0,
        )
        for cls in (ErrorResponse, InvalidGrant, InvalidClient, AccessDenied)
    ),
    TokenUnavailable("m", retry_after=30.0, maybe_spent=True),
    LoginRequired("m"),
    RefreshInDoubt("m"),
    StoreError("m", retry_after=0.5),
    StoreCorrupted("m"),
    StoreLockTimeout("m"),
]


def fields(error: OAuthError) -> dict[str, object]:
    """Everything that a caller may ask an error."""
    names = ("retryable", "retry_after", "key_id", "maybe_spent", "rule", "status", "error", "error_description", "error_uri")
    return {name: getattr(error, name) for name in (*names, "since", "process") if hasattr(error, name)}


def raised(error: OAuthError, cause: BaseException | None = None) -> OAuthError:
    """*error* after it was raised and caught."""
    with pytest.raises(type(error)) as caught:
        raise error from cause
    assert caught.value is error
    return error


def depth(error: BaseException) -> int:
    return len(list(traceback.walk_tb(error.__traceback__)))


@pytest.mark.parametrize(("cls", "parent", "retryable", "maybe_spent"), TREE)
def test_F_55_the_tree_is_the_one_that_is_drawn(
    cls: type[OAuthError], parent: type[Exception], retryable: bool, maybe_spent: bool
) -> None:
    assert cls.__bases__[0] is parent
    error = cls("message")
    assert isinstance(error, OAuthError)
    assert str(error) == "message"
    assert error.retryable is retryable
    assert error.maybe_spent is maybe_spent
    assert error.retry_after is None
    assert error.key_id is None


def test_F_55_the_tree_is_complete_and_public() -> None:
    found = {name for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, OAuthError)}
    assert found == {cls.__name__ for cls in CLASSES} == set(errors.__all__)
    assert list(errors.__all__) == sorted(errors.__all__)
    assert {"OAuthError", *re.findall(r"── (\w+)", errors.__doc__ or "")} == found


@pytest.mark.parametrize("cls", CLASSES)
def test_F_55_no_error_makes_aiohttp_send_a_request_again(cls: type[OAuthError]) -> None:
    # aiohttp repeats an idempotent request on the first two and wraps an OSError in the first; either would POST twice.
    assert not issubclass(cls, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError | OSError | TimeoutError)
    assert issubclass(cls, aiohttp.ClientError)


@pytest.mark.parametrize("cls", CLASSES)
def test_F_55_only_a_mistake_of_the_caller_is_a_value_error(cls: type[OAuthError]) -> None:
    assert issubclass(cls, ValueError) is issubclass(cls, ConfigurationError)


@pytest.mark.parametrize("cls", CLASSES)
def test_F_55_an_error_can_be_made_without_arguments(cls: type[OAuthError]) -> None:
    assert str(cls()) == ""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OAuthError("m", retry_after=0.0, maybe_spent=True), {"retry_after": 0.0, "maybe_spent": True}),
        (OAuthError("m", maybe_spent=False), {"maybe_spent": False}),
        (TokenUnavailable("m", retry_after=7.0), {"retryable": True, "retry_after": 7.0}),
        (ProtocolViolation("m"), {"rule": ""}),
        (ProtocolViolation("m", rule="RFC 9207 section 2.4"), {"rule": "RFC 9207 section 2.4"}),
        (DiscoveryError("m", rule="RFC 8414 section 3.3"), {"rule": "RFC 8414 section 3.3"}),
        (TokenResponseError("m"), {"rule": "RFC 6749 section 5.1", "status": 0, "maybe_spent": True}),
        (TokenResponseError("m", rule="r", status=502), {"rule": "r", "status": 502}),
        (ErrorResponse("m"), {"error": "", "error_description": None, "error_uri": None, "status": 0, "retryable": False}),
        (
            InvalidGrant("m", error="invalid_grant", error_description="d", error_uri="u", status=400),
            {"error": "invalid_grant", "error_description": "d", "error_uri": "u", "status": 400, "retryable": False},
        ),
        (ErrorResponse("m", retryable=True, retry_after=9.0), {"retryable": True, "retry_after": 9.0}),
        (RefreshInDoubt("m"), {"since": None, "process": None}),
    ],
)
def test_F_55_an_error_carries_what_it_was_given(error: OAuthError, expected: dict[str, object]) -> None:
    assert {name: getattr(error, name) for name in expected} == expected


def test_F_55_marking_one_error_leaves_its_class_alone() -> None:
    OAuthError("m", retry_after=5.0, maybe_spent=True).about("alice")
    ErrorResponse("m", retryable=True, status=503)
    assert OAuthError.retry_after is None
    assert OAuthError.maybe_spent is False
    assert OAuthError.key_id is None
    assert ErrorResponse.retryable is False
    assert ErrorResponse.status == 0


@pytest.mark.parametrize("key", ["", "default", "alice@example.com", "é€😀", "\udc80", CANARY * 1000])
def test_F_55_S_22_about_keeps_a_hash_of_the_key_and_not_the_key(key: str) -> None:
    error = TokenUnavailable("m")
    assert error.about(key) is error
    assert error.key_id == hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    assert not key or key not in f"{error} {error!r} {vars(error)}"


def test_F_55_about_tells_keys_apart() -> None:
    assert OAuthError().about("alice").key_id != OAuthError().about("bob").key_id
    assert OAuthError().about("alice").key_id == LoginRequired().about("alice").key_id


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_F_57_again_is_a_copy_with_the_same_cause_and_no_traceback(error: OAuthError) -> None:
    cause = aiohttp.ClientPayloadError("reset")
    original = raised(error.again().about("alice"), cause)
    twin = original.again()
    assert type(twin) is type(original)
    assert twin is not original
    assert str(twin) == str(original)
    assert twin.args == original.args
    assert fields(twin) == fields(original)
    assert twin.__cause__ is cause
    assert twin.__suppress_context__
    assert twin.__context__ is None
    assert twin.__traceback__ is None


def test_F_57_each_waiter_has_a_traceback_of_its_own_that_does_not_grow() -> None:
    original = raised(TokenUnavailable("m"), OSError("refused"))
    before = depth(original)
    twins = [raised(original.again()) for _ in range(20)]
    assert depth(original) == before
    assert {depth(twin) for twin in twins} == {1}
    assert len({id(twin.__traceback__) for twin in twins}) == 20


def test_F_57_what_one_waiter_does_to_its_copy_reaches_no_other() -> None:
    original = TokenUnavailable("m")
    one, other = original.again().about("alice"), original.again()
    one.retry_after = 5.0
    assert other.key_id is original.key_id is None
    assert other.retry_after is original.retry_after is None


def test_F_57_a_note_on_one_copy_is_not_on_the_others() -> None:
    original = TokenUnavailable("m")
    original.add_note("of the flight")
    one, other = original.again(), original.again()
    one.add_note("of one waiter")
    assert one.__notes__ == ["of the flight", "of one waiter"]
    assert other.__notes__ == original.__notes__ == ["of the flight"]


def test_F_57_again_keeps_what_was_set_after_the_making() -> None:
    error = RefreshInDoubt("m")
    error.since, error.process = 1735689600.0, "4711@host"
    twin = error.again()
    assert (twin.since, twin.process) == (1735689600.0, "4711@host")


def test_F_57_again_without_a_cause_has_none_even_while_another_error_is_handled() -> None:
    try:
        raise OSError("unrelated")
    except OSError:
        twin = OAuthError("m").again()
    assert twin.__cause__ is None
    assert "unrelated" not in "".join(traceback.format_exception(twin))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_F_57_an_error_survives_pickling(error: OAuthError, protocol: int) -> None:
    marked = raised(error.again().about("alice"), OSError("refused"))
    loaded = pickle.loads(pickle.dumps(marked, protocol))
    assert type(loaded) is type(marked)
    assert str(loaded) == str(marked)
    assert fields(loaded) == fields(marked)


def test_F_57_S_22_a_pickle_carries_neither_cause_nor_context_nor_frames() -> None:
    cause = OSError(CANARY)
    try:
        raise KeyError(CANARY)
    except KeyError:
        error = raised(TokenUnavailable("m"), cause)
    assert error.__context__ is not None
    assert CANARY.encode() not in pickle.dumps(error)


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_F_57_an_error_can_be_copied(error: OAuthError) -> None:
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert fields(twin) == fields(error)


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_S_26_a_server_text_stands_in_no_message(error: OAuthError) -> None:
    told = error.again()
    if isinstance(told, ErrorResponse):
        told.error_description = told.error_uri = CANARY
    assert CANARY not in f"{told} {told!r} {told.args}" + "".join(traceback.format_exception(told))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("invalid_grant", "invalid_grant"),
        ("The token has expired.", "The token has expired."),
        ("a\r\nSet-Cookie: b", "a?Set-Cookie: b"),
        ("\x1b[31mred\x1b[0m", "?[31mred?[0m"),
        ("nul\x00del\x7f", "nul?del?"),
        ("tab\there", "tab?here"),
        ('quote " and backslash \\', "quote ? and backslash ?"),
        ("é", "?"),
        ("\u202egnirts", "?gnirts"),
        ("\ud800", "?"),
        ("😀😀😀", "?"),
        ("\x9b31m", "?31m"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "~"),
        ("\x00" * 100_000, "?"),
        ("a" * 10_000_000, "a" * 199 + "~"),
    ],
)
def test_F_38_S_26_a_server_text_is_cleaned_and_capped(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize("text", [None, 5, b"invalid_grant", ["a"], {"a": 1}, True])
def test_F_38_what_is_no_text_is_nothing(text: Any) -> None:
    assert clean(text) == ""


@pytest.mark.parametrize(
    ("text", "secrets", "expected"),
    [
        (f"bad token {CANARY}", [CANARY], "bad token [redacted]"),
        (f"{CANARY}{CANARY}", [CANARY], "[redacted][redacted]"),
        (CANARY, [], CANARY),
        ("pässwörd is wrong", ["pässwörd"], "[redacted] is wrong"),
        ("line\nbreak", ["line\nbreak"], "[redacted]"),
        ("one two", ["", "x", "two2"], "one two"),
        ("abc is too short to take out", ["abc"], "abc is too short to take out"),
        ("abcd is not", ["abcd"], "[redacted] is not"),
        (f"{'x' * 190} {CANARY}", [CANARY], "x" * 190 + " [redacte~"),
        (f"{'x' * 5000}{CANARY}", [CANARY], "x" * 199 + "~"),
        (f"one {CANARY} two other-secret", [CANARY, "other-secret"], "one [redacted] two [redacted]"),
    ],
)
def test_F_38_S_22_what_we_sent_is_taken_out(text: str, secrets: list[str], expected: str) -> None:
    assert clean(text, secrets) == expected


@pytest.mark.parametrize("secrets", [["abcd", "abcdefgh"], ["abcdefgh", "abcd"], ["efgh", "abcdefgh"]])
def test_F_38_S_22_a_secret_that_holds_another_is_taken_out_whole(secrets: list[str]) -> None:
    assert clean("bad token abcdefgh", secrets) == "bad token [redacted]"


@pytest.mark.parametrize("length", [200, 900, 3000, 9000])
def test_F_38_S_22_no_part_of_a_long_secret_survives_the_cut(length: int) -> None:
    secret = "s" * length
    assert "s" not in clean(secret * 60, [secret])


def test_F_38_the_limit_can_be_chosen() -> None:
    assert clean("abcdef", limit=6) == "abcdef"
    assert clean("abcdef", limit=5) == "abcd~"


@settings(deadline=None)
@given(st.text(max_size=400), st.lists(st.text(max_size=20), max_size=3), st.integers(min_value=1, max_value=300))
def test_F_38_whatever_comes_the_rest_is_printable_ascii_within_the_limit(text: str, secrets: list[str], limit: int) -> None:
    found = clean(text, secrets, limit)
    assert len(found) <= limit
    # RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E
    assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]*", found)
