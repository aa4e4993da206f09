"""What the store holds for a key: the token, whether it is alive, and what is under way."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Final, Literal

from ..errors import ConfigurationError, StoreCorrupted
from ..token import Token, finite_number
from ..value import Value

__all__ = ("Pending", "State", "new_sign_in")

SCHEMA: Final = 1

Kind = Literal["ok", "dead", "signed_out"]


class Pending(Value):
    """That a refresh token or a code has been, or is about to be, sent: the intent, written before it leaves.

    :param since: epoch seconds.
    :param process: which process does it, as host and process id.
    """

    __slots__ = ("process", "since")

    since: float
    process: str

    def __init__(self, since: float, process: str = "") -> None:
        self._freeze(since=since, process=process or f"{socket.gethostname()}:{os.getpid()}")


class State(Value):
    """One record's body.

    :param kind: ``"ok"``, ``"dead"`` (the refresh token was refused), or ``"signed_out"``.
    :param owner: the digest of what the token belongs to besides the key: issuer, client, grant, resource, audience.
    :param sign_in: which sign-in the token comes from, a name that stays the same through its refreshes.
    :param endpoint: the token endpoint that issued the token, where it was discovered.
    :param token: the last token that was obtained, also of a dead record.
    :param pending: an intent whose outcome isn't known.
    :param cooldown_until: epoch seconds before which nothing is tried.
    :param failures: how often in a row a request failed.
    :param refusals: how often in a row the server refused the grant or the client.
    :param since: epoch seconds, of a record that is not ok: when it ceased to be.
    """

    __slots__ = ("cooldown_until", "endpoint", "failures", "kind", "owner", "pending", "refusals", "sign_in", "since", "token")

    kind: Kind
    owner: str
    endpoint: str | None
    sign_in: str | None
    token: Token | None
    pending: Pending | None
    cooldown_until: float
    failures: int
    refusals: int
    since: float | None

    def __init__(
        self,
        kind: Kind = "ok",
        *,
        owner: str = "",
        endpoint: str | None = None,
        sign_in: str | None = None,
        token: Token | None = None,
        pending: Pending | None = None,
        cooldown_until: float = 0.0,
        failures: int = 0,
        refusals: int = 0,
        since: float | None = None,
    ) -> None:
        self._freeze(
            kind=kind,
            owner=owner,
            endpoint=endpoint,
            sign_in=sign_in,
            token=token,
            pending=pending,
            cooldown_until=cooldown_until,
            failures=failures,
            refusals=refusals,
            since=since,
        )

    @property
    def dead_since(self) -> float | None:
        """Since when nothing in it can be of use, in epoch seconds; None where something may, or nobody knows."""
        token = self.token
        if self.kind == "ok" and (token is None or token.refresh_token is not None or self.pending is not None):
            return None
        moments = (self.since, token.expires_at if token is not None else None)
        return max((moment for moment in moments if moment is not None), default=None)

    @property
    def under_way(self) -> bool:
        """Whether an intent was written, and since then neither a result nor a cool-down: its request may go on still."""
        return self.pending is not None and not self.cooldown_until

    def to_body(self) -> bytes:
        """The record's bytes; :meth:`from_body` reads them."""
        data: dict[str, Any] = {"schema": SCHEMA, "state": self.kind, "owner": self.owner}
        data |= {name: value for name in ("endpoint", "sign_in") if (value := getattr(self, name)) is not None}
        if self.token is not None:
            data["token"] = self.token.to_dict()
        if self.pending is not None:
            data["pending"] = {"since": self.pending.since, "process": self.pending.process}
        if self.failures or self.cooldown_until or self.refusals:
            data |= {"cooldown_until": self.cooldown_until, "failures": self.failures, "refusals": self.refusals}
        if self.since is not None:
            data["since"] = self.since
        return json.dumps(data, separators=(",", ":")).encode()

    @classmethod
    def from_body(cls, body: bytes) -> State:
        """Raises StoreCorrupted where *body* isn't what :meth:`to_body` wrote: that is never taken for 'no token'."""
        state = _parsed(body)
        del body  # a traceback that shows locals shall not show it
        if isinstance(state, str):
            raise StoreCorrupted(state)
        return state


def new_sign_in() -> str:
    """The name of a sign-in that has just happened."""
    return os.urandom(8).hex()


def _parsed(body: bytes) -> State | str:
    """The state, or what is wrong with it."""
    try:
        data = json.loads(body)
        if data["schema"] != SCHEMA or data["state"] not in ("ok", "dead", "signed_out"):
            return (
                "a record in the token store is of another version of this package: if of a newer one, update "
                "aiohttp-oauth-middleware here; else forget() it and sign in again"
            )
        pending = data.get("pending")
        return State(
            data["state"],
            owner=str(data["owner"]),
            endpoint=str(data["endpoint"]) if "endpoint" in data else None,
            sign_in=str(data["sign_in"]) if "sign_in" in data else None,
            token=Token.from_dict(data["token"]) if "token" in data else None,
            pending=Pending(float(pending["since"]), str(pending["process"])) if pending else None,
            cooldown_until=finite_number(data.get("cooldown_until")) or 0.0,
            failures=int(data.get("failures", 0)),
            refusals=int(data.get("refusals", 0)),
            since=finite_number(data.get("since")),
        )
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError, RecursionError, ConfigurationError):
        return "a record in the token store can't be read"
