"""The tokens of many users, in a store."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import ConfigurationError, ErrorResponse, LoginRequired, OAuthError, StoreCorrupted, StoreError
from ..flight import Flights, finish
from ..sources.key import called_key, check_key_argument, checked_key
from ..sources.slot import Slot
from ..stores.store import Record, TokenStore, check_store
from ..value import check_number
from .token import OAuth1Token

if TYPE_CHECKING:
    from .client import OAuth1Client

__all__ = ("OAuth1TokenSource", "OAuth1Tokens")

SCHEMA: Final = 1
# After a renewal that failed, none is tried for so many seconds.
COOLDOWN: Final = 10.0
# Seconds before its expiry at which a token is renewed.
LEEWAY: Final = 60.0
SHUTDOWN_GRACE: Final = 5.0
_OWNER: Final = "OAuth1Tokens"


class OAuth1TokenSource(Protocol):
    """Anything that yields a token. A class of the user's own that has this method is one."""

    async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
        """The token to sign with. *refused* is one that the server says has expired; the same back: there is no better."""


class OAuth1Tokens:
    """The tokens of one user, or of many, kept in a store.

    They come from :meth:`OAuth1Client.fetch_access_token`, by way of :meth:`save`. Most never expire. Those of a server with
    the Session extension are renewed at *renewal_url*: before they expire, and when the server says that they have; one at a
    time for each key, whoever else uses the store, and stored before anybody gets it.

    :param store: where they are kept; a :class:`MemoryStore` if None.
    :param key: whose token it is: a string, or a callable that returns one, such as a ContextVar's ``get``. One that raises
        LookupError or returns None is a ConfigurationError, never somebody else's token.
    :param client: whose tokens they are: to be named where several clients share a store, and for renewals.
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
        if renewal_url is not None and client is None:
            raise ConfigurationError(f"{_OWNER}: renewal_url needs client, which makes the renewal")
        self._store: TokenStore = store
        self._key = key
        self._client = client
        self._renewal_url = renewal_url
        self._cache_size = cache_size
        self._cache: OrderedDict[str, OAuth1Token] = OrderedDict()
        self._flights: Flights[OAuth1Token] = Flights()
        self._failures: dict[str, tuple[float, OAuthError]] = {}
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
        await self._slot(name).put(self._body_of(token))
        self._hold(name, token)

    async def forget(self, *, key: str | None = None) -> None:
        """Drop the token, in memory and in the store. OAuth 1 has no way to tell the server.

        :param key: whose; if None, whoever ``key=`` of the constructor says.
        """
        name = self._named(key)
        await self._slot(name).delete()
        self._cache.pop(name, None)
        self._failures.pop(name, None)

    async def keys(self) -> AsyncIterator[str]:
        """The keys of the users who have a token in the store."""
        async for store_key in self._store.keys():
            record = await self._store.load(store_key)
            if record is not None and f'"owner":"{self._owner}"'.encode() in record.body:
                yield record.key_label

    async def aclose(self) -> None:
        """Wait for the renewals that are under way on this loop, and release the store. The tokens stay in it."""
        for flight in self._flights.under_way():
            await asyncio.wait([flight.task])
        await self._store.aclose()

    def _named(self, key: str | None) -> str:
        if key is not None:
            return checked_key(_OWNER, key)
        return self._key if isinstance(self._key, str) else called_key(_OWNER, self._key)

    async def _token_of(self, key: str, refused: OAuth1Token | None) -> OAuth1Token:
        token = self._cached(key) or await self._from_store(key)
        if refused is not None and token != refused:
            return token  # it was replaced meanwhile
        client, url = self._client, self._renewal_url
        if client is None or url is None or token.oauth_session_handle is None:
            return token
        if refused is None and not token.is_expired(client.signer.clock.time() + LEEWAY):
            return token
        return await self._flights.join(key, lambda flight: self._renew(key, token, client, url))

    async def _renew(self, key: str, token: OAuth1Token, client: OAuth1Client, url: str) -> OAuth1Token:
        """The work of a flight: what another process has stored meanwhile, or a renewal."""
        clock, slot = client.signer.clock, self._slot(key)
        until, failure = self._failures.get(key, (0.0, None))
        if failure is None or clock.monotonic() >= until:
            try:
                async with self._store.lock(slot.key, wait=2 * client.timeout + SHUTDOWN_GRACE):
                    stored = self._token_in(await slot.record())
                    if stored != token:
                        self._hold(key, stored)
                        return stored
                    # To its end, also where the loop ends: the server has made the old token invalid.
                    return await finish(lambda: self._renewed(key, token, client, url), SHUTDOWN_GRACE)
            except ErrorResponse as error:
                failure = LoginRequired("the server refused to renew the token: sign in again").about(key)
                failure.__cause__ = error
            except OAuthError as error:
                failure = error.about(key)
            except Exception as error:
                failure = StoreError(f"the token store raised {type(error).__name__}").about(key)
                failure.__cause__ = error
            self._failures[key] = clock.monotonic() + COOLDOWN, failure.again()
        if not token.is_expired(clock.time()) and failure.retryable:
            return token  # it serves on while it can
        raise failure.again()

    async def _renewed(self, key: str, token: OAuth1Token, client: OAuth1Client, url: str) -> OAuth1Token:
        new = await client.renew_access_token(url, token)
        await self._slot(key).put(self._body_of(new))
        self._hold(key, new)
        return new

    def _cached(self, key: str) -> OAuth1Token | None:
        try:
            self._cache.move_to_end(key)
            return self._cache[key]
        except KeyError:
            return None

    async def _from_store(self, key: str) -> OAuth1Token:
        token = self._token_in(await self._slot(key).record())
        self._hold(key, token)
        return token

    def _hold(self, key: str, token: OAuth1Token) -> None:
        self._cache[key] = token
        self._failures.pop(key, None)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)

    def _slot(self, key: str) -> Slot:
        return Slot(self._store, self._owner, key)

    def _body_of(self, token: OAuth1Token) -> bytes:
        data = {"schema": SCHEMA, "owner": self._owner, "oauth1": token.to_dict()}
        return json.dumps(data, separators=(",", ":")).encode()

    def _token_in(self, record: Record | None) -> OAuth1Token:
        if record is None:
            raise LoginRequired("no token is stored for this user: sign in, and save() what fetch_access_token() returns")
        try:
            data = json.loads(record.body)
            if data["schema"] == SCHEMA:
                return OAuth1Token.from_dict(data["oauth1"])
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        finally:
            data = None
        raise StoreCorrupted("a record in the token store can't be read, or is of another version of this package")


class _ForKey:
    """The tokens of one key."""

    def __init__(self, tokens: OAuth1Tokens, key: str) -> None:
        self._tokens, self._key = tokens, key

    def __repr__(self) -> str:
        return f"{self._tokens!r}.for_key(…)"

    async def token(self, refused: OAuth1Token | None = None) -> OAuth1Token:
        return await self._tokens._token_of(self._key, refused)
