"""RedisStore against real servers: one alone, a master that a Sentinel names, a cluster of three."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel

from aiohttp_oauth_middleware import ConfigurationError, Record, RedisStore, StoreCorrupted, TokenStore
from aiohttp_oauth_middleware.stores.redis import AsyncRedis
from aiohttp_oauth_middleware.testing.store_conformance import (
    CHECKS,
    Check,
    threads_exclude_each_other,
    two_loops_in_turn_use_one_store,
)
from tests.interop.redis_server import RedisServer, redis_cluster, sentinel, with_replica
from tests.strict_server import all_of

# A client works on one loop; what they show is shown below with a function that makes one for each.
ON_OTHER_LOOPS = (two_loops_in_turn_use_one_store, threads_exclude_each_other)
KINDS = ("plain", "decoding", "sentinel", "cluster", "decoding cluster")


def record(version: int, body: bytes = b"\xff\x00 secret") -> Record:
    return Record(version, "alice", body)


async def poll(happened: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask for up to 30 seconds."""
    for _ in range(3000):
        if await happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within 30 seconds: {what}")


@pytest.fixture(scope="session")
def sentinel_of_two(redis_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("sentinel")
    with with_replica(folder) as (master, _), sentinel(folder / "sentinel", master) as server:
        yield server


@pytest.fixture(scope="session")
def cluster_of_three(redis_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
async def plain(redis_alone: RedisServer) -> AsyncIterator[Redis]:
    async with Redis(port=redis_alone.port) as client:
        yield client


@pytest.fixture
def prefix() -> str:
    return f"{secrets.token_hex(4)}*[^:"


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncRedis]:
    """Each kind of client that redis-py has."""
    kind: str = request.param
    decode = kind.startswith("decoding")
    async with contextlib.AsyncExitStack() as stack:
        if "cluster" in kind:
            nodes: list[RedisServer] = request.getfixturevalue("cluster_of_three")
            yield await stack.enter_async_context(RedisCluster(host="127.0.0.1", port=nodes[0].port, decode_responses=decode))
        elif kind == "sentinel":
            watching: RedisServer = request.getfixturevalue("sentinel_of_two")
            sentinels = Sentinel([("127.0.0.1", watching.port)])  # type: ignore[no-untyped-call]
            for each in sentinels.sentinels:
                stack.push_async_callback(each.aclose)
            yield await stack.enter_async_context(sentinels.master_for("tokens"))
        else:
            server: RedisServer = request.getfixturevalue("redis_alone")
            yield await stack.enter_async_context(Redis(port=server.port, decode_responses=decode))


async def test_a_record_is_loaded_as_it_was_saved_through_every_kind_of_client(client: AsyncRedis, prefix: str) -> None:
    store: TokenStore = RedisStore(client, prefix=prefix)
    assert await store.load("k") is None
    whole = Record(1, "al\udcffice \U0001f511", bytes(range(256)) * 40)
    assert await store.save("k", whole, expected=0)
    assert await store.load("k") == whole
    assert repr(store) == f"<RedisStore under {prefix!r}>"
    await store.aclose()
    assert await store.load("k") == whole


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in ON_OTHER_LOOPS], ids=lambda check: check.__name__)
async def test_S_23_it_passes_each_check_through_every_kind_of_client(client: AsyncRedis, prefix: str, check: Check) -> None:
    await check(lambda: RedisStore(client, prefix=prefix))


async def test_F_15_threads_exclude_each_other_with_a_client_for_each_loop(redis_alone: RedisServer, prefix: str) -> None:
    await threads_exclude_each_other(lambda: RedisStore(lambda: Redis(port=redis_alone.port), prefix=prefix))


def test_F_15_one_store_serves_loops_in_turn_with_a_client_for_each(redis_alone: RedisServer, prefix: str) -> None:
    made: list[Redis] = []

    def make() -> Redis:
        made.append(Redis(port=redis_alone.port))
        return made[-1]

    async def one_more() -> int:
        async with store.lock("k", wait=60.0) as held:
            before = await store.load("k")
            version = before.version if before is not None else 0
            assert await store.save("k", record(version + 1), expected=version, lock=held)
        await store.aclose()
        await store.aclose()
        return version + 1

    async def left_open() -> None:
        assert await store.load("k") == record(3)
        await made[-1].aclose()  # by somebody who forgets the store

    store = RedisStore(make, prefix=prefix)
    assert [asyncio.run(one_more()) for _ in range(3)] == [1, 2, 3]
    for _ in range(3):
        asyncio.run(left_open())
    assert len(made) == 6
    assert len(store._clients) == 1, "a client of a loop that was closed is dropped"


async def test_a_prefix_is_taken_literally_and_sets_its_keys_apart(client: AsyncRedis, prefix: str) -> None:
    store, other = RedisStore(client, prefix=prefix), RedisStore(client, prefix=f"{prefix}x")
    await store.save("=", record(1), expected=0)
    await other.save("not listed", record(1), expected=0)
    async with store.lock("=", wait=0.0) as held:
        assert await all_of(store.keys()) == ["="]
        async with store.lock("", wait=0.0) as of_the_empty_key:
            assert await store.save("", record(1), expected=0, lock=of_the_empty_key)
        assert sorted(await all_of(store.keys())) == ["", "="]
        assert not held.predecessor_is_dead, "a lease can't tell"


async def test_the_lock_is_freed_by_an_error_and_by_a_cancellation(plain: Redis, prefix: str) -> None:
    store = RedisStore(plain, prefix=prefix)
    holding = asyncio.Event()

    async def hold() -> None:
        async with store.lock("a", wait=0.0):
            holding.set()
            await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        async with store.lock("a", wait=0.0):
            raise ZeroDivisionError
    task = asyncio.create_task(hold())
    await holding.wait()
    task.cancel()
    await asyncio.wait([task])
    async with store.lock("a", wait=0.0):
        waiting = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert await all_of(plain.scan_iter(match="*:lock")) == []


async def test_F_48_a_lock_that_is_held_for_longer_than_its_lease_is_renewed(plain: Redis, prefix: str) -> None:
    store = RedisStore(plain, prefix=prefix, lease=0.3)
    name = f"{prefix}{{a}}:lock"
    left: list[int] = []

    async def renewed_five_times() -> bool:
        left.append(await plain.pttl(name))
        assert left[-1] > 0, "the lease ran out"
        return sum(later > sooner for sooner, later in itertools.pairwise(left)) >= 5

    async with store.lock("a", wait=0.0):
        await poll(renewed_five_times, "five renewals")
    assert await plain.exists(name) == 0


async def test_F_48_a_renewal_that_fails_is_tried_again_and_a_lease_that_ran_out_is_taken_again(
    plain: Redis, prefix: str
) -> None:
    store = RedisStore(plain, prefix=prefix, lease=0.3)
    name = f"{prefix}{{a}}:lock"
    async with store.lock("a", wait=0.0) as held:
        await plain.delete(name)
        await plain.lpush(name, "of another type")

        async def tried() -> bool:
            return int((await plain.info("commandstats"))["cmdstat_get"]["failed_calls"]) >= 2

        await poll(tried, "two renewals that failed")
        await plain.delete(name)

        async def taken_again() -> bool:
            return bool(await plain.exists(name))

        await poll(taken_again, "the lock is there again")
        assert await store.save("a", record(1), expected=0, lock=held)


async def test_F_49_the_lock_of_a_process_that_died_is_free_when_its_lease_has_run_out(plain: Redis, prefix: str) -> None:
    store = RedisStore(plain, prefix=prefix)
    await plain.set(f"{prefix}{{a}}:lock", "somebody who died", px=300)
    async with store.lock("a", wait=30.0) as held:
        assert await store.save("a", record(1), expected=0, lock=held)


async def test_G_08_P3_what_is_written_under_a_lock_that_was_lost_is_refused(
    plain: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(plain, prefix=prefix, lease=0.2)
    name = f"{prefix}{{a}}:lock"
    async with store.lock("a", wait=0.0) as held:
        assert await store.save("a", record(1), expected=0, lock=held)
        await plain.set(name, "another process")
        assert not await store.save("a", record(2), expected=1, lock=held)
        assert await store.load("a") == record(1)
        assert await store.save("a", record(2), expected=1), "the version alone fences what is written without a lock"

        async def warned() -> bool:
            return "was lost to another process" in caplog.text

        await poll(warned, "a warning")
    assert await plain.get(name) == b"another process", "who has it keeps it"


async def test_what_is_sent_again_because_its_answer_was_lost_does_no_harm(redis_alone: RedisServer, prefix: str) -> None:
    async with Forgetful(port=redis_alone.port) as forgetful:
        store = RedisStore(forgetful, prefix=prefix)
        async with store.lock("a", wait=0.0) as held:
            assert await store.save("a", record(1), expected=0, lock=held)
            assert await store.save("a", record(2), expected=1, lock=held)
            assert not await store.save("a", record(2), expected=1, lock=held), "another write with the same content"
            assert await store.load("a") == record(2)
        assert forgetful.twice > 5
        async with store.lock("a", wait=0.0):
            pass


class Forgetful(Redis):
    """A client that sends each command twice, as one does that lost the first answer."""

    twice = 0

    async def execute_command(self, *args: object, **options: object) -> object:
        self.twice += 1
        await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


async def test_F_51_what_is_no_record_is_an_error_and_never_no_token(plain: Redis, prefix: str) -> None:
    store = RedisStore(plain, prefix=prefix)
    await plain.set(f"{prefix}{{a}}", "of another type")
    for number, fields in enumerate((("version", "1"), ("version", "soon", "label", "a", "body", "b"), ("body", "b"))):
        await plain.hset(f"{prefix}{{{number}}}", items=list(fields))
        with pytest.raises(StoreCorrupted, match="doesn't"):
            await store.load(str(number))
    for work in (store.load("a"), store.save("a", record(1), expected=0), store.delete("a")):
        with pytest.raises(StoreCorrupted, match="of another type"):
            await work
    assert await plain.get(f"{prefix}{{a}}") == b"of another type"


async def test_F_15_a_client_is_not_used_on_a_second_loop(redis_alone: RedisServer, prefix: str) -> None:
    async def elsewhere() -> None:
        with pytest.raises(ConfigurationError, match="give a function"):
            await store.load("k")
        with pytest.raises(ConfigurationError, match="give a function"):
            await store.lock("k", wait=0.0).__aenter__()

    async with Redis(port=redis_alone.port) as client:
        store = RedisStore(client, prefix=prefix)
        assert await store.load("k") is None
        await asyncio.to_thread(asyncio.run, elsewhere())
        await store.aclose()
        assert await store.load("k") is None
        assert await client.ping()
