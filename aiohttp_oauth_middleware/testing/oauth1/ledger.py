"""What the OAuth 1 side has issued: clients, temporary and token credentials, nonces, and the counters."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode

from ...errors import ConfigurationError
from ..ledger import Family, IssuedToken, Ledger
from .wire import Problem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = (
    "OUT_OF_BAND",
    "OAuth1Counts",
    "OAuth1Ledger",
    "RegisteredClient",
    "Temporary",
    "TokenCredentials",
    "with_parameters",
)

# RFC 5849 section 2.1: "An absolute URI [...]. If the client is unable to receive callbacks [...], the parameter value MUST be
# set to "oob" (case sensitive), to indicate an out-of-band configuration."
OUT_OF_BAND: Final = "oob"


@dataclass(slots=True)
class OAuth1Counts:
    """What the OAuth 1 side saw, counted before the answer was sent: the only truth in a test."""

    requests: Counter[str] = field(default_factory=Counter)
    """Requests by kind, whatever became of them: ``request_token``, ``authorize``, ``access_token``, ``resource``."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """All but those for ``authorize``, by verdict: ``accepted``, ``missing``, or the ``oauth_problem`` of the refusal."""
    signature_methods: Counter[str] = field(default_factory=Counter)
    """Those that were accepted, by signature method."""
    placements: Counter[str] = field(default_factory=Counter)
    """Those that were accepted, by where the parameters were: ``header``, ``form``, ``query``."""
    parameters: Counter[str] = field(default_factory=Counter)
    """How often a parameter of each name that begins with ``oauth_`` arrived."""
    nonces: Counter[str] = field(default_factory=Counter)
    """How often each ``oauth_nonce`` arrived; none should twice."""
    tokens_issued: int = 0
    """Token credentials that were issued, renewals too, whether or not the answer arrived."""
    renewals: int = 0
    """Those of them that were issued for an ``oauth_session_handle``."""


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client that the server knows; see :meth:`OAuth1Server.register`."""

    client_id: str
    client_secret: str | None = field(repr=False)
    rsa_public_key: RSAPublicKey | None = field(repr=False)
    callbacks: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Temporary:
    """Temporary credentials, and what a person said of them: ``user`` consented, or nobody has yet."""

    client_id: str
    callback: str
    token: str = field(default_factory=lambda: _new("temporary"), repr=False)
    secret: str = field(default_factory=lambda: _new("secret"), repr=False)
    verifier: str = field(default_factory=lambda: _new("verifier"), repr=False)
    user: str | None = None
    denied: bool = False
    used: bool = False


@dataclass(slots=True, eq=False)
class TokenCredentials:
    """Token credentials; ``issued`` is what is known of them."""

    issued: IssuedToken
    token: str = field(default_factory=lambda: _new("token"), repr=False)
    secret: str = field(default_factory=lambda: _new("secret"), repr=False)


class Policy(Protocol):
    """The knobs that are read afresh at each decision; see :class:`OAuth1Server`."""

    confirm_callbacks: bool
    signature_methods: Collection[str]
    token_methods: Collection[str]
    require_body_hash: bool
    realm: str | None
    clock_offset: float
    clock_tolerance: float
    lifetime: float | None
    session_handles: bool
    passwords: dict[str, str]


class OAuth1Ledger:
    """All state of the OAuth 1 side, behind the lock of *shared*: call it with the lock held."""

    def __init__(self, policy: Policy, shared: Ledger) -> None:
        self.policy: Final = policy
        self.shared: Final = shared
        self.lock: Final = shared.lock
        self.counts: Final = OAuth1Counts()
        self.nonces: Final[set[tuple[str, ...]]] = set()
        self._clients: dict[str, RegisteredClient] = {}
        self._temporary: dict[str, Temporary] = {}
        self._tokens: dict[str, TokenCredentials] = {}
        self._sessions: dict[str, Family] = {}
        self._handles: dict[Family, str] = {}

    def __repr__(self) -> str:
        return f"OAuth1Ledger({len(self._clients)} clients, {len(self._tokens)} token credentials)"

    def now(self) -> float:
        """The time by the clock that the clients see, in epoch seconds."""
        return self.shared.clock() + self.policy.clock_offset

    def register(self, client: RegisteredClient) -> None:
        with self.lock:
            self._clients[client.client_id] = client

    def client(self, client_id: str) -> RegisteredClient | None:
        return self._clients.get(client_id)

    # Temporary credentials

    def begin(self, client_id: str, callback: str) -> Temporary:
        temporary = Temporary(client_id, callback)
        self._temporary[temporary.token] = temporary
        return temporary

    def temporary(self, token: str) -> Temporary | None:
        return self._temporary.get(token)

    def pending(self, token: str) -> Temporary:
        """The temporary credentials that a person is asked about. Raises ConfigurationError where there are none."""
        temporary = self._temporary.get(token)
        if temporary is None or temporary.used:
            raise ConfigurationError("the token is none of temporary credentials, or they were redeemed already")
        return temporary

    def decide(self, temporary: Temporary, user: str | None) -> dict[str, str]:
        """Consent as *user*, or refuse (None): what the callback is told."""
        temporary.user, temporary.denied = user, user is None
        if user is None:
            return {"oauth_token": temporary.token, "oauth_problem": "permission_denied"}
        # OAuth Core 1.0, before its revision A, knew no verifier.
        verifier = {"oauth_verifier": temporary.verifier} if self.policy.confirm_callbacks else {}
        return {"oauth_token": temporary.token} | verifier

    # Token credentials

    def issue(self, family: Family) -> TokenCredentials:
        """Fresh token credentials of a sign-in."""
        now, lifetime = self.shared.clock(), self.policy.lifetime
        credentials = TokenCredentials(IssuedToken(family, "", (), (), now, None if lifetime is None else now + lifetime))
        self._tokens[credentials.token] = credentials
        return credentials

    def answer(self, credentials: TokenCredentials) -> dict[str, str]:
        """What the client is told of them."""
        told = {"oauth_token": credentials.token, "oauth_token_secret": credentials.secret}
        if self.policy.session_handles:
            told["oauth_session_handle"] = self.handle(credentials.issued.family)
        if self.policy.lifetime is not None:
            told["oauth_expires_in"] = f"{self.policy.lifetime:.0f}"
        return told

    def tokens(self, token: str, client_id: str) -> TokenCredentials:
        """The token credentials of that client, good or not. Raises Problem where there are none."""
        credentials = self._tokens.get(token)
        if credentials is None or credentials.issued.client_id != client_id:
            raise Problem("token_rejected")
        return credentials

    def handle(self, family: Family) -> str:
        """The session handle of a sign-in; the same each time."""
        handle = self._handles.setdefault(family, _new("session"))
        self._sessions[handle] = family
        return handle

    def session(self, handle: str) -> Family | None:
        return self._sessions.get(handle)

    def expire_all(self) -> None:
        with self.lock:
            now = self.shared.clock()
            for credentials in self._tokens.values():
                issued = credentials.issued
                issued.expires_at = now if issued.expires_at is None else min(issued.expires_at, now)

    def revoke_all(self) -> None:
        with self.lock:
            for credentials in self._tokens.values():
                credentials.issued.family.revoked = True


def _new(kind: str) -> str:
    # What must be encoded in a header, a form and a key is in each of them, so that who forgets it is found out.
    return f"{kind}-{secrets.token_urlsafe(18)}/+="


def with_parameters(callback: str, parameters: Mapping[str, str]) -> str:
    """The callback as the person's browser is sent to it."""
    # RFC 5849 section 2.2: "If the callback URI already includes a query component, the server MUST append the OAuth
    # parameters to the end of the existing query."
    before, mark, fragment = callback.partition("#")
    return f"{before}{'&' if '?' in before else '?'}{urlencode(parameters)}{mark}{fragment}"
