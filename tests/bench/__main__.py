from __future__ import annotations

import asyncio
import logging
import sys

from .end_to_end import measure_end_to_end
from .hot_path import measure_hot_path
from .identities import measure_identities
from .imports import measure_imports
from .measure import CLIENT_CORE, pin
from .memory import measure_memory
from .oauth1 import measure_oauth1, measure_oauth1_end_to_end
from .report import Report
from .storm import measure_storm
from .wire import wire

PARTS = ("imports", "hot_path", "end_to_end", "oauth1", "storm", "memory", "identities")


async def _all(report: Report, parts: tuple[str, ...]) -> None:
    if "imports" in parts:
        measure_imports(report)
    if "hot_path" in parts:
        await measure_hot_path(report)
    if "oauth1" in parts:
        await measure_oauth1(report)
    if {"end_to_end", "oauth1", "storm"} & set(parts):
        async with wire() as server:
            if "end_to_end" in parts:
                await measure_end_to_end(report, server)
            if "oauth1" in parts:
                await measure_oauth1_end_to_end(report, server)
            if "storm" in parts:
                await measure_storm(report, server)
    if "memory" in parts:
        await measure_memory(report)
    if "identities" in parts:
        await measure_identities(report)


def main() -> int:
    """Run all, or the parts that the arguments name."""
    parts = tuple(sys.argv[1:]) or PARTS
    if unknown := set(parts) - set(PARTS):
        print(f"unknown: {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    logging.getLogger("aiohttp_oauth_middleware").setLevel(logging.ERROR)
    report = Report()
    if not pin(CLIENT_CORE):
        report.note("neither client nor server is bound to a core of its own")
    asyncio.run(_all(report, parts))
    return report.finish(write=set(parts) == set(PARTS))


if __name__ == "__main__":
    sys.exit(main())
