"""Imports go downwards only. The direct imports of each module are read from its source, those inside functions too."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
NAME: Final = "aiohttp_oauth_middleware"
PACKAGE: Final = ROOT / NAME

# From the top down. A room sees the rooms of the lines below its own, and itself.
HOUSE: Final = (
    ("__main__",),
    ("demo",),
    ("testing", "providers"),
    ("middleware", "oauth1"),
    ("sources",),
    ("logins",),
    ("client", "stores"),
    ("protocol",),
    ("clock", "errors", "flight", "keys", "token", "urls", "value"),
)
SHARED: Final = HOUSE[-1]
FLOOR: Final = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}

# What the front door sees of the house besides the shared modules: where a token comes from, what a refusal says,
# and how that is told.
MIDDLEWARE_SEES: Final = {
    "sources.source": {"TokenSource", "Refusal"},
    "sources.events": {"Event", "Events"},
    "protocol.challenge": {"Challenge", "parse_challenges"},
}
# What the two front doors share: who may have it, how a body is sent again or changed, and trace hooks.
OAUTH1_SHARES: Final = {"middleware.gate", "middleware.placement", "middleware.resend", "middleware.trace"}


class Import:
    """One imported name: *source* imports *name* from *target*, both as dotted paths within the package or outside of it."""

    def __init__(self, source: str, target: str, name: str | None, *, ours: bool, line: int) -> None:
        self.source, self.target, self.name, self.ours, self.line = source, target, name, ours, line

    def __repr__(self) -> str:
        return f"{self.source}, line {self.line}: {self.name or ''} from {self.target}"


def modules() -> Iterator[tuple[str, Path]]:
    """Each module's dotted path within the package, the root's being empty."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(module: str, path: Path) -> Iterator[Import]:
    here = module.split(".") if module else []
    package = here if path.stem == "__init__" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                ours = alias.name.split(".")[0] == NAME
                target = alias.name.removeprefix(NAME).lstrip(".") if ours else alias.name
                yield Import(module, target, None, ours=ours, line=node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            ours = node.level > 0 or base[:1] == [NAME]
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            elif ours:
                base = base[1:]
            for alias in node.names:
                yield Import(module, ".".join(base), alias.name, ours=ours, line=node.lineno)


PATHS: Final = dict(modules())
# The root names everything, lazily; it is a list and no part of the house.
IMPORTS: Final = [one for module, path in PATHS.items() if module for one in imports_of(module, path)]


def room(module: str) -> str:
    return module.split(".")[0]


def ours() -> Iterator[Import]:
    """The imports within the package; ``from ..room import module`` counts as one of the module."""
    for one in IMPORTS:
        if one.ours:
            inner = f"{one.target}.{one.name}".lstrip(".")
            yield Import(one.source, inner, None, ours=True, line=one.line) if inner in PATHS else one


def test_every_module_has_its_place_in_the_house() -> None:
    assert {room(module) for module in PATHS if module} <= set(FLOOR)


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    source = tmp_path / "inner.py"
    source.write_text(
        "import asyncio.events\n"
        "from . import near\n"
        "from .near import one\n"
        "from ..far import two as deux\n"
        f"import {NAME}.far.three\n"
        f"from {NAME}.far import four\n"
        "def late():\n    from ...above import five\n"
    )
    assert [(one.target, one.name, one.ours) for one in imports_of("room.sub.inner", source)] == [
        ("asyncio.events", None, False),
        ("room.sub", "near", True),
        ("room.sub.near", "one", True),
        ("room.far", "two", True),
        ("far.three", None, True),
        ("far", "four", True),
        ("above", "five", True),
    ]


def test_imports_go_downwards_only() -> None:
    upwards = [
        one
        for one in ours()
        if room(one.target) != room(one.source)
        and FLOOR[room(one.source)] >= FLOOR.get(room(one.target), -1)
        and room(one.source) not in SHARED
        and not (room(one.source) == "oauth1" and one.target in OAUTH1_SHARES)
    ]
    assert upwards == []


def test_nothing_imports_from_the_lazy_root() -> None:
    # It would load by a detour what the layers forbid; the version is no layer.
    assert [one for one in ours() if one.target == "" and one.name != "__version__"] == []


def test_shared_modules_import_shared_modules_only() -> None:
    assert [one for one in ours() if room(one.source) in SHARED and room(one.target) not in SHARED] == []


def test_no_modules_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for one in ours():
        if one.target != one.source:
            graph.setdefault(one.source, set()).add(one.target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle in it


def test_the_middleware_sees_only_sources_refusals_and_challenges() -> None:
    too_much = [
        one
        for one in ours()
        if room(one.source) == "middleware"
        and room(one.target) not in ("middleware", *SHARED)
        and one.name not in MIDDLEWARE_SEES.get(one.target, set())
    ]
    assert too_much == []


def test_the_stores_see_only_the_shared_modules() -> None:
    assert [one for one in ours() if room(one.source) == "stores" and room(one.target) not in ("stores", *SHARED)] == []


@pytest.mark.parametrize("module", [module for module in PATHS if room(module) == "protocol"])
def test_the_protocol_has_no_socket_no_loop_and_no_wall_clock(module: str) -> None:
    forbidden = {"aiohttp", "asyncio", "concurrent", "http", "selectors", "socket", "ssl", "threading", "time"}
    assert [one for one in IMPORTS if one.source == module and not one.ours and room(one.target) in forbidden] == []
    tree = ast.parse(PATHS[module].read_text(encoding="utf-8"))
    clocks = {"now", "today", "utcnow"}
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in clocks] == []


def test_authlib_stays_behind_one_seam_and_authlib_jose_is_not_used() -> None:
    foreign = [one for one in IMPORTS if not one.ours and room(one.target) == "authlib"]
    assert {one.source for one in foreign} <= {"testing.authlib_grants", "testing.oauth1.engine"}
    # Deprecated in favour of joserfc.
    assert [one for one in foreign if one.target.startswith("authlib.jose") or one.name == "jose"] == []


def test_every_room_says_what_lives_there() -> None:
    silent = [
        module
        for module, path in PATHS.items()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
