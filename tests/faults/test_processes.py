"""Several processes, or several Tokens of one, over one store: its lock excludes them, whatever becomes of each."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from aiohttp_oauth_middleware import Record, Tokens
from aiohttp_oauth_middleware.stores.kernel_lock import KernelLock
from aiohttp_oauth_middleware.stores.store import Lock
from tests.clock import VirtualClock
from tests.soak.crew import killed_one_by_one, percentile, so_many_refreshes, under_load
from tests.soak.server import CONTEXT, ServerProcess
from tests.soak.stores import KERNEL_LOCKED, STORES, Wrapped
from tests.soak.worker import Load, refresh
from tests.strict_server import DirectClient, StrictServer


@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_G_05_P1_eight_processes_with_a_hundred_tasks_each_and_a_token_that_lives_for_a_second(
    store: str, tmp_path: Path
) -> None:
    with ServerProcess(lifetime=1.0) as server:
        order = Load(store, str(tmp_path), server.issuer, server.api)
        report = await under_load(server, order, lambda: so_many_refreshes(server, 12))
        counts = server.counts()
    slow = f"the API's answers took {percentile(report.latencies, 0.99):.3f} s (99th percentile)"
    assert report.failed == {}, slow
    assert report.signed_out == 0
    assert report.ok > 0
    assert counts.reuses == counts.refresh_overlaps == counts.families_revoked == 0
    assert max(counts.refresh_token_uses.values()) == 1
    assert report.events["refresh_started"] == report.events["refresh_succeeded"] == counts.token_requests == counts.refreshes
    assert report.events["refresh_adopted"] > counts.refreshes


@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_G_06_P2_processes_are_killed_one_by_one_and_the_others_go_on(store: str, tmp_path: Path) -> None:
    with ServerProcess(lifetime=1.0, grace=3600.0, latency=0.05) as server:
        order = Load(store, str(tmp_path), server.issuer, server.api, tasks=20, think=0.5)
        toll = await killed_one_by_one(server, order, 4, lambda: so_many_refreshes(server, 1), workers=4)
        counts = server.counts()
    assert len(toll.killed) == 4
    assert toll.corrupt == toll.stuck == toll.sign_ins == 0
    assert toll.seen.failed == {}
    assert toll.seen.signed_out == 0
    assert counts.presented["accepted"] > 0
    assert counts.reuses <= len(toll.killed)
    assert counts.families_revoked == counts.refresh_overlaps == 0


@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_G_08_F_48_P1_the_leader_is_stopped_and_the_waiter_waits(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    real = KernelLock.try_acquire

    def counted(lock: KernelLock) -> bool:
        nonlocal attempts
        attempts += lock._loop is not None
        return real(lock)

    monkeypatch.setattr(KernelLock, "try_acquire", counted)
    kept = STORES[store].make(str(tmp_path))
    with ServerProcess() as server:
        await Tokens(server.client(), store=kept).save(server.issue().replace(expires_at=1.0, obtained_at=0.0))
        server.hold()
        leader = CONTEXT.Process(target=refresh, args=(store, str(tmp_path), server.issuer))
        leader.start()
        await server.arrived()
        assert leader.pid is not None
        os.kill(leader.pid, signal.SIGSTOP)
        server.release()  # the answer comes, and nobody reads it
        waiter = asyncio.create_task(Tokens(server.client(), store=kept).token())
        give_up = time.monotonic() + 60.0
        while attempts < 50:
            assert time.monotonic() < give_up
            assert not waiter.done()
            await asyncio.sleep(0.01)
        assert server.counts().token_requests == 1
        os.kill(leader.pid, signal.SIGCONT)
        token = await waiter
        await asyncio.to_thread(leader.join)
        assert leader.exitcode == 0
        assert server.is_active(token.access_token)
        assert server.is_active(token.refresh_token)
        counts = server.counts()
    await kept.aclose()
    assert counts.token_requests == counts.refreshes == 1
    assert counts.reuses == counts.refresh_overlaps == 0


# In one process.


class Counted(Wrapped):
    """A store that notes what it was asked for."""

    calls: list[str]

    async def load(self, key: str) -> Record | None:
        self.calls.append("load")
        return await super().load(key)

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        self.calls.append("save")
        return await super().save(key, record, expected=expected, lock=lock)

    def lock(self, key: str, *, wait: float) -> AbstractAsyncContextManager[Lock]:
        self.calls.append("lock")
        return super().lock(key, wait=wait)


class Unlocked(Wrapped):
    """A store whose lock excludes nobody."""

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        async with super().lock(f"{key} {id(self)}", wait=wait) as held:
            yield held


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_P1_two_Tokens_of_one_process_exclude_each_other_by_the_lock_of_the_store(
    store: str, locked: bool, tmp_path: Path
) -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    stores = [STORES[store].make(str(tmp_path)) for _ in range(2)]
    two = [Tokens(DirectClient(server), store=one if locked else Unlocked(one)) for one in stores]
    await two[0].save(server.sign_in())
    clock.advance(3600.0)
    server.holding = True
    first, second = (asyncio.create_task(tokens.token()) for tokens in two)
    give_up = time.monotonic() + 60.0
    while server.held < (1 if locked else 2):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.002)
    server.release()
    await asyncio.wait((first, second))
    assert server.most_at_once == server.token_requests == (1 if locked else 2)
    assert server.reuses == (0 if locked else 1), "without the lock nothing else keeps them apart"
    if locked:
        assert first.result() == second.result()
    for one in stores:
        await one.aclose()


@pytest.mark.parametrize("store", KERNEL_LOCKED)
async def test_a_valid_token_costs_no_access_to_the_store_and_a_newer_one_of_a_sibling_is_noticed_at_the_next_need(
    store: str, tmp_path: Path
) -> None:
    clock = VirtualClock()
    server = StrictServer(clock)
    stores = [Counted(STORES[store].make(str(tmp_path))) for _ in range(2)]
    for one in stores:
        one.calls = []
    ours, siblings = (Tokens(DirectClient(server), store=one) for one in stores)
    old = server.sign_in()
    await ours.save(old)
    stores[0].calls.clear()
    for _ in range(100):
        assert await ours.token() == old
        clock.advance(30.0)
    assert stores[0].calls == []
    clock.advance(600.0)
    new = await siblings.token()
    assert stores[1].calls == ["load", "lock", "load", "save", "save"]
    assert await ours.token() == new
    assert await ours.token() == new
    assert stores[0].calls == ["lock", "load"]
    assert server.token_requests == 1
    for one in stores:
        await one.aclose()
