"""Client authentication at the token, revocation and introspection endpoints; :rfc:`6749#section-2.3`.

The names are those of IANA's registry of token endpoint authentication methods. RFC 6749 section 2.3: "The client MUST NOT use
more than one authentication method in each request."
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final, Protocol, runtime_checkable
from urllib.parse import quote_plus

from ..errors import ConfigurationError
from ..value import Secret, Value, check_flags
from .endpoint import EndpointRequest

__all__ = ("ClientAuthentication", "ClientSecret", "ClientSecretBasic", "ClientSecretPost", "NoAuthentication")

SecretSource = str | Secret | Callable[[], "str | Awaitable[str]"]

# RFC 8414 section 2, token_endpoint_auth_methods_supported: "If omitted, the default is client_secret_basic".
DEFAULT_METHODS: Final = ("client_secret_basic",)


@runtime_checkable
class ClientAuthentication(Protocol):
    """How a client proves who it is; a class of the user's own that has this method is one."""

    async def authenticate(self, request: EndpointRequest, client_id: str, supported: tuple[str, ...]) -> None:
        """Add to *request* what proves that it comes from *client_id*.

        :param supported: the methods that the endpoint supports, as the server's metadata says.
        """


class NoAuthentication(Value):
    """``none``: a public client only says who it is; :rfc:`6749#section-3.2.1`."""

    __slots__ = ()
    method: ClassVar[str] = "none"

    async def authenticate(self, request: EndpointRequest, client_id: str, supported: tuple[str, ...]) -> None:
        request.form.append(("client_id", client_id))


class _SecretHolder(Value):
    __slots__ = ("secret",)
    _hidden = frozenset({"secret"})

    secret: Secret

    def __init__(self, secret: SecretSource) -> None:
        if not secret:
            raise ConfigurationError(f"{type(self).__name__}: the secret is empty; a public client takes authentication=None")
        if isinstance(secret, type) or not (isinstance(secret, str | Secret) or callable(secret)):
            del secret  # a traceback that shows locals shall not show it
            raise ConfigurationError(f"{type(self).__name__}: the secret must be a string, a Secret, or a callable")
        self._freeze(secret=Secret.of(secret))

    async def _read(self) -> Secret:
        # Without a secret the request would be that of a public client.
        if not (secret := Secret(await self.secret.read())):
            raise ValueError("the secret's callable returned an empty string")
        return secret


class ClientSecretBasic(_SecretHolder):
    """``client_secret_basic``: the id and the secret in the ``Authorization`` header; :rfc:`6749#section-2.3.1`.

    :param secret: the secret, or a callable that yields it and is called at each use.
    :param encoded: both are form-encoded first, as the RFC says; False for a server that wants them raw.
    """

    __slots__ = ("encoded",)
    method: ClassVar[str] = "client_secret_basic"

    encoded: bool

    def __init__(self, secret: SecretSource, *, encoded: bool = True) -> None:
        super().__init__(secret)
        check_flags("ClientSecretBasic", encoded=encoded)
        self._freeze(encoded=encoded)

    async def authenticate(self, request: EndpointRequest, client_id: str, supported: tuple[str, ...]) -> None:
        secret = await self._read()
        credentials = Secret(basic(client_id, secret.reveal(), self.encoded))
        request.headers["Authorization"] = credentials
        request.ingredients += [secret, Secret(credentials.reveal().removeprefix("Basic "))]


class ClientSecretPost(_SecretHolder):
    """``client_secret_post``: the id and the secret in the form; :rfc:`6749#section-2.3.1`."""

    __slots__ = ()
    method: ClassVar[str] = "client_secret_post"

    async def authenticate(self, request: EndpointRequest, client_id: str, supported: tuple[str, ...]) -> None:
        request.form += [("client_id", client_id), ("client_secret", await self._read())]


class ClientSecret(_SecretHolder):
    """A secret, sent by a method that the server's metadata supports: ``client_secret_basic``, else ``client_secret_post``.

    :param probe: for a server whose metadata says nothing or something wrong: on ``invalid_client`` the other method is tried,
        and Basic without form encoding after that; the one that works is remembered by the Client.
    """

    __slots__ = ("probe",)

    probe: bool

    def __init__(self, secret: SecretSource, *, probe: bool = False) -> None:
        super().__init__(secret)
        check_flags("ClientSecret", probe=probe)
        self._freeze(probe=probe)

    def candidates(self, supported: tuple[str, ...]) -> tuple[ClientSecretBasic | ClientSecretPost, ...]:
        """The methods to try, in order; more than one only with *probe*."""
        basic, post = ClientSecretBasic(self.secret), ClientSecretPost(self.secret)
        if self.probe:
            first = (post, basic) if "client_secret_post" in supported and basic.method not in supported else (basic, post)
            return (*first, ClientSecretBasic(self.secret, encoded=False))
        for method in (basic, post):
            if method.method in supported:
                return (method,)
        raise ConfigurationError(
            "ClientSecret: the server supports neither client_secret_basic nor client_secret_post; "
            "give the method it supports, or ClientSecretBasic(…) or ClientSecretPost(…) if its metadata is wrong"
        )

    async def authenticate(self, request: EndpointRequest, client_id: str, supported: tuple[str, ...]) -> None:
        await self.candidates(supported)[0].authenticate(request, client_id, supported)


def basic(client_id: str, secret: str, encoded: bool = True) -> str:
    """The value of an ``Authorization: Basic`` header.

    >>> basic("s6BhdRkqt3", "gX1fBat3bV")
    'Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW'

    RFC 6749 section 2.3.1: "The client identifier is encoded using the "application/x-www-form-urlencoded" encoding algorithm
    per Appendix B, and the encoded value is used as the username; the client password is encoded using the same algorithm".
    """
    if encoded:
        return "Basic " + base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()
    if ":" in client_id:
        # RFC 7617 section 2: "a user-id containing a colon character is invalid"
        raise ConfigurationError("ClientSecretBasic: a client_id with a colon can't be sent raw; use encoded=True")
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()
