"""A keyring in a dict."""

from __future__ import annotations

__all__ = ("DictBackend",)


class DictBackend:
    """A backend as the library keyring has them.

    :param size: characters that it takes in one entry.
    """

    def __init__(self, size: int = 100_000) -> None:
        self.size = size
        self.entries: dict[tuple[str, str], str] = {}
        self.calls: list[str] = []

    def called(self, name: str) -> None:
        self.calls.append(name)

    def get_password(self, service: str, username: str) -> str | None:
        self.called("get")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.called("set")
        if len(password) > self.size:
            raise OSError("the stub received bad data")  # as Windows has it
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self.called("delete")
        del self.entries[service, username]
