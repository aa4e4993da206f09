"""What is printed: ticks where they can be encoded, colour on a terminal."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TextIO, TypeVar

__all__ = ("Finding", "Page", "Points")

Stage = TypeVar("Stage")


class Finding(NamedTuple):
    """What came of one point: a line that tells it, and whether the counters confirm it."""

    text: str
    holds: bool

    @classmethod
    def of(cls, counted: object, expected: object, *also: bool) -> Finding:
        """Compare what the servers counted with what they should have, and heed what is *also* so."""
        text = f"counted: {counted}" if counted == expected else f"counted: {counted}; expected: {expected}"
        return cls(text, counted == expected and all(also))


Points = tuple[tuple[str, Callable[[Stage], Awaitable[Finding]]], ...]


class Page:
    """Where the demonstration is told."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        try:
            "✓✗".encode(out.encoding or "ascii")
            self._marks = {True: "✓", False: "✗"}
        except (UnicodeEncodeError, LookupError):
            self._marks = {True: "[ok]", False: "[NO]"}
        # https://no-color.org: "when present and not an empty string (regardless of its value)"
        self._colour = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    def point(self, claim: str, finding: Finding) -> None:
        mark = self._marks[finding.holds]
        self.line(f"{self._painted(mark, '32' if finding.holds else '31')} {claim}")
        self.line(f"{' ' * len(mark)}   {self._painted(finding.text, '2')}")

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
