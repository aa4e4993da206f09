"""The store that encrypts what another one keeps."""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError, StoreCorrupted
from ..value import Secret
from .store import Lock, Record, TokenStore, check_store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ("SealedStore",)

SealingKey = str | Secret | Callable[[], str | Awaitable[str]]

_MARK: Final = b"sealed:1:"
_NONCE: Final = 12


class SealedStore:
    """Encrypts the bodies of the records in another store, with AES-256-GCM; whoever reads that store finds no token.

    The store's key, the version and the key label stay in the clear, for the other store works with them. They are
    authenticated together with the body: a body that is moved to another key, label or version is a StoreCorrupted, as is one
    that was changed, or sealed with a key that isn't given. That a whole record is an older one, put back, can't be told.

    :param store: where the records are kept, their locks too.
    :param keys: the sealing keys, one or several, each 32 bytes in URL-safe base64 as :meth:`generate_key` makes them, and as
        Fernet has them; or a Secret, or a callable that returns one and is called at each use. The first seals, all open: put
        a new one first, and leave the old ones until every record has been written again, as each renewal does.
    :raises ConfigurationError: there is no store or no key, one isn't 32 bytes, or ``cryptography`` is not installed.
    """

    def __init__(self, store: TokenStore, keys: SealingKey | Iterable[SealingKey]) -> None:
        self._store = store
        several = keys if isinstance(keys, Iterable) and not isinstance(keys, str) else (keys,)
        self._keys = tuple(Secret.of(key) for key in several)
        del keys, several  # a traceback that shows locals shall not show them
        check_store("SealedStore", store)
        if not self._keys:
            raise ConfigurationError("SealedStore: give a key; SealedStore.generate_key() makes one")
        if importlib.util.find_spec("cryptography") is None:
            raise ConfigurationError(
                "SealedStore needs the library cryptography: pip install 'aiohttp-oauth-middleware[sealed]'"
            )
        for key in self._keys:
            if key.is_constant:
                _Seal(key.reveal())

    def __repr__(self) -> str:
        return f"SealedStore({self._store!r})"

    @staticmethod
    def generate_key() -> str:
        """A new key. Keep it where the records are not."""
        return base64.urlsafe_b64encode(os.urandom(32)).decode()

    async def load(self, key: str) -> Record | None:
        record = await self._store.load(key)
        return None if record is None else record.replace(body=await self._opened(key, record))

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        seal = _Seal(await self._keys[0].read())
        return await self._store.save(key, record.replace(body=seal.close(key, record)), expected=expected, lock=lock)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self._store.delete(key, expected=expected)

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        return self._store.lock(key, wait=wait)

    def keys(self) -> AsyncIterator[str]:
        return self._store.keys()

    async def aclose(self) -> None:
        """Close the other store."""
        await self._store.aclose()

    async def _opened(self, key: str, record: Record) -> bytes:
        mark, key_id, sealed = record.body[: len(_MARK)], record.body[len(_MARK) :][:8], record.body[len(_MARK) + 8 :]
        if mark != _MARK or len(sealed) < _NONCE:
            raise StoreCorrupted(
                "a record is not sealed: it was written without SealedStore, or damaged; forget() its key, and sign in again"
            )
        for secret in self._keys:
            seal = _Seal(await secret.read())
            if seal.key_id == key_id:
                body = seal.open(key, record, sealed)
                if body is None:
                    raise StoreCorrupted(
                        f"a record that was sealed with the key {_shown(key_id)} was changed, or moved here from elsewhere: "
                        "put a good copy in its place, or forget() its key and sign in again"
                    )
                return body
        raise StoreCorrupted(
            f"a record was sealed with the key {_shown(key_id)}, which is not among those given "
            f"({', '.join([_shown(_Seal(await secret.read()).key_id) for secret in self._keys])})"
        )


class _Seal:
    """One sealing key.

    :ivar key_id: what a record says of the key, which it does not tell.
    """

    __slots__ = ("_cipher", "key_id")

    _cipher: AESGCM
    key_id: bytes

    def __init__(self, text: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            raw = base64.b64decode(text, b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        fits = len(raw) == 32
        if fits:
            self._cipher = AESGCM(raw)
            self.key_id = hashlib.sha256(b"the name of a sealing key\0" + raw).hexdigest()[:8].encode()
        del text, raw  # a traceback that shows locals shall not show them
        if not fits:
            raise ConfigurationError(
                "SealedStore: a key is 32 bytes in URL-safe base64, 44 characters; SealedStore.generate_key() makes one"
            )

    def close(self, key: str, record: Record) -> bytes:
        """The body of *record*, sealed."""
        # NIST SP 800-38D section 8.3: with random nonces of 96 bits, one key seals no more than 2^32 bodies.
        nonce = os.urandom(_NONCE)
        return _MARK + self.key_id + nonce + self._cipher.encrypt(nonce, record.body, _bound(key, record))

    def open(self, key: str, record: Record, sealed: bytes) -> bytes | None:
        """The body, or None where it isn't what was sealed for this place."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(key, record))
        except InvalidTag:
            return None


def _bound(key: str, record: Record) -> bytes:
    return json.dumps([key, record.version, record.key_label]).encode()


def _shown(key_id: bytes) -> str:
    return key_id.decode("ascii", "backslashreplace")
