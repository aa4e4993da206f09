"""An authorization server in memory, and a Client that reaches it without a socket.

It rotates refresh tokens, and revokes the whole sign-in when a superseded one is presented (RFC 9700 section 4.14). Its
counters are the only truth. The Client is the real one but for the bytes on the wire, whose place a few turns of the event
loop take.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import parse_qsl

from aiohttp_oauth_middleware import Client, ClientSecretPost, ServerMetadata, Token, TokenUnavailable
from aiohttp_oauth_middleware.protocol.endpoint import EndpointRequest, EndpointResponse, Hook
from aiohttp_oauth_middleware.protocol.quirks import Quirks
from aiohttp_oauth_middleware.stores.memory import MemoryStore
from aiohttp_oauth_middleware.stores.store import Lock, Record
from aiohttp_oauth_middleware.value import Secret
from tests.clock import VirtualClock

__all__ = ("LOST", "DirectClient", "FaultyStore", "SlowStore", "StrictServer", "all_of", "oauth_error", "turns")

LOST: Final = "the request is served, and its answer is lost"

Answer = EndpointResponse | Exception | str


def oauth_error(error: str, status: int = 400) -> EndpointResponse:
    """An answer that is an OAuth error."""
    return EndpointResponse(status, {"content-type": "application/json"}, json.dumps({"error": error}).encode())


async def all_of(values: AsyncIterator[str]) -> list[str]:
    """What an asynchronous iterator yields."""
    return [value async for value in values]


async def turns(number: int) -> None:
    """Let the event loop go round so many times."""
    for _ in range(number):
        await asyncio.sleep(0)


class StrictServer:
    """The server.

    :param lifetime: seconds that an access token lives.
    :param rotate: whether each refresh brings a new refresh token and supersedes the old one.
    :param give_refresh_tokens: whether client credentials get one too.
    """

    def __init__(
        self, clock: VirtualClock, *, lifetime: float = 3600.0, rotate: bool = True, give_refresh_tokens: bool = False
    ) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.rotate = rotate
        self.give_refresh_tokens = give_refresh_tokens
        self.next: deque[Answer] = deque()
        """What the next requests get in place of a proper answer."""
        self.always: Answer | None = None
        """What all requests get while it is set."""
        self.requests: list[dict[str, str]] = []
        self.presented: Counter[str] = Counter()
        self.reuses = 0
        """How often a superseded one was presented, unless the answer that replaced it was lost."""
        self.lost: set[str] = set()
        self.after_refusal = 0
        self.at_once = 0
        self.most_at_once = 0
        self.revoked: list[str] = []
        self.times: list[float] = []
        self.holding = False
        self._held: list[Callable[[], None]] = []
        self._made = 0
        self._family_of: dict[str, str] = {}
        self._current: dict[str, str | None] = {}
        self._access: dict[str, tuple[str, float]] = {}
        self._refused: set[str] = set()

    @property
    def token_requests(self) -> int:
        return len(self.requests)

    @property
    def by_grant(self) -> Counter[str]:
        return Counter(request["grant_type"] for request in self.requests)

    @property
    def held(self) -> int:
        """How many answers are held back."""
        return len(self._held)

    def sign_in(self) -> Token:
        """A token as if a user had consented."""
        access_token, refresh_token = self._issue(None, refresh=True)
        now = self.clock.time()
        return Token(access_token, expires_at=now + self.lifetime, obtained_at=now, refresh_token=refresh_token)

    def accepts(self, access_token: str) -> bool:
        """What a resource server would say of it."""
        family, expires = self._access.get(access_token, ("", 0.0))
        return family in self._current and self.clock.time() < expires

    def is_current(self, refresh_token: str | None) -> bool:
        """Whether it is the one that the server would accept now."""
        return refresh_token is not None and self._current.get(self._family_of.get(refresh_token, "")) == refresh_token

    def expire_all(self) -> None:
        """Revoke all access tokens; the refresh tokens stay good."""
        self._access.clear()

    def end_sign_ins(self) -> None:
        """Revoke everything."""
        self._current.clear()

    def release(self) -> None:
        """Let the answers go that are held back, and hold back no more."""
        self.holding = False
        held, self._held = self._held, []
        for deliver in held:
            deliver()

    def deliver(self, deliver: Callable[[], None]) -> None:
        if self.holding:
            self._held.append(deliver)
        else:
            deliver()

    def serve(self, form: dict[str, str]) -> EndpointResponse | Exception:
        """What the token endpoint does at the moment when a request arrives."""
        self.requests.append(form)
        self.times.append(self.clock.time())
        refresh_token = form.get("refresh_token")
        if refresh_token is not None:
            self.presented[refresh_token] += 1
            if refresh_token in self._refused:
                self.after_refusal += 1
        answer = self.next.popleft() if self.next else self.always
        if answer is not None and answer != LOST:
            assert not isinstance(answer, str)
            if refresh_token is not None and isinstance(answer, EndpointResponse) and b'"invalid_grant"' in answer.body:
                self._refused.add(refresh_token)
            return answer
        proper = self._properly(form, refresh_token)
        if answer == LOST and refresh_token is not None:
            self.lost.add(refresh_token)
            self._refused.discard(refresh_token)  # a refusal that nobody heard: it may be presented again
        return TokenUnavailable("the answer was lost", maybe_spent=True) if answer == LOST else proper

    def revoke(self, form: dict[str, str]) -> EndpointResponse:
        token = form["token"]
        self.revoked.append(token)
        family = self._family_of.get(token) or self._access.get(token, ("", 0.0))[0]
        if form.get("token_type_hint") == "refresh_token":
            self._current.pop(family, None)
        self._access.pop(token, None)
        return EndpointResponse(200, {}, b"")

    def _properly(self, form: dict[str, str], refresh_token: str | None) -> EndpointResponse:
        if refresh_token is None:
            if form["grant_type"] == "authorization_code" and self.by_grant["authorization_code"] > 1:
                return oauth_error("invalid_grant")
            give = self.give_refresh_tokens or form["grant_type"] == "authorization_code"
            return self._answer(*self._issue(None, refresh=give))
        family = self._family_of.get(refresh_token, "")
        if family not in self._current:
            self._refused.add(refresh_token)
            return oauth_error("invalid_grant")
        if self._current[family] != refresh_token:
            self.reuses += refresh_token not in self.lost
            self._refused.add(refresh_token)
            del self._current[family]
            return oauth_error("invalid_grant")
        return self._answer(*self._issue(family, refresh=self.rotate))

    def _issue(self, family: str | None, *, refresh: bool) -> tuple[str, str | None]:
        self._made += 1
        number = self._made
        if family is None:
            family = f"family-{number}"
            self._current[family] = None
        access_token = f"access-{number}"
        self._access[access_token] = (family, self.clock.time() + self.lifetime)
        if not refresh:
            return access_token, None
        refresh_token = f"refresh-{number}"
        self._family_of[refresh_token] = family
        self._current[family] = refresh_token
        return access_token, refresh_token

    def _answer(self, access_token: str, refresh_token: str | None) -> EndpointResponse:
        data: dict[str, object] = {"access_token": access_token, "token_type": "Bearer", "expires_in": self.lifetime}
        if refresh_token is not None:
            data["refresh_token"] = refresh_token
        return EndpointResponse(200, {"content-type": "application/json"}, json.dumps(data).encode())


class DirectClient(Client):
    """The Client of a StrictServer.

    :param hops: turns of the event loop from sending to arrival, and from there to the answer.
    """

    def __init__(
        self,
        server: StrictServer,
        *,
        hops: Callable[[], int] = lambda: 1,
        timeout: float = 30.0,
        quirks: Quirks | None = None,
        hooks: tuple[Hook, ...] = (),
        secret: str | Secret = "secret",
        issuer: str = "https://as.example",
    ) -> None:
        super().__init__(
            ServerMetadata(issuer, token_endpoint=f"{issuer}/token", revocation_endpoint=f"{issuer}/revoke"),
            "client",
            ClientSecretPost(secret),
            timeout=timeout,
            quirks=quirks,
            hooks=hooks,
            clock=server.clock,
        )
        self.strict_server = server
        self._hops = hops

    def _exchange(self, request: EndpointRequest, endpoint: str, body_limit: int) -> asyncio.Future[EndpointResponse]:
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[EndpointResponse] = loop.create_future()
        server, form = self.strict_server, dict(parse_qsl(request.body().decode()))

        def after(hops: int, then: Callable[[], None]) -> None:
            if hops <= 0:
                then()
            else:
                loop.call_soon(after, hops - 1, then)

        def arrive() -> None:
            if endpoint == "revocation":
                answer: EndpointResponse | Exception = server.revoke(form)
            else:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
                answer = server.serve(form)

            def deliver() -> None:
                if endpoint != "revocation":
                    server.at_once -= 1
                if arrival.done():
                    return
                if isinstance(answer, Exception):
                    arrival.set_exception(answer)
                else:
                    arrival.set_result(answer)

            server.deliver(lambda: after(self._hops(), deliver))

        # By callbacks, not tasks: what is under way on another machine is not cancelled when our loop ends.
        loop.call_soon(after, self._hops(), arrive)
        return arrival


class SlowStore(MemoryStore):
    """A store whose every method takes some turns of the event loop, as one over a network does; it outlives any loop."""

    def __init__(self, hops: Callable[[], int] = lambda: 1) -> None:
        super().__init__()
        self._hops = hops
        self.versions: dict[str, list[int]] = {}

    async def load(self, key: str) -> Record | None:
        await turns(self._hops())
        record = await super().load(key)
        await turns(self._hops())
        return record

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        await turns(self._hops())
        saved = await super().save(key, record, expected=expected, lock=lock)
        if saved:
            self.durable(key, record)
        await turns(self._hops())
        return saved

    def durable(self, key: str, record: Record) -> None:
        """*record* can be read from now on, some turns before the one who wrote it knows."""
        self.versions.setdefault(key, []).append(record.version)

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        await turns(self._hops())
        async with super().lock(key, wait=wait) as held:
            yield held
        await turns(self._hops())


class FaultyStore(MemoryStore):
    """A store whose n-th call fails.

    :param failing: the numbers of the calls, from 0, that raise.
    :param error: what they raise.
    """

    def __init__(self, failing: Callable[[int], bool] = lambda number: False, error: Exception | None = None) -> None:
        super().__init__()
        self.failing = failing
        self.error = error if error is not None else OSError(28, "No space left on device")
        self.calls: list[str] = []

    def _count(self, name: str) -> None:
        number = len(self.calls)
        self.calls.append(name)
        if self.failing(number):
            raise self.error

    async def load(self, key: str) -> Record | None:
        self._count("load")
        return await super().load(key)

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        self._count("save")
        return await super().save(key, record, expected=expected, lock=lock)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        self._count("delete")
        return await super().delete(key, expected=expected)

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        self._count("lock")
        async with super().lock(key, wait=wait) as held:
            yield held

    async def keys(self) -> AsyncIterator[str]:
        self._count("keys")
        async for key in super().keys():
            yield key
