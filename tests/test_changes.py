"""The change notes in CHANGES/ bear names that towncrier takes up; others it would pass over without a word."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def test_every_change_note_has_a_name_that_towncrier_gathers() -> None:
    with (_ROOT / "pyproject.toml").open("rb") as file:
        types = [entry["directory"] for entry in tomllib.load(file)["tool"]["towncrier"]["type"]]
    name = re.compile(rf"(\d+|\+[a-z0-9-]+)\.({'|'.join(types)})(\.\d+)?\.rst")
    notes = [path.name for path in (_ROOT / "CHANGES").iterdir() if path.name != "README.rst"]
    assert [note for note in notes if not name.fullmatch(note)] == []


def test_every_type_of_change_note_is_explained() -> None:
    with (_ROOT / "pyproject.toml").open("rb") as file:
        types = [entry["directory"] for entry in tomllib.load(file)["tool"]["towncrier"]["type"]]
    explained = re.findall(r"^``(\w+)``$", (_ROOT / "CHANGES" / "README.rst").read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == types
