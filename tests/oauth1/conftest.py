from __future__ import annotations

from aiohttp_oauth_middleware.testing.plugin import oauth_api, oauth_server

__all__ = ("oauth_api", "oauth_server")
