"""What a resource server meant by refusing a token."""

from __future__ import annotations

import pytest
from yarl import URL

from aiohttp_oauth_middleware import Refusal, Token, Wanted
from aiohttp_oauth_middleware.protocol.challenge import Challenge, parse_challenges

TOKEN = Token("access", scope="a b")


def refusal(status: int, *headers: str, token: Token | None = TOKEN) -> Refusal:
    return Refusal(URL("https://api.example"), status, parse_challenges(headers), token)


@pytest.mark.parametrize(
    ("status", "headers", "verdict"),
    [
        (401, ['Bearer error="invalid_token"'], "expired"),
        (401, ["Bearer"], "expired"),
        (401, ['Bearer realm="x"'], "expired"),
        (401, ['DPoP error="invalid_token"'], "expired"),
        (401, ["DPoP"], "expired"),
        (403, ['Bearer error="invalid_token"'], "expired"),
        (401, ["Bearer", 'Bearer error="invalid_token"'], "expired"),
        (401, ['Basic realm="x", Bearer error="invalid_token"'], "expired"),
        (401, [], "perhaps expired"),
        (401, ["???"], "perhaps expired"),
        (403, ['Bearer error="insufficient_scope", scope="c"'], "more wanted"),
        (401, ['Bearer error="insufficient_scope"'], "more wanted"),
        (401, ['Bearer error="insufficient_user_authentication", max_age="5"'], "more wanted"),
        (401, ['Basic realm="x"'], "other"),
        (401, ["Digest nonce=x"], "other"),
        (401, ["Negotiate"], "other"),
        (401, ['Bearer error="invalid_request"'], "other"),
        (401, ['Bearer error="something_new"'], "other"),
        (401, ['DPoP error="use_dpop_nonce"'], "other"),
        (403, [], "other"),
        (403, ["Bearer"], "other"),
        (403, ['Basic realm="x"'], "other"),
    ],
)
def test_S_38_F_39_F_40_the_verdict(status: int, headers: list[str], verdict: str) -> None:
    assert refusal(status, *headers).verdict == verdict


def test_the_challenge_is_the_first_with_an_error_else_the_first_of_ours() -> None:
    assert refusal(401, "Basic").challenge is None
    with_error = refusal(401, 'Bearer realm="first"', 'DPoP error="invalid_token"').challenge
    assert with_error is not None
    assert with_error.scheme == "dpop"
    without = refusal(401, "Basic", 'Bearer realm="first"', "DPoP").challenge
    assert without is not None
    assert without.parameters == {"realm": "first"}


@pytest.mark.parametrize(
    ("header", "token", "wanted"),
    [
        ('Bearer error="insufficient_scope", scope="c a"', TOKEN, Wanted(scope="a b c")),
        ('Bearer error="insufficient_scope"', TOKEN, Wanted(scope="a b")),
        ('Bearer error="insufficient_scope", scope="c"', None, Wanted(scope="c")),
        ('Bearer error="insufficient_scope", scope="c"', Token("access"), Wanted(scope="c")),
        ('Bearer error="insufficient_scope", scope="a\\\\b"', TOKEN, Wanted(scope="a b")),
        ('Bearer error="insufficient_scope", scope="\x1b[31m"', TOKEN, Wanted(scope="a b")),
        ('Bearer error="insufficient_scope", scope="ö"', None, Wanted()),
        ("Basic", TOKEN, Wanted(scope="a b")),
        (
            'Bearer error="insufficient_user_authentication", acr_values="gold", max_age="5"',
            TOKEN,
            Wanted(scope="a b", acr_values="gold", max_age=5),
        ),
        ('Bearer error="insufficient_user_authentication", max_age="-5"', None, Wanted()),
        ('Bearer error="insufficient_user_authentication", max_age="9999999999"', None, Wanted()),
        ('Bearer error="insufficient_user_authentication", max_age="٣"', None, Wanted()),
    ],
)
def test_what_is_wanted_on_top_of_what_was_granted(header: str, token: Token | None, wanted: Wanted) -> None:
    assert refusal(403, header, token=token).wanted == wanted


@pytest.mark.parametrize("odd", ['rä"d', "a\\b", "\ud800", "\x7f", '"'], ids=ascii)
def test_F_40_a_scope_in_characters_that_none_may_have_is_left_out_of_what_is_wanted(odd: str) -> None:
    challenge = Challenge("bearer", {"error": "insufficient_scope", "scope": f"{odd} write"})
    refused = Refusal(URL("https://api.example"), 403, (challenge,), Token("a", scope=f"read {odd}"))
    assert refused.wanted == Wanted(scope="read write")
