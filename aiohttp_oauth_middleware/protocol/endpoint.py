"""A request to one of the authorization server's endpoints and its answer, before and after the wire; and the hooks between."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Literal, get_args
from urllib.parse import urlencode

from ..errors import ConfigurationError
from ..value import Secret, Value

__all__ = ("EndpointRequest", "EndpointResponse", "Hook", "HookPoint")

HookPoint = Literal[
    "access_token_request",
    "access_token_response",
    "refresh_token_request",
    "refresh_token_response",
    "revoke_token_request",
    "introspect_token_request",
]


class EndpointRequest:
    """A request while it is being put together. Its ``repr`` shows names, no values.

    :ivar url: where it goes, absolute.
    :ivar form: the parameters, in order; a name may repeat. Values are strings or Secrets.
    :ivar headers: fields by name; values are strings or Secrets.
    :ivar method: ``"POST"``; :rfc:`6749#section-3.2` wants no other.
    :ivar encoding: how the form is sent: ``"form"``, ``"json"`` or, for a GET, ``"query"``.
    :ivar ingredients: secrets of which a value was made, such as that of Basic; they are taken out of a server's echo too.
    :ivar spends: a digest of what is spent by sending it, a refresh token or a code; empty where nothing is.
    :ivar sent_before: seconds for which the same had been under way already when it was asked for.
    """

    __slots__ = ("encoding", "form", "headers", "ingredients", "method", "sent_before", "spends", "url")

    def __init__(
        self, url: str, form: Iterable[tuple[str, str | Secret]] = (), headers: Mapping[str, str | Secret] | None = None
    ) -> None:
        self.url = url
        self.form: list[tuple[str, str | Secret]] = list(form)
        self.headers: dict[str, str | Secret] = dict(headers or {})
        self.method = "POST"
        self.ingredients: list[Secret] = []
        self.spends = ""
        self.sent_before = 0.0
        self.encoding: Literal["form", "json", "query"] = "form"

    def __repr__(self) -> str:
        return f"<EndpointRequest {self.method} {self.url.partition('?')[0]} form={[name for name, _ in self.form]}>"

    async def settle(self) -> None:
        """Read every Secret once, so that what follows needs no callable of the user's any more."""
        self.form = [(name, Secret(await v.read()) if isinstance(v, Secret) else v) for name, v in self.form]
        self.headers = {n: Secret(await v.read()) if isinstance(v, Secret) else v for n, v in self.headers.items()}

    def secrets(self) -> list[str]:
        """What was secret in it, so that a server's echo of it can be taken out of a message."""
        values = (*(v for _, v in self.form), *self.headers.values(), *self.ingredients)
        return [v.reveal() for v in values if isinstance(v, Secret)]

    def body(self) -> bytes:
        """The bytes of the body, in the clear."""
        pairs = self._pairs()
        if self.encoding == "json":
            names: dict[str, list[str]] = {}
            for name, value in pairs:
                names.setdefault(name, []).append(value)
            return json.dumps({name: values[0] if len(values) == 1 else values for name, values in names.items()}).encode()
        return b"" if self.encoding == "query" else urlencode(pairs).encode()

    def target(self) -> str:
        """The URL, with the form in its query where ``encoding`` says so."""
        if self.encoding != "query":
            return self.url
        return f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(self._pairs())}"

    def _pairs(self) -> list[tuple[str, str]]:
        # RFC 6749 section 3.2: "Parameters sent without a value MUST be treated as if they were omitted from the request."
        revealed = [(name, v.reveal() if isinstance(v, Secret) else v) for name, v in self.form]
        return [(name, value) for name, value in revealed if value]


class EndpointResponse(Value):
    """An answer as it came: status, header fields (names in lower case), and the body's bytes."""

    __slots__ = ("body", "headers", "status")
    _hidden = frozenset({"body", "headers"})

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._freeze(status=status, headers={name.lower(): value for name, value in headers.items()}, body=body)

    @property
    def content_type(self) -> str:
        """The media type, in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


HookFunction = (
    Callable[[EndpointRequest], "Awaitable[None] | None"]
    | Callable[[EndpointResponse], "EndpointResponse | Awaitable[EndpointResponse]"]
)


class Hook(Value):
    """A step of the user's own, for a server that needs a request or an answer rewritten.

    Hooks run in the order in which the Client was given them, on the caller's loop; they may be coroutine functions.

    :param point: when: ``access_token_request``, ``access_token_response``, ``refresh_token_request``,
        ``refresh_token_response``, ``revoke_token_request``, ``introspect_token_request``. (authlib's ``protected_request``
        is a middleware of your own after ours, or a placement.)
    :param function: at a ``…_request`` it changes the :class:`EndpointRequest` in place; at a ``…_response`` it returns an
        :class:`EndpointResponse`.
    """

    __slots__ = ("function", "point")

    point: HookPoint
    function: HookFunction

    def __init__(self, point: HookPoint, function: HookFunction) -> None:
        if point not in _POINTS:
            raise ConfigurationError(f"Hook: point must be one of {', '.join(_POINTS)}")
        if not callable(function):
            raise ConfigurationError("Hook: function must be callable")
        self._freeze(point=point, function=function)


_POINTS: Final[tuple[str, ...]] = get_args(HookPoint)
