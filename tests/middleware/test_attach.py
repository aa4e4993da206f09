"""A session that somebody else made: attached, for one request, or by trace hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import (
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    TCPConnector,
    TraceConfig,
)

from aiohttp_oauth_middleware import (
    BearerHeader,
    ConfigurationError,
    FormBody,
    Header,
    InsecureQuery,
    LoginRequired,
    OAuth2Auth,
    Refusal,
    StaticToken,
    Token,
    Tokens,
    TokenUnavailable,
    attach,
)
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.middleware.wire import INVALID, Rotating, Seen, only, record, redirect
from tests.raw_server import answer

pytestmark = pytest.mark.aiohttp_versions


def marking(name: str) -> Callable[[ClientRequest, ClientHandlerType], Awaitable[ClientResponse]]:
    async def mark(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers["X-Mark"] = request.headers.get("X-Mark", "") + name
        return await handler(request)

    return mark


@pytest.mark.parametrize("kind", [None, tuple, list])
async def test_F_46_attach_adds_us_to_a_session_and_detach_takes_us_out(kind: Any) -> None:
    async with record(only("at-2")) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        given = {} if kind is None else {"middlewares": kind([marking("m")])}
        async with ClientSession(**given) as session:
            detach = attach(session, auth)
            async with session.get(wire.url) as response:
                assert response.status == 200
            detach()
            async with session.get(wire.url) as response:
                assert response.status == 401
            detach()
            attach(session, auth)()
            attach(session, auth)
            async with session.get(wire.url) as response:
                assert response.status == 200
        assert wire.authorization == [["Bearer at-1"], ["Bearer at-2"], [], ["Bearer at-2"]]
        assert {seen.get("x-mark") for seen in wire.seen} == ({None} if kind is None else {"m"})


async def test_F_46_attached_twice_is_an_error_and_two_objects_are_not() -> None:
    async with ClientSession() as session:
        one, two = (OAuth2Auth(StaticToken("t"), origins="https://a") for _ in range(2))
        detach_one = attach(session, one)
        with pytest.raises(ConfigurationError, match="already"):
            attach(session, one)
        detach_two = attach(session, two)
        detach_one()
        with pytest.raises(ConfigurationError, match="already"):
            attach(session, two)
        detach_two()
        assert tuple(session._middlewares) == ()
    async with ClientSession(middlewares=[one]) as session:
        with pytest.raises(ConfigurationError, match="already"):
            attach(session, one)


@pytest.mark.parametrize(
    ("session", "auth"),
    [
        (None, OAuth2Auth(StaticToken("t"))),
        (ClientSession, OAuth2Auth(StaticToken("t"))),
        ("session", None),
        ("session", OAuth2Auth),
        ("session", "token"),
        ("session", StaticToken("t")),
    ],
)
async def test_F_46_attach_refuses_what_is_no_session_or_no_middleware(session: Any, auth: Any) -> None:
    async with ClientSession() as real:
        with pytest.raises(ConfigurationError, match="attach"):
            attach(real if session == "session" else session, auth)
        assert tuple(real._middlewares) == ()


async def test_F_46_attach_says_so_where_aiohttp_keeps_its_middlewares_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ClientSession() as session:
        unknown: list[object] = [None, {}, "x"]
        for elsewhere in unknown:
            monkeypatch.setattr(session, "_middlewares", elsewhere)
            with pytest.raises(ConfigurationError, match="trace_config"):
                attach(session, OAuth2Auth(StaticToken("t")))
            monkeypatch.undo()


async def test_F_46_attach_comes_after_the_sessions_own_so_that_their_retries_run_us_again() -> None:
    source = Rotating()

    def reply(seen: Seen) -> bytes:
        source.number += 1
        return answer(503 if len(wire.seen) == 1 else 200)

    async def retry(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if response.status != 503:
            return response
        response.close()
        return await handler(request)

    async with record(reply) as wire, ClientSession(middlewares=[retry]) as session:
        attach(session, OAuth2Auth(source, origins=wire.url))
        async with session.get(wire.url) as response:
            assert response.status == 200
        assert wire.authorization == [["Bearer at-1"], ["Bearer at-2"]]


async def test_F_44_attach_covers_websocket_handshakes(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue().replace(obtained_at=1.0))
    oauth_server.revoke_all()
    async with ClientSession() as session:
        attach(session, OAuth2Auth(tokens, origins=oauth_api.origin))
        async with session.ws_connect(oauth_api.url / "ws") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"


async def test_F_46_for_one_request_we_replace_the_sessions_own_and_attach_afterwards_still_works() -> None:
    async with record() as wire, ClientSession(middlewares=[marking("m")]) as session:
        auth = OAuth2Auth(StaticToken("t"), origins=wire.url)
        async with session.get(wire.url, middlewares=[auth]):
            pass
        async with session.get(wire.url, middlewares=(auth,)):
            pass
        async with session.get(wire.url):
            pass
        attach(session, auth)
        async with session.get(wire.url):
            pass
        async with session.get(wire.url, middlewares=[]):
            pass
        async with session.get(wire.url, middlewares=[auth, marking("n")]):
            pass
        assert wire.authorization == [["Bearer t"], ["Bearer t"], [], ["Bearer t"], [], ["Bearer t"]]
        assert [seen.get("x-mark") for seen in wire.seen] == [None, None, "m", "m", None, "n"]


async def test_F_46_for_one_request_a_401_is_repeated_and_a_redirect_abroad_unsigned() -> None:
    async with record() as foreign, record() as own, ClientSession() as session:
        auth = OAuth2Auth(Rotating(), origins=own.url)
        own.reply = only("at-2")
        async with session.get(own.url, middlewares=[auth]) as response:
            assert response.status == 200
        own.reply = redirect(302, foreign.url)
        async with session.get(own.url, middlewares=[auth]) as response:
            assert response.status == 200
        assert own.authorization == [["Bearer at-1"], ["Bearer at-2"], ["Bearer at-2"]]
        assert foreign.authorization == [[]]


# Trace hooks


def traced(source: Any, origins: Any, placement: Header | None = None) -> TraceConfig:
    return OAuth2Auth(source, origins=origins, placement=placement).trace_config()


async def appended(config: TraceConfig, **kwargs: Any) -> ClientSession:
    session = ClientSession(**kwargs)
    session.trace_configs.append(config)
    return session


@pytest.mark.parametrize("placement", [FormBody(), InsecureQuery()])
def test_S_35_a_trace_hook_can_only_set_a_header(placement: Any) -> None:
    with pytest.raises(ConfigurationError, match="trace_config"):
        OAuth2Auth(StaticToken("t"), placement=placement).trace_config()


@pytest.mark.parametrize(
    ("placement", "field", "value"),
    [
        (BearerHeader(), "authorization", "Bearer t"),
        (Header("X-Auth-Token", scheme=""), "x-auth-token", "t"),
        (Header(scheme="token"), "authorization", "token t"),
    ],
)
async def test_F_46_a_trace_hook_sets_the_header_of_the_placement(placement: Header, field: str, value: str) -> None:
    async with record() as wire:
        config = traced(StaticToken("t"), wire.url, placement)
        assert config.on_request_headers_sent.frozen
        async with await appended(config) as session, session.get(wire.url):
            pass
        assert wire.seen[0].all(field) == [value]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_F_42_a_trace_hook_signs_each_hop_at_home_and_none_abroad(status: int) -> None:
    async with record() as foreign, record() as own:
        ways: dict[str, object] = {"/": "/b", "/b": f"{foreign.url}c"}
        own.reply = lambda seen: redirect(status, ways[seen.path]) if seen.path in ways else answer()
        foreign.reply = redirect(status, f"{own.url}back")
        for placement in (BearerHeader(), Header("X-Auth-Token", scheme="")):
            own.seen.clear()
            foreign.seen.clear()
            async with (
                await appended(traced(StaticToken("c4nary"), own.url, placement)) as session,
                session.post(own.url, data=b"x") as response,
            ):
                assert response.status == 200
            assert [seen.path for seen in own.seen] == ["/", "/b", "/back"]
            assert [seen.raw.count(b"c4nary") for seen in own.seen] == [1, 1, 1]
            assert [seen.raw.count(b"c4nary") for seen in foreign.seen] == [0]


async def test_F_43_a_trace_hook_leaves_foreign_requests_and_own_headers_alone(caplog: pytest.LogCaptureFixture) -> None:
    source = Rotating()
    async with record() as foreign, record() as own:
        async with await appended(traced(source, own.url)) as session:
            for url, headers in ((foreign.url, {}), (own.url, {"Authorization": "Bearer mine"}), (own.url, {})):
                async with session.get(url, headers=headers):
                    pass
        assert foreign.authorization == [[]]
        assert own.authorization == [["Bearer mine"], ["Bearer at-1"]]
        assert source.asked == 1
    (said,) = caplog.messages
    assert "netrc" in said


async def test_S_18_a_trace_hook_without_origins_pins_the_first_that_gets_a_token() -> None:
    async with record() as one, record() as two, record() as three:
        async with await appended(traced(StaticToken("t"), None)) as session:
            for url, headers in ((one.url, {"Authorization": "mine"}), (two.url, {}), (three.url, {}), (one.url, {})):
                async with session.get(url, headers=headers):
                    pass
        assert one.authorization == [["mine"], []]
        assert two.authorization == [["Bearer t"]]
        assert three.authorization == [[]]


@pytest.mark.parametrize("raising", [False, True])
async def test_S_38_a_trace_hook_returns_the_401_and_the_next_request_has_a_better_token(raising: bool) -> None:
    source = Rotating()
    async with record(only("at-2")) as wire:
        async with await appended(traced(source, wire.url), raise_for_status=raising) as session:
            if raising:
                with pytest.raises(ClientResponseError):
                    await session.get(wire.url)
            else:
                async with session.get(wire.url) as response:
                    assert response.status == 401
            async with session.get(wire.url) as response:
                assert response.status == 200
        assert wire.authorization == [["Bearer at-1"], ["Bearer at-2"]]
    (refusal,) = source.refusals
    assert refusal.challenge is not None
    assert refusal.challenge.error == "invalid_token"


async def test_S_38_a_trace_hook_makes_nothing_of_other_answers_and_of_refusals_abroad() -> None:
    source = Rotating()
    async with record(answer(401, b"", {"WWW-Authenticate": INVALID})) as foreign, record() as own:
        own.reply = lambda seen: redirect(302, foreign.url) if seen.path == "/out" else answer(int(seen.path[1:]))
        async with await appended(traced(source, own.url)) as session:
            for path in ("200", "403", "404", "500", "out"):
                async with session.get(own.url / path):
                    pass
            async with session.get(foreign.url) as response:
                assert response.status == 401
    assert source.refusals == []


async def test_S_38_a_trace_hook_whose_refresh_fails_says_it_at_the_next_request() -> None:
    class Ended(Rotating):
        over = False

        async def token(self, refused: Refusal | None = None) -> Token | None:
            self.over = self.over or refused is not None
            if self.over:
                raise LoginRequired("over")
            return await super().token()

    async with record(only()) as wire, await appended(traced(Ended(), wire.url)) as session:
        async with session.get(wire.url) as response:
            assert response.status == 401
            assert await response.read() == b"no"
        with pytest.raises(LoginRequired):
            await session.get(wire.url)


async def test_F_55_a_trace_hook_whose_source_breaks_raises_an_error_of_ours() -> None:
    class Broken:
        async def token(self, refused: Refusal | None = None) -> Token | None:
            raise ConnectionResetError

    async with record() as wire, await appended(traced(Broken(), wire.url)) as session:
        with pytest.raises(TokenUnavailable):
            await session.get(wire.url)
        assert wire.received == 0


async def test_S_35_a_trace_hook_whose_source_has_no_token_sends_the_request_without() -> None:
    class Nothing:
        async def token(self, refused: Refusal | None = None) -> Token | None:
            return None

    async with record(only()) as wire, await appended(traced(Nothing(), wire.url)) as session:
        async with session.get(wire.url) as response:
            assert response.status == 401
        assert wire.authorization == [[]]


async def test_S_09_a_trace_hook_does_not_send_a_bound_token_as_bearer() -> None:
    source = StaticToken(Token("b0und", token_type="DPoP"))
    async with record() as wire, await appended(traced(source, wire.url)) as session:
        with pytest.raises(ConfigurationError, match="bearer tokens only"):
            await session.get(wire.url)
        assert b"b0und" not in b"".join(bytes(seen.raw) for seen in wire.seen)


async def test_F_45_a_trace_hook_signs_a_reconnect_too() -> None:
    async def reply(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return None if len(wire.seen) == 2 else answer()

    async with record(reply) as wire, await appended(traced(Rotating(), wire.url)) as session:
        for _ in range(2):
            async with session.get(wire.url) as response:
                assert response.status == 200
        assert wire.authorization == [["Bearer at-1"]] * 3


async def test_F_58_a_trace_hook_asks_for_the_token_before_a_connection_is_taken() -> None:
    async with record() as wire:

        class Nested(Rotating):
            async def token(self, refused: Refusal | None = None) -> Token | None:
                async with session.get(wire.url / "token", trace_request_ctx="nested"):
                    pass
                return Token("t")

        origin = wire.url
        auth = OAuth2Auth(Nested(), origins=lambda url: url.path == "/api" and url.origin() == origin.origin())
        session = ClientSession(connector=TCPConnector(limit=1))
        session.trace_configs.append(auth.trace_config())
        async with session, asyncio.timeout(20), session.get(wire.url / "api") as response:
            assert response.status == 200
        assert [(seen.path, seen.authorization) for seen in wire.seen] == [("/token", []), ("/api", ["Bearer t"])]


async def test_F_46_a_trace_hook_under_a_retry_middleware_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def retry(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if response.status != 503:
            return response
        response.close()
        return await handler(request)

    replies = iter([answer(503), answer()])
    async with record(lambda seen: next(replies)) as wire:
        async with (
            await appended(traced(Rotating(), wire.url), middlewares=[retry]) as session,
            session.get(wire.url) as response,
        ):
            assert response.status == 200
        assert wire.authorization == [["Bearer at-1"]] * 2
    assert caplog.messages == []


async def test_F_44_a_trace_hook_signs_websocket_handshakes(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue())
    async with await appended(traced(tokens, oauth_api.origin)) as session, session.ws_connect(oauth_api.url / "ws") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
