"""The everyday source: memory, then a single flight, then the store, then a refresh, then the grant."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ..client.client import Client
from ..errors import ConfigurationError, OAuthError
from ..protocol.grants import Grant
from ..token import Token
from ..value import check_flags, check_number
from .key import called_key, check_key_argument, checked_key
from .source import Login, Refusal, TokenSource

if TYPE_CHECKING:
    from ..stores.store import TokenStore
    from .events import Event
    from .keyed import KeyedToken

__all__ = ("Tokens",)

GrantOfKey = Callable[[str], "Grant | Login | Awaitable[Grant | Login]"]

_NEEDS_A_GRANT: Final = "grant must be a grant such as ClientCredentials(), a Login, or a function of the key that returns one"


class Tokens:
    """The tokens of one client: of one user, or of many.

    It may be made at import time and used from several loops and threads. Of all who need a new token of the same key at once,
    one request is made; it is nobody's to cancel, and its result is in the store before anybody gets it.

    :param client: who we are, and where tokens come from.
    :param grant: how they are earned: a grant; a :class:`Login`; None where there are stored ones only; or a function of the
        key that returns a grant or a Login, to act on behalf of each user. The function is called in an empty context: what
        it needs it looks up by the key, not in a ContextVar. It takes one argument: a coroutine function that can take two is a
        Login.
    :param store: where they are kept; a :class:`MemoryStore` if None.
    :param key: whose token it is: a string, or a callable that returns one, such as a ContextVar's ``get``. One that raises
        LookupError or returns None is a ConfigurationError, never somebody else's token.
    :param leeway: seconds before its expiry at which a token is renewed, at most 20 % of its lifetime.
    :param background_refresh: whether a token that is due is still served while a new one is fetched, so that no request waits
        for that. It is started by a request, never by a timer: a token that nobody asks for expires.
    :param cache_size: how many keys are kept in memory besides the store.
    :param shutdown_grace: seconds for which the end of the loop waits for an answer that is under way.
    :param on_token: called with the token and its key after it was stored; a notification, whose failure is logged. It may be
        a coroutine function, of which 5 seconds are waited for.
    :param on_event: called with each :class:`Event`; it must not block.
    :raises ConfigurationError: where an argument can't work.
    """

    def __init__(
        self,
        client: Client,
        grant: Grant | Login | GrantOfKey | None = None,
        *,
        store: TokenStore | None = None,
        key: str | Callable[[], str] = "default",
        leeway: float = 60.0,
        background_refresh: bool = False,
        cache_size: int = 10_000,
        shutdown_grace: float = 5.0,
        on_token: Callable[[Token, str], Awaitable[None] | None] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        # Before anything is refused, for a traceback that shows locals shows this object too.
        self.client = client
        self._grant = grant
        if not isinstance(client, Client):
            raise ConfigurationError("Tokens: client must be a Client")
        if isinstance(grant, type) or not (grant is None or isinstance(grant, Grant) or callable(grant)):
            raise ConfigurationError(f"Tokens: {_NEEDS_A_GRANT}")
        if isinstance(grant, Grant) and grant.grant_type == "client_credentials" and client.public:
            raise ConfigurationError(
                "Tokens: the client_credentials grant needs a Client with authentication, such as ClientSecret(…) "
                "(RFC 6749 section 4.4)"
            )
        check_key_argument("Tokens", key)
        check_number("Tokens: leeway", leeway, "seconds")
        check_flags("Tokens", background_refresh=background_refresh)
        check_number("Tokens: cache_size", cache_size, "keys", least=1)
        check_number("Tokens: shutdown_grace", shutdown_grace, "seconds")
        for name, hook in (("on_token", on_token), ("on_event", on_event)):
            if hook is not None and not callable(hook):
                raise ConfigurationError(f"Tokens: {name} must be callable")
        if inspect.iscoroutinefunction(on_event):
            raise ConfigurationError("Tokens: on_event must be a plain function: it is called in the midst of a renewal")
        if store is not None:
            from ..stores.store import check_store

            check_store("Tokens", store)
        if not isinstance(grant, Grant):
            _check_timeout(grant)
        if store is None:
            from ..stores.memory import MemoryStore

            store = MemoryStore()
        self._store: TokenStore = store
        self._key = key
        self._cache_size = cache_size
        self._monotonic = client.clock.monotonic
        self._cache: OrderedDict[str, KeyedToken] = OrderedDict()
        from .events import Events  # when there are Tokens, not with the import of the package
        from .keyed import Common, KeyedToken

        self._common = Common(
            client=client,
            store=self._store,
            owner=_owner(client, grant),
            how=self._how,
            resource=tuple(getattr(grant, "resource", ())),
            leeway=float(leeway),
            background_refresh=background_refresh,
            shutdown_grace=float(shutdown_grace),
            events=Events(on_event),
            on_token=on_token,
        )
        self._of_key = partial(KeyedToken, common=self._common)
        self._fixed = self._of_key(key) if isinstance(key, str) else None

    def __repr__(self) -> str:
        how = getattr(self._grant, "grant_type", None) or ("stored tokens" if self._grant is None else "login")
        return f"<Tokens of {self.client!r} by {how}>"

    @property
    def counts(self) -> Counter[str]:
        """How often each event happened."""
        return self._common.events.counts

    async def token(self, refused: Refusal | None = None) -> Token:
        """A token that is valid now, out of memory, renewed or obtained.

        :param refused: what a server has just refused; the same token back says that there is nothing better.
        :raises LoginRequired: nothing is stored, and nothing unattended can obtain one.
        :raises TokenUnavailable: the server can't answer now, or could not a moment ago.
        :raises ErrorResponse: it refused the client or the request.
        :raises StoreError: the store failed.
        """
        keyed = self._fixed or self._keyed(self._called_key())
        return (keyed.ready() if refused is None else None) or await keyed.token(refused)

    def ready(self) -> Token | None:
        """What :meth:`token` would return at once, or None: for a caller who can't wait."""
        keyed = self._fixed
        if keyed is None:
            try:
                keyed = self._cache[self._key()]  # type: ignore[operator]
                self._cache.move_to_end(keyed.key)
            except (LookupError, TypeError):
                return None  # token() says what is wrong, if anything is
        held = keyed.held
        return held.token if held is not None and self._monotonic() < held.sure_until else None

    def for_key(self, key: str) -> TokenSource:
        """The tokens of one key, as a source of their own."""
        return _ForKey(self, checked_key("Tokens", key))

    async def login(self, *, key: str | None = None) -> Token:
        """Obtain a new token now, whatever is stored, and lift what a refused login had latched.

        :param key: whose; if None, whoever ``key=`` of the constructor says.
        :raises LoginRequired: there is nothing to log in with, or it was refused.
        """
        return await self._named(key).log_in()

    async def save(self, token: Token, *, key: str | None = None) -> None:
        """Store a token that was obtained elsewhere, in place of any other.

        :param key: whose; if None, whoever ``key=`` of the constructor says.
        """
        if not isinstance(token, Token):
            raise ConfigurationError("Tokens.save: token must be a Token; Token.from_dict makes one of a dict")
        await self._named(key).save(token)

    async def revoke(self, *, key: str | None = None) -> None:
        """Sign the user out: revoke the tokens at the server (:rfc:`7009`), and stop using them here.

        From the moment of the call they are used no more, by nobody; those who wait for a new one get LoginRequired.

        :param key: whose; if None, whoever ``key=`` of the constructor says.
        :raises TokenUnavailable: the server can't be reached; the tokens stay unused, and this may be called again.
        """
        await self._named(key).revoke()

    async def forget(self, *, key: str | None = None) -> None:
        """Drop the token here, in memory and in the store, without telling the server.

        :param key: whose; if None, whoever ``key=`` of the constructor says.
        """
        keyed = self._named(key)
        await keyed.forget()
        self._cache.pop(keyed.key, None)

    async def keys(self) -> AsyncIterator[str]:
        """The keys of this client's users who have a token in the store."""
        from .records import keys_with_token  # for whoever administers, and few requests do

        async for key in keys_with_token(self._store, self._common.owner):
            yield key

    async def clean_up(self, *, older_than: float) -> int:
        """Delete from the store what has been of no use for long: users of this client who signed out, whose refresh token was
        refused, or whose token has expired and can't be renewed.

        Whoever signed out and is deleted is as one who never was there: a grant that needs nobody earns a token again.

        :param older_than: for how many seconds.
        :return: how many records that were.
        :raises StoreError: the store failed.
        """
        check_number("Tokens.clean_up: older_than", older_than, "seconds")
        from .records import delete_dead

        return await delete_dead(self._store, self._common.owner, before=self.client.clock.time() - older_than)

    async def aclose(self) -> None:
        """Wait for the renewals that are under way on this loop, end its logins, release the store. The tokens stay in it."""
        for flight in self._common.flights.under_way():
            if flight.cancel_when_unwanted:
                flight.task.cancel()
            await asyncio.wait([flight.task])
        await self._store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _keyed(self, key: str) -> KeyedToken:
        if key == self._key:
            assert self._fixed is not None
            return self._fixed
        cache = self._cache
        keyed = cache.get(key)
        if keyed is None:
            keyed = cache.setdefault(key, self._of_key(key))
            while len(cache) > self._cache_size:
                cache.popitem(last=False)
        elif len(cache) > 1:
            try:
                cache.move_to_end(key)
            except KeyError:  # another thread has just dropped it
                cache[key] = keyed
        return keyed

    def _named(self, key: str | None) -> KeyedToken:
        if key is not None:
            return self._keyed(checked_key("Tokens", key))
        return self._fixed or self._keyed(self._called_key())

    def _called_key(self) -> str:
        assert callable(self._key)
        return called_key("Tokens", self._key)

    async def _token_of(self, key: str, refused: Refusal | None) -> Token:
        keyed = self._keyed(key)
        return (keyed.ready() if refused is None else None) or await keyed.token(refused)

    async def _how(self, key: str) -> tuple[Grant | None, Login | None]:
        """How a token of *key* is earned."""
        how = self._grant
        if how is None or isinstance(how, Grant):
            return how, None
        if _is_login(how):
            return None, how  # type: ignore[return-value]
        try:
            made: object = how(key)  # type: ignore[call-arg, arg-type]
            if inspect.isawaitable(made):
                made = await made
        except OAuthError:
            raise
        except Exception as error:
            raise ConfigurationError(f"Tokens: the function that makes the grant raised {type(error).__name__}") from error
        if isinstance(made, Grant) and not isinstance(made, type):
            return made, None
        if _is_login(made):
            _check_timeout(made)
            return None, made  # type: ignore[return-value]
        raise ConfigurationError(f"Tokens: {_NEEDS_A_GRANT}; what this one returned is neither")


class _ForKey:
    """The tokens of one key."""

    def __init__(self, tokens: Tokens, key: str) -> None:
        self._tokens, self._key = tokens, key

    def __repr__(self) -> str:
        return f"{self._tokens!r}.for_key(…)"

    async def token(self, refused: Refusal | None = None) -> Token:
        return await self._tokens._token_of(self._key, refused)


def _owner(client: Client, grant: object) -> str:
    """The digest of what a token belongs to besides the key. The scope counts only where nobody need consent to it."""
    parts = [
        client.server,
        client.client_id,
        str(getattr(grant, "grant_type", "")) if getattr(grant, "unattended", False) else "person",
        *getattr(grant, "resource", ()),
        getattr(grant, "audience", None) or "",
        (getattr(grant, "scope", None) or "") if getattr(grant, "unattended", False) else "",
        # Whose password it is, and on whose behalf an extension grant asks, tell people apart where the key doesn't.
        str(getattr(grant, "username", "")),
        *(f"{name}={value}" for name, value in getattr(grant, "own", ()) if isinstance(value, str)),
    ]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _check_timeout(login: object) -> None:
    if hasattr(login, "timeout"):
        check_number("Tokens: the Login's timeout", login.timeout, "seconds")


def _is_login(how: object) -> bool:
    """Whether *how* is called with the client and what is wanted, rather than with a key."""
    if not callable(how) or isinstance(how, type):
        return False
    if hasattr(how, "timeout"):
        return True
    try:
        parameters = inspect.signature(how).parameters.values()
    except (TypeError, ValueError):
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in places if p.default is p.empty]
    return len(required) == 2 or (len(required) < 2 <= len(places) and inspect.iscoroutinefunction(how))
