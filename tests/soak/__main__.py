"""The long runs with several processes, a part of ``make soak``: ``python -m tests.soak [SECONDS [KILLS]]``."""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

from tests.soak.crew import killed_one_by_one, percentile, under_load
from tests.soak.server import ServerProcess
from tests.soak.stores import KERNEL_LOCKED
from tests.soak.worker import Load

FIGURES: Final = Path(__file__).resolve().parents[2] / "docs" / "soak-figures.rst"


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    missed: list[str] = []
    loads = [_load(store, seconds, missed) for store in KERNEL_LOCKED]
    crashes = [_crashes(store, kind, kills, missed) for store in KERNEL_LOCKED for kind in ("grace", "strict")]
    FIGURES.write_text(
        "\n".join(
            [
                ".. This file is written by tests/soak; don't edit it.",
                "",
                f"Measured on {time.strftime('%Y-%m-%d')}, {platform.machine()}, CPython {platform.python_version()}, "
                f"aiohttp {metadata.version('aiohttp')}.",
                "",
                *_table(
                    f"8 processes with 100 tasks each, a token that lives for 1 s, a strict server, {seconds:.0f} s",
                    ("Store", "Requests", "Failed", "Refreshes", "Adopted", "Reuses", "API's answer, 99 %", "Lock waited for"),
                    loads,
                ),
                "",
                *_table(
                    f"The same with one process killed (kill -9) each second, {kills} times",
                    (
                        "Store, server",
                        "Requests",
                        "Failed",
                        "Corrupt",
                        "Stuck locks",
                        "Refreshes",
                        "Reuses",
                        "Signed in again",
                        "RefreshInDoubt",
                    ),
                    crashes,
                ),
            ]
        )
        + "\n",
        "utf-8",
    )
    for one in missed:
        print(f"MISSED: {one}")
    return 1 if missed else 0


def _load(store: str, seconds: float, missed: list[str]) -> tuple[str, ...]:
    """G-05."""
    with ServerProcess(lifetime=1.0) as server, tempfile.TemporaryDirectory() as place:
        order = Load(store, place, server.issuer, server.api)
        report = asyncio.run(under_load(server, order, _every(seconds)))
        counts = server.counts()
    failed, slowest = report.failed.total() + report.signed_out, percentile(report.latencies, 0.99)
    _check(missed, f"G-05 with {store}: {dict(report.failed)}", not failed and not counts.reuses and report.ok > 0)
    _check(missed, f"G-05 with {store}: the API's answers took {slowest:.3f} s, so it says nothing", slowest < 0.25)
    return _row(
        store,
        report.ok,
        failed,
        counts.refreshes,
        report.events["refresh_adopted"],
        counts.reuses,
        f"{1000 * slowest:.1f} ms",
        f"{1000 * max(report.lock_waits):.0f} ms at most",
    )


def _crashes(store: str, kind: str, kills: int, missed: list[str]) -> tuple[str, ...]:
    """G-06."""
    grace = 3600.0 if kind == "grace" else 0.0
    with ServerProcess(lifetime=1.0, grace=grace, latency=0.2) as server, tempfile.TemporaryDirectory() as place:
        order = Load(store, place, server.issuer, server.api)
        toll = asyncio.run(killed_one_by_one(server, order, kills, _every(1.0)))
        counts = server.counts()
    what = f"G-06 with {store}, {kind}"
    seen = toll.seen
    failed = seen.failed.total() + (seen.signed_out if kind == "grace" else 0)
    named = {process for process, _ in seen.in_doubt}
    _check(
        missed,
        f"{what}: {dict(seen.failed)}, {toll.corrupt} corrupt, {toll.stuck} stuck",
        not (failed or toll.corrupt or toll.stuck),
    )
    _check(missed, f"{what}: RefreshInDoubt names {named - toll.killed}, which was not killed", named <= toll.killed)
    _check(
        missed,
        f"{what}: {counts.families_revoked} sign-ins ended, {len(seen.in_doubt)} were reported",
        (counts.families_revoked == len(seen.in_doubt) <= len(toll.killed)),
    )
    return _row(
        f"{store}, {kind}",
        counts.presented["accepted"],
        failed,
        toll.corrupt,
        toll.stuck,
        counts.refreshes,
        counts.reuses,
        toll.sign_ins,
        len(seen.in_doubt),
    )


def _every(seconds: float) -> Callable[[], Awaitable[None]]:
    return lambda: asyncio.sleep(seconds)


def _check(missed: list[str], what: str, met: bool) -> None:
    if not met:
        missed.append(what)


def _row(*cells: object) -> tuple[str, ...]:
    shown = tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
    print(" | ".join(shown), flush=True)
    return shown


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in (head, *rows):
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(row)]
    return lines


if __name__ == "__main__":
    sys.exit(main())
