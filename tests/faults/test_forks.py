"""A process forks in the midst of a refresh: neither it nor its child hangs, and there is one refresh."""

from __future__ import annotations

import asyncio
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import pytest

from aiohttp_oauth_middleware import Tokens
from tests.soak.forks import fork_at, fork_often, orphan
from tests.soak.server import CONTEXT, ServerProcess
from tests.soak.stores import KERNEL_LOCKED, STORES
from tests.soak.worker import HELD_BY_THE_SERVER, POINTS

# By `make soak` a hundred times as many.
FORKS: Final = int(os.environ.get("FORKS", "100"))
EVERYWHERE: Final = [point for point in POINTS if not point.startswith("temporary file")]


async def ended(process: BaseProcess, status: int = 0) -> None:
    await asyncio.to_thread(process.join)
    assert process.exitcode == status, "it hung, or its child failed" if process.exitcode == -signal.SIGALRM else "it failed"


async def with_an_expired_token(server: ServerProcess, store: str, place: Path) -> None:
    kept = STORES[store].make(str(place))
    await Tokens(server.client(), store=kept).save(server.issue().replace(expires_at=1.0, obtained_at=0.0))
    await kept.aclose()


@pytest.mark.parametrize("point", EVERYWHERE)
@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_F_16_G_20_F_15_parent_and_child_have_the_token_of_one_refresh_wherever_it_forks(
    store: str, point: str, tmp_path: Path
) -> None:
    with ServerProcess() as server:
        await with_an_expired_token(server, store, tmp_path)
        if point == HELD_BY_THE_SERVER:
            server.hold()
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=fork_at, args=(theirs, store, str(tmp_path), server.issuer, point))
        process.start()
        theirs.close()
        if point == HELD_BY_THE_SERVER:
            await server.arrived()
            ours.send("it has arrived")
        assert await asyncio.to_thread(ours.recv) == "forked"
        server.release()
        await ended(process)
        counts = server.counts()
    assert counts.token_requests == counts.refreshes == 1
    assert counts.reuses == 0


@pytest.mark.parametrize("point", ["lock taken", "intent durable", "about to be sent"])
@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_F_16_F_49_a_child_does_not_keep_the_lock_of_its_parent_that_died(store: str, point: str, tmp_path: Path) -> None:
    with ServerProcess() as server:
        await with_an_expired_token(server, store, tmp_path)
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=orphan, args=(theirs, store, str(tmp_path), server.issuer, point))
        process.start()
        theirs.close()
        await ended(process, -signal.SIGKILL)
        ours.send("it is dead")
        assert await asyncio.to_thread(ours.recv) is True
        counts = server.counts()
    assert counts.token_requests == counts.refreshes == 1
    assert counts.reuses == 0


@pytest.mark.parametrize("point", EVERYWHERE)
async def test_F_16_a_child_is_not_kept_waiting_by_what_its_parent_holds_in_memory(point: str) -> None:
    """Two memories know nothing of each other, so this is a server that does not rotate, or has a grace."""
    with ServerProcess(grace=3600.0) as server:
        if point == HELD_BY_THE_SERVER:
            server.hold()
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=fork_at, args=(theirs, "memory", "", server.issuer, point))
        process.start()
        theirs.close()
        ours.send(server.issue().replace(expires_at=1.0, obtained_at=0.0).to_dict())
        if point == HELD_BY_THE_SERVER:
            await server.arrived()
            ours.send("it has arrived")
        assert await asyncio.to_thread(ours.recv) == "forked"
        server.release()
        await ended(process)
        counts = server.counts()
    assert counts.token_requests <= 2


@pytest.mark.timeout(0 if FORKS > 100 else 120)
@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_G_20_F_15_F_16_forks_at_any_moment_end_in_no_deadlock_and_one_refresh(store: str, tmp_path: Path) -> None:
    each = FORKS // len(KERNEL_LOCKED)
    with ServerProcess() as server:
        users = [server.issue().replace(expires_at=1.0, obtained_at=0.0).to_dict() for _ in range(each)]
        process = CONTEXT.Process(target=fork_often, args=(store, str(tmp_path), server.issuer, users, 1))
        process.start()
        await ended(process)
        counts = server.counts()
    assert counts.token_requests == counts.refreshes == each
    assert counts.reuses == counts.refresh_overlaps == 0
