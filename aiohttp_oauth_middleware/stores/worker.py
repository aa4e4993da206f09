"""A thread for what blocks, so that no call to a disk or a keyring is made on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakSet

from ..errors import OAuthError

__all__ = ("Worker",)

T = TypeVar("T")


class Worker:
    """One thread, which does one thing after another for whichever loop asks; it starts when there is something to do.

    Not the loop's own executor: that one ends with the loop, or is full of what others wait for.

    :param name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        _workers.add(self)

    async def run(self, work: Callable[[], T]) -> T:
        """What *work* returns or raises. Whoever stops waiting does not stop the work."""
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[T] = loop.create_future()

        def arrive(done: Future[T]) -> None:
            if arrival.done():
                return
            if error := done.exception():
                arrival.set_exception(error)
            else:
                arrival.set_result(done.result())

        def hand_over(done: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(arrive, done)

        with self._guard:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
            outcome = self._pool.submit(_quietly, work)
        outcome.add_done_callback(hand_over)
        return await arrival

    def close(self) -> None:
        """End the thread when it has done what it was given; the next :meth:`run` starts another."""
        with self._guard:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def _forget(self) -> None:
        self._guard = threading.Lock()
        self._pool = None


def _quietly(work: Callable[[], T]) -> T:
    """*work*, whose errors come without the frames that they crossed: those had a record's bytes in their locals."""
    try:
        return work()
    except OAuthError as error:
        if error.__cause__ is not None:
            error.__cause__.__traceback__ = None
            error.__cause__.__context__ = None
        raise error.bare() from error.__cause__
    except Exception as error:
        error.__context__ = None
        raise error.with_traceback(None) from error.__cause__


_workers: WeakSet[Worker] = WeakSet()


def _forget_threads() -> None:
    for worker in list(_workers):
        worker._forget()


if hasattr(os, "register_at_fork"):
    # The thread does not exist in the child, though its pool believes so.
    os.register_at_fork(after_in_child=_forget_threads)
