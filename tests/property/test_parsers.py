"""What holds for every input of the parsers, looked for by hypothesis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_oauth_middleware.errors import ConfigurationError
from aiohttp_oauth_middleware.protocol.challenge import parse_challenges
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.protocol.metadata import well_known_urls
from aiohttp_oauth_middleware.protocol.quirks import Quirks
from aiohttp_oauth_middleware.protocol.token_response import parse_object, retry_after
from aiohttp_oauth_middleware.token import Token
from aiohttp_oauth_middleware.urls import absolute_url, is_loopback
from tests.fuzz import ISSUER, check_challenge, check_metadata, check_token_response

many = settings(max_examples=300, deadline=None, derandomize=True)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**5000), 10**5000)
    | st.floats()
    | st.text()
    | st.sampled_from(["at", "Bearer", "3600", "r w", "a,b", "invalid_grant", "CANARY-refresh-token", "\r\n"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "access_token": st.from_regex(r"[A-Za-z0-9._~+/-]{1,20}=*", fullmatch=True) | JSON,
        "token_type": st.sampled_from(["Bearer", "bearer", ""]) | JSON,
        "expires_in": st.integers(0, 10**6) | JSON,
        "expires_at": JSON,
        "refresh_in": JSON,
        "refresh_on": JSON,
        "refresh_token": JSON,
        "scope": JSON,
        "error": JSON,
        "errors": JSON,
        "error_description": JSON,
        "error_uri": JSON,
        "data": JSON,
    },
)
QUIRKS = st.builds(
    Quirks,
    vschar_tokens=st.booleans(),
    strict_scope=st.booleans(),
    default_lifetime=st.none() | st.floats(0.1, 10**6),
    token_types=st.lists(st.text(min_size=1, max_size=5), max_size=2),
    token_path=st.sampled_from([(), ("data",)]),
)
CONTENT_TYPES = (
    st.sampled_from(["application/json", "text/html", "text/plain", "application/x-www-form-urlencoded"]) | st.text()
)


def dumped(data: Any) -> bytes:
    """JSON with numbers of any size, and lone surrogates escaped."""
    return json.dumps(data, default=str).encode()


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    data = draw(MEMBERS)
    try:
        body = dumped(data)
    except ValueError:  # an integer beyond the limit of digits
        body = dumped({name: repr(type(value)) for name, value in data.items()})
    cut = draw(st.integers(0, len(body)) | st.just(len(body)))
    return body[:cut] + draw(st.just(b"") | st.binary(max_size=10))


@many
@given(bodies() | st.binary(), st.integers(100, 999) | st.just(200), CONTENT_TYPES, st.text(max_size=30), QUIRKS)
def test_G_10_S_36_F_27_any_answer_is_a_token_that_may_be_sent_or_one_of_our_errors(
    body: bytes, status: int, content_type: str, wait: str, quirks: Quirks
) -> None:
    check_token_response(EndpointResponse(status, {"Content-Type": content_type, "Retry-After": wait}, body), quirks)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 60_000),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"":', "}]")]),
    st.booleans(),
    st.integers(0, 6000),
)
def test_G_10_F_30_F_31_json_at_its_extremes_is_no_exception_of_another_kind(
    depth: int, brackets: tuple[str, str], closed: bool, digits: int
) -> None:
    opening, closing = brackets
    body = (
        '{"access_token": "a", "n": ' + "7" * digits + "0, " + '"x": ' + opening * depth + "1" + closing * depth * closed + "}"
    )
    check_token_response(EndpointResponse(200, {}, body.encode()), Quirks())


@many
@given(st.lists(st.text(alphabet=st.sampled_from('Bearer basic,="\\ \tabc/+-._~é\x00'), max_size=80) | st.text(), max_size=4))
def test_G_10_S_37_any_header_is_challenges_or_none(fields: list[str]) -> None:
    check_challenge(fields)


TOKEN = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}", fullmatch=True)


@many
@given(
    st.lists(
        st.tuples(
            TOKEN,
            st.dictionaries(
                TOKEN.map(str.lower), st.text(st.characters(min_codepoint=32, max_codepoint=255)), min_size=1, max_size=3
            ),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_S_37_what_is_written_by_the_rules_is_read_as_it_was_meant(
    challenges: list[tuple[str, dict[str, str]]], joined: bool
) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def written() -> Iterator[str]:
        for scheme, parameters in challenges:
            yield f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())

    fields = [", ".join(written())] if joined else list(written())
    assert [(one.scheme, dict(one.parameters)) for one in parse_challenges(fields)] == [
        (scheme.lower(), parameters) for scheme, parameters in challenges
    ]


METADATA = st.dictionaries(
    st.sampled_from(["issuer", "token_endpoint", "revocation_endpoint", "token_endpoint_auth_methods_supported", "extra"])
    | st.text(),
    st.just(ISSUER) | st.from_regex(r"https?://[a-z.@:0-9\[\]]{1,12}/?[#?]?", fullmatch=True) | st.lists(st.text()) | SCALARS,
)


@many
@given(METADATA, st.booleans())
def test_G_10_S_14_any_document_is_metadata_of_the_issuer_or_a_discovery_error(data: dict[str, Any], ours: bool) -> None:
    try:
        body = dumped(data | ({"issuer": ISSUER} if ours else {}))
    except ValueError:
        return
    check_metadata(body)


@many
@given(st.text() | st.from_regex(r"https?://[a-zA-Z0-9.@:%\\\[\]-]{0,20}[/?#]?.{0,5}"))
def test_S_29_any_text_is_an_absolute_url_or_a_configuration_error(text: str) -> None:
    try:
        url = absolute_url("x", text)
    except ConfigurationError:
        return
    assert url.scheme in ("http", "https")
    assert url.raw_host
    assert url.raw_user is None
    is_loopback(url.raw_host)
    assert all(place.startswith(text.partition("://")[0]) for place in well_known_urls(text))


@many
@given(
    st.text() | st.from_regex(r"(Mon|Tue), ?[0-9]{0,3} [JFM][a-z]{2} [0-9]{0,12} [0-9:]{0,12} ?[A-Z+-]{0,5}[0-9]{0,6}"),
    st.floats(0, 1e11),
)
def test_F_23_any_retry_after_is_a_wait_or_none(value: str, now: float) -> None:
    seconds = retry_after(value, now)
    assert seconds is None or 0 <= seconds <= 300


VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
MOMENTS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
FINITE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=6,
)


@many
@given(
    VISIBLE,
    VISIBLE | st.none(),
    MOMENTS,
    MOMENTS,
    MOMENTS,
    st.none() | st.lists(VISIBLE, min_size=1).map(" ".join),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])).map("x_{}".format), FINITE, max_size=3),
)
def test_a_token_survives_json(
    access_token: str,
    refresh_token: str | None,
    expires_at: float | None,
    obtained_at: float | None,
    refresh_at: float | None,
    scope: str | None,
    extra: dict[str, Any],
) -> None:
    token = Token(
        access_token,
        refresh_token=refresh_token,
        expires_at=expires_at,
        obtained_at=obtained_at,
        refresh_at=refresh_at,
        scope=scope,
        extra=extra,
    )
    assert Token.from_json(token.to_json()) == token
    assert Token.from_json(token.to_json().encode()) == token


@many
@given(bodies() | st.binary())
def test_F_30_any_body_is_an_object_that_can_be_written_again_or_none(body: bytes) -> None:
    data = parse_object(EndpointResponse(200, {"Content-Type": "text/plain"}, body))
    assert data is None or json.dumps(data, ensure_ascii=False).encode()
