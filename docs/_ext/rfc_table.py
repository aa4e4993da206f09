"""The directive ``rfc-table``: which module obeys which RFC, and which tests show it. It is read from the
sources and the threat model, so it can't go stale."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "aiohttp_oauth_middleware"

TITLES = {
    "5849": "The OAuth 1.0 Protocol",
    "6749": "The OAuth 2.0 Authorization Framework",
    "6750": "Bearer Token Usage",
    "6819": "Threat Model and Security Considerations",
    "7009": "Token Revocation",
    "7235": "HTTP Authentication",
    "7617": "The 'Basic' HTTP Authentication Scheme",
    "7636": "Proof Key for Code Exchange (PKCE)",
    "7662": "Token Introspection",
    "8252": "OAuth 2.0 for Native Apps",
    "8259": "JSON",
    "8414": "Authorization Server Metadata",
    "8693": "Token Exchange",
    "8705": "Mutual TLS",
    "8707": "Resource Indicators",
    "9110": "HTTP Semantics",
    "9207": "Issuer Identification",
    "9396": "Rich Authorization Requests",
    "9449": "DPoP",
    "9470": "Step Up Authentication Challenge",
    "9700": "Best Current Practice for OAuth 2.0 Security",
}
CITATION = re.compile(r"(?:RFC[ -]?|:rfc:`|rfc)(\d{4})(?!\d)", re.IGNORECASE)


def citations(folder: str) -> dict[str, set[str]]:
    """Each RFC's number, and the files in *folder* that cite it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for number in CITATION.findall(path.read_text(encoding="utf-8")):
            found.setdefault(number, set()).add(path.relative_to(ROOT).as_posix())
    return found


def shown_by_the_threat_model() -> dict[str, set[str]]:
    """Each RFC's number, and the tests of the rows in whose sentence it stands."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4:
            for number in CITATION.findall(cells[1]):
                found.setdefault(number, set()).update(re.findall(r"`(tests/[^`]+\.py)`", cells[3]))
    return found


class RFCTable(SphinxDirective):
    """A table of the RFCs that the package cites."""

    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        modules, tests, by_id = citations(PACKAGE), citations("tests"), shown_by_the_threat_model()
        lines = [
            ".. list-table::",
            "   :header-rows: 1",
            "   :widths: 30 35 35",
            "",
            "   * - RFC",
            "     - Modules",
            "     - Tests",
        ]
        for number in sorted(modules):
            if number not in TITLES:
                raise self.error(f"RFC {number} is cited in {', '.join(sorted(modules[number]))} and has no title here")
            lines.append(f"   * - :rfc:`{number}` {TITLES[number]}")
            lines.append(f"     - {shown(modules[number], f'{PACKAGE}/')}")
            lines.append(f"     - {shown(tests.get(number, set()) | by_id.get(number, set()), 'tests/')}")
        return self.parse_text_to_nodes("\n".join(lines))


def shown(paths: set[str], prefix: str) -> str:
    return ", ".join(f"``{path.removeprefix(prefix)}``" for path in sorted(paths)) or "none yet"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("rfc-table", RFCTable)
    return {"parallel_read_safe": True}
