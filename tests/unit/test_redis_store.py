"""RedisStore without a server: what it refuses, and what it says where Redis fails. tests/interop has the rest."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis import exceptions

from aiohttp_oauth_middleware import ConfigurationError, Record, RedisStore, StoreError
from tests.strict_server import all_of, turns

SECRET = "the secret body"
RECORD = Record(1, "alice", SECRET.encode())


class Fake:
    """A client whose every command ends as it is told to: with an answer, an error, or never."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.commands: list[tuple[object, ...]] = []

    async def execute_command(self, *args: bytes | str | int, NEVER_DECODE: bool) -> Any:
        self.commands.append(args)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def pipeline(self, *, transaction: bool) -> FakePipeline:
        assert not transaction
        return FakePipeline(self)

    async def scan_iter(self, match: str, count: int) -> AsyncIterator[str]:
        for _ in range(2):
            yield await self.execute_command("SCAN", match, NEVER_DECODE=True)

    async def aclose(self) -> None:
        raise AssertionError("the client is the user's")


class FakePipeline:
    def __init__(self, client: Fake) -> None:
        self._client = client

    def execute_command(self, *args: bytes | str | int) -> None:
        self._client.commands.append(args)

    async def execute(self) -> Any:
        return await self._client.execute_command("EXECUTE", NEVER_DECODE=True)


def shown(error: BaseException | None) -> str:
    """What a traceback shows of *error* and its causes, with the locals of all frames but those of this module."""
    text = ""
    while error is not None:
        traced = traceback.TracebackException.from_exception(error, capture_locals=True)
        text += "".join(traced.format_exception_only())
        text += "".join(str(frame.locals) for frame in traced.stack if frame.filename != __file__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (exceptions.ConnectionError("Connection refused"), "can't be reached"),
        (exceptions.TimeoutError("Timeout reading"), "did not answer in time"),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), "read-only replica"),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "out of memory"),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "still loading"),
        (exceptions.AuthenticationError("invalid password"), "refused the username or the password"),
        (exceptions.NoPermissionError("no permissions"), "its ACL forbids"),
        (exceptions.ClusterDownError("CLUSTERDOWN The cluster is down"), "the cluster is down"),
        (exceptions.MasterDownError("Link with MASTER is down"), "the cluster is down"),
        (exceptions.SlotNotCoveredError("Slot 1 not covered"), "no server of the cluster"),
        (exceptions.MaxConnectionsError("Too many connections"), "all connections"),
        (redis.sentinel.MasterNotFoundError("No master found"), "the sentinels know of no master"),
        (exceptions.ResponseError(f"unknown command, with args {SECRET}"), "it raised ResponseError"),
        (exceptions.RedisClusterException("nothing"), "it raised RedisClusterException"),
        (OSError(28, "No space left on device"), "it raised OSError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_F_50_each_failure_of_Redis_is_a_StoreError_that_says_which_and_holds_no_token(
    error: Exception, says: str
) -> None:
    for replicas in (0, 1):
        store = RedisStore(Fake(error), replicas=replicas)
        for work in (
            store.load("k"),
            store.save("k", RECORD, expected=0),
            store.delete("k"),
            all_of(store.keys()),
            store.lock("k", wait=1.0).__aenter__(),
        ):
            with pytest.raises(StoreError, match=says) as caught:
                await work
            assert caught.value.retryable
            assert SECRET not in shown(caught.value)


async def test_F_50_a_command_that_is_not_answered_has_failed() -> None:
    store = RedisStore(Fake(None), timeout=0.01)
    for work in (store.load("k"), store.save("k", RECORD, expected=0), store.lock("k", wait=60.0).__aenter__()):
        with pytest.raises(StoreError, match="did not answer in time"):
            await work


async def test_a_write_that_too_few_replicas_have_does_not_count() -> None:
    client = Fake([1, 1], [1, 2], [0, 0])
    store = RedisStore(client, replicas=2)
    with pytest.raises(StoreError, match="only 1 of 2 replicas") as caught:
        await store.save("k", RECORD, expected=0)
    assert SECRET not in shown(caught.value)
    assert await store.save("k", RECORD, expected=0)
    assert not await store.save("k", RECORD, expected=0)
    assert ("WAIT", 2, 2500) in client.commands


async def test_a_key_that_SCAN_names_twice_is_listed_once() -> None:
    assert await all_of(RedisStore(Fake("oauth:{k}", b"oauth:{k}")).keys()) == ["k"]


async def test_a_lock_whose_answer_was_lost_is_released_and_so_is_one_that_was_waited_for_in_vain() -> None:
    client = Fake(exceptions.ConnectionError(), 1)
    with pytest.raises(StoreError):
        async with RedisStore(client).lock("k", wait=0.0):
            pass
    taken, released = client.commands
    assert taken[3:5] == released[3:], "the same lock and the same owner"
    client = Fake(None, 1)
    task = asyncio.create_task(RedisStore(client).lock("k", wait=0.0).__aenter__())
    await turns(3)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(client.commands) == 2


async def test_a_lock_that_can_not_be_released_is_left_to_its_lease() -> None:
    client = Fake(1, exceptions.ConnectionError())
    async with RedisStore(client).lock("k", wait=0.0):
        pass
    assert len(client.commands) == 2


def test_a_loop_that_was_closed_with_the_lock_held_leaves_it_to_its_lease() -> None:
    client = Fake(1)

    async def hold() -> None:
        async with RedisStore(client).lock("k", wait=0.0):
            await asyncio.Event().wait()

    async def start() -> list[asyncio.Task[Any]]:
        holder = asyncio.create_task(hold())
        await turns(3)
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] + [holder]

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(start())
    loop.close()
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()
    del task
    left.clear()
    gc.collect()
    assert len(client.commands) == 1


@pytest.mark.parametrize(
    ("client", "arguments", "says"),
    [
        (redis.Redis(), {}, "asyncio client"),
        ("redis://localhost", {}, "asyncio client"),
        (None, {}, "asyncio client"),
        (Fake(1), {"prefix": ""}, "prefix"),
        (Fake(1), {"prefix": "a{b}"}, "prefix"),
        (Fake(1), {"prefix": b"a"}, "prefix"),
        (Fake(1), {"lease": 0}, "lease"),
        (Fake(1), {"timeout": 0}, "timeout"),
        (Fake(1), {"replicas": -1}, "replicas"),
        (Fake(1), {"replicas": 0.5}, "replicas"),
        (redis.asyncio.RedisCluster("localhost"), {"replicas": 1}, "RedisCluster"),
    ],
)
def test_what_can_not_work_is_refused_at_once(client: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RedisStore(client, **arguments)


async def test_a_function_that_makes_no_client_is_refused_when_it_is_called() -> None:
    with pytest.raises(ConfigurationError, match="asyncio client"):
        await RedisStore(redis.Redis).load("k")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="asyncio client"):
        await RedisStore(lambda: redis.Redis()).load("k")  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match="RedisCluster"):
        await RedisStore(lambda: redis.asyncio.RedisCluster("localhost"), replicas=1).load("k")


async def test_a_cancellation_that_the_client_swallows_is_none_the_less_one() -> None:
    class Swallowing(Fake):
        async def execute_command(self, *args: bytes | str | int, NEVER_DECODE: bool) -> Any:
            try:
                return await super().execute_command(*args, NEVER_DECODE=NEVER_DECODE)
            except asyncio.CancelledError:
                return 0

    task = asyncio.create_task(RedisStore(Swallowing(None, 0)).lock("k", wait=60.0).__aenter__())
    await turns(3)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    with pytest.raises(StoreError, match="did not answer in time"):
        await RedisStore(Swallowing(None), timeout=0.01).load("k")


def test_a_store_is_made_at_import_time_without_a_loop() -> None:
    assert repr(RedisStore(redis.asyncio.Redis())) == "<RedisStore under 'oauth:'>"
    assert repr(RedisStore(redis.asyncio.Redis(password=SECRET), prefix="x:")) == "<RedisStore under 'x:'>"
