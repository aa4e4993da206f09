"""The public names: which they are, that each can be had, and that none costs anything before it is used."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import aiohttp_oauth_middleware

PACKAGE = Path(aiohttp_oauth_middleware.__file__).parent

# Taking one away, or changing what it means, is a breaking change.
PUBLIC = (
    "AccessDenied",
    "AuthorizationCode",
    "BearerHeader",
    "CallbackError",
    "CallbackStore",
    "Challenge",
    "Client",
    "ClientAuthentication",
    "ClientCredentials",
    "ClientSecret",
    "ClientSecretBasic",
    "ClientSecretPost",
    "Clock",
    "ConfigurationError",
    "DiscoveryError",
    "EndpointRequest",
    "EndpointResponse",
    "ErrorResponse",
    "Event",
    "ExtensionGrant",
    "FileStore",
    "FormBody",
    "Grant",
    "Header",
    "Hook",
    "InsecureQuery",
    "InsecureTransport",
    "InvalidClient",
    "InvalidGrant",
    "KeyringBackend",
    "KeyringStore",
    "Lock",
    "Login",
    "LoginRequired",
    "MemoryStore",
    "NoAuthentication",
    "OAuth1Auth",
    "OAuth1Client",
    "OAuth1Token",
    "OAuth1Tokens",
    "OAuth2Auth",
    "OAuthError",
    "Placement",
    "ProtocolViolation",
    "Quirks",
    "Record",
    "RedisStore",
    "RefreshInDoubt",
    "RefreshToken",
    "Refusal",
    "SQLiteStore",
    "SealedStore",
    "Secret",
    "ServerMetadata",
    "SignatureMethod",
    "StateMismatch",
    "StaticToken",
    "StoreCorrupted",
    "StoreError",
    "StoreLockTimeout",
    "Token",
    "TokenResponseError",
    "TokenSource",
    "TokenStore",
    "TokenUnavailable",
    "Tokens",
    "Wanted",
    "attach",
)

FIVE = "from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, OAuth2Auth, Tokens"


def loaded_after(statement: str) -> list[str]:
    """The modules that a fresh interpreter has after *statement*, and had not before it."""
    after = "found = sorted(set(sys.modules) - before)\nimport json\nprint(json.dumps(found))"
    program = f"import sys\nbefore = set(sys.modules)\n{statement}\n{after}"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    modules: list[str] = json.loads(result.stdout.splitlines()[-1])
    return modules


def test_the_public_names_are_these() -> None:
    assert aiohttp_oauth_middleware.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_explains_itself(name: str) -> None:
    thing: Any = getattr(aiohttp_oauth_middleware, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    branch = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (alias.asname, f"{PACKAGE.name}.{node.module}")
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(name or "" for name, _ in seen) == sorted(PUBLIC)
    for name, module in seen:
        assert getattr(import_module(module), name or "") is getattr(aiohttp_oauth_middleware, name or "")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        aiohttp_oauth_middleware.no_such_name  # noqa: B018


def test_dir_lists_the_public_names() -> None:
    assert set(PUBLIC) <= set(dir(aiohttp_oauth_middleware))


def test_the_password_grant_is_kept_apart() -> None:
    # RFC 9700 section 2.4: "The resource owner password credentials grant [RFC6749] MUST NOT be used."
    assert "Password" not in dir(aiohttp_oauth_middleware)


def test_the_version_is_plain() -> None:
    assert aiohttp_oauth_middleware.__version__.count(".") == 2


def test_importing_the_package_loads_nothing_else() -> None:
    modules = loaded_after("import aiohttp_oauth_middleware")
    roots = {module.split(".")[0] for module in modules}
    assert [module for module in modules if module.startswith("aiohttp_oauth_middleware")] == ["aiohttp_oauth_middleware"]
    assert roots.isdisjoint({"aiohttp", "asyncio", "authlib", "cryptography", "joserfc", "yarl"})


def test_the_names_of_the_first_example_load_no_cryptography() -> None:
    modules = loaded_after(f"import aiohttp\nbefore = set(sys.modules)\n{FIVE}")
    roots = {module.split(".")[0] for module in modules}
    assert roots.isdisjoint({"authlib", "cryptography", "joserfc", "redis", "requests", "sqlite3"})
    ours = [module for module in modules if module.startswith("aiohttp_oauth_middleware.")]
    assert [module for module in ours if module.split(".")[1] in ("demo", "providers", "testing", "logins", "oauth1")] == []


def test_the_embedded_server_is_not_loaded_by_the_package() -> None:
    modules = loaded_after("from aiohttp_oauth_middleware import *")
    assert [module for module in modules if ".testing" in module or module.split(".")[0] in ("authlib", "redis")] == []


def test_star_import_yields_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from aiohttp_oauth_middleware import *", names)
    assert sorted(name for name in names if name != "__builtins__") == sorted(PUBLIC)
