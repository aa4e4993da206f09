"""Token credentials, and the temporary ones that lead to them, as an immutable value."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ..errors import ConfigurationError
from ..token import finite_number
from ..value import EMPTY, Value

__all__ = ("OAuth1Token",)

_MEMBERS: Final = ("oauth_token", "oauth_token_secret", "oauth_session_handle", "expires_at", "session_expires_at")
_LIFETIMES: Final = {"expires_at": "oauth_expires_in", "session_expires_at": "oauth_authorization_expires_in"}
_NAMES: Final = (*_MEMBERS, *_LIFETIMES.values())


class OAuth1Token(Value):
    """A token and its shared secret, temporary (:rfc:`5849#section-2.1`) or final (:rfc:`5849#section-2.3`). It prints neither.

    :param oauth_token: the token's identifier.
    :param oauth_token_secret: the secret that signs for it; empty where the server gives none.
    :param oauth_session_handle: what renews it, at servers with the Session extension (Yahoo, Xero).
    :param expires_at: when it expires, in epoch seconds; None where the server doesn't say.
    :param session_expires_at: when it can be renewed no more, likewise.
    :param extra: what else the server said (``user_id``, ``screen_name``, ``oauth_callback_confirmed``, …).
    :raises ConfigurationError: where a value can't be what its name says.

    >>> OAuth1Token("hh5s93j4hdidpola", "hdhd0244k9j7ao03")
    OAuth1Token(oauth_token=…, oauth_token_secret=…)
    """

    __slots__ = ("expires_at", "extra", "oauth_session_handle", "oauth_token", "oauth_token_secret", "session_expires_at")
    _hidden = frozenset({"extra", "oauth_session_handle", "oauth_token", "oauth_token_secret"})

    oauth_token: str
    oauth_token_secret: str
    oauth_session_handle: str | None
    expires_at: float | None
    session_expires_at: float | None
    extra: Mapping[str, Any]

    def __init__(
        self,
        oauth_token: str,
        oauth_token_secret: str = "",
        *,
        oauth_session_handle: str | None = None,
        expires_at: float | None = None,
        session_expires_at: float | None = None,
        extra: Mapping[str, Any] = EMPTY,
    ) -> None:
        problem = _problem(oauth_token, oauth_token_secret, oauth_session_handle, extra)
        for name, moment in (("expires_at", expires_at), ("session_expires_at", session_expires_at)):
            if moment is not None and (not isinstance(moment, int | float) or finite_number(moment) is None):
                problem = f"{name} must be None or a finite number of epoch seconds"
        if problem is not None:
            del oauth_token, oauth_token_secret, oauth_session_handle, extra  # a traceback with locals shall not show these
            raise ConfigurationError(f"OAuth1Token: {problem}")
        self._freeze(
            oauth_token=oauth_token,
            oauth_token_secret=oauth_token_secret,
            oauth_session_handle=oauth_session_handle or None,
            expires_at=None if expires_at is None else float(expires_at),
            session_expires_at=None if session_expires_at is None else float(session_expires_at),
            extra=MappingProxyType(dict(extra)) if extra else EMPTY,
        )

    def is_expired(self, now: float | None = None) -> bool:
        """Whether the wall clock says that it has expired; False where its lifetime is unknown.

        :param now: epoch seconds; the wall clock's if None.
        """
        return self.expires_at is not None and (time.time() if now is None else now) >= self.expires_at

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, now: float | None = None) -> OAuth1Token:
        """A token from the dict of a token response, of authlib's or requests-oauthlib's, or of :meth:`to_dict`.

        :param now: epoch seconds from which ``oauth_expires_in`` counts; the wall clock's if None.
        :raises ConfigurationError: where *data* is no token.
        """
        if not isinstance(data, Mapping) or "oauth_token" not in data:
            del data
            raise ConfigurationError("OAuth1Token.from_dict needs a mapping with an 'oauth_token'")
        start = time.time() if now is None else now
        fields: dict[str, Any] = {name: data.get(name) for name in _MEMBERS}
        for moment, lifetime in _LIFETIMES.items():
            seconds = finite_number(data.get(lifetime))
            fields[moment] = finite_number(fields[moment])
            if fields[moment] is None and seconds is not None and seconds > 0:
                fields[moment] = start + seconds
        fields["oauth_token_secret"] = fields["oauth_token_secret"] or ""
        try:
            return cls(**fields, extra={name: value for name, value in data.items() if name not in _NAMES})
        finally:
            fields.clear()
            del data

    def to_dict(self) -> dict[str, Any]:
        """The token as authlib and requests-oauthlib keep it: one flat dict, with the secrets in the clear."""
        fields = {name: getattr(self, name) for name in _MEMBERS}
        return {name: value for name, value in fields.items() if value is not None} | dict(self.extra)

    @classmethod
    def from_json(cls, text: str | bytes) -> OAuth1Token:
        """The reverse of :meth:`to_json`. Raises ConfigurationError where *text* is no token."""
        try:
            data = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            data = None
        finally:
            del text
        try:
            return cls.from_dict(data)
        finally:
            del data

    def to_json(self) -> str:
        """The token as JSON, with the secrets in the clear: keep it where only you can read it."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


def _problem(token: object, secret: object, handle: object, extra: object) -> str | None:
    if not isinstance(token, str) or not token or not token.isprintable():
        return "oauth_token must be a non-empty string of printable characters"
    if not isinstance(secret, str) or not secret.isprintable():
        return "oauth_token_secret must be a string of printable characters"
    if handle is not None and (not isinstance(handle, str) or not handle.isprintable()):
        return "oauth_session_handle must be None or a string of printable characters"
    if not isinstance(extra, Mapping) or any(not isinstance(name, str) for name in extra):
        return "extra must be a mapping of names to values"
    if clash := [name for name in extra if name in _NAMES]:
        return f"extra must not hold {clash[0]!r}: a token has a field for it"
    return None
