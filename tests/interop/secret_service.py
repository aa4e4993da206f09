"""A program that runs on a D-Bus of its own, with a gnome-keyring: the checks of a store on its Secret Service.

``dbus-run-session -- python -m tests.interop.secret_service FOLDER`` prints as JSON what was seen. With ``all`` behind it, it
goes through the slow checks too, which takes a minute or more: an entry that is read or written is a key agreement and some ten
messages, 20 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from aiohttp_oauth_middleware import KeyringStore, Record, SealedStore, StoreError, StoreLockTimeout
from aiohttp_oauth_middleware.testing.store_conformance import (
    CHECKS,
    a_closed_store_keeps_its_records,
    a_delete_compares_the_version,
    a_save_compares_the_version,
    the_lock_excludes,
    the_lock_is_freed_whatever_happens,
    the_lock_is_waited_for_within_a_bound,
    two_loops_in_turn_use_one_store,
)

QUICK = (
    a_save_compares_the_version,
    a_delete_compares_the_version,
    the_lock_excludes,
    the_lock_is_waited_for_within_a_bound,
    the_lock_is_freed_whatever_happens,
    a_closed_store_keeps_its_records,
    two_loops_in_turn_use_one_store,
)

PASSWORD = b"the password of this keyring"

ANOTHER_PROCESS = """
import asyncio, sys
from aiohttp_oauth_middleware import KeyringStore, Record, StoreLockTimeout

async def main(locks):
    store = KeyringStore("my-cli", locks=locks)
    print((await store.load("k")).body.decode())
    try:
        async with store.lock("k", wait=0.0):
            print("locked")
    except StoreLockTimeout:
        print("held elsewhere")
    print(await store.save("k", Record(2, "alice", b"late"), expected=1))
    await store.aclose()

asyncio.run(main(sys.argv[1]))
"""


@contextlib.contextmanager
def secret_service() -> Iterator[None]:
    """A gnome-keyring that is unlocked."""
    command = ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        try:
            assert daemon.stdin is not None
            assert daemon.stdout is not None
            daemon.stdin.write(PASSWORD)
            daemon.stdin.close()
            daemon.stdout.readline()  # where its control socket is: it serves
            yield
        finally:
            daemon.terminate()


def another_process(locks: Path) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, str(locks)], capture_output=True, text=True, check=True)
    return ran.stdout.split("\n")[:-1]


async def checked(locks: Path, slow_too: bool) -> dict[str, object]:
    seen: dict[str, object] = {}
    key = SealedStore.generate_key()
    for check in CHECKS if slow_too else QUICK:
        await check(lambda: KeyringStore("my-cli", locks=locks))
    for check in (a_save_compares_the_version, a_delete_compares_the_version):
        # As on Windows, where an entry holds less than most tokens have.
        await check(lambda: SealedStore(KeyringStore("my-cli", locks=locks, entry_size=100), key))
    store = KeyringStore("my-cli", locks=locks, entry_size=1_200)
    await store.save("k", Record(1, "alice", b"first"), expected=0)
    await store.save("k", Record(2, "alice", b"body " * 1_000), expected=1)
    async with store.lock("k", wait=0.0):
        body, *rest = await asyncio.to_thread(another_process, locks)
    seen["another process"] = [body == "body " * 1_000, *rest]
    return seen


async def without_a_keyring(locks: Path) -> str:
    try:
        await KeyringStore("my-cli", locks=locks).load("k")
    except (StoreError, StoreLockTimeout) as error:
        return str(error)
    return "no error"


def main(folder: Path, slow_too: bool) -> None:
    with secret_service():
        seen = asyncio.run(checked(folder / "locks", slow_too))
        import keyring

        seen["backend"] = str(keyring.get_keyring().name)
    seen["after its end"] = asyncio.run(without_a_keyring(folder / "locks"))
    seen["files"] = sorted(os.listdir(folder / "data" / "keyrings"))
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "all" in sys.argv[2:])
