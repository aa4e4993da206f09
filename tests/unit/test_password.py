"""The password grant: kept apart, and loud."""

from __future__ import annotations

from typing import Any

import pytest

import aiohttp_oauth_middleware
from aiohttp_oauth_middleware import ConfigurationError, Grant, Secret
from aiohttp_oauth_middleware.protocol.password import Password

quiet = pytest.mark.filterwarnings("ignore:the password grant")


def test_S_12_the_password_grant_is_not_among_the_public_names() -> None:
    assert "Password" not in aiohttp_oauth_middleware.__all__
    with pytest.raises(AttributeError):
        aiohttp_oauth_middleware.Password  # noqa: B018


def test_S_12_each_one_that_is_made_warns_where_it_is_made() -> None:
    for _ in range(2):
        with pytest.warns(UserWarning, match="RFC 9700 section 2.4 forbids it") as caught:
            Password("user", "pass")
        assert caught[0].filename == __file__


@quiet
def test_it_sends_name_and_password() -> None:
    grant = Password("user", "s3cret", scope="a", extra={"realm": "r"})
    assert isinstance(grant, Grant)
    assert (grant.grant_type, grant.unattended, grant.single_use) == ("password", True, False)
    assert grant.parameters() == [("username", "user"), ("password", Secret("s3cret")), ("scope", "a"), ("realm", "r")]


@quiet
def test_S_22_it_prints_no_password() -> None:
    assert "s3cret" not in repr(Password("user", "s3cret"))


@quiet
@pytest.mark.parametrize("username", ["", None, 5])
def test_a_user_name_must_be_there(username: Any) -> None:
    with pytest.raises(ConfigurationError, match="username must be a non-empty string"):
        Password(username, "pass")


@quiet
@pytest.mark.parametrize("password", ["", None, 5, Secret("")])
def test_a_password_must_be_there(password: Any) -> None:
    with pytest.raises(ConfigurationError, match="password must be a non-empty string"):
        Password("user", password)


@quiet
@pytest.mark.parametrize("name", ["username", "password"])
def test_S_30_extra_can_not_override_them(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"extra must not set '{name}'"):
        Password("user", "pass", extra={name: "x"})
