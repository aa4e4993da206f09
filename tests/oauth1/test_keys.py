"""An RSA key costs what it must: its PEM is parsed once, in a thread, however many requests wait for it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client, OAuth1Token, SignatureMethod
from tests.middleware.wire import record

from .oracle import verify_seen

KEY = rsa.generate_private_key(65537, 2048)
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.aiohttp_versions
@pytest.mark.parametrize("kind", ["PEM", "path"])
async def test_F_17_G_22_of_300_requests_at_once_one_parses_the_key_and_not_on_the_loop(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(PRIVATE)
    parsed_in: list[int] = []
    parse = serialization.load_pem_private_key

    def load(*arguments: Any) -> Any:
        parsed_in.append(threading.get_ident())
        return parse(*arguments)

    monkeypatch.setattr(serialization, "load_pem_private_key", load)
    method = SignatureMethod.rsa("RSA-SHA256", PRIVATE if kind == "PEM" else path)
    async with record() as wire:
        auth = OAuth1Auth(OAuth1Client("app", signature_method=method), OAuth1Token("token"), origins=wire.url)
        async with ClientSession(middlewares=[auth], connector=TCPConnector(limit=0)) as session:

            async def one(number: int) -> None:
                async with session.get(wire.url / str(number)):
                    pass

            await asyncio.gather(*(one(number) for number in range(300)))
            await one(300)
        assert len(wire.seen) == 301
        assert all(verify_seen(seen, ("", ""), KEY.public_key()) for seen in wire.seen)
    (thread,) = parsed_in
    assert thread != threading.get_ident()
