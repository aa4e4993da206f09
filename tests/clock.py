"""A clock that a test moves: nothing sleeps, and years pass at once."""

from __future__ import annotations

import asyncio

__all__ = ("VirtualClock",)


class VirtualClock:
    """Time as a test wants it.

    :param wall: epoch seconds at the start.
    :param automatic: whether :meth:`sleep` moves the clock itself and returns; else it waits until :meth:`advance` has.
    """

    def __init__(self, wall: float = 1_700_000_000.0, *, automatic: bool = True) -> None:
        self._wall = wall
        self._monotonic = 1000.0
        self._automatic = automatic
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.slept: list[float] = []
        """What :meth:`sleep` was asked for, in seconds."""

    def time(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._wall += seconds
        self._monotonic += seconds
        for sleeper in [one for one in self._sleepers if one[0] <= self._monotonic]:
            self._sleepers.remove(sleeper)
            if not sleeper[1].done():
                sleeper[1].set_result(None)

    def set_wall(self, seconds: float) -> None:
        """Step the wall clock by so many seconds, as an administrator or NTP does; the monotonic one goes on."""
        self._wall += seconds

    @property
    def sleepers(self) -> int:
        """How many wait for the clock."""
        return sum(not future.done() for _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._automatic:
            self.advance(seconds)
            await asyncio.sleep(0)
            return
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, until))
        await until
