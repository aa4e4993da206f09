"""Canaries in the place of the secrets of OAuth 1, through the legs, the middleware and the failures: none is ever printed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import ClientError, ClientResponseError, ClientSession

from aiohttp_oauth_middleware import (
    ConfigurationError,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    OAuthError,
    Secret,
    SignatureMethod,
)
from tests.clock import VirtualClock
from tests.middleware.wire import record
from tests.raw_server import answer
from tests.test_secrets_never_printed import CANARIES, COOKIE, ECHO, FAULTS, Sink, answering, sink

__all__ = ("sink",)

CONSUMER_SECRET, TOKEN_SECRET = CANARIES["oauth1-consumer-secret"], CANARIES["oauth1-token-secret"]
ISSUED = {
    "oauth_token": CANARIES["access-token"],
    "oauth_token_secret": TOKEN_SECRET,
    "oauth_session_handle": CANARIES["refresh-token"],
    "id_token": CANARIES["id-token"],
    "oauth_callback_confirmed": "true",
}
TOKEN = OAuth1Token.from_dict(ISSUED)
REQUEST_TOKEN = OAuth1Token(CANARIES["state"], TOKEN_SECRET)
PASSWORD = {"x_auth_password": Secret(CANARIES["password"])}


def client(**arguments: Any) -> OAuth1Client:
    given: dict[str, Any] = {"signature_method": "PLAINTEXT", "clock": VirtualClock(time.time())}
    return OAuth1Client("app", CONSUMER_SECRET, **given | arguments)


@pytest.mark.parametrize("placement", ["header", "form", "query"])
async def test_G_12_S_22_no_leg_shows_a_secret_when_it_works(placement: str, sink: Sink) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with record(answer(200, urlencode(ISSUED).encode())) as wire:
        ours, url = client(placement=placement), str(wire.url)
        callback = f"https://app/cb?oauth_token={CANARIES['state']}&oauth_verifier={CANARIES['verifier']}"
        verifier = ours.parse_authorization_response(callback, REQUEST_TOKEN)
        tokens = OAuth1Tokens(client=ours, renewal_url=url)
        await tokens.save(await ours.fetch_access_token(url, REQUEST_TOKEN, verifier))
        sink.objects(ours, tokens, tokens.for_key("default"), OAuth1Auth(ours, tokens), TOKEN, REQUEST_TOKEN)
        sink.objects(await ours.fetch_request_token(url), await ours.renew_access_token(url, TOKEN), await tokens.token())
        await ours.fetch_access_token(url, extra=PASSWORD)
        sink.tasks()
        planted = b"".join(bytes(seen.raw) for seen in wire.seen).decode()
        for name in ("oauth1-consumer-secret", "oauth1-token-secret", "verifier", "refresh-token", "password", "state"):
            assert CANARIES[name] in planted, name


@pytest.mark.parametrize("fault", FAULTS)
async def test_G_12_S_22_S_26_no_leg_and_no_request_shows_a_secret_when_the_server_fails(fault: str, sink: Sink) -> None:
    def api(seen: Any) -> bytes:
        return answer(401, ECHO.encode(), {"WWW-Authenticate": 'OAuth oauth_problem="token_expired"', **COOKIE})

    may_pass = contextlib.suppress(AssertionError) if fault == "a bad expiry" else contextlib.nullcontext()
    async with answering(FAULTS[fault]) as server, record(api) as resource:
        ours, url = client(), str(server.url)
        with may_pass, sink.fails():
            await ours.fetch_request_token(url)
        with may_pass, sink.fails():
            await ours.fetch_access_token(url, REQUEST_TOKEN, CANARIES["verifier"], extra=PASSWORD)
        tokens = OAuth1Tokens(client=ours, renewal_url=url)
        await tokens.save(TOKEN)
        for placement in ("header", "form", "query"):
            auth = OAuth1Auth(client(placement=placement), tokens, origins=resource.url, on_event=sink.event)
            async with ClientSession(middlewares=[auth], raise_for_status=True) as session:
                with sink.fails(OAuthError, ClientResponseError):
                    await session.post(resource.url, data={"a": "b"})
        sink.tasks()
        sink.objects(tokens)


@pytest.mark.parametrize("placement", ["header", "form", "query"])
async def test_G_12_S_22_nor_where_a_request_cannot_be_signed_or_gets_no_answer(placement: str, sink: Sink) -> None:
    def broken(base_string: str, client_secret: str, token_secret: str) -> str:
        raise RuntimeError("the module is on fire")

    async with record() as resource:
        for method in ("PLAINTEXT", SignatureMethod("BROKEN", broken)):
            ours = client(placement=placement, signature_method=method)
            async with ClientSession(middlewares=[OAuth1Auth(ours, TOKEN, origins=resource.url)]) as session:
                with sink.fails():
                    await session.post(resource.url, data={"oauth_token": CANARIES["nonce"]})
        sink.objects(SignatureMethod("BROKEN", broken))
    ours = client(placement=placement)
    async with ClientSession(middlewares=[OAuth1Auth(ours, TOKEN, origins=resource.url)]) as session:
        with sink.fails(ClientError):
            await session.post(resource.url, data={"password": CANARIES["password"]})


BAD = (
    lambda: OAuth1Token(CANARIES["access-token"], TOKEN_SECRET + "\n"),
    lambda: OAuth1Token.from_dict({"oauth_token": CANARIES["access-token"] + "\n", "oauth_token_secret": TOKEN_SECRET}),
    lambda: OAuth1Token.from_json('{"oauth_token": "' + TOKEN_SECRET),
    lambda: OAuth1Client("", CONSUMER_SECRET),
    lambda: OAuth1Client("app", CONSUMER_SECRET + "\n"),
    lambda: OAuth1Client("app", CONSUMER_SECRET, signature_method="RSA-SHA1"),
    lambda: SignatureMethod.rsa("RSA-SHA1", CONSUMER_SECRET),
    lambda: OAuth1Auth(client(), TOKEN_SECRET),  # type: ignore[arg-type]
    lambda: OAuth1Auth(TOKEN, client()),  # type: ignore[arg-type]
    lambda: client().parse_authorization_response(f"?oauth_token={CANARIES['code']}", REQUEST_TOKEN),
    lambda: client().parse_authorization_response(f"?oauth_token={CANARIES['state']}", REQUEST_TOKEN),
)


@pytest.mark.parametrize("number", range(len(BAD)))
def test_G_12_S_22_a_refused_argument_or_callback_is_not_shown(number: int, sink: Sink) -> None:
    with sink.fails(ConfigurationError, OAuthError):
        BAD[number]()
