"""Server metadata: what is believed, where it lies, and which URLs may carry a credential."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from aiohttp_oauth_middleware import ConfigurationError, DiscoveryError, ServerMetadata
from aiohttp_oauth_middleware.errors import InsecureTransport
from aiohttp_oauth_middleware.protocol.metadata import parse_metadata, well_known_urls
from aiohttp_oauth_middleware.urls import absolute_url, is_loopback, require_tls

VECTORS = Path(__file__).parent.parent / "vectors"
DOCUMENTS: list[dict[str, Any]] = json.loads((VECTORS / "metadata.json").read_text("utf-8"))
PLACES: list[dict[str, str]] = json.loads((VECTORS / "well-known-urls.json").read_text("utf-8"))
ISSUER = "https://as.example/tenant"
METHODS = ("token", "revocation", "introspection")


@pytest.mark.parametrize("vector", DOCUMENTS, ids=lambda vector: str(vector["source"]))
def test_the_examples_of_the_rfc(vector: dict[str, Any]) -> None:
    document = vector["document"]
    metadata = parse_metadata(document, vector["issuer"])
    assert metadata.token_endpoint == document["token_endpoint"]
    assert metadata.authorization_endpoint == document["authorization_endpoint"]
    assert metadata.revocation_endpoint is None
    assert metadata.methods_supported("token") == tuple(document["token_endpoint_auth_methods_supported"])
    assert metadata.extra["jwks_uri"] == document["jwks_uri"]
    assert "issuer" not in metadata.extra


@pytest.mark.parametrize("vector", [v for v in PLACES if "issuer" in v], ids=lambda vector: str(vector["issuer"]))
def test_S_14_the_well_known_places_of_the_rfcs(vector: dict[str, str]) -> None:
    found = well_known_urls(vector["issuer"])
    assert found[:2] == (vector["oauth_authorization_server"], vector["openid_configuration_append"])
    if inserted := vector.get("openid_configuration_insert"):
        assert found[-1] == inserted
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("issuer", "places"),
    [
        ("https://as.example/", ("https://as.example/.well-known/oauth-authorization-server",)),
        ("https://as.example:8443/a/", ("https://as.example:8443/.well-known/oauth-authorization-server/a",)),
        (
            "https://as.example/a/b",
            (
                "https://as.example/.well-known/oauth-authorization-server/a/b",
                "https://as.example/a/b/.well-known/openid-configuration",
                "https://as.example/a/b/.well-known/oauth-authorization-server",
                "https://as.example/.well-known/openid-configuration/a/b",
            ),
        ),
    ],
)
def test_the_slash_at_the_end_of_an_issuer_is_removed_before_inserting(issuer: str, places: tuple[str, ...]) -> None:
    assert well_known_urls(issuer)[: len(places)] == places


@pytest.mark.parametrize(
    "stated",
    [
        "https://as.example/tenant/",
        "https://as.example/Tenant",
        "https://AS.example/tenant",
        "https://as.example:443/tenant",
        "http://as.example/tenant",
        "https://as.example/%74enant",
        " https://as.example/tenant",
        "https://evil.example/tenant",
        "",
        None,
        5,
        ["https://as.example/tenant"],
    ],
)
def test_S_14_the_issuer_is_compared_exactly(stated: object) -> None:
    with pytest.raises(DiscoveryError, match="metadata_issuer=") as caught:
        parse_metadata({"issuer": stated, "token_endpoint": "https://as.example/token"}, ISSUER)
    assert caught.value.rule == "RFC 8414 section 3.3"
    assert "evil" not in str(caught.value)


def test_S_14_without_an_issuer_there_is_no_metadata() -> None:
    with pytest.raises(DiscoveryError):
        parse_metadata({"token_endpoint": "https://as.example/token"}, ISSUER)


BAD_URLS: list[Any] = [
    "",
    "/token",
    "token",
    "//as.example/token",
    "https:///token",
    "https://",
    "ftp://as.example/token",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "https://as.example/token#",
    "https://as.example/token#part",
    "https://user@as.example/token",
    "https://user:pass@as.example/token",
    "https://:pass@as.example/token",
    "https://as.example\\@evil.example/token",
    "https://as.example:99999/token",
    "https://as.example:x/token",
    "https://[::1/token",
    "https://as.example/a b",
    "https://as.example/\r\nX: y",
    "https://as.example/\x00",
    "https://é.example/",
    "https://as.example/é",
    None,
    5,
    True,
    [],
    {},
    b"https://as.example/",
]


@pytest.mark.parametrize("url", BAD_URLS, ids=repr)
def test_S_29_what_is_no_absolute_url_is_refused_by_the_name_of_the_argument(url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^the_name must ") as caught:
        absolute_url("the_name", url)
    assert not isinstance(caught.value, InsecureTransport)
    assert "as.example" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://as.example",
        "https://as.example:8443/a?b=c",
        "http://127.0.0.1:1/x",
        "https://[::1]/",
        "https://xn--e-6ga.example/%C3%A9",
    ],
)
def test_an_absolute_url_is_kept_letter_by_letter(url: str) -> None:
    assert absolute_url("x", url) == URL(url, encoded=True)


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "revocation_endpoint", "introspection_endpoint"])
@pytest.mark.parametrize("url", [url for url in BAD_URLS if url is not None], ids=repr)
def test_an_endpoint_that_is_no_url_is_refused(name: str, url: Any) -> None:
    given: dict[str, Any] = {"issuer": ISSUER, name: url}
    with pytest.raises(ConfigurationError, match=name):
        ServerMetadata(**given)
    with pytest.raises(DiscoveryError, match=name) as caught:
        parse_metadata(given, ISSUER)
    assert caught.value.rule == "RFC 8414 section 2"


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("methods", ["client_secret_basic", [5], [None], {"client_secret_basic": 1}, 5, True], ids=repr)
def test_methods_that_are_no_list_of_names_are_refused(kind: str, methods: Any) -> None:
    given = {"issuer": ISSUER, f"{kind}_endpoint_auth_methods_supported": methods}
    with pytest.raises(DiscoveryError, match="must be a list of method names"):
        parse_metadata(given, ISSUER)


@pytest.mark.parametrize("methods", ["client_secret_basic", [5]])
def test_the_constructor_refuses_such_methods_too(methods: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a list of method names"):
        ServerMetadata(ISSUER, token_endpoint_auth_methods_supported=methods)


def test_null_counts_as_absent() -> None:
    document = {"issuer": ISSUER, "token_endpoint": None, "token_endpoint_auth_methods_supported": None}
    assert parse_metadata(document, ISSUER) == ServerMetadata(ISSUER)


def test_it_needs_an_issuer_or_a_token_endpoint() -> None:
    with pytest.raises(ConfigurationError, match="at least an issuer or a token_endpoint"):
        ServerMetadata(revocation_endpoint="https://as.example/revoke")
    assert ServerMetadata(token_endpoint="https://as.example/token").issuer is None
    with pytest.raises(ConfigurationError, match="issuer"):
        ServerMetadata("as.example")


def test_from_dict_takes_what_a_server_publishes() -> None:
    metadata = ServerMetadata.from_dict({"issuer": ISSUER, "token_endpoint": "https://as.example/t", "x": {"y": 1}})
    assert metadata == ServerMetadata(ISSUER, token_endpoint="https://as.example/t", extra={"x": {"y": 1}})
    assert ServerMetadata.from_dict({"issuer": ISSUER, "token_endpoint_auth_methods_supported": ("none",)}) == ServerMetadata(
        ISSUER, token_endpoint_auth_methods_supported=["none"]
    )


def test_the_methods_of_an_endpoint_default_to_those_of_the_token_endpoint_and_then_to_basic() -> None:
    nothing = ServerMetadata(ISSUER)
    assert [nothing.methods_supported(kind) for kind in METHODS] == [("client_secret_basic",)] * 3
    one = ServerMetadata(
        ISSUER,
        token_endpoint_auth_methods_supported=["client_secret_post"],
        revocation_endpoint_auth_methods_supported=["none"],
        introspection_endpoint_auth_methods_supported=[],
    )
    assert [one.methods_supported(kind) for kind in METHODS] == [("client_secret_post",), ("none",), ("client_secret_post",)]


LOOPBACK = ("127.0.0.1", "127.0.0.2", "127.255.255.255", "localhost", "[::1]")
NOT_LOOPBACK = (
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "localhost.",
    "LOCALHOST",
    "evil-localhost",
    "app.localhost",
    "0.0.0.0",
    "127.1",
    "0x7f.1",
    "2130706433",
    "0177.0.0.1",
    "127.0.0.1.",
    "128.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[fe80::1]",
    "as.example",
)


@pytest.mark.parametrize("host", LOOPBACK)
def test_S_29_plain_http_is_for_this_machine(host: str) -> None:
    require_tls("x", URL(f"http://{host}:8080/token", encoded=True), False)


@pytest.mark.parametrize("host", NOT_LOOPBACK)
def test_S_29_plain_http_to_another_machine_is_refused_unless_the_object_says_so(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUTHLIB_INSECURE_TRANSPORT", "OAUTHLIB_INSECURE_TRANSPORT"):
        monkeypatch.setenv(name, "1")
    url = URL(f"http://{host}/token", encoded=True)
    with pytest.raises(InsecureTransport, match="the_name is plain http"):
        require_tls("the_name", url, False)
    require_tls("the_name", url, True)
    require_tls("the_name", url.with_scheme("https"), False)


def test_S_29_no_host_is_not_this_machine() -> None:
    assert not is_loopback(None)


def test_what_can_be_read_once_only_is_kept() -> None:
    names = ("client_secret_post", "private_key_jwt")
    metadata = ServerMetadata(
        ISSUER,
        **{f"{endpoint}_endpoint_auth_methods_supported": (name for name in names) for endpoint in METHODS},  # type: ignore[arg-type]
    )
    for endpoint in METHODS:
        assert metadata.methods_supported(endpoint) == names
        assert metadata.methods_supported(endpoint) == names
    assert metadata.replace() == metadata
