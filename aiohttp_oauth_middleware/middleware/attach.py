"""Retrofitting a session that somebody else made."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import ClientMiddlewareType, ClientSession

from ..errors import ConfigurationError

__all__ = ("attach",)


def attach(session: ClientSession, auth: ClientMiddlewareType) -> Callable[[], None]:
    """Add *auth* to a session that exists; every request from now on goes through it, WebSocket handshakes too.

    It comes after the session's own middlewares, so that one of them that retries runs it again. A request with
    ``middlewares=`` of its own goes without it, as aiohttp has it. Nothing is subclassed or patched; the one private name that
    is read and written is ``session._middlewares``, on versions of aiohttp where it is what it is today. Where it isn't,
    ``auth.trace_config()`` does with public API alone, without the second try after a 401.

    :returns: a function that takes *auth* out again; calling it twice does no harm.
    :raises ConfigurationError: *auth* is attached already, or this version of aiohttp keeps its middlewares otherwise.
    """
    if not isinstance(session, ClientSession):
        raise ConfigurationError("attach: session must be an aiohttp.ClientSession")
    if isinstance(auth, type) or not callable(auth):
        raise ConfigurationError("attach: auth must be a middleware, such as OAuth2Auth(…)")
    if any(one is auth for one in _middlewares(session)):
        raise ConfigurationError("attach: this object is attached to this session already")
    session._middlewares = (*_middlewares(session), auth)

    def detach() -> None:
        session._middlewares = tuple(one for one in _middlewares(session) if one is not auth)

    return detach


def _middlewares(session: ClientSession) -> tuple[ClientMiddlewareType, ...]:
    found = getattr(session, "_middlewares", None)
    if not isinstance(found, tuple | list):
        raise ConfigurationError(
            "attach: this version of aiohttp keeps a session's middlewares elsewhere; pass middlewares=[auth] to the session, "
            "or append auth.trace_config() to session.trace_configs"
        )
    return tuple(found)
