"""A token that somebody else looks after."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigurationError, OAuthError, TokenUnavailable
from ..token import Token
from ..value import Secret
from .source import Refusal

__all__ = ("StaticToken",)


class StaticToken:
    """A source of one token that is never refreshed: a personal access token, an API key.

    :param token: the token, or a callable that yields it and is called for each request, so that a mounted file that is
        rotated is read afresh. It may be a coroutine function.
    """

    def __init__(self, token: str | Token | Secret | Callable[[], str]) -> None:
        if isinstance(token, Token):
            self._token: Token | None = token
        elif isinstance(token, str):
            try:
                self._token = Token(token)
            finally:
                del token  # a traceback that shows locals shall not show it
        elif isinstance(token, Secret) or (callable(token) and not isinstance(token, type)):
            self._secret = Secret.of(token)
            self._token = Token(self._secret.reveal().strip()) if self._secret.is_constant else None
        else:
            raise ConfigurationError("StaticToken: token must be a string, a Token, a Secret, or a callable")

    def __repr__(self) -> str:
        return "StaticToken(…)"

    async def token(self, refused: Refusal | None = None) -> Token:
        """The token; after a refusal the same one, unless the callable has another by now."""
        if self._token is not None:
            return self._token
        try:
            return Token((await self._secret.read()).strip())  # a file ends with a newline
        except OAuthError:
            raise
        except TypeError:
            raise ConfigurationError("StaticToken: the callable must return the token as a string") from None
        except Exception as error:
            raise TokenUnavailable(f"StaticToken: the callable raised {type(error).__name__}") from error
