"""What becomes of a refresh when Redis is killed, cut off, full or slow: before it, and while its request is under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from aiohttp_oauth_middleware import LoginRequired, RedisStore, StoreError, Token, Tokens
from aiohttp_oauth_middleware.sources.state import State
from aiohttp_oauth_middleware.stores.redis import AsyncRedis
from tests.clock import VirtualClock
from tests.interop.redis_server import DURABLE, IN_MEMORY, RedisServer, redis_server, sentinel, until, with_replica
from tests.strict_server import DirectClient, StrictServer


class Watching(StrictServer):
    """A server that looks into Redis at the moment when a refresh token arrives: is the intent there?"""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(VirtualClock(automatic=False))
        self.redis = server
        self.intents: list[bool] = []

    def serve(self, form: dict[str, str]) -> object:  # type: ignore[override]
        self.intents.append(stored(self.redis).pending is not None)
        return super().serve(form)


def stored(server: RedisServer) -> State:
    """What Redis holds."""
    with redis.Redis(port=server.port) as client:
        bodies = [client.hget(name, "body") for name in client.keys("oauth:{*}")]
    assert len(bodies) <= 1
    return State.from_body(bodies[0]) if bodies else State()


class Bench:
    """Tokens of one user who signed in, over a Redis."""

    def __init__(self, server: RedisServer, client: AsyncRedis) -> None:
        self.strict = Watching(server)
        self.client = client
        self.tokens = self.another()

    def another(self) -> Tokens:
        """As another process has them. A lease that is left behind is soon over."""
        return Tokens(DirectClient(self.strict), store=RedisStore(self.client, timeout=0.3, lease=0.5))

    async def sign_in(self, *, left: float = -1.0) -> Token:
        """A token with so many seconds left."""
        token = self.strict.sign_in()
        await self.tokens.save(token)
        self.strict.clock.advance(self.strict.lifetime - left)
        return token

    async def under_way(self) -> asyncio.Task[Token]:
        """Begin a refresh whose request is with the server."""
        self.strict.holding = True
        task = asyncio.create_task(self.tokens.token())
        await self.until(lambda: self.strict.held == 1)
        return task

    async def settled(self) -> None:
        """Let time pass until no write is tried any more."""
        await self.until(lambda: not self.tokens._common.flights.under_way(), seconds=1.0)

    async def until(self, happened: Callable[[], bool], *, seconds: float = 0.0) -> None:
        for _ in range(3000):
            if happened():
                return
            self.strict.clock.advance(seconds)
            await asyncio.sleep(0.01)
        raise AssertionError("not within 30 seconds")

    def check(self, token_requests: int = 1) -> None:
        """So many requests; each refresh token arrived once, and its intent was in Redis."""
        assert self.strict.token_requests == token_requests
        assert self.strict.intents == [True] * token_requests
        assert set(self.strict.presented.values()) <= {1}
        assert self.strict.reuses == self.strict.after_refusal == 0
        assert self.strict.most_at_once <= 1


class Nemesis:
    """What befalls a Redis, how that ends, and what RedisStore says of it."""

    def __init__(self, says: str, *, options: tuple[str, ...] = IN_MEMORY) -> None:
        self.says = says
        self.options = options

    def strike(self, server: RedisServer) -> None:
        raise NotImplementedError

    def end(self, server: RedisServer) -> None:
        raise NotImplementedError


class Killed(Nemesis):
    def strike(self, server: RedisServer) -> None:
        server.kill()

    def end(self, server: RedisServer) -> None:
        server.start()


class ReadOnly(Nemesis):
    """A master that was made the replica of one that can't be reached."""

    def strike(self, server: RedisServer) -> None:
        server.command("REPLICAOF", "127.0.0.1", 1)

    def end(self, server: RedisServer) -> None:
        server.command("REPLICAOF", "NO", "ONE")


class Full(Nemesis):
    def strike(self, server: RedisServer) -> None:
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.command("CONFIG", "SET", "maxmemory", 1)

    def end(self, server: RedisServer) -> None:
        server.command("CONFIG", "SET", "maxmemory", 0)


class Slow(Nemesis):
    def strike(self, server: RedisServer) -> None:
        server.command("CLIENT", "PAUSE", 600_000, "WRITE")

    def end(self, server: RedisServer) -> None:
        server.command("CLIENT", "UNPAUSE")


NEMESES = {
    "killed": Killed("can't be reached|did not answer", options=DURABLE),
    "read-only": ReadOnly("read-only replica"),
    "full": Full("out of memory"),
    "slow": Slow("did not answer in time"),
}


@pytest.fixture(params=NEMESES)
def nemesis(request: pytest.FixtureRequest, redis_is_there: None) -> Nemesis:
    name: str = request.param
    return NEMESES[name]


@pytest.fixture
def server(nemesis: Nemesis, tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis", *nemesis.options) as server:
        yield server


@pytest.fixture
async def bench(server: RedisServer) -> AsyncIterator[Bench]:
    async with Redis(port=server.port) as client:
        yield Bench(server, client)


async def test_F_50_G_09_while_Redis_fails_nothing_is_spent_and_whoever_waits_is_told(
    bench: Bench, server: RedisServer, nemesis: Nemesis
) -> None:
    await bench.sign_in()
    nemesis.strike(server)
    failures = await asyncio.gather(*(bench.tokens.token() for _ in range(10)), return_exceptions=True)
    for failure in failures:
        assert isinstance(failure, StoreError)
        assert nemesis_says(nemesis, failure)
        assert failure.retryable
    bench.check(token_requests=0)
    nemesis.end(server)
    token = await bench.tokens.token()
    assert bench.strict.accepts(token.access_token)
    bench.check()


def nemesis_says(nemesis: Nemesis, error: BaseException) -> bool:
    return any(words in str(error) for words in nemesis.says.split("|"))


async def test_F_50_F_05_while_Redis_fails_an_access_token_that_is_valid_serves_on(
    bench: Bench, server: RedisServer, nemesis: Nemesis
) -> None:
    token = await bench.sign_in(left=5.0)
    nemesis.strike(server)
    assert await asyncio.gather(*(bench.tokens.token() for _ in range(10))) == [token] * 10
    bench.check(token_requests=0)
    nemesis.end(server)
    assert await bench.tokens.token() != token
    bench.check()


async def test_F_50_P3_a_result_that_Redis_can_not_take_is_used_and_written_when_it_can(
    bench: Bench, server: RedisServer, nemesis: Nemesis
) -> None:
    await bench.sign_in()
    task = await bench.under_way()
    nemesis.strike(server)
    bench.strict.release()
    token = await task
    assert bench.strict.accepts(token.access_token)
    assert bench.tokens.counts["store_write_retried"] == 2
    assert await bench.tokens.token() == token, "out of memory"
    nemesis.end(server)
    await bench.settled()
    assert stored(server) == stored(server).replace(kind="ok", token=token, pending=None, cooldown_until=0.0, failures=0)
    assert await bench.another().token() == token
    bench.check()


async def test_F_50_P3_whoever_comes_while_the_result_can_not_be_written_does_not_send_it_again(
    bench: Bench, server: RedisServer, nemesis: Nemesis
) -> None:
    await bench.sign_in()
    task = await bench.under_way()
    sibling = bench.another()
    nemesis.strike(server)
    bench.strict.release()
    await task
    with pytest.raises(StoreError):
        await sibling.token()
    nemesis.end(server)
    await bench.settled()
    assert await sibling.token() == await task
    bench.check()


async def test_P3_a_Redis_that_comes_back_empty_has_signed_everybody_out(redis_is_there: None, tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with Redis(port=server.port) as client:
            bench = Bench(server, client)
            await bench.sign_in()
            task = await bench.under_way()
            server.kill()
            bench.strict.release()
            token = await task
            server.start()
            await bench.settled()
            assert await bench.tokens.token() == token, "this process has it, as long as it lives"
            with pytest.raises(LoginRequired):
                await bench.another().token()
            bench.check()


async def test_F_50_P3_a_failover_by_a_Sentinel_in_the_middle_of_a_refresh(redis_is_there: None, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        master, replica = stack.enter_context(with_replica(tmp_path))
        watching = stack.enter_context(sentinel(tmp_path / "sentinel", master))
        sentinels = Sentinel([("127.0.0.1", watching.port)])  # type: ignore[no-untyped-call]
        for each in sentinels.sentinels:
            stack.push_async_callback(each.aclose)
        bench = Bench(master, await stack.enter_async_context(sentinels.master_for("tokens")))
        await bench.sign_in()
        task = await bench.under_way()
        until(lambda: stored(replica).pending is not None, "the replica has the intent")
        master.kill()
        bench.strict.release()
        token = await task
        assert bench.strict.accepts(token.access_token)
        with pytest.raises(StoreError):
            await bench.another().token()
        where = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tokens")
        until(lambda: str(replica.port) in str(watching.command(*where)), "the replica was promoted")
        await bench.settled()
        assert stored(replica).token == token
        assert await bench.another().token() == token
        bench.check()


async def test_P3_with_replicas_a_write_counts_when_they_have_it(redis_is_there: None, tmp_path: Path) -> None:
    with with_replica(tmp_path) as (master, replica):
        async with Redis(port=master.port) as client:
            bench = Bench(master, client)
            bench.tokens = Tokens(DirectClient(bench.strict), store=RedisStore(client, replicas=1, timeout=2.0))
            await bench.sign_in()
            assert stored(replica).token is not None
            replica.stop()
            with pytest.raises(StoreError, match="only 0 of 1 replicas"):
                await bench.tokens.token()
            bench.check(token_requests=0)


class Unlucky(Redis):
    """A client one of whose commands fails: before it arrives, or on the way back."""

    fails_at = -1
    arrives = False

    async def execute_command(self, *args: object, **options: object) -> object:
        self.fails_at -= args[0] == "EVAL"
        unlucky = args[0] == "EVAL" and self.fails_at == -1
        if unlucky and not self.arrives:
            raise redis.ConnectionError("lost")
        answer: object = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if unlucky:
            raise redis.ConnectionError("lost")
        return answer


@pytest.mark.parametrize("arrives", [False, True], ids=["lost on the way", "answer lost"])
@pytest.mark.parametrize("number", range(5), ids=["take", "load", "intent", "result", "release"])
async def test_G_09_P3_whichever_command_fails_nothing_is_spent_without_an_intent_or_twice(
    redis_is_there: None, tmp_path: Path, number: int, arrives: bool
) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with Unlucky(port=server.port) as client:
            bench = Bench(server, client)
            await bench.sign_in()
            client.fails_at, client.arrives = number, arrives
            with contextlib.suppress(StoreError):
                await bench.tokens.token()
            token = await bench.tokens.token()
            await bench.settled()
            assert client.fails_at < 0
            assert stored(server) == stored(server).replace(
                kind="ok", token=token, pending=None, cooldown_until=0.0, failures=0
            )
            assert await bench.another().token() == token
            bench.check()
