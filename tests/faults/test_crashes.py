"""A process is killed at each point of a refresh, with each store, before each kind of server; the next caller goes on at once.

Run as a program, it writes the documentation's table anew: ``python -m tests.faults.test_crashes``.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from aiohttp_oauth_middleware import RefreshInDoubt, Token, Tokens
from aiohttp_oauth_middleware.stores.store import Lock
from aiohttp_oauth_middleware.testing import digest
from tests.soak.server import CONTEXT, ServerProcess
from tests.soak.stores import STORES, Wrapped
from tests.soak.worker import HELD_BY_THE_SERVER, POINTS, refresh

TABLE: Final = Path(__file__).resolve().parents[2] / "docs" / "crash-table.rst"

KINDS: Final = ("strict", "grace")
RECOVERS: Final = "recovers"
IN_DOUBT: Final = "`RefreshInDoubt`"


class Outcome(NamedTuple):
    """What came of it.

    :param sent: how often the refresh token arrived at the server, with the next caller's time.
    :param reuses: how often it had been superseded by then.
    :param end: what the next caller got.
    """

    sent: int
    reuses: int
    end: str


Case = tuple[str, str, str]

UNHARMED: Final = {kind: Outcome(1, 0, RECOVERS) for kind in KINDS}
IN_BETWEEN: Final = {"strict": Outcome(2, 1, IN_DOUBT), "grace": Outcome(2, 1, RECOVERS)}
EXPECTED: Final = {
    "lock taken": UNHARMED,
    "temporary file of the intent written": UNHARMED,
    "intent durable": UNHARMED,
    "about to be sent": UNHARMED,
    HELD_BY_THE_SERVER: IN_BETWEEN,
    "answer read": IN_BETWEEN,
    "temporary file of the result written": IN_BETWEEN,
    "result durable, lock held": UNHARMED,
    "lock released": UNHARMED,
}
CASES: Final[list[Case]] = [
    (point, store, kind)
    for point, store, kind in itertools.product(POINTS, STORES, KINDS)
    if store == "file" or not point.startswith("temporary file")
]
MEASURED: Final[dict[Case, Outcome]] = {}


class AtOnce(Wrapped):
    """A store whose lock is had at the first attempt, or not at all."""

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        async with super().lock(key, wait=0.0) as held:
            yield held


async def measure(server: ServerProcess, point: str, store: str, place: Path) -> Outcome:
    """Kill a process at *point*, and see what the next caller gets."""
    kept = STORES[store].make(str(place))
    next_one = AtOnce(kept) if STORES[store].kernel_lock else kept
    old = server.issue().replace(expires_at=1.0, obtained_at=0.0)
    await Tokens(server.client(), store=kept).save(old)
    before = server.counts()
    process = CONTEXT.Process(target=refresh, args=(store, str(place), server.issuer, point))
    began = time.time()
    if point == HELD_BY_THE_SERVER:
        server.hold()
        process.start()
        await server.arrived()
        process.kill()
    else:
        process.start()
    await asyncio.to_thread(process.join)
    server.release()
    assert process.exitcode == -signal.SIGKILL, f"it never came to {point!r}"
    answer = (await asyncio.gather(Tokens(server.client(), store=next_one).token(), return_exceptions=True))[0]
    await kept.aclose()
    if isinstance(answer, RefreshInDoubt):
        assert answer.process == f"{socket.gethostname()}:{process.pid}"
        assert answer.since is not None
        assert began <= answer.since <= time.time()
    else:
        assert isinstance(answer, Token), answer
        assert server.is_active(answer.access_token)
        assert server.is_active(answer.refresh_token)
    end = IN_DOUBT if isinstance(answer, RefreshInDoubt) else RECOVERS
    counts = server.counts()
    assert counts.refresh_overlaps == 0
    assert (counts.families_revoked - before.families_revoked == 1) is (end == IN_DOUBT)
    return Outcome(counts.refresh_token_uses[digest(old.refresh_token or "")], counts.reuses - before.reuses, end)


def found(place: Path) -> list[Path]:
    return list(place.rglob("*"))


@contextmanager
def both_servers() -> Iterator[dict[str, ServerProcess]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(ServerProcess(grace=3600.0 if kind == "grace" else 0.0)) for kind in KINDS}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ServerProcess]]:
    with both_servers() as servers:
        yield servers


@pytest.mark.parametrize("case", CASES, ids=", ".join)
async def test_G_07_F_47_F_49_P2_a_process_is_killed_at_each_point_of_a_refresh(
    case: Case, servers: dict[str, ServerProcess], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    point, store, kind = case
    if needs := STORES[store].needs:
        request.getfixturevalue(needs)
    with STORES[store].running(str(tmp_path)):
        MEASURED[case] = await measure(servers[kind], point, store, tmp_path)
    assert MEASURED[case] == EXPECTED[point][kind]
    assert not [path for path in found(tmp_path) if path.suffix == ".tmp"], "what was half written is left"


def table(measured: dict[Case, Outcome]) -> str:
    """The documentation's table of what was *measured*."""
    lines = [
        ".. This file is written by tests/faults/test_crashes.py; don't edit it.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 34 18 12 18 18",
        "",
        "   * - Killed at",
        "     - Stores",
        "     - Sent",
        "     - Strict server",
        "     - Server with a grace",
    ]
    for point in POINTS:
        rows: dict[tuple[Outcome, ...], list[str]] = {}
        for store in STORES:
            if outcomes := tuple(measured[point, store, kind] for kind in KINDS if (point, store, kind) in measured):
                rows.setdefault(outcomes, []).append(store)
        for outcomes, stores in rows.items():
            (sent,) = {outcome.sent for outcome in outcomes}
            cells = [point, ", ".join(stores), f"{sent}", *(outcome.end for outcome in outcomes)]
            lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(cells)]
    return "\n".join(lines) + "\n"


def test_G_07_the_table_in_the_documentation_is_what_was_measured() -> None:
    if len(MEASURED) < len(CASES):
        pytest.skip("not every case was run")
    assert TABLE.read_text("utf-8") == table(MEASURED), "python -m tests.faults.test_crashes writes it anew"


def main() -> None:
    with both_servers() as servers:
        for point, store, kind in CASES:
            with tempfile.TemporaryDirectory() as place, STORES[store].running(place):
                MEASURED[point, store, kind] = asyncio.run(measure(servers[kind], point, store, Path(place)))
    TABLE.write_text(table(MEASURED), "utf-8")


if __name__ == "__main__":
    main()
