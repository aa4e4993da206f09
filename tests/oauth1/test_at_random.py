"""Others verify what truly arrives, whatever is sent; a million requests with ``make fuzz``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aiohttp_oauth_middleware.oauth1 import signer

from .at_random import BODIES, BY_RSA, BY_SECRETS, FORMS, PLACEMENTS, once, run


@pytest.mark.parametrize(("methods", "count"), [(BY_SECRETS, 10_000), (BY_RSA, 900)])
async def test_S_63_G_22_random_requests_are_verified_by_others_where_they_arrive(methods: Sequence[str], count: int) -> None:
    judged = await run(methods, count)
    assert judged.total() == count
    # All ways are gone, and what nobody but the letter of the RFC can judge is the exception.
    ways = {(placement, kind) for placement in PLACEMENTS for kind in (FORMS if placement == "form" else BODIES)}
    assert {way[1:3] for way in judged if way[3]} == ways
    for method in methods:
        assert sum(times for way, times in judged.items() if way[0] == method and way[3]) > 0.85 * count / len(methods)


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("methods", [BY_SECRETS, BY_RSA])
async def test_S_63_G_22_so_they_are_with_every_aiohttp(methods: Sequence[str]) -> None:
    assert (await run(methods, 600, seed=2)).total() == 600


@pytest.mark.parametrize(
    ("methods", "seed", "number"),
    [
        (BY_SECRETS, 1, 68),  # the hash of a body that became a form
    ],
)
async def test_S_63_G_22_what_once_failed(methods: Sequence[str], seed: int, number: int) -> None:
    await once(methods, seed, number)


async def test_G_22_what_is_signed_wrongly_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signer, "parameters_of", lambda text: [])
    with pytest.raises(ExceptionGroup) as caught:
        await run(BY_SECRETS, 50, seed=3)
    assert all("of seed 3 of HMAC-SHA1, " in error.__notes__[0] for error in caught.value.exceptions)
