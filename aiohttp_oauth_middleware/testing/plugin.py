"""Pytest fixtures: say ``pytest_plugins = ["aiohttp_oauth_middleware.testing.plugin"]`` in your ``conftest.py``.

They are plain, synchronous fixtures, for the server has a thread of its own: no plugin for asyncio is needed, and any will do.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .oauth1.server import OAuth1Server
from .resource import EchoAPI
from .server import AuthorizationServer

__all__ = ("oauth1_api", "oauth1_server", "oauth_api", "oauth_server")


@pytest.fixture
def oauth_server() -> Iterator[AuthorizationServer]:
    """An authorization server that runs for the length of the test."""
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def oauth_api(oauth_server: AuthorizationServer) -> EchoAPI:
    """An API that takes the tokens of ``oauth_server``, of any scope."""
    return oauth_server.api()


@pytest.fixture
def oauth1_server(oauth_server: AuthorizationServer) -> OAuth1Server:
    """The OAuth 1.0a side of ``oauth_server``."""
    return oauth_server.oauth1


@pytest.fixture
def oauth1_api(oauth1_server: OAuth1Server) -> EchoAPI:
    """An API that takes requests which are signed with the tokens of ``oauth1_server``."""
    return oauth1_server.api()
