"""A record as text, with its key and a checksum: ASCII, so that it goes through whatever keeps text."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

from ..errors import StoreCorrupted, StoreError
from .store import Record

__all__ = ("dumps", "key_hash", "loads", "refusal")

SCHEMA: Final = 1


def key_hash(key: str) -> str:
    """A key of any text and any length as 64 hexadecimal digits, fit to name a file."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def dumps(key: str, record: Record) -> str:
    """The text of *record*; :func:`loads` reads it."""
    fields = [key, record.version, record.key_label, base64.b64encode(record.body).decode()]
    return json.dumps({"schema": SCHEMA, "sha256": _checksum(fields), "record": fields}, separators=(",", ":"))


def loads(text: str, where: str, key: str | None = None) -> tuple[str, Record]:
    """The key and the record.

    :param where: the record's place, for messages.
    :param key: whose it has to be; None where only the record itself tells.
    :raises StoreCorrupted: the text is not what :func:`dumps` wrote.
    :raises StoreError: a newer version of this package wrote it.
    """
    found = _parsed(text)
    cut = not text.endswith("}")
    empty = not text
    del text  # a traceback that shows locals shall not show it
    if isinstance(found, int):
        raise refusal(
            f"{where} was written by a newer version of this package (schema {found}; this one reads {SCHEMA}): update "
            "aiohttp-oauth-middleware here, or name another place"
        )
    if found is None:
        how = "is empty" if empty else "is cut off" if cut else "does not match its checksum"
        raise StoreCorrupted(f"{where} {how}")
    if key is not None and found[0] != key:
        raise StoreCorrupted(f"{where} holds the record of another key")
    return found


def refusal(message: str) -> StoreError:
    """A StoreError that stays until somebody does something."""
    error = StoreError(message)
    error.retryable = False
    return error


def _parsed(text: str) -> tuple[str, Record] | int | None:
    """Key and record, or the schema where that is a newer one, or None."""
    try:
        data = json.loads(text)
        schema, fields = data["schema"], data["record"]
        if type(schema) is int and schema > SCHEMA:
            return schema
        key, version, label, body = fields
        if data["sha256"] != _checksum(fields) or type(version) is not int:
            return None
        return key, Record(version, label, base64.b64decode(body, validate=True))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _checksum(fields: object) -> str:
    return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()
