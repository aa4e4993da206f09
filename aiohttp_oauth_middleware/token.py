"""The token: what the token endpoint answered, as an immutable value."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from .errors import ConfigurationError
from .value import EMPTY, Value

__all__ = ("Token",)

# RFC 6749 appendix A.12: access-token = 1*VSCHAR. The parser of token answers is stricter: it wants RFC 6750's b64token.
_VSCHAR: Final = r"[\x21-\x7e]+\Z"

_SCHEME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z"

_MEMBERS: Final = ("access_token", "token_type", "expires_at", "obtained_at", "refresh_at", "refresh_token", "scope")


class Token(Value):
    """An access token and what came with it; see :rfc:`6749#section-5.1`. It prints none of its secrets.

    :param access_token: the token itself, visible ASCII characters only.
    :param token_type: the scheme under which it is presented: ``"Bearer"``.
    :param expires_at: when it expires, in epoch seconds; None where the server doesn't say, so that only a 401 tells.
    :param obtained_at: when the request that earned it was sent, in epoch seconds.
    :param refresh_at: when the server advises to refresh it (Microsoft's ``refresh_in``), in epoch seconds.
    :param refresh_token: what earns the next one.
    :param scope: the scope that was granted, its values separated by spaces.
    :param extra: members of the answer that this package doesn't interpret (``instance_url``, ``team``, …).
    :raises ConfigurationError: where a value can't be what its name says.

    >>> Token("mF_9.B5f-4.1JqM", scope="read write").scopes == {"read", "write"}
    True
    >>> Token("mF_9.B5f-4.1JqM")
    Token(access_token=…, token_type='Bearer')
    """

    __slots__ = (
        "access_token",
        "expires_at",
        "extra",
        "obtained_at",
        "refresh_at",
        "refresh_token",
        "scope",
        "token_type",
    )
    _hidden = frozenset({"access_token", "refresh_token", "extra"})

    access_token: str
    token_type: str
    expires_at: float | None
    obtained_at: float | None
    refresh_at: float | None
    refresh_token: str | None
    scope: str | None
    extra: Mapping[str, Any]

    def __init__(
        self,
        access_token: str,
        *,
        token_type: str = "Bearer",
        expires_at: float | None = None,
        obtained_at: float | None = None,
        refresh_at: float | None = None,
        refresh_token: str | None = None,
        scope: str | None = None,
        extra: Mapping[str, Any] = EMPTY,
    ) -> None:
        if problem := _problem(access_token, token_type, refresh_token, scope, extra) or _no_moment(
            expires_at=expires_at, obtained_at=obtained_at, refresh_at=refresh_at
        ):
            del access_token, refresh_token, extra  # a traceback that shows locals shall not show these
            raise ConfigurationError(problem)
        self._freeze(
            access_token=access_token,
            token_type="Bearer" if token_type.lower() == "bearer" else token_type,
            expires_at=None if expires_at is None else float(expires_at),
            obtained_at=None if obtained_at is None else float(obtained_at),
            refresh_at=None if refresh_at is None else float(refresh_at),
            refresh_token=refresh_token,
            # One string for the tokens of a hundred thousand users, and not one for each.
            scope=sys.intern(scope) if type(scope) is str and scope else scope or None,
            extra=MappingProxyType(dict(extra)) if extra else EMPTY,
        )

    @property
    def scopes(self) -> frozenset[str]:
        """The granted scope as a set."""
        return frozenset((self.scope or "").split())

    @property
    def lifetime(self) -> float | None:
        """For how many seconds the token was good when it was obtained; None where that isn't known."""
        if self.expires_at is None or self.obtained_at is None:
            return None
        return max(0.0, self.expires_at - self.obtained_at)

    def is_expired(self, now: float | None = None) -> bool:
        """Whether the wall clock says that the token has expired; False where its lifetime is unknown.

        :param now: epoch seconds; the wall clock's if None.
        """
        return self.expires_at is not None and (time.time() if now is None else now) >= self.expires_at

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, now: float | None = None) -> Token:
        """A token from a dict of authlib's, of requests-oauthlib's, or of :meth:`to_dict`.

        ``expires_at`` is taken where it is there; otherwise ``expires_in`` counts from *now* (epoch seconds; the wall clock's
        if None), as authlib does it.

        >>> Token.from_dict({"access_token": "a", "token_type": "bearer", "expires_at": 1735689600, "scope": ["r", "w"]}).scope
        'r w'

        :raises ConfigurationError: where *data* is no token.
        """
        if not isinstance(data, Mapping) or "access_token" not in data:
            del data
            raise ConfigurationError("Token.from_dict needs a mapping with an 'access_token'")
        try:
            return cls(**_fields_of(data, time.time() if now is None else now))
        except ConfigurationError:
            del data
            raise

    def to_dict(self) -> dict[str, Any]:
        """The token as authlib and requests-oauthlib keep it: one flat dict, with the secrets in the clear."""
        fields = {name: getattr(self, name) for name in _MEMBERS}
        return {name: value for name, value in fields.items() if value is not None} | dict(self.extra)

    @classmethod
    def from_json(cls, text: str | bytes) -> Token:
        """The reverse of :meth:`to_json`. Raises ConfigurationError where *text* is no token."""
        data = _object_of(text)
        del text
        if data is None:
            raise ConfigurationError("Token.from_json: this is not a JSON object")
        try:
            return cls.from_dict(data)
        except ConfigurationError:
            del data
            raise

    def to_json(self) -> str:
        """The token as JSON, with the secrets in the clear: keep it where only you can read it."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


def _problem(access_token: object, token_type: object, refresh_token: object, scope: object, extra: object) -> str | None:
    """What can't be so among the fields of a token, without its value."""
    if not isinstance(access_token, str) or not re.match(_VSCHAR, access_token):
        return "access_token must be a non-empty string of visible ASCII characters"
    if refresh_token is not None and (not isinstance(refresh_token, str) or not re.match(_VSCHAR, refresh_token)):
        return "refresh_token must be None or a non-empty string of visible ASCII characters"
    if not isinstance(token_type, str) or not re.match(_SCHEME, token_type):
        return "token_type must be the name of an authentication scheme, such as 'Bearer'"
    if scope is not None and not isinstance(scope, str):
        return "scope must be None or a string of values separated by spaces"
    if not isinstance(extra, Mapping) or any(not isinstance(name, str) for name in extra):
        return "extra must be a mapping of names to values"
    if clash := [name for name in extra if name in _MEMBERS or name == "expires_in"]:
        return f"extra must not hold {clash[0]!r}: a token has a field for it"
    return None


def _no_moment(**moments: object) -> str | None:
    for name, moment in moments.items():
        if moment is not None and (not isinstance(moment, int | float) or finite_number(moment) is None):
            return f"{name} must be None or a finite number of epoch seconds"
    return None


def _fields_of(data: Mapping[str, Any], now: float) -> dict[str, Any]:
    expires_at, obtained_at = finite_number(data.get("expires_at")), finite_number(data.get("obtained_at"))
    lifetime = finite_number(data.get("expires_in"))
    if lifetime is not None and lifetime > 0:
        if expires_at is None:
            obtained_at = now
            expires_at = now + lifetime
        elif obtained_at is None:
            obtained_at = expires_at - lifetime
    token_type = data.get("token_type") or "Bearer"
    scope = data.get("scope")
    if isinstance(scope, list | tuple | set | frozenset):
        scope = " ".join(str(value) for value in scope)
    return {
        "access_token": data["access_token"],
        "token_type": token_type.strip() if isinstance(token_type, str) else token_type,
        "expires_at": expires_at,
        "obtained_at": obtained_at,
        "refresh_at": finite_number(data.get("refresh_at")),
        "refresh_token": data.get("refresh_token") or None,
        "scope": scope,
        "extra": {name: value for name, value in data.items() if name not in _MEMBERS and name != "expires_in"},
    }


def _object_of(text: str | bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def finite_number(value: object) -> float | None:
    """A number as servers and other libraries write it (3600, 3600.5, "3600"), or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and len(value) > 32):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
