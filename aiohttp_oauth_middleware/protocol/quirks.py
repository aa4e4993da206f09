"""Deviations of real servers that are tolerated only where the user says so, each by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from ..errors import ConfigurationError
from ..value import EMPTY, Value, check_flags, check_number

__all__ = ("Quirks",)


class Quirks(Value):
    """What one authorization server does otherwise than the RFCs. The common deviations need no word: they are tolerated.

    Of the answers:

    :param token_types: names that mean Bearer there (eBay's ``"Application Access Token"``).
    :param default_lifetime: seconds to assume where the answer gives no usable ``expires_in``; None leaves it to the 401.
    :param renamed: members under other names, theirs to ours: ``{"accessToken": "access_token"}``.
    :param token_path: the members under which the token lies, outermost first: ``("authed_user",)``.
    :param vschar_tokens: access tokens may hold any visible ASCII character (``|`` in Facebook's and Laravel's), beyond
        :rfc:`6750#section-2.1`.
    :param strict_scope: an answer that grants less than was asked for is an error.
    :param refusals_before_latch: so many ``invalid_grant`` or ``invalid_client`` answers in a row are taken for passing.

    Of the requests:

    :param scope_on_refresh: send the granted ``scope`` with each refresh (Azure v2 wants it, others refuse it).
    :param client_id_in_body: send ``client_id`` in the form besides the authentication.
    :param json_request: send the parameters as a JSON object.
    :param insecure_get_request: send them in the query of a GET, where servers and proxies log them.
    """

    __slots__ = (
        "client_id_in_body",
        "default_lifetime",
        "insecure_get_request",
        "json_request",
        "refusals_before_latch",
        "renamed",
        "scope_on_refresh",
        "strict_scope",
        "token_path",
        "token_types",
        "vschar_tokens",
    )

    token_types: frozenset[str]
    default_lifetime: float | None
    renamed: Mapping[str, str]
    token_path: tuple[str, ...]
    vschar_tokens: bool
    strict_scope: bool
    refusals_before_latch: int
    scope_on_refresh: bool
    client_id_in_body: bool
    json_request: bool
    insecure_get_request: bool

    def __init__(
        self,
        *,
        token_types: Iterable[str] = (),
        default_lifetime: float | None = None,
        renamed: Mapping[str, str] = EMPTY,
        token_path: Iterable[str] = (),
        vschar_tokens: bool = False,
        strict_scope: bool = False,
        refusals_before_latch: int = 1,
        scope_on_refresh: bool = False,
        client_id_in_body: bool = False,
        json_request: bool = False,
        insecure_get_request: bool = False,
    ) -> None:
        if default_lifetime is not None:
            check_number("Quirks: default_lifetime", default_lifetime, "seconds", above=0)
        check_number("Quirks: refusals_before_latch", refusals_before_latch, "answers", least=1)
        check_flags(
            "Quirks",
            vschar_tokens=vschar_tokens,
            strict_scope=strict_scope,
            scope_on_refresh=scope_on_refresh,
            client_id_in_body=client_id_in_body,
            json_request=json_request,
            insecure_get_request=insecure_get_request,
        )
        if not isinstance(renamed, Mapping) or not all(isinstance(n, str) and n for pair in renamed.items() for n in pair):
            raise ConfigurationError("Quirks: renamed must map their names to ours")
        if json_request and insecure_get_request:
            raise ConfigurationError("Quirks: json_request and insecure_get_request exclude each other")
        self._freeze(
            token_types=frozenset(name.lower() for name in _names("token_types", token_types)),
            default_lifetime=default_lifetime,
            renamed=dict(renamed) if renamed else EMPTY,
            token_path=_names("token_path", token_path),
            vschar_tokens=vschar_tokens,
            strict_scope=strict_scope,
            refusals_before_latch=refusals_before_latch,
            scope_on_refresh=scope_on_refresh,
            client_id_in_body=client_id_in_body,
            json_request=json_request,
            insecure_get_request=insecure_get_request,
        )

    @property
    def request_encoding(self) -> Literal["form", "json", "query"]:
        """How the parameters of a token request are sent."""
        return "json" if self.json_request else "query" if self.insecure_get_request else "form"


def _names(argument: str, names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several."""
    found = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else (None,)
    if not all(isinstance(name, str) and name for name in found):
        raise ConfigurationError(f"Quirks: {argument} must be a name or several")
    return found
