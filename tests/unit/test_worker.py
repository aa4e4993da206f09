"""The thread for what blocks: results, errors without frames, cancellation, closed loops, and forks."""

from __future__ import annotations

import asyncio
import threading
import traceback

import pytest

from aiohttp_oauth_middleware import StoreError
from aiohttp_oauth_middleware.stores import worker as worker_module
from aiohttp_oauth_middleware.stores.worker import Worker


async def test_it_works_in_one_thread_in_the_order_in_which_it_was_asked() -> None:
    worker = Worker("oauth-test")
    done: list[int] = []
    await asyncio.gather(*(worker.run(lambda number=number: done.append(number)) for number in range(100)))  # type: ignore[misc]
    assert done == list(range(100))
    assert await worker.run(lambda: threading.current_thread().name) == "oauth-test_0"
    worker.close()
    worker.close()
    assert await worker.run(lambda: "again") == "again"
    worker.close()


async def test_S_22_an_error_comes_without_the_frames_that_it_crossed() -> None:
    worker = Worker("oauth-test")

    def ours() -> None:
        secret = "s3cr3t"
        try:
            raise OSError(len(secret))
        except OSError as error:
            raise StoreError("the disk") from error

    def any_other() -> None:
        secret = "s3cr3t"
        raise ValueError(len(secret))

    for work, kind in ((ours, StoreError), (any_other, ValueError)):
        with pytest.raises(kind) as caught:
            await worker.run(work)
        shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
        assert "test_worker.py" in shown
        assert "'s3cr3t'" not in shown.partition('worker.py", line')[2].partition("test_worker")[2]
        assert "secret = " not in shown
    worker.close()


async def test_who_stops_waiting_does_not_stop_the_work() -> None:
    worker = Worker("oauth-test")
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(30.0)
        done.set()

    task = asyncio.create_task(worker.run(work))
    await asyncio.to_thread(begun.wait, 30.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await worker.run(lambda: None)
    assert done.is_set()
    worker.close()


def test_F_15_a_loop_that_is_closed_meanwhile_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker("oauth-test")
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        assert go_on.wait(30.0)

    loop = asyncio.new_event_loop()
    task = loop.create_task(worker.run(work))
    loop.run_until_complete(asyncio.sleep(0))
    task.get_coro().close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    go_on.set()
    assert asyncio.run(worker.run(lambda: done.set() or "done")) == "done"  # type: ignore[func-returns-value]
    assert not caplog.records
    worker.close()


async def test_F_16_what_a_child_begins_with_has_no_thread() -> None:
    worker = Worker("oauth-test")
    await worker.run(lambda: None)
    parents = worker._pool
    worker_module._forget_threads()
    assert worker._pool is None
    assert await worker.run(lambda: "in the child") == "in the child"
    worker.close()
    assert parents is not None
    parents.shutdown()
