"""What whoever signs by HMAC has to load."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client, OAuth1Token, OAuth1Tokens

async def sign():
    return await OAuth1Client("id", "secret").sign("GET", "https://api.example/", OAuth1Token("token", "secret"))

import asyncio
assert asyncio.run(sign()).startswith("OAuth ")
print(*{name.partition(".")[0] for name in sys.modules} & {"authlib", "cryptography", "joserfc"})
"""


def test_who_signs_by_hmac_loads_neither_cryptography_nor_joserfc() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout.split() == []
