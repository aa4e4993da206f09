"""Bytes for each identity."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import AsyncIterator

from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, Quirks, Record, ServerMetadata, Token, Tokens
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.protocol.token_response import parse_token_response
from aiohttp_oauth_middleware.stores.memory import LocalLocks
from aiohttp_oauth_middleware.stores.store import Lock

from .ours import made_tokens
from .report import Report, Result

__all__ = ("measure_memory", "traced", "tracemalloc_start", "tracemalloc_stop")

SECTION = "Memory; access token of 160 characters, refresh token of 43"
IDENTITIES = 100_000
SCOPE = "reports:read"
QUIRKS = Quirks()


class _NoStore(LocalLocks):
    """Keeps nothing, so that what is counted is memory's cache alone."""

    async def load(self, key: str) -> Record | None:
        return None

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        return True

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return True

    async def keys(self) -> AsyncIterator[str]:
        for key in list[str]():
            yield key

    async def aclose(self) -> None:
        pass


async def measure_memory(report: Report) -> None:
    tokens: list[Token | None] = [None] * IDENTITIES  # made before, for it is no part of a token
    began = tracemalloc_start()
    for number in range(IDENTITIES):
        tokens[number] = _token(number)
    each = traced(began) / IDENTITIES
    report.add(Result(SECTION, "a token with its strings", each, "bytes", goal=450))
    del tokens

    began = tracemalloc_start()
    client = Client(ServerMetadata(token_endpoint="https://as.example.com/token"), "app", ClientSecret("app-secret"))
    cached = Tokens(client, ClientCredentials(), store=_NoStore(), cache_size=IDENTITIES)
    for number in range(IDENTITIES):
        await cached.save(_token(number), key=f"user-{number}")
    each = traced(began) / IDENTITIES
    report.add(Result(SECTION, "a cached identity, one of 100,000", each, "bytes", goal=1024))
    del cached

    began = tracemalloc_start()
    stored = made_tokens("https://as.example.com", cache_size=1)
    for number in range(IDENTITIES // 10):
        await stored.save(_token(number), key=f"user-{number}")
    report.add(Result(SECTION, "in a MemoryStore besides", traced(began) / (IDENTITIES // 10), "bytes"))
    tracemalloc_stop()


def tracemalloc_start() -> int:
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start(1)
    return tracemalloc.get_traced_memory()[0]


def traced(before: int) -> int:
    """Bytes that are in use now and were not at *before*."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


def tracemalloc_stop() -> None:
    tracemalloc.stop()


def _token(number: int) -> Token:
    text = json.dumps(
        {
            "access_token": str(number).ljust(160, "x"),
            "token_type": "Bearer",
            "expires_in": 3600,
            "refresh_token": str(number).ljust(43, "y"),
            "scope": SCOPE,
        }
    )
    answer = EndpointResponse(200, {"Content-Type": "application/json"}, text.encode())
    return parse_token_response(answer, sent_at=time.time(), scope=SCOPE, quirks=QUIRKS)
