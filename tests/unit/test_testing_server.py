"""The test server is what every other test believes, so its own tests drive it by plain HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from aiohttp import ClientConnectionError, ClientSession, WSMsgType, web
from aiohttp.test_utils import TestServer
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from yarl import URL

from aiohttp_oauth_middleware import (
    ClientCredentials,
    ClientSecretPost,
    ConfigurationError,
    InvalidClient,
    NoAuthentication,
    Token,
)
from aiohttp_oauth_middleware.testing import TOKEN, AuthorizationServer, EchoAPI, EndpointRecord, digest
from aiohttp_oauth_middleware.testing.plugin import oauth_api, oauth_server

__all__ = ("oauth_api", "oauth_server")

CALLBACK = "http://127.0.0.1:1/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@dataclass
class Reply:
    """An answer, read to its end."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def data(self) -> dict[str, Any]:
        data = json.loads(self.body)
        assert isinstance(data, dict)
        return data

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.data["error"]


class ManualClock:
    """Epoch seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def basic(client_id: str = "app", secret: str = "app-secret", *, encoded: bool = True) -> dict[str, str]:
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}" if encoded else f"{client_id}:{secret}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def bearer(token: Token | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.access_token if isinstance(token, Token) else token}"}


class Caller:
    """Plain HTTP to the server, as the client ``app`` unless told otherwise."""

    def __init__(self, server: AuthorizationServer, session: ClientSession) -> None:
        self.server = server
        self.session = session

    async def send(self, method: str, url: str | URL, **options: Any) -> Reply:
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            return Reply(response.status, await response.read(), response.headers)

    async def post(
        self, url: str, form: dict[str, str] | list[tuple[str, str]], headers: Mapping[str, str] | None = None
    ) -> Reply:
        return await self.send("POST", url, data=form, headers=basic() if headers is None else headers)

    async def token(self, headers: Mapping[str, str] | None = None, **form: str) -> Reply:
        return await self.post(self.server.token_endpoint, {"grant_type": "client_credentials"} | form, headers)

    async def refresh(self, refresh_token: str | None, headers: Mapping[str, str] | None = None, **form: str) -> Reply:
        assert refresh_token is not None
        return await self.token(headers, grant_type="refresh_token", refresh_token=refresh_token, **form)

    async def redeem(self, code: str, headers: Mapping[str, str] | None = None, **form: str) -> Reply:
        fields = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": VERIFIER, "code": code} | form
        return await self.token(headers, **fields)

    async def introspect(self, token: str | None, **form: str) -> dict[str, Any]:
        assert token is not None
        return (await self.post(self.server.introspection_endpoint, {"token": token} | form)).data

    async def get(self, url: str | URL, token: Token | str | None = None) -> Reply:
        return await self.send("GET", url, headers={} if token is None else bearer(token))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> Iterator[AuthorizationServer]:
    with AuthorizationServer(clock=clock) as server:
        yield server


@pytest.fixture
async def caller(server: AuthorizationServer) -> AsyncIterator[Caller]:
    async with ClientSession() as session:
        yield Caller(server, session)


async def until(condition: Callable[[], bool]) -> None:
    """Return once *condition* holds; what makes it so is in the server's thread, where no event of this loop can be set."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# Discovery


async def test_the_metadata_is_published_where_rfc_8414_says_and_is_valid(caller: Caller) -> None:
    server = caller.server
    reply = await caller.get(f"{server.issuer}/.well-known/oauth-authorization-server")
    assert reply.status == 200
    assert reply.data == server.metadata
    AuthorizationServerMetadata(reply.data).validate()
    for name in ("issuer", "authorization_endpoint", "token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        assert reply.data[name] == getattr(server, name)
    assert server.counts.discoveries == 1


async def test_a_test_may_change_the_metadata(caller: Caller) -> None:
    caller.server.metadata["issuer"] = "https://elsewhere.example"
    del caller.server.metadata["revocation_endpoint"]
    reply = await caller.get(f"{caller.server.issuer}/.well-known/oauth-authorization-server")
    assert reply.data["issuer"] == "https://elsewhere.example"
    assert "revocation_endpoint" not in reply.data


def test_metadata_that_was_set_before_the_start_is_kept() -> None:
    server = AuthorizationServer()
    server.metadata["issuer"] = "https://elsewhere.example"
    with server:
        assert server.metadata["issuer"] == "https://elsewhere.example"
        assert server.metadata["token_endpoint"] == server.token_endpoint


# Client authentication


async def test_a_client_proves_itself_by_the_header_or_in_the_form(caller: Caller) -> None:
    assert (await caller.token()).status == 200
    assert (await caller.token({}, client_id="app", client_secret="app-secret")).status == 200
    assert [record.authentication for record in caller.server.requests] == ["client_secret_basic", "client_secret_post"]
    assert [record.client_id for record in caller.server.requests] == ["app", "app"]
    assert caller.server.counts.authentication_failures == 0


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        (basic("app", "wrong"), {}),
        (basic("nobody", "app-secret"), {}),
        ({"Authorization": "Basic app"}, {}),
        ({"Authorization": "Basic !"}, {}),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}, {}),
        ({"Authorization": "Basic " + base64.b64encode(b"app").decode()}, {}),
        ({}, {"client_id": "app", "client_secret": "wrong"}),
        ({}, {"client_id": "app", "client_secret": "w\udcffrong".encode("utf-8", "replace").decode()}),
        ({}, {"client_id": "app"}),
        ({}, {}),
    ],
)
async def test_a_client_that_does_not_prove_itself_is_refused(
    caller: Caller, headers: dict[str, str], form: dict[str, str]
) -> None:
    reply = await caller.token(headers, **form)
    assert reply.error == (401, "invalid_client")
    # RFC 6749 section 5.2: the answer "MUST [...] include the "WWW-Authenticate" response header field".
    assert reply.headers["WWW-Authenticate"].startswith("Basic")
    assert caller.server.counts.authentication_failures == 1
    assert caller.server.counts.tokens_issued == 0


async def test_the_basic_header_is_form_decoded_unless_the_client_is_registered_as_raw(caller: Caller) -> None:
    caller.server.register("strange:id", "a+b c%20:é")
    caller.server.register("raw", "a+b%20c", authentication="client_secret_basic_raw")
    assert (await caller.token(basic("strange:id", "a+b c%20:é"))).status == 200
    assert (await caller.token(basic("raw", "a+b%20c", encoded=False))).status == 200
    assert (await caller.token(basic("raw", "a+b%20c"))).error == (401, "invalid_client")


async def test_a_client_may_use_only_the_methods_that_it_is_registered_for(caller: Caller) -> None:
    caller.server.register("poster", "secret", authentication="client_secret_post")
    assert (await caller.token({}, client_id="poster", client_secret="secret")).status == 200
    assert (await caller.token(basic("poster", "secret"))).error == (401, "invalid_client")


async def test_a_public_client_has_no_client_credentials(caller: Caller) -> None:
    caller.server.register("spa", None)
    assert (await caller.token({}, client_id="spa")).error == (401, "invalid_client")
    assert caller.server.requests[0].authentication == "none"


async def test_two_ways_to_authenticate_at_once_are_refused(caller: Caller) -> None:
    assert (await caller.token(client_id="app", client_secret="app-secret")).error == (400, "invalid_request")
    assert (await caller.token(client_id="other")).error == (400, "invalid_request")
    assert (await caller.token(client_id="app")).status == 200


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_id": "a", "client_secret": "s", "authentication": "private_key_jwt"}, "private_key_jwt"),
        ({"client_id": "a", "client_secret": "s", "authentication": ()}, "must name a method"),
        ({"client_id": "a", "client_secret": "s", "authentication": "none"}, "takes no secret"),
        ({"client_id": "a", "client_secret": ""}, "needs one"),
        ({"client_id": "a", "authentication": "client_secret_post"}, "without a secret"),
        ({"client_id": "a", "client_secret": "s", "grant_types": ("implicit",)}, "implicit"),
    ],
)
def test_a_client_that_can_not_be_is_not_registered(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        AuthorizationServer().register(**arguments)


# The token endpoint


async def test_client_credentials(caller: Caller, clock: ManualClock) -> None:
    reply = await caller.token(scope="read write")
    assert reply.status == 200
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Content-Type"].startswith("application/json")
    assert set(reply.data) == {"access_token", "token_type", "expires_in", "scope"}
    assert (reply.data["token_type"], reply.data["expires_in"], reply.data["scope"]) == ("Bearer", 3600, "read write")
    counts = caller.server.counts
    assert (counts.token_requests, counts.tokens_issued, counts.refreshes) == (1, 1, 0)
    assert counts.by_grant == {"client_credentials": 1}
    [record] = caller.server.requests
    assert record.time == clock.now
    assert record.names == ("grant_type", "scope")
    assert record.parameters == {"grant_type": ("client_credentials",), "scope": ("read write",)}
    assert "Authorization" in record.header_names


async def test_a_lifetime_is_what_the_answer_says_and_what_the_api_keeps(caller: Caller, clock: ManualClock) -> None:
    api = caller.server.api()
    caller.server.lifetime = 1.5
    short = (await caller.token()).data
    caller.server.lifetime = None
    endless = (await caller.token()).data
    assert short["expires_in"] == 1.5
    assert "expires_in" not in endless
    clock.now += 1.25
    assert (await caller.get(api.url, short["access_token"])).status == 200
    clock.now += 0.25
    assert (await caller.get(api.url, short["access_token"])).status == 401
    clock.now += 1e9
    assert (await caller.get(api.url, endless["access_token"])).status == 200


async def test_a_scope_is_narrowed_to_what_the_client_may_have(caller: Caller) -> None:
    caller.server.register("reader", "secret", scope="read list")
    headers = basic("reader", "secret")
    assert (await caller.token(headers, scope="write read")).data["scope"] == "read"
    assert (await caller.token(headers)).data["scope"] == "read list"
    assert (await caller.token(headers, scope="write")).error == (400, "invalid_scope")


async def test_a_client_may_use_only_the_grants_that_it_is_registered_for(caller: Caller) -> None:
    caller.server.register("web", "secret", grant_types=["authorization_code"])
    assert (await caller.token(basic("web", "secret"))).error == (400, "unauthorized_client")


@pytest.mark.parametrize("grant_type", ["", "password", 'we"ird\n\\é', "urn:ietf:params:oauth:grant-type:jwt-bearer"])
async def test_an_unknown_grant_is_refused(caller: Caller, grant_type: str) -> None:
    assert (await caller.token(grant_type=grant_type)).error == (400, "unsupported_grant_type")
    assert caller.server.counts.by_grant == {grant_type: 1}


async def test_what_is_no_form_is_refused(caller: Caller) -> None:
    url = caller.server.token_endpoint
    assert (await caller.send("POST", url, json={"grant_type": "client_credentials"})).error == (400, "invalid_request")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await caller.send("POST", url, data=b"\xff", headers=form)).error == (400, "invalid_request")
    assert (await caller.send("POST", url)).error == (400, "unsupported_grant_type")
    assert (await caller.send("GET", url)).status == 405
    assert caller.server.counts.token_requests == 3


async def test_a_parameter_is_sent_once_and_one_without_a_value_counts_as_omitted(caller: Caller) -> None:
    form = [("grant_type", "client_credentials"), ("scope", "a"), ("scope", "b")]
    assert (await caller.post(caller.server.token_endpoint, form)).error == (400, "invalid_request")
    assert "scope" not in (await caller.token(scope="")).data
    assert caller.server.requests[1].names == ("grant_type", "scope")


# Resource indicators, RFC 8707


async def test_resource_and_audience_are_recorded_on_the_token(caller: Caller) -> None:
    form = [
        ("grant_type", "client_credentials"),
        ("resource", "https://a.example/"),
        ("resource", "https://b.example/x"),
        ("audience", "c"),
    ]
    token = (await caller.post(caller.server.token_endpoint, form)).data["access_token"]
    assert caller.server.requests[0].parameters["resource"] == ("https://a.example/", "https://b.example/x")
    assert (await caller.introspect(token))["aud"] == ["https://a.example/", "https://b.example/x", "c"]


@pytest.mark.parametrize("resource", ["/relative", "https://a.example/#fragment", "https://a.example/ b"])
async def test_a_malformed_resource_is_an_invalid_target(caller: Caller, resource: str) -> None:
    assert (await caller.token(resource=resource)).error == (400, "invalid_target")


async def test_a_refresh_may_narrow_the_resource_but_not_leave_it(caller: Caller) -> None:
    resources = ["https://a.example/", "https://b.example/"]
    code = caller.server.authorize("app", CALLBACK, CHALLENGE, resource=resources)
    token = (await caller.redeem(code)).data
    assert (await caller.introspect(token["access_token"]))["aud"] == resources
    wrong = await caller.refresh(token["refresh_token"], resource="https://c.example/")
    assert wrong.error == (400, "invalid_target")
    assert caller.server.counts.refreshes == 0
    narrow = (await caller.refresh(token["refresh_token"], resource="https://b.example/")).data
    assert (await caller.introspect(narrow["access_token"]))["aud"] == ["https://b.example/"]
    whole = (await caller.refresh(narrow["refresh_token"])).data
    assert (await caller.introspect(whole["access_token"]))["aud"] == resources


# The authorization code


def ask(**changes: str) -> dict[str, str]:
    asked = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": CALLBACK,
        "state": "s t&",
        "scope": "read",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return {name: value for name, value in (asked | changes).items() if value}


async def authorize(caller: Caller, **changes: str) -> Mapping[str, str]:
    reply = await caller.send("GET", caller.server.authorization_endpoint, params=ask(**changes))
    assert reply.status == 302
    location = URL(reply.headers["Location"])
    assert str(location.with_query(None)) == CALLBACK
    # RFC 9207 section 2: in every answer, errors too.
    assert location.query["iss"] == caller.server.issuer
    assert location.query["state"] == "s t&"
    return location.query


async def test_the_code_flow_over_http(caller: Caller) -> None:
    query = await authorize(caller)
    reply = await caller.redeem(query["code"])
    assert set(reply.data) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    seen = await caller.introspect(reply.data["access_token"])
    assert (seen["username"], seen["scope"], seen["client_id"]) == ("alice", "read", "app")


async def test_the_code_flow_of_a_public_client(caller: Caller) -> None:
    caller.server.register("spa", redirect_uris=[CALLBACK])
    query = await authorize(caller, client_id="spa", redirect_uri="")
    reply = await caller.redeem(query["code"], {}, client_id="spa", redirect_uri="")
    assert reply.status == 200
    assert (await caller.refresh(reply.data["refresh_token"], {}, client_id="spa")).status == 200


async def test_a_code_without_a_person(caller: Caller) -> None:
    code = caller.server.authorize("app", CALLBACK, CHALLENGE, "read", user="bob")
    token = (await caller.redeem(code)).data
    assert (await caller.introspect(token["access_token"]))["sub"] == "bob"


def test_a_code_is_not_made_for_what_the_endpoint_would_refuse(server: AuthorizationServer) -> None:
    server.register("spa", redirect_uris=[CALLBACK])
    with pytest.raises(ConfigurationError, match="redirect_uri"):
        server.authorize("spa", "https://evil.example/", CHALLENGE)
    with pytest.raises(ConfigurationError, match="not registered"):
        server.authorize("nobody", CALLBACK, CHALLENGE)


async def test_who_is_not_signed_in_refuses(caller: Caller) -> None:
    caller.server.user = None
    assert (await authorize(caller))["error"] == "access_denied"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": "", "code_challenge_method": ""},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": ""},
        {"code_challenge": "short"},
    ],
)
async def test_a_challenge_by_s256_is_required(caller: Caller, changes: dict[str, str]) -> None:
    assert (await authorize(caller, **changes))["error"] == "invalid_request"


async def test_an_error_of_scope_or_response_type_goes_to_the_callback(caller: Caller) -> None:
    caller.server.register("reader", "secret", scope="read", redirect_uris=[CALLBACK])
    assert (await authorize(caller, client_id="reader", scope="write"))["error"] == "invalid_scope"
    assert (await authorize(caller, response_type="token"))["error"] == "unsupported_response_type"


@pytest.mark.parametrize("changes", [{"client_id": "nobody"}, {"client_id": ""}, {"redirect_uri": "https://evil.example/"}])
async def test_an_unknown_client_or_callback_is_never_redirected_to(caller: Caller, changes: dict[str, str]) -> None:
    caller.server.register("app", "app-secret", redirect_uris=[CALLBACK])
    reply = await caller.send("GET", caller.server.authorization_endpoint, params=ask(**changes))
    assert reply.status in (400, 401)
    assert "Location" not in reply.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": VERIFIER[::-1]}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"redirect_uri": "https://evil.example/"}, "invalid_grant"),
        ({"code": "code-unknown"}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
    ],
)
async def test_a_code_that_does_not_fit_is_refused(caller: Caller, changes: dict[str, str], error: str) -> None:
    code = caller.server.authorize("app", CALLBACK, CHALLENGE)
    assert (await caller.redeem(changes.pop("code", code), None, **changes)).error == (400, error)
    assert caller.server.counts.tokens_issued == 0


async def test_a_code_of_another_client_or_of_yesterday_is_refused(caller: Caller, clock: ManualClock) -> None:
    caller.server.register("other", "secret")
    code = caller.server.authorize("app", CALLBACK, CHALLENGE)
    assert (await caller.redeem(code, basic("other", "secret"))).error == (400, "invalid_grant")
    clock.now += 600
    assert (await caller.redeem(code)).error == (400, "invalid_grant")


async def test_a_code_that_is_used_twice_ends_the_sign_in(caller: Caller) -> None:
    code = caller.server.authorize("app", CALLBACK, CHALLENGE)
    token = (await caller.redeem(code)).data
    assert (await caller.redeem(code)).error == (400, "invalid_grant")
    assert not caller.server.is_active(token["access_token"])
    assert not caller.server.is_active(token["refresh_token"])
    assert caller.server.counts.families_revoked == 1


# Refresh tokens


async def test_a_refresh_supersedes_the_refresh_token(caller: Caller) -> None:
    token = caller.server.issue(scope="read")
    reply = await caller.refresh(token.refresh_token)
    assert reply.data["refresh_token"] != token.refresh_token
    assert reply.data["scope"] == "read"
    assert token.refresh_token is not None
    assert not caller.server.is_active(token.refresh_token)
    assert caller.server.is_active(reply.data["refresh_token"])
    assert caller.server.is_active(token.access_token)
    counts = caller.server.counts
    assert (counts.refreshes, counts.tokens_issued, counts.reuses, counts.families_revoked) == (1, 1, 0, 0)
    assert counts.refresh_token_uses == {digest(token.refresh_token): 1}
    assert caller.server.requests[0].digests == {"refresh_token": digest(token.refresh_token)}


async def test_without_rotation_the_refresh_token_stays(caller: Caller) -> None:
    caller.server.rotation = False
    token = caller.server.issue()
    for _ in range(3):
        assert "refresh_token" not in (await caller.refresh(token.refresh_token)).data
    assert caller.server.counts.refreshes == 3
    assert caller.server.counts.reuses == 0


async def test_a_superseded_refresh_token_ends_the_sign_in(caller: Caller) -> None:
    token = caller.server.issue()
    other = caller.server.issue()
    new = (await caller.refresh(token.refresh_token)).data
    for _ in range(2):
        assert (await caller.refresh(token.refresh_token)).error == (400, "invalid_grant")
    assert (await caller.refresh(new["refresh_token"])).error == (400, "invalid_grant")
    assert not caller.server.is_active(new["access_token"])
    assert not caller.server.is_active(token.access_token)
    assert caller.server.is_active(other.access_token)
    counts = caller.server.counts
    assert (counts.reuses, counts.families_revoked, counts.refreshes) == (2, 1, 1)


async def test_without_reuse_detection_a_superseded_refresh_token_is_only_refused(caller: Caller) -> None:
    caller.server.reuse_detection = False
    token = caller.server.issue()
    new = (await caller.refresh(token.refresh_token)).data
    assert (await caller.refresh(token.refresh_token)).error == (400, "invalid_grant")
    assert caller.server.is_active(new["refresh_token"])
    assert (caller.server.counts.reuses, caller.server.counts.families_revoked) == (1, 0)


async def test_within_the_grace_a_superseded_refresh_token_is_taken(caller: Caller, clock: ManualClock) -> None:
    caller.server.reuse_grace = 10
    token = caller.server.issue()
    first = (await caller.refresh(token.refresh_token)).data
    clock.now += 9
    second = (await caller.refresh(token.refresh_token)).data
    assert caller.server.is_active(first["refresh_token"])
    assert caller.server.is_active(second["refresh_token"])
    assert (caller.server.counts.reuses, caller.server.counts.families_revoked) == (1, 0)
    clock.now += 1
    assert (await caller.refresh(token.refresh_token)).error == (400, "invalid_grant")
    assert caller.server.counts.families_revoked == 1


async def test_a_refresh_may_narrow_the_scope_of_the_access_token_alone(caller: Caller) -> None:
    token = caller.server.issue(scope="read write")
    narrow = (await caller.refresh(token.refresh_token, scope="read")).data
    assert narrow["scope"] == "read"
    assert (await caller.refresh(narrow["refresh_token"], scope="admin")).error == (400, "invalid_scope")
    assert (await caller.refresh(narrow["refresh_token"])).data["scope"] == "read write"


async def test_a_refresh_token_of_another_client_is_refused_and_does_no_harm(caller: Caller) -> None:
    caller.server.register("other", "secret")
    token = caller.server.issue()
    assert (await caller.refresh(token.refresh_token, basic("other", "secret"))).error == (400, "invalid_grant")
    assert (await caller.refresh("refresh-unknown")).error == (400, "invalid_grant")
    assert (await caller.refresh(token.refresh_token)).status == 200
    assert caller.server.counts.reuses == 0


async def test_client_credentials_may_yield_a_refresh_token(caller: Caller) -> None:
    caller.server.register("robot", "secret", refresh_token_for_client_credentials=True)
    headers = basic("robot", "secret")
    token = (await caller.token(headers, scope="read")).data
    again = (await caller.refresh(token["refresh_token"], headers)).data
    seen = await caller.introspect(again["access_token"])
    assert (seen["sub"], seen["scope"]) == ("robot", "read")
    assert "username" not in seen


async def test_a_refresh_token_that_is_sent_twice_at_once_is_an_overlap(caller: Caller) -> None:
    token = caller.server.issue()
    with caller.server.hold() as held:
        tasks = [asyncio.create_task(caller.refresh(token.refresh_token)) for _ in range(2)]
        await held.arrived(2)
        assert caller.server.counts.refresh_overlaps == 1
    assert {(await task).status for task in tasks} == {200, 400}
    await caller.refresh(token.refresh_token)
    assert caller.server.counts.refresh_overlaps == 1


# Revocation and introspection


async def test_an_access_token_is_revoked_alone(caller: Caller) -> None:
    token = caller.server.issue()
    reply = await caller.post(caller.server.revocation_endpoint, {"token": token.access_token})
    assert reply.status == 200
    assert not caller.server.is_active(token.access_token)
    assert token.refresh_token is not None
    assert caller.server.is_active(token.refresh_token)
    assert caller.server.counts.revocations == 1
    [record] = caller.server.revocation_requests
    assert record.digests == {"token": digest(token.access_token)}
    assert record.grant_type is None


async def test_with_a_refresh_token_the_whole_sign_in_is_revoked(caller: Caller) -> None:
    token = caller.server.issue()
    assert token.refresh_token is not None
    form = {"token": token.refresh_token, "token_type_hint": "refresh_token"}
    assert (await caller.post(caller.server.revocation_endpoint, form)).status == 200
    assert not caller.server.is_active(token.access_token)
    assert (await caller.refresh(token.refresh_token)).error == (400, "invalid_grant")
    assert caller.server.counts.families_revoked == 0


async def test_what_revocation_refuses(caller: Caller) -> None:
    url, token = caller.server.revocation_endpoint, caller.server.issue()
    caller.server.register("spa")
    spa = caller.server.issue("spa")
    # RFC 7009 section 2.2: "invalid tokens do not cause an error response".
    assert (await caller.post(url, {"token": "unknown"})).status == 200
    assert (await caller.post(url, {})).error == (400, "invalid_request")
    assert (await caller.post(url, {"token": "x", "token_type_hint": "cookie"})).error == (400, "unsupported_token_type")
    assert (await caller.post(url, {"token": "x"}, basic("app", "wrong"))).error == (401, "invalid_client")
    assert (await caller.post(url, {"token": spa.access_token})).error == (400, "invalid_grant")
    assert (await caller.post(url, {"token": token.access_token, "client_id": "spa"}, {})).error == (400, "invalid_grant")
    assert (await caller.post(url, {"token": spa.access_token, "client_id": "spa"}, {})).status == 200
    assert caller.server.is_active(token.access_token)
    assert not caller.server.is_active(spa.access_token)


async def test_what_introspection_says(caller: Caller, clock: ManualClock) -> None:
    token = caller.server.issue(scope="read")
    assert await caller.introspect(token.access_token) == {
        "active": True,
        "client_id": "app",
        "sub": "alice",
        "username": "alice",
        "scope": "read",
        "iss": caller.server.issuer,
        "token_type": "Bearer",
        "iat": int(clock.now),
        "exp": int(clock.now) + 3600,
    }
    refresh = await caller.introspect(token.refresh_token, token_type_hint="refresh_token")
    assert refresh["active"] is True
    assert "exp" not in refresh
    assert await caller.introspect("unknown") == {"active": False}
    caller.server.lifetime = None
    assert "exp" not in await caller.introspect(caller.server.issue().access_token)
    clock.now += 3600
    assert await caller.introspect(token.access_token) == {"active": False}
    await caller.refresh(token.refresh_token)
    assert await caller.introspect(token.refresh_token) == {"active": False}
    assert caller.server.counts.introspections == len(caller.server.introspection_requests) == 6


async def test_a_public_client_may_not_introspect(caller: Caller) -> None:
    caller.server.register("spa")
    form = {"token": "x", "client_id": "spa"}
    assert (await caller.post(caller.server.introspection_endpoint, form, {})).error == (401, "invalid_client")


# Knobs


async def test_expire_all_and_revoke_all(caller: Caller) -> None:
    server, api = caller.server, caller.server.api()
    expired = server.issue()
    server.lifetime = None
    endless = server.issue()
    server.expire_all()
    for token in (expired, endless):
        assert (await caller.get(api.url, token)).status == 401
        assert token.refresh_token is not None
        assert server.is_active(token.refresh_token)
    revoked = server.issue()
    server.revoke_all()
    assert (await caller.get(api.url, revoked)).status == 401
    assert revoked.refresh_token is not None
    assert server.is_active(revoked.refresh_token)
    server.revoke_all(refresh_tokens=True)
    assert (await caller.refresh(revoked.refresh_token)).error == (400, "invalid_grant")


async def test_fail_next_answers_as_told_and_issues_nothing(caller: Caller) -> None:
    server = caller.server
    server.fail_next(503, retry_after=7)
    server.fail_next(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT", error="slow_down", times=2)
    server.fail_next(500, body=b"<html>", headers={"Content-Type": "text/html", "X-Odd": "1"})
    first, *middle, last = [await caller.token() for _ in range(4)]
    assert (first.status, first.body, first.headers["Retry-After"]) == (503, b"", "7")
    for reply in middle:
        assert reply.error == (429, "slow_down")
        assert reply.headers["Retry-After"].startswith("Wed")
    assert (last.status, last.body, last.headers["Content-Type"], last.headers["X-Odd"]) == (500, b"<html>", "text/html", "1")
    assert server.counts.token_requests == 4
    assert server.counts.tokens_issued == 0
    assert (await caller.token()).status == 200


async def test_a_fault_is_before_the_body_is_looked_at(caller: Caller) -> None:
    caller.server.fail_next(502)
    assert (await caller.send("POST", caller.server.token_endpoint, data=b"\xff")).status == 502


async def test_answer_next_sends_the_bytes_as_they_are(caller: Caller) -> None:
    caller.server.answer_next(b"\x00{", status=203, content_type="text/odd", headers={"X-Odd": "1"})
    caller.server.answer_next(b"a=b", content_type="")
    reply = await caller.token()
    assert (reply.status, reply.body, reply.headers["Content-Type"], reply.headers["X-Odd"]) == (203, b"\x00{", "text/odd", "1")
    assert (await caller.token()).body == b"a=b"


async def test_a_lost_response_was_decided_in_full(caller: Caller) -> None:
    token = caller.server.issue()
    caller.server.lose_next_response()
    with pytest.raises(ClientConnectionError):
        await caller.refresh(token.refresh_token)
    assert (caller.server.counts.refreshes, caller.server.counts.tokens_issued) == (1, 1)
    assert token.refresh_token is not None
    assert not caller.server.is_active(token.refresh_token)
    assert (await caller.token()).status == 200


async def test_a_cut_request_was_not_decided(caller: Caller) -> None:
    token = caller.server.issue()
    caller.server.cut_next()
    with pytest.raises(ClientConnectionError):
        await caller.refresh(token.refresh_token)
    assert (caller.server.counts.token_requests, caller.server.counts.refreshes) == (1, 0)
    assert (await caller.refresh(token.refresh_token)).status == 200


async def test_the_other_endpoints_fail_too(caller: Caller) -> None:
    server = caller.server
    metadata = f"{server.issuer}/.well-known/oauth-authorization-server"
    server.answer_next(b"[]", endpoint="discovery")
    server.fail_next(503, endpoint="revocation")
    server.cut_next(endpoint="introspection")
    assert (await caller.token()).status == 200
    assert (await caller.get(metadata)).body == b"[]"
    assert (await caller.post(server.revocation_endpoint, {"token": "x"})).status == 503
    with pytest.raises(ClientConnectionError):
        await caller.introspect("x")
    # aiohttp sends a GET again by itself where a connection that it had kept is lost.
    server.cut_next(endpoint="discovery", times=2)
    with pytest.raises(ClientConnectionError):
        await caller.get(metadata)


def test_a_fault_that_can_not_be_is_refused(server: AuthorizationServer) -> None:
    for status in (0, 100, 600, True):
        with pytest.raises(ConfigurationError, match="status"):
            server.fail_next(status)
    with pytest.raises(ConfigurationError, match="times"):
        server.fail_next(500, times=0)
    with pytest.raises(ConfigurationError, match="endpoint"):
        server.fail_next(500, endpoint="tokens")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="lifetime"):
        AuthorizationServer(lifetime=-1)


async def test_what_is_held_waits_until_it_is_released(caller: Caller) -> None:
    with caller.server.hold() as held:
        tasks = [asyncio.create_task(caller.token()) for _ in range(3)]
        await held.arrived(3)
        assert held.count == 3
        assert "3 arrived, closed" in repr(held)
        assert not any(task.done() for task in tasks)
        assert caller.server.counts.tokens_issued == 0
        # What is decided after the hold obeys the knobs as they stand then.
        caller.server.fail_next(503)
        held.release()
        assert sorted([(await task).status for task in tasks]) == [200, 200, 503]
        assert (await caller.token()).status == 200
    assert "open" in repr(held)


async def test_leaving_the_block_releases(caller: Caller) -> None:
    with caller.server.hold() as held:
        task = asyncio.create_task(caller.token())
        await held.arrived()
    assert (await task).status == 200


async def test_a_decided_request_may_be_held_with_its_answer(caller: Caller) -> None:
    token = caller.server.issue()
    with caller.server.hold(decided=True) as held:
        task = asyncio.create_task(caller.refresh(token.refresh_token))
        await held.arrived()
        assert caller.server.counts.refreshes == 1
        assert not task.done()
    assert (await task).status == 200


async def test_a_gate_may_be_closed_again(caller: Caller) -> None:
    held = caller.server.hold()
    for count in (1, 2):
        with held:
            held.close()
            task = asyncio.create_task(caller.token())
            await held.arrived(count)
        held.release()
        assert (await task).status == 200
    assert (await caller.token()).status == 200
    assert held.count == 2


async def test_who_never_arrives_is_a_timeout(server: AuthorizationServer) -> None:
    with server.hold() as held, pytest.raises(TimeoutError, match="0 of 1"):
        await held.arrived(timeout=0)


async def test_a_client_that_leaves_does_not_stop_the_server(caller: Caller) -> None:
    token = caller.server.issue()
    with caller.server.hold() as held:
        task = asyncio.create_task(caller.refresh(token.refresh_token))
        await held.arrived()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: caller.server.counts.refreshes == 1)


async def test_latency_is_waited_before_anything_is_done(caller: Caller) -> None:
    caller.server.latency = 3600
    task = asyncio.create_task(caller.token())
    await until(lambda: len(caller.server.requests) == 1)
    assert caller.server.counts.tokens_issued == 0
    caller.server.latency = 0
    assert (await caller.token()).status == 200
    caller.server.stop()
    with pytest.raises(ClientConnectionError):
        await task


# The client of this package


@pytest.mark.parametrize(
    ("authentication", "used"),
    [
        (("client_secret_basic", "client_secret_post"), "client_secret_basic"),
        ("client_secret_basic", "client_secret_basic"),
        ("client_secret_post", "client_secret_post"),
        ("client_secret_basic_raw", "client_secret_basic"),
    ],
)
async def test_client_is_made_as_it_is_registered(server: AuthorizationServer, authentication: Any, used: str) -> None:
    server.register("mine", "a+b%20c", authentication=authentication)
    token = await server.client("mine").fetch_token(ClientCredentials("read"))
    assert server.is_active(token.access_token)
    assert server.requests[0].authentication == used
    assert server.counts.discoveries == 1


async def test_a_public_client_of_this_package(server: AuthorizationServer) -> None:
    server.register("spa")
    refreshed = await server.client("spa").refresh(server.issue("spa"))
    assert server.is_active(refreshed.access_token)
    assert server.requests[0].authentication == "none"
    with pytest.raises(ConfigurationError, match="not registered"):
        server.client("nobody")


async def test_a_client_of_this_package_that_proves_itself_otherwise(server: AuthorizationServer) -> None:
    await server.client(authentication=ClientSecretPost("app-secret")).fetch_token(ClientCredentials())
    with pytest.raises(InvalidClient):
        await server.client(authentication=NoAuthentication()).refresh(server.issue())
    assert [record.authentication for record in server.requests] == ["client_secret_post", "none"]


def test_issue_makes_a_token_and_counts_nothing(server: AuthorizationServer, clock: ManualClock) -> None:
    server.register("reader", "secret", scope="read")
    token = server.issue("reader", refresh_token=False)
    assert (token.scope, token.refresh_token) == ("read", None)
    assert (token.obtained_at, token.expires_at) == (clock.now, clock.now + 3600)
    assert server.issue().scope is None
    assert server.counts.tokens_issued == server.counts.token_requests == 0
    with pytest.raises(ConfigurationError, match="not registered"):
        server.issue("nobody")


# Protected applications


async def own_app(request: web.Request) -> web.Response:
    form = dict(await request.post()) if request.method == "POST" else {}
    token = request[TOKEN]
    return web.json_response({"user": token.user, "scope": sorted(token.scopes), "form": len(form)})


async def test_protect_an_application_of_the_users(caller: Caller) -> None:
    app = web.Application()
    app.router.add_route("*", "/", own_app)
    caller.server.protect(app, scope="write read", realm='the "api"')
    good, poor = caller.server.issue(scope="read write x"), caller.server.issue(scope="read")
    async with TestServer(app) as running:
        url = running.make_url("/")
        missing = await caller.get(url)
        assert (missing.status, missing.headers["WWW-Authenticate"]) == (401, 'Bearer realm="the \\"api\\""')
        other = await caller.send("GET", url, headers=basic())
        assert (other.status, other.headers["WWW-Authenticate"]) == (401, 'Bearer realm="the \\"api\\""')
        invalid = await caller.get(url, "access-unknown")
        assert invalid.status == 401
        assert ', error="invalid_token", ' in invalid.headers["WWW-Authenticate"]
        insufficient = await caller.get(url, poor)
        assert insufficient.status == 403
        assert insufficient.headers["WWW-Authenticate"].endswith('error="insufficient_scope", scope="read write"')
        empty = await caller.get(url, "")
        assert empty.status == 400
        assert (await caller.get(url, good)).data == {"user": "alice", "scope": ["read", "write", "x"], "form": 0}
        assert (await caller.get(url.with_query(access_token=good.access_token))).status == 200
        form = {"access_token": good.access_token, "a": "1"}
        assert (await caller.send("POST", url, data=form)).data["form"] == 2
        twice = await caller.send("POST", url, data=form, headers=bearer(good))
        assert twice.status == 400
        assert 'error="invalid_request"' in twice.headers["WWW-Authenticate"]
        assert (await caller.get(url, good.refresh_token)).status == 401
    assert caller.server.counts.presented == {
        "missing": 2,
        "invalid_token": 2,
        "insufficient_scope": 1,
        "invalid_request": 2,
        "accepted": 3,
    }


async def test_the_token_may_be_wanted_elsewhere(caller: Caller) -> None:
    keyed = caller.server.api(header="X-Api-Key", prefix="")
    schemed = caller.server.api(prefix="token")
    token = caller.server.issue().access_token
    assert (await caller.send("GET", keyed.url, headers={"X-Api-Key": token})).status == 200
    assert (await caller.get(keyed.url, token)).status == 401
    assert (await caller.send("GET", schemed.url, headers={"Authorization": f"Token {token}"})).status == 200
    assert (await caller.get(schemed.url, token)).status == 401
    with pytest.raises(ConfigurationError, match="header"):
        caller.server.api(header="")
    with pytest.raises(ConfigurationError, match="realm"):
        caller.server.api(realm="a\r\nb")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
async def test_the_api_echoes_and_remembers(caller: Caller, method: str) -> None:
    api, token = caller.server.api(), caller.server.issue()
    assert api.url == URL(f"{api.origin}/")
    body = b"" if method == "GET" else b"\x00 body"
    headers = bearer(token) | {"Cookie": "a=b"}
    reply = await caller.send(method, api.url / "some/path" % {"q": "1"}, data=body or None, headers=headers)
    assert reply.status == 200
    sha256 = hashlib.sha256(body).hexdigest()
    assert reply.data == {
        "method": method,
        "path": "/some/path",
        "length": len(body),
        "sha256": sha256,
        "client": "app",
        "user": "alice",
    }
    [record] = api.requests
    assert (record.method, record.path, record.query, record.status) == (method, "/some/path", {"q": "1"}, 200)
    assert (record.length, record.sha256, record.cookies) == (len(body), sha256, {"a": "b"})
    assert record.authorization == record.headers["authorization"] == f"Bearer {token.access_token}"
    assert api.answered == {200: 1}


async def test_a_refused_upload_is_recorded_in_full_unless_it_is_refused_early(caller: Caller) -> None:
    api = caller.server.api()
    assert (await caller.send("PUT", api.url, data=b"x" * 100_000)).status == 401
    api.early_refusal = True
    assert (await caller.send("PUT", api.url, data=b"x")).status == 401
    assert (await caller.send("PUT", api.url, data=b"yz", headers=bearer(caller.server.issue()))).status == 200
    assert [record.length for record in api.requests] == [100_000, None, 2]
    assert api.answered == {401: 2, 200: 1}


async def test_the_api_redirects_and_answers_any_status(caller: Caller) -> None:
    api, foreign, token = caller.server.api(), caller.server.foreign_api(), caller.server.issue()
    reply = await caller.get(api.url / "redirect" % {"to": str(foreign.url / "there")}, token)
    assert (reply.status, reply.headers["Location"]) == (307, f"{foreign.origin}/there")
    assert (await caller.get(api.url / "redirect" % {"to": "/", "status": "303"}, token)).status == 303
    assert (await caller.get(api.url / "redirect" % {"to": "/", "status": "200"}, token)).status == 400
    assert (await caller.get(api.url / "redirect", token)).status == 400
    assert (await caller.get(api.url / "status/418", token)).status == 418
    assert (await caller.get(api.url / "status/418")).status == 401
    assert api.answered == {307: 1, 303: 1, 400: 2, 418: 1, 401: 1}


async def test_a_foreign_api_lets_everybody_in_and_tells_what_came(caller: Caller) -> None:
    foreign = caller.server.foreign_api()
    assert (await caller.get(foreign.url, "secret")).data["user"] is None
    assert (await caller.get(foreign.url)).status == 200
    assert [record.authorization for record in foreign.requests] == ["Bearer secret", None]
    assert caller.server.counts.presented == {}


async def test_the_web_socket_echoes_behind_the_protection(caller: Caller) -> None:
    api = caller.server.api()
    async with caller.session.ws_connect(api.url / "ws", headers=bearer(caller.server.issue())) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_bytes(b"\x00")
        assert await socket.receive_bytes() == b"\x00"
        caller.server.stop()
        assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
    caller.server.start()
    async with caller.session.ws_connect(api.url / "ws", headers=bearer(caller.server.issue())) as socket:
        await socket.close()
    assert [record.status for record in api.requests] == [101, 101]


async def test_the_api_answers_as_told(caller: Caller) -> None:
    api, token = caller.server.api(), caller.server.issue()
    api.answer_next(419, body=b"gone", headers={"Set-Cookie": "a=b"}, path="/b")
    api.answer_next(403, times=2)
    assert (await caller.get(api.url / "a", token)).status == 403
    odd = await caller.get(api.url / "b", token)
    assert (odd.status, odd.body, odd.headers["Set-Cookie"]) == (419, b"gone", "a=b")
    assert (await caller.get(api.url / "b", token)).status == 403
    assert (await caller.get(api.url / "b", token)).status == 200
    assert api.answered == {403: 2, 419: 1, 200: 1}


async def test_the_api_cuts_the_connection(caller: Caller) -> None:
    api = caller.server.api()
    api.cut_next(path="/a")
    with pytest.raises(ClientConnectionError):
        await caller.send("POST", api.url / "a", data=b"xyz", headers=bearer(caller.server.issue()))
    assert [(record.length, record.status) for record in api.requests] == [(3, None)]
    assert api.answered == {}


async def test_the_api_judges_a_token_when_it_is_released(caller: Caller) -> None:
    api, token = caller.server.api(), caller.server.issue()
    with api.hold("/slow") as held:
        task = asyncio.create_task(caller.get(api.url / "slow", token))
        await held.arrived()
        assert (await caller.get(api.url / "fast", token)).status == 200
        caller.server.expire_all()
    assert (await task).status == 401


# Running


def test_nothing_is_left_of_a_server_that_stopped() -> None:
    before = threading.active_count()
    server = AuthorizationServer()
    assert "not started" in repr(server)
    server.start()
    assert server.issuer in repr(server)
    assert threading.active_count() == before + 1
    with pytest.raises(ConfigurationError, match="already"):
        server.start()
    server.stop()
    server.stop()
    assert threading.active_count() == before


def test_what_needs_a_running_server_says_so() -> None:
    server = AuthorizationServer()
    for missing in (lambda: server.issuer, lambda: server.token_endpoint, server.api, server.foreign_api, server.client):
        with pytest.raises(ConfigurationError, match="start"):
            missing()


async def test_async_with_does_the_same() -> None:
    before = threading.active_count()
    async with AuthorizationServer() as server, ClientSession() as session:
        assert (await Caller(server, session).token()).status == 200
    assert threading.active_count() == before


async def test_a_server_that_is_started_again_keeps_its_ports_and_tokens(caller: Caller) -> None:
    server, api, token = caller.server, caller.server.api(), caller.server.issue()
    issuer, url = server.issuer, api.url
    server.stop()
    with pytest.raises(ClientConnectionError):
        await caller.token()
    with pytest.raises(ClientConnectionError):
        await caller.get(url, token)
    server.start()
    assert (server.issuer, api.url) == (issuer, url)
    assert (await caller.get(url, token)).status == 200
    assert (await caller.refresh(token.refresh_token)).status == 200


async def test_a_port_that_is_taken_is_an_error_and_leaves_no_thread(server: AuthorizationServer) -> None:
    server.stop()
    before = threading.active_count()
    port = URL(server.issuer).port
    assert port is not None
    squatter = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    with pytest.raises(OSError, match="address"):
        server.start()
    assert threading.active_count() == before
    squatter.close()
    await squatter.wait_closed()
    server.start()


def test_it_answers_a_test_that_blocks_its_loop() -> None:
    async def blocking() -> bytes:
        with AuthorizationServer() as server:
            url = f"{server.issuer}/.well-known/oauth-authorization-server"
            with urllib.request.urlopen(url, timeout=30) as response:  # noqa: ASYNC210
                body = response.read()
        assert isinstance(body, bytes)
        return body

    assert b"token_endpoint" in asyncio.run(blocking())


def test_stopping_releases_who_is_held() -> None:
    server = AuthorizationServer()
    with server, server.hold() as held:

        async def leave() -> None:
            async with ClientSession() as session:
                task = asyncio.create_task(Caller(server, session).token())
                await held.arrived()
                server.stop()
                with pytest.raises(ClientConnectionError):
                    await task

        asyncio.run(leave())


# Secrets


async def test_no_repr_and_no_log_shows_a_secret(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server, api = caller.server, caller.server.api()
    token = server.issue(scope="read")
    query = await authorize(caller)
    answers = [
        await caller.token({}, client_id="app", client_secret="app-secret", password="hunter2", client_assertion="e30.e30.e30"),
        await caller.redeem(query["code"]),
        await caller.refresh(token.refresh_token),
    ]
    await caller.get(api.url / "x" % {"access_token": token.access_token})
    await caller.get(api.url, answers[0].data["access_token"])
    await caller.introspect(token.access_token)
    secrets = {"app-secret", "hunter2", "e30.e30.e30", VERIFIER, query["code"], token.access_token, token.refresh_token}
    for answer in answers:
        secrets |= {answer.data["access_token"], answer.data.get("refresh_token", token.access_token)}
    issued = server._ledger.verify(token.access_token)
    shown = [server, server.counts, server._ledger, issued, api, *server.requests, *api.requests, *vars(server).values()]
    text = "\n".join(map(repr, shown)) + caplog.text
    assert "Issue token" in caplog.text
    assert [secret for secret in secrets if secret is not None and secret in text] == []


def test_a_record_names_the_secrets_and_holds_none() -> None:
    assert EndpointRecord.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert digest("a") == hashlib.sha256(b"a").hexdigest()


# The pytest plugin


PLUGGED = """
import urllib.error, urllib.request
import pytest

pytest_plugins = ["aiohttp_oauth_middleware.testing.plugin"]


def test_fixtures(oauth_server, oauth_api):
    token = oauth_server.issue()
    request = urllib.request.Request(oauth_api.origin, headers={"Authorization": "Bearer " + token.access_token})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200
    assert oauth_api.answered == {200: 1}
"""


def test_the_fixtures_need_no_plugin_for_asyncio(tmp_path: Path) -> None:
    (tmp_path / "test_plugged.py").write_text(PLUGGED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]
    path = str(Path(__file__).parents[2])
    script = f"import sys; sys.path.insert(0, {path!r}); sys.argv[1:] = {command[3:]!r}; import pytest; sys.exit(pytest.main())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_fixtures_here(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    async with ClientSession() as session:
        reply = await Caller(oauth_server, session).get(oauth_api.url, oauth_server.issue())
    assert reply.status == 200
    assert "protected" in repr(oauth_api)
