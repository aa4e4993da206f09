"""What a server answers: token credentials, a problem, or that our clock is wrong. Pure; whatever it sends, nothing else than
our errors leaves this module, and nothing that it sent stands in a message raw.

Problems are those of the Problem Reporting extension (OAuth Problem Reporting, draft 0.5): ``oauth_problem`` and what goes with
it, in the ``WWW-Authenticate`` field or in the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote

from ..errors import (
    AccessDenied,
    ConfigurationError,
    ErrorResponse,
    InvalidClient,
    InvalidGrant,
    TokenResponseError,
    TokenUnavailable,
    clean,
)
from ..protocol.challenge import parse_challenges
from ..protocol.endpoint import EndpointResponse
from ..protocol.token_response import parse_object, retry_after
from .token import OAuth1Token

__all__ = ("clock_offset", "parse_credentials", "problem_in", "problem_of")

# A clock that is further off than this may be why a request was refused, in seconds.
SKEW: Final = 60.0
# No clock is in the year 5138, and none is told that it is.
LATEST: Final = 1e11

_CLASSES: Final[Mapping[str, type[ErrorResponse]]] = {
    **dict.fromkeys(
        ("consumer_key_unknown", "consumer_key_rejected", "consumer_key_refused", "signature_invalid"), InvalidClient
    ),
    **dict.fromkeys(("token_used", "token_expired", "token_revoked", "token_rejected", "verifier_invalid"), InvalidGrant),
    **dict.fromkeys(("user_refused", "permission_denied", "permission_unknown"), AccessDenied),
}
_TIMESTAMP_REFUSED: Final = "timestamp_refused"


def problem_in(www_authenticate: Iterable[str]) -> Mapping[str, str]:
    """The parameters of the ``OAuth`` challenge in these fields; empty where there is none."""
    ours = [one.parameters for one in parse_challenges(www_authenticate) if one.scheme == "oauth"]
    found = next((parameters for parameters in ours if "oauth_problem" in parameters), ours[0] if ours else {})
    # RFC 5849 section 3.5.1 encodes them in a header as it encodes those of a request.
    return {name: unquote(value) for name, value in found.items()}


def clock_offset(status: int, problem: Mapping[str, str], date: str | None, *, now: float) -> float | None:
    """By how many seconds the server's clock is ahead of *now*, where it refused a request for that; None otherwise.

    :param problem: what :func:`problem_in` found.
    :param date: of its ``Date`` field.
    :param now: what our clock, as corrected so far, said in epoch seconds.
    """
    refused = problem.get("oauth_problem") == _TIMESTAMP_REFUSED
    if not refused and status != 401:
        return None
    moments = (_middle_of(problem.get("oauth_acceptable_timestamps")) if refused else None, _epoch_of(date))
    # RFC 5849 section 3.3: "The timestamp value MUST be a positive integer."
    moment = next((one for one in moments if one is not None and 1 <= one < LATEST), None)
    if moment is None:
        return None
    offset = moment - now
    return offset if refused or abs(offset) > SKEW else None


def _middle_of(acceptable: str | None) -> float | None:
    first, _, last = (acceptable or "").partition("-")
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit() and len(acceptable or "") < 32):
        return None
    return (int(first) + int(last)) / 2


def _epoch_of(date: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(date or "")
        # A zone that is left open is Greenwich's, not that of this machine.
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def problem_of(response: EndpointResponse) -> Mapping[str, str]:
    """What a token endpoint complains of, in its challenge or in the body; empty where it doesn't."""
    in_header = problem_in([response.headers.get("www-authenticate", "")])
    if in_header.get("oauth_problem"):
        return in_header
    data = _object_of(response) or {}
    return {name: value for name, value in data.items() if isinstance(value, str)} if data.get("oauth_problem") else {}


def parse_credentials(response: EndpointResponse, *, endpoint: str, sent_at: float, secrets: Iterable[str] = ()) -> OAuth1Token:
    """The credentials in *response*, a form or a JSON object under whatever label; or an error raised.

    :param sent_at: epoch seconds at which the request was sent, from which a lifetime counts.
    :param secrets: what was sent, so that an echo of it can be taken out of what the errors keep.
    :raises ErrorResponse: the server said no; ``error`` is its ``oauth_problem``, where it names one.
    :raises TokenUnavailable: it could not answer now.
    :raises TokenResponseError: its answer makes no sense.
    """
    status, problem, data = response.status, problem_of(response), _object_of(response)
    if status >= 500 or status in (408, 429):
        wait = retry_after(response.headers.get("retry-after"), sent_at)
        raise TokenUnavailable(f"{endpoint} answered {status}; it may pass", retry_after=wait, maybe_spent=True)
    if problem or 400 <= status < 500:
        # An echo may be encoded once, or twice: what is signed holds it so.
        name = clean(problem.get("oauth_problem"), secrets, 100)
        raise _CLASSES.get(name, InvalidClient if status == 401 and not name else ErrorResponse)(
            f"{endpoint} answered {status}{f' {name}' if name else ''}",
            error=name,
            error_description=_description(problem, secrets) or None,
            status=status,
        )
    if not 200 <= status < 300:
        # RFC 9700 section 4.12: a redirect would carry on what was signed.
        raise _nonsense(endpoint, response, "is no answer that is followed" if status < 400 else "names no problem")
    if data is None:
        raise _nonsense(endpoint, response, "is neither a form nor a JSON object")
    try:
        return OAuth1Token.from_dict(data, now=sent_at)
    except ConfigurationError:
        data = None
        raise _nonsense(endpoint, response, "has no oauth_token and oauth_token_secret that can be used") from None


def _object_of(response: EndpointResponse) -> dict[str, Any] | None:
    # RFC 5849 section 2.1 has a form; some servers label it as HTML, or send JSON.
    return parse_object(EndpointResponse(response.status, {**response.headers, "content-type": "text/plain"}, response.body))


def _description(problem: Mapping[str, str], secrets: Iterable[str]) -> str:
    if advice := problem.get("oauth_problem_advice"):
        return clean(advice, secrets)
    # What the extension adds to explain: oauth_parameters_absent, oauth_acceptable_timestamps, oauth_acceptable_versions, …
    told = (f"{name}={value}" for name, value in problem.items() if name.startswith(("oauth_parameters_", "oauth_acceptable_")))
    return clean("; ".join(told), secrets)


def _nonsense(endpoint: str, response: EndpointResponse, what: str) -> TokenResponseError:
    rule = "RFC 5849 section 2"
    return TokenResponseError(
        f"the answer of {endpoint}, {response.status} with {len(response.body)} bytes, {what} ({rule})",
        rule=rule,
        status=response.status,
    )
