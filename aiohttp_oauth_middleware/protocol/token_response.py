"""From the bytes of an answer to a Token, or to one of our errors; :rfc:`6749#section-5`.

Whatever a server sends, nothing else than these errors leaves this module, and nothing that it sent stands in a message raw.
Tolerated without a word, for real servers do it: JSON under any label, a form under its own or as text/plain, a byte order
mark, a missing ``token_type``, numbers as strings, ``expires`` and ``expires_at``, a scope as list or with commas, any 2xx.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from ..errors import (
    AccessDenied,
    ConfigurationError,
    ErrorResponse,
    InvalidClient,
    InvalidGrant,
    OAuthError,
    TokenResponseError,
    TokenUnavailable,
    clean,
)
from ..token import Token, finite_number
from .endpoint import EndpointResponse
from .quirks import Quirks

__all__ = ("error_response", "parse_object", "parse_token_response", "retry_after")

RETRY_AFTER_CAP: Final = 300.0
LIFETIME_CAP: Final = 10 * 365 * 86_400.0
_DEPTH_CAP: Final = 32

# RFC 6750 section 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")

_RETRYABLE_STATUS: Final = frozenset({408, 429})
_RETRYABLE_ERRORS: Final = frozenset({"server_error", "temporarily_unavailable", "internal_failure", "slow_down"})
_CLASSES: Final[Mapping[str, type[ErrorResponse]]] = {
    "invalid_grant": InvalidGrant,
    "invalid_client": InvalidClient,
    "access_denied": AccessDenied,
}
_INTERPRETED: Final = frozenset(
    {"access_token", "token_type", "refresh_token", "scope"}
    | {"expires_in", "expires", "expires_at", "refresh_in", "refresh_on", "refresh_at", "obtained_at"}
)


def parse_token_response(
    response: EndpointResponse,
    *,
    sent_at: float,
    scope: str | None = None,
    refresh_token: str | None = None,
    quirks: Quirks,
    secrets: Iterable[str] = (),
    endpoint: str = "the token endpoint",
) -> Token:
    """The token in *response*, or an error raised.

    :param sent_at: epoch seconds at which the request was sent; the lifetime counts from there, for the answer took a while.
    :param scope: what was asked for: "if identical to the scope requested by the client" it may be left out of the answer.
    :param refresh_token: the one in hand, which stays where the answer brings no other.
    :param secrets: what was sent, so that an echo of it can be taken out of what the errors keep.
    :raises ErrorResponse: the server said no.
    :raises TokenUnavailable: it could not answer now.
    :raises TokenResponseError: its answer makes no sense.
    """
    data = parse_object(response)
    if error := error_response(response, data, now=sent_at, secrets=secrets, endpoint=endpoint):
        raise error
    if data is None:
        raise _nonsense(endpoint, response, "is neither a JSON object nor a form")
    for member in quirks.token_path:
        outer, data = data, data.get(member)
        if not isinstance(data, dict):
            raise _nonsense(endpoint, response, f"has no object {member!r}")
        data = {name: value for name, value in outer.items() if name != member} | data
    data = {quirks.renamed.get(name, name): value for name, value in data.items()}

    access_token = data.get("access_token")
    if not isinstance(access_token, str) or not access_token:
        raise _nonsense(endpoint, response, "has no access_token")
    if not quirks.vschar_tokens and not _B64TOKEN.match(access_token):
        raise _nonsense(
            endpoint,
            response,
            "has an access_token outside of RFC 6750's b64token; Quirks(vschar_tokens=True) admits any visible ASCII",
            rule="RFC 6750 section 2.1",
        )
    new_refresh_token = data.get("refresh_token")
    if new_refresh_token is not None and not isinstance(new_refresh_token, str):
        raise _nonsense(endpoint, response, "has a refresh_token that is not a string")
    granted = _scope(data.get("scope"), scope)
    if quirks.strict_scope and scope and not set(scope.split()) <= set(granted.split()):
        raise _nonsense(endpoint, response, "grants less scope than was asked for", rule="RFC 6749 section 3.3")
    try:
        return Token(
            access_token,
            token_type=_token_type(data.get("token_type"), quirks, endpoint, response),
            expires_at=_expires_at(data, sent_at, quirks.default_lifetime),
            obtained_at=sent_at,
            refresh_at=_refresh_at(data, sent_at),
            # RFC 6749 section 6: "The authorization server MAY issue a new refresh token, in which case the client MUST
            # discard the old refresh token and replace it with the new refresh token."
            refresh_token=new_refresh_token or refresh_token,
            scope=scope if granted == scope else granted or None,  # one string for all tokens of a grant
            # RFC 6749 section 5.1: "The client MUST ignore unrecognized value names in the response."
            extra={name: value for name, value in data.items() if name not in _INTERPRETED},
        )
    except ConfigurationError:
        raise _nonsense(endpoint, response, "has a token with characters that no header can carry") from None


def error_response(
    response: EndpointResponse,
    data: Mapping[str, Any] | None,
    *,
    now: float,
    secrets: Iterable[str] = (),
    endpoint: str = "the token endpoint",
) -> OAuthError | None:
    """The error that *response* is, or None. The body decides, then the status: a 200 with an ``error`` is one too.

    :param now: epoch seconds, against which a ``Retry-After`` date is read.
    """
    status = response.status
    wait = retry_after(response.headers.get("retry-after"), now)
    code, description = _error_and_description(data or {})
    error, description = clean(code, secrets, 100), clean(description, secrets)
    # The description too: Google names the passing failure there.
    passing = bool({error, description} & _RETRYABLE_ERRORS) or status in _RETRYABLE_STATUS or status >= 500
    if passing:
        # Only an OAuth error in a 4xx is a definite answer: what a gateway says of a timeout is none.
        definite = bool(error) and status < 500
        reason = f"{endpoint} answered {status}" + (f" {error}" if error else "")
        return TokenUnavailable(f"{reason}; it may pass", retry_after=wait, maybe_spent=not definite)
    if error:
        return _CLASSES.get(error, ErrorResponse)(
            f"{endpoint} answered {status} {error}",
            error=error,
            error_description=description or None,
            error_uri=clean((data or {}).get("error_uri"), secrets) or None,
            status=status,
            retry_after=wait,
        )
    if 300 <= status < 400:
        target = _origin_of(response.headers.get("location", ""), secrets)
        return _nonsense(
            endpoint, response, f"is a redirect to {target}, which is never followed", rule="RFC 9700 section 4.12"
        )
    if status >= 400 or status < 200:
        return _nonsense(endpoint, response, "names no OAuth error", rule="RFC 6749 section 5.2")
    return None


def parse_object(response: EndpointResponse) -> dict[str, Any] | None:
    """The body as an object: JSON under whatever label, a form where it is labelled so; None where it is neither."""
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return None
    try:
        text = response.body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
    if text.startswith("{"):
        try:
            data = json.loads(
                text,
                object_pairs_hook=_no_duplicates,
                parse_int=_integer,
                parse_float=_finite,
                parse_constant=_finite,
            )
            if not isinstance(data, dict) or _deeper_than(data, _DEPTH_CAP):
                return None
            json.dumps(data, ensure_ascii=False).encode()  # lone surrogates can be neither sent nor stored
        except (ValueError, RecursionError):
            return None
        return data
    if response.content_type in ("application/x-www-form-urlencoded", "text/plain") and "=" in text:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=200, errors="strict")
            return _no_duplicates(pairs)
        except ValueError:
            return None
    return None


def retry_after(value: str | None, now: float) -> float | None:
    """``Retry-After`` in seconds, at most 300; None where it is missing, past or unreadable; :rfc:`9110#section-10.2.3`.

    >>> retry_after("120", now=0.0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=0.0), retry_after("soon", now=0.0)
    (120.0, 60.0, None)
    """
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), RETRY_AFTER_CAP)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(seconds, RETRY_AFTER_CAP) if seconds > 0 else None


def _nonsense(endpoint: str, response: EndpointResponse, what: str, rule: str = "RFC 6749 section 5.1") -> TokenResponseError:
    return TokenResponseError(
        f"the answer of {endpoint}, {response.status} with {len(response.body)} bytes, {what} ({rule})",
        rule=rule,
        status=response.status,
    )


def _origin_of(location: str, secrets: Iterable[str]) -> str:
    """Scheme, host and port of a redirect's target; the rest may hold what was sent."""
    try:
        parts = urlsplit(location)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return clean(origin, secrets) if parts.scheme and parts.hostname else "another path"
    except ValueError:
        return "an unreadable URL"


def _error_and_description(data: Mapping[str, Any]) -> tuple[object, object]:
    error, description = data.get("error"), data.get("error_description", data.get("error_reason"))
    if isinstance(error, dict):  # Facebook, Google
        description = description or error.get("message")
        error = next((error[name] for name in ("type", "status", "code", "error") if isinstance(error.get(name), str)), "error")
    elif error is not None and not isinstance(error, str):
        error = "error" if error else None
    errors = data.get("errors")
    if not error and isinstance(errors, list) and errors and isinstance(errors[0], dict):  # Fitbit
        error, description = errors[0].get("errorType", "error"), errors[0].get("message")
    return error, description


def _token_type(value: object, quirks: Quirks, endpoint: str, response: EndpointResponse) -> str:
    # RFC 6749 section 7.1: "The client MUST NOT use an access token if it does not understand the token type."
    if value is None or value == "":
        return "Bearer"
    if isinstance(value, str):
        name = value.strip().lower()
        if name == "bearer" or name in quirks.token_types:
            return "Bearer"
    raise _nonsense(
        endpoint,
        response,
        "has a token_type that is not Bearer; Quirks(token_types=…) names those that mean the same",
        rule="RFC 6749 section 7.1",
    )


def _scope(value: object, requested: str | None) -> str:
    # RFC 6749 section 5.1, scope: "OPTIONAL, if identical to the scope requested by the client; otherwise, REQUIRED."
    if isinstance(value, list):
        return " ".join(" ".join(one for one in value if isinstance(one, str)).split()) or requested or ""
    if not isinstance(value, str) or not value.strip():
        return requested or ""
    if "," in value and " " not in value.strip() and "," not in (requested or ""):
        value = value.replace(",", " ")
    return " ".join(value.split())


def _expires_at(data: Mapping[str, Any], sent_at: float, default_lifetime: float | None) -> float | None:
    lifetime: float | None = None
    if (stated := data.get("expires_in", data.get("expires"))) is not None:
        lifetime = _seconds(stated)
    elif (moment := _epoch(data.get("expires_at"))) is not None:
        lifetime = moment - sent_at
        if lifetime <= 0:
            return moment
    lifetime = lifetime or default_lifetime
    return None if lifetime is None else sent_at + min(lifetime, LIFETIME_CAP)


def _refresh_at(data: Mapping[str, Any], sent_at: float) -> float | None:
    if (soon := _seconds(data.get("refresh_in"))) is not None:
        return sent_at + soon
    moment = _epoch(data.get("refresh_on"))
    return min(moment, sent_at + LIFETIME_CAP) if moment is not None and moment > sent_at else None


def _seconds(value: object) -> float | None:
    """A lifetime out of whatever a server writes for one, whole seconds, capped at ten years; None where it is none."""
    if (seconds := finite_number(value)) is None or seconds <= 0:
        return None
    return min(math.floor(seconds) or seconds, LIFETIME_CAP)


def _epoch(value: object) -> float | None:
    """A moment as epoch seconds, epoch milliseconds or ISO 8601, in epoch seconds; None where it is none."""
    if (number := finite_number(value)) is not None:
        return (number / 1000 if number > 1e11 else number) if 0 < number < 1e15 else None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and len(value) <= 64 else None
        seconds = 0.0 if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    # Go and .NET write "0001-01-01T00:00:00Z" for a time that was never set.
    return seconds if seconds > 0 else None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a name stands twice")
    return data


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= 20 else _finite(digits)


def _finite(digits: str) -> float | None:
    """A number, or null for what JSON can't write again: NaN, Infinity, 1e400."""
    number = float(digits)
    return number if math.isfinite(number) else None


def _deeper_than(data: object, depth: int) -> bool:
    level: list[object] = [data]
    for _ in range(depth):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if not level:
            return False
    return True
