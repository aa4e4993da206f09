"""The refresh protocol: one attempt to renew the token of one key, under the store's lock.

What is found in the store decides:

==========================  =====================================================================================
record                      what is done
==========================  =====================================================================================
none                        the grant, or LoginRequired where there is none
ok, newer than the caller's it is adopted, without a request
ok, cooling down            the same if that one is valid, else TokenUnavailable, without a request
ok, with a refresh token    the intent is written, the refresh token sent, the outcome written
ok, and an intent (pending) the same: it is sent again until the answer is definite; a refusal is then RefreshInDoubt
ok, and an intent under way TokenUnavailable while the access token serves, then the same; unless who wrote it is dead
ok, no refresh token        the grant if nobody need be present, else LoginRequired
dead                        the same
signed_out                  LoginRequired
==========================  =====================================================================================

And what comes back decides what is written:

==========================  ==================================  ==================================================
answer                      record                              caller
==========================  ==================================  ==================================================
a token                     ok, the token                       the token, once it is durable
no (invalid_grant)          dead                                LoginRequired, or the grant if nobody need be there
another OAuth error         ok, cool-down                       that error
never left this machine     ok, cool-down                       TokenUnavailable
lost, cut off, nonsense     ok, cool-down, pending stays        TokenUnavailable, TokenResponseError
==========================  ==================================  ==================================================

A refresh token is never sent by two requests at once, and never after it was replaced or refused: the lock excludes, the intent
is durable before it leaves (if that write fails, it is not sent), and the result is durable before any waiter wakes. Where the
lock is a lease, an intent under way may be that of a process that was stopped and comes back: its result is waited for until
the access token expires. The exchange, the store, the clock and chance are arguments, so that a scheduler in a test can drive
all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, Protocol

from ..clock import Clock
from ..errors import (
    DiscoveryError,
    InvalidClient,
    InvalidGrant,
    LoginRequired,
    OAuthError,
    RefreshInDoubt,
    StoreError,
    StoreLockTimeout,
    TokenUnavailable,
)
from ..flight import finish
from ..protocol.grants import Grant
from ..stores.store import Lock, Record, TokenStore, next_version
from ..token import Token
from .events import EventName, Events
from .state import Pending, State, new_sign_in

__all__ = ("COOLDOWN_CAP", "Obtain", "Renewal")

COOLDOWN_CAP: Final = 300.0
BACKOFF_CAP: Final = 60.0
UNATTENDED_TRIES: Final = 3
# Seconds for which the lock is waited for while the token that there is serves on.
SERVING_WAIT: Final = 1.0
# After so many seconds at most the store is asked whether another process has written the result that is waited for.
OTHER_S_RESULT: Final = 5.0
_CONFLICTS: Final = 5
_WRITE_TRIES: Final = 12


class Obtain(Protocol):
    """One request to the token endpoint."""

    async def __call__(self, grant: Grant | None, previous: Token | None) -> Token:
        """A token for the refresh token of *previous*, or, where that is None, for *grant*."""


async def _not_discovered() -> str | None:
    return None


class Renewal:
    """One attempt; :meth:`run` is called once.

    :param key: the store's key.
    :param label: the user's key, for the record.
    :param owner: the digest of what the token belongs to.
    :param grant: what earns a token where there is no refresh token; None where only a stored one can.
    :param budget: seconds for all tries of an unattended grant.
    :param lock_wait: seconds to wait for the lock, where there is nothing that serves meanwhile.
    :param shutdown_grace: seconds for which a cancellation waits for a write.
    :param refusals_before_latch: see :class:`~..protocol.quirks.Quirks`.
    :param publish: called with the token as soon as waiters may have it, where a failing write goes on.
    :param endpoint: where the request goes, if the server's metadata said so; None where the user did.
    :param unwritten: what an earlier one's attribute of that name was.
    """

    def __init__(
        self,
        *,
        key: str,
        label: str,
        owner: str,
        store: TokenStore,
        obtain: Obtain,
        clock: Clock,
        grant: Grant | None,
        events: Events,
        budget: float,
        lock_wait: float,
        shutdown_grace: float,
        refusals_before_latch: int = 1,
        publish: Callable[[Token], None] = lambda token: None,
        endpoint: Callable[[], Awaitable[str | None]] = _not_discovered,
        unwritten: tuple[Token, int] | None = None,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._key = key
        self._label = label
        self._owner = owner
        self._store = store
        self._obtain = obtain
        self._clock = clock
        self._grant = grant
        self._events = events
        self._budget = budget
        self._lock_wait = lock_wait
        self._shutdown_grace = shutdown_grace
        self._refusals_before_latch = refusals_before_latch
        self._publish = publish
        self._chance = chance
        self.cooldown = 0.0
        """Seconds, after a failure, in which nothing is tried."""
        self._endpoint = endpoint
        self._asked: str | None = None
        self._sign_in = ""
        self.unwritten = unwritten
        """A token that the store would not take, and the version of the record that it has replaced but for that."""

    async def run(
        self,
        seen: Token | None,
        *,
        fresh: Callable[[Token], bool],
        usable: Callable[[Token], bool],
        tries: int = UNATTENDED_TRIES,
        anew: bool = False,
        heed_cooldown: bool = True,
    ) -> Token:
        """The new token, durable in the store.

        :param seen: the token that the caller has and that won't do; a stored one that equals it is renewed.
        :param fresh: whether a stored token will do.
        :param usable: whether one serves on though it is not fresh.
        :param tries: of an unattended grant, at most.
        :param anew: use the grant, whatever is stored.
        :param heed_cooldown: fail at once while an earlier failure cools down.
        """
        async with contextlib.AsyncExitStack() as held:
            lock = await self._lock(held, seen, usable)
            for _ in range(_CONFLICTS):
                record = await self._store.load(self._key)
                state = State.from_body(record.body) if record else State(owner=self._owner)
                version = record.version if record else 0
                if self.unwritten is not None and self.unwritten[1] == version:
                    # The refresh token in the record was replaced, and only we know by which.
                    state = State(owner=self._owner, endpoint=state.endpoint, sign_in=state.sign_in, token=self.unwritten[0])
                if not anew:
                    if state.kind == "signed_out":
                        raise LoginRequired("this user is signed out: sign in again")
                    token = state.token if state.kind == "ok" else None
                    cooling = self._cooling(state) if heed_cooldown else 0.0
                    serves = token is not None and usable(token)
                    another = serves and state.under_way and not lock.predecessor_is_dead
                    if token is not None and token != seen and (fresh(token) or (serves and (cooling or another))):
                        self._emit("refresh_adopted")
                        return token
                    if cooling:
                        self.cooldown = cooling
                        raise TokenUnavailable(
                            f"an earlier request for a token failed; the next is made in {cooling:.0f} s", retry_after=cooling
                        )
                    if token is not None and another:
                        self._wait_for_the_other(token)
                outcome = await self._attempt(state, version, lock, tries, anew)
                if outcome is not None:
                    return outcome
            raise StoreError("the record of this key changed each time it was about to be written")

    async def _lock(self, held: contextlib.AsyncExitStack, seen: Token | None, usable: Callable[[Token], bool]) -> Lock:
        """The lock, for as long as *held* is open. A token that serves on isn't kept waiting for whoever has it now."""
        if seen is not None and usable(seen):
            try:
                return await held.enter_async_context(self._store.lock(self._key, wait=min(SERVING_WAIT, self._lock_wait)))
            except StoreLockTimeout:
                if usable(seen):
                    left = math.inf if seen.expires_at is None else seen.expires_at - self._clock.time()
                    self.cooldown = max(0.0, min(SERVING_WAIT, left))
                    raise
        return await held.enter_async_context(self._store.lock(self._key, wait=self._lock_wait))

    async def _attempt(self, state: State, version: int, lock: Lock, tries: int, anew: bool) -> Token | None:
        """One way through the table; None where the record changed before anything was sent."""
        grant = self._grant
        previous = state.token if state.kind == "ok" and not anew else None
        if previous is not None and previous.refresh_token is None:
            previous = None
        if previous is None and (grant is None or not (grant.unattended or self._first_use(grant, state))):
            raise LoginRequired("no token is stored that can be renewed, and nothing unattended can obtain one: sign in")
        self._sign_in = state.sign_in if previous is not None and state.sign_in else new_sign_in()
        single_use = previous is not None or (grant is not None and grant.single_use)
        doubt = state.pending if single_use else None
        if single_use:
            # The intent is the pre-flight: where it can't be written, nothing is spent.
            intent = state.replace(owner=self._owner, pending=doubt or Pending(self._clock.time()), cooldown_until=0.0)
            after = next_version(version)
            if not await self._save(intent, version, lock, after):
                return None
            state, version, self.unwritten = intent, after, None
        try:
            try:
                token = await (self._request(None, previous, state.endpoint) if previous is not None else self._earn(tries))
            except InvalidGrant:
                # A dead refresh token of an unattended grant: the grant itself earns another.
                if previous is None or grant is None or not grant.unattended or not self._final(state):
                    raise
                state = state.replace(token=previous.replace(refresh_token=None), pending=None)
                previous, doubt = None, None
                # Written before anything else is sent: whoever comes after us must not send what was refused.
                if await self._note(state, version):
                    version += 1
                token = await self._earn(tries)
        except OAuthError as error:
            answer = await self._failed(error, state, version, doubt, renewing=previous is not None)
            if answer is error:
                raise
            raise answer from error
        return await self._succeeded(token, version, previous)

    def _first_use(self, grant: Grant, state: State) -> bool:
        """Whether a grant that somebody has to bring is still unspent."""
        # RFC 6749 section 4.1.2: "The client MUST NOT use the authorization code more than once." A refresh token that is in
        # doubt may be sent again, until the answer is definite.
        untouched = state.kind == "ok" and state.token is None
        return untouched and (state.pending is None or grant.grant_type == "refresh_token")

    async def _earn(self, tries: int) -> Token:
        """The grant; an unattended one is tried again on a passing failure, never before Retry-After, within the budget."""
        assert self._grant is not None
        give_up = self._clock.monotonic() + self._budget
        if not self._grant.unattended:
            tries = 1
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._request(self._grant, None)
            except TokenUnavailable as error:
                delay = error.retry_after or self._chance(0.0, 0.5 * 2.0**attempt)
                if attempt == tries or self._clock.monotonic() + delay >= give_up:
                    raise
            await self._clock.sleep(delay)

    async def _request(self, grant: Grant | None, previous: Token | None, issued_by: str | None = None) -> Token:
        self._emit("refresh_started")
        try:
            self._asked = await self._endpoint()
            if issued_by is not None and self._asked is not None and self._asked != issued_by:
                raise DiscoveryError(
                    "the server's metadata names another token endpoint than the one that issued the refresh token, which is "
                    "not sent there: forget() the token and sign in again, if you trust it",
                    rule="RFC 9700 section 4.4",
                )
            token = await self._obtain(grant, previous)
        except OAuthError as error:
            self._emit("refresh_failed", error)
            raise
        self._emit("refresh_succeeded")
        return token

    async def _succeeded(self, token: Token, version: int, previous: Token | None) -> Token:
        state = State(owner=self._owner, endpoint=self._asked, sign_in=self._sign_in, token=token)
        self.unwritten = token, version
        for attempt in range(_WRITE_TRIES):
            try:
                kept = token if await self._save_surely(state, version) else await self._adopt_newer(token, version, previous)
                self.unwritten = None
                return kept
            except LoginRequired:
                self.unwritten = None
                raise
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # The token is good, and losing it would lose the refresh token in it: the first failure is followed by one
                # more try at once, then the waiters get it and the write goes on, the lock kept.
                self._emit("store_write_retried", error)
                if attempt >= 1:
                    self._publish(token)
                    try:
                        await self._clock.sleep(min(5.0, 0.1 * 2.0**attempt))
                    except asyncio.CancelledError:
                        # The loop ends: the last chance to write it.
                        with contextlib.suppress(Exception):
                            await self._save_surely(state, version)
                            self.unwritten = None
                        raise
        self._emit("store_write_failed")
        return token

    async def _adopt_newer(self, ours: Token, version: int, previous: Token | None) -> Token:
        """Somebody wrote without the lock (a login, a sign-out): what they wrote counts, ours is dropped."""
        record = await self._store.load(self._key)
        state = State.from_body(record.body) if record else None
        if state is not None and state.token == ours:
            return ours  # it was our own write, whose success had not reached us
        if record is not None and state is not None and record.version < version and state.token == previous:
            # The store went back to what it was before our intent, as a failover may: nobody wrote, and ours is newer.
            if await self._save_surely(
                State(owner=self._owner, endpoint=self._asked, sign_in=state.sign_in, token=ours), record.version
            ):
                return ours
            raise StoreError("the store went back to an older record, which changed as it was about to be written")
        self._emit("stale_write_refused")
        if state is None and self._grant is not None and self._grant.unattended:
            return ours  # it was forgotten, which signs nobody out: whoever waits has it, and the store stays as it was left
        if state is None or state.kind != "ok" or state.token is None:
            raise LoginRequired("this user was signed out while the token was being renewed: sign in again")
        return state.token

    async def _failed(self, error: OAuthError, state: State, version: int, doubt: Pending | None, renewing: bool) -> OAuthError:
        """Write what is known after *error*, and return what the caller shall get."""
        failures = state.failures + 1
        refused = isinstance(error, InvalidGrant | InvalidClient)
        refusals = state.refusals + 1 if refused else 0
        answer = error
        if isinstance(error, InvalidGrant) and (renewing or (self._grant is not None and not self._grant.unattended)):
            if self._final(state):
                answer = self._dead(error, doubt)
                dead = state.replace(kind="dead", pending=None, failures=0, refusals=0, since=self._clock.time())
                await self._note(dead, version)
                return answer
            answer = TokenUnavailable(f"{error}; by the quirk refusals_before_latch it may pass")
        wait = self.cooldown = self._backoff(failures, answer.retry_after)
        if answer.retryable and not answer.retry_after:
            answer.retry_after = wait
        # An OAuth error in a 4xx answers for this request alone: what an earlier one left in doubt stays so.
        pending = state.pending if error.maybe_spent else doubt
        if error.maybe_spent and renewing:
            self._emit("in_doubt", error)
        self._emit("cooldown_entered", error, wait)
        await self._note(
            state.replace(
                owner=self._owner,
                pending=pending,
                cooldown_until=self._clock.time() + wait,
                failures=failures,
                refusals=refusals,
            ),
            version,
        )
        return answer

    def _final(self, state: State) -> bool:
        return state.refusals + 1 >= self._refusals_before_latch

    def _dead(self, error: InvalidGrant, doubt: Pending | None) -> LoginRequired:
        if doubt is None:
            return LoginRequired("the server refused the refresh token or the code (invalid_grant): sign in again")
        in_doubt = RefreshInDoubt(
            "the server refused the refresh token (invalid_grant) after an earlier answer to it had been lost, in which it may "
            f"have been replaced: sign in again; that answer was to process {doubt.process}"
        )
        in_doubt.since, in_doubt.process = doubt.since, doubt.process
        return in_doubt

    def _backoff(self, failures: int, retry_after: float | None) -> float:
        if retry_after:  # 0 says nothing: it would let each request be one to the server
            return min(retry_after, COOLDOWN_CAP)
        return self._chance(0.0, min(BACKOFF_CAP, 2.0 ** min(failures, 10)))

    def _cooling(self, state: State) -> float:
        """Seconds for which an earlier failure still cools down."""
        wait = state.cooldown_until - self._clock.time()
        # One that is further away than any that is written comes from a clock that was wrong.
        return wait if 0 < wait <= COOLDOWN_CAP else 0.0

    def _wait_for_the_other(self, token: Token) -> NoReturn:
        wait = self._chance(1.0, OTHER_S_RESULT)
        if token.expires_at is not None:
            wait = max(0.0, min(wait, token.expires_at - self._clock.time()))
        self.cooldown = wait
        raise TokenUnavailable("another process may be renewing this token: it serves on until it expires", retry_after=wait)

    # An intent is written under the lock. An outcome is not, for the version that the intent made fences it: who acted since
    # a lease was lost has changed it, and if nobody did, the only copy of a new refresh token is not dropped for that.

    async def _save(self, state: State, version: int, lock: Lock | None = None, after: int | None = None) -> bool:
        record = Record(next_version(version) if after is None else after, self._label, state.to_body())
        return await self._store.save(self._key, record, expected=version, lock=lock)

    async def _save_surely(self, state: State, version: int) -> bool:
        """The same, to its end although this task is cancelled."""
        return await finish(lambda: self._save(state, version), self._shutdown_grace)

    async def _note(self, state: State, version: int) -> bool:
        """Write what is good to know, and return whether it was; where that fails, the caller's error matters more."""
        try:
            return await self._save_surely(state, version)
        except Exception as error:
            self._emit("store_write_failed", error)
            return False

    def _emit(self, name: EventName, error: BaseException | None = None, retry_after: float | None = None) -> None:
        self._events.emit(name, self._label, error, retry_after)
