"""An event loop that runs whichever of the ready callbacks a seed picks, in virtual time: the same seed, the same order."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.clock import VirtualClock

__all__ = ("LoopClock", "PermutingLoop", "run_permuted")

T = TypeVar("T")


class LoopClock(VirtualClock):
    """The clock of a :class:`PermutingLoop`; to sleep by it is to sleep on that loop."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds)


class PermutingLoop(asyncio.SelectorEventLoop):
    """The loop. asyncio promises to run what is ready in order; who is correct under this one needs no such promise.

    There is no I/O, and no thread: where nothing is ready the clock moves on to the next timer, and where there is none
    either, somebody would wait for ever.

    :param chance: what picks; :ivar:`order` has the names of what was run.
    """

    def __init__(self, chance: random.Random, clock: VirtualClock) -> None:
        super().__init__()
        self._chance = chance
        self._clock = clock
        self.order: list[str] = []

    def time(self) -> float:
        return self._clock.monotonic()

    def _run_once(self) -> None:
        ready: list[asyncio.Handle] = self._ready  # type: ignore[attr-defined]  # a deque
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while timers and (timers[0].cancelled() or timers[0].when() <= self.time() or not ready):
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            if not timer.cancelled():
                self._clock.advance(max(0.0, timer.when() - self.time()))
                ready.append(timer)
        assert ready, "nothing is left to run, and somebody waits"
        picked = self._chance.randrange(len(ready))
        handle = ready[picked]
        del ready[picked]
        if not handle.cancelled():
            self.order.append(_name(handle._callback))  # type: ignore[attr-defined]
            handle._run()


def _name(callback: Callable[..., object]) -> str:
    # Of a task the coroutine's name: all steps of all tasks are called alike.
    owner = getattr(callback, "__self__", None)
    named: object = owner.get_coro() if isinstance(owner, asyncio.Task) else callback
    return str(getattr(named, "__qualname__", type(named).__name__))


def run_permuted(main: Coroutine[Any, Any, T], chance: random.Random, clock: VirtualClock) -> tuple[T, list[str]]:
    """The result of *main* on a :class:`PermutingLoop`, and in which order its callbacks were run."""
    loop = PermutingLoop(chance, clock)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main), loop.order
