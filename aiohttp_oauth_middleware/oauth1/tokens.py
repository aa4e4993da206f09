"""The tokens of many users, in a store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import (
    ConfigurationError,
    ErrorResponse,
    InvalidClient,
    LoginRequired,
    OAuthError,
    StoreCorrupted,
    StoreError,
    key_id,
)
from ..flight import Flights, Turns, finish
from ..sources.key import called_key, check_key_argument, checked_key
from ..sources.slot import Slot
from ..stores.store import Record, TokenStore, check_store
from ..value import Value, check_number
from .token import OAuth1Token

if TYPE_CHECKING:
    from .client import OAuth1Client

__all__ = ("OAuth1TokenSource", "OAuth1Tokens")

SCHEMA: Final = 1
# After a renewal, whether it failed or not, none is tried for so many seconds.
COOLDOWN: Final = 10.0
# Seconds before its expiry at which a token is renewed.
LEEWAY: Final = 60.0
SHUTDOWN_GRACE: Final = 5.0
_OWNER: Final = "OAuth1Tokens"
# What a server may complain of that signing in again would not mend.
_OF_THE_REQUEST: Final = frozenset(
    {"version_rejected", "parameter_absent", "parameter_rejected", "timestamp_refused", "nonce_used"}
    | {"signature_method_rejected", "additional_authorization_required"}
)

_log = logging.getLogger("aiohttp_oauth_middleware")


class _Kept(Value):
    """What the store holds for a key."""

    __slots__ = ("owner", "token")

    owner: str
    token: OAuth1Token

    def __init__(self, owner: str, token: OAuth1Token) -> None:
        self._freeze(owner=owner, token=token)

    def to_body(self) -> bytes:
        try:
            return json.dumps(
                {"schema": SCHEMA, "owner": self.owner, "oauth1": self.token.to_dict()}, separators=(",", ":")
            ).encode()
        except (TypeError, ValueError, RecursionError):
            pass
        raise ConfigurationError(f"{_OWNER}.save: token has something in its extra that JSON can't say")


class OAuth1TokenSource(Protocol):
    """Anything that yields a token. A class of the user's own that has this method is one."""

    async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
        """The token to sign with. *refused* is one that the server says has expired; the same back: there is no better."""


class _Held:
    """What is known of one key.

    :ivar until: by the monotonic clock: before it no renewal is tried, unless there is nothing to go on with.
    :ivar failure: why the last one failed.
    :ivar dead: whether the server has refused to renew this token for good.
    :ivar unsaved: the record that this token could not be put in place of, and is to be.
    """

    __slots__ = ("dead", "failure", "token", "unsaved", "until")

    def __init__(self, token: OAuth1Token, until: float = -math.inf) -> None:
        self.token = token
        self.until = until
        self.failure: OAuthError | None = None
        self.dead = False
        self.unsaved: Record | None = None


class OAuth1Tokens:
    """The tokens of one user, or of many, kept in a store.

    They come from :meth:`OAuth1Client.fetch_access_token`, by way of :meth:`save`. Most never expire. Those of a server with
    the Session extension are renewed at *renewal_url*: before they expire, and when the server says that they have; one at a
    time for each key, whoever else uses the store, and stored before anybody gets it. Where the store fails just then, the new
    token is used out of memory, for the old one is no good any more, and written when the store works again.

    :param store: where they are kept; a :class:`MemoryStore` if None.
    :param key: whose token it is: a string, or a callable that returns one, such as a ContextVar's ``get``. One that raises
        LookupError or returns None is a ConfigurationError, never somebody else's token.
    :param client: whose tokens they are: to be named where several clients share a store, and for renewals. Two clients with
        the same id, at two servers, need a store each.
    :param renewal_url: of the server's Token Request endpoint.
    :param cache_size: how many tokens are kept in memory besides the store.
    :raises ConfigurationError: where an argument can't work.
    """

    def __init__(
        self,
        store: TokenStore | None = None,
        *,
        key: str | Callable[[], str] = "default",
        client: OAuth1Client | None = None,
        renewal_url: str | None = None,
        cache_size: int = 10_000,
    ) -> None:
        check_key_argument(_OWNER, key)
        check_number(f"{_OWNER}: cache_size", cache_size, "tokens", least=1)
        if store is None:
            from ..stores.memory import MemoryStore

            store = MemoryStore()
        check_store(_OWNER, store)
        if client is not None:
            from .client import OAuth1Client

            if not isinstance(client, OAuth1Client):
                raise ConfigurationError(f"{_OWNER}: client must be an OAuth1Client")
        if renewal_url is not None:
            if client is None:
                raise ConfigurationError(f"{_OWNER}: renewal_url needs client, which makes the renewal")
            client.check_endpoint(f"{_OWNER}: renewal_url", renewal_url)
        self._store: TokenStore = store
        self._key = key
        self._client = client
        self._renewal_url = renewal_url
        self._cache_size = cache_size
        self._cache: OrderedDict[str, _Held] = OrderedDict()
        self._flights: Flights[OAuth1Token] = Flights()
        self._turns = Turns()  # so that memory holds what the store was told last
        self._owner = hashlib.sha256(f"oauth1\0{client.client_id if client is not None else ''}".encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<OAuth1Tokens of {self._client!r}>" if self._client is not None else "<OAuth1Tokens>"

    async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
        """The token of whoever ``key=`` says.

        :param refused: one that the server says has expired; the same back says that there is nothing better.
        :raises LoginRequired: none is stored, or it has expired and can't be renewed.
        :raises TokenUnavailable: it has to be renewed, and the server can't answer now.
        :raises StoreError: the store failed.
        """
        return await self._token_of(self._named(None), refused)

    def for_key(self, key: str) -> OAuth1TokenSource:
        """The token of one key, as a source of its own."""
        return _ForKey(self, checked_key(_OWNER, key))

    async def save(self, token: OAuth1Token, *, key: str | None = None) -> None:
        """Store *token* in place of any other.

        :param key: whose; if None, whoever ``key=`` of the constructor says.
        """
        if not isinstance(token, OAuth1Token):
            raise ConfigurationError(f"{_OWNER}.save: token must be an OAuth1Token; OAuth1Token.from_dict makes one of a dict")
        name = self._named(key)
        async with self._turns.turn(name):
            await self._slot(name).put(_Kept(self._owner, token))
            self._hold(name, token)

    async def forget(self, *, key: str | None = None) -> None:
        """Drop the token, in memory and in the store. OAuth 1 has no way to tell the server.

        :param key: whose; if None, whoever ``key=`` of the constructor says.
        """
        name = self._named(key)
        if self._renewal_url is None:
            await self._forget(name)
            return
        async with self._locked(name):  # after a renewal that is under way, wherever that is
            await self._forget(name)

    async def keys(self) -> AsyncIterator[str]:
        """The keys of the users who have a token in the store."""
        try:
            async for store_key in self._store.keys():
                record = await self._store.load(store_key)
                if record is not None and f'"owner":"{self._owner}"'.encode() in record.body:
                    yield record.key_label
        except OAuthError:
            raise
        except Exception as error:
            raise StoreError(f"the token store raised {type(error).__name__}") from error

    async def aclose(self) -> None:
        """Wait for the renewals that are under way on this loop, and release the store. The tokens stay in it."""
        for flight in self._flights.under_way():
            await asyncio.wait([flight.task])
        for key, held in list(self._cache.items()):
            if held.unsaved is not None:
                held.until = -math.inf
                await self._write(key, held)
        await self._store.aclose()

    def _named(self, key: str | None) -> str:
        if key is not None:
            return checked_key(_OWNER, key)
        return self._key if isinstance(self._key, str) else called_key(_OWNER, self._key)

    async def _token_of(self, key: str, refused: OAuth1Token | None) -> OAuth1Token:
        held = self._cached(key) or await self._from_store(key)
        if held.unsaved is not None and await self._write(key, held):
            held = self._cached(key) or await self._from_store(key)
        token, client, url = held.token, self._client, self._renewal_url
        if refused is not None and token != refused:
            return token  # it was replaced meanwhile
        if client is None or url is None or token.oauth_session_handle is None:
            # Perhaps the user has signed in again, at another process.
            return token if refused is None else (await self._from_store(key, anew=True)).token
        clock = client.signer.clock
        now, resting = clock.time(), clock.monotonic() < held.until
        if not token.is_expired(now) and ((resting and held.failure is None) or not _is_due(token, refused, now)):
            return token
        try:
            return await self._flights.join(key, lambda flight: self._renew(key, held, client, url))
        except OAuthError:
            if refused is not None or token.is_expired(clock.time()):
                raise
            return token  # it serves on while it can

    async def _renew(self, key: str, held: _Held, client: OAuth1Client, url: str) -> OAuth1Token:
        """The work of a flight: what another process has stored meanwhile, or a renewal."""
        clock = client.signer.clock
        failure = held.failure
        if failure is None or clock.monotonic() >= held.until:
            try:
                async with self._locked(key):
                    record = await self._slot(key).record()
                    stored = self._token_in(key, record)
                    if stored != held.token and (held.unsaved is None or record != held.unsaved):
                        return self._hold(key, stored).token
                    if not held.dead or failure is None:
                        # To its end, also where the loop ends: the server has made the old token invalid.
                        return await finish(lambda: self._renewed(key, held, record, client, url), SHUTDOWN_GRACE)
            except ErrorResponse as error:
                failure = _refusal(error).about(key)
                held.dead = isinstance(failure, LoginRequired)
            except OAuthError as error:
                failure = error.about(key)
            held.failure = failure.again()
            held.until = clock.monotonic() + max(COOLDOWN, failure.retry_after or 0.0)
        twin = failure.again()
        if twin.retryable:
            twin.retry_after = max(0.0, held.until - clock.monotonic())
        raise twin

    async def _renewed(self, key: str, held: _Held, record: Record | None, client: OAuth1Client, url: str) -> OAuth1Token:
        new = await client.renew_access_token(url, held.token)
        async with self._turns.turn(key):
            better = _Held(new, client.signer.clock.monotonic() + COOLDOWN)
            better.unsaved = record
            try:
                if await self._replaced(key, record, new):
                    better.unsaved = None
                    self._keep(key, better)
                    return new
            except StoreError as error:
                problem = type(error.__cause__ or error).__name__
                _log.warning("a renewed token is kept in memory, for the store failed (%s) key=%s", problem, key_id(key))
                self._keep(key, better)
                return new
            # Another was saved, or this one forgotten, meanwhile: that counts.
            return self._hold(key, self._token_in(key, await self._slot(key).record())).token

    async def _replaced(self, key: str, record: Record | None, token: OAuth1Token) -> bool:
        slot, kept = self._slot(key), _Kept(self._owner, token)
        try:
            return await slot.replaced(record, kept)
        except StoreError:
            return await slot.replaced(record, kept)  # once more, at once

    async def _write(self, key: str, held: _Held) -> bool:
        """Write what could not be written before, if that is still to be; whether it was tried with an outcome."""
        assert self._client is not None
        monotonic = self._client.signer.clock.monotonic
        async with self._turns.turn(key):
            record = held.unsaved
            if record is None or monotonic() < held.until:
                return False
            held.until = monotonic() + COOLDOWN
            try:
                if not await self._slot(key).replaced(record, _Kept(self._owner, held.token)):
                    self._cache.pop(key, None)  # what is there by now counts
            except StoreError as error:
                _log.warning("the store fails still (%s) key=%s", type(error.__cause__ or error).__name__, key_id(key))
                return False
            held.unsaved = None
            return True

    async def _forget(self, key: str) -> None:
        async with self._turns.turn(key):
            await self._slot(key).delete()
            self._cache.pop(key, None)

    @asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[None]:
        assert self._client is not None
        try:
            async with self._store.lock(self._slot(key).key, wait=2 * self._client.timeout + SHUTDOWN_GRACE):
                yield
        except OAuthError:
            raise
        except Exception as error:
            raise StoreError(f"the token store raised {type(error).__name__}").about(key) from error

    def _cached(self, key: str) -> _Held | None:
        try:
            self._cache.move_to_end(key)
            return self._cache[key]
        except KeyError:
            return None

    async def _from_store(self, key: str, *, anew: bool = False) -> _Held:
        async with self._turns.turn(key):
            return (None if anew else self._cached(key)) or self._hold(key, self._token_in(key, await self._slot(key).record()))

    def _hold(self, key: str, token: OAuth1Token) -> _Held:
        """Keep what the store has."""
        held = self._cache.get(key)
        if held is None or held.token != token:
            held = _Held(token)
        held.unsaved = None
        self._keep(key, held)
        return held

    def _keep(self, key: str, held: _Held) -> None:
        self._cache[key] = held
        for _ in range(len(self._cache) - self._cache_size):
            oldest = next(iter(self._cache))
            if self._cache[oldest].unsaved is None:
                del self._cache[oldest]
            else:
                self._cache.move_to_end(oldest)

    def _slot(self, key: str) -> Slot:
        return Slot(self._store, self._owner, key)

    def _token_in(self, key: str, record: Record | None) -> OAuth1Token:
        if record is None:
            raise LoginRequired(
                "no token is stored for this user: sign in, and save() what fetch_access_token() returns"
            ).about(key)
        try:
            data = json.loads(record.body)
            if data["schema"] == SCHEMA:
                return OAuth1Token.from_dict(data["oauth1"])
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        finally:
            data = None
        raise StoreCorrupted("a record in the token store can't be read, or is of another version of this package").about(key)


def _is_due(token: OAuth1Token, refused: OAuth1Token | None, now: float) -> bool:
    return refused is not None or token.is_expired(now + LEEWAY)


def _refusal(error: ErrorResponse) -> OAuthError:
    """What it means that a renewal was refused with *error*: that the user has to sign in, unless that would not help."""
    named = bool(error.error)
    if (
        (named and isinstance(error, InvalidClient))
        or error.error in _OF_THE_REQUEST
        or error.status not in (200, 400, 401, 403)
    ):
        return error
    login = LoginRequired("the server refused to renew the token: sign in again")
    login.__cause__ = error
    return login


class _ForKey:
    """The tokens of one key."""

    def __init__(self, tokens: OAuth1Tokens, key: str) -> None:
        self._tokens, self._key = tokens, key

    def __repr__(self) -> str:
        return f"{self._tokens!r}.for_key(…)"

    async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
        return await self._tokens._token_of(self._key, refused)
