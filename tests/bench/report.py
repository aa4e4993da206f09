"""What was measured, beside its goal: on the terminal, as JSON, and as a table for the documentation."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

__all__ = ("Report", "Result")

DOCS = Path(__file__).resolve().parents[2] / "docs"
VERSIONS = (
    *("aiohttp", "yarl", "multidict", "cryptography", "authlib", "oauthlib", "requests-oauthlib", "httpx", "google-auth"),
    *("aiohttp-oauth2-client", "uvloop"),
)


class Result:
    """One figure.

    :param ids: of the threat model's rows and goals that it speaks of.
    :param goal: the most that it may be, the least where *at_least*, or exactly what it must be where *exact*; None where it
        only stands beside others.
    """

    def __init__(
        self,
        section: str,
        title: str,
        value: float,
        unit: str,
        *,
        goal: float | None = None,
        exact: bool = False,
        at_least: bool = False,
        ids: tuple[str, ...] = (),
    ) -> None:
        self.section, self.title, self.value, self.unit = section, title, value, unit
        self.goal, self.exact, self.at_least, self.ids = goal, exact, at_least, ids

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        if self.exact:
            return self.value == self.goal
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def shown(self) -> str:
        return f"{_number(self.value)} {self.unit}".strip()

    @property
    def shown_goal(self) -> str:
        sign = "" if self.exact else ">= " if self.at_least else "<= "
        return "" if self.goal is None else f"{sign}{_number(self.goal)}"

    @property
    def shown_met(self) -> str:
        return {None: "", True: "met", False: "NOT MET"}[self.met]


class Report:
    """The results of one run, printed as they come."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.notes: list[str] = []
        self._section = ""
        self._started = time.monotonic()

    def add(self, result: Result) -> None:
        if result.section != self._section:
            self._section = result.section
            print(f"\n{result.section}", flush=True)
        ids = f"  [{', '.join(result.ids)}]" if result.ids else ""
        print(f"  {result.title:62} {result.shown:>18}  {result.shown_goal:>10}  {result.shown_met:7}{ids}", flush=True)
        self.results.append(result)

    def note(self, text: str) -> None:
        print(f"  ({text})", flush=True)
        self.notes.append(text)

    def finish(self, *, write: bool) -> int:
        """Write the files if this was the whole; return the exit status."""
        machine = _machine()
        seconds = round(time.monotonic() - self._started)
        DOCS.mkdir(exist_ok=True)
        content = {
            "machine": machine,
            "seconds": seconds,
            "notes": self.notes,
            "results": [
                {
                    "section": one.section,
                    "title": one.title,
                    "value": round(one.value, 4),
                    "unit": one.unit,
                    "goal": one.goal,
                    "exact": one.exact,
                    "at_least": one.at_least,
                    "met": one.met,
                    "ids": one.ids,
                }
                for one in self.results
            ],
        }
        if write:
            (DOCS / "bench.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            (DOCS / "performance-figures.rst").write_text(self._table(machine))
        missed = [one.title for one in self.results if one.met is False]
        goals = sum(one.goal is not None for one in self.results)
        print(f"\n{goals - len(missed)} of {goals} goals met, {seconds} s")
        return 1 if missed else 0

    def _table(self, machine: dict[str, str]) -> str:
        lines = [".. This file is written by tests/bench; don't edit it.", ""]
        lines += [
            f"Measured on {machine['kind']}: " + ", ".join(f"{k} {v}" for k, v in machine.items() if k != "kind") + ".",
            "",
        ]
        section = ""
        for one in self.results:
            if one.section != section:
                section = one.section
                lines += ["", f".. list-table:: {section}", "   :header-rows: 1", "   :widths: 56 16 12 16", ""]
                lines += ["   * - What", "     - Measured", "     - Goal", "     - Ids"]
            goal = f"{one.shown_goal}{' (not met)' if one.met is False else ''}"
            lines += [
                f"   * - {one.title}",
                f"     - {one.shown}",
                f"     - {goal}".rstrip(),
                f"     - {', '.join(one.ids)}".rstrip(),
            ]
        lines += ["", *(f"* {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def _machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {
        "kind": f"{os.cpu_count() or cores} {platform.machine()} cores, {platform.system()}",
        platform.python_implementation(): ".".join(map(str, sys.version_info[:3])),
    }
    for name in VERSIONS:
        try:
            machine[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return machine


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
