"""Whose token it is: the user's key, and the callable that says it."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigurationError

__all__ = ("called_key", "check_key_argument", "checked_key")


def check_key_argument(owner: str, key: object) -> None:
    """Raise ConfigurationError unless *key* is a key, or a callable that may return one."""
    if not callable(key) and (not isinstance(key, str) or not key):
        raise ConfigurationError(f"{owner}: key must be a non-empty string, or a callable that returns one")


def checked_key(owner: str, key: object) -> str:
    """*key*, if it is one."""
    if not isinstance(key, str) or not key:
        raise ConfigurationError(f"{owner}: the key must be a non-empty string; None is never taken for the default user")
    return key


def called_key(owner: str, function: Callable[[], str]) -> str:
    """The key that *function*, such as a ContextVar's ``get``, says."""
    try:
        key = function()
    except LookupError:
        raise ConfigurationError(
            f"{owner}: key() found no key; set the ContextVar, or whatever it reads, before the request is made"
        ) from None
    return checked_key(owner, key)
