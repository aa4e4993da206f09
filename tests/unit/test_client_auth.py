"""How a client proves who it is: the bytes of it, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_oauth_middleware import (
    ClientAuthentication,
    ClientSecret,
    ClientSecretBasic,
    ClientSecretPost,
    ConfigurationError,
    EndpointRequest,
    NoAuthentication,
    Secret,
)
from aiohttp_oauth_middleware.protocol.client_auth import basic

VECTORS = Path(__file__).parent.parent / "vectors"
BASIC: list[dict[str, str]] = json.loads((VECTORS / "client-secret-basic.json").read_text("utf-8"))
FORM: dict[str, str] = json.loads((VECTORS / "form-urlencoding.json").read_text("utf-8"))

Holder = Callable[[Any], ClientSecret | ClientSecretBasic | ClientSecretPost]
HOLDERS: tuple[Holder, ...] = (ClientSecret, ClientSecretBasic, ClientSecretPost)


async def applied(
    authentication: ClientAuthentication, client_id: str = "id", supported: tuple[str, ...] = ("client_secret_basic",)
) -> tuple[dict[str, str], dict[str, str]]:
    """The form and the header fields that *authentication* adds to an empty request."""
    request = EndpointRequest("https://as.example/token")
    await authentication.authenticate(request, client_id, supported)
    await request.settle()
    assert len(dict(request.form)) == len(request.form)
    reveal: Callable[[str | Secret], str] = lambda v: v.reveal() if isinstance(v, Secret) else v  # noqa: E731
    return {n: reveal(v) for n, v in request.form}, {n: reveal(v) for n, v in request.headers.items()}


@pytest.mark.parametrize("vector", BASIC, ids=lambda vector: vector["source"])
async def test_S_28_the_examples_of_the_rfc(vector: dict[str, str]) -> None:
    expected = {"Authorization": vector["authorization"]}
    assert await applied(ClientSecretBasic(vector["client_secret"]), vector["client_id"]) == ({}, expected)
    assert await applied(ClientSecretBasic(vector["client_secret"], encoded=False), vector["client_id"]) == ({}, expected)


def test_S_28_id_and_secret_are_form_encoded_before_they_go_into_basic() -> None:
    value = basic(FORM["input"], FORM["input"])
    assert base64.b64decode(value.removeprefix("Basic ")).decode("ascii") == f"{FORM['encoded']}:{FORM['encoded']}"


@pytest.mark.parametrize(
    ("client_id", "secret", "plain"),
    [
        ("a:b", "c:d", "a%3Ab:c%3Ad"),
        ("a b", "c+d", "a+b:c%2Bd"),
        ("100%", "%41", "100%25:%2541"),
        ("é", "€", "%C3%A9:%E2%82%AC"),
        ("a/b?c", "x&y=z", "a%2Fb%3Fc:x%26y%3Dz"),
    ],
)
def test_S_28_what_other_clients_get_wrong_is_encoded(client_id: str, secret: str, plain: str) -> None:
    assert base64.b64decode(basic(client_id, secret)[6:]).decode("ascii") == plain


def test_S_28_a_server_that_wants_them_raw_can_have_them_so() -> None:
    assert base64.b64decode(basic("a b", "c:d%+é", encoded=False)[6:]).decode() == "a b:c:d%+é"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"])))
def test_S_28_what_is_encoded_can_be_decoded(client_id: str, secret: str) -> None:
    user, colon, password = base64.b64decode(basic(client_id, secret)[6:]).decode("ascii").partition(":")
    assert (unquote_plus(user), colon, unquote_plus(password)) == (client_id, ":", secret)


async def test_S_13_S_29_one_method_at_a_time() -> None:
    assert await applied(NoAuthentication()) == ({"client_id": "id"}, {})
    assert await applied(ClientSecretPost("s3cret")) == ({"client_id": "id", "client_secret": "s3cret"}, {})
    assert await applied(ClientSecretBasic("s3cret")) == ({}, {"Authorization": basic("id", "s3cret")})


@pytest.mark.parametrize(
    ("supported", "method"),
    [
        (("client_secret_basic",), ClientSecretBasic),
        (("client_secret_post",), ClientSecretPost),
        (("client_secret_post", "client_secret_basic"), ClientSecretBasic),
        (("private_key_jwt", "client_secret_post"), ClientSecretPost),
    ],
)
async def test_S_13_S_29_a_secret_goes_by_one_method_that_the_server_supports(
    supported: tuple[str, ...], method: Holder
) -> None:
    assert ClientSecret("s3cret").candidates(supported) == (method("s3cret"),)
    assert await applied(ClientSecret("s3cret"), supported=supported) == await applied(method("s3cret"))


@pytest.mark.parametrize("supported", [(), ("private_key_jwt",), ("none", "tls_client_auth")])
async def test_S_29_a_server_that_takes_no_secret_gets_none(supported: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="neither client_secret_basic nor client_secret_post"):
        await applied(ClientSecret("s3cret"), supported=supported)


@pytest.mark.parametrize(
    ("supported", "first", "second"),
    [
        (("client_secret_basic",), ClientSecretBasic, ClientSecretPost),
        (("client_secret_post",), ClientSecretPost, ClientSecretBasic),
        (("client_secret_post", "client_secret_basic"), ClientSecretBasic, ClientSecretPost),
        ((), ClientSecretBasic, ClientSecretPost),
    ],
)
def test_S_28_a_probe_has_every_way_in_the_order_of_likelihood(
    supported: tuple[str, ...], first: Holder, second: Holder
) -> None:
    found = ClientSecret("s", probe=True).candidates(supported)
    assert found == (first("s"), second("s"), ClientSecretBasic("s", encoded=False))


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("secret", ["", None, Secret("")])
def test_an_empty_secret_is_refused(holder: Holder, secret: object) -> None:
    with pytest.raises(ConfigurationError, match="the secret is empty; a public client takes authentication=None"):
        holder(secret)


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("secret", [5, b"s3cret", ["s3cret"]])
def test_a_secret_that_can_not_be_one_is_refused_without_being_shown(holder: Holder, secret: object) -> None:
    with pytest.raises(ConfigurationError, match="must be a string, a Secret, or a callable") as caught:
        holder(secret)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("holder", HOLDERS)
def test_S_22_no_method_prints_its_secret(holder: Holder) -> None:
    assert "s3cret" not in repr(holder("s3cret"))
    assert holder("s3cret") == holder(Secret("s3cret"))
    assert holder("s3cret") != holder("other")


@pytest.mark.parametrize("holder", HOLDERS)
async def test_a_callable_is_called_at_each_use(holder: Holder) -> None:
    secrets = iter(["one", "two"])

    async def read() -> str:
        return next(secrets)

    authentication = holder(read)
    assert await applied(authentication) == await applied(holder("one"))
    assert await applied(authentication) == await applied(holder("two"))


@pytest.mark.parametrize(
    "authentication", [NoAuthentication(), ClientSecret("s"), ClientSecretBasic("s"), ClientSecretPost("s")]
)
def test_each_is_a_client_authentication(authentication: object) -> None:
    assert isinstance(authentication, ClientAuthentication)


def test_S_28_a_client_id_with_a_colon_is_not_sent_raw() -> None:
    with pytest.raises(ConfigurationError, match=r"client_id with a colon.*encoded=True"):
        basic("CANARY:id", "CANARY", encoded=False)
