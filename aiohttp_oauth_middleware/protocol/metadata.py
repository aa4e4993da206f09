"""Authorization server metadata, and where it is found; :rfc:`8414`, OpenID Connect Discovery 1.0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..errors import ConfigurationError, DiscoveryError
from ..urls import absolute_url
from ..value import EMPTY, Value

__all__ = ("ServerMetadata",)

_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "introspection_endpoint")
_METHODS: Final = (
    "token_endpoint_auth_methods_supported",
    "revocation_endpoint_auth_methods_supported",
    "introspection_endpoint_auth_methods_supported",
)


class ServerMetadata(Value):
    """What is known of an authorization server, under the names of :rfc:`8414#section-2`.

    Give it to a Client in place of an issuer where the server publishes nothing; then only what is used must be there.

    :param issuer: the issuer identifier, an https URL without query and fragment.
    :param extra: metadata that this package doesn't interpret.
    :raises ConfigurationError: where a value can't be.
    """

    __slots__ = (*_ENDPOINTS, *_METHODS, "extra", "issuer")

    issuer: str | None
    authorization_endpoint: str | None
    token_endpoint: str | None
    revocation_endpoint: str | None
    introspection_endpoint: str | None
    token_endpoint_auth_methods_supported: tuple[str, ...] | None
    revocation_endpoint_auth_methods_supported: tuple[str, ...] | None
    introspection_endpoint_auth_methods_supported: tuple[str, ...] | None
    extra: Mapping[str, Any]

    def __init__(
        self,
        issuer: str | None = None,
        *,
        authorization_endpoint: str | None = None,
        token_endpoint: str | None = None,
        revocation_endpoint: str | None = None,
        introspection_endpoint: str | None = None,
        token_endpoint_auth_methods_supported: Iterable[str] | None = None,
        revocation_endpoint_auth_methods_supported: Iterable[str] | None = None,
        introspection_endpoint_auth_methods_supported: Iterable[str] | None = None,
        extra: Mapping[str, Any] = EMPTY,
    ) -> None:
        endpoints = (authorization_endpoint, token_endpoint, revocation_endpoint, introspection_endpoint)
        given = (
            token_endpoint_auth_methods_supported,
            revocation_endpoint_auth_methods_supported,
            introspection_endpoint_auth_methods_supported,
        )
        methods = [
            tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else values for values in given
        ]
        if issuer is not None:
            absolute_url("issuer", issuer)
        for name, url in zip(_ENDPOINTS, endpoints, strict=True):
            if url is not None:
                absolute_url(name, url)
        for name, values in zip(_METHODS, methods, strict=True):
            if values is not None and not (isinstance(values, tuple) and all(isinstance(value, str) for value in values)):
                raise ConfigurationError(f"{name} must be a list of method names")
        if not isinstance(extra, Mapping):
            raise ConfigurationError("ServerMetadata: extra must be a mapping")
        if issuer is None and token_endpoint is None:
            raise ConfigurationError("ServerMetadata needs at least an issuer or a token_endpoint")
        self._freeze(
            issuer=issuer,
            extra=dict(extra),
            **dict(zip(_ENDPOINTS, endpoints, strict=True)),
            **{name: None if v is None else tuple(v) for name, v in zip(_METHODS, methods, strict=True)},
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ServerMetadata:
        """Metadata from the JSON object that a server publishes; ``null`` counts as absent.

        :raises ConfigurationError: where a member can't be what its name says.
        """
        if not isinstance(data, Mapping):
            raise ConfigurationError("ServerMetadata.from_dict needs a mapping")
        known = {name: data[name] for name in ("issuer", *_ENDPOINTS, *_METHODS) if data.get(name) is not None}
        for name in _METHODS:
            if name in known and not isinstance(known[name], list | tuple):
                raise ConfigurationError(f"{name} must be a list of method names")
        return cls(**known, extra={name: value for name, value in data.items() if name not in cls._fields})

    def methods_supported(self, endpoint: str) -> tuple[str, ...]:
        """The client authentication methods of *endpoint* (``"token"``, ``"revocation"``, ``"introspection"``)."""
        own: tuple[str, ...] | None = getattr(self, f"{endpoint}_endpoint_auth_methods_supported")
        # RFC 8414 section 2: "If omitted, the default is client_secret_basic". For the others what the token endpoint
        # supports is the better guess.
        return own or self.token_endpoint_auth_methods_supported or ("client_secret_basic",)


def well_known_urls(issuer: str) -> tuple[str, ...]:
    """Where the metadata of *issuer* may lie, in the order in which to look.

    >>> for url in well_known_urls("https://example.com/issuer1"):
    ...     print(url)
    https://example.com/.well-known/oauth-authorization-server/issuer1
    https://example.com/issuer1/.well-known/openid-configuration
    https://example.com/issuer1/.well-known/oauth-authorization-server
    https://example.com/.well-known/openid-configuration/issuer1

    RFC 8414 section 3 inserts the well-known path before the issuer's own, OpenID Connect appends it. RFC 8414 section 3.1:
    "If the issuer identifier value contains a path component, any terminating "/" MUST be removed before inserting".
    """
    scheme, _, rest = issuer.partition("://")
    host, slash, path = rest.partition("/")
    path = f"{slash}{path}".rstrip("/")
    origin, oauth, openid = f"{scheme}://{host}", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
    if not path:
        return origin + oauth, origin + openid
    return origin + oauth + path, origin + path + openid, origin + path + oauth, origin + openid + path


def parse_metadata(data: Mapping[str, Any], issuer: str) -> ServerMetadata:
    """The metadata that was published for *issuer*. Raises DiscoveryError where it names another one, or makes no sense."""
    # RFC 8414 section 3.3: "The "issuer" value returned MUST be identical to the authorization server's issuer identifier
    # value [...]. If these values are not identical, the data contained in the response MUST NOT be used."
    if data.get("issuer") != issuer:
        raise DiscoveryError(
            f"the metadata found for {issuer} names another issuer; if that is how this server is, and you trust it, "
            "name what it says in Client(metadata_issuer=…)",
            rule="RFC 8414 section 3.3",
        )
    try:
        return ServerMetadata.from_dict(data)
    except ConfigurationError as error:
        raise DiscoveryError(f"the metadata of {issuer} is unusable: {error}", rule="RFC 8414 section 2") from None
