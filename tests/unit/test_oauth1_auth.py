"""What a source of OAuth 1 tokens may do to the middleware, and when a request is refused before anything is made of it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession

from aiohttp_oauth_middleware import (
    ConfigurationError,
    LoginRequired,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    SignatureMethod,
    StaticToken,
    Token,
    TokenUnavailable,
)
from tests.middleware.wire import record
from tests.raw_server import answer

TOKEN = OAuth1Token("tok", "secret")


class Source:
    """One that yields, or raises, each of these in turn, the last for ever."""

    def __init__(self, *yields: object) -> None:
        self.yields = list(yields)
        self.refused: list[OAuth1Token | None] = []

    async def token(self, refused: OAuth1Token | None = None) -> Any:
        self.refused.append(refused)
        result = self.yields.pop(0) if len(self.yields) > 1 else self.yields[0]
        if isinstance(result, Exception):
            raise result
        return result


@pytest.mark.parametrize("error", [OSError(5, "x"), TimeoutError(), aiohttp.ClientConnectionError("x"), LoginRequired("mine")])
@pytest.mark.parametrize("how", ["middleware", "trace", "renewal"])
async def test_F_55_what_a_source_raises_is_one_of_our_errors(how: str, error: Exception) -> None:
    source = Source(TOKEN, error) if how == "renewal" else Source(error)
    async with record(answer(401, b"", {"WWW-Authenticate": "OAuth oauth_problem=token_expired"})) as wire:
        auth = OAuth1Auth(OAuth1Client("id", "cs"), source, origins=wire.url)
        traces = [auth.trace_config()] if how == "trace" else []
        async with ClientSession(middlewares=() if traces else (auth,), trace_configs=traces) as session:
            with pytest.raises(LoginRequired if isinstance(error, LoginRequired) else TokenUnavailable) as caught:
                await session.get(wire.url)
    assert caught.value is error or caught.value.__cause__ is error
    assert len(wire.seen) == (how == "renewal")
    assert source.refused == ([None, TOKEN] if how == "renewal" else [None])


@pytest.mark.parametrize("token", [None, "tok", {"oauth_token": "tok"}, Token("tok"), 7], ids=repr)
@pytest.mark.parametrize("how", ["middleware", "trace"])
async def test_F_55_what_a_source_yields_has_to_be_a_token(how: str, token: Any) -> None:
    async with record() as wire:
        auth = OAuth1Auth(OAuth1Client("id", "cs"), Source(token), origins=wire.url)
        traces = [auth.trace_config()] if how == "trace" else []
        async with ClientSession(middlewares=() if traces else (auth,), trace_configs=traces) as session:
            with pytest.raises(ConfigurationError, match="must return an OAuth1Token"):
                await session.get(wire.url)
    assert wire.received == 0


async def test_F_55_a_source_of_bearer_tokens_is_none() -> None:
    async with record() as wire:
        auth = OAuth1Auth(OAuth1Client("id", "cs"), StaticToken("at"), origins=wire.url)  # type: ignore[arg-type]
        async with ClientSession(middlewares=[auth]) as session:
            with pytest.raises(ConfigurationError, match="must return an OAuth1Token"):
                await session.get(wire.url)
    assert wire.received == 0


@pytest.mark.parametrize(("method", "more"), [("GET", {}), ("HEAD", {}), ("POST", {"json": {}}), ("PUT", {"data": b"x"})])
async def test_F_55_a_request_without_a_form_is_refused_before_it_is_signed(method: str, more: dict[str, Any]) -> None:
    def sign(*arguments: str) -> str:
        raise AssertionError

    async with record() as wire:
        client = OAuth1Client("id", "cs", placement="form", signature_method=SignatureMethod("MINE", sign))
        async with ClientSession(middlewares=[OAuth1Auth(client, TOKEN, origins=wire.url)]) as session:
            with pytest.raises(ConfigurationError, match="no form for its body"):
                await session.request(method, wire.url, **more)
    assert wire.received == 0
