"""Single flight: of all who want the same thing at once, one does the work and all get the result.

The work runs in a task of its own, so that no waiter's cancellation or timeout touches it. Flights are per event loop and key;
across loops, threads and processes a store's lock excludes. Nothing here is bound to a loop before a flight starts on it.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from .errors import OAuthError, TokenUnavailable

__all__ = ("Flight", "Flights", "Turns", "finish", "outlast")

T = TypeVar("T")


class Flight(Generic[T]):
    """One piece of work and those who wait for it."""

    __slots__ = ("_landed", "_waiters", "cancel_when_unwanted", "task")

    def __init__(self, cancel_when_unwanted: bool) -> None:
        self.cancel_when_unwanted = cancel_when_unwanted
        self.task: asyncio.Task[T]
        self._waiters: set[asyncio.Future[T]] = set()
        self._landed: tuple[T | None, BaseException | None] | None = None

    def land(self, result: T | None, error: BaseException | None = None) -> None:
        """Wake the waiters, now rather than when the work ends; a second call changes nothing."""
        if self._landed is not None:
            return
        self._landed = (result, error)
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                self._hand_over(waiter)

    def _hand_over(self, waiter: asyncio.Future[T]) -> None:
        assert self._landed is not None
        result, error = self._landed
        if error is None:
            waiter.set_result(result)  # type: ignore[arg-type]
        else:
            waiter.set_exception(_own_copy(error))

    def waiter(self) -> asyncio.Future[T]:
        """The result, for one who awaits it now; a future alone, for ten thousand may wait."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._landed is not None:
            self._hand_over(waiter)
            return waiter
        self._waiters.add(waiter)
        if self.cancel_when_unwanted:
            waiter.add_done_callback(self._gone)
        return waiter

    def _gone(self, waiter: asyncio.Future[T]) -> None:
        self._waiters.discard(waiter)
        if not self._waiters and self._landed is None:
            self.task.cancel()


class Flights(Generic[T]):
    """The flights under way, by event loop and key."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Flight[T]]] = WeakKeyDictionary()

    def under_way(self, key: Hashable | None = None) -> list[Flight[T]]:
        """The flights of the running loop: that of *key*, or all."""
        flights = self._by_loop.get(asyncio.get_running_loop(), {})
        return list(flights.values()) if key is None else [flights[key]] if key in flights else []

    def join(
        self,
        key: Hashable,
        work: Callable[[Flight[T]], Coroutine[Any, Any, T]],
        *,
        cancel_when_unwanted: bool = False,
    ) -> asyncio.Future[T]:
        """The result of the flight of *key*, started with *work* if there is none. Await it at once.

        Each waiter gets a copy of an error of its own, with the same cause.

        :param cancel_when_unwanted: whether the work stops when its last waiter is gone.
        """
        return self.launch(key, work, cancel_when_unwanted=cancel_when_unwanted).waiter()

    def launch(
        self,
        key: Hashable,
        work: Callable[[Flight[T]], Coroutine[Any, Any, T]],
        *,
        cancel_when_unwanted: bool = False,
    ) -> Flight[T]:
        """The same, for one who doesn't wait: an error that nobody waited for is nobody's."""
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            # A loop that was closed with a flight under way is held by that flight; weakness alone would keep both for ever.
            for other in filter(None, (reference() for reference in self._by_loop.keyrefs())):
                if other.is_closed():
                    self._by_loop.pop(other, None)
        flights = self._by_loop.setdefault(loop, {})
        flight = flights.get(key)
        # One that has ended, or that its last waiter has just given up, is not for those who come after.
        if flight is None or flight.task.done() or (flight.cancel_when_unwanted and flight.task.cancelling()):
            flight = flights[key] = Flight(cancel_when_unwanted)
            # An empty context: neither the trace nor the user of whoever came first is inherited by the others.
            flight.task = loop.create_task(work(flight), context=contextvars.Context())
            flight.task.add_done_callback(_Landing(flights, key, flight))
        return flight


class _Landing(Generic[T]):
    """What happens when the work ends: the flight is off the board, and whoever still waits is woken."""

    def __init__(self, flights: dict[Hashable, Flight[T]], key: Hashable, flight: Flight[T]) -> None:
        self._flights, self._key, self._flight = flights, key, flight

    def __call__(self, task: asyncio.Task[T]) -> None:
        if self._flights.get(self._key) is self._flight:
            del self._flights[self._key]
        if task.cancelled():
            self._flight.land(None, TokenUnavailable("the request for a token was cancelled while others waited for it"))
        elif error := task.exception():
            self._flight.land(None, error)
        else:
            self._flight.land(task.result())


class Turns:
    """One after another, in the order in which they came, by event loop and key; a turn exists only while it is taken."""

    def __init__(self) -> None:
        self._last: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Future[None]]] = WeakKeyDictionary()

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        last = self._last.setdefault(loop, {})
        before, mine = last.get(key), loop.create_future()
        last[key] = mine

        def over(_: object = None) -> None:
            mine.set_result(None)
            if last.get(key) is mine:
                del last[key]

        try:
            if before is not None:
                await asyncio.wait((before,))  # not the future itself, which whoever gives up would cancel for all
            yield
        finally:
            if before is None or before.done():
                over()
            else:  # given up: whoever comes next waits for those before us
                before.add_done_callback(over)


async def outlast(future: asyncio.Future[T], grace: float) -> T:
    """Await *future* although this task is cancelled meanwhile: for up to *grace* seconds from the first cancellation.

    ``asyncio.run``, ``Runner`` and ``web.run_app`` cancel every task when they end, and wait for those that go on; an answer
    that holds a rotated refresh token is worth that wait. A future is not on their list, so it is not cut off either.
    """
    loop = asyncio.get_running_loop()
    deadline: float | None = None
    outlasted = 0
    while not future.done():
        try:
            await asyncio.wait((future,), timeout=None if deadline is None else deadline - loop.time())
        except asyncio.CancelledError:
            outlasted += 1
            deadline = loop.time() + grace if deadline is None else deadline
        if deadline is not None and loop.time() >= deadline and not future.done():
            future.cancel()
            raise asyncio.CancelledError
    # Only now, for a cancellation that is passed on has to stay counted: TaskGroup and timeout() go by the count.
    if (task := asyncio.current_task()) is not None:
        for _ in range(outlasted):
            task.uncancel()
    return future.result()


async def finish(work: Callable[[], Coroutine[Any, Any, T]], grace: float) -> T:
    """*work*, to its end although this task is cancelled; begun once more where the end of the loop cancelled the work too.

    :param grace: seconds for which a cancellation waits, as for :func:`outlast`.
    """
    loop = asyncio.get_running_loop()
    try:
        return await outlast(loop.create_task(work()), grace)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise  # the grace is over
    # Every task was cancelled, and that happens once: nobody will cut off a second try but we ourselves.
    again = loop.create_task(work())
    done, _ = await asyncio.wait((again,), timeout=grace)
    if not done:
        again.cancel()
        raise asyncio.CancelledError
    return again.result()


def _own_copy(error: BaseException) -> BaseException:
    if isinstance(error, OAuthError):
        return error.again()
    try:
        twin = copy.copy(error)
    except Exception:
        return error
    if type(twin) is not type(error):
        return error
    twin.__cause__ = error.__cause__
    return twin.with_traceback(None)
