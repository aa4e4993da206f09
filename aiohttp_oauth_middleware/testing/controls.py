"""The knobs of the test server: what a test turns while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

from ..errors import ConfigurationError
from .faults import Fault, Faults, Held
from .ledger import Counts, Ledger
from .records import EndpointRecord

__all__ = ("Controls", "Endpoint")

Endpoint = Literal["token", "revocation", "introspection", "discovery", "request_token", "access_token"]
"""The last two are those of OAuth 1."""

_ENDPOINTS: Final[tuple[Endpoint, ...]] = get_args(Endpoint)


class Controls:
    """The part of :class:`AuthorizationServer` that needs no network; its attributes are described there."""

    def __init__(self, *, lifetime: float | None, rotation: bool, reuse_detection: bool, clock: Callable[[], float]) -> None:
        if lifetime is not None and lifetime < 0:
            raise ConfigurationError("lifetime must be None or a number of seconds, not negative")
        self.lifetime = lifetime
        self.rotation = rotation
        self.reuse_detection = reuse_detection
        self.reuse_grace = 0.0
        self.latency = 0.0
        self.user: str | None = "alice"
        self.metadata: dict[str, Any] = {}
        self._ledger = Ledger(self, clock)
        self._records: dict[Endpoint, list[EndpointRecord]] = {name: [] for name in _ENDPOINTS}
        self._faults = {name: Faults() for name in _ENDPOINTS}
        self._gates: dict[Endpoint, list[Held]] = {name: [] for name in _ENDPOINTS}

    # What the server saw

    @property
    def counts(self) -> Counts:
        """What the server saw, counted before the answer was sent."""
        return self._ledger.counts

    @property
    def requests(self) -> list[EndpointRecord]:
        """The requests to the token endpoint, in order of arrival."""
        return self._records["token"]

    @property
    def revocation_requests(self) -> list[EndpointRecord]:
        """The requests to the revocation endpoint, in order of arrival."""
        return self._records["revocation"]

    @property
    def introspection_requests(self) -> list[EndpointRecord]:
        """The requests to the introspection endpoint, in order of arrival."""
        return self._records["introspection"]

    def is_active(self, token: str) -> bool:
        """Whether that access or refresh token would be taken now."""
        return self._ledger.is_active(self._ledger.find(token))

    # What the server does

    def expire_all(self) -> None:
        """Let every access token expire now, as the protected applications see it. Refresh tokens stay good."""
        self._ledger.expire_all()

    def revoke_all(self, refresh_tokens: bool = False) -> None:
        """Revoke every access token; with *refresh_tokens* every sign-in."""
        self._ledger.revoke_all(refresh_tokens)

    def lose_next_response(self, *, times: int = 1, endpoint: Endpoint = "token") -> None:
        """Answer the next token request in full (issue, rotate, count), and cut the connection before the answer is sent."""
        self._faults[_known(endpoint)].add(Fault(cut="after"), times)

    def cut_next(self, *, times: int = 1, endpoint: Endpoint = "token") -> None:
        """Cut the connection of the next request once it was read; nothing is issued, nothing answered.

        aiohttp itself sends an idempotent request (a GET) a second time where the connection was a kept one: count two for it.
        """
        self._faults[_known(endpoint)].add(Fault(cut="before"), times)

    def fail_next(
        self,
        status: int,
        *,
        retry_after: float | str | None = None,
        error: str | None = None,
        times: int = 1,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        endpoint: Endpoint = "token",
    ) -> None:
        """Answer the next token request with *status*; nothing is issued.

        :param retry_after: the ``Retry-After`` header: seconds, or an HTTP date as a string.
        :param error: the ``error`` of a JSON body, as in :rfc:`6749#section-5.2`.
        :param times: for how many requests. Faults queue: each request takes the first that is left.
        :param body: the body, in place of what *error* would make; empty if both are None.
        :param headers: further headers, which win over the others.
        :param endpoint: of which endpoint the next request is meant.
        :raises ConfigurationError: where one of them can't be.
        """
        sent: dict[str, str] = {}
        if body is None:
            body = b"" if error is None else json.dumps({"error": error}).encode()
            if error is not None:
                sent["Content-Type"] = "application/json"
        if retry_after is not None:
            sent["Retry-After"] = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
        self._faults[_known(endpoint)].add(Fault(status, body, sent | dict(headers or {})), times)

    def answer_next(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        times: int = 1,
        endpoint: Endpoint = "token",
    ) -> None:
        """Answer the next token request with *body*, byte for byte; nothing is issued.

        :param content_type: the ``Content-Type`` header; none is sent of ours if empty.
        :raises ConfigurationError: where one of them can't be.
        """
        sent = {"Content-Type": content_type} if content_type else {}
        self._faults[_known(endpoint)].add(Fault(status, body, sent | dict(headers or {})), times)

    def hold(self, *, endpoint: Endpoint = "token", decided: bool = False) -> Held:
        """Keep token requests waiting in the server, before anything is done about them, until they are released::

            with server.hold() as held:
                task = asyncio.create_task(tokens.token())
                await held.arrived()
                ...
                held.release()

        Leaving the block releases too.

        :param endpoint: which endpoint's requests wait.
        :param decided: they wait with their answer instead: what it says was issued, rotated or revoked already.
        """
        return Held(self._gates[_known(endpoint)], decided=decided)


def _known(endpoint: Endpoint) -> Endpoint:
    if endpoint not in _ENDPOINTS:
        raise ConfigurationError(f"endpoint must be one of {', '.join(_ENDPOINTS)}")
    return endpoint
