"""Redis as child processes, in memory unless a test asks for a disk: alone, master and replica under a sentinel, a cluster."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import redis

from tests.interop.child import Child, free_port, running

# Where unpack puts it.
UNPACKED: Final = Path(__file__).parent / ".redis"
IN_MEMORY: Final = ("--save", "", "--appendonly", "no")
DURABLE: Final = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
SLOTS: Final = 16384


def program() -> str | None:
    """Where redis-server is, or None."""
    unpacked = UNPACKED / "usr/bin/redis-server"
    return shutil.which("redis-server") or (str(unpacked) if unpacked.exists() else None)


def until(happened: Callable[[], bool], what: str) -> None:
    """Poll for up to 30 seconds."""
    deadline = time.monotonic() + 30
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within 30 seconds: {what}")
        time.sleep(0.02)


class RedisServer:
    """One server; :meth:`start` and :meth:`kill` may be called in turns, and it keeps its port and folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.bus = free_port()
        """Where the nodes of a cluster talk with each other."""
        self._options = options
        self._running = contextlib.ExitStack()
        self._child: Child | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        found = program()
        assert found is not None
        command = [found, *self._options, "--port", str(self.port), "--bind", "127.0.0.1", "--logfile", "redis.log"]
        if "--cluster-enabled" in self._options:
            command += ["--cluster-port", str(self.bus)]
        libraries = ":".join(str(place) for place in UNPACKED.glob("**/lib/*-linux-gnu*"))
        environment = {"LD_LIBRARY_PATH": libraries} if found.startswith(str(UNPACKED)) else {}
        self.folder.mkdir(exist_ok=True)
        self._child = self._running.enter_context(running(command, cwd=self.folder, environment=environment))
        until(self._answers, "redis-server answers")

    def _answers(self) -> bool:
        assert self._child is not None
        if self._child.process.poll() is not None:
            log = self.folder / "redis.log"
            raise self._child.failure(f"ended; its log ends with {log.read_text()[-2000:] if log.exists() else 'nothing'!r}")
        try:
            return bool(self.command("PING"))
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._child is not None
        self._child.process.kill()
        self._running.close()

    def stop(self) -> None:
        """End it."""
        self._running.close()

    def command(self, *words: str | int) -> Any:
        """One command, through redis-py's plain client."""
        with redis.Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*words)


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server with its data in *folder*, for as long as the block lasts."""
    server = RedisServer(folder, *(options or IN_MEMORY))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def with_replica(folder: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master, and a replica that has caught up with it."""
    with (
        redis_server(folder / "master", *IN_MEMORY, "--repl-diskless-sync-delay", "0") as master,
        redis_server(folder / "replica", *IN_MEMORY, "--replicaof", f"127.0.0.1 {master.port}") as replica,
    ):
        until(lambda: replica.command("INFO", "replication")["master_link_status"] == "up", "the replica has caught up")
        yield master, replica


@contextlib.contextmanager
def sentinel(folder: Path, master: RedisServer) -> Iterator[RedisServer]:
    """A sentinel that watches *master* under the name ``tokens``, and fails over after half a second of silence."""
    folder.mkdir()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor tokens 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds tokens 500\n"
        "sentinel failover-timeout tokens 5000\n"
    )
    with redis_server(folder, str(settings), "--sentinel") as server:
        until(lambda: len(server.command("SENTINEL", "REPLICAS", "tokens")) == 1, "the sentinel knows the replica")
        yield server


@contextlib.contextmanager
def redis_cluster(folder: Path, size: int = 3) -> Iterator[list[RedisServer]]:
    """A cluster of masters that share the slots."""
    options = (*IN_MEMORY, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with contextlib.ExitStack() as stack:
        nodes: list[RedisServer] = []
        for number in range(size):
            node = stack.enter_context(redis_server(folder / str(number), *options))
            node.command("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // size, (number + 1) * SLOTS // size - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if nodes:
                node.command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus)
            nodes.append(node)

        def complete() -> bool:
            told = [node.command("CLUSTER", "INFO") for node in nodes]
            return all("cluster_state:ok" in info and f"cluster_known_nodes:{size}" in info for info in told)

        until(complete, "the cluster is complete")
        yield nodes
