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

from tests.interop import glewlwyd as glewlwyd_server
from tests.interop.child import running

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


def _oidc_provider(request: pytest.FixtureRequest, *arguments: str) -> Iterator[str]:
    node = shutil.which("node")
    if node is None:
        _unavailable(request, "oidc-provider", "Install node (20 or later) and npm, then run `make test` again.")
    if not (_FOLDER / "node_modules" / "oidc-provider").is_dir():
        _unavailable(request, "oidc-provider", f"Run `npm ci` in {_FOLDER.relative_to(_HERE.parent.parent)}.")
    with running([node, "server.mjs", *arguments], cwd=_FOLDER) as child:
        yield json.loads(child.first_line())["issuer"]


@pytest.fixture(scope="session")
def oidc_provider(request: pytest.FixtureRequest) -> Iterator[str]:
    """The issuer of a running oidc-provider."""
    yield from _oidc_provider(request)


@pytest.fixture(scope="session")
def short_lived_oidc_provider(request: pytest.FixtureRequest) -> Iterator[str]:
    """The issuer of a running oidc-provider whose access tokens live for SHORT_TTL seconds."""
    yield from _oidc_provider(request, f"--access-token-ttl={SHORT_TTL}")


@pytest.fixture(scope="session")
def glewlwyd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[glewlwyd_server.Glewlwyd]:
    """A running glewlwyd, set up."""
    if shutil.which("glewlwyd") is None or not glewlwyd_server.SCHEMA.is_file():
        _unavailable(request, "glewlwyd", "On Debian: `apt-get install glewlwyd dbconfig-sqlite3`.")
    with glewlwyd_server.glewlwyd(tmp_path_factory.mktemp("glewlwyd")) as server:
        yield server
