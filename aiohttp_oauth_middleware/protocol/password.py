"""The resource owner's password, kept apart because nobody should need it.

RFC 9700 section 2.4: "The resource owner password credentials grant MUST NOT be used." Some servers know nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from ..errors import ConfigurationError
from ..value import EMPTY, Secret
from .grants import Extra, _concealed, _Grant, _required

__all__ = ("Password",)


class Password(_Grant):
    """The resource owner's name and password; :rfc:`6749#section-4.3`. It warns: use a login wherever the server has one."""

    __slots__ = ("password", "username")
    _own = frozenset({"username", "password"})
    grant_type = "password"
    unattended = True

    username: str
    password: Secret

    def __init__(
        self,
        username: str,
        password: str | Secret,
        *,
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] = (),
        audience: str | None = None,
        extra: Extra = EMPTY,
    ) -> None:
        password = _concealed(password)
        if not username or not isinstance(username, str):
            raise ConfigurationError("username must be a non-empty string")
        _required("password", password)
        warnings.warn(
            "the password grant hands the user's password to this program, and RFC 9700 section 2.4 forbids it; "
            "use an authorization code or a device login where the server has one",
            UserWarning,
            stacklevel=2,
        )
        self._freeze(username=username, password=password)
        self._share(scope, resource, audience, extra)

    def parameters(self) -> list[tuple[str, str | Secret]]:
        return [("username", self.username), ("password", self.password), *super().parameters()]
