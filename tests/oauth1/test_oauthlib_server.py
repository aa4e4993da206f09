"""The server that others wrote agrees with the client that others wrote, or nothing else that it says is worth anything."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from oauthlib.oauth1 import Client
from oauthlib.oauth1.rfc5849 import SIGNATURE_METHODS
from yarl import URL

from .oauthlib_server import OauthlibServer

KEY = rsa.generate_private_key(65537, 2048)
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def server() -> AsyncIterator[OauthlibServer]:
    async with OauthlibServer(rsa_public_key=PUBLIC) as server:
        yield server


@pytest.fixture
async def session(server: OauthlibServer) -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


async def send(session: ClientSession, url: URL, method: str, *, form: str | None = None, **client: str) -> int:
    """Sign by oauthlib, and send just that."""
    signer = Client("app", "app-secret", "token", "token-secret", rsa_key=PRIVATE, **client)
    uri, headers, body = signer.sign(str(url), method, form, dict(FORM) if form is not None else None)
    async with session.request(method, URL(uri, encoded=True), headers=headers, data=body) as response:
        return response.status


@pytest.mark.parametrize("signature_method", SIGNATURE_METHODS)
@pytest.mark.parametrize("signature_type", ["AUTH_HEADER", "QUERY", "BODY"])
async def test_every_method_and_placement_is_verified(
    server: OauthlibServer, session: ClientSession, signature_method: str, signature_type: str
) -> None:
    url = server.url / "a b" % [("q", "1+2"), ("q", "")]
    options = {"signature_method": signature_method, "signature_type": signature_type}
    assert await send(session, url, "POST", form="a=b+c&a=%2B", **options) == 200
    verdict = server.verdicts[-1]
    assert (verdict.verified, verdict.reason, verdict.method) == (True, "", "POST")
    assert verdict.target.startswith("/a%20b?q=1%2B2&q=")
    assert verdict.body.startswith(b"a=b+c&a=%2B")


async def test_what_is_signed_by_somebody_else_is_not(server: OauthlibServer, session: ClientSession) -> None:
    uri, headers, _ = Client("app", "wrong", "token", "token-secret").sign(str(server.url))
    async with session.get(uri, headers=headers) as response:
        assert response.status == 401
    assert (server.verdicts[-1].verified, server.verdicts[-1].reason) == (False, "wrong signature")
    uri, headers, _ = Client("nobody", "app-secret").sign(str(server.url))
    async with session.get(uri, headers=headers) as response:
        assert response.status == 401
    assert server.verdicts[-1].reason == "wrong client"
    async with session.get(server.url) as response:
        assert response.status == 401
    assert server.verdicts[-1].verified is False


async def test_a_nonce_is_good_once(server: OauthlibServer, session: ClientSession) -> None:
    uri, headers, _ = Client("app", "app-secret").sign(str(server.url))
    for status in (200, 401):
        async with session.get(uri, headers=headers) as response:
            assert response.status == status
    assert server.verdicts[-1].reason == "wrong nonce"


async def test_what_oauthlib_can_not_read_is_neither_right_nor_wrong(server: OauthlibServer, session: ClientSession) -> None:
    _, headers, _ = Client("app", "app-secret").sign(str(server.url))
    async with session.get(URL(f"{server.url}?a[]=1", encoded=True), headers=headers) as response:
        assert response.status == 401
    assert server.verdicts[-1].verified is None
    async with session.post(server.url, data=b"a={}", headers=headers | FORM) as response:
        assert response.status == 401
    assert server.verdicts[-1].verified is None


async def test_target_and_body_are_those_of_the_wire(server: OauthlibServer) -> None:
    def exchange() -> bytes:
        with socket.create_connection((server.url.host or "", server.url.port or 0)) as wire:
            wire.sendall(
                b"POST /%7e/;x?%41=%c3%a9&+ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\xff\n"
            )
            return wire.makefile("rb").read()

    assert (await asyncio.to_thread(exchange)).startswith(b"HTTP/1.1 401")
    assert (server.verdicts[0].target, server.verdicts[0].body) == ("/%7e/;x?%41=%c3%a9&+", b"\xff\n")
