"""The fixtures of the test kit are not loaded by themselves."""

pytest_plugins = ["aiohttp_oauth_middleware.testing.plugin"]
