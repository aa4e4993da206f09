"""What the documentation shows is run, against the embedded server.

The code in ``docs/code`` names servers that don't exist; here their URLs are replaced by those of the embedded ones.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

import aiohttp_oauth_middleware as package
from aiohttp_oauth_middleware import InvalidClient, OAuth2Auth, SealedStore, StoreError, Tokens
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
CODE: Final = DOCS / "code"


class Stage:
    """The embedded servers in place of those that the documentation names."""

    def __init__(self, server: AuthorizationServer) -> None:
        self.server = server
        self.api: EchoAPI = server.api(scope="reports:read")
        self.orders: EchoAPI = server.api(scope="orders:read")

    def load(self, name: str, **replaced: str) -> Any:
        """The module of that file. It is Any, for each has names of its own."""
        source = (CODE / name).read_text(encoding="utf-8")
        places = {
            "https://login.example.com": self.server.issuer,
            "https://api.example.com": self.api.origin,
            "https://orders.example.com": self.orders.origin,
            "http://proxy.example.com:3128": self.server.issuer,
        }
        for shown, real in (places | replaced).items():
            source = source.replace(shown, real)
        module = ModuleType(Path(name).stem)
        exec(compile(source, str(CODE / name), "exec"), vars(module))
        return module


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    secret_file = tmp_path / "secret"
    secret_file.write_text("reports-secret\n", encoding="utf-8")
    monkeypatch.setenv("REPORTS_SECRET", "reports-secret")
    monkeypatch.setenv("REPORTS_SECRET_FILE", str(secret_file))
    monkeypatch.setenv("PORTAL_SECRET", "portal-secret")
    monkeypatch.setenv("GITHUB_TOKEN", "a-personal-token")
    with AuthorizationServer() as server:
        for client in ("reports", "portal"):
            server.register(client, f"{client}-secret", authentication=("client_secret_basic", "client_secret_post"))
        yield Stage(server)


async def test_first_example(stage: Stage) -> None:
    await stage.load("first.py").main()
    assert [request.path for request in stage.api.requests] == ["/reports"]
    assert stage.api.answered == {200: 1}
    assert stage.server.requests[0].parameters["scope"] == ("reports:read",)


def test_readme_begins_with_the_first_example() -> None:
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    found = re.search(r"\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", readme)
    assert found is not None
    shown = [line.strip() for line in textwrap.dedent(found[1]).splitlines() if line.strip()]
    code = [line.strip() for line in (CODE / "first.py").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert [line for line in code if line in shown] == shown


@pytest.mark.parametrize("page", ["README.rst", "CONTRIBUTING.rst"])
def test_links_to_files_of_the_project_lead_somewhere(page: str) -> None:
    links = re.findall(r"<([^<>:\s]+\.(?:rst|md))>`__", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).is_file()] == []


async def test_tutorial_prints_what_the_page_says(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    await stage.load("tutorial.py").main()
    assert capsys.readouterr().out == (CODE / "tutorial.txt").read_text(encoding="utf-8")


async def test_startup_warms_up_and_answers_health_checks(stage: Stage) -> None:
    startup = stage.load("startup.py")
    async with TestClient(TestServer(startup.make_app())) as browser:
        assert stage.server.counts.token_requests == 1
        async with browser.get("/health") as response:
            assert (response.status, await response.json()) == (200, {"token": "ok"})
        async with browser.get("/reports") as response:
            assert (await response.json())["path"] == "/reports"
        assert stage.server.counts.token_requests == 1
        await startup.tokens.forget()
        stage.server.fail_next(503, retry_after=120)
        async with browser.get("/health") as response:
            assert response.status == 503
            assert await response.json() == {"token": "TokenUnavailable", "passing": True}
            assert 0 < int(response.headers["Retry-After"]) <= 120
    assert startup.counters["refresh_succeeded"] == 1
    assert startup.counters["cooldown_entered"] == 1


async def test_startup_goes_on_without_a_server_and_stops_at_a_wrong_secret(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.server.fail_next(503, retry_after=120)
    async with TestClient(TestServer(stage.load("startup.py").make_app())):
        pass
    monkeypatch.setenv("REPORTS_SECRET", "wrong")
    runner = web.AppRunner(stage.load("startup.py").make_app())
    with pytest.raises(InvalidClient):
        await runner.setup()
    await runner.cleanup()


async def test_libraries(stage: Stage) -> None:
    libraries = stage.load("libraries.py")
    await libraries.main()
    assert stage.api.answered == {200: 4}
    assert stage.server.counts.token_requests == 1
    stage.server.revoke_all()
    await libraries.with_token(libraries.call)
    assert stage.api.answered == {200: 5, 401: 1}
    assert stage.server.counts.token_requests == 2


async def test_a_library_without_middleware_gets_its_own_error_where_nothing_helps(stage: Stage) -> None:
    libraries = stage.load("libraries.py")
    stage.api.answer_next(404)
    with pytest.raises(OSError, match="404"):
        await libraries.with_token(libraries.call)


async def test_middlewares(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    middlewares = stage.load("middlewares.py")
    await middlewares.two_apis()
    assert [api.answered for api in (stage.api, stage.orders)] == [{200: 1}, {200: 1}]
    assert stage.api.requests[0].authorization != stage.orders.requests[0].authorization
    stage.api.answer_next(503)
    await middlewares.in_order()
    assert stage.api.answered == {200: 2, 503: 1}
    await middlewares.for_one_request()
    assert stage.api.answered == {200: 3, 503: 1}
    await middlewares.opting_out()
    assert stage.api.answered == {200: 3, 401: 2, 503: 1}
    assert stage.api.requests[-2].authorization == "Bearer a-token-of-my-own"
    assert stage.api.requests[-1].authorization is None


async def test_middlewares_main(stage: Stage) -> None:
    await stage.load("middlewares.py").main()


async def test_stores(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN_KEY", "OLD_TOKEN_KEY"):
        monkeypatch.setenv(name, SealedStore.generate_key())
    places = {"~/.config/my-tool/tokens": str(tmp_path / "files"), "/var/lib/portal": str(tmp_path)}
    stores = stage.load("stores.py", **places)
    row: dict[str, object] = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}
    kept = [
        stores.tokens_in(make())
        for make in (
            stores.of_a_command_line_tool,
            stores.of_many_users_on_one_machine,
            stores.sealed,
            stores.of_your_own_database,
        )
    ]
    for tokens in kept:
        await tokens.forget(key="alice")
        await stores.from_authlib(tokens, {"alice": row})
        assert (await tokens.for_key("alice").token()).refresh_token == "r"
    (text,) = stores.ROWS.values()
    assert "schema" in text
    stores.ROWS.clear()
    by_callback = stores.tokens_in(stores.of_your_own_database())
    with contextlib.suppress(StoreError):  # its keys can't be listed
        await stores.move(by_callback, kept[0])
    await stores.move(kept[0], by_callback)
    assert (await by_callback.for_key("alice").token()).access_token == "a"
    for tokens in (*kept, by_callback):
        await tokens.aclose()
    # Where they are shown to work: tests/interop.
    assert repr(stores.of_many_machines()).startswith("<RedisStore")
    assert repr(stores.of_a_desktop_program()).startswith("KeyringStore")


async def test_users_sign_in_read_and_sign_out(stage: Stage) -> None:
    users = stage.load("users.py")
    async with TestClient(TestServer(users.make_app())) as browser, ClientSession() as elsewhere:
        async with browser.get("/reports", allow_redirects=False) as response:
            assert response.headers["Location"] == "/login"
        async with browser.get("/login", allow_redirects=False) as response:
            consent = response.headers["Location"]
        async with elsewhere.get(consent, allow_redirects=False) as response:
            back = URL(response.headers["Location"])
        assert back.host == "portal.example.com"
        async with browser.get("/callback", params=back.query) as response:
            assert response.status == 200
            assert (await response.json())["user"] == "alice"
        async with browser.get("/callback", params=back.query) as response:
            assert response.status == 400
        async with browser.get("/logout") as response:
            assert response.status == 200
        assert stage.server.counts.revocations == 2
        await users.every_night()
        async with browser.get("/reports", allow_redirects=False) as response:
            assert response.headers["Location"] == "/login"


async def test_users_whose_sign_in_was_revoked_are_asked_to_sign_in(stage: Stage) -> None:
    users = stage.load("users.py")
    await users.users.save(stage.server.issue("portal", "reports:read"), key="alice")
    users.SIGNED_IN["a-session"] = "alice"
    async with TestClient(TestServer(users.make_app()), cookies={"session": "a-session"}) as browser:
        async with browser.get("/reports") as response:
            assert response.status == 200
        stage.server.revoke_all(refresh_tokens=True)
        async with browser.get("/reports", allow_redirects=False) as response:
            assert response.headers["Location"] == "/login"


async def test_on_behalf_of_each_user(stage: Stage) -> None:
    issued = stage.server.issue("portal", "reports:read", user="alice", refresh_token=False)
    stage.server.answer_next(json.dumps({"access_token": issued.access_token, "expires_in": 3600}).encode())
    await stage.load("behalf.py").main()
    assert stage.server.requests[0].grant_type == "urn:ietf:params:oauth:grant-type:token-exchange"
    assert set(stage.server.requests[0].digests) == {"subject_token"}
    assert stage.api.answered == {200: 1}


async def test_network(stage: Stage) -> None:
    await stage.load("network.py").main()
    assert stage.server.counts.tokens_issued == 2


async def test_quirks(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    await stage.load("quirks.py").main()
    assert capsys.readouterr().out.split() == ["200", "200", "200"]
    assert "appid" in stage.server.requests[3].names


async def test_failures(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = stage.load("failures.py")
    await failures.main()
    async with ClientSession(middlewares=[OAuth2Auth(failures.tokens, origins=stage.api.origin)]) as session:
        stage.api.answer_next(418)
        assert await failures.fetch(session) == "the API says 418"
        await failures.tokens.forget()
        stage.server.fail_next(503, retry_after=30)
        assert await failures.fetch(session) == "please try again in 30 s"
    async with ClientSession(middlewares=[OAuth2Auth(Tokens(failures.client), origins=stage.api.origin)]) as session:
        assert await failures.fetch(session) == "please sign in"
    monkeypatch.setenv("REPORTS_SECRET", "wrong")
    failures = stage.load("failures.py")
    async with ClientSession(middlewares=[OAuth2Auth(failures.tokens, origins=stage.api.origin)]) as session:
        assert await failures.fetch(session) == "sorry, this is out of order"


def test_recipe_for_tests_is_a_test_suite_that_passes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0", str(CODE / "testing")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


@pytest.mark.parametrize("name", [one.name for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")])
def test_examples_in_docstrings(name: str) -> None:
    if not name.endswith(".__main__"):
        assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_snippet_is_shown_and_run() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.rst"))
    here = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_docs*.py"))
    for path in CODE.rglob("*.py"):
        name = path.relative_to(CODE).as_posix()
        assert f"code/{name}" in pages, f"{name} is shown nowhere"
        assert f'"{name}"' in here or name.startswith("testing/"), f"{name} isn't run"
