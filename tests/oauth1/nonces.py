"""Nonces on both sides of a fork: ``python -m tests.oauth1.nonces PROCESSES EACH`` prints how many are made, and repeated.

RFC 5849 section 3.3 lets one come again with another timestamp; here none may come again at all.
A program of its own, for a fork wants a process without threads.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from yarl import URL

from aiohttp_oauth_middleware import OAuth1Client, OAuth1Token

__all__ = ("nonces",)

CLIENT = OAuth1Client("key", "secret")
TOKEN = OAuth1Token("token", "secret")
TARGET = URL("http://127.0.0.1/")


async def nonce() -> bytes:
    """That of one request: 16 bytes."""
    parameters = await CLIENT.signer.sign("GET", TARGET, "127.0.0.1", token=TOKEN)
    made = bytes.fromhex(dict(parse_qsl(parameters))["oauth_nonce"])
    assert len(made) == 16
    return made


async def nonces(count: int) -> list[bytes]:
    return [await nonce() for _ in range(count)]


def read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while made := file.read(16):
            yield made


def main(processes: int, each: int) -> int:
    # What is in the parent's memory by now, both sides of the fork have.
    before = asyncio.run(nonces(100))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(processes)]
        children = []
        for path in paths:
            if not (child := os.fork()):
                try:
                    path.write_bytes(b"".join(sorted(asyncio.run(nonces(each)))))
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * processes
        made = repeated = 0
        for one, next_one in itertools.pairwise(itertools.chain(heapq.merge(sorted(before), *map(read, paths)), [b""])):
            made += 1
            repeated += one == next_one
    print(made, repeated)
    return int(repeated > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
