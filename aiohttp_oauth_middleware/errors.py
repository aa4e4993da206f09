"""Every error that this package raises.

::

    OAuthError (aiohttp.ClientError)       .retryable .retry_after .key_id
    ├── ConfigurationError (ValueError)    the caller's mistake, raised before any I/O
    │   └── InsecureTransport
    ├── ProtocolViolation                  the peer broke a MUST; .rule = "RFC 6749 section 5.1"
    │   ├── DiscoveryError
    │   ├── TokenResponseError
    │   └── CallbackError
    │       └── StateMismatch
    ├── ErrorResponse                      the server said no: .error .error_description .error_uri .status
    │   ├── InvalidGrant
    │   ├── InvalidClient
    │   └── AccessDenied
    ├── TokenUnavailable                   transient: .retry_after
    ├── LoginRequired                      nothing stored, nothing unattended can obtain it
    │   └── RefreshInDoubt                 refused after an ambiguous answer may have spent the refresh token
    └── StoreError
        ├── StoreCorrupted
        └── StoreLockTimeout

There is a class where a caller branches, and ``.error`` elsewhere. A message names the endpoint, the rule and the remedy;
never a token, code, secret, state or body.

The base is :class:`aiohttp.ClientError`, so code that already catches that keeps working, but never one of the subclasses
(``ClientOSError``, ``ServerDisconnectedError``) on which aiohttp sends a request a second time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Self

import aiohttp

__all__ = (
    "AccessDenied",
    "CallbackError",
    "ConfigurationError",
    "DiscoveryError",
    "ErrorResponse",
    "InsecureTransport",
    "InvalidClient",
    "InvalidGrant",
    "LoginRequired",
    "OAuthError",
    "ProtocolViolation",
    "RefreshInDoubt",
    "StateMismatch",
    "StoreCorrupted",
    "StoreError",
    "StoreLockTimeout",
    "TokenResponseError",
    "TokenUnavailable",
)

# RFC 6749 section 5.2: error and error_description MUST NOT include characters outside %x20-21 / %x23-5B / %x5D-7E.
# A pattern is compiled at its first use: 0.2 ms that an import need not cost.
_NOT_ALLOWED = r"[^\x20\x21\x23-\x5b\x5d-\x7e]+"


class OAuthError(aiohttp.ClientError):
    """The root of this package's errors.

    Every instance is picklable and holds no secret. Where several callers waited for one request, each gets a copy of its
    own, with its own traceback and the same ``__cause__``.
    """

    retryable: bool = False
    """Whether the same call may succeed later without anybody doing anything."""

    retry_after: float | None = None
    """Seconds to wait before that, where it is known."""

    key_id: str | None = None
    """Which user's token it was about, as the first 8 hexadecimal digits of the SHA-256 of the key."""

    maybe_spent: bool = False
    """Whether the refresh token or code that was sent may have been spent, although no usable answer came back."""

    def __init__(self, message: str = "", *, retry_after: float | None = None, maybe_spent: bool | None = None) -> None:
        super().__init__(message)
        if retry_after is not None:
            self.retry_after = retry_after
        if maybe_spent is not None:
            self.maybe_spent = maybe_spent

    def about(self, key: str) -> Self:
        """The same error, marked with the hash of the key that it is about."""
        self.key_id = key_id(key)
        return self

    def again(self) -> Self:
        """A copy to raise elsewhere: no traceback yet, the same cause."""
        fields = dict(vars(self))
        if "__notes__" in fields:
            fields["__notes__"] = list(fields["__notes__"])
        twin = _restore(type(self), str(self), fields)
        twin.__cause__ = self.__cause__
        twin.__suppress_context__ = True
        return twin  # type: ignore[return-value]

    def bare(self) -> Self:
        """The same error without the way it came: the frames on it had what was sent and received in their locals."""
        self.__context__ = None
        return self.with_traceback(None)

    def __reduce__(self) -> Any:
        return _restore, (type(self), str(self), dict(vars(self)))


def _restore(cls: type[OAuthError], message: str, fields: dict[str, Any]) -> OAuthError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    vars(error).update(fields)
    return error


class ConfigurationError(OAuthError, ValueError):
    """The caller's mistake, raised before any I/O. The message names the argument and the remedy."""


class InsecureTransport(ConfigurationError):
    """A credential would have travelled over plain http to a host that is not this machine."""


class ProtocolViolation(OAuthError):
    """The peer broke a MUST.

    :ivar rule: where that MUST stands, as in ``"RFC 9207 section 2.4"``.
    """

    rule: str = ""

    def __init__(self, message: str = "", *, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule


class DiscoveryError(ProtocolViolation):
    """The server's metadata is missing, unreadable, or names another issuer."""


class TokenResponseError(ProtocolViolation):
    """The answer of an endpoint makes no sense; ``status`` is its HTTP status."""

    maybe_spent = True
    status: int = 0

    def __init__(self, message: str = "", *, rule: str = "RFC 6749 section 5.1", status: int = 0) -> None:
        super().__init__(message, rule=rule)
        self.status = status


class CallbackError(ProtocolViolation):
    """What came to the callback is no answer to the request that was made."""


class StateMismatch(CallbackError):
    """It answers another request than the one that is pending: perhaps somebody else's login."""


class ErrorResponse(OAuthError):
    """The server said no, in the words of :rfc:`6749#section-5.2`.

    :ivar error: the server's error code, cleaned of control characters and capped.
    :ivar error_description: the server's text, cleaned and capped, with the values that we sent taken out. It never stands in
        the message, for it is the server's.
    :ivar error_uri: likewise.
    :ivar status: the HTTP status.
    """

    error: str = ""
    error_description: str | None = None
    error_uri: str | None = None
    status: int = 0

    def __init__(
        self,
        message: str = "",
        *,
        error: str = "",
        error_description: str | None = None,
        error_uri: str | None = None,
        status: int = 0,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.error = error
        self.error_description = error_description
        self.error_uri = error_uri
        self.status = status
        self.retryable = retryable


class InvalidGrant(ErrorResponse):
    """The code, the refresh token or the assertion is invalid, expired, revoked, or was used before."""


class InvalidClient(ErrorResponse):
    """Client authentication failed: the ``client_id``, the secret, or the method is not what the server expects."""


class AccessDenied(ErrorResponse):
    """The resource owner or the server denied the request."""


class TokenUnavailable(OAuthError):
    """No token can be had now, and the reason is passing: try again in ``retry_after`` seconds."""

    retryable = True


class LoginRequired(OAuthError):
    """Nothing is stored, and nothing unattended can obtain a token: somebody has to sign in."""


class RefreshInDoubt(LoginRequired):
    """The refresh token was refused after an earlier answer to it had been lost.

    The server may have rotated it in that answer; then only a new sign-in helps.

    :ivar since: when that earlier request was sent, in epoch seconds.
    :ivar process: which process sent it.
    """

    since: float | None = None
    process: str | None = None


class StoreError(OAuthError):
    """The token store failed. The refresh token was not spent, unless the message says so."""

    retryable = True


class StoreCorrupted(StoreError):
    """A record can't be read; it is set aside, never taken for 'no token'."""

    retryable = False


class StoreLockTimeout(StoreError):
    """Another process held the lock of this key for longer than a refresh may take."""


def key_id(key: str) -> str:
    """A key as errors and events name it: the first 8 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _spellings(secret: str) -> set[str]:
    """*secret* as it is, and as it stands in a URL, a form or a base string, its escapes in either case."""
    from urllib.parse import quote, quote_plus  # for the few texts that are cleaned

    once = quote(secret, safe="~", errors="replace")
    spelled = {secret, once, quote(once, safe="~"), quote_plus(secret, errors="replace"), quote(secret, errors="replace")}
    return spelled | {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), one) for one in spelled}


def clean(text: object, secrets: Iterable[str] = (), limit: int = 200) -> str:
    """A peer's text made fit to keep: printable ASCII, at most *limit* characters, with *secrets* taken out.

    >>> clean("bad\\x1b[31m thing")
    'bad?[31m thing'
    """
    if not isinstance(text, str):
        return ""
    spelled = {one for secret in secrets if len(secret) >= 4 for one in _spellings(secret)}
    for secret in sorted(spelled, key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "[redacted]")
    text = re.sub(_NOT_ALLOWED, "?", text)
    return text if len(text) <= limit else text[: limit - 1] + "~"
