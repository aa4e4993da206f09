"""Time as an argument: the wall clock, a monotonic clock, and sleeping by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

__all__ = ("Clock", "SystemClock")


class Clock(Protocol):
    """Where the time comes from; a test passes one that it can move."""

    def time(self) -> float:
        """The wall clock, in epoch seconds."""

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of this clock."""


# Where the system can, the monotonic clock goes on while the machine is suspended: a token ages then too.
_MONOTONIC: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class SystemClock:
    """The system's clocks."""

    monotonic = staticmethod(_MONOTONIC)
    time = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
