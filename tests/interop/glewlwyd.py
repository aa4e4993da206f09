"""Glewlwyd, the OpenID provider written in C that Debian packages, with a database and a configuration made for the occasion.

It is set up through its administration API, as its administrator would: scopes, one instance of its OpenID plugin, clients.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import secrets
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession

from tests.interop.browser import REDIRECT_URI, browser
from tests.interop.child import Child, free_port, running
from tests.interop.servers import SECRET

# Where unpack puts it, and where the system does.
PLACES: Final = (Path(__file__).parent / ".glewlwyd", Path("/"))
PROGRAM: Final = "usr/bin/glewlwyd"
MODULES: Final = "usr/lib/glewlwyd"
SCHEMA: Final = "usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
# What the schema creates.
ADMINISTRATOR: Final = {"username": "admin", "password": "password"}

_CONFIGURATION: Final = """
port={port}
bind_address="127.0.0.1"
external_url="{url}"
login_url="login.html"
api_prefix="api"
log_mode="console"
log_level="WARNING"
cookie_secure=0
session_expiration=3600
session_key="GLEWLWYD2_SESSION_ID"
admin_session_authentication="cookie"
profile_session_authentication="cookie"
login_api_enabled=true
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="{modules}/user"
client_module_path="{modules}/client"
user_auth_scheme_module_path="{modules}/scheme"
plugin_module_path="{modules}/plugin"
use_secure_connection=false
secure_connection_key_file="not-read"
secure_connection_pem_file="not-read"
secure_connection_ca_file="not-read"
hash_algorithm="SHA512"
database =
{{
  type = "sqlite3"
  path = "{database}"
}};
"""


class Glewlwyd:
    """A running server; its administrator is signed in, and is the user who consents."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.issuer = f"{url}/api/oidc"
        self._cookies = http.cookiejar.CookieJar()
        # A proxy of the environment is not for loopback.
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies)
        ).open

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to its own API, signed in as whoever signed in before. Raises HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", data, {"Content-Type": "application/json"} if data else {}, method=method
        )
        with self._open(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None

    def browser(self) -> ClientSession:
        """The browser of the user who signed in."""
        return browser(self.url, {cookie.name: cookie.value or "" for cookie in self._cookies})

    def set_up(self, *, access_token_ttl: int) -> None:
        """Scopes, the OpenID plugin, and the clients that the tests use; the administrator is the user who consents."""
        self.call("POST", "api/auth/", ADMINISTRATOR)
        scopes = ("reports:read", "reports:write")
        for scope in scopes:
            self.call("POST", "api/scope/", {"name": scope, "display_name": scope, "password_required": False, "scheme": {}})
        self.call(
            "PUT", "api/user/admin", {"name": "Admin", "scope": ["g_admin", "g_profile", "openid", *scopes], "enabled": True}
        )
        self.call(
            "POST",
            "api/mod/plugin/",
            {
                "module": "oidc",
                "name": "oidc",
                "display_name": "oidc",
                "enabled": True,
                "parameters": {
                    "iss": self.issuer,
                    "jwt-type": "sha",
                    "jwt-key-size": "256",
                    "key": secrets.token_hex(32),
                    "code-duration": 60,
                    "access-token-duration": access_token_ttl,
                    "refresh-token-duration": 3600,
                    "refresh-token-rolling": False,
                    "refresh-token-one-use": "always",
                    "allow-non-oidc": True,
                    "auth-type-code-enabled": True,
                    "auth-type-code-revoke-replayed": True,
                    "auth-type-client-enabled": True,
                    "auth-type-refresh-enabled": True,
                    "auth-type-implicit-enabled": False,
                    "auth-type-password-enabled": False,
                    "pkce-allowed": True,
                    "pkce-required": True,
                    "introspection-revocation-allowed": True,
                    "introspection-revocation-allow-target-client": True,
                },
            },
        )
        machine = {"authorization_type": ["client_credentials"], "scope": list(scopes)}
        web = {
            "authorization_type": ["code", "refresh_token", "client_credentials"],
            "scope": [*scopes],
            "redirect_uri": [REDIRECT_URI],
        }
        secret = {"confidential": True, "client_secret": SECRET}
        for client_id, methods, kind in (
            ("machine-basic", ["client_secret_basic"], secret | machine),
            ("machine-post", ["client_secret_post"], secret | machine),
            ("web-basic", ["client_secret_basic"], secret | web),
            ("public", ["none"], {"confidential": False} | web | {"authorization_type": ["code", "refresh_token"]}),
        ):
            self.call(
                "POST", "api/client/", {"client_id": client_id, "token_endpoint_auth_method": methods, "enabled": True} | kind
            )
            if "redirect_uri" in kind:
                self.call("PUT", f"api/auth/grant/{client_id}", {"scope": " ".join(["openid", *scopes])})


def _answers(child: Child, server: Glewlwyd) -> bool:
    """Whether it came up; False where it ended, as it does when another process took the port first."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            return False
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            server.call("GET", "config")
            return True
        time.sleep(0.05)
    raise child.failure("did not answer within 30 seconds")


def place() -> Path | None:
    """The root under which glewlwyd lies, or None where it isn't there."""
    return next((root for root in PLACES if (root / PROGRAM).is_file() and (root / SCHEMA).is_file()), None)


@contextlib.contextmanager
def glewlwyd(root: Path, folder: Path, *, access_token_ttl: int = 3600) -> Iterator[Glewlwyd]:
    """The server of *root*, with its data in *folder*, for as long as the block lasts."""
    database = folder / "glewlwyd.sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript((root / SCHEMA).read_text(encoding="utf-8"))
        connection.commit()
    libraries = ":".join(str(found) for found in root.glob("**/lib/*-linux-gnu*")) if root != Path("/") else ""
    for _ in range(5):
        # It can't take port 0, so a port that was free a moment ago has to do.
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        configuration = folder / "glewlwyd.conf"
        configuration.write_text(
            _CONFIGURATION.format(port=port, url=url, modules=root / MODULES, database=database), encoding="utf-8"
        )
        command = [str(root / PROGRAM), f"--config-file={configuration}"]
        with running(command, cwd=folder, environment={"LD_LIBRARY_PATH": libraries}) as child:
            server = Glewlwyd(url)
            if _answers(child, server):
                server.set_up(access_token_ttl=access_token_ttl)
                yield server
                return
    raise RuntimeError("glewlwyd ended five times before it answered")
