"""No nonce comes twice, in whatever process or thread it is made."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .nonces import nonces

ROOT = Path(__file__).resolve().parents[2]


def test_S_60_G_22_no_nonce_comes_twice_in_eight_forked_processes() -> None:
    arguments = [sys.executable, "-m", "tests.oauth1.nonces", "8", "20000"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    # Those that were made before the fork are counted too.
    assert done.stdout.split() == ["160100", "0"]


def test_S_60_no_nonce_comes_twice_in_eight_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [nonce for some in pool.map(lambda _: asyncio.run(nonces(2500)), range(8)) for nonce in some]
    assert len(set(made)) == len(made) == 20_000
