"""Rounds in which candidates take turns, and what can be said of them afterwards."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ("CLIENT_CORE", "SERVER_CORE", "Rounds", "pin", "take_turns")

SERVER_CORE = 0
CLIENT_CORE = 1


def pin(core: int) -> bool:
    """Bind this process to one core, where the system can and has it."""
    if not hasattr(os, "sched_setaffinity") or core not in os.sched_getaffinity(0):
        return False
    os.sched_setaffinity(0, {core})
    return True


class Rounds:
    """The figure of each candidate in each round."""

    def __init__(self, figures: Mapping[str, Sequence[float]]) -> None:
        self.figures = figures

    def median(self, name: str) -> float:
        return statistics.median(self.figures[name])

    def ratio(self, name: str, to: str) -> float:
        """The median of the ratios within a round: what slowed one down for a while slowed the other too."""
        return statistics.median(one / other for one, other in zip(self.figures[name], self.figures[to], strict=True))

    def added(self, name: str, to: str) -> float:
        return statistics.median(one - other for one, other in zip(self.figures[name], self.figures[to], strict=True))


async def take_turns(candidates: Mapping[str, Callable[[], Awaitable[float]]], rounds: int) -> Rounds:
    """Let each candidate run once in every round, in random order. A candidate returns its figure."""
    figures: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for name in names:
        await candidates[name]()  # a first time that doesn't count
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            figures[name].append(await candidates[name]())
    return Rounds(figures)
