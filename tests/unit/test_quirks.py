"""Quirks as values; what each does is shown where it acts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiohttp_oauth_middleware import ConfigurationError, Quirks


def test_the_default_tolerates_what_needs_no_word_only() -> None:
    assert Quirks() == Quirks(token_types=(), default_lifetime=None, renamed={}, token_path=(), refusals_before_latch=1)
    assert Quirks().request_encoding == "form"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"default_lifetime": 0}, "default_lifetime"),
        ({"default_lifetime": -5.0}, "default_lifetime"),
        ({"default_lifetime": math.nan}, "default_lifetime"),
        ({"refusals_before_latch": 0}, "refusals_before_latch"),
        ({"json_request": True, "insecure_get_request": True}, "exclude each other"),
    ],
)
def test_what_can_not_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Quirks(**arguments)


def test_they_take_what_is_convenient() -> None:
    assert Quirks(token_path="data").token_path == ("data",)
    assert Quirks(token_path=["a", "b"]).token_path == ("a", "b")
    assert Quirks(token_types=["User Access Token"]).token_types == {"user access token"}
    assert Quirks(token_types="Application Access Token").token_types == {"application access token"}
    assert Quirks(token_types=(name for name in ("A", "b"))).token_types == {"a", "b"}
    assert Quirks(token_path=(name for name in ("a", "b"))).token_path == ("a", "b")
    renamed = {"accessToken": "access_token"}
    quirks = Quirks(renamed=renamed)
    renamed.clear()
    assert quirks.renamed == {"accessToken": "access_token"}


@pytest.mark.parametrize(
    ("quirks", "encoding"),
    [(Quirks(json_request=True), "json"), (Quirks(insecure_get_request=True), "query"), (Quirks(), "form")],
)
def test_the_encoding_of_a_request_follows(quirks: Quirks, encoding: str) -> None:
    assert quirks.request_encoding == encoding


def test_they_can_be_keys_and_be_replaced() -> None:
    quirks = Quirks(vschar_tokens=True, renamed={"a": "b"}, token_path=("x",))
    assert {quirks: 1}[quirks.replace()] == 1
    assert quirks.replace(strict_scope=True) == Quirks(
        vschar_tokens=True, renamed={"a": "b"}, token_path=("x",), strict_scope=True
    )
