"""The servers, each started once for the session that needs it.

Where one is missing its tests are skipped, with a warning at the end of the run; REQUIRE_INTEROP=1 turns that into a failure.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.interop import glewlwyd as glewlwyd_process
from tests.interop import redis_server as redis_process
from tests.interop.browser import browser
from tests.interop.child import running
from tests.interop.servers import Server

_HERE: Final = Path(__file__).parent
_FOLDER: Final = _HERE / "oidc_provider"
# Long enough for a test, short enough to wait for by a poll.
SHORT_TTL: Final = 2

_missing: Final = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_missing] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for server, remedy in config.stash.get(_missing, {}).items():
        terminalreporter.write_line(f"INTEROP NOT TESTED: {server} is missing. {remedy}", red=True, bold=True)


def _unavailable(request: pytest.FixtureRequest, server: str, remedy: str) -> NoReturn:
    request.config.stash.setdefault(_missing, {})[server] = remedy
    if os.environ.get("REQUIRE_INTEROP") == "1":
        pytest.fail(f"{server} is missing, and REQUIRE_INTEROP=1 forbids to go without. {remedy}", pytrace=False)
    pytest.skip(f"{server} is missing. {remedy}")


def _oidc_provider(request: pytest.FixtureRequest, *arguments: str) -> Iterator[Server]:
    node = shutil.which("node")
    if node is None:
        _unavailable(request, "oidc-provider", "Install node (20 or later) and npm, then run `make test` again.")
    if not (_FOLDER / "node_modules" / "oidc-provider").is_dir():
        _unavailable(request, "oidc-provider", f"Run `npm ci` in {_FOLDER.relative_to(_HERE.parent.parent)}.")
    with running([node, "server.mjs", *arguments], cwd=_FOLDER) as child:
        issuer = json.loads(child.first_line())["issuer"]
        # OpenID Connect Core 1.0 section 11: a refresh token needs offline_access, and that a consent.
        yield Server(
            issuer=issuer,
            browser=browser,
            login_scope="openid offline_access",
            login_parameters={"prompt": "consent"},
            drop_url=f"{issuer}/testing/destroy",
        )


@pytest.fixture(scope="session")
def oidc_provider_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running oidc-provider."""
    yield from _oidc_provider(request)


@pytest.fixture(scope="session")
def short_lived_oidc_provider_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running oidc-provider whose access tokens live for SHORT_TTL seconds."""
    yield from _oidc_provider(request, f"--access-token-ttl={SHORT_TTL}")


@pytest.fixture(scope="session")
def glewlwyd_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running glewlwyd, set up."""
    root = glewlwyd_process.place()
    if root is None:
        _unavailable(request, "glewlwyd", "On Debian run `apt-get update`, and then `make test` again.")
    with glewlwyd_process.glewlwyd(root, tmp_path_factory.mktemp("glewlwyd")) as running_server:
        yield Server(
            issuer=running_server.issuer,
            browser=running_server.browser,
            login_scope="openid reports:read",
            # What its login page adds once the user has signed in and agreed.
            login_parameters={"g_continue": ""},
        )


@pytest.fixture(scope="session")
def redis_is_there(request: pytest.FixtureRequest) -> None:
    """Whoever asks for it is skipped where there is no redis-server."""
    if redis_process.program() is None:
        _unavailable(request, "redis-server", "On Debian run `apt-get update`, and then `make test` again.")


@pytest.fixture(scope="session")
def redis_alone(redis_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_process.RedisServer]:
    """A Redis that no test stops or sets up otherwise; each takes a prefix of its own."""
    with redis_process.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def secret_service_programs(request: pytest.FixtureRequest) -> None:
    """What a Secret Service of our own takes."""
    if not all(shutil.which(program) for program in ("gnome-keyring-daemon", "dbus-run-session")):
        _unavailable(request, "gnome-keyring", "On Debian run `apt-get install gnome-keyring dbus`.")
