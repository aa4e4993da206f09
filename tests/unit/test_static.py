"""A token that somebody else looks after."""

from __future__ import annotations

import pytest
from yarl import URL

from aiohttp_oauth_middleware import ConfigurationError, Refusal, Secret, StaticToken, Token, TokenSource

REFUSED = Refusal(URL("https://api.example"), 401, (), Token("a"))


@pytest.mark.parametrize(
    "given", ["a", Token("a"), Secret("a"), Secret(lambda: "a"), lambda: "a"], ids=lambda g: type(g).__name__
)
async def test_a_static_token_is_what_it_was_given_also_after_a_refusal(given: str) -> None:
    source: TokenSource = StaticToken(given)
    assert isinstance(source, TokenSource)
    assert await source.token() == Token("a")
    assert await source.token(REFUSED) == Token("a")
    assert repr(source) == "StaticToken(…)"


async def test_a_callable_is_called_for_each_request() -> None:
    values = iter(["a", "b"])

    async def read() -> str:
        return next(values)

    source = StaticToken(read)  # type: ignore[arg-type]
    assert await source.token() == Token("a")
    assert await source.token(REFUSED) == Token("b")


@pytest.mark.parametrize("given", [None, 7, b"a", ["a"]])
def test_anything_else_is_refused_at_once(given: str) -> None:
    with pytest.raises(ConfigurationError, match="StaticToken: token"):
        StaticToken(given)


@pytest.mark.parametrize("given", ["", "a b", "a\r\nb", "ä"])
def test_S_36_a_string_that_no_header_can_carry_is_refused_at_once(given: str) -> None:
    with pytest.raises(ConfigurationError, match="access_token"):
        StaticToken(given)


async def test_S_36_so_is_one_that_a_callable_yields() -> None:
    with pytest.raises(ConfigurationError, match="access_token") as caught:
        await StaticToken(lambda: "sec ret").token()
    assert "sec ret" not in str(caught.value)
