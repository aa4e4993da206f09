"""The token of one key: what memory holds of it, and where the next one comes from."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ..client.client import Client
from ..errors import (
    ErrorResponse,
    InvalidClient,
    LoginRequired,
    OAuthError,
    StoreError,
    TokenUnavailable,
)
from ..flight import Flight, Flights, Turns, finish
from ..protocol.grants import Grant
from ..token import Token
from .asking import Asking, timeout_of
from .held import BACKGROUND_JITTER, LEEWAY_JITTER, SURE, Held
from .source import Login, Refusal, Wanted

if TYPE_CHECKING:
    from ..stores.store import TokenStore
    from .events import EventName, Events
    from .refresh import Renewal
    from .state import State

__all__ = ("Common", "KeyedToken")

T = TypeVar("T")

NEVER: Final = -math.inf  # one object for all keys
NOTIFY_TIMEOUT: Final = 5.0
# After a renewal in the background that failed without a cool-down of its own: the store, or a login that it would take.
BACKGROUND_PAUSE: Final = 10.0
# A 401 without a reason is taken for an expired token only if the token is old enough to have expired.
MINIMUM_AGE: Final = 10.0
# A token refused so soon after its birth is a strike; after so many, 401s refresh no more until the cool-down is over.
STRIKE_AGE: Final = 10.0
STRIKES: Final = 3
STRIKE_COOLDOWN: Final = 60.0

_log = logging.getLogger("aiohttp_oauth_middleware")


class Common:
    """What the tokens of all keys have in common."""

    __slots__ = (
        "asking",
        "background_refresh",
        "client",
        "events",
        "flights",
        "how",
        "leeway",
        "on_token",
        "owner",
        "resource",
        "shutdown_grace",
        "signed_out",
        "store",
        "turns",
        "unwritten",
    )

    def __init__(
        self,
        *,
        client: Client,
        store: TokenStore,
        owner: str,
        how: Callable[[str], Awaitable[tuple[Grant | None, Login | None]]],
        resource: tuple[str, ...],
        leeway: float,
        background_refresh: bool,
        shutdown_grace: float,
        events: Events,
        on_token: Callable[[Token, str], Awaitable[None] | None] | None,
    ) -> None:
        self.client = client
        self.store = store
        self.owner = owner
        self.how = how
        self.resource = resource
        self.leeway = leeway
        self.background_refresh = background_refresh
        self.shutdown_grace = shutdown_grace
        self.events = events
        self.on_token = on_token
        self.flights: Flights[Token] = Flights()
        self.turns = Turns()
        # These are not on the KeyedToken, for those are dropped when the cache is full.
        # Which sign-in was ended, where that is known, by key.
        self.signed_out: dict[str, str | None] = {}
        # What a store would not take yet, and the version that it would follow.
        self.unwritten: dict[str, tuple[Token, int]] = {}
        self.asking = Asking(client, events)


class KeyedToken:
    """The token of one key."""

    __slots__ = (
        "_clock",
        "_common",
        "_cooldown_until",
        "_failure",
        "_not_in_background_until",
        "_refused_secret",
        "_slot",
        "_strikes",
        "_strikes_until",
        "_written",
        "held",
        "key",
    )

    def __init__(self, key: str, common: Common) -> None:
        self.key = key
        self.held: Held | None = None
        self._common = common
        self._clock = common.client.clock
        from .slot import StateSlot  # with the first token, not with the import of the package

        self._slot = StateSlot(common.store, common.owner, key)
        self._failure: OAuthError | None = None
        self._refused_secret: str | None = None
        self._cooldown_until = NEVER
        self._not_in_background_until = NEVER
        self._strikes = 0
        self._strikes_until = NEVER
        # How often save(), revoke() and forget() came: what a flight brings that began before is older than what they left.
        self._written = 0

    def ready(self) -> Token | None:
        """The token in memory, if it is fresh by both clocks."""
        held = self.held
        if held is None or not held.fresh(self._clock):
            return None
        held.sure_until = min(held.due, self._clock.monotonic() + SURE)
        return held.token

    async def token(self, refused: Refusal | None) -> Token:
        """The token to use now that memory has none that is fresh, or that the one it has was *refused*."""
        await self._check_signed_out_anywhere()
        held = self.held
        if refused is not None and refused.token is not None:
            if held is None:  # dropped from memory meanwhile: the store tells whether what was refused is current
                held = await self._from_store()
            verdict = refused.verdict
            current = held is not None and held.token.access_token == refused.token.access_token
            if verdict == "more wanted" and (current or held is None):
                _, login = await self._how()
                if login is None or self._common.asking.refusal(self.key, step_up=True) is not None:
                    return refused.token
                try:
                    return await self._by_login(login, refused.wanted, forced=True, step_up=True)
                except OAuthError as error:
                    if error.retryable:
                        raise
                    return refused.token  # nobody gives more: the response is what there is
            if verdict == "other":
                return refused.token
            # Only the token that is current is renewed: one that was replaced meanwhile says nothing of its successor.
            if held is not None and current:
                if not self._worth_renewing(held, bare=verdict == "perhaps expired"):
                    return refused.token
                held.refuse()
        held = self.held
        if held is not None and held.fresh(self._clock):
            return held.token
        return await self._renewed()

    async def log_in(self) -> Token:
        """A new token, whatever there is; it lifts what a refused login had latched."""
        self._common.asking.forgive(self.key)
        self._failure = None
        self._cooldown_until = NEVER
        grant, login = await self._how()
        if login is not None:
            return await self._by_login(login, Wanted(), forced=True)
        if grant is None:
            raise LoginRequired("Tokens.login: there is neither a grant nor a Login; use save()").about(self.key)
        self._common.signed_out.pop(self.key, None)
        return await self._common.flights.join(self.key, lambda flight: self._renew(flight, anew=True))

    # What changes the record by the user's will: one after another, so that memory holds what the store was told last.

    async def save(self, token: Token) -> None:
        """Put *token* in place of whatever there is."""
        async with self._common.turns.turn(self.key):
            await self._slot.keep(token)
            self._changed()
            self._common.signed_out.pop(self.key, None)
            self._common.asking.forgive(self.key)
            self._hold(token)
        await self._notify(token)

    async def revoke(self) -> None:
        """Sign out, here at once, then at the server, then in the store."""
        self._sign_out_here()
        async with self._common.turns.turn(self.key):
            self._sign_out_here()  # also of what a save() before us has brought
            await self._settle()
            await self._slot.sign_out(self._revoke_at_server, now=self._clock.time())
            self._sign_out_here()
            self._remember_unwritten(None)
            # From now on the store says it, and says too when somebody signs in again elsewhere.
            self._common.signed_out.pop(self.key, None)
        self._emit("signed_out")

    def _sign_out_here(self) -> None:
        self._common.signed_out.setdefault(self.key, None)
        self._written += 1
        self.held = None

    async def _revoke_at_server(self, state: State) -> None:
        if state.token is None or state.kind == "signed_out":
            return
        self._common.signed_out[self.key] = state.sign_in
        client = self._common.client
        if (await client.metadata()).revocation_endpoint is None:
            _log.warning("%r has no revocation endpoint: the tokens are dropped here, and live on there", client)
            return
        # A newer one that the store would not take is the one that counts at the server.
        unwritten = self._common.unwritten.get(self.key)
        for token in (unwritten[0], state.token) if unwritten is not None else (state.token,):
            if token.refresh_token:
                await client.revoke(token.refresh_token, "refresh_token")
            try:
                await client.revoke(token.access_token, "access_token")
            except ErrorResponse as error:
                # RFC 7009 section 2.2.1: some servers revoke refresh tokens only, and the access token with them.
                if error.error != "unsupported_token_type":
                    raise

    async def forget(self) -> None:
        """Drop it here, without telling the server."""
        async with self._common.turns.turn(self.key):
            await self._settle()
            await self._slot.delete()
            self._changed()
            self.held = None
            self._common.signed_out.pop(self.key, None)

    def _changed(self) -> None:
        self._written += 1
        self._remember_unwritten(None)

    # How it is renewed.

    async def _renewed(self) -> Token:
        if self.held is None and self._common.background_refresh:
            with contextlib.suppress(LoginRequired):  # below there may be somebody to ask
                await self._from_store()
        held = self.held
        wait = self._cooldown_until - self._clock.monotonic()
        heed_cooldown = True
        if wait > 0:
            if held is not None and held.usable(self._clock):
                return held.token
            failure = self._failure
            heed_cooldown = not await self._has_another_secret()
            if heed_cooldown and failure is not None:
                with contextlib.suppress(StoreError):
                    if (another := await self._another_in_store(held)) is not None:
                        return another
                raise self._while_cooling(failure, wait)
        elif self._common.background_refresh and held is not None and held.usable(self._clock):
            if self._clock.monotonic() >= self._not_in_background_until:
                self._common.flights.launch(self.key, self._renew_in_background)
            return held.token
        try:
            token = await self._common.flights.join(self.key, lambda flight: self._renew(flight, heed_cooldown=heed_cooldown))
        except LoginRequired as error:
            held = self.held
            if held is not None and held.usable(self._clock) and not self._is_signed_out():
                return held.token
            _, login = await self._how()
            if login is None or self._is_signed_out():
                raise
            if (refusal := self._common.asking.refusal(self.key, step_up=False)) is not None:
                raise refusal.again() from error
            return await self._by_login(login, Wanted(), forced=False)
        except OAuthError:
            # A token that is still valid serves on while its renewal fails.
            held = self.held
            if held is not None and held.usable(self._clock) and not self._is_signed_out():
                return held.token
            raise
        self._check_signed_out()
        return token

    async def _another_in_store(self, held: Held | None) -> Token | None:
        """A valid token that somebody else has got meanwhile."""
        written = self._written
        state = await self._slot.load()
        token = state.token if state.kind == "ok" and self._written == written else None
        if token is None or (held is not None and token.access_token == held.token.access_token) or not self._serves(token):
            return None
        self._hold(token)
        return token

    async def _renew(self, flight: Flight[Token], *, anew: bool = False, heed_cooldown: bool = True) -> Token:
        """The work of a flight: what the store has, a refresh, or the grant."""
        from .refresh import UNATTENDED_TRIES, Renewal  # when there is something to renew, not before

        common = self._common
        written = self._written
        renewal: Renewal | None = None
        try:
            seen = self.held
            if seen is None and not anew:
                seen = await self._from_store()
            # Also where another thread has put it there since the caller looked.
            if seen is not None and not anew and seen.fresh(self._clock):
                return seen.token
            grant, _ = await self._how()
            renewal = Renewal(
                key=self._slot.key,
                label=self.key,
                owner=common.owner,
                store=common.store,
                obtain=self._obtain,
                clock=self._clock,
                grant=grant,
                events=common.events,
                budget=common.client.timeout,
                # Longer than a lease (RedisStore) that should be three timeouts long: after that a dead holder's lock is free.
                lock_wait=3 * common.client.timeout + 2 * common.shutdown_grace,
                shutdown_grace=common.shutdown_grace,
                refusals_before_latch=common.client.quirks.refusals_before_latch,
                publish=lambda token: self._publish(token, flight, written),
                endpoint=common.client.discovered_token_endpoint,
                unwritten=common.unwritten.get(self.key),
            )
            token = await renewal.run(
                seen.token if seen is not None else None,
                fresh=lambda stored: self._as_held(stored).fresh(self._clock),
                usable=self._serves,
                tries=1 if seen is not None and seen.usable(self._clock) else UNATTENDED_TRIES,
                anew=anew,
                heed_cooldown=heed_cooldown,
            )
        except OAuthError as error:
            await self._remember(error, renewal.cooldown if renewal is not None else 0.0)
            error.about(self.key)
            raise
        except Exception as error:
            failure = StoreError(f"the token store raised {type(error).__name__}").about(self.key)
            raise failure from error
        finally:
            if renewal is not None and self._written == written:
                self._remember_unwritten(renewal.unwritten)
        if self._written != written:
            if self.held is not None:
                return self.held.token
            if self._is_signed_out():
                raise LoginRequired("this user was signed out while the token was being renewed: sign in again").about(self.key)
            return await self._renew(flight)  # forgotten, or signed out and in again: begin anew with what is there now
        self._hold(token)
        await self._notify(token)
        return token

    def _remember_unwritten(self, unwritten: tuple[Token, int] | None) -> None:
        if unwritten is not None:
            self._common.unwritten[self.key] = unwritten
        else:
            self._common.unwritten.pop(self.key, None)

    async def _renew_in_background(self, flight: Flight[Token]) -> Token:
        """The same with nobody who waits, unless somebody joins; what it raises is told by an event."""
        try:
            return await self._renew(flight)
        except OAuthError as error:
            self._not_in_background_until = self._clock.monotonic() + BACKGROUND_PAUSE
            self._emit("background_refresh_failed", error)
            raise

    async def _obtain(self, grant: Grant | None, previous: Token | None) -> Token:
        client, grace = self._common.client, self._common.shutdown_grace
        if previous is not None:
            # RFC 8707 section 2.2: the resource is sent with a refresh too, or the server may choose another audience.
            return await client.refresh(previous, resource=self._common.resource, shutdown_grace=grace)
        assert grant is not None
        return await client.fetch_token(grant, shutdown_grace=grace)

    async def _remember(self, error: OAuthError, cooldown: float) -> None:
        if cooldown > 0:
            self._failure = error
            self._cooldown_until = self._clock.monotonic() + cooldown
        if isinstance(error, InvalidClient):
            self._refused_secret = await self._common.client.fingerprint()

    async def _has_another_secret(self) -> bool:
        """Whether the client was refused, and its secret's callable yields another one by now."""
        return isinstance(self._failure, InvalidClient) and await self._common.client.fingerprint() != self._refused_secret

    def _while_cooling(self, failure: OAuthError, wait: float) -> OAuthError:
        if not failure.retryable:
            return failure.again()
        error = TokenUnavailable(f"{failure}; the next request for a token is made in {wait:.0f} s", retry_after=wait)
        error.__cause__ = failure.__cause__
        return error.about(self.key)

    def _worth_renewing(self, held: Held, *, bare: bool) -> bool:
        """Whether a new token may please a server that refused this one; a server that refuses them all is left alone."""
        if not held.fresh(self._clock):
            # It is settled already, and this is another request that went out with it; or it is due anyway, and that it was
            # refused is no wonder.
            return True
        now = self._clock.monotonic()
        age = now - held.born
        if (bare and age < MINIMUM_AGE) or now < self._strikes_until:
            return False
        self._strikes = self._strikes + 1 if age < STRIKE_AGE else 0
        if self._strikes < STRIKES:
            return True
        self._strikes, self._strikes_until = 0, now + STRIKE_COOLDOWN
        _log.warning(
            "%d tokens in a row were refused within %.0f s of their birth: a 401 renews no more for %.0f s",
            STRIKES,
            STRIKE_AGE,
            STRIKE_COOLDOWN,
        )
        return False

    # How somebody logs in.

    async def _by_login(self, login: Login, wanted: Wanted, *, forced: bool, step_up: bool = False) -> Token:
        """One login at a time; it stops when nobody waits for it any more."""
        return await self._common.flights.join(
            (self.key, "login"), lambda flight: self._log_in(login, wanted, forced, step_up), cancel_when_unwanted=True
        )

    async def _log_in(self, login: Login, wanted: Wanted, forced: bool, step_up: bool) -> Token:
        try:
            async with self._common.store.lock(f"{self._slot.key} login", wait=timeout_of(login)):
                if not forced and (found := await self._from_store()) is not None and found.usable(self._clock):
                    return found.token  # somebody signed in meanwhile
                token = await self._common.asking.ask(login, wanted, self.key, step_up=step_up)
                # Under the lock still, so that whoever waits for it finds the token; and to its end, for the login is spent.
                try:
                    await finish(lambda: self.save(token), self._common.shutdown_grace)
                except StoreError as error:  # asking the person again would not mend the store
                    self._emit("store_write_failed", error)
                    self._hold(token)
        except OAuthError:
            raise
        except Exception as error:
            raise StoreError(f"the token store raised {type(error).__name__}").about(self.key) from error
        self._emit("login_succeeded")
        return token

    # What memory and the store hold.

    def _as_held(self, token: Token) -> Held:
        common, clock = self._common, self._clock
        jitter = BACKGROUND_JITTER if common.background_refresh else LEEWAY_JITTER
        return Held(token, clock.monotonic(), clock.time(), common.leeway, random.random(), jitter)

    def _serves(self, stored: Token) -> bool:
        """Whether a stored token is valid, and was not refused here."""
        held = self.held
        if held is None or held.token.access_token != stored.access_token:
            held = self._as_held(stored)
        return held.usable(self._clock)

    def _hold(self, token: Token) -> None:
        self.held = self._as_held(token)
        self._failure = None
        self._cooldown_until = NEVER

    def _publish(self, token: Token, flight: Flight[Token], written: int) -> None:
        if self._written == written:
            self._hold(token)
        flight.land(token)

    async def _check_signed_out_anywhere(self) -> None:
        """The same, but for whoever signed in again elsewhere after a sign-out here that could not be finished."""
        ended = self._common.signed_out.get(self.key)
        if ended is not None:
            state = await self._slot.load()
            if state.kind == "ok" and state.sign_in not in (None, ended):
                self._common.signed_out.pop(self.key, None)
        self._check_signed_out()

    def _is_signed_out(self) -> bool:
        return self.key in self._common.signed_out

    def _check_signed_out(self) -> None:
        if self._is_signed_out():
            raise LoginRequired("this user is signed out: sign in again").about(self.key)

    async def _from_store(self) -> Held | None:
        written, before = self._written, self.held
        state = await self._slot.load()
        if state.kind == "signed_out":
            raise LoginRequired("this user is signed out: sign in again")
        if state.token is None:
            return None
        held = self._as_held(state.token)
        # Of two who look at once, the one who looked first may be told last: memory doesn't go back to what he was told.
        unchanged = self._written == written and self.held is before
        if unchanged and (state.kind == "ok" or held.usable(self._clock)):
            self.held = held
        return held if state.kind == "ok" else None

    async def _settle(self) -> None:
        """Wait until no renewal of this key is under way on this loop."""
        for flight in self._common.flights.under_way(self.key):
            await asyncio.wait([flight.task])

    async def _how(self) -> tuple[Grant | None, Login | None]:
        return await self._common.how(self.key)

    async def _notify(self, token: Token) -> None:
        if self._common.on_token is None:
            return
        try:
            done = self._common.on_token(token, self.key)
            if inspect.isawaitable(done):
                async with asyncio.timeout(NOTIFY_TIMEOUT):  # others wait for this token
                    await done
        except Exception as error:
            _log.warning("on_token raised %s; the token is stored all the same", type(error).__name__)

    def _emit(self, name: EventName, error: BaseException | None = None) -> None:
        self._common.events.emit(name, self.key, error)
