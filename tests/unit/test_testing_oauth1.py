"""The OAuth 1 side of the test server, driven by plain HTTP and signed by oauthlib, which others wrote."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pytest
from aiohttp import ClientConnectionError, ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from oauthlib.oauth1 import Client
from oauthlib.oauth1.rfc5849 import SIGNATURE_METHODS
from yarl import URL

from aiohttp_oauth_middleware import ConfigurationError
from aiohttp_oauth_middleware.testing import TOKEN, AuthorizationServer, EchoAPI, OAuth1Server
from aiohttp_oauth_middleware.testing.plugin import oauth1_api, oauth1_server, oauth_server

__all__ = ("oauth1_api", "oauth1_server", "oauth_server")

CALLBACK = "https://app.example/callback?next=%2Fa%20b#top"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
KEY = rsa.generate_private_key(65537, 2048)
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PLAIN = 'oauth_consumer_key="app", oauth_signature_method="PLAINTEXT", oauth_signature="app-secret%26"'


class ManualClock:
    """Epoch seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    """An answer, read to its end."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.text, keep_blank_values=True, strict_parsing=bool(self.text)))

    @property
    def problem(self) -> tuple[int, str]:
        """The status, and the problem that header and body name."""
        told = json.loads(self.text)["refused"] if self.text.startswith("{") else self.form["oauth_problem"]
        assert f'oauth_problem="{told}"' in self.headers["WWW-Authenticate"]
        return self.status, told


class Caller:
    """Signs by oauthlib as the client ``app`` unless told otherwise, at the time of the server."""

    def __init__(self, server: OAuth1Server, session: ClientSession, clock: ManualClock) -> None:
        self.server = server
        self.session = session
        self.clock = clock

    async def send(self, method: str, url: str | URL, **options: Any) -> Reply:
        encoded = url if isinstance(url, URL) else URL(url, encoded=True)
        async with self.session.request(method, encoded, allow_redirects=False, **options) as response:
            return Reply(response.status, await response.text(), response.headers)

    async def signed(
        self,
        method: str,
        url: str | URL,
        token: Mapping[str, str] | None = None,
        *,
        form: str | None = None,
        realm: str | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        **client: Any,
    ) -> Reply:
        if token is not None:
            client |= {
                "resource_owner_key": token["oauth_token"],
                "resource_owner_secret": token["oauth_token_secret"],
            }
        client = {"client_key": "app", "client_secret": "app-secret", "timestamp": str(int(self.clock.now))} | client
        signer = Client(**client)
        content_type = dict(FORM) if form is not None else {}
        uri, sent, body = signer.sign(str(url), method, form, content_type, realm)
        return await self.send(method, uri, headers=sent | dict(headers or {}), data=body if data is None else data)

    async def request_token(self, **options: Any) -> Reply:
        return await self.signed("POST", self.server.request_token_url, **({"callback_uri": CALLBACK} | options))

    async def access_token(self, request_token: Mapping[str, str], verifier: str | None, **options: Any) -> Reply:
        return await self.signed("POST", self.server.access_token_url, request_token, verifier=verifier, **options)

    async def three_legs(self, **options: Any) -> dict[str, str]:
        request_token = (await self.request_token(**options)).form
        verifier = URL(self.server.approve(request_token["oauth_token"])).query["oauth_verifier"]
        return (await self.access_token(request_token, verifier, **options)).form


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def whole(clock: ManualClock) -> Iterator[AuthorizationServer]:
    with AuthorizationServer(clock=clock) as server:
        yield server


@pytest.fixture
def server(whole: AuthorizationServer) -> OAuth1Server:
    return whole.oauth1


@pytest.fixture
def api(server: OAuth1Server) -> EchoAPI:
    return server.api()


@pytest.fixture
async def caller(server: OAuth1Server, clock: ManualClock) -> AsyncIterator[Caller]:
    async with ClientSession() as session:
        yield Caller(server, session, clock)


# Three legs


async def test_three_legs_and_a_resource(caller: Caller, server: OAuth1Server, api: EchoAPI) -> None:
    reply = await caller.request_token()
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-www-form-urlencoded")
    assert reply.headers["Cache-Control"] == "no-store"
    request_token = reply.form
    assert request_token.pop("oauth_callback_confirmed") == "true"
    assert set(request_token) == {"oauth_token", "oauth_token_secret"}

    reply = await caller.send("GET", URL(server.authorize_url) % {"oauth_token": request_token["oauth_token"]})
    assert reply.status == 302
    callback = URL(reply.headers["Location"], encoded=True)
    # RFC 5849 section 2.2: "the server MUST append the OAuth parameters to the end of the existing query."
    assert str(callback).startswith("https://app.example/callback?next=%2Fa%20b&oauth_token=")
    assert callback.fragment == "top"
    assert callback.query["oauth_token"] == request_token["oauth_token"]

    reply = await caller.access_token(request_token, callback.query["oauth_verifier"])
    assert reply.status == 200
    assert set(reply.form) == {"oauth_token", "oauth_token_secret"}
    reply = await caller.signed("GET", api.url / "reports", reply.form)
    assert (reply.status, json.loads(reply.text)["user"], json.loads(reply.text)["client"]) == (200, "alice", "app")

    counts = server.counts
    assert counts.requests == {"request_token": 1, "authorize": 1, "access_token": 1, "resource": 1}
    assert counts.verdicts == {"accepted": 3}
    assert counts.signature_methods == {"HMAC-SHA1": 3}
    assert counts.placements == {"header": 3}
    assert counts.parameters["oauth_verifier"] == counts.parameters["oauth_callback"] == 1
    assert len(counts.nonces) == 3
    assert (counts.tokens_issued, counts.renewals) == (1, 0)
    assert [record.kind for record in server.requests] == ["request_token", "access_token", "resource"]


@pytest.mark.parametrize("signature_type", ["AUTH_HEADER", "QUERY", "BODY"])
@pytest.mark.parametrize("signature_method", SIGNATURE_METHODS)
async def test_every_signature_method_in_every_placement(
    caller: Caller, api: EchoAPI, signature_method: str, signature_type: str
) -> None:
    caller.server.register("app", "app-secret", rsa_public_key=PUBLIC)
    options: dict[str, Any] = {"signature_method": signature_method, "signature_type": signature_type, "rsa_key": PRIVATE}
    # oauthlib decodes what is in a query or a form twice, so it may hold nothing that is encoded twice.
    token = await caller.three_legs(form="a=b+c&a=%2B", callback_uri="https://app.example/callback", **options)
    reply = await caller.signed("PUT", api.url / "a b" % [("q", "1+2"), ("q", "")], token, form="%C3%A9=%7E&x", **options)
    assert (reply.status, json.loads(reply.text)["user"]) == (200, "alice")
    place = {"AUTH_HEADER": "header", "QUERY": "query", "BODY": "form"}[signature_type]
    assert caller.server.counts.placements == {place: 3}
    assert caller.server.counts.signature_methods == {signature_method: 3}


async def test_out_of_band(caller: Caller, whole: AuthorizationServer) -> None:
    request_token = (await caller.request_token(callback_uri="oob")).form
    page = await caller.send("GET", URL(caller.server.authorize_url) % {"oauth_token": request_token["oauth_token"]})
    assert (page.status, "oauth_verifier" in page.text) == (200, True)
    shown = URL(caller.server.approve(request_token["oauth_token"], user="bob"))
    assert str(shown.with_query(None)) == caller.server.authorize_url
    assert (await caller.access_token(request_token, shown.query["oauth_verifier"])).status == 200


async def test_a_person_may_refuse(caller: Caller, whole: AuthorizationServer) -> None:
    request_token = (await caller.request_token()).form
    callback = URL(caller.server.deny(request_token["oauth_token"]), encoded=True)
    assert callback.query["oauth_problem"] == "permission_denied"
    assert callback.query["oauth_token"] == request_token["oauth_token"]
    assert (await caller.access_token(request_token, "any")).problem == (401, "permission_denied")
    whole.user = None
    reply = await caller.send("GET", URL(caller.server.authorize_url) % {"oauth_token": request_token["oauth_token"]})
    assert URL(reply.headers["Location"]).query["oauth_problem"] == "permission_denied"


async def test_a_verifier_must_be_the_right_one(caller: Caller) -> None:
    request_token = (await caller.request_token()).form
    assert (await caller.access_token(request_token, "early")).problem == (401, "permission_unknown")
    verifier = URL(caller.server.approve(request_token["oauth_token"])).query["oauth_verifier"]
    reply = await caller.access_token(request_token, None)
    assert reply.problem == (400, "parameter_absent")
    assert reply.form["oauth_parameters_absent"] == "oauth_verifier"
    assert (await caller.access_token(request_token, "wrong")).problem == (401, "verifier_invalid")
    assert (await caller.access_token(request_token, verifier)).status == 200
    assert (await caller.access_token(request_token, verifier)).problem == (401, "token_used")
    assert caller.server.counts.tokens_issued == 1


async def test_what_nobody_asked_for_can_not_be_decided(caller: Caller) -> None:
    used = (await caller.request_token()).form
    verifier = URL(caller.server.approve(used["oauth_token"])).query["oauth_verifier"]
    token = (await caller.access_token(used, verifier)).form
    for value in ("nobody's", used["oauth_token"], token["oauth_token"]):
        with pytest.raises(ConfigurationError, match="temporary"):
            caller.server.approve(value)
        with pytest.raises(ConfigurationError, match="temporary"):
            caller.server.deny(value)
        assert (await caller.send("GET", URL(caller.server.authorize_url) % {"oauth_token": value})).status == 400


async def test_temporary_credentials_are_those_of_one_client(caller: Caller) -> None:
    caller.server.register("other", "other-secret")
    request_token = (await caller.request_token()).form
    verifier = URL(caller.server.approve(request_token["oauth_token"])).query["oauth_verifier"]
    reply = await caller.access_token(request_token, verifier, client_key="other", client_secret="other-secret")
    assert reply.problem == (401, "token_rejected")


@pytest.mark.parametrize(
    ("callback", "problem", "named"),
    [
        (None, "parameter_absent", "oauth_parameters_absent"),
        ("/relative", "parameter_rejected", "oauth_parameters_rejected"),
        ("https://evil.example/", "parameter_rejected", "oauth_parameters_rejected"),
    ],
)
async def test_a_callback_is_absolute_and_registered(caller: Caller, callback: str, problem: str, named: str) -> None:
    caller.server.register("app", "app-secret", callbacks=CALLBACK)
    reply = await caller.request_token(callback_uri=callback)
    assert reply.problem == (400, problem)
    assert reply.form[named] == "oauth_callback"
    assert (await caller.request_token()).status == 200
    assert (await caller.request_token(callback_uri="oob")).status == 200


async def test_oauth_1_0_before_its_revision(caller: Caller) -> None:
    caller.server.confirm_callbacks = False
    request_token = (await caller.request_token(callback_uri=None)).form
    assert set(request_token) == {"oauth_token", "oauth_token_secret"}
    query = {"oauth_token": request_token["oauth_token"], "oauth_callback": CALLBACK}
    reply = await caller.send("GET", URL(caller.server.authorize_url) % query)
    assert set(URL(reply.headers["Location"]).query) == {"next", "oauth_token"}
    assert (await caller.access_token(request_token, None)).status == 200
    assert (await caller.access_token(request_token, None)).problem == (401, "token_used")
    unknown = {"oauth_token": "nobody's", "oauth_token_secret": ""}
    assert (await caller.access_token(unknown, None)).problem == (401, "token_rejected")


# Who signs


async def test_a_signature_by_other_secrets_is_refused(caller: Caller, api: EchoAPI) -> None:
    assert (await caller.request_token(client_secret="wrong")).problem == (401, "signature_invalid")
    token = await caller.three_legs()
    assert (await caller.signed("GET", api.url, token | {"oauth_token_secret": "wrong"})).problem == (401, "signature_invalid")
    assert (await caller.signed("GET", api.url, token, client_secret="wrong")).problem == (401, "signature_invalid")
    plain: dict[str, Any] = {"signature_method": "PLAINTEXT"}
    assert (await caller.signed("GET", api.url, token, client_secret="é", **plain)).problem == (401, "signature_invalid")
    assert caller.server.counts.verdicts["signature_invalid"] == 4


@pytest.mark.parametrize("method", ["RSA-SHA1", "RSA-SHA256", "RSA-SHA512"])
async def test_a_signature_by_another_key_is_refused(caller: Caller, api: EchoAPI, method: str) -> None:
    other = rsa.generate_private_key(65537, 2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    caller.server.register("robot", rsa_public_key=KEY.public_key())
    api = caller.server.api(two_legged=True)
    options: dict[str, Any] = {"client_key": "robot", "signature_method": method}
    assert (await caller.signed("GET", api.url, rsa_key=pem, **options)).problem == (401, "signature_invalid")
    assert (await caller.signed("GET", api.url, rsa_key=PRIVATE, **options)).status == 200
    # A client is known by what it was registered with, and by nothing else.
    options["signature_method"] = "HMAC-SHA1"
    assert (await caller.signed("GET", api.url, **options)).problem == (400, "signature_method_rejected")
    reply = await caller.signed("GET", api.url, rsa_key=PRIVATE, signature_method=method)
    assert reply.problem == (400, "signature_method_rejected")


async def test_only_the_methods_that_the_server_takes(caller: Caller) -> None:
    caller.server.signature_methods = ["HMAC-SHA256"]
    assert (await caller.request_token()).problem == (400, "signature_method_rejected")
    assert (await caller.request_token(signature_method="HMAC-SHA256")).status == 200


async def test_clients_and_tokens_must_be_known_and_belong_together(caller: Caller, api: EchoAPI) -> None:
    assert (await caller.request_token(client_key="nobody")).problem == (401, "consumer_key_unknown")
    unknown = {"oauth_token": "nobody's", "oauth_token_secret": ""}
    assert (await caller.signed("GET", api.url, unknown)).problem == (401, "token_rejected")
    assert (await caller.access_token(unknown, "verifier")).problem == (401, "token_rejected")
    caller.server.register("other", "other-secret")
    other: dict[str, Any] = {"client_key": "other", "client_secret": "other-secret"}
    token = caller.server.issue()
    assert (await caller.signed("GET", api.url, token, **other)).problem == (401, "token_rejected")
    assert (await caller.signed("GET", api.url, unknown, client_key="nobody")).problem == (401, "token_rejected")
    assert (await caller.signed("GET", api.url, token)).status == 200


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"client_id": "", "client_secret": "s"}, "client_id"),
        ({"client_id": "a"}, "client_secret or an rsa_public_key"),
        ({"client_id": "a", "rsa_public_key": "no PEM"}, "PEM"),
        (
            {
                "client_id": "a",
                "rsa_public_key": ec.generate_private_key(ec.SECP256R1())
                .public_key()
                .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            },
            "RSA",
        ),
    ],
)
def test_a_client_that_can_not_be_is_not_registered(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        AuthorizationServer().oauth1.register(**arguments)


def test_a_token_out_of_thin_air_needs_a_client() -> None:
    server = AuthorizationServer().oauth1
    assert set(server.issue()) == {"oauth_token", "oauth_token_secret"}
    with pytest.raises(ConfigurationError, match="not registered"):
        server.issue("nobody")


# Time and nonces


async def test_a_nonce_is_good_once(caller: Caller, clock: ManualClock) -> None:
    assert (await caller.request_token(nonce="once")).status == 200
    assert (await caller.request_token(nonce="once")).problem == (401, "nonce_used")
    clock.now += 1
    assert (await caller.request_token(nonce="once")).status == 200
    assert caller.server.counts.nonces == {"once": 3}


async def test_a_nonce_with_a_wrong_signature_is_not_spent(caller: Caller) -> None:
    assert (await caller.request_token(nonce="once", client_secret="wrong")).problem == (401, "signature_invalid")
    assert (await caller.request_token(nonce="once")).status == 200


@pytest.mark.parametrize("offset", [-1000.0, 1000.0])
async def test_a_clock_that_differs_is_told_so(caller: Caller, clock: ManualClock, api: EchoAPI, offset: float) -> None:
    caller.server.clock_offset = offset
    now = int(clock.now + offset)
    reply = await caller.request_token()
    assert reply.problem == (401, "timestamp_refused")
    assert reply.form["oauth_acceptable_timestamps"] == f"{now - 300}-{now + 300}"
    assert f'oauth_acceptable_timestamps="{now - 300}-{now + 300}"' in reply.headers["WWW-Authenticate"]
    assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == now
    token = caller.server.issue()
    reply = await caller.signed("GET", api.url, token)
    assert reply.problem == (401, "timestamp_refused")
    assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == now
    reply = await caller.signed("GET", api.url, token, timestamp=str(now))
    assert (reply.status, parsedate_to_datetime(reply.headers["Date"]).timestamp()) == (200, now)
    assert (await caller.request_token(timestamp=str(now))).status == 200


async def test_the_temporary_credentials_survive_a_timestamp_that_is_refused(caller: Caller, clock: ManualClock) -> None:
    request_token = (await caller.request_token()).form
    verifier = URL(caller.server.approve(request_token["oauth_token"])).query["oauth_verifier"]
    caller.server.clock_offset = 1000.0
    assert (await caller.access_token(request_token, verifier)).problem == (401, "timestamp_refused")
    assert (await caller.access_token(request_token, verifier, timestamp=str(int(clock.now) + 1000))).status == 200


async def test_a_timestamp_and_a_nonce_are_required_but_for_plaintext(caller: Caller) -> None:
    api = caller.server.api(two_legged=True)
    assert (await caller.send("GET", api.url, headers={"Authorization": f"OAuth {PLAIN}"})).status == 200
    for more, absent in ((', oauth_nonce="n"', "oauth_timestamp"), (', oauth_timestamp="1700000000"', "oauth_nonce")):
        reply = await caller.send("GET", api.url, headers={"Authorization": f"OAuth {PLAIN}{more}"})
        assert reply.problem == (400, "parameter_absent")
        assert f'oauth_parameters_absent="{absent}"' in reply.headers["WWW-Authenticate"]
    hmac = PLAIN.replace("PLAINTEXT", "HMAC-SHA1")
    reply = await caller.send("GET", api.url, headers={"Authorization": f"OAuth {hmac}"})
    assert reply.problem == (400, "parameter_absent")


@pytest.mark.parametrize("timestamp", ["0", "-5", "1.5", "now", "9" * 5000])
async def test_a_timestamp_is_a_positive_integer(caller: Caller, timestamp: str) -> None:
    reply = await caller.request_token(timestamp=timestamp)
    assert reply.problem == (400, "parameter_rejected")
    assert reply.form["oauth_parameters_rejected"] == "oauth_timestamp"


# What is signed


async def test_what_was_changed_on_the_way_is_refused(caller: Caller, api: EchoAPI) -> None:
    token = caller.server.issue()
    url = f"{api.origin}/a?b=c"
    signer = Client("app", "app-secret", token["oauth_token"], token["oauth_token_secret"], timestamp="1700000000")
    uri, headers, body = signer.sign(url, "POST", "d=e", dict(FORM))
    invalid = (401, "signature_invalid")
    assert (await caller.send("PUT", uri, headers=headers, data=body)).problem == invalid
    assert (await caller.send("POST", uri + "&b=c", headers=headers, data=body)).problem == invalid
    assert (await caller.send("POST", uri.replace("/a", "/A"), headers=headers, data=body)).problem == invalid
    assert (await caller.send("POST", uri, headers=headers, data="d=f")).problem == invalid
    assert (await caller.send("POST", uri, headers=headers | {"Host": "elsewhere.example"}, data=body)).problem == invalid
    assert (await caller.send("POST", uri, headers=headers | {"Content-Type": "text/plain"}, data=body)).problem == invalid
    assert (await caller.send("POST", uri, headers=headers, data=body)).status == 200


async def test_a_body_that_is_no_form_is_not_signed(caller: Caller, api: EchoAPI) -> None:
    token = caller.server.issue()
    for content_type, body in (
        ("application/json", b'{"a":1}'),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("text/x", b"a=b"),
    ):
        reply = await caller.signed("POST", api.url, token, data=body, headers={"Content-Type": content_type})
        assert reply.status == 200
        assert caller.server.requests[-1].body == body
    with_charset = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    assert (await caller.signed("POST", api.url, token, form="a=b", headers=with_charset)).status == 200


def exchange(api: EchoAPI, request: str) -> bytes:
    """Bytes to the API, and its answer."""
    with socket.create_connection((api.url.host or "", api.url.port or 0)) as wire:
        wire.sendall(request.replace("\n", "\r\n", request.count("\n") - 1).encode())
        return wire.makefile("rb").read()


async def test_the_base_string_of_rfc_5849_section_3_4_1_1(server: OAuth1Server, api: EchoAPI) -> None:
    request = (
        "POST /request?b5=%3D%253D&a3=a&c%40=&a2=r%20b HTTP/1.1\n"
        "Host: EXAMPLE.com:80\n"
        "Connection: close\n"
        "Content-Type: application/x-www-form-urlencoded\n"
        "Content-Length: 9\n"
        'Authorization: oauth realm="Exa\\"mple", oauth_consumer_key="9djdj82h48djs9d2", '
        'oauth_token="kkk9d7dh3k39sjv7", oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131201", '
        'oauth_nonce="7d8f3e4a",\toauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D"\n'
        "\n"
        "c2&a3=2+q\n"
    )
    answer = await asyncio.to_thread(exchange, api, request)
    assert answer.startswith(b"HTTP/1.1 401")
    [record] = server.requests
    assert record.base_string == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D"
        "%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1"
        "%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )
    assert (record.verdict, record.realm) == ("token_rejected", 'Exa"mple')
    assert (record.method, record.target, record.body) == ("POST", "/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b", b"c2&a3=2+q")
    assert record.oauth["oauth_signature"] == "bYT5CMsGcbgUdFHObYMEfcx6bsw="
    assert list(record.headers)[:2] == ["Host", "Connection"]


@pytest.mark.parametrize(
    ("target", "uri", "parameters"),
    [
        ("/;?a[b]={c}&d='$;", "http://h:8080/;", "a%5Bb%5D=%7Bc%7D&d=%27%24%3B"),
        ("//x/%7e/%c3%A9?%c3%a9&a=~%7e", "http://h:8080//x/%7e/%c3%A9", "%C3%A9=&a=~~"),
        ("http://h:8080?a=+", "http://h:8080/", "a=%20"),
        ("/?&&a=b=c&=", "http://h:8080/", "=&a=b%3Dc"),
        ("/?a=%2525&b=%25%ff", "http://h:8080/", "a=%2525&b=%25%EF%BF%BD"),
    ],
)
async def test_the_base_string_is_made_of_the_wire(server: OAuth1Server, target: str, uri: str, parameters: str) -> None:
    api = server.api(two_legged=True)
    request = f"GET {target} HTTP/1.1\nHost: h:8080\nConnection: close\nAuthorization: OAuth {PLAIN}\n\n\n"
    assert (await asyncio.to_thread(exchange, api, request)).startswith(b"HTTP/1.1")
    assert server.requests[0].verdict == "accepted"
    method, shown, signed = (unquote(part) for part in server.requests[0].base_string.split("&"))
    ours = [pair for pair in signed.split("&") if not pair.startswith(("oauth_consumer", "oauth_signature"))]
    assert (method, shown, "&".join(ours)) == ("GET", uri, parameters)


# What is presented


async def test_a_protected_application_says_what_it_wants(caller: Caller, api: EchoAPI) -> None:
    caller.server.realm = 'a "b"'
    for headers in ({}, {"Authorization": "Bearer token"}, {"Authorization": "OAuth"}, {"Authorization": 'OAuth realm="x"'}):
        reply = await caller.send("GET", api.url, headers=headers)
        assert (reply.status, json.loads(reply.text)) == (401, {"refused": "missing"})
        assert reply.headers["WWW-Authenticate"] == 'OAuth realm="a \\"b\\""'
    reply = await caller.send("POST", caller.server.request_token_url)
    assert reply.form == {"oauth_problem": "parameter_absent", "oauth_parameters_absent": "oauth_consumer_key"}
    assert caller.server.counts.verdicts == {"missing": 4, "parameter_absent": 1}


@pytest.mark.parametrize(
    "authorization",
    [
        f"OAuth {PLAIN}, oauth_consumer_key=app",
        f'OAuth {PLAIN} oauth_version="1.0"',
        'OAuth oauth_consumer_key="app", oauth_signature_method="PLAINTEXT", oauth_signature="app-secret&"',
        f'OAuth {PLAIN}, oauth_consumer_key="app"',
        f'OAuth realm="a", realm="b", {PLAIN}',
        f"OAuth {PLAIN}, x",
    ],
)
async def test_a_header_that_is_malformed_or_ambiguous_is_refused(caller: Caller, authorization: str) -> None:
    api = caller.server.api(two_legged=True)
    reply = await caller.send("GET", api.url, headers={"Authorization": authorization})
    assert reply.problem == (400, "parameter_rejected")
    assert (await caller.send("GET", api.url, headers={"Authorization": f"OAuth {PLAIN},"})).status == 200


async def test_parameters_come_from_one_place(caller: Caller) -> None:
    api = caller.server.api(two_legged=True)
    sent = {"Authorization": f"OAuth {PLAIN}"}
    reply = await caller.send("GET", f"{api.origin}/?oauth_token=x", headers=sent)
    assert reply.problem == (400, "parameter_rejected")
    assert 'oauth_parameters_rejected="oauth_token"' in reply.headers["WWW-Authenticate"]
    assert (await caller.send("POST", api.url, headers=sent | FORM, data="oauth_nonce=x")).problem == (
        400,
        "parameter_rejected",
    )
    two = [("Authorization", f"OAuth {PLAIN}"), ("Authorization", f"OAuth {PLAIN}")]
    assert (await caller.send("GET", api.url, headers=two)).problem == (400, "parameter_rejected")
    assert (await caller.send("GET", f"{api.origin}/?oauth_custom=x", headers=sent)).problem == (400, "parameter_rejected")
    assert (await caller.send("GET", f"{api.origin}/?custom_oauth_=x", headers=sent)).status == 200


@pytest.mark.parametrize("name", ["oauth_consumer_key", "oauth_signature_method", "oauth_signature"])
async def test_what_is_required_is_named(caller: Caller, name: str) -> None:
    parts = [part for part in PLAIN.split(", ") if not part.startswith(f"{name}=")]
    reply = await caller.send("POST", caller.server.request_token_url, headers={"Authorization": "OAuth " + ", ".join(parts)})
    assert reply.problem == (400, "parameter_absent")
    assert reply.form["oauth_parameters_absent"] == name


async def test_version_method_and_empty_token(caller: Caller) -> None:
    api = caller.server.api(two_legged=True)
    reply = await caller.send("GET", api.url, headers={"Authorization": f'OAuth {PLAIN}, oauth_version="2.0"'})
    assert reply.problem == (400, "version_rejected")
    reply = await caller.send("GET", api.url, headers={"Authorization": f'OAuth {PLAIN}, oauth_token=""'})
    assert reply.problem == (400, "parameter_rejected")
    reply = await caller.signed("GET", caller.server.request_token_url, callback_uri=CALLBACK)
    assert reply.problem == (405, "method_not_allowed")
    reply = await caller.signed("GET", caller.server.access_token_url)
    assert reply.problem == (405, "method_not_allowed")
    caller.server.token_methods = ["GET"]
    assert (await caller.signed("GET", caller.server.request_token_url, callback_uri=CALLBACK)).status == 200
    assert (await caller.request_token()).problem == (405, "method_not_allowed")


async def test_a_realm_must_be_named_in_the_header(caller: Caller) -> None:
    caller.server.realm = "1234567 SB"
    reply = await caller.request_token()
    assert reply.problem == (400, "parameter_absent")
    assert 'realm="1234567 SB"' in reply.headers["WWW-Authenticate"]
    assert (await caller.request_token(realm="other")).problem == (400, "parameter_rejected")
    assert (await caller.request_token(realm="1234567 SB")).status == 200
    assert (await caller.request_token(signature_type="QUERY", callback_uri="oob")).status == 200


def body_hash(body: bytes, algorithm: str) -> str:
    return quote(base64.b64encode(hashlib.new(algorithm, body).digest()), safe="")


async def test_a_body_hash(caller: Caller) -> None:
    api = caller.server.api(two_legged=True)

    async def send(value: str | None, method: str = "POST", **options: Any) -> Reply:
        more = "" if value is None else f', oauth_body_hash="{value}"'
        headers = {"Authorization": f"OAuth {PLAIN}{more}"} | options.pop("headers", {})
        return await caller.send(method, api.url, headers=headers, **options)

    assert (await send(body_hash(b"body", "sha1"), data=b"body")).status == 200
    assert (await send(body_hash(b"", "sha1"), "GET")).status == 200
    assert (await send(body_hash(b"body", "sha1"), data=b"bodies")).problem == (400, "parameter_rejected")
    assert (await send(body_hash(b"a=b", "sha1"), data=b"a=b", headers=FORM)).problem == (400, "parameter_rejected")
    caller.server.require_body_hash = True
    assert (await send(None, data=b"body")).problem == (400, "parameter_absent")
    assert (await send(None, data=b"a=b", headers=FORM)).status == 200
    assert (await send(None, "GET")).status == 200


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
async def test_a_body_hash_is_by_sha_1_or_by_the_hash_of_the_method(caller: Caller, algorithm: str) -> None:
    api = caller.server.api(two_legged=True)
    value = body_hash(b"body", algorithm)
    header = (
        PLAIN.replace("PLAINTEXT", "HMAC-SHA256")
        + f', oauth_timestamp="1700000000", oauth_nonce="n", oauth_body_hash="{value}"'
    )
    reply = await caller.send("POST", api.url, headers={"Authorization": f"OAuth {header}"}, data=b"body")
    # The hash is looked at before the signature, which nobody made here.
    assert reply.problem == ((400, "parameter_rejected") if algorithm == "sha512" else (401, "signature_invalid"))


# Two legs, xAuth, renewal


async def test_two_legs(caller: Caller, api: EchoAPI) -> None:
    assert (await caller.signed("GET", api.url)).problem == (400, "parameter_absent")
    reply = await caller.signed("GET", caller.server.api(two_legged=True).url)
    assert (json.loads(reply.text)["client"], json.loads(reply.text)["user"]) == ("app", None)
    caller.server.register("empty", "")
    reply = await caller.signed("GET", caller.server.api(two_legged=True).url, client_key="empty", client_secret="")
    assert reply.status == 200
    reply = await caller.signed("GET", caller.server.api(two_legged=True).url, client_key="nobody")
    assert reply.problem == (401, "consumer_key_unknown")


async def test_xauth(caller: Caller, api: EchoAPI) -> None:
    form = "x_auth_mode=client_auth&x_auth_username=bob&x_auth_password=p%26+%C3%A9"
    url = caller.server.access_token_url
    assert (await caller.signed("POST", url, form=form)).problem == (401, "permission_denied")
    caller.server.passwords["bob"] = "p& é"
    token = (await caller.signed("POST", url, form=form)).form
    assert json.loads((await caller.signed("GET", api.url, token)).text)["user"] == "bob"
    assert (await caller.signed("POST", url, form=form + "x")).problem == (401, "permission_denied")
    assert (await caller.signed("POST", url, form=form, client_secret="wrong")).problem == (401, "signature_invalid")
    assert (await caller.signed("POST", url, form="x_auth_mode=x&x_auth_username=bob")).problem == (401, "permission_denied")


async def renew(caller: Caller, token: Mapping[str, str], handle: str | None = None, **options: Any) -> Reply:
    form = f"oauth_session_handle={quote(handle or token['oauth_session_handle'], safe='')}"
    return await caller.signed("POST", caller.server.access_token_url, token, form=form, signature_type="BODY", **options)


async def test_a_token_that_expired_is_renewed_by_its_session(caller: Caller, clock: ManualClock, api: EchoAPI) -> None:
    caller.server.lifetime, caller.server.session_handles = 60.0, True
    old = await caller.three_legs()
    assert old["oauth_expires_in"] == "60"
    clock.now += 59
    assert (await caller.signed("GET", api.url, old)).status == 200
    clock.now += 1
    assert (await caller.signed("GET", api.url, old)).problem == (401, "token_expired")
    new = (await renew(caller, old)).form
    assert new["oauth_session_handle"] == old["oauth_session_handle"]
    assert new["oauth_token"] != old["oauth_token"]
    assert (await caller.signed("GET", api.url, new)).status == 200
    assert (await caller.signed("GET", api.url, old)).problem == (401, "token_revoked")
    # The answer to a renewal may have been lost.
    assert (await renew(caller, old)).status == 200
    assert (caller.server.counts.tokens_issued, caller.server.counts.renewals) == (3, 2)


async def test_what_does_not_belong_to_a_session_renews_nothing(caller: Caller, api: EchoAPI) -> None:
    caller.server.session_handles = True
    token, other = caller.server.issue(), caller.server.issue(user="bob")
    assert (await renew(caller, token, other["oauth_session_handle"])).problem == (400, "parameter_rejected")
    assert (await renew(caller, token, client_secret="wrong")).problem == (401, "signature_invalid")
    assert (await renew(caller, token | {"oauth_token": "nobody's"})).problem == (401, "token_rejected")
    caller.server.expire_all()
    assert (await caller.signed("GET", api.url, token)).problem == (401, "token_expired")
    assert (await renew(caller, token)).status == 200
    caller.server.revoke_all()
    assert (await renew(caller, other)).problem == (401, "token_revoked")
    assert (await caller.signed("GET", api.url, other)).problem == (401, "token_revoked")
    assert caller.server.counts.renewals == 1


# Answers


async def test_answers_as_json_and_as_what_they_are_not(caller: Caller) -> None:
    caller.server.json_answers = True
    reply = await caller.request_token()
    assert (reply.headers["Content-Type"], json.loads(reply.text)["oauth_callback_confirmed"]) == ("application/json", "true")
    caller.server.content_type = "text/html"
    reply = await caller.request_token()
    assert (reply.headers["Content-Type"], reply.text[0]) == ("text/html", "{")
    caller.server.json_answers = False
    reply = await caller.request_token()
    assert (reply.headers["Content-Type"], set(reply.form) > {"oauth_token"}) == ("text/html", True)


async def test_a_server_that_does_not_say_why(caller: Caller, api: EchoAPI) -> None:
    caller.server.report_problems = False
    caller.server.clock_offset = 1000
    reply = await caller.request_token()
    assert (reply.status, reply.text, reply.headers["WWW-Authenticate"]) == (401, "", "OAuth")
    assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == 1_700_001_000
    assert (await caller.signed("GET", api.url, caller.server.issue())).headers["WWW-Authenticate"] == "OAuth"
    assert caller.server.counts.verdicts == {"timestamp_refused": 2}


# Faults


async def test_the_faults_of_the_whole_server(caller: Caller, whole: AuthorizationServer) -> None:
    whole.fail_next(503, endpoint="request_token")
    assert (await caller.request_token()).status == 503
    assert (caller.server.requests[0].verdict, caller.server.counts.verdicts) == ("", {})
    whole.answer_next(b"oauth_token=x", content_type="text/plain", endpoint="request_token")
    assert (await caller.request_token()).text == "oauth_token=x"
    request_token = (await caller.request_token()).form
    verifier = URL(caller.server.approve(request_token["oauth_token"])).query["oauth_verifier"]
    whole.cut_next(endpoint="access_token")
    with pytest.raises(ClientConnectionError):
        await caller.access_token(request_token, verifier)
    assert caller.server.counts.tokens_issued == 0
    whole.lose_next_response(endpoint="access_token")
    with pytest.raises(ClientConnectionError):
        await caller.access_token(request_token, verifier)
    assert caller.server.counts.tokens_issued == 1
    with whole.hold(endpoint="request_token") as held:
        task = asyncio.create_task(caller.request_token())
        await held.arrived()
        assert not task.done()
        held.release()
        assert (await task).status == 200


# Applications


async def test_an_application_of_ones_own(caller: Caller) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response([request[TOKEN].user, dict(await request.post()), sorted(request[TOKEN].scopes)])

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"piece")
        return response

    app = web.Application()
    app.router.add_post("/", handler)
    app.router.add_get("/stream", stream)
    caller.server.protect(app)
    async with TestServer(app) as site:
        token = caller.server.issue(user="carol")
        reply = await caller.signed("POST", site.make_url("/"), token, form="a=b")
        assert json.loads(reply.text) == ["carol", {"a": "b"}, []]
        assert (await caller.send("POST", site.make_url("/"))).status == 401
        assert (await caller.signed("GET", site.make_url("/stream"), token)).text == "piece"
    assert caller.server.counts.verdicts == {"accepted": 2, "missing": 1}


async def test_a_websocket(caller: Caller, api: EchoAPI) -> None:
    token = caller.server.issue()
    signer = Client("app", "app-secret", token["oauth_token"], token["oauth_token_secret"], timestamp="1700000000")
    uri, headers, _ = signer.sign(str(api.url / "ws"))
    async with caller.session.ws_connect(uri, headers=headers) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"


async def test_a_foreign_api_sees_every_oauth_byte(caller: Caller, whole: AuthorizationServer) -> None:
    foreign = whole.foreign_api()
    await caller.signed("POST", foreign.url / "x", form="a=b", signature_type="BODY")
    await caller.send("GET", f"{foreign.origin}/%7e?x=oauth_", headers={"Oauth_x": "", "X": "oauth_token"})
    await caller.send("GET", foreign.url, headers={"Authorization": "Bearer x"})
    assert foreign.requests[0].oauth1 >= {"oauth_signature", "oauth_consumer_key"}
    assert foreign.requests[1].oauth1 == frozenset({"oauth_", "oauth_token"})
    assert foreign.requests[1].target == "/%7e?x=oauth_"
    assert foreign.requests[2].oauth1 == frozenset()


async def test_nothing_prints_a_secret(caller: Caller, api: EchoAPI) -> None:
    token = await caller.three_legs(signature_method="PLAINTEXT")
    await caller.signed("GET", api.url, token, signature_method="PLAINTEXT", signature_type="QUERY")
    printed = f"{caller.server!r} {caller.server.requests!r} {caller.server._ledger!r} {api.requests!r}"
    for secret in ("app-secret", *token.values()):
        assert secret.split("/")[0] not in printed


async def test_the_fixtures(oauth1_server: OAuth1Server, oauth1_api: EchoAPI) -> None:
    token = oauth1_server.issue()
    uri, headers, _ = Client("app", "app-secret", token["oauth_token"], token["oauth_token_secret"]).sign(str(oauth1_api.url))
    async with ClientSession() as session, session.get(uri, headers=headers) as response:
        assert response.status == 200
    assert oauth1_server.counts.verdicts == {"accepted": 1}
