"""Requests to the endpoints and their answers, free of aiohttp and of authlib."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

__all__ = ("Answer", "Message", "basic_credentials")


@dataclass(frozen=True, slots=True)
class Message:
    """A request to one of the endpoints, already parsed; parameters without a value count as omitted."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    parameters: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent: a JSON object, or nothing but headers."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def error(self) -> str | None:
        """The ``error`` of the body, if it is one."""
        return self.body.get("error")


def basic_credentials(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The id and secret of an ``Authorization: Basic`` header: form-decoded, then raw; empty where there are none."""
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return []
    return [(unquote_plus(client_id), unquote_plus(secret)), (client_id, secret)] if colon else []
