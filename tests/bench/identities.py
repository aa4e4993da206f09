"""A hundred thousand users of one Tokens over one SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path

from aiohttp_oauth_middleware import Client, ClientSecret, Record, ServerMetadata, SQLiteStore, Token, Tokens
from aiohttp_oauth_middleware.sources.state import State

from .memory import traced, tracemalloc_start, tracemalloc_stop
from .report import Report, Result

__all__ = ("measure_identities",)

SECTION = "100,000 identities over one SQLiteStore"
IDENTITIES = 100_000
SAMPLE = 20_000
AT_ONCE = 64


async def measure_identities(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.sqlite")
        client = Client(ServerMetadata(token_endpoint="https://as.example.com/token"), "app", ClientSecret("app-secret"))
        tokens = Tokens(client, store=SQLiteStore(path), cache_size=IDENTITIES)
        began = time.perf_counter()
        for number in range(100):
            await tokens.save(_token(number), key=_user(number))
        report.add(Result(SECTION, "saved, one after another", 100 / (time.perf_counter() - began), "per s"))
        _fill(path, tokens)
        report.add(Result(SECTION, "the file", _size(path) / IDENTITIES, "bytes each"))

        before = tracemalloc_start()
        for start in range(0, IDENTITIES, 10_000):
            await _look_up(tokens, range(start, start + 10_000))
        report.add(Result(SECTION, "memory for each, cached", traced(before) / IDENTITIES, "bytes", goal=1024))
        tracemalloc_stop()

        fresh = Tokens(client, store=SQLiteStore(path), cache_size=IDENTITIES)
        for title, of in (("looked up in the file", fresh), ("looked up in memory", fresh)):
            began = time.perf_counter()
            await _look_up(of, range(SAMPLE))
            report.add(Result(SECTION, f"{title}, {AT_ONCE} at once", SAMPLE / (time.perf_counter() - began), "per s"))
        began = time.perf_counter()
        found = 0
        async for _ in fresh.keys():
            found += 1
        assert found == IDENTITIES
        report.add(Result(SECTION, "keys() of all", time.perf_counter() - began, "s"))
        await fresh.aclose()
        await tokens.aclose()


async def _look_up(tokens: Tokens, numbers: range) -> None:
    left = iter(numbers)

    async def work() -> None:
        for number in left:
            await tokens.for_key(_user(number)).token()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def _size(path: Path) -> int:
    return path.stat().st_size


def _fill(path: Path, tokens: Tokens) -> None:
    """All the others, in one transaction: a hundred thousand that are durable one by one would take minutes."""
    common = tokens._common
    rows = []
    for number in range(100, IDENTITIES):
        slot = tokens._keyed(_user(number))._slot
        record = Record(1, _user(number), State(owner=common.owner, token=_token(number)).to_body())
        rows.append((slot.key.encode(), record.version, record.key_label.encode(), record.body))
    tokens._cache.clear()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO records (key, version, label, body) VALUES (?, ?, ?, ?)", rows)


def _user(number: int) -> str:
    return f"user-{number}"


def _token(number: int) -> Token:
    now = time.time()
    return Token(
        str(number).ljust(160, "x"),
        obtained_at=now,
        expires_at=now + 86_400,
        refresh_token=str(number).ljust(43, "y"),
        scope="reports:read",
    )
