"""The seam between the middleware and everything that yields a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from yarl import URL

from ..client.client import Client
from ..protocol.grants import joined_scope, resource_indicators
from ..token import Token
from ..value import Value

if TYPE_CHECKING:
    from ..protocol.challenge import Challenge

__all__ = ("Login", "Refusal", "TokenSource", "Verdict", "Wanted")

Verdict = Literal["expired", "perhaps expired", "more wanted", "other"]

_OURS: Final = frozenset({"bearer", "dpop"})


class Refusal(Value):
    """That a resource server refused a token; :rfc:`6750#section-3`.

    :param url: of the request that it refused.
    :param status: 401 or 403.
    :param challenges: of its ``WWW-Authenticate``.
    :param token: the token that was sent, or None.
    """

    __slots__ = ("challenges", "status", "token", "url")

    url: URL
    status: int
    challenges: tuple[Challenge, ...]
    token: Token | None

    def __init__(self, url: URL, status: int, challenges: Iterable[Challenge] = (), token: Token | None = None) -> None:
        self._freeze(url=url, status=status, challenges=tuple(challenges), token=token)

    @property
    def challenge(self) -> Challenge | None:
        """The challenge that is about a token: the first one with an error, else the first."""
        ours = [one for one in self.challenges if one.scheme in _OURS]
        return next((one for one in ours if one.error), ours[0] if ours else None)

    @property
    def verdict(self) -> Verdict:
        """What the server meant: ``"expired"`` (another token of the same kind may do), ``"perhaps expired"`` (a 401 that gives
        no reason), ``"more wanted"`` (more scope, or a stronger login), or ``"other"`` (no token helps).
        """
        challenge = self.challenge
        if challenge is None:
            return "perhaps expired" if self.status == 401 and not self.challenges else "other"
        # RFC 6750 section 3.1: invalid_token: "The client MAY request a new access token and retry the protected resource
        # request"; insufficient_scope: "The request requires higher privileges than provided by the access token."
        if challenge.error == "invalid_token":
            return "expired"
        # RFC 9470 section 3: insufficient_user_authentication
        if challenge.error in ("insufficient_scope", "insufficient_user_authentication"):
            return "more wanted"
        return "expired" if self.status == 401 and challenge.error is None else "other"

    @property
    def wanted(self) -> Wanted:
        """What the challenge asks for, on top of the scope that was granted."""
        parameters = self.challenge.parameters if self.challenge else {}
        granted = (self.token.scope or "") if self.token else ""
        asked = parameters.get("scope", "")
        max_age = parameters.get("max_age", "")
        return Wanted(
            scope=" ".join(dict.fromkeys(value for value in f"{granted} {asked}".split() if _is_scope(value))),
            acr_values=parameters.get("acr_values"),
            max_age=int(max_age) if max_age.isascii() and max_age.isdigit() and len(max_age) < 10 else None,
        )


class Wanted(Value):
    """What a login shall ask for beyond what it was configured with; None and empty where nothing is.

    :param scope: :rfc:`6749#section-3.3`.
    :param resource: absolute URIs; :rfc:`8707#section-2`.
    :param acr_values: authentication context classes, separated by spaces; :rfc:`9470#section-3`.
    :param max_age: seconds since the user was last authenticated.
    :param authorization_details: :rfc:`9396#section-2`.
    """

    __slots__ = ("acr_values", "audience", "authorization_details", "max_age", "resource", "scope")

    scope: str | None
    resource: tuple[str, ...]
    audience: str | None
    acr_values: str | None
    max_age: int | None
    authorization_details: tuple[Mapping[str, Any], ...]

    def __init__(
        self,
        *,
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] = (),
        audience: str | None = None,
        acr_values: str | None = None,
        max_age: int | None = None,
        authorization_details: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._freeze(
            scope=joined_scope(scope),
            resource=resource_indicators(resource),
            audience=audience,
            acr_values=acr_values,
            max_age=max_age,
            authorization_details=tuple(authorization_details),
        )


@runtime_checkable
class TokenSource(Protocol):
    """Anything that yields a token. A class of the user's own that has this method is one."""

    async def token(self, refused: Refusal | None = None) -> Token | None:
        """The token to send, or None to send the request without.

        :param refused: what a server has just refused. None, or the same token back, says that there is nothing better, and
            the response is returned as it is.
        """


@runtime_checkable
class Login(Protocol):
    """How a person, or something else that takes time, yields a token.

    :ivar timeout: seconds that it may take.
    """

    timeout: float

    async def __call__(self, client: Client, wanted: Wanted) -> Token:
        """A new token. Cancelled when nobody waits for it any more."""


def _is_scope(text: str) -> bool:
    return text.isascii() and text.isprintable() and not set('"\\') & set(text)
