"""Private keys: parsed once and off the loop, used many times, printed never."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .value import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

__all__ = ("RSAKey",)

# A signature by a key of this size takes about 2 ms; one by a larger key is made in a thread.
_LARGEST_ON_THE_LOOP = 4096


class RSAKey:
    """An RSA private key. To parse the PEM of one takes some 40 ms, so that is done once, in a thread.

    :param source: a PEM (``str`` or ``bytes``), the path of one (any :class:`os.PathLike`), or a private key of
        ``cryptography``.
    :raises ConfigurationError: it is none of these; at the first use also where it can't be read or is no RSA private key.
    """

    __slots__ = ("_guard", "_key", "_pem")

    def __init__(self, source: object) -> None:
        self._guard = threading.Lock()
        self._key: RSAPrivateKey | None = None
        self._pem: Secret | Path | None = None
        try:
            if isinstance(source, os.PathLike):
                self._pem = Path(source)
            elif isinstance(source, str | bytes):
                text = source if isinstance(source, str) else source.decode("latin-1")
                if "-----BEGIN " not in text:
                    text = ""
                    raise ConfigurationError("the RSA key must be a PEM; give the path of a file as a pathlib.Path")
                self._pem = Secret(text)
            elif hasattr(source, "private_numbers") and hasattr(source, "sign"):
                self._key = _checked(source)
            else:
                raise ConfigurationError("the RSA key must be a PEM, a pathlib.Path, or a private key of cryptography")
        finally:
            text = ""
            del source  # a traceback that shows locals shall not show it

    def __repr__(self) -> str:
        return "RSAKey(…)"

    def __reduce__(self) -> Any:
        raise TypeError("an RSAKey is not pickled")

    def sign(self, data: bytes, hash_name: str) -> bytes | Awaitable[bytes]:
        """The signature by RSASSA-PKCS1-v1_5; to be awaited where the key isn't parsed yet, or is a large one."""
        try:
            if self._key is None or self._key.key_size > _LARGEST_ON_THE_LOOP:
                return asyncio.to_thread(self._sign, data, hash_name)
            return self._sign(data, hash_name)
        finally:
            del data  # a traceback that shows locals shall not show what was to be signed

    def _sign(self, data: bytes, hash_name: str) -> bytes:
        try:
            key = self._key or self._parsed()
            return key.sign(data, *_scheme(hash_name))
        except ConfigurationError:
            raise
        except Exception as error:
            problem = type(error).__name__
        finally:
            del data
        raise ConfigurationError(f"the RSA key can't sign with {hash_name} ({problem}): perhaps it is too small")

    def _parsed(self) -> RSAPrivateKey:
        with self._guard:
            if self._key is None:
                assert self._pem is not None
                self._key = _checked(_load(self._pem))
                self._pem = None
        return self._key


@cache
def _scheme(hash_name: str) -> tuple[PKCS1v15, HashAlgorithm]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    return PKCS1v15(), getattr(hashes, hash_name.upper())()


def _load(pem: Secret | Path) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    problem = "the RSA key can't be read"
    try:
        data = pem.read_bytes() if isinstance(pem, Path) else pem.reveal().encode("latin-1", "replace")
        return load_pem_private_key(data, None)
    except OSError as error:
        problem = f"the file of the RSA key can't be read ({type(error).__name__})"
    except TypeError:
        problem = "the RSA key is encrypted: load it with cryptography and its passphrase, and give the object"
    except Exception as error:
        problem = f"the RSA key can't be parsed ({type(error).__name__})"
    finally:
        data = b""
    raise ConfigurationError(problem)


def _checked(key: object) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(key, RSAPrivateKey):
        del key
        raise ConfigurationError("the key must be an RSA private key: the RSA-… signature methods take no other")
    return key
