"""Grants as values: what they send, and what they refuse to be made of."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiohttp_oauth_middleware import (
    AuthorizationCode,
    ClientCredentials,
    ConfigurationError,
    ExtensionGrant,
    Grant,
    RefreshToken,
    Secret,
)
from aiohttp_oauth_middleware.protocol.grants import joined_scope, resource_indicators

PKCE: dict[str, str] = json.loads((Path(__file__).parent.parent / "vectors" / "pkce.json").read_text("utf-8"))
VERIFIER = PKCE["code_verifier"]
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"

# Each with the same further arguments: scope, resource, audience, extra.
MAKERS: dict[str, Callable[..., Any]] = {
    "client_credentials": ClientCredentials,
    "refresh_token": lambda **given: RefreshToken("rt", **given),
    "authorization_code": lambda **given: AuthorizationCode("code", **given),
    "extension": lambda **given: ExtensionGrant(DEVICE, {"device_code": Secret("dc")}, **given),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def sent(grant: Grant) -> list[tuple[str, str]]:
    return [(name, value.reveal() if isinstance(value, Secret) else value) for name, value in grant.parameters()]


def test_S_30_what_each_grant_sends() -> None:
    assert sent(ClientCredentials()) == []
    assert sent(ClientCredentials("a  b ")) == [("scope", "a b")]
    assert sent(ClientCredentials(["b", "a"])) == [("scope", "b a")]
    assert sent(RefreshToken("rt", scope="a")) == [("refresh_token", "rt"), ("scope", "a")]
    assert sent(AuthorizationCode("c")) == [("code", "c")]
    assert sent(AuthorizationCode("c", redirect_uri="https://app.example/cb", code_verifier=VERIFIER)) == [
        ("code", "c"),
        ("redirect_uri", "https://app.example/cb"),
        ("code_verifier", VERIFIER),
    ]
    assert sent(ExtensionGrant(DEVICE, {"device_code": Secret("dc")}, scope="a")) == [("device_code", "dc"), ("scope", "a")]


@pytest.mark.parametrize(
    ("grant", "grant_type", "unattended", "single_use"),
    [
        (ClientCredentials(), "client_credentials", True, False),
        (RefreshToken("rt"), "refresh_token", False, True),
        (AuthorizationCode("c"), "authorization_code", False, True),
        (ExtensionGrant("urn:x"), "urn:x", True, False),
        (ExtensionGrant("urn:x", unattended=False, single_use=True), "urn:x", False, True),
    ],
)
def test_what_steers_the_use_of_a_grant(grant: Grant, grant_type: str, unattended: bool, single_use: bool) -> None:
    assert isinstance(grant, Grant)
    assert (grant.grant_type, grant.unattended, grant.single_use) == (grant_type, unattended, single_use)


def test_the_scope_of_a_code_is_not_sent_for_it_was_in_the_authorization_request() -> None:
    grant = AuthorizationCode("c", scope="a b", resource="https://api.example/", audience="api")
    assert grant.scope == "a b"
    assert sent(grant) == [("code", "c"), ("resource", "https://api.example/"), ("audience", "api")]


@each
def test_S_30_S_45_only_resource_and_what_extra_repeats_are_repeated(make: Callable[..., Any]) -> None:
    grant = make(resource=["https://a.example/", "urn:b"], audience="aud", extra={"x": ["1", "2"], "y": Secret("3")})
    pairs = sent(grant)
    assert [pair for pair in pairs if pair[0] == "resource"] == [("resource", "https://a.example/"), ("resource", "urn:b")]
    assert pairs[-4:] == [("audience", "aud"), ("x", "1"), ("x", "2"), ("y", "3")]
    rest = [name for name, _ in pairs if name not in ("resource", "x")]
    assert len(rest) == len(set(rest))


@each
@pytest.mark.parametrize(
    "resource",
    [
        "https://api.example/#part",
        "https://api.example/#",
        "api.example",
        "/path",
        "",
        "https://api.example/a b",
        "https://api.example/\r\n",
        "https://api.example/é",
        ["https://ok.example/", "no"],
        [5],
        b"https://api.example/",
    ],
)
def test_S_45_a_resource_that_is_no_absolute_uri_without_fragment_is_refused(make: Callable[..., Any], resource: Any) -> None:
    with pytest.raises(ConfigurationError, match="absolute URI without a fragment"):
        make(resource=resource)


def test_S_45_a_resource_is_kept_letter_by_letter() -> None:
    found = ("https://API.example:443/a/../b?x=%7e", "urn:example:r")
    assert resource_indicators(found) == found
    assert resource_indicators("https://api.example") == ("https://api.example",)
    assert resource_indicators(()) == ()


@each
@pytest.mark.parametrize("scope", ['a"b', "a\\b", "é", "a\x00", ["a b"], [""], [5], b"ab"])
def test_a_scope_of_other_characters_is_refused(make: Callable[..., Any], scope: Any) -> None:
    with pytest.raises(ConfigurationError, match="scope must be"):
        make(scope=scope)


def test_an_empty_scope_is_none() -> None:
    nothing: list[Any] = [None, "", "  ", [], ()]
    assert [joined_scope(scope) for scope in nothing] == [None] * 5


@each
@pytest.mark.parametrize(
    "name",
    ["grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "scope", "resource", "audience"],
)
def test_S_30_extra_can_not_override_a_parameter_of_the_protocol(make: Callable[..., Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"extra must not set '{name}'"):
        make(extra={name: "x"})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((MAKERS["authorization_code"], name) for name in ("code", "redirect_uri", "code_verifier")),
        (MAKERS["refresh_token"], "refresh_token"),
        (MAKERS["extension"], "device_code"),
    ],
)
def test_S_30_extra_can_not_override_what_the_grant_itself_sends(make: Callable[..., Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"extra must not set '{name}'"):
        make(extra={name: "x"})


def test_S_30_the_own_parameters_of_an_extension_can_not_override_the_protocol_either() -> None:
    with pytest.raises(ConfigurationError, match="'client_secret'"):
        ExtensionGrant("urn:x", {"client_secret": "s"})


@each
@pytest.mark.parametrize("extra", [{"a": 5}, {"a": None}, {"a": ["b", None]}, {"a": b"b"}, {"": "x"}, {5: "x"}])
def test_extra_that_is_not_of_strings_is_refused(make: Callable[..., Any], extra: Any) -> None:
    with pytest.raises(ConfigurationError, match="extra"):
        make(extra=extra)


@pytest.mark.parametrize("empty", ["", None, 5, Secret(""), b"x"])
def test_what_a_grant_needs_must_be_there(empty: Any) -> None:
    for make, name in ((RefreshToken, "refresh_token"), (AuthorizationCode, "code"), (ExtensionGrant, "grant_type")):
        with pytest.raises(ConfigurationError, match=f"{name} must be a non-empty string"):
            make(empty)


def test_S_40_the_verifier_of_the_rfc_is_taken_and_kept_secret() -> None:
    assert dict(sent(AuthorizationCode("c", code_verifier=VERIFIER)))["code_verifier"] == VERIFIER
    assert dict(sent(AuthorizationCode("c", code_verifier=Secret(VERIFIER))))["code_verifier"] == VERIFIER
    assert VERIFIER not in repr(AuthorizationCode("c", code_verifier=VERIFIER))


@pytest.mark.parametrize("verifier", ["a" * 43, "a" * 128, "-._~" * 11, secrets.token_urlsafe(32)], ids=len)
def test_S_40_unreserved_characters_43_to_128_are_a_verifier(verifier: str) -> None:
    AuthorizationCode("c", code_verifier=verifier)


@pytest.mark.parametrize(
    "verifier",
    ["", "a" * 42, "a" * 129, "a" * 42 + "+", "a" * 42 + "/", "a" * 43 + "\n", "a" * 42 + " ", "a" * 42 + "é", "a" * 42 + "="],
    ids=repr,
)
def test_S_40_any_other_verifier_is_refused_without_being_shown(verifier: str) -> None:
    with pytest.raises(ConfigurationError, match="RFC 7636") as caught:
        AuthorizationCode("c", code_verifier=verifier)
    assert not verifier or verifier not in str(caught.value)


@pytest.mark.parametrize("verifier", [Secret("short"), 5, b"a" * 43], ids=repr)
def test_S_40_any_other_verifier_is_refused_in_every_guise(verifier: Any) -> None:
    with pytest.raises(ConfigurationError, match="RFC 7636"):
        AuthorizationCode("c", code_verifier=verifier)


@each
def test_S_22_a_grant_prints_no_secret(make: Callable[..., Any]) -> None:
    shown = repr(make(extra={"assertion": "CANARY"}))
    assert "CANARY" not in shown
    for secret in ("'rt'", "'code'", "'dc'"):
        assert secret not in shown


@each
def test_a_grant_can_be_replaced_and_compared(make: Callable[..., Any]) -> None:
    grant = make(scope="a", resource="urn:a", extra={"x": "1"})
    assert grant.replace() == grant
    assert hash(grant.replace()) == hash(grant)
    changed = grant.replace(scope="b")
    assert (changed.scope, changed.resource, changed.extra) == ("b", ("urn:a",), (("x", "1"),))
    assert changed != grant
