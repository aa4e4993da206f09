"""Pytest fixtures: say ``pytest_plugins = ["aiohttp_oauth_middleware.testing.plugin"]`` in your ``conftest.py``.

They are plain, synchronous fixtures, for the server has a thread of its own: no plugin for asyncio is needed, and any will do.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .resource import EchoAPI
from .server import AuthorizationServer

__all__ = ("oauth_api", "oauth_server")


@pytest.fixture
def oauth_server() -> Iterator[AuthorizationServer]:
    """An authorization server that runs for the length of the test."""
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def oauth_api(oauth_server: AuthorizationServer) -> EchoAPI:
    """An API that takes the tokens of ``oauth_server``, of any scope."""
    return oauth_server.api()
