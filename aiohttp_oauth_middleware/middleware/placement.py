"""How a token is presented; :rfc:`6750#section-2`."""

from __future__ import annotations

import re
from typing import Final, Protocol
from urllib.parse import quote_plus, unquote_plus

from aiohttp import ClientRequest, hdrs
from aiohttp.payload import BytesPayload
from multidict import istr
from yarl import URL

from ..errors import ConfigurationError
from ..token import Token

__all__ = ("BearerHeader", "FormBody", "Header", "InsecureQuery", "Placement")

# Patterns are compiled at their first use, not at import.
_FIELD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z"
_NAME: Final = r"[A-Za-z0-9_.\-]+\Z"
_FORM: Final = "application/x-www-form-urlencoded"


class Placement(Protocol):
    """Where in a request the token stands. A class of the user's own that has these members is one."""

    @property
    def scheme(self) -> str:
        """The authentication scheme, in lower case, whose challenges are about our token."""

    def occupied(self, request: ClientRequest) -> bool:
        """Whether there is something in that place already: then it is left alone."""

    async def place(self, request: ClientRequest, token: Token) -> None:
        """Put *token* in its place."""

    async def clear(self, request: ClientRequest) -> None:
        """Undo :meth:`place`, once the request was sent."""


class Header:
    """The token in a header field: ``Header("X-Auth-Token", scheme="")``, ``Header(scheme="token")``.

    :param field: the field's name.
    :param scheme: what stands before the token; nothing if empty.
    """

    __slots__ = ("field", "prefix", "scheme")

    def __init__(self, field: str = "Authorization", *, scheme: str = "Bearer") -> None:
        if not isinstance(field, str) or not re.match(_FIELD, field):
            raise ConfigurationError("Header: field must be the name of a header field")
        if not isinstance(scheme, str) or (scheme and not re.match(_FIELD, scheme)):
            raise ConfigurationError("Header: scheme must be one word, or empty")
        self.field: istr = hdrs.AUTHORIZATION if field.lower() == "authorization" else istr(field)
        self.prefix = f"{scheme} " if scheme else ""
        self.scheme = scheme.lower()

    def __repr__(self) -> str:
        return f"Header({str(getattr(self, 'field', ''))!r}, scheme={getattr(self, 'prefix', '').strip()!r})"

    def occupied(self, request: ClientRequest) -> bool:
        return self.field in request.headers

    async def place(self, request: ClientRequest, token: Token) -> None:
        request.headers[self.field] = self.value(token)

    async def clear(self, request: ClientRequest) -> None:
        request.headers.popall(self.field, None)

    def value(self, token: Token) -> str:
        """The field's value."""
        return self.prefix + token.access_token


class BearerHeader(Header):
    """``Authorization: Bearer …``, the one that :rfc:`6750#section-2.1` wants."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __repr__(self) -> str:
        return "BearerHeader()"


class FormBody:
    """The token as a parameter of a form body; :rfc:`6750#section-2.2`.

    A request without a form body is refused with a ConfigurationError, also one that a 303 has made a GET.

    :param name: of the parameter.
    """

    __slots__ = ("_name", "_pattern")
    scheme: Final = "bearer"

    def __init__(self, name: str = "access_token") -> None:
        self._name = name
        if not isinstance(name, str) or not re.match(_NAME, name):
            raise ConfigurationError("FormBody: name must be a plain parameter name")
        self._pattern = re.compile(rf"(?:^|&){re.escape(name)}=".encode())

    def __repr__(self) -> str:
        return f"FormBody({self._name!r})"

    def occupied(self, request: ClientRequest) -> bool:
        body = request.body
        if not isinstance(body, BytesPayload):
            return False
        names = (part.partition(b"=")[0] for part in bytes(body._value).split(b"&"))
        return any(unquote_plus(name.decode("latin-1")) == self._name for name in names)

    async def place(self, request: ClientRequest, token: Token) -> None:
        body = request.body
        # RFC 6750 section 2.2: only "The HTTP request entity-header includes the "Content-Type" header field set to
        # "application/x-www-form-urlencoded"" and "The HTTP request method is one for which the request-body has defined
        # semantics. In particular, this means that the "GET" method MUST NOT be used."
        if not has_form(request) or not isinstance(body, BytesPayload) or request.method in ("GET", "HEAD"):
            raise ConfigurationError(
                "FormBody: this request has no form body to put the token in; send data={…} with POST, or use BearerHeader()"
            )
        form = bytes(body._value)
        added = f"{self._name}={quote_plus(token.access_token)}".encode()
        await replace_form(request, form + (b"&" if form else b"") + added)

    async def clear(self, request: ClientRequest) -> None:
        # aiohttp feeds the body of this hop to the next one, so the token has to leave it again.
        body = request.body
        if isinstance(body, BytesPayload) and (match := self._pattern.search(bytes(body._value))):
            await replace_form(request, bytes(body._value)[: match.start()])


def has_form(request: ClientRequest) -> bool:
    """Whether the body is labelled as a form."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower() == _FORM


async def replace_form(request: ClientRequest, form: bytes) -> None:
    """Put *form* in place of the body, under the label that it has."""
    label = request.headers.get(hdrs.CONTENT_TYPE, _FORM)
    await request.update_body(BytesPayload(form, content_type=label))
    request.headers[hdrs.CONTENT_TYPE] = label


class InsecureQuery:
    """The token in the URL's query, for the few servers that know nothing else.

    :rfc:`6750#section-2.3` and RFC 9700 section 4.3.2 forbid it: servers and proxies log URLs, and so do aiohttp's own errors
    and ``response.request_info``. What this package promises of secrets doesn't hold for it.

    :param name: of the parameter.
    """

    __slots__ = ("_name",)
    scheme: Final = "bearer"

    def __init__(self, name: str = "access_token") -> None:
        self._name = name
        if not isinstance(name, str) or not re.match(_NAME, name):
            raise ConfigurationError("InsecureQuery: name must be a plain parameter name")

    def __repr__(self) -> str:
        return f"InsecureQuery({self._name!r})"

    def occupied(self, request: ClientRequest) -> bool:
        return self._name in request.url.query

    async def place(self, request: ClientRequest, token: Token) -> None:
        request.url = request.url.extend_query({self._name: token.access_token})

    async def clear(self, request: ClientRequest) -> None:
        # What stood before is kept to the letter, as place() kept it: ours is the last parameter.
        before, found, _ = str(request.url).rpartition(f"{self._name}=")
        if found:
            request.url = URL(before[:-1], encoded=True)
