"""A server as a child process: started for a test session, ended by its own handle and by nothing wider."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO


class Child:
    """A running server. Its standard error is kept, to be told where it fails."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.process = process
        self._errors = errors

    def first_line(self) -> str:
        """The first line of its standard output. Raises RuntimeError where it ended before it wrote one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.failure("ended before it said where it listens")
        return line

    def failure(self, what: str) -> RuntimeError:
        self._errors.flush()
        self._errors.seek(0)
        return RuntimeError(f"{self.process.args!r} {what}; it wrote:\n{self._errors.read()[-4000:]}")


@contextlib.contextmanager
def running(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[Child]:
    """*command* for as long as the block lasts; *environment* is added to our own."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        try:
            yield Child(process, errors)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A loopback port that was free a moment ago, for what can't take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
