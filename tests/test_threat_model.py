"""THREAT_MODEL.md says what is true: each id in force has a test that names it, and what the page names is there.

Run as a program, it writes the page's column of tests anew: ``python -m tests.test_threat_model``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "THREAT_MODEL.md"
PACKAGE = ROOT / "aiohttp_oauth_middleware"

EVERY_ID = {
    *(f"S-{n:02}" for n in range(1, 65)),
    *(f"F-{n:02}" for n in range(1, 59)),
    *(f"G-{n:02}" for n in range(1, 26)),
    *(f"P{n}" for n in range(4)),
}

# A time is no matter for a test, so a benchmark may show these instead, in its list `ids`.
BY_BENCHMARK = frozenset({"F-01", "F-18", "F-49", "G-04", "G-11", "G-17"})

_ID = re.compile(r"[SFG]-\d\d|P[0-3]")
_ROW = re.compile(rf"\| ({_ID.pattern}) \| (.*) \|")
_FILE = re.compile(r"`(tests/[\w/]+\.py)`")
_MODULE = re.compile(r"`((?:\w+/)*\w+\.py)`")
_NOT_BUILT = "## 9. Not built yet"


class Row(NamedTuple):
    """A row of one of the page's tables."""

    id: str
    cells: list[str]


def rows(text: str) -> list[Row]:
    found = (_ROW.fullmatch(line) for line in text.splitlines())
    return [Row(match[1], match[2].split(" | ")) for match in found if match]


def page() -> tuple[list[Row], list[Row]]:
    """The rows in force, and those of what isn't built yet."""
    in_force, heading, not_built = PAGE.read_text("utf-8").partition(_NOT_BUILT)
    assert heading, f"{PAGE.name} has no heading {_NOT_BUILT!r}"
    return rows(in_force), rows(not_built)


def ids_in_name(name: str) -> set[str]:
    """The ids that a test's name carries: ``test_F_12_13_S_22_…`` has F-12, F-13 and S-22."""
    found: set[str] = set()
    kind = ""
    for part in name.split("_"):
        if re.fullmatch(r"[SFG]", part):
            kind = part
        elif kind and re.fullmatch(r"\d\d", part):
            found.add(f"{kind}-{part}")
        else:
            kind = ""
            if re.fullmatch(r"P[0-3]", part):
                found.add(part)
    return found


def sources(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    """The Python files under *folder*, by their path from the project's root; without what npm or a venv put there."""
    for path in sorted(folder.rglob("*.py")):
        if not {"node_modules", "site-packages"} & set(path.parts):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def in_tests() -> dict[str, set[str]]:
    """For each id that the name of a test carries, the files of such tests."""
    found: dict[str, set[str]] = {}
    for file, tree in sources(ROOT / "tests"):
        if not file.rpartition("/")[2].startswith("test_"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for one in ids_in_name(node.name):
                    found.setdefault(one, set()).add(file)
    return found


def in_benchmarks() -> dict[str, set[str]]:
    """For each id in a list ``ids`` of a benchmark, the files of such lists."""
    found: dict[str, set[str]] = {}
    for file, tree in sources(ROOT / "tests" / "bench"):
        for node in ast.walk(tree):
            for value in _values_of_ids(node):
                for leaf in ast.walk(value):
                    if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and _ID.fullmatch(leaf.value):
                        found.setdefault(leaf.value, set()).add(file)
    return found


def _values_of_ids(node: ast.AST) -> Iterator[ast.expr]:
    """What *node* assigns to a name ``ids``, or passes as an argument of that name."""
    match node:
        case (
            ast.Assign(targets=[ast.Name(id="ids")], value=value)
            | ast.AnnAssign(target=ast.Name(id="ids"), value=ast.expr() as value)
            | ast.keyword(arg="ids", value=value)
        ):
            yield value
        case _:
            pass


def shown() -> dict[str, set[str]]:
    """The files that show each id: tests, and benchmarks where one may stand in for a test."""
    found = in_tests()
    for one, files in in_benchmarks().items():
        if one in BY_BENCHMARK:
            found.setdefault(one, set()).update(files)
    return found


def listed(ids: Iterable[str]) -> str:
    """The ids for a message; it counts them too."""
    found = sorted(ids)
    return f"{len(found)}: {', '.join(found)}"


def test_an_id_is_read_from_a_name() -> None:
    assert ids_in_name("test_F_12_late_401_replays_without_a_refresh") == {"F-12"}
    assert ids_in_name("test_F_12_13_401_for_ever") == {"F-12", "F-13"}
    assert ids_in_name("test_F_12_F_13_S_38_P0_verdicts") == {"F-12", "F-13", "S-38", "P0"}
    assert ids_in_name("test_P0_G_03_nothing_is_lost") == {"P0", "G-03"}
    assert ids_in_name("test_a_token_of_S_36_characters") == {"S-36"}
    assert ids_in_name("test_S_256_is_no_id_nor_12_nor_F_1_nor_P4") == set()


def test_every_id_has_one_row() -> None:
    in_force, not_built = page()
    found = [row.id for row in (*in_force, *not_built)]
    twice = {one for one in found if found.count(one) > 1}
    assert not twice, f"rows that stand twice: {listed(twice)}"
    assert not EVERY_ID - set(found), f"ids without a row: {listed(EVERY_ID - set(found))}"
    assert not set(found) - EVERY_ID, f"rows of unknown ids: {listed(set(found) - EVERY_ID)}"


def test_every_row_is_complete() -> None:
    in_force, not_built = page()
    for row in in_force:
        assert len(row.cells) == 3, f"{row.id} has {len(row.cells) + 1} cells, not 4"
        assert all(cell.strip() for cell in row.cells), f"{row.id} has an empty cell"
    for row in not_built:
        assert len(row.cells) == 2, f"{row.id} has {len(row.cells) + 1} cells, not 3"
        assert all(cell.strip() for cell in row.cells), f"{row.id} has an empty cell"


def test_G_25_every_id_in_force_is_in_the_name_of_a_test() -> None:
    missing = {row.id for row in page()[0]} - set(shown())
    assert not missing, f"ids in force that no test names: {listed(missing)}"


def test_G_25_every_id_that_a_test_names_has_a_row() -> None:
    known = {row.id for part in page() for row in part}
    unknown = {one: files for one, files in {**in_benchmarks(), **in_tests()}.items() if one not in known}
    assert not unknown, f"tests name ids that {PAGE.name} doesn't have: {unknown}"


def test_the_column_of_tests_is_true() -> None:
    found = shown()
    faults = []
    for row in page()[0]:
        named, cell = set(_FILE.findall(row.cells[-1])), row.cells[-1]
        if cell == "planned":
            if row.id in found:
                faults.append(f"{row.id} is shown by {', '.join(sorted(found[row.id]))}")
        elif not named or named - found.get(row.id, set()):
            faults.append(f"{row.id} is not shown by {', '.join(sorted(named - found.get(row.id, set()))) or cell}")
    assert not faults, "\n".join([*faults, "python -m tests.test_threat_model writes the column anew"])


def test_every_module_that_the_page_names_is_there() -> None:
    missing = {
        name for name in _MODULE.findall(PAGE.read_text("utf-8")) if not ((PACKAGE / name).exists() or (ROOT / name).exists())
    }
    assert not missing, f"modules that aren't there: {listed(missing)}"


def write_the_column_of_tests() -> None:
    """Fill the last column of the rows in force from the sources."""
    found = shown()
    in_force, heading, rest = PAGE.read_text("utf-8").partition(_NOT_BUILT)
    lines = in_force.split("\n")
    for index, line in enumerate(lines):
        if match := _ROW.fullmatch(line):
            files = sorted(found.get(match[1], ()))
            cell = ", ".join(f"`{file}`" + (" (`make bench`)" if "/bench/" in file else "") for file in files) or "planned"
            lines[index] = " | ".join([*line.removesuffix(" |").split(" | ")[:-1], cell]) + " |"
    PAGE.write_text("\n".join(lines) + heading + rest, "utf-8")


if __name__ == "__main__":
    write_the_column_of_tests()
