"""What the package does not do: block the loop, write a file, open a page, take a token out of a redirect."""

from __future__ import annotations

import ast
import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import aiohttp_oauth_middleware
from aiohttp_oauth_middleware import AuthorizationCode, InvalidGrant, LoginRequired, Tokens
from aiohttp_oauth_middleware.testing import AuthorizationServer
from aiohttp_oauth_middleware.testing.plugin import oauth_server

__all__ = ("oauth_server",)

PACKAGE = Path(aiohttp_oauth_middleware.__file__).parent

WRITES_NOTHING = """
import asyncio, os, sys

from aiohttp import ClientSession
from aiohttp_oauth_middleware import ClientCredentials, OAuth2Auth, Tokens
from aiohttp_oauth_middleware.testing import AuthorizationServer

opened = []

def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        written = set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if written and os.fsdecode(path) != os.devnull:
            opened.append(os.fsdecode(path))
    elif event in ("os.mkdir", "os.rename", "pickle.find_class", "sqlite3.connect"):
        opened.append(event)

async def main(server):
    api = server.api()
    tokens = Tokens(server.client(), ClientCredentials())
    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=api.origin)]) as session:
        for _ in range(2):
            async with session.get(api.url) as response:
                assert response.status == 200
            server.expire_all()
    await tokens.revoke()
    await tokens.aclose()

with AuthorizationServer() as server:
    sys.addaudithook(audit)
    asyncio.run(main(server))
assert not opened, opened
print("nothing was written")
"""


BLOCKS_NOTHING = """
import asyncio, sys, threading

from aiohttp import ClientSession
from aiohttp_oauth_middleware import ClientCredentials, OAuth2Auth, Tokens
from aiohttp_oauth_middleware.testing import AuthorizationServer

BLOCKING = ("open", "time.sleep", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.system", "fcntl.flock")
seen = {}

def audit(event, arguments):
    if event in BLOCKING or event == "socket.connect":
        seen.setdefault(event, set()).add(threading.current_thread().name)

async def main(server):
    server.lifetime = 1e-6
    tokens = Tokens(server.client(), ClientCredentials())
    await tokens.token()  # imports what is needed
    sys.addaudithook(audit)
    for _ in range(3):
        await asyncio.gather(*(tokens.token() for _ in range(100)))
    await asyncio.sleep(0)

with AuthorizationServer() as server:
    asyncio.run(main(server))
    assert server.counts.token_requests > 1
on_the_loop = {event for event in BLOCKING if "MainThread" in seen.get(event, ())}
assert not on_the_loop, on_the_loop
assert "MainThread" not in seen.get("socket.connect", ()), seen
print("nothing blocked")
"""


def test_F_17_a_renewal_makes_no_blocking_call_on_the_loop_of_the_user() -> None:
    ran = subprocess.run(
        [sys.executable, "-B", "-c", BLOCKS_NOTHING],
        env={"PYTHONPATH": str(PACKAGE.parent), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout == "nothing blocked\n", ran.stderr


def test_S_23_no_part_of_a_token_s_life_writes_to_disk(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-B", "-c", WRITES_NOTHING],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PACKAGE.parent), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout == "nothing was written\n", ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_S_24_no_module_opens_a_page_or_embeds_a_view() -> None:
    found = {
        (path.name, name)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.partition(".")[0] in ("webbrowser", "tkinter", "webview", "PyQt5", "PyQt6", "PySide6", "gi", "wx", "cefpython3")
    }
    assert found == set()


async def test_S_34_a_code_that_was_injected_yields_no_token_and_stores_none(oauth_server: AuthorizationServer) -> None:
    """Somebody else's code, in a callback that was started here: the verifier is this session's, so the server refuses."""
    theirs = base64.urlsafe_b64encode(hashlib.sha256(b"t" * 43).digest()).rstrip(b"=").decode()
    code = oauth_server.authorize("app", "https://app.example.com/cb", theirs, user="mallory")
    grant = AuthorizationCode(code, redirect_uri="https://app.example.com/cb", code_verifier="o" * 43)
    with pytest.raises(InvalidGrant):
        await oauth_server.client().fetch_token(grant)
    code = oauth_server.authorize("app", "https://app.example.com/cb", theirs, user="mallory")
    tokens = Tokens(
        oauth_server.client(),
        AuthorizationCode(code, redirect_uri="https://app.example.com/cb", code_verifier="o" * 43),
    )
    with pytest.raises(LoginRequired):
        await tokens.token()
    stored = tokens.keys()
    assert [key async for key in stored] == []
    assert oauth_server.counts.tokens_issued == 0


def test_S_34_no_public_name_reads_a_token_out_of_a_redirect() -> None:
    names = {name.lower() for name in aiohttp_oauth_middleware.__all__}
    assert not {name for name in names if "fragment" in name or "implicit" in name}
