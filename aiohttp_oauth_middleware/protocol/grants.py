"""Grants: how a client earns a token in one POST to the token endpoint.

A grant is a value: it names its ``grant_type`` and yields the parameters, and does no I/O. Two more facts about it steer the
code that uses it: whether it can be run again without anybody present, and whether what it sends may be sent only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from ..errors import ConfigurationError
from ..value import EMPTY, Secret, Value, check_flags

__all__ = ("AuthorizationCode", "ClientCredentials", "ExtensionGrant", "Grant", "RefreshToken")

# Set by the client or its authentication on every request, whatever the grant.
_CLIENT_PARAMETERS: Final = frozenset({"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type"})
_ABSOLUTE_URI: Final = r"[A-Za-z][A-Za-z0-9+.\-]*:[\x21\x22\x24-\x7e]+\Z"  # compiled at its first use


@runtime_checkable
class Grant(Protocol):
    """What a grant has; a class of the user's own that has it is one."""

    @property
    def grant_type(self) -> str:
        """The registered name or the URI of the grant type."""

    @property
    def unattended(self) -> bool:
        """Whether it can be used again and again, with nobody present."""

    @property
    def single_use(self) -> bool:
        """Whether what it sends (a code, a rotating refresh token) is spent by sending it."""

    def parameters(self) -> list[tuple[str, str | Secret]]:
        """The form's parameters besides ``grant_type`` and the client's; names may repeat, empty values are left out."""


class _Grant(Value):
    """What the grants of this package share: ``scope``, ``resource``, ``audience`` and ``extra``.

    :param scope: a string of values separated by spaces, or an iterable of values.
    :param resource: one or several absolute URIs of the resources that the token is for; :rfc:`8707#section-2`.
    :param audience: the parameter of that name, which some servers want in place of ``resource``.
    :param extra: further parameters; one whose name the protocol uses is refused.
    :raises ConfigurationError: where one of them can't be.
    """

    __slots__ = ("audience", "extra", "resource", "scope")
    _own: ClassVar[frozenset[str]] = frozenset()
    _hidden = frozenset({"extra"})
    grant_type: ClassVar[str] = ""
    unattended: ClassVar[bool] = False
    single_use: ClassVar[bool] = False

    scope: str | None
    resource: tuple[str, ...]
    audience: str | None
    extra: tuple[tuple[str, str | Secret], ...]

    def _share(
        self,
        scope: str | Iterable[str] | None,
        resource: str | Iterable[str],
        audience: str | None,
        extra: Extra,
    ) -> None:
        if audience is not None and not isinstance(audience, str):
            raise ConfigurationError("audience must be None or a string")
        self._freeze(
            scope=joined_scope(scope),
            resource=resource_indicators(resource),
            audience=audience or None,
            extra=_pairs(extra, _CLIENT_PARAMETERS | self._own | {"scope", "resource", "audience"}),
        )

    def parameters(self) -> list[tuple[str, str | Secret]]:
        found: list[tuple[str, str | Secret]] = []
        if self.scope:
            found.append(("scope", self.scope))
        # RFC 8707 section 2: "Multiple resource parameters MAY be used to indicate that the requested token is intended to
        # be used at multiple resources."
        found += [("resource", uri) for uri in self.resource]
        if self.audience:
            found.append(("audience", self.audience))
        return found + list(self.extra)


Extra = Mapping[str, "str | Secret | Iterable[str | Secret]"] | tuple[tuple[str, "str | Secret"], ...]


class ClientCredentials(_Grant):
    """The client on its own behalf; :rfc:`6749#section-4.4`.

    >>> ClientCredentials("reports:read", resource="https://api.example.com/").parameters()
    [('scope', 'reports:read'), ('resource', 'https://api.example.com/')]
    """

    __slots__ = ()
    grant_type = "client_credentials"
    unattended = True

    def __init__(
        self,
        scope: str | Iterable[str] | None = None,
        *,
        resource: str | Iterable[str] = (),
        audience: str | None = None,
        extra: Extra = EMPTY,
    ) -> None:
        self._share(scope, resource, audience, extra)


class RefreshToken(_Grant):
    """A refresh token from an earlier grant; :rfc:`6749#section-6`.

    :param scope: only to ask for less: "The requested scope MUST NOT include any scope not originally granted".
    """

    __slots__ = ("refresh_token",)
    _own = frozenset({"refresh_token"})
    grant_type = "refresh_token"
    single_use = True

    refresh_token: Secret

    def __init__(
        self,
        refresh_token: str | Secret,
        *,
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] = (),
        audience: str | None = None,
        extra: Extra = EMPTY,
    ) -> None:
        refresh_token = _concealed(refresh_token)
        _required("refresh_token", refresh_token)
        self._freeze(refresh_token=refresh_token)
        self._share(scope, resource, audience, extra)

    def parameters(self) -> list[tuple[str, str | Secret]]:
        return [("refresh_token", self.refresh_token), *super().parameters()]


class AuthorizationCode(_Grant):
    """A code from the redirect; :rfc:`6749#section-4.1.3`, with PKCE's verifier, :rfc:`7636#section-4.5`.

    :param redirect_uri: the one of the authorization request, letter by letter; required where that request had one.
    :param code_verifier: 43 to 128 unreserved characters.
    """

    __slots__ = ("code", "code_verifier", "redirect_uri")
    _own = frozenset({"code", "redirect_uri", "code_verifier"})
    grant_type = "authorization_code"
    single_use = True

    code: Secret
    redirect_uri: str | None
    code_verifier: Secret | None

    def __init__(
        self,
        code: str | Secret,
        *,
        redirect_uri: str | None = None,
        code_verifier: str | Secret | None = None,
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] = (),
        audience: str | None = None,
        extra: Extra = EMPTY,
    ) -> None:
        code, code_verifier = _concealed(code), _concealed(code_verifier)
        _required("code", code)
        # RFC 7636 section 4.1: a code_verifier is 43 to 128 unreserved characters.
        if code_verifier is not None and not _is_verifier(code_verifier):
            raise ConfigurationError(
                "code_verifier must be 43 to 128 characters out of A-Z a-z 0-9 - . _ ~ (RFC 7636 section 4.1)"
            )
        if redirect_uri is not None and not isinstance(redirect_uri, str):
            raise ConfigurationError("redirect_uri must be None or a string, as it stood in the authorization request")
        self._freeze(code=code, redirect_uri=redirect_uri, code_verifier=code_verifier)
        self._share(scope, resource, audience, extra)

    def parameters(self) -> list[tuple[str, str | Secret]]:
        found: list[tuple[str, str | Secret]] = [("code", self.code)]
        if self.redirect_uri:
            found.append(("redirect_uri", self.redirect_uri))
        if self.code_verifier:
            found.append(("code_verifier", self.code_verifier))
        # The scope belongs to the authorization request (RFC 6749 section 4.1.1); here it only says what was asked for.
        return found + [pair for pair in super().parameters() if pair[0] != "scope"]


class ExtensionGrant(_Grant):
    """Any other grant; :rfc:`6749#section-4.5`.

    :param grant_type: its URI, or the name that the server knows.
    :param own: its own parameters; secret ones as :class:`Secret`.
    :param unattended: whether it can be used again and again, with nobody present.
    :param single_use: whether what it sends is spent by sending it.
    """

    __slots__ = ("grant_type", "own", "single_use", "unattended")
    _hidden = frozenset({"own", "extra"})

    own: tuple[tuple[str, str | Secret], ...]

    def __init__(
        self,
        grant_type: str,
        own: Extra = EMPTY,
        *,
        unattended: bool = True,
        single_use: bool = False,
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] = (),
        audience: str | None = None,
        extra: Extra = EMPTY,
    ) -> None:
        if not isinstance(grant_type, str) or not grant_type:
            raise ConfigurationError("grant_type must be a non-empty string")
        check_flags("ExtensionGrant", unattended=unattended, single_use=single_use)
        self._freeze(
            grant_type=grant_type,
            unattended=unattended,
            single_use=single_use,
            own=_pairs(own, _CLIENT_PARAMETERS | {"scope", "resource", "audience"}, "own"),
        )
        self._share(scope, resource, audience, extra)
        _pairs(extra, frozenset(name for name, _ in self.own))

    def parameters(self) -> list[tuple[str, str | Secret]]:
        return [*self.own, *super().parameters()]


def joined_scope(scope: str | Iterable[str] | None) -> str | None:
    """A scope as the wire has it: values separated by one space; None where there is none."""
    if scope is None:
        return None
    values = scope.split() if isinstance(scope, str) else list(scope) if isinstance(scope, Iterable) else [scope]
    # RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
    for value in values:
        if not isinstance(value, str) or not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", value):
            raise ConfigurationError("scope must be values of visible ASCII characters, without quotes, backslashes and spaces")
    return " ".join(values) or None


def resource_indicators(resource: str | Iterable[str]) -> tuple[str, ...]:
    """RFC 8707 section 2: the value "MUST be an absolute URI" and "MUST NOT include a fragment component"."""
    found = tuple(resource) if isinstance(resource, Iterable) and not isinstance(resource, str) else (resource,)
    for uri in found:
        if not isinstance(uri, str) or not re.match(_ABSOLUTE_URI, uri):
            raise ConfigurationError("resource must be an absolute URI without a fragment (RFC 8707 section 2)")
    return found


def _concealed(value: Any) -> Any:
    """A string as a Secret, so that a traceback that shows locals does not show it."""
    return Secret(value) if isinstance(value, str) else value


def _required(name: str, value: object) -> None:
    if not isinstance(value, str | Secret) or not value:
        raise ConfigurationError(f"{name} must be a non-empty string")


def _is_verifier(value: object) -> bool:
    if isinstance(value, Secret) and not value.is_constant:
        return True  # it is read when it is sent
    plain = value.reveal() if isinstance(value, Secret) else value
    return isinstance(plain, str) and re.fullmatch(r"[A-Za-z0-9\-._~]{43,128}", plain) is not None


def _pairs(extra: Extra, reserved: frozenset[str], argument: str = "extra") -> tuple[tuple[str, str | Secret], ...]:
    found: list[tuple[str, str | Secret]] = []
    pairs: Iterable[object] = extra.items() if isinstance(extra, Mapping) else extra if isinstance(extra, tuple) else (None,)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and pair[0]):
            raise ConfigurationError(f"{argument} must be a mapping of names of parameters to strings")
        name, value = pair
        if name in reserved:
            raise ConfigurationError(f"{argument} must not set {name!r}: the protocol does; use the argument of that name")
        for one in value if isinstance(value, Iterable) and not isinstance(value, str) else (value,):
            if not isinstance(one, str | Secret):
                raise ConfigurationError(f"{argument}[{name!r}] must be a string, a Secret, or several of them")
            found.append((name, one))
    return tuple(found)
