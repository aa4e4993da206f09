"""Fail where branch coverage is under its limit. Silent where it is not: the line that pytest closes with stays the last."""

from __future__ import annotations

import io
import sys
from typing import Final

import coverage

LIMITS: Final = (
    ("the package", None, 95.0),
    ("the middleware", "aiohttp_oauth_middleware/middleware/*", 100.0),
    ("the sources", "aiohttp_oauth_middleware/sources/*", 100.0),
    ("the protocol", "aiohttp_oauth_middleware/protocol/*", 100.0),
)


def main() -> int:
    data = coverage.Coverage()
    data.load()
    failed = 0
    for name, pattern, limit in LIMITS:
        table = io.StringIO()
        percent = data.report(file=table, include=[pattern] if pattern else None)
        if percent < limit:
            failed = 1
            print(
                f"{table.getvalue()}\nCoverage of {name} is {percent:.2f} %, under its limit of {limit:g} %.", file=sys.stderr
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())
