"""Arguments that can't work: each is a ConfigurationError that names it, when the object is made, before any I/O."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pytest

from aiohttp_oauth_middleware import (
    AuthorizationCode,
    BearerHeader,
    Client,
    ClientCredentials,
    ClientSecret,
    ClientSecretBasic,
    ClientSecretPost,
    ConfigurationError,
    ExtensionGrant,
    FormBody,
    Header,
    Hook,
    InsecureQuery,
    MemoryStore,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    OAuth2Auth,
    Quirks,
    RefreshToken,
    Secret,
    ServerMetadata,
    SignatureMethod,
    StaticToken,
    Token,
    Tokens,
)
from aiohttp_oauth_middleware.clock import SystemClock
from aiohttp_oauth_middleware.middleware.gate import Gate
from aiohttp_oauth_middleware.protocol.password import Password
from tests.unit.test_token import own_locals

AS = "https://as.example"
METADATA = ServerMetadata(AS, token_endpoint=AS + "/token")
CLIENT = Client(METADATA, "id", ClientSecret("secret"))
VERIFIER = "v" * 43
CONSUMER = OAuth1Client("id", "CANARY")


async def _async(*arguments: object) -> None: ...


def but(given: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """What is *given*, and the *rest*."""
    return rest | given


def password(**given: Any) -> Password:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Password(**but(given, username="alice", password="CANARY"))


NO_NUMBER: Final[tuple[Any, ...]] = (True, "5", b"5", [], math.nan, math.inf, -math.inf, 10**400, -1, int)
NO_FLAG: Final[tuple[Any, ...]] = (None, 0, 1, "false", "", [], object(), bool)
NO_STRING: Final[tuple[Any, ...]] = (7, 1.5, True, b"x", ["x"], object(), str)
NO_TEXT: Final[tuple[Any, ...]] = (*NO_STRING, None, "")
NO_CALLABLE: Final[tuple[Any, ...]] = (7, True, "x", b"x", [], {}, object())
NO_URL: Final[tuple[Any, ...]] = (
    *NO_STRING,
    "",
    "as.example",
    "//as.example",
    "ftp://as.example",
    AS + "/#x",
    "https://",
    AS + "/ x",
    "https://a:b@c/",
)
NO_METHODS: Final[tuple[Any, ...]] = ("client_secret_basic", 7, [7], [None], [["x"]], object())
NO_EXTRA: Final[tuple[Any, ...]] = (
    None,
    7,
    "a=b",
    b"x",
    [("a", "b")],
    {"": "b"},
    {7: "b"},
    {"a": None},
    {"a": 7},
    {"a": b"x"},
    {"a": ["x", 7]},
    {"client_secret": "CANARY"},
    {"grant_type": "x"},
    {"scope": "x"},
    ("a",),
    (("a",),),
    (("a", "b", "c"),),
    ((7, "b"),),
    dict,
)
SHARED: Final[Mapping[str, Iterable[Any]]] = {
    "scope": (7, 1.5, True, b"x", [7], [None], [""], ["a b"], 'a"b', "a\\b", "ä", object(), str),
    "resource": (None, 7, "", "api.example", "https://api.example/#x", ["https://api.example", ""], [7], b"x", object(), str),
    "audience": NO_STRING,
    "extra": NO_EXTRA,
}

# What makes it, and what it can't be made of. Each value stands for itself; the rest of the arguments is good.
TABLE: Final[Mapping[str, tuple[Callable[..., object], Mapping[str, Iterable[Any]]]]] = {
    "Client": (
        lambda **given: Client(**but(given, server=AS, client_id="id")),
        {
            "server": (None, *NO_URL, ServerMetadata, CLIENT, AS + "?x=1"),
            "client_id": (*NO_TEXT, "a\nb", "\ud800"),
            "authentication": (7, "CANARY", b"CANARY", ["CANARY"], ("id", "CANARY"), object(), ClientSecret, Secret("CANARY")),
            "metadata_issuer": (*NO_STRING, ""),
            "quirks": (7, "x", {}, [], object(), Quirks),
            "session_factory": NO_CALLABLE,
            "timeout": (*NO_NUMBER, 0, None),
            "hooks": (None, 7, "x", [7], [None], [print], [Hook], Hook, Hook("access_token_request", print)),
            "insecure_http": NO_FLAG,
            "token_body_limit": (*NO_NUMBER, 0, None),
            "metadata_body_limit": (*NO_NUMBER, 0, None),
            "clock": (7, "x", object(), SystemClock),
        },
    ),
    "Tokens": (
        lambda **given: Tokens(**but(given, client=CLIENT, grant=ClientCredentials())),
        {
            "client": (None, 7, AS, METADATA, object(), Client),
            "grant": (7, "client_credentials", b"x", [], {}, object(), ClientCredentials, ExtensionGrant, Password, Token),
            "store": (7, "redis://", {}, object(), MemoryStore),
            "key": (None, 7, "", b"x", ["x"], object()),
            "leeway": (*NO_NUMBER, None),
            "cache_size": (*NO_NUMBER, 0, None),
            "shutdown_grace": (*NO_NUMBER, None),
            "on_token": NO_CALLABLE,
            "on_event": (*NO_CALLABLE, _async),
        },
    ),
    "OAuth2Auth": (
        lambda **given: OAuth2Auth(**but(given, source=StaticToken("CANARY"))),
        {
            "source": (None, 7, "CANARY", b"CANARY", Token("CANARY"), Secret("CANARY"), CLIENT, object(), Tokens, StaticToken),
            "origins": (7, "", "api.example", "*", [], [7], [None], b"x", object(), str, _async),
            "placement": (7, "Authorization", object(), BearerHeader, Header, FormBody),
            "expired_when": (*NO_CALLABLE, dict, bool),
            "insecure_http": NO_FLAG,
            "fresh_token_delay": NO_NUMBER,
            "on_event": (*NO_CALLABLE, _async),
        },
    ),
    "Gate": (
        lambda **given: Gate(**given),
        {
            "origins": (
                7,
                "",
                "api.example",
                "//api.example",
                "ftp://api.example",
                "file:///etc/passwd",
                "https://",
                "https://*.example",
                "https://a:b@api.example",
                "https://api.example/?x",
                "https://api.example/#x",
                "https://api.example:x",
                b"https://api.example",
                [],
                (),
                {},
                [None],
                [7],
                ["https://api.example", ""],
                object(),
                dict,
                _async,
            )
        },
    ),
    "Header": (
        lambda **given: Header(**given),
        {
            "field": (*NO_TEXT, "X Auth", "X:", "X\r\nY", "é"),
            "scheme": (*NO_STRING, None, "two words", "x\n", "é"),
        },
    ),
    "FormBody": (lambda **given: FormBody(**given), {"name": (*NO_TEXT, "a b", "a=b", "a&b", "é", "a\n")}),
    "InsecureQuery": (lambda **given: InsecureQuery(**given), {"name": (*NO_TEXT, "a b", "a=b", "a&b", "é", "a\n")}),
    "ClientCredentials": (lambda **given: ClientCredentials(**given), SHARED),
    "RefreshToken": (
        lambda **given: RefreshToken(**but(given, refresh_token="CANARY")),
        {"refresh_token": (*NO_TEXT, Secret(""), Secret), **SHARED, "extra": (*NO_EXTRA, {"refresh_token": "CANARY"})},
    ),
    "AuthorizationCode": (
        lambda **given: AuthorizationCode(**but(given, code="CANARY")),
        {
            "code": (*NO_TEXT, Secret(""), Secret),
            "redirect_uri": NO_STRING,
            "code_verifier": (*NO_STRING, "", "short", VERIFIER + "!", "v" * 129, Secret("short"), Secret),
            **SHARED,
            "extra": (*NO_EXTRA, {"code": "CANARY"}, {"code_verifier": "CANARY"}),
        },
    ),
    "ExtensionGrant": (
        lambda **given: ExtensionGrant(**but(given, grant_type="urn:x", own={"assertion": "CANARY"})),
        {
            "grant_type": (*NO_TEXT, Secret("urn:x")),
            "own": NO_EXTRA,
            "unattended": NO_FLAG,
            "single_use": NO_FLAG,
            **SHARED,
            "extra": (*NO_EXTRA, {"assertion": "CANARY"}),
        },
    ),
    "Password": (
        password,
        {"username": NO_TEXT, "password": (*NO_TEXT, Secret(""), Secret), **SHARED, "extra": (*NO_EXTRA, {"username": "x"})},
    ),
    "Quirks": (
        lambda **given: Quirks(**given),
        {
            "token_types": (None, 7, True, "", [7], [None], [""], b"x", object(), str),
            "default_lifetime": (*NO_NUMBER, 0),
            "renamed": (None, 7, "x", [("a", "b")], {"a": None}, {"a": 7}, {7: "b"}, {"": "b"}, {"a": ""}, dict),
            "token_path": (None, 7, True, "", [7], [None], ["a", ""], b"x", object(), str),
            "vschar_tokens": NO_FLAG,
            "strict_scope": NO_FLAG,
            "refusals_before_latch": (*NO_NUMBER, 0, None),
            "scope_on_refresh": NO_FLAG,
            "client_id_in_body": NO_FLAG,
            "json_request": NO_FLAG,
            "insecure_get_request": NO_FLAG,
        },
    ),
    "ServerMetadata": (
        lambda **given: ServerMetadata(**but(given, issuer=AS, token_endpoint=AS + "/token")),
        {
            "issuer": NO_URL,
            "authorization_endpoint": NO_URL,
            "token_endpoint": NO_URL,
            "revocation_endpoint": NO_URL,
            "introspection_endpoint": NO_URL,
            "token_endpoint_auth_methods_supported": NO_METHODS,
            "revocation_endpoint_auth_methods_supported": NO_METHODS,
            "introspection_endpoint_auth_methods_supported": NO_METHODS,
            "extra": (None, 7, "x", [("a", "b")], object(), dict),
        },
    ),
    "OAuth1Client": (
        lambda **given: OAuth1Client(**but(given, client_id="id", client_secret="CANARY")),
        {
            "client_id": (*NO_TEXT, "a\nb", "\ud800"),
            "client_secret": (
                7,
                True,
                b"CANARY",
                ["CANARY"],
                object(),
                str,
                Secret,
                "CANARY\n",
                "CANARY\ud800",
                Secret("CANARY\n"),
            ),
            "redirect_uri": (
                *NO_TEXT,
                "app.example",
                "/callback",
                "//app.example/callback",
                "https://a b/",
                "https://a\n/",
                "http://[",
            ),
            "signature_method": (
                *NO_TEXT,
                "hmac-sha1",
                "RSA-SHA1",
                "CANARY",
                b"CANARY",
                ["CANARY"],
                SignatureMethod,
                lambda text, client_secret, token_secret: text,
            ),
            "realm": (*NO_STRING, 'a"b', "a\\b", "a\nb", "\ud800"),
            "placement": (*NO_TEXT, "body", "HEADER", ["header"], BearerHeader()),
            "body_hash": (*NO_TEXT, True, False, "ON", ["on"]),
            "send_version": NO_FLAG,
            "revision_a": NO_FLAG,
            "session_factory": NO_CALLABLE,
            "timeout": (*NO_NUMBER, 0, None),
            "insecure_http": NO_FLAG,
            "token_body_limit": (*NO_NUMBER, 0, None),
            "clock": (7, "x", object(), SystemClock),
        },
    ),
    "OAuth1Auth": (
        lambda **given: OAuth1Auth(**but(given, client=CONSUMER, token=OAuth1Token("CANARY", "CANARY"))),
        {
            "client": (None, 7, "id", CLIENT, object(), OAuth1Client),
            "token": (
                7,
                "CANARY",
                b"CANARY",
                {"oauth_token": "CANARY"},
                Token("CANARY"),
                CONSUMER,
                object(),
                OAuth1Token,
                OAuth1Tokens,
            ),
            "origins": (7, "", "api.example", "*", [], [7], [None], b"x", object(), str, _async),
            "insecure_http": NO_FLAG,
            "on_event": (*NO_CALLABLE, _async),
        },
    ),
    "OAuth1Tokens": (
        lambda **given: OAuth1Tokens(**but(given, client=CONSUMER)),
        {
            "store": (7, "redis://", {}, object(), MemoryStore),
            "key": (None, 7, "", b"x", ["x"], object()),
            "client": (7, "id", CLIENT, object(), OAuth1Client),
            "renewal_url": (*NO_URL, "http://api.example/renew", AS + ":0/"),
            "cache_size": (*NO_NUMBER, 0, None),
        },
    ),
    "OAuth1Token": (
        lambda **given: OAuth1Token(**but(given, oauth_token="CANARY", oauth_token_secret="CANARY")),
        {
            "oauth_token": (*NO_TEXT, "CANARY\n"),
            "oauth_token_secret": (*NO_STRING, None, "CANARY\n"),
            "oauth_session_handle": (*NO_STRING, "CANARY\n"),
            "expires_at": ("5", b"5", True, [], math.nan, math.inf, -math.inf, 10**400, int),
            "session_expires_at": ("5", b"5", True, [], math.nan, math.inf, -math.inf, 10**400, int),
            "extra": (
                None,
                7,
                "x",
                [("a", "CANARY")],
                {7: "CANARY"},
                {"oauth_token": "CANARY"},
                {"oauth_expires_in": "5"},
                dict,
            ),
        },
    ),
    "SignatureMethod": (
        lambda **given: SignatureMethod(**but(given, name="MINE", sign=print)),
        {
            "name": (*NO_TEXT, "two words", "a\n", 'a"b', "é", "\ud800"),
            "sign": (None, *NO_CALLABLE, str, SignatureMethod),
            "hash_name": (*NO_TEXT, "sha", "SHA-1024", "shake_128", ["sha1"]),
        },
    ),
    "SignatureMethod.rsa": (
        lambda **given: SignatureMethod.rsa(**but(given, name="RSA-SHA1", key="-----BEGIN CANARY")),
        {
            "name": (*NO_TEXT, "RSA-MD5", "rsa-sha1", "HMAC-SHA1", ["RSA-SHA1"]),
            "key": (None, 7, "", "CANARY", b"CANARY", ["CANARY"], {"kty": "CANARY"}, object(), str),
        },
    ),
    "Secret": (
        lambda **given: Secret(given["Secret"]),
        {"Secret": (None, 7, True, b"CANARY", ["CANARY"], object(), str, Secret)},
    ),
    "ClientSecret": (
        lambda **given: ClientSecret(**but(given, secret="CANARY")),
        {"secret": (*NO_TEXT, Secret(""), Secret), "probe": NO_FLAG},
    ),
    "ClientSecretBasic": (
        lambda **given: ClientSecretBasic(**but(given, secret="CANARY")),
        {"secret": (*NO_TEXT, Secret(""), Secret), "encoded": NO_FLAG},
    ),
    "ClientSecretPost": (lambda **given: ClientSecretPost(**given), {"secret": (*NO_TEXT, Secret(""), Secret)}),
    "StaticToken": (
        lambda **given: StaticToken(**given),
        {"token": (*NO_TEXT, {}, Secret(""), Secret("CAN ARY"), "CAN ARY", "CANARY\n", Token, Secret)},
    ),
    "Hook": (
        lambda **given: Hook(**but(given, point="access_token_request", function=print)),
        {"point": (*NO_TEXT, "protected_request", None, []), "function": (None, *NO_CALLABLE)},
    ),
}

CASES = [
    pytest.param(name, argument, value, id=f"{name}-{argument}-{ascii(value)[:30]}")
    for name, (_, arguments) in TABLE.items()
    for argument, values in arguments.items()
    for value in values
]


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_F_55_what_cannot_work_is_refused_by_name_before_any_io(name: str, argument: str, value: Any) -> None:
    make, _ = TABLE[name]
    with pytest.raises(ConfigurationError) as caught:
        make(**{argument: value})
    assert argument in str(caught.value)
    assert "CANARY" not in str(caught.value)
    if name.startswith(("OAuth1", "SignatureMethod")):
        assert "CANARY" not in own_locals(caught.value.__traceback__)
    assert not caught.value.retryable


@pytest.mark.parametrize("data", [None, 7, "x", [("issuer", AS)], object()], ids=ascii)
def test_F_55_metadata_is_made_of_a_mapping(data: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"ServerMetadata\.from_dict needs a mapping"):
        ServerMetadata.from_dict(data)


@pytest.mark.parametrize("scope", [7, ["r", "w"], b"r", object()], ids=ascii)
def test_F_55_the_scope_of_a_token_is_a_string(scope: Any) -> None:
    with pytest.raises(ConfigurationError, match="scope must be None or a string"):
        Token("CANARY", scope=scope)


def test_what_is_read_when_it_is_sent_is_taken_unread() -> None:
    def never() -> str:
        raise AssertionError

    AuthorizationCode(Secret(never), code_verifier=Secret(never))
    RefreshToken(Secret(never))
    ClientSecret(never)
    StaticToken(never)


@pytest.mark.parametrize("name", TABLE)
def test_F_55_what_the_table_leaves_as_it_is_can_be_made(name: str) -> None:
    make, arguments = TABLE[name]
    good: dict[str, Any] = {
        "Secret": {"Secret": "CANARY"},
        "ClientSecretPost": {"secret": "CANARY"},
        "StaticToken": {"token": "CANARY"},
        "Gate": {"origins": "https://api.example"},
    }
    assert make(**good.get(name, {})) is not None
    assert arguments
