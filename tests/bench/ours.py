"""What a user of this package would write, for the other benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, ServerMetadata, Token, Tokens

__all__ = ("made_tokens", "saved")


def made_tokens(
    origin: str, *, key: str | Callable[[], str] = "default", leeway: float = 60.0, cache_size: int = 10_000
) -> Tokens:
    client = Client(ServerMetadata(token_endpoint=f"{origin}/token"), "app", ClientSecret("app-secret"))
    return Tokens(client, ClientCredentials(), key=key, leeway=leeway, cache_size=cache_size)


def saved(generation: int = 0, *, expired: bool = False) -> Token:
    """A token that the server admits, some minutes old."""
    now = time.time()
    return Token(f"g{generation}.0.".ljust(160, "x"), obtained_at=now - 600, expires_at=now - 1 if expired else now + 24 * 3600)
