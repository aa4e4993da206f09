"""What the import of the first example costs, in fresh interpreters that find everything compiled."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

from .report import Report, Result

__all__ = ("measure_imports",)

SECTION = "Import of Client, ClientCredentials, ClientSecret, OAuth2Auth, Tokens"
TIMES = 15
SCRIPT = """
import json, sys, time
began = time.thread_time_ns()
import aiohttp
between = time.thread_time_ns()
from aiohttp_oauth_middleware import Client, ClientCredentials, ClientSecret, OAuth2Auth, Tokens
ended = time.thread_time_ns()
heavy = [name for name in ("cryptography", "joserfc", "authlib") if name in sys.modules]
print(json.dumps({"aiohttp": between - began, "ours": ended - between, "heavy": heavy}))
"""


def measure_imports(report: Report) -> None:
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache

        def once() -> tuple[float, float, int]:
            out = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, timeout=60)
            told = json.loads(out.stdout)
            return told["ours"] / told["aiohttp"], told["ours"] / 1e6, len(told["heavy"])

        once()  # compiles
        runs = [once() for _ in range(TIMES)]
    share = 100 * statistics.median(run[0] for run in runs)
    report.add(Result(SECTION, "share of `import aiohttp`", share, "%", goal=3.0))
    report.add(Result(SECTION, "on top of aiohttp", statistics.median(run[1] for run in runs), "ms"))
    heavy = max(run[2] for run in runs)
    report.add(Result(SECTION, "of cryptography, joserfc, authlib: loaded", heavy, "", goal=0, exact=True))
