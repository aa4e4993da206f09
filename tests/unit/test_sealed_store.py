"""The store that encrypts: what can be read without the key, what is noticed, and how keys are changed."""

from __future__ import annotations

import base64
import importlib.util
import traceback

import pytest
from cryptography.fernet import Fernet

from aiohttp_oauth_middleware import ConfigurationError, MemoryStore, Record, SealedStore, Secret, StoreCorrupted
from tests.strict_server import all_of

KEY, OTHER = SealedStore.generate_key(), SealedStore.generate_key()


def record(version: int = 1, body: bytes = b"secret body", label: str = "alice") -> Record:
    return Record(version, label, body)


async def test_S_23_what_is_kept_is_sealed_and_what_is_loaded_is_not() -> None:
    inner = MemoryStore()
    store = SealedStore(inner, KEY)
    assert await store.load("k") is None
    assert await store.save("k", record(), expected=0)
    kept = inner._records["k"]
    assert b"secret" not in kept.body
    assert kept.body.startswith(b"sealed:1:")
    assert (kept.version, kept.key_label) == (1, "alice"), "these stay in the clear"
    assert await store.load("k") == record()
    assert await all_of(store.keys()) == ["k"]
    assert not await store.save("k", record(), expected=0)
    assert await store.delete("k", expected=1)
    assert inner._records == {}


async def test_the_same_body_is_never_sealed_alike() -> None:
    inner = MemoryStore()
    store = SealedStore(inner, KEY)
    await store.save("a", record(), expected=0)
    first = inner._records["a"].body
    await store.delete("a")
    await store.save("a", record(), expected=0)
    assert inner._records["a"].body != first


def changed(kept: Record) -> list[Record]:
    flipped = [kept.body[:at] + bytes([kept.body[at] ^ 1]) + kept.body[at + 1 :] for at in range(17, len(kept.body))]
    moved = [kept.replace(version=2), kept.replace(key_label="mallory"), kept.replace(body=kept.body[:-1])]
    return [*(kept.replace(body=body) for body in flipped), *moved]


async def test_F_51_a_body_that_was_changed_or_moved_is_corrupt_and_the_error_names_the_key() -> None:
    inner = MemoryStore()
    store = SealedStore(inner, KEY)
    await store.save("k", record(), expected=0)
    kept = inner._records["k"]
    key_id = kept.body[9:17].decode()
    for bad in changed(kept):
        inner._records["k"] = bad
        with pytest.raises(StoreCorrupted, match=rf"sealed with the key {key_id} was changed, or moved here from elsewhere"):
            await store.load("k")
    inner._records["other"] = kept
    with pytest.raises(StoreCorrupted, match="moved here from elsewhere"):
        await store.load("other")


async def test_F_51_a_key_that_is_not_given_is_named() -> None:
    inner = MemoryStore()
    await SealedStore(inner, KEY).save("k", record(), expected=0)
    key_id = inner._records["k"].body[9:17].decode()
    with pytest.raises(
        StoreCorrupted, match=rf"sealed with the key {key_id}, which is not among those given \(\w{{8}}, \w{{8}}\)"
    ):
        await SealedStore(inner, [OTHER, SealedStore.generate_key()]).load("k")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"sealed:1:", b"sealed:1:01234567short", b"sealed:2:0123456701234567890123456789"]
)
async def test_F_51_a_body_that_is_not_sealed_is_corrupt(body: bytes) -> None:
    inner = MemoryStore()
    inner._records["k"] = record(body=body)
    with pytest.raises(StoreCorrupted, match=r"a record is not sealed: .* forget\(\) its key"):
        await SealedStore(inner, KEY).load("k")


async def test_several_keys_the_first_seals_and_all_open() -> None:
    inner = MemoryStore()
    await SealedStore(inner, OTHER).save("k", record(), expected=0)
    store = SealedStore(inner, [KEY, OTHER])
    assert await store.load("k") == record()
    await store.save("k", record(2), expected=1)
    assert await SealedStore(inner, KEY).load("k") == record(2)


async def test_keys_are_strings_secrets_and_callables_which_are_asked_each_time() -> None:
    current = KEY

    async def from_vault() -> str:
        return current

    inner = MemoryStore()
    store = SealedStore(inner, (from_vault, Secret(OTHER), lambda: KEY))
    await store.save("k", record(), expected=0)
    current = SealedStore.generate_key()
    assert await store.load("k") == record(), "the third has the key that the first had"
    await store.save("k", record(2), expected=1)
    assert await SealedStore(inner, current).load("k") == record(2)
    for keys in (Secret(KEY), lambda: KEY, [KEY], iter([KEY])):
        await SealedStore(MemoryStore(), keys).save("k", record(), expected=0)


async def test_a_key_of_fernet_s_is_one() -> None:
    store = SealedStore(MemoryStore(), Fernet.generate_key().decode())
    await store.save("k", record(), expected=0)
    assert await store.load("k") == record()
    Fernet(SealedStore.generate_key())


@pytest.mark.parametrize(
    "bad", ["", "password", "ü" * 44, base64.b64encode(b"x" * 16).decode(), base64.b64encode(b"x" * 33).decode(), f"{KEY}!"]
)
async def test_S_22_a_key_that_is_none_is_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="a key is 32 bytes in URL-safe base64") as caught:
        SealedStore(MemoryStore(), [KEY, bad])
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    ours = shown.partition("sealed.py")[2]
    assert KEY not in ours
    assert not bad or bad not in ours
    with pytest.raises(ConfigurationError, match="a key is 32 bytes"):
        await SealedStore(MemoryStore(), lambda: bad).save("k", record(), expected=0)


def test_no_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give a key"):
        SealedStore(MemoryStore(), [])
    with pytest.raises(ConfigurationError):
        SealedStore(MemoryStore(), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="SealedStore: store must be an object with the methods load"):
        SealedStore(MemoryStore, KEY)  # type: ignore[arg-type]


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'aiohttp-oauth-middleware\[sealed\]'"):
        SealedStore(MemoryStore(), KEY)


async def test_locks_and_the_rest_are_the_other_store_s() -> None:
    inner = MemoryStore()
    store = SealedStore(inner, KEY)
    async with store.lock("k", wait=0.0):
        assert "k" in inner._locked
    assert repr(store) == "SealedStore(<MemoryStore of 0 records>)"
    await store.aclose()


async def test_S_22_nothing_shows_the_key_or_the_body() -> None:
    store = SealedStore(MemoryStore(), KEY)
    await store.save("k", record(), expected=0)
    assert KEY not in f"{store!r}{vars(store)}{store._keys}"
