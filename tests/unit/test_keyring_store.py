"""The store that is a keyring: texts in parts, one that is half written, no backend, and failures."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import keyring
import pytest
from keyring.backends import fail as fail_backend
from keyring.backends import null as null_backend

from aiohttp_oauth_middleware import ConfigurationError, KeyringStore, Record, StoreCorrupted, StoreError
from aiohttp_oauth_middleware.stores.codec import key_hash
from tests.keyring_backend import DictBackend
from tests.strict_server import all_of


def record(version: int, body: bytes = b"secret body") -> Record:
    return Record(version, "alice", body)


class FaultyBackend(DictBackend):
    """One whose n-th call, from 0, fails."""

    at: int | None = None

    def called(self, name: str) -> None:
        super().called(name)
        if len(self.calls) - 1 == self.at:
            raise RuntimeError("the keyring is locked")


def store_over(backend: DictBackend, folder: Path, *, entry_size: int | None = None) -> KeyringStore:
    return KeyringStore("my-cli", locks=folder, backend=backend, entry_size=entry_size or backend.size)


async def test_a_record_that_fits_is_one_entry_and_the_keys_another(tmp_path: Path) -> None:
    backend = DictBackend()
    store = store_over(backend, tmp_path)
    await store.save("k", record(1), expected=0)
    assert sorted(backend.entries) == [("my-cli", key_hash("k")), ("my-cli", "index")]
    assert await all_of(store.keys()) == ["k"]
    await store.delete("k")
    assert backend.entries == {("my-cli", "index"): "[]"}
    assert repr(store) == "KeyringStore('my-cli')"
    await store.aclose()


async def test_a_record_that_is_too_long_is_in_parts_and_the_other_set_is_written_next(tmp_path: Path) -> None:
    backend = DictBackend(1_200)
    store = store_over(backend, tmp_path)
    name = key_hash("k")
    for version, body in enumerate([b"x" * 2000, b"y" * 3000, b"short", b"z" * 2000], 1):
        assert await store.save("k", record(version, body), expected=version - 1)
        assert await store.load("k") == record(version, body)
        names = sorted(user for _, user in backend.entries if user.startswith(name))
        expected = {1: ("a", 3), 2: ("b", 4), 3: ("", 0), 4: ("a", 3)}[version]
        assert names == [name, *(f"{name}.{expected[0]}.{part}" for part in range(expected[1]))]
    await store.delete("k")
    assert list(backend.entries) == [("my-cli", "index")]
    await store.aclose()


async def test_the_index_of_many_keys_is_in_parts_too(tmp_path: Path) -> None:
    backend = DictBackend(1_200)
    store = store_over(backend, tmp_path)
    for number in range(40):
        await store.save(str(number), record(1), expected=0)
    assert sorted(await all_of(store.keys())) == sorted(str(number) for number in range(40))
    for number in range(40):
        await store.delete(str(number))
    assert backend.entries == {("my-cli", "index"): "[]"}
    await store.aclose()


@pytest.mark.parametrize("body", [b"new", b"n" * 3000], ids=["short", "long"])
async def test_G_09_F_47_F_50_a_save_that_ends_at_any_call_loses_nothing(tmp_path: Path, body: bytes) -> None:
    at = 0
    while True:
        backend = FaultyBackend(1_200)
        store = store_over(backend, tmp_path)
        old = record(1, b"o" * 3000)
        await store.save("k", old, expected=0)
        backend.calls.clear()
        backend.at = at
        try:
            assert await store.save("k", record(2, body), expected=1)
            error = None
        except StoreError as caught:
            error = caught
        reached = len(backend.calls) > at
        backend.at = None
        found = await store.load("k")
        assert found == record(2, body) if error is None else found in (old, record(2, body))
        if found == old:
            assert await store.save("k", record(2, body), expected=1)
        assert await store.save("k", record(3, b"o" * 3000), expected=2)
        assert await all_of(store.keys()) == ["k"]
        assert await store.delete("k")
        await store.aclose()
        if not reached:
            break
        assert error is not None
        assert "the keyring failed (RuntimeError): is it there, and unlocked?" in str(error)
        at += 1
    assert at > 5


async def test_who_reads_while_the_sets_are_switched_reads_again(tmp_path: Path) -> None:
    backend = DictBackend(1_200)
    store = store_over(backend, tmp_path)
    await store.save("k", record(1, b"o" * 3000), expected=0)
    before = dict(backend.entries)
    await store.save("k", record(2, b"n" * 3000), expected=1)
    heads: list[str] = []

    class Switched(DictBackend):
        """Somebody writes after the entry was read and before its parts are."""

        def get_password(self, service: str, username: str) -> str | None:
            if username == key_hash("k"):
                heads.append(username)
            elif len(heads) == 1:
                self.entries = dict(backend.entries)
            return super().get_password(service, username)

    switched = Switched(1_200)
    switched.entries = before
    reader = store_over(switched, tmp_path)
    assert await reader.load("k") == record(2, b"n" * 3000)
    assert len(heads) == 3
    await store.aclose()
    await reader.aclose()


async def test_F_51_a_part_that_is_missing_or_changed_is_corrupt_and_to_forget_it_is_a_way_out(tmp_path: Path) -> None:
    backend = DictBackend(1_200)
    store = store_over(backend, tmp_path)
    name = key_hash("k")
    for part, text, what in (
        (f"{name}.a.1", None, "lacks a part"),
        (f"{name}.a.1", "xyz", "does not match"),
        (name, "", "empty"),
    ):
        await store.save("k", record(1, b"o" * 3000), expected=0)
        if text is None:
            del backend.entries["my-cli", part]
        else:
            backend.entries["my-cli", part] = text
        for attempt in (store.load("k"), store.save("k", record(2), expected=1), all_of(store.keys())):
            with pytest.raises(
                StoreCorrupted, match=rf"the entry {name} of my-cli in the keyring .*{what}.*: forget\(\) its key"
            ):
                await attempt
        assert await store.delete("k")
        assert await store.load("k") is None
        backend.entries.clear()
    backend.entries["my-cli", "index"] = "nonsense"
    with pytest.raises(StoreCorrupted, match="the entry index of my-cli in the keyring can't be read: delete it"):
        await all_of(store.keys())
    await store.aclose()


@pytest.mark.parametrize("kind", [fail_backend.Keyring, null_backend.Keyring], ids=["fail", "null"])
async def test_a_machine_without_a_keyring_is_a_store_error(
    kind: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "get_keyring", kind)
    store = KeyringStore("my-cli", locks=tmp_path)
    for attempt in (store.load("k"), store.save("k", record(1), expected=0), store.delete("k"), all_of(store.keys())):
        with pytest.raises(StoreError, match=r"there is no keyring here .* or take FileStore") as caught:
            await attempt
        assert not caught.value.retryable
    await store.aclose()


async def test_the_preferred_backend_is_the_library_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = DictBackend()
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
    store = KeyringStore("my-cli", locks=tmp_path)
    await store.save("k", record(1), expected=0)
    assert await store.load("k") == record(1)
    assert backend.entries
    await store.aclose()


async def test_the_lock_files_are_where_the_desktop_has_such_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    at_home = KeyringStore("my-cli", backend=DictBackend())
    async with at_home.lock("k", wait=0.0):
        pass
    folder = tmp_path / ".local" / "state" / "aiohttp_oauth_middleware" / key_hash("my-cli")[:16]
    assert os.listdir(folder) == [f"{key_hash('k')}.lock"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    elsewhere = KeyringStore("my-cli", backend=DictBackend())
    assert elsewhere._path.startswith(str(tmp_path / "state" / "aiohttp_oauth_middleware"))
    await at_home.aclose()


def test_what_can_t_work_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for service in ("", None):
        with pytest.raises(ConfigurationError, match="service must be the name of your program"):
            KeyringStore(service)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="entry_size"):
        KeyringStore("my-cli", entry_size=0)
    with pytest.raises(ConfigurationError, match="locks must be a path"):
        KeyringStore("my-cli", locks="")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'aiohttp-oauth-middleware\[keyring\]'"):
        KeyringStore("my-cli")
    KeyringStore("my-cli", locks=tmp_path, backend=DictBackend())
