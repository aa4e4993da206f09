"""Requests and answers as values, and the hooks between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_oauth_middleware import ConfigurationError, EndpointRequest, EndpointResponse, Hook, Secret

FORM: dict[str, str] = json.loads((Path(__file__).parent.parent / "vectors" / "form-urlencoding.json").read_text("utf-8"))
URL = "https://as.example/token"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def test_S_30_a_request_is_a_post_of_a_form() -> None:
    request = EndpointRequest(URL, [("grant_type", "client_credentials"), ("scope", "a b")])
    assert (request.method, request.encoding, request.target()) == ("POST", "form", URL)
    assert request.body() == b"grant_type=client_credentials&scope=a+b"


def test_the_form_is_encoded_as_the_rfc_says() -> None:
    assert EndpointRequest(URL, [("v", FORM["input"])]).body() == b"v=" + FORM["encoded"].encode()


@pytest.mark.parametrize("encoding", ["form", "json", "query"])
def test_S_30_an_empty_value_is_left_out(encoding: Any) -> None:
    request = EndpointRequest(URL, [("a", ""), ("b", Secret("")), ("c", "1")])
    request.encoding = encoding
    assert (request.body() or request.target().encode()) in (b"c=1", b'{"c": "1"}', f"{URL}?c=1".encode())


def test_S_30_a_repeated_name_stays_repeated_and_in_order() -> None:
    request = EndpointRequest(URL, [("resource", "urn:a"), ("x", "1"), ("resource", "urn:b")])
    assert request.body() == b"resource=urn%3Aa&x=1&resource=urn%3Ab"
    request.encoding = "json"
    assert json.loads(request.body()) == {"resource": ["urn:a", "urn:b"], "x": "1"}


def test_a_query_is_added_to_the_one_that_is_there() -> None:
    request = EndpointRequest(f"{URL}?tenant=1", [("a", "b c"), ("s", Secret("&="))])
    request.encoding = "query"
    assert request.target() == f"{URL}?tenant=1&a=b+c&s=%26%3D"
    assert request.body() == b""


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_S_30_what_is_sent_is_what_was_meant(pairs: list[tuple[str, str]]) -> None:
    body = EndpointRequest(URL, [(name, Secret(value)) for name, value in pairs]).body().decode("ascii")
    assert parse_qsl(body, keep_blank_values=True) == pairs


def test_S_22_S_26_a_request_prints_names_and_no_values() -> None:
    request = EndpointRequest(f"{URL}?k=CANARY", [("code", "CANARY"), ("s", Secret("CANARY"))], {"Authorization": "CANARY"})
    assert repr(request) == f"<EndpointRequest POST {URL} form=['code', 's']>"


async def test_settling_reads_each_secret_once_and_sync_and_async_alike() -> None:
    calls: list[str] = []

    def sync() -> str:
        calls.append("sync")
        return "one"

    async def deferred() -> str:
        calls.append("async")
        return "two"

    request = EndpointRequest(URL, [("a", Secret(sync)), ("b", "plain")], {"X-Key": Secret(deferred), "Accept": "x"})
    await request.settle()
    assert request.body() == b"a=one&b=plain" == request.body()
    assert sorted(request.secrets()) == ["one", "two"]
    assert calls == ["sync", "async"]


def test_a_request_keeps_its_own_copies() -> None:
    form: list[tuple[str, str | Secret]] = [("a", "1")]
    headers: dict[str, str | Secret] = {"A": "1"}
    request = EndpointRequest(URL, form, headers)
    form.clear()
    headers.clear()
    assert (request.form, request.headers) == ([("a", "1")], {"A": "1"})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, ""),
        ({"Content-Type": "Application/JSON; charset=UTF-8"}, "application/json"),
        ({"CONTENT-TYPE": " text/html "}, "text/html"),
        ({"content-type": ";"}, ""),
    ],
)
def test_the_media_type_of_an_answer(header: dict[str, str], expected: str) -> None:
    assert EndpointResponse(200, header, b"").content_type == expected


def test_S_26_an_answer_prints_its_status_only() -> None:
    assert "CANARY" not in repr(EndpointResponse(200, {"X": "CANARY"}, b"CANARY"))
    assert "200" in repr(EndpointResponse(200, {}, b""))


POINTS = (
    "access_token_request",
    "access_token_response",
    "refresh_token_request",
    "refresh_token_response",
    "revoke_token_request",
    "introspect_token_request",
)


@pytest.mark.parametrize("point", POINTS)
def test_a_hook_has_a_point(point: Any) -> None:
    assert Hook(point, len).point == point  # type: ignore[arg-type]


@pytest.mark.parametrize("point", ["", "protected_request", "compliance_fix", None])
def test_a_hook_at_a_point_that_is_none_is_refused_and_told_which_there_are(point: Any) -> None:
    with pytest.raises(ConfigurationError, match=", ".join(POINTS)):
        Hook(point, len)  # type: ignore[arg-type]


def test_a_hook_that_can_not_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="callable"):
        Hook("access_token_request", "x")  # type: ignore[arg-type]
