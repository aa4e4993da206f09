"""Hundreds of thousands of spoilt answers, headers and documents; a million of each with ``make fuzz``."""

from __future__ import annotations

import sys

import pytest

from tests.fuzz import KINDS, MOST_MEMORY, cases, run


@pytest.mark.parametrize("kind", KINDS)
def test_G_10_S_36_whatever_comes_is_a_sound_value_or_one_of_our_errors(kind: str) -> None:
    count = cases()
    accepted, growth = run(kind, count)
    # The generator hits both sides.
    assert count * 0.02 < accepted < count * 0.98
    # What a tracer such as that of coverage keeps grows with the branches that are taken, and is not ours.
    assert growth < MOST_MEMORY or sys.gettrace() is not None


def test_G_10_a_case_can_be_had_again() -> None:
    assert run("challenges", 50, seed=7) == run("challenges", 50, seed=7)


def test_a_failing_case_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "failing", lambda random: 1 // 0)
    with pytest.raises(ZeroDivisionError) as caught:
        run("failing", 5, seed=3)
    assert caught.value.__notes__ == ["case 0 of seed 3 of the failing"]
