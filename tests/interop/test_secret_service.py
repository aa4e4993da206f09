"""KeyringStore on a real Secret Service: gnome-keyring, on a D-Bus of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.usefixtures("secret_service_programs")
def test_S_23_the_keyring_store_passes_the_checks_on_gnome_keyring(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DBUS_", "GNOME_", "XDG_", "PYTHON"))},
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_RUNTIME_DIR": str(runtime),
    }
    dbus = shutil.which("dbus-run-session")
    assert dbus is not None
    command = [dbus, "--", sys.executable, "-m", "tests.interop.secret_service", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=100)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the bus and the keyring too, if it comes to that
    assert process.returncode == 0, errors
    seen = json.loads(out)
    assert seen["backend"] == "SecretService Keyring"
    assert seen["another process"] == [True, "held elsewhere", "False"]
    assert seen["files"]
    assert "the keyring failed" in seen["after its end"] or "there is no keyring" in seen["after its end"]
