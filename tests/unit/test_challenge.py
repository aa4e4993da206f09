"""``WWW-Authenticate`` as servers write it, and as they shouldn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aiohttp_oauth_middleware.protocol.challenge import Challenge, parse_challenges

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "vectors" / "challenges.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["source"]))
def test_S_37_the_examples_of_the_rfcs(vector: dict[str, Any]) -> None:
    expected = [Challenge(c["scheme"], c["parameters"], c.get("token68")) for c in vector["challenges"]]
    assert list(parse_challenges(vector["fields"])) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(["Bearer"], [Challenge("bearer")], id="a scheme alone"),
        pytest.param(["bEaReR ERROR=invalid_token"], [Challenge("bearer", {"error": "invalid_token"})], id="any case"),
        pytest.param(['Bearer error = "a"'], [Challenge("bearer", {"error": "a"})], id="white space around the equals sign"),
        pytest.param(['Bearer\terror\t=\t"a"'], [Challenge("bearer", {"error": "a"})], id="tabs"),
        pytest.param(['Bearer scope="a b, c"'], [Challenge("bearer", {"scope": "a b, c"})], id="a comma in quotes"),
        pytest.param(
            ['Bearer a="x=\\"y\\", Basic z=\\"1\\""'], [Challenge("bearer", {"a": 'x="y", Basic z="1"'})], id="in quotes"
        ),
        pytest.param(['Bearer a="\\\\"'], [Challenge("bearer", {"a": "\\"})], id="an escaped backslash"),
        pytest.param(['Bearer a=""'], [Challenge("bearer", {"a": ""})], id="an empty value"),
        pytest.param(['Bearer a="1", A="2"'], [Challenge("bearer", {"a": "1"})], id="of a repeated parameter the first counts"),
        pytest.param(
            ['Basic realm="x"', 'Bearer error="invalid_token"'],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"error": "invalid_token"})],
            id="two fields",
        ),
        pytest.param(
            ['Negotiate, Bearer error="invalid_token", NTLM'],
            [Challenge("negotiate"), Challenge("bearer", {"error": "invalid_token"}), Challenge("ntlm")],
            id="schemes without parameters around one with",
        ),
        pytest.param(
            ['Negotiate YII=, Bearer realm="r"'],
            [Challenge("negotiate", token68="YII="), Challenge("bearer", {"realm": "r"})],
            id="a token68 and then parameters",
        ),
        pytest.param(
            ["Negotiate YII==", "NTLM"], [Challenge("negotiate", token68="YII=="), Challenge("ntlm")], id="token68 last"
        ),
        pytest.param([", ,Bearer , , a=1,, b=2,"], [Challenge("bearer", {"a": "1", "b": "2"})], id="empty members of the list"),
        pytest.param(['Bearer a="1" b="2"'], [Challenge("bearer", {"a": "1", "b": "2"})], id="commas left out"),
        pytest.param(['Bearer a="é"'], [Challenge("bearer", {"a": "é"})], id="beyond ASCII, in quotes"),
        pytest.param(['Bearer a="1\r\nb"'], [Challenge("bearer", {"a": "1\r\nb"})], id="a line break, in quotes"),
    ],
)
def test_S_37_challenges_are_told_apart(values: list[str], expected: list[Challenge]) -> None:
    assert list(parse_challenges(values)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (" \t, ,", []),
        ('"Bearer"', []),
        ("=", []),
        ("<html>", []),
        ("Bearer=realm", []),
        ("Bearer/2 a=1", []),
        ("\x00Bearer a=1", []),
        ("é a=1", []),
        ("\ud800", []),
        ('Bearer error="invalid_token', [Challenge("bearer")]),
        ('Bearer a="1", error="invalid_token\\"', [Challenge("bearer", {"a": "1"})]),
        ("Bearer a=1, b=", [Challenge("bearer", {"a": "1"})]),
        ("Bearer a=é, Basic", [Challenge("bearer")]),
        ("Bearer a=1; b=2", [Challenge("bearer", {"a": "1"})]),
        ('Bearer error="invalid_token" <', [Challenge("bearer", {"error": "invalid_token"})]),
        ("Bearer a b c", [Challenge("bearer"), Challenge("a"), Challenge("b", token68="c")]),
    ],
)
def test_S_37_of_garbage_counts_what_came_before_it(value: str, expected: list[Challenge]) -> None:
    assert list(parse_challenges([value])) == expected


def test_S_37_one_bad_field_does_not_spoil_the_next() -> None:
    assert [c.scheme for c in parse_challenges(['Basic realm="', "Bearer error=invalid_token"])] == ["basic", "bearer"]


def test_S_37_no_more_than_32_challenges_are_read_in_all() -> None:
    assert len(parse_challenges([", ".join(["Bearer a=1"] * 20)] * 3)) == 32
    assert len(parse_challenges(["Negotiate x"] * 1000)) == 32


def test_S_37_of_a_long_field_the_first_16_kib_are_read() -> None:
    filler = 'Bearer a="' + "x" * 16_000 + '"'
    assert [c.scheme for c in parse_challenges([filler + ", Basic b=1"])] == ["bearer", "basic"]
    assert [c.scheme for c in parse_challenges([filler + "," * 400 + "Basic b=1"])] == ["bearer"]
    assert parse_challenges([" " * 16_384 + "Bearer"]) == ()


@pytest.mark.parametrize(
    "value",
    [
        "Bearer " + "a=" * 8000,
        "Bearer " + "a" * 16_000 + "!",
        "Bearer " + "a " * 8000,
        "Bearer " + "=" * 16_000,
        'Bearer a="' + "\\" * 16_000,
        'Bearer a="' + '\\"' * 8000,
        "Negotiate " + "a" * 8000 + "=" * 7000 + " " * 1000 + "x",
        "," * 16_000,
        'Bearer a="1",' * 2000,
    ],
    ids=lambda value: value[:14] + "…",
)
def test_S_37_what_invites_a_regular_expression_to_backtrack_is_read(value: str) -> None:
    assert len(parse_challenges([value] * 40)) <= 32


def test_S_37_the_error_and_the_scope_are_at_hand() -> None:
    (challenge,) = parse_challenges(['Bearer error="insufficient_scope", scope="a b", resource_metadata="https://r.example/m"'])
    assert challenge.error == "insufficient_scope"
    assert challenge.parameters["scope"] == "a b"
    assert challenge.parameters["resource_metadata"] == "https://r.example/m"
    assert parse_challenges(["Bearer"])[0].error is None


def test_a_challenge_keeps_its_own_copy_of_the_parameters() -> None:
    parameters = {"error": "a"}
    challenge = Challenge("Bearer", parameters)
    parameters["error"] = "b"
    assert challenge == Challenge("bearer", {"error": "a"})
