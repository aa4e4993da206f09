"""A request that a wrong clock had refused is sent again as it was but for what we sign with, or it is not sent again."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import ClientSession

from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client
from aiohttp_oauth_middleware.oauth1.client import Placement
from tests.clock import VirtualClock
from tests.middleware.test_replay import NOT_REPLAYED, REPLAYED
from tests.middleware.wire import Seen, record
from tests.oauth1.oracle import is_verified

from .test_auth import FORMS, TOKEN, Skewed, client, oauth_parameters

pytestmark = pytest.mark.aiohttp_versions


def skewed(placement: Placement = "header") -> tuple[OAuth1Client, Skewed]:
    clock = VirtualClock(1.7e9)
    return client(clock=clock, placement=placement), Skewed(clock, 4000.0, "timestamp_refused")


def without_ours(seen: Seen) -> tuple[object, ...]:
    """All that was sent, but for the protocol parameters, and the length of a form that has them."""
    fields = [field for field in seen.fields if field[0] not in ("authorization", "content-length")]
    return seen.method, seen.target.partition("oauth_")[0], fields, bytes(seen.body).partition(b"oauth_")[0]


def check(seen: list[Seen]) -> None:
    first, second = seen
    assert without_ours(first) == without_ours(second)
    assert is_verified(first)
    assert is_verified(second)
    one, other = oauth_parameters(first), oauth_parameters(second)
    assert one["oauth_nonce"] != other["oauth_nonce"]
    assert int(other["oauth_timestamp"]) == int(one["oauth_timestamp"]) + 4000


@pytest.mark.parametrize("placement", ["header", "query"])
@pytest.mark.parametrize("kind", REPLAYED)
async def test_G_16_F_54_what_can_be_sent_twice_is_and_is_the_same_to_the_byte(
    kind: str, placement: Placement, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    signing, reply = skewed(placement)
    async with record(reply) as wire:
        auth = OAuth1Auth(signing, TOKEN, origins=wire.url)
        async with ClientSession() as session, session.post(wire.url, **REPLAYED[kind](path), middlewares=[auth]) as response:
            assert response.status == 200
        check(wire.seen)


@pytest.mark.parametrize("kind", [kind for kind in FORMS if kind != "a file"])
async def test_G_16_F_54_so_is_a_form_that_the_signature_stands_in(kind: str) -> None:
    signing, reply = skewed("form")
    async with record(reply) as wire:
        auth = OAuth1Auth(signing, TOKEN, origins=wire.url)
        async with ClientSession() as session, session.post(wire.url, **FORMS[kind](), middlewares=[auth]) as response:
            assert response.status == 200
        check(wire.seen)


@pytest.mark.parametrize("kind", NOT_REPLAYED)
async def test_G_16_F_54_what_can_not_be_sent_twice_is_sent_once_and_its_refusal_returned(kind: str, tmp_path: Path) -> None:
    signing, reply = skewed()
    async with record(reply) as wire:
        async with ClientSession(middlewares=[OAuth1Auth(signing, TOKEN, origins=wire.url)]) as session:
            async with session.post(wire.url, **NOT_REPLAYED[kind](tmp_path)) as response:
                assert response.status == 401
            assert len(wire.seen) == 1
            # The next one has the right time.
            async with session.get(wire.url) as response:
                assert response.status == 200
        assert len(wire.seen) == 2
