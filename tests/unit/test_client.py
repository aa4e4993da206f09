"""The client against a server that is only a socket: what is sent, to whom, and what is made of the answer."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import traceback
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiohttp_oauth_middleware import (
    AuthorizationCode,
    Client,
    ClientCredentials,
    ClientSecret,
    ClientSecretBasic,
    ClientSecretPost,
    ConfigurationError,
    DiscoveryError,
    EndpointRequest,
    EndpointResponse,
    ErrorResponse,
    ExtensionGrant,
    Hook,
    InsecureTransport,
    InvalidClient,
    InvalidGrant,
    LoginRequired,
    NoAuthentication,
    OAuthError,
    Quirks,
    RefreshToken,
    Secret,
    ServerMetadata,
    Token,
    TokenResponseError,
    Tokens,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.client import transport
from aiohttp_oauth_middleware.client.client import METADATA_BODY_LIMIT, TOKEN_BODY_LIMIT
from tests.clock import VirtualClock
from tests.raw_server import RawServer, Request, answer, basic_of, json_answer, serve, token_answer

VECTORS = Path(__file__).parent.parent / "vectors"
VERIFIER: str = json.loads((VECTORS / "pkce.json").read_text("utf-8"))["code_verifier"]
INTROSPECTED: list[dict[str, Any]] = json.loads((VECTORS / "introspection.json").read_text("utf-8"))
RT = Token("old-access", refresh_token="CANARY-rt", scope="r w")


def known(server: RawServer, **more: Any) -> ServerMetadata:
    """The server's endpoints, with nothing to discover."""
    return ServerMetadata(
        token_endpoint=server.url + "/token",
        revocation_endpoint=server.url + "/revoke",
        introspection_endpoint=server.url + "/introspect",
        **more,
    )


def client_of(server: RawServer, authentication: Any = None, **more: Any) -> Client:
    return Client(known(server), "id", authentication if authentication is not None else ClientSecret("CANARY-secret"), **more)


def told(error: BaseException) -> str:
    """All that a log or a crash report could show of an error."""
    parts: list[str] = []
    one: BaseException | None = error
    while one is not None:
        parts += [*traceback.format_exception_only(one), repr(one), repr(vars(one))]
        one = one.__cause__ or one.__context__
    return "\n".join(parts)


# --- What is sent -------------------------------------------------------------------------------------------------------


async def test_S_30_a_token_request_is_a_post_of_a_form_and_asks_for_plain_json() -> None:
    async with serve(token_answer()) as server:
        token = await client_of(server).fetch_token(ClientCredentials("r w", resource=("urn:a", "urn:b"), audience="x"))
    assert token.access_token == "at"
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/token")
    assert request.pairs == [
        ("grant_type", "client_credentials"),
        ("scope", "r w"),
        ("resource", "urn:a"),
        ("resource", "urn:b"),
        ("audience", "x"),
    ]
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert basic_of(request) == "id:CANARY-secret"
    names = [name for name, _ in request.fields]
    assert len(names) == len(set(names))


async def test_S_40_S_45_a_code_is_sent_with_its_verifier_and_its_resource() -> None:
    async with serve(token_answer()) as server:
        grant = AuthorizationCode("c", redirect_uri="https://app.example/cb", code_verifier=VERIFIER, resource="urn:a")
        await Client(known(server), "id").fetch_token(grant)
    assert server.requests[0].form == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": "https://app.example/cb",
        "code_verifier": VERIFIER,
        "resource": "urn:a",
        "client_id": "id",
    }


async def test_S_45_a_refresh_sends_the_resource_and_no_scope() -> None:
    async with serve(token_answer()) as server:
        await client_of(server).refresh(RT, resource=["urn:a"], extra={"x": "1"})
    assert server.requests[0].form == {
        "grant_type": "refresh_token",
        "refresh_token": "CANARY-rt",
        "resource": "urn:a",
        "x": "1",
    }


@pytest.mark.parametrize(
    ("authentication", "supported", "basic", "members"),
    [
        (None, None, None, {"client_id": "id"}),
        (NoAuthentication(), None, None, {"client_id": "id"}),
        (ClientSecret("s"), None, "id:s", {}),
        (ClientSecret("s"), ["client_secret_post"], None, {"client_id": "id", "client_secret": "s"}),
        (ClientSecretBasic("s p"), ["client_secret_post"], "id:s+p", {}),
        (ClientSecretBasic("s p", encoded=False), None, "id:s p", {}),
        (ClientSecretPost("s"), ["client_secret_basic"], None, {"client_id": "id", "client_secret": "s"}),
    ],
)
async def test_S_13_S_29_each_request_authenticates_by_one_method(
    authentication: Any, supported: list[str] | None, basic: str | None, members: dict[str, str]
) -> None:
    async with serve(token_answer()) as server:
        client = Client(known(server, token_endpoint_auth_methods_supported=supported), "id", authentication)
        await client.fetch_token(RefreshToken("rt"))
    (request,) = server.requests
    assert basic_of(request) == basic
    assert request.form == {"grant_type": "refresh_token", "refresh_token": "rt", **members}
    assert client.public is (basic is None and "client_secret" not in members)


async def test_S_13_a_class_of_the_users_own_can_sign_an_assertion() -> None:
    class Assertion:
        async def authenticate(self, request: EndpointRequest, client_id: str, supported: tuple[str, ...]) -> None:
            request.form += [("client_assertion_type", "urn:x:jwt-bearer"), ("client_assertion", Secret(f"{client_id}.jwt"))]

    async with serve(token_answer()) as server:
        await client_of(server, Assertion()).fetch_token(ClientCredentials())
    assert server.requests[0].form == {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:x:jwt-bearer",
        "client_assertion": "id.jwt",
    }
    assert "authorization" not in server.requests[0].headers


async def test_a_public_client_has_no_client_credentials() -> None:
    async with serve() as server:
        with pytest.raises(ConfigurationError, match=r"RFC 6749 section 4\.4"):
            await Client(known(server), "id").fetch_token(ClientCredentials())
    assert server.connections == 0


@pytest.mark.parametrize("grant", [ClientCredentials, "client_credentials", None, 5])
async def test_what_is_no_grant_is_refused(grant: Any) -> None:
    async with serve() as server:
        with pytest.raises(ConfigurationError, match="grant must be a grant"):
            await client_of(server).fetch_token(grant)
    assert server.connections == 0


async def test_a_grant_of_the_users_own_is_one() -> None:
    class Mine:
        grant_type = "urn:mine"
        unattended = True
        single_use = False

        def parameters(self) -> list[tuple[str, str | Secret]]:
            return [("x", "1"), ("y", "")]

    async with serve(token_answer()) as server:
        await client_of(server).fetch_token(Mine())
    assert server.requests[0].form == {"grant_type": "urn:mine", "x": "1"}


class Broken:
    """A grant of the user's own that isn't quite one."""

    grant_type = "urn:mine"
    unattended = True
    single_use = False

    def __init__(self, yielded: Any) -> None:
        self.yielded = yielded

    def parameters(self) -> Any:
        if isinstance(self.yielded, Exception):
            raise self.yielded
        return self.yielded


JUNK: list[Any] = [
    ZeroDivisionError("CANARY"),
    TypeError("CANARY"),
    None,
    7,
    "CANARY",
    [("CANARY",)],
    [("a", "CANARY", "b")],
    [("a", None)],
    [("CANARY", 1)],
    [(1, "CANARY")],
    [("a", b"CANARY")],
    {"a": "CANARY"},
]


@pytest.mark.parametrize("yielded", JUNK, ids=repr)
async def test_F_55_a_grant_of_the_users_own_that_yields_junk_is_named_and_nothing_is_sent(yielded: Any) -> None:
    async with serve(token_answer()) as server:
        client = client_of(server)
        for work in (partial(client.fetch_token, Broken(yielded)), Tokens(client, Broken(yielded)).token):
            with pytest.raises(ConfigurationError, match=r"the grant's parameters\(\)") as caught:
                await work()
            assert not caught.value.retryable
            assert "CANARY" not in str(caught.value)
    assert server.connections == 0


async def test_F_55_an_error_of_ours_that_such_a_grant_raises_passes_as_it_is() -> None:
    async with serve(token_answer()) as server:
        client = client_of(server)
        for work in (
            partial(client.fetch_token, Broken(LoginRequired("nobody is here"))),
            Tokens(client, Broken(LoginRequired("nobody is here"))).token,
        ):
            with pytest.raises(LoginRequired, match="nobody is here"):
                await work()
    assert server.connections == 0


async def test_the_lifetime_counts_from_the_sending_of_the_request() -> None:
    clock = VirtualClock(1_700_000_000.0)

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> bytes:
        clock.advance(20)
        return token_answer()

    async with serve(slowly) as server:
        token = await client_of(server, clock=clock).fetch_token(ClientCredentials())
    assert (token.obtained_at, token.expires_at) == (1_700_000_000.0, 1_700_003_600.0)


# --- Refresh ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "refresh_token", "scope"),
    [
        ({}, "CANARY-rt", "r w"),
        ({"refresh_token": "", "scope": None}, "CANARY-rt", "r w"),
        ({"refresh_token": None}, "CANARY-rt", "r w"),
        ({"refresh_token": "CANARY-rt"}, "CANARY-rt", "r w"),
        ({"refresh_token": "new", "scope": "r"}, "new", "r"),
        ({"refresh_token": "new", "scope": "r w x"}, "new", "r w x"),
    ],
)
async def test_F_35_F_36_S_31_a_refresh_keeps_what_the_answer_leaves_out(
    members: dict[str, Any], refresh_token: str, scope: str
) -> None:
    async with serve(token_answer("new-access", **members)) as server:
        token = await client_of(server).refresh(RT)
    assert (token.access_token, token.refresh_token, token.scope) == ("new-access", refresh_token, scope)


async def test_F_35_S_31_a_refresh_token_given_as_a_string_is_kept_too() -> None:
    async with serve(token_answer("new-access")) as server:
        assert (await client_of(server).refresh("CANARY-rt")).refresh_token == "CANARY-rt"
    async with serve(token_answer("new-access", refresh_token="new")) as server:
        assert (await client_of(server).refresh("CANARY-rt")).refresh_token == "new"


async def test_F_37_an_id_token_in_a_refresh_is_kept_unread() -> None:
    async with serve(token_answer("new", id_token="not.a.jwt")) as server:
        token = await client_of(server).refresh(RT)
    assert token.extra == {"id_token": "not.a.jwt"}


async def test_S_33_a_refresh_asks_for_no_scope_beyond_the_grant() -> None:
    async with serve(token_answer()) as server:
        client = client_of(server)
        for scope in ("r x", ["x"], "r w x"):
            with pytest.raises(ConfigurationError, match="RFC 6749 section 6"):
                await client.refresh(RT, scope=scope)
        assert server.connections == 0
        assert (await client.refresh(RT, scope="w")).scope == "w"
        await client.refresh("rt", scope="anything")
        await client.refresh(RT.replace(scope=None), scope="x")
    assert [request.form["scope"] for request in server.requests] == ["w", "anything", "x"]


@pytest.mark.parametrize("token", ["", Token("at")])
async def test_without_a_refresh_token_there_is_no_refresh(token: Any) -> None:
    async with serve() as server:
        with pytest.raises(ConfigurationError, match="no refresh token"):
            await client_of(server).refresh(token)
    assert server.connections == 0


# --- Discovery ----------------------------------------------------------------------------------------------------------

PLACES = (
    "/.well-known/oauth-authorization-server/tenant",
    "/tenant/.well-known/openid-configuration",
    "/tenant/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration/tenant",
)


def publishing(place: str, issuer: str | None = None, **more: Any) -> Callable[[Request], bytes]:
    """A server with metadata at *place*, for the issuer it is asked for or for *issuer*."""

    def reply(request: Request) -> bytes:
        base = f"http://{request.headers['host']}"
        if request.path == place:
            return json_answer({"issuer": issuer or f"{base}/tenant", "token_endpoint": f"{base}/token", **more})
        return token_answer() if request.path == "/token" else answer(404, b"<html>Not found</html>")

    return reply


@pytest.mark.parametrize("index", range(4), ids=PLACES)
async def test_S_14_metadata_is_found_in_each_well_known_place(index: int) -> None:
    async with serve(publishing(PLACES[index])) as server:
        client = Client(server.url + "/tenant", "id", ClientSecret("s"))
        await client.fetch_token(ClientCredentials())
        assert client.issuer == client.server == server.url + "/tenant"
        await client.fetch_token(ClientCredentials())
        # Found once and kept.
        assert server.paths() == [*PLACES[: index + 1], "/token", "/token"]
    for request in server.requests[:-2]:
        assert (request.method, request.body) == ("GET", b"")
        assert (request.headers["accept"], request.headers["accept-encoding"]) == ("application/json", "identity")
        assert "authorization" not in request.headers


async def test_S_14_metadata_can_be_discovered_anew() -> None:
    async with serve(publishing(PLACES[0])) as server:
        client = Client(server.url + "/tenant", "id")
        assert await client.metadata() == await client.metadata() == await client.metadata(refresh=True)
        assert len(server.requests) == 2
        values = client_of(server)
        assert await values.metadata(refresh=True) is await values.metadata()
        assert len(server.requests) == 2


async def test_S_51_the_token_endpoint_that_was_discovered_is_told_from_one_that_was_given() -> None:
    async with serve(publishing(PLACES[0])) as server:
        client = Client(server.url + "/tenant", "id")
        assert await client.discovered_token_endpoint() == (await client.metadata()).token_endpoint
        assert await client_of(server).discovered_token_endpoint() is None


async def test_many_who_need_the_metadata_at_once_cause_one_request() -> None:
    async with serve(publishing(PLACES[0])) as server:
        client = Client(server.url + "/tenant", "id")
        found = await asyncio.gather(*(client.metadata() for _ in range(50)))
    assert len(set(map(id, found))) == 1
    assert len(server.requests) == 1


async def test_S_14_metadata_of_another_issuer_is_not_used() -> None:
    async with serve(publishing(PLACES[0], issuer="https://evil.example")) as server:
        client = Client(server.url + "/tenant", "id", ClientSecret("s"))
        with pytest.raises(DiscoveryError, match="metadata_issuer=") as caught:
            await client.fetch_token(ClientCredentials())
        assert caught.value.rule == "RFC 8414 section 3.3"
        assert "/token" not in server.paths()


async def test_S_14_an_issuer_with_another_slash_is_another_issuer() -> None:
    async with serve(publishing(PLACES[0])) as server:
        with pytest.raises(DiscoveryError) as caught:
            await Client(server.url + "/tenant/", "id").metadata()
    assert caught.value.rule == "RFC 8414 section 3.3"


async def test_S_14_that_another_issuer_answers_outweighs_what_the_other_places_say() -> None:
    def reply(request: Request) -> bytes:
        if request.path == PLACES[1]:
            return json_answer({"issuer": "https://evil.example"})
        return {PLACES[0]: answer(200, b"<html>"), PLACES[2]: answer(503)}.get(request.path, answer(404))

    async with serve(reply) as server:
        with pytest.raises(DiscoveryError) as caught:
            await Client(server.url + "/tenant", "id").metadata()
    assert caught.value.rule == "RFC 8414 section 3.3"
    assert len(server.requests) == 4


async def test_S_14_a_server_that_calls_itself_otherwise_is_named_exactly() -> None:
    async with serve(publishing(PLACES[0], issuer="https://login.example/{tenantid}/v2.0")) as server:
        issuer = server.url + "/tenant"
        client = Client(issuer, "id", metadata_issuer="https://login.example/{tenantid}/v2.0")
        assert (await client.metadata()).token_endpoint == server.url + "/token"
        assert client.issuer == issuer
        with pytest.raises(DiscoveryError):
            await Client(issuer, "id", metadata_issuer="https://login.example/{tenantid}/V2.0").metadata()
        with pytest.raises(DiscoveryError):
            await Client(issuer, "id").metadata()


async def test_S_14_the_next_place_counts_where_one_names_another_issuer() -> None:
    def reply(request: Request) -> bytes:
        stated = "https://evil.example" if request.path == PLACES[0] else f"http://{request.headers['host']}/tenant"
        return json_answer({"issuer": stated})

    async with serve(reply) as server:
        assert (await Client(server.url + "/tenant", "id").metadata()).issuer == server.url + "/tenant"


async def test_S_14_nothing_published_is_told_and_nothing_is_guessed() -> None:
    async with serve() as server:
        with pytest.raises(DiscoveryError, match="publishes no metadata") as caught:
            await Client(server.url, "id", ClientSecret("s")).fetch_token(ClientCredentials())
        assert caught.value.rule == "RFC 8414 section 3"
        assert server.paths() == ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]
        await server.until(lambda: True)
    async with serve(publishing(PLACES[0], token_endpoint=None)) as server:
        with pytest.raises(ConfigurationError, match="no token_endpoint"):
            await Client(server.url + "/tenant", "id", ClientSecret("s")).fetch_token(ClientCredentials())
        assert "/token" not in server.paths()


BAD_DOCUMENTS: dict[str, bytes] = {
    "html": answer(200, b"<html>Log in</html>", {"Content-Type": "text/html"}),
    "empty": answer(200),
    "a list": json_answer([]),
    "deep": answer(200, b'{"a":' * 50_000),
    "encoded": answer(200, gzip.compress(b"{}"), {"Content-Encoding": "gzip"}),
    "too long": answer(200, b"{" + b" " * METADATA_BODY_LIMIT + b"}"),
}


@pytest.mark.parametrize("document", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
async def test_F_27_F_28_metadata_that_makes_no_sense_is_a_discovery_error(document: bytes) -> None:
    async with serve(document) as server:
        with pytest.raises(DiscoveryError) as caught:
            await Client(server.url, "id").metadata()
    assert not caught.value.maybe_spent


@pytest.mark.parametrize("document", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
async def test_a_place_with_nonsense_does_not_hide_the_next(document: bytes) -> None:
    good = publishing(PLACES[1])
    async with serve(lambda request: document if request.path == PLACES[0] else good(request)) as server:
        assert (await Client(server.url + "/tenant", "id").metadata()).token_endpoint


async def test_an_unusable_member_is_a_discovery_error() -> None:
    async with serve(publishing(PLACES[0], token_endpoint="/token")) as server:
        with pytest.raises(DiscoveryError, match="token_endpoint must be an absolute https URL"):
            await Client(server.url + "/tenant", "id").metadata()


@pytest.mark.parametrize(("status", "wait"), [(503, 7.0), (500, 7.0), (429, 7.0)])
async def test_F_23_metadata_that_can_not_be_had_now_may_be_later(status: int, wait: float) -> None:
    async with serve(answer(status, headers={"Retry-After": "7"})) as server:
        client = Client(server.url, "id", ClientSecret("s"))
        with pytest.raises(TokenUnavailable) as caught:
            await client.refresh("rt")
        # The refresh token was never sent.
        assert (caught.value.retry_after, caught.value.maybe_spent) == (wait, False)


async def test_F_26_a_metadata_answer_that_breaks_off_spends_nothing() -> None:
    async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

    async with serve(reset) as server:
        with pytest.raises(TokenUnavailable) as caught:
            await Client(server.url, "id", ClientSecret("s")).refresh("rt")
    assert not caught.value.maybe_spent


async def test_F_25_the_timeout_is_for_all_the_places_together() -> None:
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(never) as server:
        client = Client(server.url + "/tenant", "id", ClientSecret("s"), timeout=0.2)
        for work in (client.metadata, partial(client.fetch_token, ClientCredentials())):
            before = len(server.requests)
            with pytest.raises(TokenUnavailable, match=r"was not found within 0\.2 s") as caught:
                await work()
            assert caught.value.retryable
            assert not caught.value.maybe_spent
            assert len(server.requests) - before < len(PLACES), "each place had a timeout of its own"


async def test_one_place_down_and_the_next_up_is_up() -> None:
    good = publishing(PLACES[3])
    async with serve(lambda request: answer(502) if request.path != PLACES[3] else good(request)) as server:
        assert (await Client(server.url + "/tenant", "id").metadata()).token_endpoint


async def test_after_a_failure_the_metadata_is_looked_for_again() -> None:
    good = publishing(PLACES[0])
    up: list[bool] = []
    async with serve(lambda request: good(request) if up else answer(503)) as server:
        client = Client(server.url + "/tenant", "id")
        with pytest.raises(TokenUnavailable):
            await client.metadata()
        up.append(True)
        assert (await client.metadata()).token_endpoint


# --- Only https: S-29, G-14 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["as.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "10.0.0.1"])
def test_S_29_G_14_plain_http_is_refused_when_the_client_is_made(host: str) -> None:
    with pytest.raises(InsecureTransport, match="server"):
        Client(f"http://{host}", "id")
    for name in ("token", "revocation", "introspection", "authorization"):
        endpoints: dict[str, Any] = {"token_endpoint": "https://as.example/token", f"{name}_endpoint": f"http://{host}/x"}
        with pytest.raises(InsecureTransport, match=f"{name}_endpoint"):
            Client(ServerMetadata(**endpoints), "id")
        Client(ServerMetadata(**endpoints), "id", insecure_http=True)
    Client(f"http://{host}", "id", insecure_http=True)


@pytest.fixture
def elsewhere() -> Callable[[], Awaitable[aiohttp.ClientSession]]:
    """A session for which every name is this machine, so that a connection to a foreign host would be seen."""

    class Here(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[aiohttp.abc.ResolveResult]:
            found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}
            return [found]  # type: ignore[list-item]

        async def close(self) -> None:
            pass

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Here()))

    return make


@pytest.mark.parametrize("name", ["token", "revocation", "introspection"])
async def test_S_29_G_14_an_http_endpoint_in_discovered_metadata_gets_no_connection(
    name: str, elsewhere: Callable[[], Awaitable[aiohttp.ClientSession]]
) -> None:
    async with serve(token_answer()) as target:
        more = {f"{name}_endpoint": f"http://as.example:{target.port}/x"}
        async with serve(publishing(PLACES[0], **more)) as server:
            client = Client(server.url + "/tenant", "id", ClientSecret("s"), session_factory=elsewhere)
            for call in (client.fetch_token(ClientCredentials()), client.revoke(RT), client.introspect(RT)):
                with pytest.raises(InsecureTransport, match=f"the {name}_endpoint"):
                    await call
        assert target.connections == 0


async def test_S_29_with_insecure_http_it_gets_one(elsewhere: Callable[[], Awaitable[aiohttp.ClientSession]]) -> None:
    async with serve(token_answer()) as target:
        metadata = ServerMetadata(token_endpoint=f"http://as.example:{target.port}/token")
        client = Client(metadata, "id", ClientSecret("s"), session_factory=elsewhere, insecure_http=True)
        await client.fetch_token(ClientCredentials())
        assert target.connections == 1
        assert target.requests[0].headers["host"] == f"as.example:{target.port}"


async def test_S_29_G_14_a_hook_can_not_send_a_request_to_plain_http(
    elsewhere: Callable[[], Awaitable[aiohttp.ClientSession]],
) -> None:
    async with serve(token_answer()) as target:

        def astray(request: EndpointRequest) -> None:
            request.url = f"http://as.example:{target.port}/token"

        client = client_of(target, hooks=[Hook("access_token_request", astray)], session_factory=elsewhere)
        with pytest.raises(InsecureTransport):
            await client.fetch_token(ClientCredentials())
        assert target.connections == 0


# --- Redirects: S-19, F-24, G-14 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
async def test_S_19_F_24_G_14_no_redirect_is_followed_from_any_endpoint(status: int) -> None:
    async with serve(token_answer()) as target:
        async with serve(answer(status, headers={"Location": f"{target.url}/CANARY?x=CANARY"})) as server:
            client = client_of(server)
            for call in (client.fetch_token(ClientCredentials()), client.refresh(RT), client.revoke(RT), client.introspect(RT)):
                with pytest.raises(TokenResponseError) as caught:
                    await call
                assert caught.value.status == status
                assert caught.value.rule == "RFC 9700 section 4.12"
                assert f"is a redirect to {target.url}, " in str(caught.value)
                assert "CANARY" not in str(caught.value)
            with pytest.raises(DiscoveryError):
                await Client(server.url, "id").metadata()
            assert len(server.requests) == 6
        assert (target.connections, target.requests) == (0, [])


async def test_S_19_a_redirect_to_the_same_origin_is_not_followed_either() -> None:
    async with serve(answer(307, headers={"Location": "/token2"})) as server:
        with pytest.raises(TokenResponseError, match="another path"):
            await client_of(server).fetch_token(ClientCredentials())
        assert server.paths() == ["/token"]


# --- Bodies without an end: F-28, F-29, G-11 ----------------------------------------------------------------------------


class Flood:
    """An answer of *size* bytes, written until nobody takes it any more."""

    def __init__(self, size: int, headers: Mapping[str, str] | None = None, chunk: bytes = b"x" * 65_536) -> None:
        self.size, self.headers, self.chunk = size, headers or {}, chunk
        self.written = 0
        self.ended = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        head = {"Content-Length": str(self.size)} | dict(self.headers)
        if "Transfer-Encoding" in head:
            del head["Content-Length"]
        fields = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode())
        chunked = "Transfer-Encoding" in head
        try:
            while self.written < self.size:
                writer.write(b"%x\r\n%s\r\n" % (len(self.chunk), self.chunk) if chunked else self.chunk)
                await writer.drain()
                self.written += len(self.chunk)
        except ConnectionError:
            pass
        finally:
            self.ended.set()


# What the kernel's buffers of both ends take in before anybody reads, and a lot more.
MOST_IN_FLIGHT = 16 * 1024 * 1024


async def flooded(flood: Flood, **more: Any) -> OAuthError:
    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        await flood(request, writer)

    async with serve(reply) as server:
        with pytest.raises(OAuthError) as caught:
            await client_of(server, **more).fetch_token(ClientCredentials())
        # The connection is closed, long before the end: the writer is told so.
        async with asyncio.timeout(30):
            await flood.ended.wait()
    return caught.value


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}, {"Content-Type": "application/json"}], ids=str)
async def test_F_28_G_11_of_a_body_of_a_gigabyte_64_kib_are_read(headers: dict[str, str]) -> None:
    flood = Flood(1024**3, headers)
    error = await flooded(flood)
    assert isinstance(error, TokenResponseError)
    assert str(TOKEN_BODY_LIMIT) in str(error)
    assert flood.written < MOST_IN_FLIGHT


async def test_F_28_G_11_what_is_read_is_bounded_by_the_limit_and_not_by_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    iter_any = aiohttp.StreamReader.iter_any

    def counting(self: aiohttp.StreamReader) -> Any:
        stream = iter_any(self)

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in stream:
                taken.append(len(chunk))
                yield chunk

        return chunks()

    monkeypatch.setattr(aiohttp.StreamReader, "iter_any", counting)
    await flooded(Flood(1024**3))
    assert TOKEN_BODY_LIMIT < sum(taken) < 1024 * 1024


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_F_29_G_11_a_bomb_of_300_mb_stays_as_small_as_it_came(coding: str) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    zeros = bytes(1024 * 1024)
    bomb = b"".join([packer.compress(b'{"access_token": "'), *(packer.compress(zeros) for _ in range(300)), packer.flush()])
    assert len(bomb) > TOKEN_BODY_LIMIT
    for body in (bomb, bomb[: TOKEN_BODY_LIMIT // 2]):
        async with serve(answer(200, body, {"Content-Encoding": coding, "Content-Type": "application/json"})) as server:
            with pytest.raises(TokenResponseError) as caught:
                await client_of(server).fetch_token(ClientCredentials())
            assert server.requests[0].headers["accept-encoding"] == "identity"
        assert f"{len(body)} bytes" in str(caught.value) or f"longer than {TOKEN_BODY_LIMIT} bytes" in str(caught.value)


async def test_F_29_a_session_of_the_users_own_that_decompresses_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(packer.compress(bytes(1024 * 1024)) for _ in range(300)), packer.flush()])
    taken: list[int] = []
    iter_any = aiohttp.StreamReader.iter_any

    def counting(self: aiohttp.StreamReader) -> Any:
        stream = iter_any(self)

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in stream:
                taken.append(len(chunk))
                yield chunk

        return chunks()

    monkeypatch.setattr(aiohttp.StreamReader, "iter_any", counting)
    async with serve(answer(200, bomb, {"Content-Encoding": "gzip"})) as server:
        with pytest.raises(TokenResponseError, match="longer than"):
            await client_of(server, session_factory=aiohttp.ClientSession).fetch_token(ClientCredentials())
    assert sum(taken) < 2 * 1024 * 1024


async def test_F_28_the_limits_are_arguments() -> None:
    body = json.dumps({"access_token": "a", "x": "y" * 1000}).encode()
    async with serve(answer(200, body)) as server:
        with pytest.raises(TokenResponseError, match="longer than 500 bytes"):
            await client_of(server, token_body_limit=500).fetch_token(ClientCredentials())
        assert (await client_of(server, token_body_limit=len(body)).fetch_token(ClientCredentials())).access_token == "a"
        with pytest.raises(TokenResponseError, match="longer than 500 bytes"):
            await client_of(server, token_body_limit=500).introspect("x")
    async with serve(publishing(PLACES[0], x="y" * 1000)) as server:
        assert (await Client(server.url + "/tenant", "id").metadata()).token_endpoint
        with pytest.raises(DiscoveryError):
            await Client(server.url + "/tenant", "id", metadata_body_limit=500).metadata()


async def test_F_33_an_access_token_of_a_megabyte_is_refused_by_the_limit() -> None:
    async with serve(token_answer("a" * 1024 * 1024)) as server:
        with pytest.raises(TokenResponseError, match="longer than"):
            await client_of(server).refresh(RT)


# --- Faults on the way: F-25, F-26 --------------------------------------------------------------------------------------


async def test_F_25_no_answer_in_time_may_pass_and_leaves_it_in_doubt() -> None:
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(never) as server:
        with pytest.raises(TokenUnavailable, match=r"did not answer within 0\.2 s") as caught:
            await client_of(server, timeout=0.2).refresh(RT)
        assert (caught.value.maybe_spent, caught.value.retryable, len(server.requests)) == (True, True, 1)


async def test_F_25_an_answer_that_drips_is_cut_off_at_the_total_timeout() -> None:
    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serve(drip) as server:
        with pytest.raises(TokenUnavailable, match="did not answer within") as caught:
            await client_of(server, timeout=0.3).refresh(RT)
    assert caught.value.maybe_spent


GOOD = b'{"access_token": "CANARY-at"}'
CUT_OFF = {
    "closed without a byte": b"",
    "within the status line": b"HTTP/1.1 20",
    "within the headers": b"HTTP/1.1 200 OK\r\nContent-Le",
    "within the body": b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n" + GOOD[:25],
    "one byte short": b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + GOOD,
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1d\r\n" + GOOD + b"\r\n",
    "a chunk longer than it says": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a header of a megabyte": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\nContent-Length: 5\r\n\r\n" + GOOD,
    "a header that is none": b"HTTP/1.1 200 OK\r\nCANARY\x00\r\n\r\n",
}


@pytest.mark.parametrize("what", CUT_OFF.values(), ids=CUT_OFF)
@pytest.mark.parametrize("quirks", [Quirks(), Quirks(insecure_get_request=True)], ids=["post", "get"])
async def test_F_26_P0_a_broken_answer_leaves_it_in_doubt_and_is_never_asked_for_again(what: bytes, quirks: Quirks) -> None:
    async def broken(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(what)
        await writer.drain()

    async with serve(broken) as server:
        with pytest.raises(TokenUnavailable) as caught:
            await client_of(server, ClientSecretPost("CANARY-secret"), quirks=quirks).refresh(RT)
        assert (caught.value.maybe_spent, caught.value.retryable) == (True, True)
        assert isinstance(caught.value.__cause__, aiohttp.ClientError)
        assert len(server.requests) == 1
    # The cause quotes neither the request nor the answer.
    assert "CANARY" not in told(caught.value)


async def test_F_26_an_answer_until_the_connection_closes_is_whole() -> None:
    async def until_close(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD)
        await writer.drain()
        writer.write_eof()
        await asyncio.Event().wait()

    async with serve(until_close) as server:
        assert (await client_of(server).refresh(RT)).access_token == "CANARY-at"


async def test_F_25_a_refused_connection_spends_nothing() -> None:
    async with serve() as server:
        client = client_of(server)
    with pytest.raises(TokenUnavailable, match="could not be reached") as caught:
        await client.refresh(RT)
    assert (caught.value.maybe_spent, caught.value.retryable) == (False, True)
    assert isinstance(caught.value.__cause__, OSError)


# --- Errors keep no secret: S-22, S-26, F-38 ----------------------------------------------------------------------------


def _echo(request: Request) -> bytes:
    everything = f"{request.target} {request.body.decode()} {request.headers.get('authorization')} {basic_of(request)}"
    form = dict(request.pairs)
    values = " ".join(form.values())
    return json_answer(
        {"error": "invalid_grant", "error_description": values[-180:], "error_uri": f"https://x/?{everything}"}, 400
    )


@pytest.mark.parametrize(
    "authentication", [ClientSecretBasic("CANARY-secret"), ClientSecretPost("CANARY-secret")], ids=["basic", "post"]
)
async def test_F_38_S_26_an_echo_of_what_was_sent_is_taken_out(authentication: Any) -> None:
    async with serve(_echo) as server:
        with pytest.raises(InvalidGrant) as caught:
            await client_of(server, authentication).refresh(RT)
    assert "[redacted]" in (caught.value.error_description or "")
    assert "CANARY" not in told(caught.value)


@pytest.mark.parametrize(
    "grant",
    [
        AuthorizationCode("CANARY-code", code_verifier="CANARY" + "x" * 40),
        RefreshToken("CANARY-rt"),
        ExtensionGrant("urn:x", {"assertion": Secret("CANARY-assertion")}),
    ],
    ids=lambda grant: grant.grant_type,
)
async def test_F_38_S_26_of_every_grant(grant: Any) -> None:
    async with serve(_echo) as server:
        with pytest.raises(InvalidGrant) as caught:
            await client_of(server, ClientSecretPost("CANARY-secret")).fetch_token(grant)
    assert "CANARY" not in told(caught.value)


async def test_F_38_S_26_of_revocation_and_introspection_too() -> None:
    async with serve(_echo) as server:
        client = client_of(server, ClientSecretPost("CANARY-secret"))
        for call in (client.revoke("CANARY-token"), client.introspect("CANARY-token")):
            with pytest.raises(ErrorResponse) as caught:
                await call
            assert "CANARY" not in told(caught.value)


async def test_S_26_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with serve(_echo) as server:
        with pytest.raises(InvalidGrant):
            await client_of(server).refresh(RT)
    async with serve(token_answer("CANARY-at", refresh_token="CANARY-rt2")) as server:
        await client_of(server).refresh(RT)
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_F_21_F_22_F_24_the_body_decides_whatever_the_status(status: int) -> None:
    async with serve(json_answer({"error": "invalid_grant"}, status)) as server:
        with pytest.raises(InvalidGrant):
            await client_of(server).refresh(RT)
    async with serve(json_answer({"error": "invalid_client"}, status, {"WWW-Authenticate": 'Basic realm="x"'})) as server:
        with pytest.raises(InvalidClient):
            await client_of(server).refresh(RT)
        assert len(server.requests) == 1


# --- Secrets that are read: rotated, asynchronous, failing --------------------------------------------------------------


async def test_a_secret_is_read_at_each_request_sync_or_async() -> None:
    names = iter(["one", "two", "three", "four"])

    async def deferred() -> str:
        await asyncio.sleep(0)
        return next(names)

    async with serve(token_answer()) as server:
        for authentication in (ClientSecretBasic(lambda: next(names)), ClientSecretBasic(deferred)):
            client = client_of(server, authentication)
            await client.fetch_token(ClientCredentials())
            await client.refresh("rt")
    assert [basic_of(request) for request in server.requests] == ["id:one", "id:two", "id:three", "id:four"]


def _raising() -> str:
    raise OSError("/run/secrets/CANARY")


async def _none() -> Any:
    return None


@pytest.mark.parametrize("source", [_raising, _none, lambda: 5, lambda: b"x"], ids=["raises", "none", "a number", "bytes"])
@pytest.mark.parametrize("method", [ClientSecret, ClientSecretBasic, ClientSecretPost])
async def test_a_secret_that_can_not_be_read_now_may_be_later_and_nothing_is_sent(method: Any, source: Any) -> None:
    async with serve() as server:
        with pytest.raises(TokenUnavailable, match="was not sent") as caught:
            await client_of(server, method(source)).refresh(RT)
        assert server.connections == 0
    assert (caught.value.maybe_spent, caught.value.retryable) == (False, True)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("method", [ClientSecret, ClientSecretBasic, ClientSecretPost])
async def test_S_13_a_secret_that_turns_out_empty_does_not_make_the_client_a_public_one(method: Any) -> None:
    async with serve(token_answer()) as server:
        with pytest.raises(TokenUnavailable, match="was not sent"):
            await client_of(server, method(lambda: "")).refresh(RT)
        assert server.connections == 0


async def test_the_fingerprint_tells_whether_the_secret_has_changed() -> None:
    secrets = ["one"]
    async with serve() as server:
        client = client_of(server, ClientSecret(lambda: secrets[0]))
        first = await client.fingerprint()
        assert first == await client.fingerprint()
        secrets[0] = "two"
        assert await client.fingerprint() not in ("", first)
        assert "two" not in await client.fingerprint()
        assert await client_of(server, ClientSecret(_raising)).fingerprint() == ""
        assert await Client(known(server), "id").fingerprint() == ""


# --- Probing ------------------------------------------------------------------------------------------------------------


def _accepting(accepted: Callable[[Request], bool]) -> Callable[[Request], bytes]:
    return lambda request: token_answer() if accepted(request) else json_answer({"error": "invalid_client"}, 401)


@pytest.mark.parametrize(
    ("accepted", "tries"),
    [
        (lambda request: basic_of(request) == "a+b:c%3Ad", 1),
        (lambda request: dict(request.pairs).get("client_secret") == "c:d", 2),
        (lambda request: basic_of(request) == "a b:c:d", 3),
    ],
    ids=["basic", "post", "raw basic"],
)
async def test_S_28_a_probe_finds_the_method_that_works_and_remembers_it(
    accepted: Callable[[Request], bool], tries: int
) -> None:
    async with serve(_accepting(accepted)) as server:
        client = Client(known(server), "a b", ClientSecret("c:d", probe=True))
        await client.fetch_token(ClientCredentials())
        assert len(server.requests) == tries
        for request in server.requests:
            assert (basic_of(request) is None) == ("client_secret" in request.form)
        await client.fetch_token(ClientCredentials())
        assert len(server.requests) == tries + 1


async def test_S_28_where_all_methods_are_refused_the_refusal_is_told_after_each_was_tried_once() -> None:
    async with serve(_accepting(lambda request: False)) as server:
        client = Client(known(server), "id", ClientSecret("s", probe=True))
        for _ in range(2):
            with pytest.raises(InvalidClient):
                await client.fetch_token(ClientCredentials())
        assert len(server.requests) == 6


async def test_S_28_several_that_probe_at_once_all_succeed() -> None:
    async with serve(_accepting(lambda request: basic_of(request) is None)) as server:
        client = Client(known(server), "id", ClientSecret("s", probe=True))
        await asyncio.gather(*(client.fetch_token(ClientCredentials()) for _ in range(10)))
        assert len(server.requests) <= 20


async def test_S_28_there_is_no_probing_unless_it_is_asked_for() -> None:
    async with serve(_accepting(lambda request: False)) as server:
        with pytest.raises(InvalidClient):
            await client_of(server).fetch_token(ClientCredentials())
        assert len(server.requests) == 1


async def test_S_28_only_invalid_client_moves_a_probe_on() -> None:
    async with serve(json_answer({"error": "invalid_grant"}, 400)) as server:
        with pytest.raises(InvalidGrant):
            await client_of(server, ClientSecret("s", probe=True)).refresh(RT)
        assert len(server.requests) == 1


async def test_S_28_what_was_probed_serves_the_other_endpoints() -> None:
    async with serve(_accepting(lambda request: basic_of(request) is None)) as server:
        client = client_of(server, ClientSecret("s", probe=True))
        await client.fetch_token(ClientCredentials())
        await client.revoke("rt")
    assert server.requests[-1].form == {"token": "rt", "client_id": "id", "client_secret": "s"}


# --- Quirks of requests -------------------------------------------------------------------------------------------------


async def test_quirk_scope_on_refresh() -> None:
    async with serve(token_answer()) as server:
        client = client_of(server, quirks=Quirks(scope_on_refresh=True))
        await client.refresh(RT)
        await client.refresh(RT, scope="w")
        await client.refresh("rt")
    assert [request.form.get("scope") for request in server.requests] == ["r w", "w", None]


@pytest.mark.parametrize("authentication", [ClientSecretBasic("s"), ClientSecretPost("s"), NoAuthentication()])
async def test_quirk_client_id_in_body(authentication: Any) -> None:
    async with serve(token_answer()) as server:
        await client_of(server, authentication, quirks=Quirks(client_id_in_body=True)).refresh(RT)
    assert server.requests[0].form["client_id"] == "id"


async def test_quirk_json_request() -> None:
    async with serve(token_answer()) as server:
        client = client_of(server, ClientSecretPost("s"), quirks=Quirks(json_request=True))
        await client.fetch_token(ClientCredentials(resource=["urn:a", "urn:b"]))
    (request,) = server.requests
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert json.loads(request.body) == {
        "grant_type": "client_credentials",
        "resource": ["urn:a", "urn:b"],
        "client_id": "id",
        "client_secret": "s",
    }


async def test_S_30_quirk_insecure_get_request() -> None:
    async with serve(token_answer()) as server:
        client = client_of(server, ClientSecretPost("s&"), quirks=Quirks(insecure_get_request=True))
        await client.fetch_token(ClientCredentials())
    (request,) = server.requests
    assert (request.method, request.body, request.path) == ("GET", b"", "/token")
    assert request.form == {"grant_type": "client_credentials", "client_id": "id", "client_secret": "s&"}
    assert "content-type" not in request.headers


async def test_quirk_of_answers_reach_the_parser() -> None:
    body = {"data": {"accessToken": "1|laravel", "token_type": "user access token"}}
    quirks = Quirks(
        token_path="data",
        renamed={"accessToken": "access_token"},
        vschar_tokens=True,
        token_types=["User Access Token"],
        default_lifetime=60,
    )
    async with serve(json_answer(body)) as server:
        token = await client_of(server, quirks=quirks, clock=VirtualClock(0.0)).fetch_token(ClientCredentials())
    assert (token.access_token, token.token_type, token.expires_at) == ("1|laravel", "Bearer", 60.0)
    async with serve(token_answer(scope="r")) as server:
        with pytest.raises(TokenResponseError, match="less scope"):
            await client_of(server, quirks=Quirks(strict_scope=True)).fetch_token(ClientCredentials("r w"))
        with pytest.raises(TokenResponseError, match="less scope"):
            await client_of(server, quirks=Quirks(strict_scope=True)).refresh(RT)


async def test_a_client_id_under_another_name_is_a_hook() -> None:
    def rename(request: EndpointRequest) -> None:
        request.form = [("client_key" if name == "client_id" else name, value) for name, value in request.form]

    async with serve(token_answer()) as server:
        await client_of(server, ClientSecretPost("s"), hooks=[Hook("access_token_request", rename)]).fetch_token(
            ClientCredentials()
        )
    assert server.requests[0].form == {"grant_type": "client_credentials", "client_key": "id", "client_secret": "s"}


# --- Hooks --------------------------------------------------------------------------------------------------------------


async def test_hooks_run_at_their_point_in_order_sync_and_async() -> None:
    seen: list[str] = []

    def before(name: str, point: Any, coroutine: bool = False) -> Hook:
        def sync(request: EndpointRequest) -> None:
            seen.append(f"{name} {point}")
            assert asyncio.get_running_loop() is caller
            request.form.append((name, str(len(seen))))

        async def deferred(request: EndpointRequest) -> None:
            await asyncio.sleep(0)
            sync(request)

        return Hook(point, deferred if coroutine else sync)

    def after(name: str, point: Any, coroutine: bool = False) -> Hook:
        def sync(response: EndpointResponse) -> EndpointResponse:
            seen.append(f"{name} {point}")
            assert asyncio.get_running_loop() is caller
            data = json.loads(response.body)
            return response.replace(body=json.dumps(data | {"by": [*data.get("by", []), name]}).encode())

        async def deferred(response: EndpointResponse) -> EndpointResponse:
            await asyncio.sleep(0)
            return sync(response)

        return Hook(point, deferred if coroutine else sync)

    caller = asyncio.get_running_loop()
    hooks = [
        *(
            before("a", p)
            for p in ("access_token_request", "refresh_token_request", "revoke_token_request", "introspect_token_request")
        ),
        *(
            before("b", p, True)
            for p in ("access_token_request", "refresh_token_request", "revoke_token_request", "introspect_token_request")
        ),
        *(after("c", p) for p in ("access_token_response", "refresh_token_response")),
        *(after("d", p, True) for p in ("access_token_response", "refresh_token_response")),
    ]
    async with serve(token_answer(active=True)) as server:
        client = client_of(server, hooks=hooks)
        token = await client.fetch_token(ClientCredentials())
        assert seen == [
            "a access_token_request",
            "b access_token_request",
            "c access_token_response",
            "d access_token_response",
        ]
        assert token.extra["by"] == ["c", "d"]
        assert list(server.requests[-1].form)[-2:] == ["a", "b"]
        seen.clear()
        token = await client.refresh("rt")
        assert seen == [
            "a refresh_token_request",
            "b refresh_token_request",
            "c refresh_token_response",
            "d refresh_token_response",
        ]
        assert token.extra["by"] == ["c", "d"]
        seen.clear()
        await client.revoke("rt")
        assert seen == ["a revoke_token_request", "b revoke_token_request"]
        assert list(server.requests[-1].form)[-2:] == ["a", "b"]
        seen.clear()
        await client.introspect("rt")
        assert seen == ["a introspect_token_request", "b introspect_token_request"]


async def test_a_hook_sees_a_request_that_is_complete_and_may_change_all_of_it() -> None:
    def change(request: EndpointRequest) -> None:
        assert set(request.headers) == {"Authorization", "Accept", "Accept-Encoding", "Content-Type"}
        request.url += "?api-version=2"
        request.headers["X-Key"] = Secret("key")
        request.headers["Accept"] = "application/vnd.x+json"
        del request.headers["Authorization"]
        request.form = [("only", Secret(lambda: "this"))]
        request.method = "PUT"

    async with serve(token_answer()) as server:
        await client_of(server, hooks=[Hook("access_token_request", change)]).fetch_token(ClientCredentials())
    (request,) = server.requests
    assert (request.method, request.target, request.form) == ("PUT", "/token?api-version=2", {"only": "this"})
    assert (request.headers["x-key"], request.headers["accept"]) == ("key", "application/vnd.x+json")
    assert "authorization" not in request.headers


async def test_a_hook_that_raises_stops_the_request_before_it_is_sent() -> None:
    def bad(request: EndpointRequest) -> None:
        raise KeyError("CANARY")

    def refuse(request: EndpointRequest) -> None:
        raise ConfigurationError("mine")

    async with serve(token_answer()) as server:
        with pytest.raises(TokenUnavailable, match="raised KeyError") as caught:
            await client_of(server, hooks=[Hook("access_token_request", bad)]).fetch_token(ClientCredentials())
        assert "CANARY" not in str(caught.value)
        assert not caught.value.maybe_spent
        with pytest.raises(ConfigurationError, match="mine"):
            await client_of(server, hooks=[Hook("access_token_request", refuse)]).fetch_token(ClientCredentials())
        assert server.connections == 0


async def test_a_hook_at_an_answer_that_goes_wrong_leaves_the_refresh_token_in_doubt() -> None:
    def bad(response: EndpointResponse) -> EndpointResponse:
        raise KeyError("CANARY")

    def refuse(response: EndpointResponse) -> EndpointResponse:
        raise InvalidGrant("mine")

    async with serve(token_answer()) as server:
        cases: list[tuple[Any, str]] = [(bad, "raised KeyError"), (lambda response: None, "returned no EndpointResponse")]
        for function, message in cases:
            with pytest.raises(TokenResponseError, match=message) as caught:
                await client_of(server, hooks=[Hook("refresh_token_response", function)]).refresh(RT)
            assert caught.value.maybe_spent
            assert "CANARY" not in str(caught.value)
        with pytest.raises(InvalidGrant, match="mine"):
            await client_of(server, hooks=[Hook("refresh_token_response", refuse)]).refresh(RT)


@pytest.mark.parametrize("field", ["X\r\nY", "X Y", "é"])
async def test_a_header_that_can_not_be_sent_is_the_callers_mistake(field: str) -> None:
    def change(request: EndpointRequest) -> None:
        request.headers[field] = Secret("CANARY\r\nInjected: 1")

    async with serve(token_answer()) as server:
        with pytest.raises(OAuthError) as caught:
            await client_of(server, hooks=[Hook("access_token_request", change)]).fetch_token(ClientCredentials())
        assert not any("injected" in request.headers for request in server.requests)
    assert "CANARY" not in told(caught.value)


async def test_S_36_a_secret_in_a_header_can_not_inject_another() -> None:
    def change(request: EndpointRequest) -> None:
        request.headers["X-Key"] = Secret("CANARY\r\nInjected: 1")

    async with serve(token_answer()) as server:
        with pytest.raises(ConfigurationError, match="can't be sent") as caught:
            await client_of(server, hooks=[Hook("access_token_request", change)]).fetch_token(ClientCredentials())
        assert server.requests == []
    assert "CANARY" not in told(caught.value)


# --- Sessions of the user's own -----------------------------------------------------------------------------------------


async def test_a_session_factory_is_called_on_the_exchange_loop_and_its_session_is_used() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    async def make() -> aiohttp.ClientSession:
        made.append(asyncio.get_running_loop())
        return aiohttp.ClientSession(headers={"User-Agent": "mine/1"})

    async with serve(token_answer()) as server:
        client = client_of(server, session_factory=make)
        await client.fetch_token(ClientCredentials())
        await client.fetch_token(ClientCredentials())
    assert [request.headers["user-agent"] for request in server.requests] == ["mine/1"] * 2
    assert len(made) == 1
    assert made[0] is not asyncio.get_running_loop()


async def test_a_session_factory_can_go_through_a_proxy() -> None:
    async with serve(token_answer()) as proxy:
        make = partial(aiohttp.ClientSession, proxy=proxy.url)
        metadata = ServerMetadata(token_endpoint="http://as.example/token")
        client = Client(metadata, "id", ClientSecret("s"), session_factory=make, insecure_http=True)
        await client.fetch_token(ClientCredentials())
    (request,) = proxy.requests
    assert (request.target, request.headers["host"]) == ("http://as.example/token", "as.example")
    assert basic_of(request) == "id:s"


async def test_S_13_what_a_session_of_the_users_own_adds_can_not_replace_our_credentials() -> None:
    def make() -> aiohttp.ClientSession:
        theirs = {"Authorization": "Basic dGhlaXJzOng=", "Accept": "text/html", "X-Tenant": "1"}
        return aiohttp.ClientSession(headers=theirs, raise_for_status=True)

    async with serve(json_answer({"error": "invalid_grant"}, 400)) as server:
        for authentication, expected in ((ClientSecretBasic("s"), "id:s"), (ClientSecretPost("s"), None)):
            with pytest.raises(InvalidGrant):
                await client_of(server, authentication, session_factory=make).refresh(RT)
            request = server.requests[-1]
            assert basic_of(request) == expected
            assert (request.headers["accept"], request.headers["x-tenant"]) == ("application/json", "1")


async def test_a_session_factory_that_yields_none_or_raises_is_the_callers_mistake() -> None:
    def bad() -> aiohttp.ClientSession:
        raise FileNotFoundError("/etc/CANARY.pem")

    async def closed() -> aiohttp.ClientSession:
        session = aiohttp.ClientSession()
        await session.close()
        return session

    async with serve(token_answer()) as server:
        cases: list[tuple[Any, str]] = [
            (bad, "session_factory raised FileNotFoundError"),
            (lambda: None, "must return a new aiohttp.ClientSession"),
            (closed, "returned a closed session"),
        ]
        for factory, message in cases:
            with pytest.raises(ConfigurationError, match=message) as caught:
                await client_of(server, session_factory=factory).refresh(RT)
            assert "CANARY" not in str(caught.value)
            assert not caught.value.maybe_spent
        assert server.connections == 0


async def test_a_session_made_on_the_callers_loop_does_not_hang_and_is_told() -> None:
    async with serve(token_answer()) as server, aiohttp.ClientSession() as session:
        client = client_of(server, session_factory=lambda: session, timeout=5)
        with pytest.raises(ConfigurationError, match="session_factory"):
            await client.fetch_token(ClientCredentials())


async def test_a_session_that_was_closed_meanwhile_is_made_anew() -> None:
    made: list[aiohttp.ClientSession] = []

    def make() -> aiohttp.ClientSession:
        made.append(aiohttp.ClientSession())
        return made[-1]

    async with serve(token_answer()) as server:
        client = client_of(server, session_factory=make)
        await client.fetch_token(ClientCredentials())
        closing = asyncio.run_coroutine_threadsafe(made[0].close(), made[0]._loop)
        await asyncio.wrap_future(closing)
        await client.fetch_token(ClientCredentials())
    assert len(made) == 2


async def test_a_session_factory_need_not_be_hashable() -> None:
    @dataclasses.dataclass
    class Factory:
        calls: int = 0

        def __call__(self) -> aiohttp.ClientSession:
            self.calls += 1
            return aiohttp.ClientSession()

    async with serve(token_answer()) as server:
        factory = Factory()
        await client_of(server, session_factory=factory).fetch_token(ClientCredentials())
        assert factory.calls == 1


# --- Revocation and introspection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "hint", "form"),
    [
        (RT, None, {"token": "CANARY-rt", "token_type_hint": "refresh_token"}),
        (Token("at"), None, {"token": "at", "token_type_hint": "access_token"}),
        ("x", None, {"token": "x"}),
        ("x", "refresh_token", {"token": "x", "token_type_hint": "refresh_token"}),
    ],
)
async def test_a_token_is_revoked(token: Token | str, hint: str | None, form: dict[str, str]) -> None:
    async with serve(answer(200)) as server:
        await client_of(server).revoke(token, hint)
        assert (server.requests[0].path, server.requests[0].form) == ("/revoke", form)
        assert basic_of(server.requests[0]) == "id:CANARY-secret"
        await Client(known(server), "id").revoke(token, hint)
        assert server.requests[1].form == {**form, "client_id": "id"}


@pytest.mark.parametrize("body", [b"", b"ok", b"<html>", b"null", b"{}", b'{"result": "ok"}', b'{"error": null}'])
async def test_what_a_revocation_answers_with_200_is_ignored(body: bytes) -> None:
    async with serve(answer(200, body)) as server:
        await client_of(server).revoke(RT)


async def test_S_32_a_revocation_that_fails_is_told() -> None:
    async with serve(json_answer({"error": "unsupported_token_type"}, 400)) as server:
        with pytest.raises(ErrorResponse, match="the revocation endpoint answered 400 unsupported_token_type"):
            await client_of(server).revoke(RT)
    async with serve(answer(503, headers={"Retry-After": "9"})) as server:
        with pytest.raises(TokenUnavailable) as caught:
            await client_of(server).revoke(RT)
        assert caught.value.retry_after == 9.0
    async with serve(answer(404)) as server:
        with pytest.raises(TokenResponseError):
            await client_of(server).revoke(RT)


@pytest.mark.parametrize("vector", INTROSPECTED, ids=lambda vector: str(vector["source"]))
async def test_a_token_is_introspected(vector: dict[str, Any]) -> None:
    async with serve(json_answer(vector["body"])) as server:
        assert await client_of(server).introspect(RT) == vector["body"]
        await client_of(server).introspect("x", "refresh_token")
        await client_of(server).introspect("x")
        await client_of(server).introspect(RT, "refresh_token")
    assert [request.form for request in server.requests] == [
        {"token": "old-access", "token_type_hint": "access_token"},
        {"token": "x", "token_type_hint": "refresh_token"},
        {"token": "x"},
        {"token": "old-access", "token_type_hint": "refresh_token"},
    ]
    assert set(server.paths()) == {"/introspect"}


@pytest.mark.parametrize("body", [{}, {"active": "true"}, {"active": 1}, {"active": None}, [], None, "x"])
async def test_an_introspection_without_active_makes_no_sense(body: Any) -> None:
    async with serve(json_answer(body)) as server:
        with pytest.raises(TokenResponseError, match="no boolean 'active'") as caught:
            await client_of(server).introspect(RT)
    assert (caught.value.rule, caught.value.status) == ("RFC 7662 section 2.2", 200)


async def test_S_32_an_introspection_that_fails_is_told() -> None:
    async with serve(json_answer({"error": "invalid_client"}, 401)) as server:
        with pytest.raises(InvalidClient, match="the introspection endpoint"):
            await client_of(server).introspect(RT)


async def test_an_endpoint_that_is_not_there_and_a_token_that_is_none_are_told() -> None:
    client = Client(ServerMetadata(token_endpoint="https://as.example/token"), "id", ClientSecret("s"))
    with pytest.raises(ConfigurationError, match="no revocation_endpoint"):
        await client.revoke(RT)
    with pytest.raises(ConfigurationError, match="no introspection_endpoint"):
        await client.introspect(RT)
    with pytest.raises(ConfigurationError, match="no token_endpoint"):
        await Client(ServerMetadata("https://as.example"), "id", ClientSecret("s")).fetch_token(ClientCredentials())
    async with serve() as server:
        for call in (client_of(server).revoke(""), client_of(server).introspect("")):
            with pytest.raises(ConfigurationError, match="no token to send"):
                await call
        assert server.connections == 0


async def test_the_methods_of_each_endpoint_are_its_own() -> None:
    async with serve(json_answer({"active": True})) as server:
        metadata = known(
            server,
            token_endpoint_auth_methods_supported=["client_secret_basic"],
            revocation_endpoint_auth_methods_supported=["client_secret_post"],
        )
        client = Client(metadata, "id", ClientSecret("s"))
        await client.revoke("x")
        await client.introspect("x")
    assert [basic_of(request) for request in server.requests] == [None, "id:s"]


# --- How a client is made -----------------------------------------------------------------------------------------------

AS = "https://as.example"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"server": None}, "server must be"),
        ({"server": b"https://as.example"}, "server must be"),
        ({"server": "as.example"}, "server"),
        ({"server": AS + "?x=1"}, "must not have a query"),
        ({"server": AS + "?"}, "must not have a query"),
        ({"server": AS + "#x"}, "fragment"),
        ({"server": "https://user:pass@as.example"}, "user name"),
        ({"client_id": ""}, "client_id"),
        ({"client_id": None}, "client_id"),
        ({"client_id": "a\r\nb"}, "client_id"),
        ({"authentication": "CANARY"}, "not the secret itself"),
        ({"authentication": Secret("CANARY")}, "not the secret itself"),
        ({"authentication": ClientSecret}, "authentication must have a method"),
        ({"authentication": 5}, "authentication must have a method"),
        ({"authentication": ("id", "CANARY")}, "authentication must have a method"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"token_body_limit": 0}, "body_limit must be"),
        ({"metadata_body_limit": -1}, "body_limit must be"),
        ({"session_factory": 5}, "session_factory"),
        ({"hooks": [print]}, "hooks must be"),
        ({"server": ServerMetadata(AS), "metadata_issuer": "x"}, "metadata_issuer"),
    ],
    ids=str,
)
def test_what_can_not_work_is_refused_when_the_client_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Client(**({"server": AS, "client_id": "id"} | arguments))
    assert "CANARY" not in str(caught.value)


async def test_a_session_in_place_of_a_factory_is_refused() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match="session_factory"):
            Client(AS, "id", session_factory=session)  # type: ignore[arg-type]


def test_a_client_is_made_without_a_loop_and_prints_no_secret() -> None:
    client = Client(AS, "id", ClientSecret("CANARY"))
    assert repr(client) == "<Client 'id' at 'https://as.example'>"
    assert (client.server, client.issuer, client.public) == (AS, AS, False)
    values = Client(ServerMetadata(token_endpoint=AS + "/token"), "id")
    assert (values.server, values.issuer, values.public) == (AS + "/token", None, True)


async def test_S_22_neither_a_repr_nor_a_message_shows_the_query_of_a_token_endpoint() -> None:
    client = Client(ServerMetadata(token_endpoint=AS + "/token?sig=CANARY"), "id", ClientSecret("s"))
    assert repr(client) == "<Client 'id' at 'https://as.example/token'>"
    tokens = Tokens(client, ClientCredentials())
    assert "as.example/token" in repr(tokens)
    for shown in (repr(tokens), repr(tokens.for_key("alice")), str(client)):
        assert "CANARY" not in shown
    for work in (client.revoke("t"), client.introspect("t")):
        with pytest.raises(ConfigurationError, match="the metadata has no") as caught:
            await work
        assert "CANARY" not in told(caught.value)


async def test_one_client_serves_several_loops() -> None:
    async with serve(publishing(PLACES[0])) as server:
        client = Client(server.url + "/tenant", "id", ClientSecret("s"))
        await client.fetch_token(ClientCredentials())

        def elsewhere() -> str:
            return asyncio.run(client.fetch_token(ClientCredentials())).access_token

        assert await asyncio.gather(*(asyncio.to_thread(elsewhere) for _ in range(3))) == ["at"] * 3
    assert transport._lane is not None
