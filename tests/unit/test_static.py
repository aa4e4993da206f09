"""A token that somebody else looks after."""

from __future__ import annotations

import pytest
from yarl import URL

from aiohttp_oauth_middleware import (
    ConfigurationError,
    LoginRequired,
    Refusal,
    Secret,
    StaticToken,
    Token,
    TokenSource,
    TokenUnavailable,
)

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


@pytest.mark.parametrize("given", [None, 7, b"a", ["a"], Token, Secret, str])
def test_anything_else_is_refused_at_once(given: str) -> None:
    with pytest.raises(ConfigurationError, match="StaticToken: token"):
        StaticToken(given)


@pytest.mark.parametrize("given", ["", "a b", "a\r\nb", "ä"])
@pytest.mark.parametrize("kind", [str, Secret])
def test_S_36_a_string_that_no_header_can_carry_is_refused_at_once(given: str, kind: type[str]) -> None:
    with pytest.raises(ConfigurationError, match="access_token"):
        StaticToken(kind(given))


async def test_S_36_so_is_one_that_a_callable_yields() -> None:
    with pytest.raises(ConfigurationError, match="access_token") as caught:
        await StaticToken(lambda: "sec ret").token()
    assert "sec ret" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\n\n"], ids=repr)
async def test_a_file_ends_with_a_newline(end: str) -> None:
    async def read() -> str:
        return f"a{end}"

    for source in (StaticToken(lambda: f"a{end}"), StaticToken(read), StaticToken(Secret(f"a{end}"))):  # type: ignore[arg-type]
        assert await source.token() == Token("a")


@pytest.mark.parametrize("returned", [None, 7, b"a", ["a"], Token("CANARY")], ids=repr)
async def test_a_callable_that_returns_no_string_is_told_so(returned: str) -> None:
    async def read() -> str:
        return returned

    for source in (StaticToken(lambda: returned), StaticToken(read)):  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="the callable must return the token as a string") as caught:
            await source.token()
        assert "CANARY" not in str(caught.value)


async def test_a_callable_that_raises_may_do_better_later() -> None:
    def read() -> str:
        raise FileNotFoundError(2, "CANARY", "/run/secrets/CANARY")

    async def read_later() -> str:
        return read()

    for source in (StaticToken(read), StaticToken(read_later)):  # type: ignore[arg-type]
        with pytest.raises(TokenUnavailable, match="raised FileNotFoundError") as caught:
            await source.token(REFUSED)
        assert caught.value.retryable
        assert isinstance(caught.value.__cause__, FileNotFoundError)
        assert "CANARY" not in str(caught.value)


async def test_an_error_of_ours_that_a_callable_raises_passes_as_it_is() -> None:
    def read() -> str:
        raise LoginRequired("unlock the vault")

    with pytest.raises(LoginRequired, match="unlock the vault"):
        await StaticToken(read).token()
