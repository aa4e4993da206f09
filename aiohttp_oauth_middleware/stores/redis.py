"""Tokens in Redis, for processes on many machines.

A record is a hash, ``oauth:{<key>}``, and its lock a string beside it, ``oauth:{<key>}:lock``; the key is percent-encoded. What
stands in the braces is all that Redis Cluster looks at to place a key, so the two are always on one server.

Each step is one script. A script is atomic, and never runs on a replica that lags behind; and since clients send again what
they got no answer to, each script does no harm when it runs twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, unquote

from ..errors import ConfigurationError, StoreCorrupted, StoreError, StoreLockTimeout
from ..value import check_number
from .store import Lock, Record

__all__ = ("AsyncRedis", "RedisStore")

T = TypeVar("T")

# KEYS: the lock. ARGV: who, milliseconds. It takes the lock, and renews it.
_TAKE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
# KEYS: the lock. ARGV: who.
_RELEASE: Final = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"
# KEYS: the record.
_LOAD: Final = "return redis.call('HMGET', KEYS[1], 'version', 'label', 'body')"
# KEYS: the record, the lock. ARGV: who must hold the lock or '', the version expected, this write's name, version, label, body.
_SAVE: Final = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local version, write = unpack(redis.call('HMGET', KEYS[1], 'version', 'write'))
if write == ARGV[3] then return 1 end
if (version or '0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'write', ARGV[3], 'version', ARGV[4], 'label', ARGV[5], 'body', ARGV[6])
return 1
"""
# KEYS: the record. ARGV: the version expected, or ''.
_DELETE: Final = """
local version = redis.call('HGET', KEYS[1], 'version')
if version and (ARGV[1] == '' or ARGV[1] == version) then return redis.call('DEL', KEYS[1]) end
return 0
"""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_BEATS: Final = 3

# By the names of redis-py's classes, so that it need not be imported. What Redis itself says (ResponseError) is not passed on:
# it may quote the command, and in it the token.
_REASONS: Final = {
    "AuthenticationError": "it refused the username or the password",
    "AuthorizationError": "it refused the username or the password",
    "BusyLoadingError": "it is still loading its data",
    "ClusterDownError": "the cluster is down",
    "MasterNotFoundError": "the sentinels know of no master",
    "MaxConnectionsError": "all connections of the client's pool are in use",
    "NoPermissionError": "its ACL forbids a command or the key; needed are EVAL, SCAN, and what the scripts call",
    "OutOfMemoryError": "it is out of memory (maxmemory)",
    "ReadOnlyError": "it is a read-only replica",
    "SlotNotCoveredError": "no server of the cluster has the slot of this key",
    "TimeoutError": "it did not answer in time",
    "ConnectionError": "it can't be reached",
}

_log = logging.getLogger("aiohttp_oauth_middleware")


class AsyncRedis(Protocol):
    """What is used of redis-py's asyncio clients: ``redis.asyncio.Redis``, ``RedisCluster``, a Sentinel's ``master_for``."""

    def execute_command(self, *args: bytes | str | int, NEVER_DECODE: bool) -> Awaitable[Any]:
        """Send a command; its answer in bytes, whether the client decodes or not."""

    def pipeline(self, *, transaction: bool) -> Any:
        """Commands to send together, on one connection."""

    def scan_iter(self, match: str, count: int) -> AsyncIterator[Any]:
        """The names of all keys that match, on all masters."""

    async def aclose(self) -> None:
        """Close its connections."""


class _Lease:
    """A lock that is taken for some seconds at a time, and renewed while it is held."""

    # A holder that was stopped or cut off may come back, and one that let go leaves no trace: there is no telling.
    predecessor_is_dead = False

    def __init__(self, store: RedisStore, name: str, wait: float) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._store = store
        self._name = name
        self._wait = wait
        self._over: asyncio.Future[None]
        self._beating: asyncio.Task[None]

    async def __aenter__(self) -> _Lease:
        try:
            await self._acquire()
        except (Exception, asyncio.CancelledError):
            await self._release()  # it may be ours although nobody said so
            raise
        loop = asyncio.get_running_loop()
        self._over, self._beating = loop.create_future(), loop.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            return  # the loop is gone, and nothing can be awaited any more: the lease runs out
        self._over.set_result(None)
        try:
            # Not cancelled: what is on its way would take the lock again after it was released.
            await asyncio.wait([self._beating])
        finally:
            await self._release()

    async def _acquire(self) -> None:
        give_up = time.monotonic() + self._wait
        pause = _FIRST_PAUSE
        while not await self._take():
            left = give_up - time.monotonic()
            if left <= 0:
                raise StoreLockTimeout(f"the lock of a key in Redis was held elsewhere for more than {self._wait:g} s")
            await asyncio.sleep(min(left, random.uniform(0.5, 1.0) * pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _take(self) -> bool:
        lease = max(1, round(1000 * self._store.lease))
        return bool(await self._store._asked("take a lock", self._store._run(_TAKE, [self._name], self.owner, lease)))

    async def _beat(self) -> None:
        while not (await asyncio.wait([self._over], timeout=self._store.lease / _BEATS))[0]:
            try:
                # One that ran out is taken again if it is free: whoever had it meanwhile has changed the version if he acted.
                if not await self._take():
                    _log.warning("a lock in Redis was lost to another process: its lease ran out while this one was stopped")
            except StoreError as error:
                _log.debug("the lock was not renewed: %s", error)

    async def _release(self) -> None:
        try:
            await self._store._asked("release a lock", self._store._run(_RELEASE, [self._name], self.owner))
        except StoreError as error:
            _log.debug("the lock was not released, its lease runs out: %s", error)


class RedisStore:
    """Keeps tokens in Redis or Valkey, for all processes and machines that reach it.

    Redis has to keep what it is told: with persistence (``appendonly yes``) or replicas, ``maxmemory-policy noeviction``, and
    access for those alone who may have the tokens; :class:`SealedStore` encrypts them. One that comes back empty has signed
    everybody out.

    :param redis: an asyncio client of redis-py: ``redis.asyncio.Redis``, ``RedisCluster``, or what a Sentinel's ``master_for``
        returns. It may decode responses or not, and stays yours to close. It works on one event loop; where there are several,
        in turn or in threads, give a function that makes one: it is called once on each, and :meth:`aclose` closes that one.
    :param prefix: what the names of all keys in Redis begin with.
    :param lease: seconds for which a lock is taken; it is renewed every third of them while it is held. Make it three times
        the Client's ``timeout`` or more: then a request for a token is over before a lock that could not be renewed is
        somebody else's. After so long the lock of a process that died is free; and a process that is stopped for longer than
        that, with a refresh token on its way, may see it sent by another.
    :param timeout: seconds for one command. One that takes longer has failed.
    :param replicas: how many replicas must have a write before it counts (``WAIT``), within half of *timeout*; else a failover
        may lose the last one. Not with a ``RedisCluster``.
    :raises ConfigurationError: where an argument can't work.
    """

    def __init__(
        self,
        redis: AsyncRedis | Callable[[], AsyncRedis],
        *,
        prefix: str = "oauth:",
        lease: float = 90.0,
        timeout: float = 5.0,
        replicas: int = 0,
    ) -> None:
        if not isinstance(prefix, str) or not re.fullmatch(r"[^{}]+", prefix):
            raise ConfigurationError(
                "RedisStore: prefix must be a non-empty string without braces, which set the hash tag apart"
            )
        check_number("RedisStore: lease", lease, "seconds", above=0)
        check_number("RedisStore: timeout", timeout, "seconds", above=0)
        if not isinstance(replicas, int) or replicas < 0:
            raise ConfigurationError("RedisStore: replicas must be a whole number, 0 or more")
        self.lease = lease
        self._redis = redis if callable(redis) else _checked(redis, replicas)
        self._clients: dict[asyncio.AbstractEventLoop, AsyncRedis] = {}
        self._prefix = prefix
        self._timeout = timeout
        self._replicas = replicas

    def __repr__(self) -> str:
        return f"<RedisStore under {self._prefix!r}>"

    async def load(self, key: str) -> Record | None:
        record = _record_of(await self._asked("load a record", self._run(_LOAD, [self._name(key)])))
        if isinstance(record, str):
            raise StoreCorrupted(record)
        return record

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        """See :meth:`TokenStore.save`. With *lock* given it is refused too where that is not held any more."""
        name, owner = self._name(key), lock.owner if isinstance(lock, _Lease) else ""
        label, write = record.key_label.encode("utf-8", "surrogatepass"), secrets.token_hex(8)
        run = self._run_durably if self._replicas else self._run
        saving = run(_SAVE, [name, f"{name}:lock"], owner, expected, write, record.version, label, record.body)
        return bool(await self._asked("save a record", saving))

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        version = "" if expected is None else expected
        return bool(await self._asked("delete a record", self._run(_DELETE, [self._name(key)], version)))

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        """See :meth:`TokenStore.lock`. It is polled for, and nobody knows of a predecessor whether he is dead."""
        return _Lease(self, f"{self._name(key)}:lock", wait)

    async def keys(self) -> AsyncIterator[str]:
        prefix = f"{self._prefix}{{"
        seen = set()  # SCAN may name a key twice
        names = self._client().scan_iter(match=re.sub(r"([*?^\\\[\]])", r"\\\1", prefix) + "*}", count=1000)
        while name := await self._asked("list the keys", anext(names, None)):
            text = name if isinstance(name, str) else name.decode()
            if text not in seen:
                seen.add(text)
                yield unquote(text[len(prefix) : -1].rstrip("="), errors="surrogatepass")

    async def aclose(self) -> None:
        """Close the client that was made for this loop, if one was; one that you passed is yours."""
        if callable(self._redis) and (client := self._clients.pop(asyncio.get_running_loop(), None)) is not None:
            await client.aclose()

    def _client(self) -> AsyncRedis:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            if not callable(self._redis):
                if self._clients:
                    raise ConfigurationError("RedisStore: a client works on one loop; give a function that makes one for each")
                client = self._redis
            else:
                for closed in [other for other in list(self._clients) if other.is_closed()]:
                    self._clients.pop(closed, None)
                client = _checked(self._redis(), self._replicas)
            self._clients[loop] = client
        return client

    def _name(self, key: str) -> str:
        # Nothing between the braces would be no hash tag at all.
        return f"{self._prefix}{{{quote(key, safe='', errors='surrogatepass') or '='}}}"

    # A traceback that shows locals shall not show a record's body: what has it among them is not awaited but in _asked.

    def _run(self, script: str, names: list[str], *args: bytes | str | int) -> Awaitable[Any]:
        return self._client().execute_command("EVAL", script, len(names), *names, *args, NEVER_DECODE=True)

    async def _run_durably(self, script: str, names: list[str], *args: bytes | str | int) -> Any:
        # Together, for WAIT speaks of what was written on its own connection.
        pipeline = self._client().pipeline(transaction=False)
        pipeline.execute_command("EVAL", script, len(names), *names, *args)
        pipeline.execute_command("WAIT", self._replicas, round(500 * self._timeout))
        done, reached = await pipeline.execute()
        if done and reached < self._replicas:
            raise StoreError(f"only {reached} of {self._replicas} replicas of Redis had a record in time")
        return done

    async def _asked(self, what: str, answer: Awaitable[T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        try:
            async with asyncio.timeout(self._timeout):
                result = await answer
                # redis-py sends by asyncio.wait_for, which in Python 3.11 may return in place of being cancelled.
                if task.cancelling() > cancelled:
                    raise asyncio.CancelledError
                return result
        except StoreError as error:
            raise error.bare() from None
        except Exception as error:
            failure = _explained(what, error)
            # The frames that it and its causes came through hold the command.
            error.__cause__ = error.__context__ = None
            raise failure from (None if "ResponseError" in _kinds(error) else error.with_traceback(None))


def _checked(client: AsyncRedis, replicas: int) -> AsyncRedis:
    if not (callable(getattr(client, "execute_command", None)) and hasattr(client, "aclose")):
        raise ConfigurationError("RedisStore: redis must be an asyncio client of redis-py, such as redis.asyncio.Redis(…)")
    if replicas and hasattr(client, "get_node_from_key"):
        raise ConfigurationError("RedisStore: replicas can't be waited for through a RedisCluster; leave replicas=0")
    return client


def _record_of(fields: Any) -> Record | str | None:
    """The record, or what is wrong with it."""
    version, label, body = fields
    if version is label is body is None:
        return None
    try:
        return Record(int(version), label.decode("utf-8", "surrogatepass"), bytes(body))
    except (TypeError, ValueError, AttributeError):
        return "a hash in Redis that should hold a record doesn't"


def _kinds(error: Exception) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _explained(what: str, error: Exception) -> StoreError:
    if str(error).startswith("WRONGTYPE"):
        return StoreCorrupted("a key in Redis that should hold a record is of another type")
    reason = next((_REASONS[kind] for kind in _kinds(error) if kind in _REASONS), f"it raised {type(error).__name__}")
    return StoreError(f"Redis could not {what}: {reason}")
