"""May this request have the credentials? It is asked at every call, for a middleware runs once for each redirect hop."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal

from yarl import URL

from ..errors import ConfigurationError, InsecureTransport
from ..urls import is_loopback
from ..value import check_flags

if TYPE_CHECKING:
    from ..sources.events import Event

__all__ = ("Gate", "Origins")

Origins = str | URL | Iterable[str | URL] | Callable[[URL], bool]

_Origin = tuple[str, str | None, int | None]

_SECURE: Final = frozenset({"https", "wss"})
_SIBLINGS: Final = {"https": ("https", "wss"), "wss": ("https", "wss"), "http": ("http", "ws"), "ws": ("http", "ws")}
_DOT_SEGMENT: Final = r"(?i:/(?:\.|%2e){1,2}(?=[/;]|%3b|\Z)|\\|%5c|%2f)"  # compiled at its first use

_log = logging.getLogger("aiohttp_oauth_middleware")


class Gate:
    """The origins to which a token may go.

    An origin is the scheme (``ws`` counts as ``http``, ``wss`` as ``https``), the host as it is written, and the port. Two
    URLs are compared by these three, never by ``URL.origin()``, for which an explicit default port is another origin.

    :param origins: origins, or URLs with a path, which then is a prefix by whole segments; or a callable that decides; or None,
        and then the first origin that a token goes to is pinned.
    :param insecure_http: let tokens travel over plain http beyond this machine.
    :param on_event: called with an ``origin_refused`` for each request that goes without.
    """

    __slots__ = ("_decide", "_foreign_seen", "_insecure_http", "_occupied_seen", "_on_event", "_pins", "_prefixes", "open")

    def __init__(
        self, origins: Origins | None, *, insecure_http: bool = False, on_event: Callable[[Event], None] | None = None
    ) -> None:
        check_flags("origins", insecure_http=insecure_http)
        if on_event is not None and not callable(on_event):
            raise ConfigurationError("on_event must be callable")
        if inspect.iscoroutinefunction(on_event):
            raise ConfigurationError("on_event must be a plain function: it is called in the midst of a request")
        self._insecure_http = insecure_http
        self._on_event = on_event
        self._occupied_seen = False
        self._decide: Callable[[URL], bool] | None = None
        # Origin → path prefixes, or None where every path is allowed.
        self._prefixes: dict[_Origin, tuple[str, ...] | None] = {}
        self.open: dict[str, tuple[str, ...]] = {}
        """Authorities (``api.example.com``) whose every path is allowed, and under which schemes: a short way to a yes."""
        self._pins = origins is None
        self._foreign_seen = False
        if origins is None:
            return
        if callable(origins):
            # What a coroutine function returns is true whatever it decides.
            if isinstance(origins, type) or inspect.iscoroutinefunction(origins) or _is_async_callable(origins):
                raise ConfigurationError("origins, where it is a callable, must be a plain function (URL) -> bool")
            self._decide = origins
            return
        entries = [origins] if isinstance(origins, str | URL) or not isinstance(origins, Iterable) else list(origins)
        if not entries:
            raise ConfigurationError("origins is empty: the token could go nowhere")
        for entry in entries:
            self._allow(_parsed(entry))

    def __repr__(self) -> str:
        if self._decide is not None:
            return "by a callable"
        return ", ".join(sorted({f"{s}://{h}:{p}" for s, h, p in self._prefixes})) or "none yet"

    def allows(self, url: URL) -> bool:
        """Whether a token may go to *url*, as far as can be said before there is one."""
        try:
            prefixes = self._prefixes[url.scheme, url.raw_host, url.port]
        except KeyError:
            return self._allows_unknown(url)
        return prefixes is None or _under(url.raw_path, prefixes)

    def admits(self, url: URL) -> bool:
        """Whether the token that is at hand goes to *url*, which :meth:`allows`. Without origins, the first one is pinned.

        :raises InsecureTransport: it would go over plain http beyond this machine.
        """
        if self._decide is not None:
            self._check_transport(url)
        if not self._pins:
            return True
        if not self._prefixes:
            self._allow(url.with_path("/"))
            _log.warning(
                "no origins= were given: from now on the token goes to %s://%s:%s only; name them to choose yourself",
                url.scheme,
                url.raw_host,
                url.port,
            )
        return self.allows(url)

    def say_refused(self, url: URL) -> None:
        """Let the hook know that a request to *url* goes without, because of where it goes."""
        if self._on_event is None:
            return
        from ..sources.events import Event, Events

        Events(self._on_event).hand_over(Event("origin_refused", origin=f"{url.scheme}://{url.raw_host}:{url.port}"))

    def say_occupied(self, url: URL) -> None:
        """Explain, once, that a request to *url* goes with what stands there already: that is how one request opts out."""
        if self._occupied_seen:
            return
        self._occupied_seen = True
        _log.warning(
            "a request to %s has a value where the token would stand, and is sent with that: it comes from its headers or the "
            "session's, from auth=, from the URL, or from netrc (trust_env=True); this is said once",
            url.raw_host,
        )

    def _allows_unknown(self, url: URL) -> bool:
        if self._decide is not None:
            if self._decide(url) is True:
                return True
            return self._say_foreign(url)
        if self._pins and not self._prefixes:
            return True
        return self._say_foreign(url)

    def _say_foreign(self, url: URL) -> Literal[False]:
        if not self._foreign_seen:
            self._foreign_seen = True
            # Where the user named the origins, other ones are no surprise.
            _log.log(
                logging.WARNING if self._pins else logging.INFO,
                "a request to %s://%s:%s is sent without the token: it is outside the origins; this is said once",
                url.scheme,
                url.raw_host,
                url.port,
            )
        return False

    def _allow(self, url: URL) -> None:
        self._check_transport(url)
        path = url.raw_path.rstrip("/")
        for scheme in _SIBLINGS.get(url.scheme, (url.scheme,)):
            origin = (scheme, url.raw_host, url.port)
            known = self._prefixes.get(origin, ())
            self._prefixes[origin] = None if not path or known is None else (*known, path)
            if self._prefixes[origin] is None:
                self.open[url.raw_authority] = (*self.open.get(url.raw_authority, ()), scheme)

    def _check_transport(self, url: URL) -> None:
        # RFC 6750 section 5.3: "Clients MUST always use TLS (https) or equivalent transport security when making requests with
        # bearer tokens."
        if url.scheme not in _SECURE and not self._insecure_http and not is_loopback(url.raw_host):
            raise InsecureTransport(
                f"the token would go over plain {url.scheme} to {url.raw_host}: use https, or say insecure_http=True in a "
                "closed network"
            )


def _is_async_callable(function: object) -> bool:
    return inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _parsed(entry: object) -> URL:
    try:
        url = entry if isinstance(entry, URL) else URL(entry)  # type: ignore[arg-type]
        plain = url.raw_user is None and url.raw_password is None and not url.raw_query_string and not url.raw_fragment
        if plain and url.scheme in _SIBLINGS and url.raw_host and url.port is not None and "*" not in url.raw_host:
            return url
    except (ValueError, TypeError):
        pass
    raise ConfigurationError(
        "origins must be absolute http(s) URLs such as 'https://api.example.com', without user, query and fragment"
    )


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    # A server may resolve what yarl left in an encoded URL: /reports/%2e%2e/admin lies under /reports in letter only.
    if ("/." in path or "%" in path or "\\" in path) and re.search(_DOT_SEGMENT, path):
        return False
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
