"""What a signature is made over, and how; :rfc:`5849#section-3.4`. Pure: nonce, time and keys are arguments.

The parts of a request come as they go over the wire: encoded by yarl or by the user, never decoded and encoded again by way of
a dict, which would lose repeated and valueless parameters and what is not UTF-8.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import b2a_base64
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from ..errors import ConfigurationError
from ..keys import RSAKey
from ..value import Value

__all__ = (
    "PLAINTEXT",
    "SIGNATURE_METHODS",
    "SignatureMethod",
    "authorization_header",
    "base_string",
    "base_string_uri",
    "body_hash",
    "encode",
    "encode_again",
    "parameters_of",
    "signing_key",
)

Sign = Callable[[str, str, str], "str | Awaitable[str]"]

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
# A WebSocket's handshake is an HTTP request.
_HTTP: Final = {"ws": "http", "wss": "https"}
# RFC 5849 section 3.6: unreserved characters "MUST NOT be encoded", all others MUST, in upper-case hexadecimal. What is written
# otherwise in a query or form: escapes of unreserved characters or in lower case, and percent signs that escape nothing.
_ODD_ESCAPE: Final = re.compile(r"%(?!2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[B-DF]|[0189A-F][0-9A-F])(?:[0-9A-Fa-f]{2})?")
_ESCAPES: Final = [(b"%c" % byte, b"%%%02X" % byte) for byte in range(256)]
_ENCODED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%&="
# A URI, a token, Base64 and joined secrets have but these; six replacements are faster than quote().
_find_unusual: Final = re.compile(r"[^A-Za-z0-9\-._~%:/+=&]").search
_NAME: Final = r"[\x21\x23-\x5b\x5d-\x7e]+\Z"


def encode(text: str) -> str:
    """*text* as section 3.6 encodes it.

    >>> encode("Ladies + Gentlemen")
    'Ladies%20%2B%20Gentlemen'
    """
    if text.isalnum() and text.isascii():
        return text
    if _find_unusual(text):
        return quote(text, safe="~")
    text = text.replace("%", "%25").replace(":", "%3A").replace("/", "%2F")
    return text.replace("+", "%2B").replace("=", "%3D").replace("&", "%26")


# For names and identifiers, which come back at the next request.
encode_again: Final = lru_cache(1024)(encode)


def _escaped(data: bytes) -> str:
    """*data* encoded, but for what is an escape or a separator: ``%``, ``&`` and ``=``."""
    # One text has few kinds of them, and replace() is fast.
    for byte in set(data.translate(None, _ENCODED)):
        data = data.replace(*_ESCAPES[byte])
    return data.decode()


@lru_cache(512)
def _rewritten(written: str) -> str:
    return quote(unquote_to_bytes(written), safe="~")


def _rewrite(found: re.Match[str]) -> str:
    return _rewritten(found[0])


def parameters_of(text: str | bytes) -> str:
    """The parameters in a query or a form as it is sent, encoded anew; :rfc:`5849#section-3.4.1.3.1`.

    Each is a name, ``=`` and a value, with ``&`` in between, as in all that is called *parameters* here.

    >>> parameters_of("a=x!y&a=x+y&c%40=&b")
    'a=x%21y&a=x%20y&c%40=&b='
    """
    if not text:
        return ""
    # What is no ASCII is encoded byte by byte, whatever it means. The input is form-encoded, where a plus is a space.
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    text = _ODD_ESCAPE.sub(_rewrite, _escaped(data.replace(b"+", b"%20")))
    return "&".join([part if part.count("=") == 1 else _completed(part) for part in text.split("&") if part])


def _completed(part: str) -> str:
    name, _, value = part.partition("=")
    return f"{name}={value.replace('=', '%3D')}"


def base_string_uri(scheme: str, host: str, path: str) -> str:
    """Where the request goes, without its query; :rfc:`5849#section-3.4.1.2`.

    :param host: as in the ``Host`` field, with the port if it is there.
    :param path: as on the request line.

    >>> base_string_uri("http", "EXAMPLE.COM:80", "/r%20v/X")
    'http://example.com/r%20v/X'
    """
    scheme = _HTTP.get(scheme, scheme)
    # "The port MUST be included if it is not the default port for the scheme, and MUST be excluded if it is the default."
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}{path or '/'}"


def base_string(method: str, uri: str, parameters: str) -> str:
    """The signature base string; :rfc:`5849#section-3.4.1.1`.

    :param parameters: all of the request's, encoded, but for ``oauth_signature``.
    """
    # Section 3.4.1.3.2: sorted by name, then by value, after the encoding. A space sorts before all that is left there.
    normalized = "&".join(sorted(parameters.replace("=", " ").split("&")))
    # It holds but unreserved characters, escapes, and the two separators, so this is all that encoding it again means.
    normalized = normalized.replace("%", "%25").replace(" ", "%3D").replace("&", "%26")
    return f"{method.upper()}&{encode(uri)}&{normalized}"


def signing_key(client_secret: str, token_secret: str) -> str:
    """The shared secrets as section 3.4.2 joins them; the ``&`` is there "even when either secret is empty"."""
    return f"{encode(client_secret)}&{encode(token_secret)}"


def body_hash(body: bytes, hash_name: str) -> str:
    """``oauth_body_hash``: the hash of the signature's method over the body, in Base64 (OAuth Request Body Hash 1.0, draft 4).

    >>> body_hash(b"Hello World!", "sha1")
    'Lve95gjOVATpfV8EL5X4nxwjKHE='
    """
    return _base64(hashlib.new(hash_name, body).digest())


def authorization_header(parameters: str, realm: str | None = None) -> str:
    """The value of the ``Authorization`` field; :rfc:`5849#section-3.5.1`. *parameters* are encoded already."""
    # "The OPTIONAL "realm" parameter MAY be added", which no signature covers; it is a quoted string, and not encoded.
    start = f'OAuth realm="{realm}", ' if realm is not None else "OAuth "
    quoted = parameters.replace("=", '="').replace("&", '", ')
    return f'{start}{quoted}"'


class SignatureMethod(Value):
    """A way of signing: one of those of :rfc:`5849#section-3.4`, or one of the user's own.

    The methods that need no key are named by a string, wherever one is asked for: ``"HMAC-SHA1"``, ``"HMAC-SHA256"``,
    ``"HMAC-SHA512"``, ``"PLAINTEXT"``. Those of RSA are made by :meth:`rsa`.

    :param name: as it stands in ``oauth_signature_method``.
    :param sign: called with the base string, the client's secret and the token's; it returns the text of
        ``oauth_signature``. It may be a coroutine function: for a key that a machine elsewhere keeps.
    :param hash_name: of :mod:`hashlib`, for ``oauth_body_hash``.
    """

    __slots__ = ("hash_name", "name", "sign")

    name: str
    sign: Sign
    hash_name: str

    def __init__(self, name: str, sign: Sign, hash_name: str = "sha1") -> None:
        if not isinstance(name, str) or not re.match(_NAME, name):
            raise ConfigurationError("SignatureMethod: name must be one word, as in oauth_signature_method")
        if isinstance(sign, type) or not callable(sign):
            raise ConfigurationError(
                "SignatureMethod: sign must be a function (base_string, client_secret, token_secret) -> str"
            )
        if not isinstance(hash_name, str) or not _is_hash(hash_name):
            raise ConfigurationError("SignatureMethod: hash_name must be the name of a hash in hashlib, of a fixed length")
        self._freeze(name=name, sign=sign, hash_name=hash_name)

    def __repr__(self) -> str:
        return f"SignatureMethod({getattr(self, 'name', '')!r})"

    @classmethod
    def rsa(cls, name: str, key: object) -> SignatureMethod:
        """One of RSA's; :rfc:`5849#section-3.4.3`. No shared secret has a part in it.

        :param name: ``"RSA-SHA1"``, ``"RSA-SHA256"`` or ``"RSA-SHA512"``.
        :param key: the private key: a PEM, the path of one (a :class:`pathlib.Path`), or an object of ``cryptography``. It is
            read and parsed once, in a thread, when it is first needed.
        """
        if not isinstance(name, str) or name not in _RSA_HASHES:
            del key
            raise ConfigurationError(f"SignatureMethod.rsa: name must be one of {', '.join(_RSA_HASHES)}")
        hash_name = _RSA_HASHES[name]
        try:
            return cls(name, partial(_sign_rsa, RSAKey(key), hash_name), hash_name)
        finally:
            del key  # a traceback that shows locals shall not show it


def _is_hash(name: str) -> bool:
    """Whether this Python can make it, and without being told how long."""
    try:
        return bool(hashlib.new(name, b"").digest())
    except (ValueError, TypeError):
        return False


@lru_cache(256)
def _keyed(hash_name: str, client_secret: str, token_secret: str) -> hmac.HMAC:
    # To find the algorithm and to take the key in is more work than the text, which is so short. So the last 256 keys are kept,
    # for as long as the process lives.
    return hmac.new(signing_key(client_secret, token_secret).encode(), digestmod=hash_name)


def _sign_hmac(hash_name: str, text: str, client_secret: str, token_secret: str) -> str:
    keyed = _keyed(hash_name, client_secret, token_secret).copy()
    keyed.update(text.encode())
    return _base64(keyed.digest())


def _base64(signature: bytes) -> str:
    return b2a_base64(signature, newline=False).decode()


def _sign_rsa(key: RSAKey, hash_name: str, text: str, client_secret: str, token_secret: str) -> str | Awaitable[str]:
    try:
        signature = key.sign(text.encode(), hash_name)
    finally:
        del text  # a traceback that shows locals shall not show what was to be signed
    if isinstance(signature, bytes):
        return _base64(signature)
    return _encoded(signature)


async def _encoded(signature: Awaitable[bytes]) -> str:
    return _base64(await signature)


def _sign_plaintext(text: str, client_secret: str, token_secret: str) -> str:
    return signing_key(client_secret, token_secret)


PLAINTEXT: Final = SignatureMethod("PLAINTEXT", _sign_plaintext)
SIGNATURE_METHODS: Final = {
    method.name: method
    for method in (
        SignatureMethod("HMAC-SHA1", partial(_sign_hmac, "sha1"), "sha1"),
        SignatureMethod("HMAC-SHA256", partial(_sign_hmac, "sha256"), "sha256"),
        SignatureMethod("HMAC-SHA512", partial(_sign_hmac, "sha512"), "sha512"),
        PLAINTEXT,
    )
}
_RSA_HASHES: Final = {"RSA-SHA1": "sha1", "RSA-SHA256": "sha256", "RSA-SHA512": "sha512"}
