"""Many refreshes, and what is left of them: ``python -W error -X dev -m tests.soak.leaks STORE REFRESHES``."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp_oauth_middleware import Client, ClientSecret, Tokens
from tests.clock import VirtualClock
from tests.soak.server import ServerProcess
from tests.soak.stores import STORES
from tests.strict_server import DirectClient, StrictServer

USERS: Final = 5
WARM_UP: Final = 100


def left(place: str) -> dict[str, int]:
    """What there is of this process."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/dev/fd")),
        "files": sum(1 for _ in Path(place).rglob("*")),
    }


def resident() -> int:
    """Bytes of memory; 0 where the system doesn't tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


class Forgetful(StrictServer):
    """A server in memory that keeps no account, which would be taken for a leak of ours."""

    def forget(self) -> None:
        current = set(self._current.values())
        for kept in (self.requests, self.times, self.presented, self._access):
            kept.clear()
        self._family_of = {one: family for one, family in self._family_of.items() if one in current}


async def compared(some: Callable[[int], Awaitable[None]], place: str, refreshes: int, reuses: Callable[[], int]) -> str:
    """What is left after a tenth of the refreshes, and after all the others, as JSON."""
    await some(max(WARM_UP, refreshes // 10))  # by then the allocators have what they want to keep
    before, memory = left(place), resident()
    await some(refreshes)
    return json.dumps({"before": before, "after": left(place), "bytes": resident() - memory, "reuses": reuses()})


async def many(store: str, place: str, refreshes: int) -> str:
    """Refresh so many times, without a socket."""
    clock = VirtualClock()
    server = Forgetful(clock)
    async with Tokens(DirectClient(server), store=STORES[store].make(place)) as tokens:
        for user in range(USERS):
            await tokens.save(server.sign_in(), key=f"user {user}")

        async def some(number: int) -> None:
            for _ in range(number // USERS):
                clock.advance(3600.0)
                await asyncio.gather(*(tokens.for_key(f"user {user}").token() for user in range(USERS) for _ in range(2)))
                server.forget()

        return await compared(some, place, refreshes, lambda: server.reuses)


async def over_the_wire(store: str, place: str, refreshes: int) -> str:
    """The same with a server in another process."""
    clock = VirtualClock()
    with ServerProcess() as server:
        client = Client(server.issuer, "app", ClientSecret("app-secret"), clock=clock)
        async with Tokens(client, store=STORES[store].make(place)) as tokens:
            now = clock.time()
            await tokens.save(server.issue().replace(expires_at=now, obtained_at=now - 3600.0))

            async def some(number: int) -> None:
                for _ in range(number):
                    await tokens.token()
                    clock.advance(3600.0)

            return await compared(some, place, refreshes, lambda: server.counts().reuses)


def main() -> None:
    store, refreshes = sys.argv[1], int(sys.argv[2])
    work = over_the_wire if sys.argv[3:] == ["wire"] else many
    # Debug mode tells of what is slow, too, and how slow the machine is, is another matter.
    logging.getLogger("asyncio").addFilter(lambda record: " took " not in record.getMessage())
    memory = "/dev/shm"  # which has no disk to wait for
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else None) as place:
        print(asyncio.run(work(store, place, refreshes), debug=True))


if __name__ == "__main__":
    main()
