"""What the user brings back from the server; :rfc:`5849#section-2.2`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from yarl import URL

from ..errors import AccessDenied, CallbackError, ConfigurationError, StateMismatch, clean
from ..value import Secret

__all__ = ("verifier_in",)


def verifier_in(callback: object, pending: Secret, *, required: bool) -> str:
    """The verifier in *callback*, the URL that was called or its parameters; empty where there is none and none is *required*.

    :param pending: the request token that the callback has to be about.
    :raises StateMismatch: it is about another one.
    :raises AccessDenied: the user said no.
    :raises CallbackError: a parameter is missing or stands twice.
    """
    try:
        parameters = _parameters_of(callback)
    finally:
        del callback  # a traceback that shows locals shall not show it
    problem = clean(parameters.get("oauth_problem"), (pending.reveal(), parameters.get("oauth_verifier", "")), 100)
    denied = "denied" in parameters  # X, formerly Twitter, names the token so
    token = parameters.get("oauth_token", parameters.get("denied"))
    verifier = Secret(parameters.get("oauth_verifier", ""))
    parameters.clear()
    missing, other = token is None, token is not None and token != pending.reveal()
    token = None
    if other:
        raise StateMismatch(
            "the callback is not about the request token that is pending: perhaps it belongs to another login "
            "(RFC 5849 section 2.3)",
            rule="RFC 5849 section 2.3",
        )
    if denied or problem:
        raise AccessDenied(f"the user was asked, and the callback says {problem or 'denied'}", error=problem or "denied")
    if missing:
        raise CallbackError("the callback has no oauth_token (RFC 5849 section 2.2)", rule="RFC 5849 section 2.2")
    if not verifier.reveal().isprintable() or (required and not verifier):
        raise CallbackError(
            "the callback has no oauth_verifier that can be one (RFC 5849 section 2.2)", rule="RFC 5849 section 2.2"
        )
    return verifier.reveal()


def _parameters_of(callback: object) -> dict[str, str]:
    if isinstance(callback, Mapping):
        # A multidict of aiohttp's has a name as often as it came.
        pairs = [(name, value) for name, value in callback.items() if isinstance(value, str)]
    elif isinstance(callback, str | URL):
        text = str(callback).strip()  # pasted, perhaps
        pairs = parse_qsl(text.partition("?")[2].partition("#")[0] if "?" in text else text, keep_blank_values=True)
    else:
        del callback
        raise ConfigurationError("OAuth1Client.parse_authorization_response: callback must be a URL or a mapping")
    # The others are the application's own.
    pairs = [(name, value) for name, value in pairs if name.startswith("oauth_") or name == "denied"]
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        del callback, pairs, parameters
        text = ""
        # RFC 5849 section 3.1: "Each parameter MUST NOT appear more than once per request".
        raise CallbackError("a parameter of the callback stands twice", rule="RFC 5849 section 3.1")
    return parameters
