"""What many refreshes leave behind: no task, no descriptor, no file, and no warning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.soak.stores import KERNEL_LOCKED

ROOT: Final = Path(__file__).resolve().parents[2]
# By `make soak` a hundred times as many.
REFRESHES: Final = int(os.environ.get("REFRESHES", "1000"))


@pytest.mark.timeout(0 if REFRESHES > 1000 else 120)
@pytest.mark.parametrize("how", ["in memory", "wire"])
@pytest.mark.parametrize("store", KERNEL_LOCKED)
def test_G_19_refreshes_leave_no_task_no_descriptor_and_no_file_behind(store: str, how: str) -> None:
    number = REFRESHES if how == "in memory" else REFRESHES // 10
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "tests.soak.leaks", store, str(number), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a warning, a task that was destroyed, or a coroutine that nobody awaited"
    found = json.loads(done.stdout)
    assert found["after"] == found["before"]
    assert found["reuses"] == 0
    if REFRESHES > 1000:
        assert found["bytes"] < number, "1 KiB for 1,000 refreshes"
