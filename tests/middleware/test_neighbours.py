"""The middleware among what else there is in a session: other middlewares, WebSockets, reconnects, errors, loops."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientHandlerType,
    ClientOSError,
    ClientPayloadError,
    ClientRequest,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    CookieJar,
    ServerDisconnectedError,
    TCPConnector,
    TraceConfig,
    TraceRequestStartParams,
    WSMsgType,
    WSServerHandshakeError,
)
from yarl import URL

from aiohttp_oauth_middleware import (
    BearerHeader,
    Client,
    ClientCredentials,
    ClientSecret,
    ConfigurationError,
    FormBody,
    Header,
    InsecureQuery,
    OAuth2Auth,
    OAuthError,
    Placement,
    Refusal,
    ServerMetadata,
    StaticToken,
    StoreError,
    Token,
    Tokens,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.middleware.wire import INVALID, Rotating, Seen, only, record, redirect
from tests.raw_server import answer, token_answer

Middleware = Callable[[ClientRequest, ClientHandlerType], Awaitable[ClientResponse]]


# WebSockets, HEAD


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_F_44_a_websocket_handshake_is_signed_refreshed_and_repeated(
    scheme: str, oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue().replace(obtained_at=1.0))
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        for expected in (0, 1):
            async with session.ws_connect((oauth_api.url / "ws").with_scheme(scheme)) as socket:
                await socket.send_str("hello")
                message = await socket.receive()
                assert (message.type, message.data) == (WSMsgType.TEXT, "hello")
            assert oauth_server.counts.token_requests == expected
            oauth_server.revoke_all()
            if expected:
                break
    assert [request.status for request in oauth_api.requests if request.path == "/ws"].count(401) == 1


@pytest.mark.aiohttp_versions
async def test_F_44_a_handshake_that_is_refused_for_ever_is_the_users_error_without_the_token_in_its_repr() -> None:
    async with record(only()) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(WSServerHandshakeError) as raised:
                await session.ws_connect(wire.url)
        assert len(wire.seen) == 2
        assert {seen.get("sec-websocket-key") for seen in wire.seen} == {wire.seen[0].get("sec-websocket-key")}
        assert "at-" not in repr(raised.value)


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "PROPFIND"])
async def test_F_44_every_method_is_signed_and_repeated(method: str) -> None:
    def reply(seen: Seen) -> bytes:
        made = only("at-2")(seen)
        return made.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else made

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session,
            session.request(method, wire.url) as response,
        ):
            assert response.status == 200
        assert [(seen.method, seen.authorization) for seen in wire.seen] == [
            (method, ["Bearer at-1"]),
            (method, ["Bearer at-2"]),
        ]


# Reconnects


async def _cut_when_kept(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
    return answer() if seen.path != "/cut" else None


@pytest.mark.aiohttp_versions
async def test_F_45_when_aiohttp_reconnects_the_token_is_asked_for_anew() -> None:
    source = Rotating()

    async def reply(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if len(wire.seen) == 2:
            source.number = 7
            return None
        return answer()

    async with record(reply) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            for _ in range(2):
                async with session.get(wire.url) as response:
                    assert response.status == 200
        assert wire.authorization == [["Bearer at-1"], ["Bearer at-1"], ["Bearer at-7"]]


@pytest.mark.aiohttp_versions
async def test_F_45_a_post_is_not_sent_again_on_a_broken_connection() -> None:
    async with record(_cut_when_kept) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            async with session.get(wire.url):
                pass
            with pytest.raises(ServerDisconnectedError):
                await session.post(wire.url / "cut", data=b"x")
        assert len([seen for seen in wire.seen if seen.method == "POST"]) == 1


# Errors


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("how", ["session", "request", "callable"])
async def test_G_12_S_22_raise_for_status_sees_the_last_response_only_and_its_repr_holds_no_token(how: str) -> None:
    async def check(response: ClientResponse) -> None:
        response.raise_for_status()

    async with record(only("at-2")) as wire:
        source = Rotating()
        auth = OAuth2Auth(source, origins=wire.url)
        given: Any = check if how == "callable" else True
        own: dict[str, Any] = {"raise_for_status": True} if how == "request" else {}
        async with ClientSession(middlewares=[auth], raise_for_status=False if own else given) as session:
            async with session.get(wire.url, **own) as response:
                assert response.status == 200
            source.number = 8
            with pytest.raises(ClientResponseError) as raised:
                await session.get(wire.url, **own)
        error = raised.value
        assert error.status == 401
        for text in (repr(error), str(error), repr(error.request_info), repr(error.request_info.headers), repr(error.args)):
            assert "at-8" not in text
            assert "at-9" not in text
            assert "Bearer" not in text.replace(INVALID, "")


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("placement", [BearerHeader(), Header("X-Auth-Token", scheme=""), FormBody()])
async def test_G_12_what_the_caller_can_see_of_the_request_holds_no_token_afterwards(placement: Placement) -> None:
    seen_outside: list[str] = []

    async def outside(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        seen_outside.append(f"{request.headers!r} {request.url} {request.body!r} {getattr(request.body, '_value', '')!r}")
        return response

    async with record() as wire:
        auth = OAuth2Auth(StaticToken("c4nary"), origins=wire.url, placement=placement)
        async with ClientSession(middlewares=[outside, auth]) as session, session.post(wire.url, data={"a": "1"}) as response:
            assert "c4nary" not in repr(response.request_info)
            assert "c4nary" not in repr(response)
        assert b"c4nary" in wire.seen[0].raw
    assert "c4nary" not in seen_outside[0]


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("placement", [BearerHeader(), Header("X-Auth-Token", scheme=""), FormBody(), InsecureQuery()])
async def test_G_12_also_where_the_handler_raises_the_request_is_as_it_was(placement: Placement) -> None:
    requests: list[ClientRequest] = []

    async def outside(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        requests.append(request)
        return await handler(request)

    async def inside(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        raise KeyError("inside")

    url = URL("http://127.0.0.1/")
    auth = OAuth2Auth(StaticToken("c4nary"), origins=url, placement=placement)
    async with ClientSession(middlewares=[outside, auth, inside]) as session:
        with pytest.raises(KeyError, match="inside"):
            await session.post(url, data={"a": "1"})
    (request,) = requests
    assert "c4nary" not in f"{request.headers} {request.url} {getattr(request.body, '_value', '')!r}"


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "i/o"),
        ConnectionResetError(),
        FileNotFoundError(2, "gone"),
        TimeoutError(),
        ServerDisconnectedError(),
        ClientOSError(104, "reset"),
        ClientConnectionError("x"),
        ClientPayloadError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("when", ["before", "after a refusal"])
async def test_F_55_what_the_sources_own_io_raises_is_an_error_of_ours_and_the_chain_is_not_run_again(
    error: Exception, when: str
) -> None:
    class Broken(Rotating):
        raised = 0

        async def token(self, refused: Refusal | None = None) -> Token | None:
            if (refused is None) is (when == "before"):
                self.raised += 1
                raise error
            return await super().token(refused)

    source = Broken()
    async with record(only(body=b"x" * 4 * 2**20)) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            with pytest.raises(TokenUnavailable, match=type(error).__name__) as raised:
                await session.get(wire.url)
            assert raised.value.__cause__ is error
            assert source.raised == 1
            async with session.get(wire.url, middlewares=[]) as response:
                assert response.status == 401
        assert len(wire.seen) == (1 if when == "before" else 2)


@pytest.mark.parametrize(
    "error", [KeyError("k"), ValueError("v"), StoreError("s"), asyncio.CancelledError(), KeyboardInterrupt()]
)
@pytest.mark.parametrize("when", ["before", "after a refusal"])
async def test_F_55_F_58_what_else_it_raises_passes_untouched_and_leaves_no_connection(error: BaseException, when: str) -> None:
    class Broken(Rotating):
        async def token(self, refused: Refusal | None = None) -> Token | None:
            if (refused is None) is (when == "before"):
                raise error
            return await super().token(refused)

    async with record(only(body=b"x" * 4 * 2**20)) as wire:
        auth = OAuth2Auth(Broken(), origins=wire.url)

        async def guarded(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
            try:
                return await handler(request)
            except KeyboardInterrupt as stopped:  # it would end the loop
                raise ValueError from stopped

        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[guarded, auth]) as session:
            with pytest.raises(type(error) if not isinstance(error, KeyboardInterrupt) else ValueError):
                await session.get(wire.url)
            async with session.get(wire.url, middlewares=[]) as response:
                assert response.status == 401


async def test_F_55_what_the_handler_raises_passes_untouched() -> None:
    async with record() as wire:
        gone = wire.url
    async with ClientSession(middlewares=[OAuth2Auth(Rotating(), origins=gone)]) as session:
        with pytest.raises(ClientConnectorError) as raised:
            await session.get(gone)
    assert not isinstance(raised.value, OAuthError)


# Other middlewares


def retrying(times: int) -> Middleware:
    async def retry(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        for _ in range(times):
            response = await handler(request)
            if response.status < 500:
                return response
            response.close()
        return await handler(request)

    return retry


@pytest.mark.aiohttp_versions
async def test_F_46_given_twice_there_is_one_token_one_refresh_and_one_repetition() -> None:
    source = Rotating()
    async with record(only("at-2")) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        for given in ([auth, auth], [auth, OAuth2Auth(source, origins=wire.url)]):
            source.number = 1
            wire.seen.clear()
            async with ClientSession(middlewares=given) as session, session.get(wire.url) as response:
                assert response.status == 200
            assert wire.authorization == [["Bearer at-1"], ["Bearer at-2"]]


@pytest.mark.parametrize("placement", [FormBody(), InsecureQuery(), Header("X-Auth-Token")])
async def test_F_46_given_twice_with_another_placement(placement: Placement) -> None:
    async with record() as wire:
        auth = OAuth2Auth(StaticToken("c4nary"), origins=wire.url, placement=placement)
        async with ClientSession(middlewares=[auth, auth]) as session, session.post(wire.url, data={"a": "1"}):
            pass
        assert wire.seen[0].raw.count(b"c4nary") == 1


@pytest.mark.aiohttp_versions
async def test_F_46_a_retry_middleware_outside_of_us_gets_a_fresh_token_for_each_try_and_not_our_own_back() -> None:
    source = Rotating()

    def reply(seen: Seen) -> bytes:
        source.number += 1
        return answer(503 if len(wire.seen) < 3 else 200)

    async with record(reply) as wire:
        auth = OAuth2Auth(source, origins=wire.url)
        async with ClientSession(middlewares=[retrying(5), auth]) as session, session.put(wire.url, data=b"x") as response:
            assert response.status == 200
        assert wire.authorization == [["Bearer at-1"], ["Bearer at-2"], ["Bearer at-3"]]
        assert wire.bodies == [b"x"] * 3


@pytest.mark.parametrize("inside", [True, False])
async def test_F_46_a_retry_middleware_on_either_side_of_us_and_a_401(inside: bool) -> None:
    replies = iter([answer(503), answer(401, b"", {"WWW-Authenticate": INVALID}), answer(503), answer()])
    async with record(lambda seen: next(replies)) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        chain: list[Any] = [auth, retrying(5)] if inside else [retrying(5), auth]
        async with ClientSession(middlewares=chain) as session, session.get(wire.url) as response:
            assert response.status == 200
        assert [value for (value,) in wire.authorization] == [f"Bearer at-{n}" for n in (1, 1, 2, 2)]


async def test_F_46_one_inside_that_signs_sees_our_header_and_one_outside_does_not() -> None:
    seen: list[tuple[str, bool]] = []

    def watching(name: str) -> Middleware:
        async def watch(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
            seen.append((name, "Authorization" in request.headers))
            response = await handler(request)
            seen.append((name, "Authorization" in request.headers))
            return response

        return watch

    async with record(only("at-2")) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        chain: list[Any] = [watching("out"), auth, watching("in")]
        async with ClientSession(middlewares=chain) as session, session.get(wire.url):
            pass
    assert seen == [("out", False), *[("in", True)] * 4, ("out", False)]


async def test_F_46_one_inside_that_takes_the_header_away_is_no_matter() -> None:
    async def strip(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers.popall("Authorization")
        return await handler(request)

    async with record() as wire:
        auth = OAuth2Auth(StaticToken("t"), origins=wire.url)
        async with ClientSession(middlewares=[auth, strip]) as session, session.get(wire.url) as response:
            assert response.status == 200
        assert wire.authorization == [[]]


async def test_F_46_one_inside_that_answers_by_itself_is_judged_too() -> None:
    async def twice(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        await response.read()
        return response

    async with record(only("at-2", body=b"x" * 100_000)) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        async with (
            ClientSession(connector=TCPConnector(limit=1), middlewares=[auth, twice]) as session,
            session.get(wire.url) as response,
        ):
            assert response.status == 200
            assert await response.read() == b"ok"


@pytest.mark.aiohttp_versions
async def test_F_46_two_auths_for_two_apis_in_one_session_each_get_their_own_also_over_redirects() -> None:
    async with record() as one, record() as two:
        one.reply = lambda seen: redirect(307, two.url) if seen.path == "/over" else answer()
        auths = [OAuth2Auth(StaticToken("first"), origins=one.url), OAuth2Auth(StaticToken("second"), origins=two.url)]
        for chain in (auths, auths[::-1]):
            one.seen.clear()
            two.seen.clear()
            async with ClientSession(middlewares=chain) as session:
                for url in (one.url, two.url, one.url / "over"):
                    async with session.get(url) as response:
                        assert response.status == 200
            assert one.authorization == [["Bearer first"]] * 2
            assert two.authorization == [["Bearer second"]] * 2


async def test_S_11_the_token_of_one_resource_is_asked_for_with_it_and_never_sent_to_the_other() -> None:
    def issue(seen: Seen) -> bytes:
        (resource,) = [value for name, value in parse_qsl(seen.body.decode()) if name == "resource"]
        return token_answer(f"for-{URL(resource).port}")

    async with record(issue) as server, record() as one, record() as two:
        one.reply = lambda seen: redirect(307, two.url) if seen.path == "/over" else answer()
        metadata = ServerMetadata(token_endpoint=str(server.url / "token"))
        client = Client(metadata, "app", ClientSecret("s"))
        auths = [OAuth2Auth(Tokens(client, ClientCredentials(resource=str(wire.url))), origins=wire.url) for wire in (one, two)]
        async with ClientSession(middlewares=auths) as session:
            for url in (one.url, two.url, one.url / "over"):
                async with session.get(url) as response:
                    assert response.status == 200
        assert len(server.seen) == 2
        for wire in (one, two):
            assert wire.authorization == [[f"Bearer for-{wire.url.port}"]] * 2


@pytest.mark.aiohttp_versions
async def test_F_46_the_token_request_inherits_nothing_of_the_users_session() -> None:
    passed: list[str] = []
    traced: list[str] = []

    async def watch(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        passed.append(str(request.url))
        return await handler(request)

    async def trace(session: ClientSession, context: Any, params: TraceRequestStartParams) -> None:
        traced.append(str(params.url))

    config = TraceConfig()
    config.on_request_start.append(trace)
    async with record(token_answer("at")) as server, record() as api:
        client = Client(ServerMetadata(token_endpoint=str(server.url / "token")), "app", ClientSecret("s"))
        auth = OAuth2Auth(Tokens(client, ClientCredentials()), origins=api.url)
        jar = CookieJar(unsafe=True)
        jar.update_cookies({"mine": "c00kie"}, server.url)
        async with (
            ClientSession(
                middlewares=[watch, auth, watch],
                headers={"X-Mine": "h3ader", "User-Agent": "m1ne"},
                cookie_jar=jar,
                raise_for_status=True,
                base_url=api.url,
                trace_configs=[config],
            ) as session,
            session.get("thing") as response,
        ):
            assert response.status == 200
        assert api.authorization == [["Bearer at"]]
        assert passed == [str(api.url / "thing")] * 2
        assert traced == [str(api.url / "thing")]
        (request,) = server.seen
        for canary in (b"h3ader", b"c00kie", b"m1ne", b"Bearer"):
            assert canary not in request.raw


# The object itself


def test_F_46_the_object_compares_by_identity_and_is_hashable() -> None:
    source = StaticToken("t")
    one, two = OAuth2Auth(source, origins="https://a"), OAuth2Auth(source, origins="https://a")
    assert one != two
    assert one == one
    assert len({one, two, one}) == 2
    assert hash(one) == hash(one)


@pytest.mark.aiohttp_versions
def test_F_46_made_outside_of_any_loop_it_serves_two_loops_one_after_the_other_and_two_threads() -> None:
    source = Rotating()
    auth = OAuth2Auth(source, origins=lambda url: True)

    async def use() -> list[list[str]]:
        async with record(only("at-2")) as wire:
            async with ClientSession(middlewares=[auth]) as session, session.get(wire.url) as response:
                assert response.status == 200
            return wire.authorization

    assert asyncio.run(use()) == [["Bearer at-1"], ["Bearer at-2"]]
    assert asyncio.run(use()) == [["Bearer at-2"]]
    found: list[list[list[str]]] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(use()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[["Bearer at-2"]]] * 4


def test_F_46_with_real_tokens_it_serves_two_loops_one_after_the_other(oauth_server: AuthorizationServer) -> None:
    api = oauth_server.api()
    tokens = Tokens(oauth_server.client())
    auth = OAuth2Auth(tokens, origins=api.origin)
    issued = oauth_server.issue().replace(obtained_at=1.0)

    async def use(save: bool) -> None:
        if save:
            await tokens.save(issued)
        async with ClientSession(middlewares=[auth]) as session:
            responses = await asyncio.gather(*(session.get(api.url) for _ in range(20)))
            assert {response.status for response in responses} == {200}
            for response in responses:
                response.close()

    for save in (True, False, False):
        asyncio.run(use(save))
        oauth_server.revoke_all()
    assert oauth_server.counts.token_requests == 2
    assert oauth_server.counts.reuses == 0


@pytest.mark.parametrize("source", [None, "token", StaticToken, Rotating, object(), lambda: "t"])
def test_S_35_a_source_that_is_none_is_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="source"):
        OAuth2Auth(source)


def test_S_38_expired_when_has_to_be_callable() -> None:
    with pytest.raises(ConfigurationError, match="expired_when"):
        OAuth2Auth(StaticToken("t"), expired_when=419)  # type: ignore[arg-type]


def test_S_22_its_repr_says_source_origins_and_placement_and_no_secret() -> None:
    auth = OAuth2Auth(StaticToken("c4nary"), origins="https://api.example.com", placement=Header("X-Key", scheme=""))
    text = repr(auth)
    assert "c4nary" not in text
    for word in ("StaticToken", "https://api.example.com:443", "X-Key"):
        assert word in text


async def test_S_35_a_header_of_the_users_own_making_says_its_value_itself_each_time() -> None:
    class Quoted(Header):
        __slots__ = ()

        def value(self, token: Token) -> str:
            return f'OAuth token="{token.access_token}"'

    def reply(seen: Seen) -> bytes:
        return answer(200 if seen.authorization == ['OAuth token="at-2"'] else 401)

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, placement=Quoted(scheme="OAuth"))
        async with ClientSession(middlewares=[auth]) as session, session.get(wire.url) as response:
            assert response.status == 200
        assert wire.authorization == [['OAuth token="at-1"'], ['OAuth token="at-2"']]


async def test_S_35_a_subclass_of_a_source_is_asked_by_its_own_method() -> None:
    class Loud(StaticToken):
        async def token(self, refused: Refusal | None = None) -> Token:
            return Token("loud")

    quiet = StaticToken("quiet")
    replaced = StaticToken("quiet")

    async def instead(refused: Refusal | None = None) -> Token:
        return Token("instead")

    replaced.token = instead  # type: ignore[method-assign]
    async with record() as wire:
        for source in (Loud("quiet"), quiet, replaced):
            auth = OAuth2Auth(source, origins=wire.url)
            async with ClientSession(middlewares=[auth]) as session, session.get(wire.url):
                pass
        assert wire.authorization == [["Bearer loud"], ["Bearer quiet"], ["Bearer instead"]]


async def test_F_58_a_session_closed_during_a_repetition_leaves_nothing() -> None:
    class Closing(Rotating):
        async def token(self, refused: Refusal | None = None) -> Token | None:
            if refused is not None:
                await session.close()
            return await super().token(refused)

    async with record(only("at-2")) as wire:
        session = ClientSession(middlewares=[OAuth2Auth(Closing(), origins=wire.url)])
        with pytest.raises((ClientConnectionError, RuntimeError, AssertionError)):  # the last one is aiohttp's own
            await session.get(wire.url)
        gc.collect()
        await wire.until_closed()
