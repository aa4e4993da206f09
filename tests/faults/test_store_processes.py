"""Processes over one store on disk: each write counts, and one at a time is inside the lock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiohttp_oauth_middleware import FileStore, Record, SQLiteStore, TokenStore

ROOT = Path(__file__).parent.parent.parent
PROCESSES, TIMES = 4, 20

WORK = """
import asyncio, os, sys
from aiohttp_oauth_middleware import FileStore, Record, SQLiteStore

async def add_one(store, key):
    while True:
        record = await store.load(key)
        version, count = (record.version, int(record.body)) if record is not None else (0, 0)
        if await store.save(key, Record(version + 1, "alice", b"%d" % (count + 1)), expected=version):
            return

async def main(kind, path, times):
    store = {"file": FileStore, "sqlite": SQLiteStore}[kind](path)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for _ in range(times):
        await add_one(store, "without the lock")
        async with store.lock("with the lock", wait=60.0):
            # Whoever else is inside has made this file.
            os.close(os.open(path + "-inside", os.O_CREAT | os.O_EXCL))
            record = await store.load("with the lock")
            version = record.version if record is not None else 0
            assert await store.save("with the lock", Record(version + 1, "alice", b""), expected=version)
            os.unlink(path + "-inside")
    await store.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def together(kind: str, path: Path) -> list[str]:
    """What the processes complain of, all having begun at once."""
    command = [sys.executable, "-c", WORK, kind, str(path), str(TIMES)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[1] for process in processes]


@pytest.mark.parametrize(("kind", "make"), [("file", FileStore), ("sqlite", SQLiteStore)])
async def test_G_05_processes_exclude_each_other_and_lose_no_write(
    tmp_path: Path, kind: str, make: Callable[[Path], TokenStore]
) -> None:
    assert await asyncio.to_thread(together, kind, tmp_path / "tokens") == [""] * PROCESSES
    store, all_of_them = make(tmp_path / "tokens"), PROCESSES * TIMES
    assert await store.load("without the lock") == Record(all_of_them, "alice", b"%d" % all_of_them)
    assert await store.load("with the lock") == Record(all_of_them, "alice", b"")
    await store.aclose()
