"""What oauthlib signs, its provider side and the embedded server, which reads with authlib, judge alike."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from aiohttp import ClientSession
from oauthlib.oauth1 import Client
from yarl import URL

from aiohttp_oauth_middleware.testing import AuthorizationServer

from .oauthlib_server import OauthlibServer

FORM = "application/x-www-form-urlencoded"
# What URLs and forms are made of, and what is known to be encoded in different ways.
ALPHABET = "aZ0%é☃+ &=:@/?'$!*()[]{},.~-_|\\\"<>^`#\x7f"
METHODS = ("HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512")


def words(chance: random.Random) -> Iterator[tuple[str, str]]:
    for _ in range(chance.randrange(5)):
        yield (
            "".join(chance.choices(ALPHABET, k=chance.randrange(6))),
            "".join(chance.choices(ALPHABET, k=chance.randrange(6))),
        )


@pytest.mark.parametrize("seed", range(4))
async def test_random_requests_are_verified_by_both_and_by_neither_once_they_were_changed(seed: int) -> None:
    chance = random.Random(seed)
    with AuthorizationServer() as whole:
        token, api = whole.oauth1.issue(), whole.oauth1.api()
        secrets = {"token": token["oauth_token"], "token_secret": token["oauth_token_secret"]}
        async with OauthlibServer(**secrets) as theirs, ClientSession() as session:

            async def statuses(target: str, headers: dict[str, str], body: str | None) -> list[int]:
                found = []
                for origin in (theirs.url.origin(), api.origin):
                    url = URL(f"{origin}{target}", encoded=True)
                    async with session.post(url, data=body, headers=headers) as response:
                        found.append(response.status)
                return found

            for _ in range(50):
                host = chance.choice(["h.example", "h.example:8080", "[::1]:8080"])
                path = "".join(chance.choices(ALPHABET, k=chance.randrange(6)))
                url = URL.build(scheme="http", authority=host, path=f"/{path}", query=[("q", ""), *words(chance)])
                placement = chance.choice(["AUTH_HEADER", "QUERY", "BODY"])
                form = URL.build(query=[("f", ""), *words(chance)]).raw_query_string if placement == "BODY" else None
                signer = Client(
                    "app",
                    "app-secret",
                    secrets["token"],
                    secrets["token_secret"],
                    signature_method=chance.choice(METHODS),
                    signature_type=placement,
                )
                signed, headers, body = signer.sign(str(url), "POST", form, {"Content-Type": FORM} if form else {})
                target = signed.removeprefix(f"http://{host}")
                headers["Host"] = host
                changed = target.replace("?q=", "?q=changed", 1)
                assert changed != target
                assert await statuses(changed, headers, body) == [401, 401]
                assert await statuses(target, headers, body) == [200, 200], theirs.verdicts[-1]
