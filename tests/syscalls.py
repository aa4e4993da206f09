"""The system calls of the threads of our stores, counted, and one of them made to fail, or the process killed at it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ("ALL", "Syscalls", "count", "die", "fail")

# In the modules that make them; close() has its effect even where it fails, so it is not made to.
ALL: Final = ("open", "write", "fsync", "replace", "unlink", "mkdir", "fstat", "stat", "listdir", "flock")
_SQLITE: Final = ("execute", "executescript")

Action = Callable[[str], None]


def fail(number: int) -> Action:
    """The call fails with the errno *number*."""

    def action(name: str) -> None:
        if name in _SQLITE:
            raise sqlite3.OperationalError(f"{os.strerror(number)} (made to fail)")
        raise OSError(number, os.strerror(number))

    return action


def die(name: str) -> None:
    """The process is killed at the call, as by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def count(name: str) -> None:
    """Nothing happens."""


class Syscalls:
    """Within :meth:`intercepted`, what the stores' threads ask of the system.

    :param at: the number of the call, from 0, at which *action* is called with its name.
    :param after: whether the call is made first, so that it has its effect and fails nevertheless.
    """

    def __init__(self, at: int | None = None, action: Action = count, *, after: bool = False) -> None:
        self.at = at
        self.action = action
        self.after = after
        self.names: list[str] = []

    @contextlib.contextmanager
    def intercepted(self) -> Iterator[Syscalls]:
        import fcntl

        real_connect = sqlite3.connect
        shim = self

        class Connection(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                return shim._called("execute", super().execute, arguments, {})  # type: ignore[no-any-return]

            def executescript(self, *arguments: Any) -> sqlite3.Cursor:
                return shim._called("executescript", super().executescript, arguments, {})  # type: ignore[no-any-return]

        with contextlib.ExitStack() as patches:
            for name in ALL:
                module = fcntl if name == "flock" else os
                patches.enter_context(_replaced(module, name, self._counted(name, getattr(module, name))))
            patches.enter_context(
                _replaced(sqlite3, "connect", lambda *args, **names: real_connect(*args, factory=Connection, **names))
            )
            yield self

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **names: self._called(name, real, arguments, names)

    def _called(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], names: dict[str, Any]) -> Any:
        if not threading.current_thread().name.startswith("oauth-"):
            return real(*arguments, **names)
        number = len(self.names)
        self.names.append(name)
        if number == self.at and not self.after:
            self.action(name)
        try:
            result = real(*arguments, **names)
        except BaseException:
            if number == self.at and self.after:
                self.action(name)
            raise
        if number == self.at and self.after:
            if name == "open":
                os.close(result)
            self.action(name)
        return result


@contextlib.contextmanager
def _replaced(module: object, name: str, value: object) -> Iterator[None]:
    real = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, real)
