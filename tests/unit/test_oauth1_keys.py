"""RSA keys: read in every form, parsed once and in a thread, and never shown."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from aiohttp_oauth_middleware import ConfigurationError, OAuth1Client, OAuth1Token, SignatureMethod, keys
from aiohttp_oauth_middleware.keys import RSAKey
from tests.unit.test_token import own_locals

KEY = rsa.generate_private_key(65537, 2048)
CLEAR = serialization.NoEncryption()
LOCKED = serialization.BestAvailableEncryption(b"passphrase")
PEM = serialization.Encoding.PEM
PKCS1, PKCS8 = serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8
FORMS = {"PKCS#1": KEY.private_bytes(PEM, PKCS1, CLEAR), "PKCS#8": KEY.private_bytes(PEM, PKCS8, CLEAR)}
DATA = b"GET&https%3A%2F%2Fh%2F&"


def verified(signature: bytes, hash_name: str = "sha1", key: rsa.RSAPrivateKey = KEY) -> bool:
    algorithm: hashes.HashAlgorithm = getattr(hashes, hash_name.upper())()
    key.public_key().verify(signature, DATA, padding.PKCS1v15(), algorithm)
    return True


async def signed(key: RSAKey, hash_name: str = "sha1") -> bytes:
    signature: bytes | Awaitable[bytes] = key.sign(DATA, hash_name)
    return signature if isinstance(signature, bytes) else await signature


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads in which a PEM was parsed."""
    found: list[threading.Thread] = []
    parse = serialization.load_pem_private_key

    def counting(*arguments: Any) -> Any:
        found.append(threading.current_thread())
        return parse(*arguments)

    monkeypatch.setattr(serialization, "load_pem_private_key", counting)
    return found


def in_file(pem: bytes, folder: Path) -> Path:
    path = folder / "key.pem"
    path.write_bytes(pem)
    return path


SOURCES: dict[str, Callable[[bytes, Path], object]] = {
    "bytes": lambda pem, folder: pem,
    "str": lambda pem, folder: pem.decode(),
    "str with text before it": lambda pem, folder: "Bag Attributes: é€\n" + pem.decode(),
    "path": in_file,
    "object": lambda pem, folder: serialization.load_pem_private_key(pem, None),
}


@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", SOURCES)
async def test_a_key_is_read_in_every_form(source: str, form: str, hash_name: str, tmp_path: Path) -> None:
    key = RSAKey(SOURCES[source](FORMS[form], tmp_path))
    assert verified(await signed(key, hash_name), hash_name)
    assert verified(await signed(key, hash_name), hash_name)


@pytest.mark.parametrize("source", ["bytes", "path"])
async def test_a_pem_is_parsed_once_in_a_thread_and_not_before_it_is_needed(
    source: str, tmp_path: Path, parsed: list[threading.Thread]
) -> None:
    method = SignatureMethod.rsa("RSA-SHA256", SOURCES[source](FORMS["PKCS#8"], tmp_path))
    client = OAuth1Client("id", signature_method=method)
    assert parsed == []
    for _ in range(3):
        await client.sign("GET", "https://h/", OAuth1Token("t"))
    (thread,) = parsed
    assert thread is not threading.main_thread()
    if source == "path":
        (tmp_path / "key.pem").unlink()
        await client.sign("GET", "https://h/")


async def test_a_hundred_first_signatures_at_once_parse_once(parsed: list[threading.Thread]) -> None:
    key = RSAKey(FORMS["PKCS#8"])
    signatures = await asyncio.gather(*(signed(key) for _ in range(100)))
    assert len(set(signatures)) == 1
    assert verified(signatures[0])
    assert len(parsed) == 1


async def test_a_key_that_is_parsed_signs_without_a_thread(parsed: list[threading.Thread]) -> None:
    key = RSAKey(KEY)
    assert isinstance(key.sign(DATA, "sha256"), bytes)
    assert parsed == []


async def test_a_large_key_always_signs_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_LARGEST_ON_THE_LOOP", 1024)
    key = RSAKey(KEY)
    for _ in range(2):
        signature = key.sign(DATA, "sha1")
        assert not isinstance(signature, bytes)
        assert verified(await signature)


async def test_one_key_serves_several_loops_and_threads(parsed: list[threading.Thread]) -> None:
    key = RSAKey(FORMS["PKCS#1"])
    found = await asyncio.gather(*(asyncio.to_thread(lambda: asyncio.run(signed(key))) for _ in range(4)))
    assert len(set(found)) == 1
    assert len(parsed) == 1


def spoilt(pem: bytes) -> bytes:
    lines = pem.splitlines(keepends=True)
    return b"".join([*lines[:2], b"CANARY" + lines[2][6:], *lines[3:]])


def other(key: Any) -> bytes:
    return bytes(key.private_bytes(PEM, PKCS8, CLEAR))


UNUSABLE: dict[str, tuple[bytes, str]] = {
    "encrypted PKCS#8": (KEY.private_bytes(PEM, PKCS8, LOCKED), "encrypted"),
    "encrypted PKCS#1": (KEY.private_bytes(PEM, PKCS1, LOCKED), "encrypted"),
    "EC": (other(ec.generate_private_key(ec.SECP256R1())), "must be an RSA private key"),
    "Ed25519": (other(ed25519.Ed25519PrivateKey.generate()), "must be an RSA private key"),
    "public": (KEY.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo), "can't be parsed"),
    "spoilt": (spoilt(FORMS["PKCS#8"]), "can't be parsed"),
    "cut short": (FORMS["PKCS#8"][:400], "can't be parsed"),
    "garbage": (b"-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n", "can't be parsed"),
    "a certificate": (b"-----BEGIN CERTIFICATE-----\nQ0FOQVJZ\n-----END CERTIFICATE-----\n", "can't be parsed"),
}


@pytest.mark.parametrize("source", ["bytes", "str", "path"])
@pytest.mark.parametrize("name", UNUSABLE)
async def test_F_55_G_12_a_key_that_cannot_be_used_is_named_and_not_shown(name: str, source: str, tmp_path: Path) -> None:
    pem, problem = UNUSABLE[name]
    method = SignatureMethod.rsa("RSA-SHA1", SOURCES[source](pem, tmp_path))
    client = OAuth1Client("id", signature_method=method)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=problem) as caught:
            await client.sign("GET", "https://h/", OAuth1Token("t"))
        shown = f"{caught.value!r} {caught.value.__cause__!r} {own_locals(caught.value.__traceback__)}"
        assert not any(line in shown for line in pem.decode().split("\n")[1:-2] if len(line) > 30)
        assert "CANARY" not in shown
        assert not caught.value.retryable


@pytest.mark.parametrize("what", ["nothing", "a folder"])
async def test_F_55_a_file_that_cannot_be_read_is_named(what: str, tmp_path: Path) -> None:
    key = RSAKey(tmp_path if what == "a folder" else tmp_path / "missing.pem")
    with pytest.raises(
        ConfigurationError, match=r"file of the RSA key can't be read \((IsADirectory|FileNotFound|Permission)Error\)"
    ):
        await signed(key)
    if what == "nothing":  # it may come: a mounted secret does
        (tmp_path / "missing.pem").write_bytes(FORMS["PKCS#8"])
        assert verified(await signed(key))


@pytest.mark.parametrize(
    "source",
    [
        None,
        7,
        "",
        "CANARY",
        b"CANARY",
        "key.pem",
        "/etc/CANARY.pem",
        ["CANARY"],
        {"kty": "RSA"},
        object(),
        bytearray(FORMS["PKCS#8"]),
    ],
    ids=lambda source: type(source).__name__,
)
@pytest.mark.parametrize("make", [RSAKey, lambda source: SignatureMethod.rsa("RSA-SHA1", source)], ids=["key", "method"])
def test_F_55_what_is_no_key_is_refused_at_once(make: Callable[[object], object], source: object) -> None:
    with pytest.raises(ConfigurationError, match="RSA key must be a PEM") as caught:
        make(source)
    assert "CANARY" not in f"{caught.value!r} {own_locals(caught.value.__traceback__)}"


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), rsa.RSAPrivateKey], ids=["EC", "class"])
def test_F_55_an_object_that_is_no_rsa_key_is_refused_at_once(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="RSA"):
        RSAKey(key)


async def test_F_55_a_key_too_small_for_the_hash_is_refused() -> None:
    class Small:
        """What such a key does."""

        key_size = 512

        def sign(self, *arguments: object) -> bytes:
            raise ValueError("Digest too long for key size")

    key = RSAKey(KEY)
    key._key = Small()  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="RSA key can't sign"):
        await signed(key, "sha512")


@pytest.mark.parametrize("source", SOURCES)
def test_G_12_a_key_is_neither_printed_nor_pickled(source: str, tmp_path: Path) -> None:
    key = RSAKey(SOURCES[source](FORMS["PKCS#8"], tmp_path))
    method = SignatureMethod("RSA-SHA1", key.sign)  # type: ignore[arg-type]
    assert repr(key) == str(key) == "RSAKey(…)"
    line = FORMS["PKCS#8"].decode().split("\n")[1]
    assert line not in f"{method!r} {[getattr(key, slot) for slot in key.__slots__]!r}"
    for one in (key, method, SignatureMethod.rsa("RSA-SHA1", FORMS["PKCS#1"])):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
                pickle.dumps(one, protocol)
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(key)


async def test_a_key_of_a_thousand_bits_still_signs() -> None:
    # Old servers have them, and RSA-SHA1 with them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = rsa.generate_private_key(65537, 1024)
    assert verified(await signed(RSAKey(small.private_bytes(PEM, PKCS8, CLEAR))), key=small)
