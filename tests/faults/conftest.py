from __future__ import annotations

from aiohttp_oauth_middleware.testing.plugin import oauth_api, oauth_server
from tests.interop.conftest import redis_is_there

__all__ = ("oauth_api", "oauth_server", "redis_is_there")
