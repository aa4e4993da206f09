"""What the test server has issued: clients, codes, sign-ins and their tokens, and the counters."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from ..errors import ConfigurationError

__all__ = ("Code", "Counts", "Family", "IssuedToken", "Ledger", "Policy", "RefreshRecord", "RegisteredClient", "digest")

GRANT_TYPES: Final = ("authorization_code", "client_credentials", "refresh_token")
AUTHENTICATION_METHODS: Final = ("client_secret_basic", "client_secret_post", "none", "client_secret_basic_raw")

# RFC 6749 section 4.1.2: "A maximum authorization code lifetime of 10 minutes is RECOMMENDED."
CODE_LIFETIME: Final = 600.0


def digest(value: str) -> str:
    """The SHA-256 of *value* in hexadecimal: how the counters and records name a secret without holding it."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class Counts:
    """What the server saw, counted before the answer was sent: the only truth in a test."""

    discoveries: int = 0
    """Requests for the metadata."""
    token_requests: int = 0
    """Requests to the token endpoint, whatever became of them."""
    by_grant: Counter[str] = field(default_factory=Counter)
    """The same, by ``grant_type``."""
    tokens_issued: int = 0
    """Access tokens that the token endpoint issued, whether or not the answer arrived."""
    refreshes: int = 0
    """Those of them that were issued for a refresh token."""
    refresh_token_uses: Counter[str] = field(default_factory=Counter)
    """How often each refresh token arrived at the token endpoint, by the SHA-256 (hexadecimal) of its value."""
    refresh_overlaps: int = 0
    """How often a refresh token arrived while a request with the same one was still being answered."""
    reuses: int = 0
    """How often a refresh token was presented that another had superseded, within the grace or not."""
    families_revoked: int = 0
    """Sign-ins ended because a refresh token or a code was presented again; :rfc:`9700#section-4.14`."""
    revocations: int = 0
    """Requests to the revocation endpoint."""
    introspections: int = 0
    """Requests to the introspection endpoint."""
    authentication_failures: int = 0
    """Answers of ``invalid_client``, from any endpoint."""
    presented: Counter[str] = field(default_factory=Counter)
    """Requests to protected applications, by verdict: ``accepted``, ``missing``, ``invalid_request``, ``invalid_token``,
    ``insufficient_scope``."""


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client that the server knows; see :meth:`AuthorizationServer.register`."""

    client_id: str
    client_secret: str | None = field(repr=False)
    authentication: tuple[str, ...]
    redirect_uris: tuple[str, ...] = ()
    scope: str = ""
    grant_types: tuple[str, ...] = GRANT_TYPES
    refresh_token_for_client_credentials: bool = False

    def __post_init__(self) -> None:
        if not self.client_id:
            raise ConfigurationError("client_id must not be empty")
        if unknown := [name for name in self.authentication if name not in AUTHENTICATION_METHODS]:
            raise ConfigurationError(f"authentication must be among {', '.join(AUTHENTICATION_METHODS)}, not {unknown[0]!r}")
        if not self.authentication:
            raise ConfigurationError("authentication must name a method; a public client has 'none'")
        if self.client_secret is None and self.authentication != ("none",):
            raise ConfigurationError("a client without a secret is public: its authentication is 'none'")
        if self.client_secret is not None and (not self.client_secret or "none" in self.authentication):
            raise ConfigurationError("a client with 'none' takes no secret, and any other needs one")
        if unknown := [name for name in self.grant_types if name not in GRANT_TYPES]:
            raise ConfigurationError(f"grant_types must be among {', '.join(GRANT_TYPES)}, not {unknown[0]!r}")

    def allowed_scope(self, requested: str | None) -> str | None:
        """The part of the *requested* scope that this client may have; None where nothing is left of it."""
        if not requested or not self.scope:
            # RFC 6749 section 3.3: where the scope is omitted, the server uses "a pre-defined default value".
            return requested or self.scope
        allowed = self.scope.split()
        return " ".join(value for value in requested.split() if value in allowed) or None


@dataclass(slots=True, eq=False)
class Family:
    """One sign-in, and all that was issued for it. ``user`` is None where a client acts for itself."""

    client_id: str
    user: str | None
    scope: str
    resource: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    revoked: bool = False


@dataclass(slots=True, eq=False)
class IssuedToken:
    """An access token as the server knows it: what a handler behind :meth:`AuthorizationServer.protect` finds."""

    family: Family = field(repr=False)
    scope: str
    resource: tuple[str, ...]
    audience: tuple[str, ...]
    issued_at: float
    expires_at: float | None
    revoked: bool = False

    @property
    def client_id(self) -> str:
        """Whom it was issued to."""
        return self.family.client_id

    @property
    def user(self) -> str | None:
        """Who signed in; None where the client acts for itself."""
        return self.family.user

    @property
    def scopes(self) -> frozenset[str]:
        """The granted scope as a set."""
        return frozenset(self.scope.split())


@dataclass(slots=True, eq=False)
class RefreshRecord:
    """A refresh token; ``superseded_at`` is when the next of its family was issued, in epoch seconds."""

    family: Family
    superseded_at: float | None = None


@dataclass(slots=True, eq=False)
class Code:
    """An authorization code, and the sign-in that it stands for."""

    family: Family
    redirect_uri: str | None
    challenge: str
    expires_at: float
    used: bool = False


class Policy(Protocol):
    """The knobs that the ledger reads afresh at each decision."""

    lifetime: float | None
    rotation: bool
    reuse_detection: bool
    reuse_grace: float


class Ledger:
    """All state of the server, behind one lock."""

    def __init__(self, policy: Policy, clock: Callable[[], float]) -> None:
        self.lock: Final = threading.RLock()
        self.policy: Final = policy
        self.clock: Final = clock
        self.counts: Final = Counts()
        self._clients: dict[str, RegisteredClient] = {}
        self._codes: dict[str, Code] = {}
        self._access: dict[str, IssuedToken] = {}
        self._refresh: dict[str, RefreshRecord] = {}

    def __repr__(self) -> str:
        return f"Ledger({len(self._clients)} clients, {len(self._access)} access tokens, {len(self._refresh)} refresh tokens)"

    def register(self, client: RegisteredClient) -> None:
        with self.lock:
            self._clients[client.client_id] = client

    def client(self, client_id: str) -> RegisteredClient | None:
        with self.lock:
            return self._clients.get(client_id)

    def registered(self, client_id: str) -> RegisteredClient:
        """The client of that id. Raises ConfigurationError where there is none."""
        client = self.client(client_id)
        if client is None:
            raise ConfigurationError(f"client_id {client_id!r} is not registered: call register() first")
        return client

    def save_code(self, value: str, family: Family, redirect_uri: str | None, challenge: str) -> None:
        with self.lock:
            self._codes[value] = Code(family, redirect_uri, challenge, self.clock() + CODE_LIFETIME)

    def present_code(self, value: str, client_id: str) -> Code | None:
        """The code, where *client_id* may redeem it."""
        with self.lock:
            code = self._codes.get(value)
            if code is None or code.family.client_id != client_id:
                return None
            if code.used:
                # RFC 6749 section 4.1.2: "If an authorization code is used more than once, the authorization server MUST deny
                # the request and SHOULD revoke (when possible) all tokens previously issued based on that authorization code."
                self._end(code.family)
                return None
            return code if self.clock() < code.expires_at else None

    def issue(
        self,
        family: Family,
        values: tuple[str, str | None],
        *,
        scope: str,
        resource: tuple[str, ...],
        audience: tuple[str, ...],
        lifetime: float | None,
    ) -> IssuedToken:
        """Enter an access token and perhaps a refresh token of these *values*."""
        access, refresh = values
        with self.lock:
            now = self.clock()
            expires_at = None if lifetime is None else now + lifetime
            issued = self._access[access] = IssuedToken(family, scope, resource, audience, now, expires_at)
            if refresh is not None:
                self._refresh[refresh] = RefreshRecord(family)
            return issued

    def present_refresh(self, value: str, client_id: str) -> RefreshRecord | None:
        """The refresh token, where *client_id* may use it."""
        with self.lock:
            record = self._refresh.get(value)
            if record is None or record.family.client_id != client_id:
                return None
            if record.superseded_at is not None:
                self.counts.reuses += 1
                if self.clock() - record.superseded_at >= self.policy.reuse_grace:
                    # RFC 9700 section 4.14.2: "If a refresh token is compromised and subsequently used by both the attacker
                    # and the legitimate client, one of them will present an invalidated refresh token, which will inform the
                    # authorization server of the breach."
                    if self.policy.reuse_detection:
                        self._end(record.family)
                    return None
            return None if record.family.revoked else record

    def supersede(self, record: RefreshRecord) -> None:
        with self.lock:
            if self.policy.rotation and record.superseded_at is None:
                record.superseded_at = self.clock()

    def _end(self, family: Family) -> None:
        if not family.revoked:
            family.revoked = True
            self.counts.families_revoked += 1

    def find(self, value: str) -> IssuedToken | RefreshRecord | None:
        """The access or refresh token of that value, valid or not."""
        with self.lock:
            return self._access.get(value) or self._refresh.get(value)

    def revoke(self, token: IssuedToken | RefreshRecord) -> None:
        """Revoke an access token alone; with a refresh token the whole sign-in ends."""
        # RFC 7009 section 2.1: "If the particular token is a refresh token and the authorization server supports the revocation
        # of access tokens, then the authorization server SHOULD also invalidate all access tokens based on the same
        # authorization grant."
        with self.lock:
            if isinstance(token, IssuedToken):
                token.revoked = True
            else:
                token.family.revoked = True

    def is_active(self, token: IssuedToken | RefreshRecord | None) -> bool:
        with self.lock:
            if token is None or token.family.revoked:
                return False
            if isinstance(token, RefreshRecord):
                return token.superseded_at is None
            return not token.revoked and (token.expires_at is None or self.clock() < token.expires_at)

    def verify(self, value: str) -> IssuedToken | None:
        """The access token of that value, if it is good now."""
        token = self.find(value)
        return token if isinstance(token, IssuedToken) and self.is_active(token) else None

    def expire_all(self) -> None:
        with self.lock:
            now = self.clock()
            for token in self._access.values():
                token.expires_at = now if token.expires_at is None else min(token.expires_at, now)

    def revoke_all(self, refresh_tokens: bool) -> None:
        with self.lock:
            for token in self._access.values():
                token.revoked = True
            if refresh_tokens:
                for record in self._refresh.values():
                    record.family.revoked = True


def new_values(refresh: bool) -> tuple[str, str | None]:
    """A fresh access token, and a refresh token where one is asked for."""
    return f"access-{secrets.token_urlsafe(32)}", f"refresh-{secrets.token_urlsafe(32)}" if refresh else None


def new_code() -> str:
    """A fresh authorization code."""
    return f"code-{secrets.token_urlsafe(32)}"


def as_tuple(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)
