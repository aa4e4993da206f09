"""What a server's refusal means, and what is done about it: once for each cause."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest
from aiohttp import ClientResponse, ClientResponseError, ClientSession, TCPConnector

from aiohttp_oauth_middleware import (
    BearerHeader,
    Client,
    ClientCredentials,
    ConfigurationError,
    ErrorResponse,
    Header,
    LoginRequired,
    OAuth2Auth,
    Refusal,
    ServerMetadata,
    StaticToken,
    Token,
    Tokens,
    TokenUnavailable,
    Wanted,
)
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI
from tests.middleware.wire import INVALID, Rotating, Seen, only, record
from tests.raw_server import answer


async def statuses(auth: OAuth2Auth, reply: Callable[[Seen], bytes], number: int = 1) -> tuple[list[int], list[list[str]]]:
    """The statuses of so many GETs, and the Authorization of each request that arrived."""
    async with record(reply) as wire:
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            seen = []
            for _ in range(number):
                async with session.get(wire.url) as response:
                    seen.append(response.status)
        return seen, wire.authorization


ANYWHERE = {"origins": lambda url: True}


def refusing(status: int, *challenges: str) -> Callable[[Seen], bytes]:
    def reply(seen: Seen) -> bytes:
        if seen.authorization == ["Bearer at-2"]:
            return answer()
        head = "".join(f"WWW-Authenticate: {challenge}\r\n" for challenge in challenges)
        return f"HTTP/1.1 {status} No\r\n{head}Content-Length: 0\r\n\r\n".encode()

    return reply


@pytest.mark.parametrize(
    "challenges",
    [
        (INVALID,),
        ("bearer error=invalid_token",),
        ('BEARER realm="a, b", error="invalid_token", error_description="it \\"expired\\""',),
        ('Basic realm="x", Bearer error="invalid_token"',),
        ('Basic realm="x"', 'Bearer error="invalid_token"'),
        ("Negotiate", "Bearer"),
        ("Bearer",),
        ('Bearer realm="x"',),
        ('Bearer resource_metadata="https://x/.well-known"',),
        ('DPoP error="invalid_token"',),
        (),
    ],
)
async def test_S_37_S_38_a_401_about_the_token_is_answered_with_another_once(challenges: tuple[str, ...]) -> None:
    source = Rotating()
    assert await statuses(OAuth2Auth(source, **ANYWHERE), refusing(401, *challenges)) == (  # type: ignore[arg-type]
        [200],
        [["Bearer at-1"], ["Bearer at-2"]],
    )
    (refusal,) = source.refusals
    assert refusal.status == 401
    assert refusal.token == Token("at-1")
    assert refusal.url.path == "/"


@pytest.mark.parametrize(
    ("status", "challenges"),
    [
        (401, ('Basic realm="x"',)),
        (401, ('Digest realm="x", nonce="y"',)),
        (401, ("Negotiate YII=",)),
        (401, ('Bearer error="invalid_request"',)),
        (401, ('Bearer error="something_new"',)),
        (400, (INVALID,)),
        (400, ('Bearer error="invalid_request"',)),
        (402, (INVALID,)),
        (407, (INVALID,)),
        (404, (INVALID,)),
        (419, (INVALID,)),
        (500, (INVALID,)),
        (503, (INVALID,)),
        (200, (INVALID,)),
        (403, ()),
        (403, ("Bearer",)),
        (403, ('Bearer error="invalid_request"',)),
        (403, ('Basic realm="x"',)),
    ],
)
async def test_S_38_F_39_F_40_what_is_not_about_the_token_is_returned(status: int, challenges: tuple[str, ...]) -> None:
    source = Rotating()
    auth = OAuth2Auth(source, origins=lambda url: True)
    assert await statuses(auth, refusing(status, *challenges)) == ([status], [["Bearer at-1"]])
    assert source.refusals == []


@pytest.mark.parametrize(
    "challenge",
    [
        '"',
        ",,,,",
        "=",
        "Bearer error",
        "Bearer error=",
        'Bearer error="inval',
        'Bearer error="\\',
        "Bearer " + "a=b, " * 5000,
        "Bearer =invalid_token",
        "\x7f\x01",
        "é",
        "Bearer error=“invalid_token”",
        "x" * 20_000,
        ", ".join(f"S{n}" for n in range(1000)),
    ],
)
async def test_S_37_garbage_in_a_challenge_is_never_an_exception(challenge: str) -> None:
    def reply(seen: Seen) -> bytes:
        return f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n".encode()

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url)
        # Where aiohttp's own parser would not have it, the error is its own.
        async with ClientSession(middlewares=[auth], max_field_size=2**20) as session:
            with contextlib.suppress(ClientResponseError):
                response = await session.get(wire.url)
                assert response.status == 401
                response.close()
        assert 1 <= len(wire.seen) <= 2


@pytest.mark.parametrize("error", ["insufficient_scope", "insufficient_user_authentication"])
async def test_S_38_F_40_too_little_scope_is_brought_before_the_source_once(error: str) -> None:
    challenge = f'Bearer error="{error}", scope="read write", acr_values="gold", max_age=5'
    source = Rotating()
    auth = OAuth2Auth(source, origins=lambda url: True)
    assert await statuses(auth, refusing(403, challenge)) == ([200], [["Bearer at-1"], ["Bearer at-2"]])
    (refusal,) = source.refusals
    assert refusal.verdict == "more wanted"
    assert refusal.wanted.scope == "read write"
    assert refusal.wanted.acr_values == "gold"
    source = Rotating()
    seen = await statuses(OAuth2Auth(source, origins=lambda url: True), only(status=403, challenge=challenge))
    assert seen == ([403], [["Bearer at-1"], ["Bearer at-2"]])
    assert len(source.refusals) == 1


async def test_S_38_F_40_a_source_that_has_nothing_better_gets_the_response_returned_without_a_second_request() -> None:
    challenge = 'Bearer error="insufficient_scope", scope="write"'
    assert await statuses(OAuth2Auth(StaticToken("only"), origins=lambda url: True), only(status=403, challenge=challenge)) == (
        [403],
        [["Bearer only"]],
    )
    assert await statuses(OAuth2Auth(StaticToken("only"), origins=lambda url: True), only()) == ([401], [["Bearer only"]])


async def test_S_38_F_40_where_the_person_refuses_more_the_403_is_returned_and_nobody_is_asked_again() -> None:
    asked: list[Wanted] = []

    async def refuse(client: Client, wanted: Wanted) -> Token:
        asked.append(wanted)
        raise LoginRequired("no")

    client = Client(ServerMetadata(token_endpoint="http://127.0.0.1:9/token"), "id")
    tokens = Tokens(client, refuse)  # type: ignore[arg-type]
    await tokens.save(Token("at-1", scope='rä"d'))
    challenge = 'Bearer error="insufficient_scope", scope="write"'
    auth = OAuth2Auth(tokens, origins=lambda url: True)
    seen = await statuses(auth, only(status=403, challenge=challenge), 3)
    assert seen == ([403] * 3, [["Bearer at-1"]] * 3)
    assert asked == [Wanted(scope="write")]
    assert await tokens.token() == Token("at-1", scope='rä"d')


async def test_S_38_a_source_that_answers_none_gets_the_response_returned() -> None:
    class Gone(Rotating):
        async def token(self, refused: Refusal | None = None) -> Token | None:
            return None if refused is not None else await super().token()

    assert await statuses(OAuth2Auth(Gone(), origins=lambda url: True), only()) == ([401], [["Bearer at-1"]])


async def test_S_35_a_source_that_has_no_token_sends_the_request_without() -> None:
    class Nothing:
        async def token(self, refused: Refusal | None = None) -> Token | None:
            return None

    assert await statuses(OAuth2Auth(Nothing(), origins=lambda url: True), only()) == ([401], [[]])


async def test_S_38_a_401_and_then_a_403_are_two_causes_and_never_a_fourth_request() -> None:
    more = 'Bearer error="insufficient_scope"'

    def reply(seen: Seen) -> bytes:
        number = int(seen.authorization[0].rpartition("-")[2])
        status, challenge = ((401, INVALID), (403, more))[number % 2 == 0]
        return answer(status, b"", {"WWW-Authenticate": challenge})

    source = Rotating()
    seen = await statuses(OAuth2Auth(source, origins=lambda url: True), reply)
    assert seen == ([401], [["Bearer at-1"], ["Bearer at-2"], ["Bearer at-3"]])
    assert [refusal.status for refusal in source.refusals] == [401, 403]


async def test_G_15_a_401_for_ever_costs_two_requests_each() -> None:
    source = Rotating()
    seen, sent = await statuses(OAuth2Auth(source, origins=lambda url: True), only(), 5)
    assert seen == [401] * 5
    assert len(sent) == 10


async def test_S_37_a_challenge_under_the_scheme_of_the_placement_is_about_our_token() -> None:
    def reply(seen: Seen) -> bytes:
        if seen.authorization == ["token at-2"]:
            return answer()
        return answer(401, b"", {"WWW-Authenticate": 'Token realm="x", error="invalid_token"'})

    auth = OAuth2Auth(Rotating(), origins=lambda url: True, placement=Header(scheme="token"))
    assert await statuses(auth, reply) == ([200], [["token at-1"], ["token at-2"]])
    auth = OAuth2Auth(Rotating(), origins=lambda url: True, placement=Header("X-Key", scheme=""))
    assert (await statuses(auth, only()))[0] == [401]


# expired_when


@pytest.mark.parametrize("status", [403, 419, 440, 498, 302, 500])
async def test_S_38_a_server_may_say_it_by_another_status(status: int) -> None:
    source = Rotating()
    auth = OAuth2Auth(source, origins=lambda url: True, expired_when=lambda response: response.status == status)
    assert await statuses(auth, refusing(status)) == ([200], [["Bearer at-1"], ["Bearer at-2"]])
    (refusal,) = source.refusals
    assert refusal.verdict == "expired"


@pytest.mark.parametrize("size", [0, 300_000])
async def test_S_38_a_server_may_say_it_in_the_body_of_a_200_which_stays_readable(size: int) -> None:
    async def expired(response: ClientResponse) -> bool:
        return bool((await response.json())["error"] == "token expired")

    def reply(seen: Seen) -> bytes:
        error = "none" if seen.authorization == ["Bearer at-2"] else "token expired"
        body = f'{{"error": "{error}", "pad": "{"x" * size}"}}'.encode()
        return answer(200, body, {"Content-Type": "application/json"})

    async with record(reply) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, expired_when=expired)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            for _ in range(2):
                async with session.get(wire.url) as response:
                    assert (await response.json())["error"] == "none"
                    assert len(await response.read()) > size
        assert wire.authorization == [["Bearer at-1"], ["Bearer at-2"], ["Bearer at-2"]]
        assert wire.connections == 1


async def test_S_38_expired_when_for_ever_ends_after_one_more_try_and_the_last_one_is_readable() -> None:
    auth = OAuth2Auth(Rotating(), origins=lambda url: True, expired_when=lambda response: True)
    assert await statuses(auth, lambda seen: answer(200, b"body")) == ([200], [["Bearer at-1"], ["Bearer at-2"]])


async def test_S_38_where_expired_when_says_no_a_401_is_still_judged_by_its_challenge() -> None:
    auth = OAuth2Auth(Rotating(), origins=lambda url: True, expired_when=lambda response: False)
    assert await statuses(auth, only("at-2")) == ([200], [["Bearer at-1"], ["Bearer at-2"]])
    auth = OAuth2Auth(Rotating(), origins=lambda url: True, expired_when=lambda response: False)
    assert await statuses(auth, lambda seen: answer(404)) == ([404], [["Bearer at-1"]])


async def test_F_58_expired_when_that_raises_leaves_no_connection_behind() -> None:
    def expired(response: ClientResponse) -> bool:
        raise KeyError("mine")

    async with record(answer(200, b"x" * 4 * 2**20)) as wire:
        auth = OAuth2Auth(Rotating(), origins=wire.url, expired_when=expired)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            for _ in range(3):
                with pytest.raises(KeyError, match="mine"):
                    await session.get(wire.url)


# A token that the resource server does not know yet


async def test_F_14_a_newborn_token_is_sent_once_more_after_the_delay_without_a_refresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def instead(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", instead)

    class Source(Rotating):
        @property
        def current(self) -> Token:
            return Token(f"at-{self.number}", obtained_at=time.time())

    source = Source()
    late = iter([answer(401, b"", {"WWW-Authenticate": INVALID}), answer(), answer()])
    auth = OAuth2Auth(source, origins=lambda url: True, fresh_token_delay=2.5)
    assert await statuses(auth, lambda seen: next(late)) == ([200], [["Bearer at-1"], ["Bearer at-1"]])
    assert [seconds for seconds in slept if seconds] == [2.5]
    assert source.refusals == []
    slept.clear()
    assert await statuses(auth, only()) == ([401], [["Bearer at-1"], ["Bearer at-1"]])
    assert [seconds for seconds in slept if seconds] == [2.5]
    assert len(source.refusals) == 1, "refused twice, it is the token and not the delay"


async def test_F_14_a_newborn_token_that_was_really_revoked_is_replaced_after_one_delay() -> None:
    class Source:
        number = 1

        async def token(self, refused: Refusal | None = None) -> Token | None:
            if refused is not None:
                self.number = 2
            return Token(f"at-{self.number}", obtained_at=time.time())

    auth = OAuth2Auth(Source(), origins=lambda url: True, fresh_token_delay=0.0)
    assert await statuses(auth, only("at-2")) == ([200], [["Bearer at-1"], ["Bearer at-1"], ["Bearer at-2"]])


@pytest.mark.parametrize("age", [10.5, 3600.0, -5.0, None])
async def test_F_14_a_token_that_is_not_newborn_is_refreshed_at_once(age: float | None) -> None:
    class Source(Rotating):
        @property
        def current(self) -> Token:
            return Token(f"at-{self.number}", obtained_at=None if age is None else time.time() - age)

        async def token(self, refused: Refusal | None = None) -> Token | None:
            if refused is not None:
                self.number = 2
            return self.current

    auth = OAuth2Auth(Source(), origins=lambda url: True, fresh_token_delay=1000.0)
    assert await statuses(auth, only("at-2")) == ([200], [["Bearer at-1"], ["Bearer at-2"]])


@pytest.mark.parametrize("status", [401, 403])
async def test_F_14_the_delay_is_for_a_401_of_a_body_that_can_be_sent_again_only(status: int) -> None:
    async def stream() -> object:
        yield b"abc"

    class Source(Rotating):
        @property
        def current(self) -> Token:
            return Token(f"at-{self.number}", obtained_at=time.time())

        async def token(self, refused: Refusal | None = None) -> Token | None:
            if refused is not None:
                self.refusals.append(refused)
            return self.current

    source = Source()
    challenge = INVALID if status == 401 else 'Bearer error="insufficient_scope"'
    async with record(only(status=status, challenge=challenge)) as wire:
        auth = OAuth2Auth(source, origins=wire.url, fresh_token_delay=1000.0)
        body = stream() if status == 401 else b"abc"
        async with ClientSession(middlewares=[auth]) as session, session.post(wire.url, data=body) as response:
            assert response.status == status
    assert len(source.refusals) == 1


@pytest.mark.parametrize("delay", [-1.0, float("nan")])
def test_F_14_a_delay_that_is_none_is_refused(delay: float) -> None:
    with pytest.raises(ConfigurationError, match="fresh_token_delay"):
        OAuth2Auth(StaticToken("t"), fresh_token_delay=delay)


# With a real source and a real authorization server


@pytest.mark.aiohttp_versions
async def test_F_12_G_15_a_token_revoked_with_a_hundred_in_flight_is_refreshed_once(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue().replace(obtained_at=time.time() - 60))
    auth = OAuth2Auth(tokens, origins=oauth_api.origin)
    async with ClientSession(middlewares=[auth]) as session:

        async def one() -> int:
            async with session.post(oauth_api.url / "x", data=b"body") as response:
                return response.status

        with oauth_api.hold("/x") as held:
            tasks = [asyncio.create_task(one()) for _ in range(100)]
            await held.arrived()
            oauth_server.revoke_all()
            held.release()
            assert await asyncio.gather(*tasks) == [200] * 100
    assert oauth_server.counts.token_requests == 1
    assert oauth_server.counts.reuses == 0
    assert {request.length for request in oauth_api.requests} == {4}


@pytest.mark.aiohttp_versions
async def test_F_12_S_10_a_401_that_comes_late_is_repeated_with_the_new_token_without_another_refresh(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue().replace(obtained_at=time.time() - 60))
    auth = OAuth2Auth(tokens, origins=oauth_api.origin)
    async with ClientSession(middlewares=[auth]) as session:
        with oauth_api.hold("/slow") as held:
            slow = asyncio.create_task(session.get(oauth_api.url / "slow"))
            await held.arrived()
            oauth_server.revoke_all()
            async with session.get(oauth_api.url / "fast") as response:
                assert response.status == 200
            assert oauth_server.counts.token_requests == 1
            held.release()
            async with await slow as response:
                assert response.status == 200
    assert oauth_server.counts.token_requests == 1
    assert oauth_server.counts.reuses == 0


async def test_F_39_a_401_without_a_challenge_refreshes_only_a_token_that_is_old_enough(
    oauth_server: AuthorizationServer,
) -> None:
    for age, requests in ((3.0, 0), (60.0, 1)):
        tokens = Tokens(oauth_server.client())
        token = oauth_server.issue().replace(obtained_at=time.time() - age)
        await tokens.save(token)
        before = oauth_server.counts.token_requests
        auth = OAuth2Auth(tokens, origins=lambda url: True)
        await statuses(auth, only(challenge=None))
        assert oauth_server.counts.token_requests - before == requests


async def test_F_13_G_15_tokens_that_are_refused_at_birth_are_strikes_and_three_end_the_refreshing(
    oauth_server: AuthorizationServer,
) -> None:
    tokens = Tokens(oauth_server.client(), ClientCredentials())
    seen, sent = await statuses(OAuth2Auth(tokens, origins=lambda url: True), only(), 10)
    assert seen == [401] * 10
    assert len(sent) <= 20
    assert oauth_server.counts.token_requests <= 4


async def test_S_27_after_revoke_no_request_leaves(oauth_server: AuthorizationServer, oauth_api: EchoAPI) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        async with session.get(oauth_api.url) as response:
            assert response.status == 200
        await tokens.revoke()
        with pytest.raises(LoginRequired):
            await session.get(oauth_api.url)
    assert len(oauth_api.requests) == 1


async def test_S_27_a_request_that_is_refused_while_the_user_signs_out_does_not_bring_the_token_back(
    oauth_server: AuthorizationServer, oauth_api: EchoAPI
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue().replace(obtained_at=time.time() - 60))
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=oauth_api.origin)]) as session:
        with oauth_api.hold("/slow") as held:
            slow = asyncio.create_task(session.get(oauth_api.url / "slow"))
            await held.arrived()
            await tokens.revoke()
            held.release()
            with pytest.raises(LoginRequired):
                await slow
        with pytest.raises(LoginRequired):
            await session.get(oauth_api.url)
    assert oauth_server.counts.token_requests == 0


async def test_S_38_where_the_server_is_down_at_the_refresh_the_caller_is_told_and_the_connection_is_free(
    oauth_server: AuthorizationServer,
) -> None:
    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue().replace(obtained_at=time.time() - 60))
    oauth_server.fail_next(503, times=10)
    async with record(only(body=b"x" * 4 * 2**20)) as wire:
        auth = OAuth2Auth(tokens, origins=wire.url)
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            with pytest.raises(TokenUnavailable):
                await session.get(wire.url)
            async with session.get(wire.url, middlewares=[]) as response:
                assert response.status == 401


async def test_S_38_a_stream_gets_its_401_even_where_the_refresh_fails(oauth_server: AuthorizationServer) -> None:
    async def stream() -> object:
        yield b"abc"

    tokens = Tokens(oauth_server.client())
    await tokens.save(oauth_server.issue().replace(obtained_at=time.time() - 60))
    oauth_server.fail_next(400, error="invalid_grant")
    async with record(only()) as wire:
        auth = OAuth2Auth(tokens, origins=wire.url)
        async with ClientSession(middlewares=[auth]) as session:
            async with session.post(wire.url, data=stream()) as response:
                assert response.status == 401
                assert await response.read() == b"no"
            with pytest.raises((LoginRequired, ErrorResponse)):
                await session.get(wire.url)
        assert len(wire.seen) == 1


@pytest.mark.parametrize("type_", ["DPoP", "MAC", "N_A", "bearer2"])
async def test_S_09_a_token_of_another_type_is_not_sent_as_bearer(type_: str) -> None:
    bound = Token("b0und", token_type=type_)
    async with record() as wire:
        for auth in (
            OAuth2Auth(StaticToken(bound), origins=wire.url),
            OAuth2Auth(StaticToken(bound), origins=wire.url, placement=Header("X-Auth-Token", scheme="")),
        ):
            async with ClientSession(middlewares=[auth]) as session:
                with pytest.raises(ConfigurationError, match="bearer tokens only") as raised:
                    await session.get(wire.url)
                assert "b0und" not in str(raised.value)
        assert wire.received == 0


async def test_S_09_nor_after_a_refusal() -> None:
    class Downgrade(Rotating):
        async def token(self, refused: Refusal | None = None) -> Token | None:
            return Token("plain") if refused is None else Token("b0und", token_type="DPoP")

    async with record(only(body=b"x" * 4 * 2**20)) as wire:
        auth = OAuth2Auth(Downgrade(), origins=wire.url, placement=BearerHeader())
        async with ClientSession(connector=TCPConnector(limit=1), middlewares=[auth]) as session:
            for _ in range(2):
                with pytest.raises(ConfigurationError, match="bearer tokens only"):
                    await session.get(wire.url)
        assert wire.authorization == [["Bearer plain"]] * 2


async def test_S_09_bearer_in_any_case_is_bearer() -> None:
    auth = OAuth2Auth(StaticToken(Token("t", token_type="BEARER")), origins=lambda url: True)
    assert await statuses(auth, only("t")) == ([200], [["Bearer t"]])
