"""The OAuth 1 client against a server that is only a socket: what is sent, to whom, and what is made of the answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

import aiohttp
import pytest
from multidict import MultiDict
from yarl import URL

from aiohttp_oauth_middleware import (
    AccessDenied,
    CallbackError,
    ConfigurationError,
    ErrorResponse,
    InsecureTransport,
    InvalidClient,
    InvalidGrant,
    OAuth1Client,
    OAuth1Token,
    OAuthError,
    Secret,
    SignatureMethod,
    StateMismatch,
    TokenResponseError,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.client import transport
from aiohttp_oauth_middleware.oauth1.signature import SIGNATURE_METHODS, base_string, encode, parameters_of
from tests.clock import VirtualClock
from tests.raw_server import RawServer, Request, answer, json_answer, serve
from tests.unit.test_client import told
from tests.unit.test_token import own_locals

CALLBACK = "https://app.example/callback?next=%2Fhome"
TEMPORARY = b"oauth_token=temp%2F1&oauth_token_secret=CANARY-temporary-secret&oauth_callback_confirmed=true"
FINAL = b"oauth_token=final&oauth_token_secret=CANARY-final-secret&user_id=7"
REQUEST_TOKEN = OAuth1Token("temp/1", "CANARY-temporary-secret", extra={"oauth_callback_confirmed": "true"})
NOW = 1_700_000_000.0


def client_of(secret: Any = "CANARY-client-secret", **more: Any) -> OAuth1Client:
    more.setdefault("clock", VirtualClock(NOW))
    return OAuth1Client("consumer key", secret, **more)


def parameters_in(request: Request) -> dict[str, str]:
    """The protocol parameters of *request*, decoded, wherever they stand; each once."""
    header = request.headers.get("authorization", "")
    pairs = [(name, unquote(value.strip('"'))) for name, _, value in (part.partition("=") for part in header[6:].split(", "))]
    pairs = [pair for pair in pairs if pair[0] not in ("", "realm")]
    pairs += parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
    pairs += parse_qsl(request.body.decode(), keep_blank_values=True)
    found = [(name, value) for name, value in pairs if name.startswith("oauth_")]
    assert len(dict(found)) == len(found), f"a parameter is repeated: {found}"
    return dict(found)


async def check(
    request: Request, server: RawServer, client_secret: str = "CANARY-client-secret", token_secret: str = ""
) -> None:
    """That *request* is signed, over all that arrived."""
    protocol = parameters_in(request)
    path, _, query = request.target.partition("?")
    parameters = parameters_of(query) + parameters_of(request.body)
    if "authorization" in request.headers:
        parameters += [(encode(name), encode(value)) for name, value in protocol.items()]
    parameters = [pair for pair in parameters if pair[0] != "oauth_signature"]
    text = base_string(request.method, f"http://127.0.0.1:{server.port}{path}", parameters)
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert protocol["oauth_signature"] == SIGNATURE_METHODS[protocol["oauth_signature_method"]].sign(
        text, client_secret, token_secret
    )


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Whatever would have been sent; nothing may be."""
    asked: list[object] = []

    def refuse(*arguments: object, **more: object) -> Any:
        asked.append(arguments)
        raise AssertionError("something was about to be sent")

    monkeypatch.setattr(transport, "exchange", refuse)
    yield asked
    assert asked == []


# --- The three legs -----------------------------------------------------------------------------------------------------


def three_legs(request: Request) -> bytes:
    return answer(200, TEMPORARY if request.path == "/initiate" else FINAL, {"Content-Type": "text/html"})


@pytest.mark.parametrize("signature_method", ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT"])
@pytest.mark.parametrize(
    ("method", "placement"), [("POST", "header"), ("POST", "form"), ("POST", "query"), ("GET", "header"), ("GET", "query")]
)
async def test_S_62_S_63_three_legs(method: Any, placement: Any, signature_method: str) -> None:
    client = client_of(redirect_uri=CALLBACK, placement=placement, signature_method=signature_method, realm="Photos")
    async with serve(three_legs) as server:
        temporary = await client.fetch_request_token(server.url + "/initiate?scope=a%20b", method=method)
        url = client.create_authorization_url("https://provider.example/authorize", temporary)
        verifier = client.parse_authorization_response(f"{CALLBACK}&oauth_token=temp%2F1&oauth_verifier=v%2Fw", temporary)
        token = await client.fetch_access_token(server.url + "/token", temporary, verifier, method=method)
        first, second = server.requests
        await check(first, server)
        await check(second, server, token_secret="CANARY-temporary-secret")
    assert temporary == REQUEST_TOKEN
    assert url == "https://provider.example/authorize?oauth_token=temp%2F1"
    assert verifier == "v/w"
    assert token == OAuth1Token("final", "CANARY-final-secret", extra={"user_id": "7"})
    for request in (first, second):
        assert request.method == method
        assert request.headers["accept-encoding"] == "identity"
        assert ("authorization" in request.headers) is (placement == "header")
        assert request.headers.get("authorization", 'OAuth realm="Photos", ').startswith('OAuth realm="Photos", ')
        assert bool(request.body) is (placement == "form")
        assert (request.headers.get("content-type") == "application/x-www-form-urlencoded") is (placement == "form")
        assert len([name for name, _ in request.fields]) == len({name for name, _ in request.fields})
    assert first.target.startswith("/initiate?scope=a%20b")
    sent, later = parameters_in(first), parameters_in(second)
    assert sent["oauth_callback"] == CALLBACK
    assert "oauth_token" not in sent
    assert "oauth_verifier" not in sent
    assert (later["oauth_token"], later["oauth_verifier"]) == ("temp/1", "v/w")
    assert "oauth_callback" not in later
    for protocol in (sent, later):
        assert protocol["oauth_consumer_key"] == "consumer key"
        assert protocol["oauth_timestamp"] == "1700000000"
        assert protocol["oauth_version"] == "1.0"
    assert sent["oauth_nonce"] != later["oauth_nonce"]


async def test_a_verifier_may_be_shown_for_the_user_to_copy() -> None:
    client = client_of(send_version=False)
    async with serve(three_legs) as server:
        temporary = await client.fetch_request_token(URL(server.url + "/initiate"))
        await client.fetch_access_token(URL(server.url + "/token"), temporary, "1234567")
    assert parameters_in(server.requests[0])["oauth_callback"] == "oob"
    assert "oauth_version" not in parameters_in(server.requests[0])


@pytest.mark.parametrize(
    "confirmed", [b"", b"&oauth_callback_confirmed=false", b"&oauth_callback_confirmed=", b"&oauth_callback_confirmed=TRUE"]
)
async def test_S_62_a_callback_that_is_not_confirmed_is_an_error(confirmed: bytes) -> None:
    async with serve(answer(200, b"oauth_token=a&oauth_token_secret=CANARY" + confirmed)) as server:
        with pytest.raises(TokenResponseError, match=r"RFC 5849 section 2\.1.*revision_a=False") as caught:
            await client_of().fetch_request_token(server.url)
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)
    assert caught.value.rule == "RFC 5849 section 2.1"


@pytest.mark.parametrize("confirmed", ["true", True])
async def test_S_62_a_callback_may_be_confirmed_in_json(confirmed: Any) -> None:
    data = {"oauth_token": "a", "oauth_token_secret": "b", "oauth_callback_confirmed": confirmed}
    async with serve(json_answer(data)) as server:
        assert (await client_of().fetch_request_token(server.url)).oauth_token == "a"


@pytest.mark.parametrize("confirmed", ["yes", 1, False, None, ["true"], {"a": "true"}])
async def test_S_62_no_other_json_confirms_a_callback(confirmed: Any) -> None:
    data = {"oauth_token": "a", "oauth_token_secret": "b", "oauth_callback_confirmed": confirmed}
    async with serve(json_answer(data)) as server:
        with pytest.raises(TokenResponseError, match="doesn't confirm the callback"):
            await client_of().fetch_request_token(server.url)


async def test_S_62_a_server_before_revision_a_is_named_as_one() -> None:
    client = client_of(redirect_uri=CALLBACK, revision_a=False)
    async with serve(answer(200, FINAL)) as server:
        temporary = await client.fetch_request_token(server.url)
        url = client.create_authorization_url("https://provider.example/authorize", temporary)
        assert client.parse_authorization_response({"oauth_token": "final"}, temporary) == ""
        await client.fetch_access_token(server.url, temporary)
        first, second = map(parameters_in, server.requests)
    assert "oauth_callback" not in first
    assert url == f"https://provider.example/authorize?oauth_token=final&oauth_callback={encode(CALLBACK)}"
    assert "oauth_verifier" not in second
    oob = client_of(revision_a=False).create_authorization_url("https://provider.example/authorize", temporary)
    assert oob == "https://provider.example/authorize?oauth_token=final"


@pytest.mark.parametrize("verifier", ["", None])
async def test_S_62_without_a_verifier_nothing_is_sent(verifier: Any, no_connection: list[object]) -> None:
    with pytest.raises(ConfigurationError, match="oauth_verifier"):
        await client_of().fetch_access_token("https://provider.example/token", REQUEST_TOKEN, verifier)


@pytest.mark.parametrize("placement", ["header", "form", "query"])
async def test_xauth_sends_its_own_parameters_signed(placement: Any) -> None:
    extra = {"x_auth_username": "älice", "x_auth_password": Secret("p&ss wörd"), "x_auth_mode": "client_auth", "x_none": ""}
    async with serve(answer(200, FINAL)) as server:
        for method in ("POST", "GET"):
            if (method, placement) != ("GET", "form"):
                token = await client_of(placement=placement).fetch_access_token(server.url, method=method, extra=extra)  # type: ignore[arg-type]
                assert token.oauth_token == "final"
        for request in server.requests:
            await check(request, server)
            text = request.target.partition("?")[2] if request.method == "GET" else request.body.decode()
            given = dict(parse_qsl(text))
            assert {name: value for name, value in given.items() if not name.startswith("oauth_")} == {
                "x_auth_username": "älice",
                "x_auth_password": "p&ss wörd",
                "x_auth_mode": "client_auth",
            }
            assert "oauth_token" not in parameters_in(request)


async def test_an_extra_secret_may_come_from_a_callable() -> None:
    async def password() -> str:
        await asyncio.sleep(0)
        return "CANARY-password"

    async with serve(answer(400, b"oauth_problem=you+said+CANARY-password")) as server:
        with pytest.raises(ErrorResponse) as caught:
            await client_of().fetch_access_token(server.url, extra={"x_auth_password": Secret(password)})
    assert server.requests[0].form == {"x_auth_password": "CANARY-password"}
    assert caught.value.error == "you said [redacted]"


@pytest.mark.parametrize(
    ("secret", "kind"),
    [(lambda: 7, TokenUnavailable), (lambda: 1 // 0, TokenUnavailable), (lambda: "CANARY\ud800", ConfigurationError)],
)
async def test_F_55_an_extra_secret_that_cannot_be_had_is_named(
    secret: Any, kind: type[OAuthError], no_connection: list[object]
) -> None:
    with pytest.raises(kind, match="x_auth_password") as caught:
        await client_of().fetch_access_token("https://h/", extra={"x_auth_password": Secret(secret)})
    assert "CANARY" not in told(caught.value)


async def test_F_55_an_error_of_ours_from_such_a_callable_passes_as_it_is(no_connection: list[object]) -> None:
    def locked() -> str:
        raise InsecureTransport("locked")

    with pytest.raises(InsecureTransport, match="locked"):
        await client_of().fetch_access_token("https://h/", extra={"x_auth_password": Secret(locked)})


async def test_an_extra_of_the_protocols_kind_stands_with_the_protocols_parameters() -> None:
    async with serve(three_legs) as server:
        await client_of().fetch_request_token(server.url + "/initiate", extra={"oauth_scope": "a b", "oauth_none": ""})
        (request,) = server.requests
        await check(request, server)
    assert parameters_in(request)["oauth_scope"] == "a b"
    assert request.body == b""


@pytest.mark.parametrize("secret", [lambda: "CANARY-client-secret", Secret("CANARY-client-secret")])
async def test_the_secret_may_be_a_callable(secret: Any) -> None:
    async with serve(three_legs) as server:
        await client_of(secret).fetch_request_token(server.url + "/initiate")
        await check(server.requests[0], server)


async def test_the_secret_may_be_a_coroutine_function_and_is_read_at_each_use() -> None:
    numbers = iter(range(10))

    async def secret() -> str:
        await asyncio.sleep(0)
        return f"secret {next(numbers)}"

    client = client_of(secret)
    async with serve(three_legs) as server:
        for number in range(2):
            await client.fetch_request_token(server.url + "/initiate")
            await check(server.requests[number], server, f"secret {number}")


async def test_F_55_a_secret_that_cannot_be_had_sends_nothing(no_connection: list[object]) -> None:
    def vault() -> str:
        raise OSError(5, "the vault is closed")

    with pytest.raises(TokenUnavailable, match="OSError") as caught:
        await client_of(vault).fetch_request_token("https://provider.example/initiate")
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_client_belongs_to_no_loop() -> None:
    client = client_of()
    async with serve(three_legs) as server:
        found = await asyncio.gather(
            *(asyncio.to_thread(lambda: asyncio.run(client.fetch_request_token(server.url + "/initiate"))) for _ in range(4))
        )
    assert len(found) == 4
    assert len({parameters_in(request)["oauth_nonce"] for request in server.requests}) == 4


async def test_the_session_may_be_of_the_users_own() -> None:
    made: list[aiohttp.ClientSession] = []

    class Factory:
        """One that compares by its fields, and so has no hash."""

        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Factory)

        def __call__(self) -> aiohttp.ClientSession:
            made.append(aiohttp.ClientSession(headers={"X-Mine": "1"}))
            return made[-1]

    async with serve(three_legs) as server:
        await client_of(session_factory=Factory()).fetch_request_token(server.url + "/initiate")
    assert len(made) == 1
    assert server.requests[0].headers["x-mine"] == "1"


def test_a_client_shows_its_id_and_no_more() -> None:
    client = client_of(realm="R")
    assert repr(client) == "<OAuth1Client 'consumer key'>"
    assert "CANARY" not in repr(vars(client)) + repr([getattr(client.signer, slot) for slot in client.signer.__slots__])


# --- Where nothing is sent ----------------------------------------------------------------------------------------------


def legs(client: OAuth1Client) -> dict[str, Callable[[Any], Awaitable[OAuth1Token]]]:
    renewable = OAuth1Token("old", "CANARY-old-secret", oauth_session_handle="CANARY-handle")
    return {
        "request token": client.fetch_request_token,
        "access token": lambda url: client.fetch_access_token(url, REQUEST_TOKEN, "CANARY-verifier"),
        "xAuth": lambda url: client.fetch_access_token(url, extra={"x_auth_password": "CANARY-password"}),
        "renewal": lambda url: client.renew_access_token(url, renewable),
    }


LEGS = [*legs(client_of())]


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize(
    "url",
    ["http://provider.example/token", "http://10.0.0.1/token", "HTTP://provider.example/", "http://localhost.evil.example/"],
)
async def test_S_61_G_14_http_is_refused_before_any_connection(leg: str, url: str, no_connection: list[object]) -> None:
    with pytest.raises(InsecureTransport, match="plain http") as caught:
        await legs(client_of())[leg](url)
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)


@pytest.mark.parametrize("leg", LEGS)
async def test_S_61_G_22_plaintext_never_goes_over_http(leg: str, no_connection: list[object]) -> None:
    client = client_of(signature_method="PLAINTEXT", insecure_http=True)
    with pytest.raises(InsecureTransport, match="PLAINTEXT") as caught:
        await legs(client)[leg]("http://provider.example/token")
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)
    with pytest.raises(InsecureTransport, match="PLAINTEXT"):
        await client.sign("GET", "http://provider.example/")


async def test_S_61_http_in_a_closed_network_is_named_as_such() -> None:
    async with serve(three_legs) as server:

        class Resolver(aiohttp.abc.AbstractResolver):
            async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
                return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

            async def close(self) -> None: ...

        def session() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver(), family=socket.AF_INET))

        client = client_of(insecure_http=True, session_factory=session)
        await client.fetch_request_token(f"http://provider.internal:{server.port}/initiate")
    assert server.requests[0].headers["host"] == f"provider.internal:{server.port}"


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "provider.example",
        "/token",
        "ftp://h/",
        "https://",
        "https://a:b@h/",
        "https://h/#x",
        "https://h/ x",
        "https://h:0/",
        b"https://h/",
    ],
)
async def test_F_55_what_is_no_url_is_refused_by_name(leg: str, url: Any, no_connection: list[object]) -> None:
    with pytest.raises(ConfigurationError, match=r"OAuth1Client: the URL of the (request|access) token endpoint") as caught:
        await legs(client_of())[leg](url)
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)


NO_EXTRA: tuple[Any, ...] = (
    None,
    7,
    "a=CANARY",
    [("a", "CANARY")],
    {7: "CANARY"},
    {"": "CANARY"},
    {"a\n": "CANARY"},
    {"a": 7},
    {"a": None},
    {"a": b"CANARY"},
    {"a": "CANARY\ud800"},
    *({name: "CANARY"} for name in ("oauth_token", "oauth_nonce", "oauth_signature", "oauth_callback", "oauth_verifier")),
    {"oauth_session_handle": "CANARY"},
    {"oauth_consumer_key": "CANARY"},
)


@pytest.mark.parametrize("extra", NO_EXTRA, ids=ascii)
@pytest.mark.parametrize("leg", ["fetch_request_token", "fetch_access_token", "renew_access_token"])
async def test_F_55_an_extra_that_cannot_be_sent_is_refused_by_name(leg: str, extra: Any, no_connection: list[object]) -> None:
    client = client_of()
    renewable = OAuth1Token("old", oauth_session_handle="h")
    work: Any = {
        "fetch_request_token": partial(client.fetch_request_token, "https://h/"),
        "fetch_access_token": partial(client.fetch_access_token, "https://h/", REQUEST_TOKEN, "CANARY-verifier"),
        "renew_access_token": partial(client.renew_access_token, "https://h/", renewable),
    }[leg]
    with pytest.raises(ConfigurationError, match=f"{leg}: extra") as caught:
        await work(extra=extra)
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)


@pytest.mark.parametrize("token", ["CANARY", {"oauth_token": "CANARY"}, 7])
async def test_F_55_what_is_no_token_is_refused_by_name(token: Any, no_connection: list[object]) -> None:
    client = client_of()
    for argument, work in (
        ("request_token", partial(client.fetch_access_token, "https://h/", token, "CANARY")),
        ("token", partial(client.renew_access_token, "https://h/", token)),
    ):
        with pytest.raises(ConfigurationError, match=rf"{argument} must be an OAuth1Token") as caught:
            await work()
        assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)


@pytest.mark.parametrize("verifier", [7, b"CANARY", "CANARY\n", "\ud800", ["CANARY"]])
async def test_F_55_a_verifier_that_cannot_be_is_refused_by_name(verifier: Any, no_connection: list[object]) -> None:
    with pytest.raises(ConfigurationError, match="oauth_verifier must be") as caught:
        await client_of().fetch_access_token("https://h/", REQUEST_TOKEN, verifier)
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)


@pytest.mark.parametrize("method", ["PUT", "get", "", None, 7])
async def test_F_55_a_request_for_credentials_is_a_post_or_a_get(method: Any, no_connection: list[object]) -> None:
    with pytest.raises(ConfigurationError, match="must be POST or GET"):
        await client_of().fetch_request_token("https://h/", method=method)
    with pytest.raises(ConfigurationError, match='placement="form" needs POST'):
        await client_of(placement="form").fetch_request_token("https://h/", method="GET")


async def test_F_55_a_token_without_a_session_handle_is_not_renewed(no_connection: list[object]) -> None:
    with pytest.raises(ConfigurationError, match="no oauth_session_handle"):
        await client_of().renew_access_token("https://h/", OAuth1Token("a", "CANARY"))


async def test_F_55_a_parameter_that_the_url_has_already_is_not_signed_twice(no_connection: list[object]) -> None:
    with pytest.raises(ConfigurationError, match=r"oauth_verifier .*RFC 5849 section 3\.1") as caught:
        await client_of().fetch_access_token("https://h/?oauth_verifier=x", REQUEST_TOKEN, "CANARY")
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)


# --- What is made of the answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_S_19_G_14_a_redirect_is_not_followed(leg: str, status: int) -> None:
    async with serve(answer(200, FINAL)) as target:
        async with serve(answer(status, TEMPORARY, {"Location": target.url + "/evil"})) as server:
            for placement in ("header", "form", "query"):
                with pytest.raises(TokenResponseError, match="no answer that is followed") as caught:
                    await legs(client_of(placement=placement))[leg](server.url + "/token")
                assert caught.value.status == status
                assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)
            assert len(server.requests) == 3
        assert target.connections == 0


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(401, b"oauth_problem=consumer_key_unknown"), InvalidClient),
        (answer(401, b"", {"WWW-Authenticate": 'OAuth realm="x", oauth_problem="token_rejected"'}), InvalidGrant),
        (
            answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"\r\nWWW-Authenticate: OAuth oauth_problem=token_used'}),
            InvalidGrant,
        ),
        (answer(400, b"oauth_problem=parameter_absent"), ErrorResponse),
        (answer(403, b"<html>"), ErrorResponse),
        (answer(503, b"", {"Retry-After": "5"}), TokenUnavailable),
        (answer(200, b"<html>"), TokenResponseError),
        (answer(200, b"x" * 70_000), TokenResponseError),
        (answer(200, b"x", {"Content-Length": "50"}), TokenUnavailable),
        (b"garbage CANARY\r\n\r\n", TokenUnavailable),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("leg", LEGS)
async def test_F_55_every_failure_has_its_class_and_shows_no_secret(leg: str, reply: bytes, kind: type[OAuthError]) -> None:
    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    async with serve(once) as server:
        with pytest.raises(OAuthError) as caught:
            await legs(client_of())[leg](server.url)
        assert type(caught.value) is kind
        assert len(server.requests) == 1
    assert "CANARY" not in told(caught.value) + own_locals(caught.value.__traceback__)
    if kind is TokenUnavailable and reply.startswith(b"HTTP/1.1 503"):
        assert caught.value.retry_after == 5.0


@pytest.mark.parametrize("limit", [100, 64 * 1024])
async def test_F_55_a_long_answer_is_not_read_to_its_end(limit: int) -> None:
    async with serve(answer(200, FINAL + b"&x=" + b"x" * 10_000_000)) as server:
        with pytest.raises(TokenResponseError, match=f"longer than {limit} bytes"):
            await client_of(token_body_limit=limit).fetch_access_token(server.url, REQUEST_TOKEN, "v")


async def test_F_55_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(TokenUnavailable, match="could not be reached") as caught:
            await client_of().fetch_request_token(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert not caught.value.maybe_spent


@pytest.mark.parametrize("placement", ["header", "form", "query"])
@pytest.mark.parametrize("signature_method", ["HMAC-SHA1", "PLAINTEXT"])
async def test_G_12_a_server_that_quotes_what_it_got_is_not_quoted(placement: Any, signature_method: str) -> None:
    def quoting(request: Request) -> bytes:
        protocol = parameters_in(request)
        told_ = " ".join(
            [*protocol.values(), *protocol["oauth_signature"].split("&"), request.headers.get("authorization", "")]
        )
        return json_answer({"oauth_problem": "x", "oauth_problem_advice": f"{told_} {unquote(unquote(told_))}"}, 400)

    secret = "CANARY%client&secret"
    client = client_of(secret, placement=placement, signature_method=signature_method, redirect_uri=CALLBACK)
    async with serve(quoting) as server:
        for leg, work in legs(client).items():
            with pytest.raises(ErrorResponse) as caught:
                await work(server.url)
            found = told(caught.value) + own_locals(caught.value.__traceback__)
            assert "CANARY" not in found, leg
            assert parameters_in(server.requests[-1])["oauth_signature"] not in found


async def test_F_55_the_lifetime_counts_from_the_sending_of_the_request() -> None:
    clock = VirtualClock(NOW)

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> bytes:
        clock.advance(20)
        return answer(200, FINAL + b"&oauth_expires_in=3600")

    async with serve(slowly) as server:
        token = await client_of(clock=clock).fetch_access_token(server.url, REQUEST_TOKEN, "v")
    assert token.expires_at == NOW + 3600


# --- Sent once, and answers that nobody waited for ----------------------------------------------------------------------


async def holding_back(answer_: bytes) -> tuple[Callable[[Request, asyncio.StreamWriter], Awaitable[bytes]], asyncio.Event]:
    release = asyncio.Event()

    async def reply(request: Request, writer: asyncio.StreamWriter) -> bytes:
        await release.wait()
        return answer_

    return reply, release


@pytest.mark.parametrize("leg", ["access token", "renewal"])
async def test_P0_an_answer_that_nobody_waited_for_is_there_for_the_next_call(leg: str) -> None:
    reply, release = await holding_back(answer(200, FINAL))
    work = legs(client_of())[leg]
    async with serve(reply) as server:
        first = asyncio.ensure_future(work(server.url))
        await server.until(lambda: len(server.requests) == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.ensure_future(work(server.url))
        await asyncio.sleep(0)
        release.set()
        assert (await second).oauth_token == "final"
        assert len(server.requests) == 1, "the verifier was sent once"
        await work(server.url)  # that answer was given away
        assert len(server.requests) == 2


@pytest.mark.parametrize("leg", ["access token", "renewal"])
async def test_P0_two_who_spend_the_same_at_once_share_one_request(leg: str) -> None:
    reply, release = await holding_back(answer(200, FINAL))
    work = legs(client_of())[leg]
    async with serve(reply) as server:
        both = asyncio.gather(work(server.url), work(server.url))
        await server.until(lambda: len(server.requests) == 1)
        release.set()
        one, other = await both
    assert one == other
    assert len(server.requests) == 1


@pytest.mark.parametrize("leg", ["request token", "xAuth"])
async def test_S_60_what_spends_nothing_is_shared_with_nobody(leg: str) -> None:
    async with serve(answer(200, TEMPORARY)) as server:
        work = legs(client_of())[leg]
        await asyncio.gather(work(server.url), work(server.url))
    assert len({parameters_in(request)["oauth_nonce"] for request in server.requests}) == 2


@pytest.mark.parametrize("placement", ["header", "query"])
async def test_S_60_no_reconnect_repeats_a_nonce(placement: Any) -> None:
    """aiohttp sends a GET again whose kept connection broke."""

    async def once(request: Request, writer: asyncio.StreamWriter) -> bytes | None:
        return answer(200, TEMPORARY) if len(server.requests) == 1 else None

    client = client_of(placement=placement)
    async with serve(once) as server:
        await client.fetch_request_token(server.url, method="GET")
        with pytest.raises(TokenUnavailable, match="no whole answer") as caught:
            await client.fetch_request_token(server.url, method="GET")
        assert len(server.requests) == 2
    assert caught.value.maybe_spent


# --- The server's clock -------------------------------------------------------------------------------------------------


class Skewed:
    """A server whose clock is ahead, and which says so in one of three ways."""

    def __init__(self, ahead: float, how: str, clock: VirtualClock, after: bytes | None = None) -> None:
        self.ahead, self.how, self.clock, self.after = ahead, how, clock, after

    def __call__(self, request: Request) -> bytes:
        now = self.clock.time() + self.ahead
        date = {"Date": formatdate(now, usegmt=True)}
        if abs(float(parameters_in(request)["oauth_timestamp"]) - now) > 300:
            if self.how == "date":
                return answer(401, b"", date)
            problem = "oauth_problem=timestamp_refused"
            if self.how == "body":
                return answer(400, problem.encode(), date)
            return answer(
                401,
                b"",
                {"WWW-Authenticate": f'OAuth {problem}, oauth_acceptable_timestamps="{now - 300:.0f}-{now + 300:.0f}"'},
            )
        return self.after or answer(200, TEMPORARY, date)


@pytest.mark.parametrize("ahead", [7200.0, -7200.0, 86400.0 * 400])
@pytest.mark.parametrize("how", ["date", "body", "header"])
async def test_F_54_a_clock_is_learned_once_and_the_request_sent_once_more(how: str, ahead: float) -> None:
    clock = VirtualClock(NOW)
    client = client_of(clock=clock)
    async with serve(Skewed(ahead, how, clock)) as server:
        await client.fetch_request_token(server.url)
        assert len(server.requests) == 2
        first, second = map(parameters_in, server.requests)
        assert first["oauth_timestamp"] == "1700000000"
        assert int(second["oauth_timestamp"]) == NOW + ahead
        assert first["oauth_nonce"] != second["oauth_nonce"]
        await check(server.requests[1], server)
        await client.fetch_request_token(server.url)
        await client.fetch_access_token(server.url + "/other", REQUEST_TOKEN, "v")
        assert len(server.requests) == 4, "what was learned of an origin is kept"
    async with serve(three_legs) as other:
        await client.fetch_request_token(other.url + "/initiate")
        assert parameters_in(other.requests[0])["oauth_timestamp"] == "1700000000", "it is that origin's alone"


async def test_F_54_a_clock_that_is_set_right_is_learned_anew() -> None:
    clock = VirtualClock(NOW)
    client = client_of(clock=clock)
    skewed = Skewed(7200.0, "body", clock)
    async with serve(skewed) as server:
        await client.fetch_request_token(server.url)
        skewed.ahead = 0.0
        await client.fetch_request_token(server.url)
        assert len(server.requests) == 4
        await client.fetch_request_token(server.url)
        assert len(server.requests) == 5


@pytest.mark.parametrize("status", [400, 401])
async def test_F_54_a_server_that_refuses_every_time_is_believed_no_more_for_a_while(status: int) -> None:
    clock = VirtualClock(NOW)
    client = client_of(clock=clock)

    def never(request: Request) -> bytes:
        return answer(status, b"oauth_problem=timestamp_refused", {"Date": formatdate(NOW + 7200, usegmt=True)})

    async with serve(never) as server:
        with pytest.raises(ErrorResponse, match="timestamp_refused"):
            await client.fetch_request_token(server.url)
        assert len(server.requests) == 2
        for _ in range(3):
            with pytest.raises(ErrorResponse, match="timestamp_refused"):
                await client.fetch_request_token(server.url)
        assert len(server.requests) == 5
        assert parameters_in(server.requests[-1])["oauth_timestamp"] == "1700000000", "nothing was learned"
        clock.advance(300)
        with pytest.raises(ErrorResponse):
            await client.fetch_request_token(server.url)
        assert len(server.requests) == 7


async def test_F_54_a_401_that_is_no_matter_of_time_is_sent_twice_once() -> None:
    """A server that says nothing of why, and whose date is wrong."""
    clock = VirtualClock(NOW)
    client = client_of(clock=clock)
    async with serve(lambda request: answer(401, b"Invalid", {"Date": formatdate(NOW + 7200, usegmt=True)})) as server:
        for _ in range(3):
            with pytest.raises(InvalidClient):
                await client.fetch_request_token(server.url)
        assert len(server.requests) == 4


async def test_F_54_what_is_refused_for_another_reason_has_got_past_the_clock() -> None:
    clock = VirtualClock(NOW)
    client = client_of(clock=clock)
    async with serve(Skewed(7200.0, "body", clock, after=answer(401, b"oauth_problem=verifier_invalid"))) as server:
        for number in (2, 3):
            with pytest.raises(InvalidGrant):
                await client.fetch_access_token(server.url, REQUEST_TOKEN, f"wrong {number}")
            assert len(server.requests) == number


async def test_F_54_a_failure_says_nothing_of_the_clock() -> None:
    clock = VirtualClock(NOW)
    client = client_of(clock=clock)
    skewed = Skewed(7200.0, "body", clock, after=answer(503))
    async with serve(skewed) as server:
        with pytest.raises(TokenUnavailable):
            await client.fetch_request_token(server.url)
        skewed.after = None
        await client.fetch_request_token(server.url)
        assert len(server.requests) == 4


# --- Renewal ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "handle", "session_expires_at"),
    [
        (b"oauth_token=new&oauth_token_secret=s", "h", 5000.0),
        (b"oauth_token=new&oauth_token_secret=s&oauth_session_handle=", "h", 5000.0),
        (b"oauth_token=new&oauth_token_secret=s&oauth_session_handle=h2", "h2", None),
        (b"oauth_token=new&oauth_token_secret=s&oauth_session_handle=h2&oauth_authorization_expires_in=60", "h2", NOW + 60),
    ],
)
async def test_a_renewal_keeps_the_session_handle_where_the_answer_brings_none(
    body: bytes, handle: str, session_expires_at: float | None
) -> None:
    old = OAuth1Token("old", "old secret", oauth_session_handle="h", session_expires_at=5000)
    async with serve(answer(200, body)) as server:
        new = await client_of().renew_access_token(server.url, old, extra={"x": "1"})
        await check(server.requests[0], server, token_secret="old secret")
    assert (new.oauth_token, new.oauth_session_handle, new.session_expires_at) == ("new", handle, session_expires_at)
    protocol = parameters_in(server.requests[0])
    assert (protocol["oauth_token"], protocol["oauth_session_handle"]) == ("old", "h")
    assert server.requests[0].form == {"x": "1"}


# --- The user in between ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/authorize", "https://h/authorize?oauth_token=temp%2F1&lang=d+e"),
        (URL("https://h/authorize"), "https://h/authorize?oauth_token=temp%2F1&lang=d+e"),
        ("https://h/authorize?a=%7e+b", "https://h/authorize?a=%7e+b&oauth_token=temp%2F1&lang=d+e"),
        ("https://h/authorize?", "https://h/authorize?oauth_token=temp%2F1&lang=d+e"),
        ("https://h/authorize?a=1&", "https://h/authorize?a=1&oauth_token=temp%2F1&lang=d+e"),
        ("http://127.0.0.1:8/", "http://127.0.0.1:8/?oauth_token=temp%2F1&lang=d+e"),
    ],
)
@pytest.mark.parametrize("token", [REQUEST_TOKEN, "temp/1"])
def test_the_user_is_sent_where_the_server_asks(url: str | URL, expected: str, token: OAuth1Token | str) -> None:
    assert client_of().create_authorization_url(url, token, {"lang": "d e"}) == expected


@pytest.mark.parametrize(
    "url", [None, 7, "", "provider.example", "/a", "https://", "https://h/#x", "https://h/ x", "javascript:alert(1)"]
)
def test_F_55_a_url_where_nobody_can_be_sent_is_refused_by_name(url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"create_authorization_url: url"):
        client_of().create_authorization_url(url, REQUEST_TOKEN)


def test_S_61_the_user_is_not_sent_over_http() -> None:
    with pytest.raises(InsecureTransport, match="create_authorization_url"):
        client_of().create_authorization_url("http://h/", REQUEST_TOKEN)
    assert client_of(insecure_http=True).create_authorization_url("http://h/", REQUEST_TOKEN).startswith("http://h/?")


@pytest.mark.parametrize("token", [None, "", 7, b"temp", {"oauth_token": "temp"}])
def test_S_62_F_55_without_a_pending_request_token_there_is_no_login(token: Any) -> None:
    client = client_of()
    with pytest.raises(ConfigurationError, match="create_authorization_url: request_token"):
        client.create_authorization_url("https://h/", token)
    for callback in (
        "https://app/cb?oauth_verifier=v",
        "https://app/cb?oauth_token=&oauth_verifier=v",
        {"oauth_verifier": "v"},
    ):
        with pytest.raises(ConfigurationError, match="parse_authorization_response: request_token"):
            client.parse_authorization_response(callback, token)


@pytest.mark.parametrize("extra", [{"oauth_token": "x"}, {"oauth_callback": "x"}, {"a": 7}, {7: "a"}, None, [("a", "b")]])
def test_F_55_an_extra_that_clashes_is_refused_by_name(extra: Any) -> None:
    with pytest.raises(ConfigurationError, match="create_authorization_url: extra"):
        client_of().create_authorization_url("https://h/", REQUEST_TOKEN, extra)
    with pytest.raises(ConfigurationError, match="oauth_token"):
        client_of().create_authorization_url("https://h/?oauth_token=mine", REQUEST_TOKEN)


BACK = "oauth_token=temp%2F1&oauth_verifier=CANARY-verifier"


@pytest.mark.parametrize(
    "callback",
    [
        f"https://app.example/callback?next=1&{BACK}",
        f"http://proxied.internal/callback?{BACK}#fragment",
        URL(f"https://app.example/callback?{BACK}"),
        f"/callback?{BACK}",
        f"?{BACK}",
        BACK,
        {"oauth_token": "temp/1", "oauth_verifier": "CANARY-verifier"},
        MultiDict([("oauth_token", "temp/1"), ("oauth_verifier", "CANARY-verifier"), ("x", "1")]),
        {"oauth_token": "temp/1", "oauth_verifier": "CANARY-verifier", "other": ["x"]},
        f"https://app.example/callback?{BACK}&denied_=x&oauth_problem=",
    ],
    ids=str,
)
@pytest.mark.parametrize("token", [REQUEST_TOKEN, "temp/1"])
def test_S_62_the_verifier_is_read_out_of_the_callback(callback: Any, token: OAuth1Token | str) -> None:
    assert client_of().parse_authorization_response(callback, token) == "CANARY-verifier"


@pytest.mark.parametrize(
    ("callback", "kind", "text"),
    [
        # Somebody else's.
        ("https://app/?oauth_token=evil&oauth_verifier=CANARY-verifier", StateMismatch, "not about the request token"),
        ("https://app/?oauth_token=&oauth_verifier=CANARY-verifier", StateMismatch, "not about the request token"),
        ("https://app/?oauth_token=temp/1%00&oauth_verifier=CANARY-verifier", StateMismatch, "not about the request token"),
        ("https://app/?oauth_token=TEMP/1&oauth_verifier=CANARY-verifier", StateMismatch, "not about the request token"),
        ("https://app/?oauth_token=evil&oauth_problem=user_refused", StateMismatch, "not about the request token"),
        ("https://app/?denied=evil", StateMismatch, "not about the request token"),
        ("https://app/?oauth_token=evil&denied=temp/1", StateMismatch, "not about the request token"),
        # Nothing.
        ("https://app/", CallbackError, "no oauth_token"),
        ("https://app/?oauth_verifier=CANARY-verifier", CallbackError, "no oauth_token"),
        (f"https://app/#{BACK}", CallbackError, "no oauth_token"),
        ("", CallbackError, "no oauth_token"),
        ({}, CallbackError, "no oauth_token"),
        ({"oauth_token": ["temp/1"], "oauth_verifier": ["CANARY-verifier"]}, CallbackError, "no oauth_token"),
        ("https://app/?oauth_token=temp/1", CallbackError, "no oauth_verifier"),
        ("https://app/?oauth_token=temp/1&oauth_verifier=", CallbackError, "no oauth_verifier"),
        ("https://app/?oauth_token=temp/1&oauth_verifier=CANARY-verifier%0A", CallbackError, "no oauth_verifier"),
        ({"oauth_token": "temp/1", "oauth_verifier": ["CANARY-verifier"]}, CallbackError, "no oauth_verifier"),
        # Twice.
        (f"https://app/?{BACK}&oauth_token=evil", CallbackError, "stands twice"),
        (f"https://app/?{BACK}&oauth_token=temp%2F1", CallbackError, "stands twice"),
        (f"https://app/?{BACK}&oauth_verifier=other", CallbackError, "stands twice"),
        (
            MultiDict([("oauth_token", "temp/1"), ("oauth_token", "x"), ("oauth_verifier", "CANARY")]),
            CallbackError,
            "stands twice",
        ),
        # No.
        ("https://app/?oauth_token=temp/1&oauth_problem=user_refused", AccessDenied, "user_refused"),
        ("https://app/?oauth_problem=permission_denied", AccessDenied, "permission_denied"),
        ("https://app/?denied=temp/1", AccessDenied, "denied"),
        (f"https://app/?{BACK}&denied=", AccessDenied, "denied"),
        ("https://app/?oauth_problem=a%1B%5B31m%0A" + "x" * 500, AccessDenied, "a.*~"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_S_62_F_55_a_callback_can_be_wrong_in_many_ways(callback: Any, kind: type[OAuthError], text: str) -> None:
    for token in (OAuth1Token("temp/1", "CANARY-secret"), "temp/1"):
        with pytest.raises(OAuthError, match=text) as caught:
            client_of().parse_authorization_response(callback, token)
        assert type(caught.value) is kind
        shown = told(caught.value) + own_locals(caught.value.__traceback__)
        assert "CANARY" not in shown
        assert "\x1b" not in shown
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize("callback", [None, 7, b"oauth_token=temp/1", [("oauth_token", "temp/1")], object()])
def test_F_55_what_is_no_callback_is_refused_by_name(callback: Any) -> None:
    with pytest.raises(ConfigurationError, match="callback must be"):
        client_of().parse_authorization_response(callback, REQUEST_TOKEN)


def test_S_62_before_revision_a_the_token_still_counts() -> None:
    client = client_of(revision_a=False)
    assert client.parse_authorization_response({"oauth_token": "temp/1"}, REQUEST_TOKEN) == ""
    assert client.parse_authorization_response(BACK, REQUEST_TOKEN) == "CANARY-verifier"
    with pytest.raises(StateMismatch):
        client.parse_authorization_response({"oauth_token": "evil"}, REQUEST_TOKEN)
    with pytest.raises(CallbackError, match="no oauth_token"):
        client.parse_authorization_response({}, REQUEST_TOKEN)


async def test_F_55_a_signature_that_cannot_be_made_sends_nothing(no_connection: list[object]) -> None:
    def fails(text: str, client_secret: str, token_secret: str) -> str:
        raise KeyError("no key")

    client = client_of(signature_method=SignatureMethod("MINE", fails))
    for leg, work in legs(client).items():
        with pytest.raises(TokenUnavailable, match="KeyError") as caught:
            await work("https://h/")
        frames = own_locals(caught.value.__traceback__)
        assert "CANARY" not in told(caught.value) + frames, leg
