"""What is signed is what oauthlib signs, for random URLs and forms; nothing is sent."""

from __future__ import annotations

import random

import pytest
from oauthlib.oauth1 import Client
from yarl import URL

from aiohttp_oauth_middleware.oauth1.signature import SIGNATURE_METHODS, base_string, base_string_uri, encode, parameters_of

FORM = "application/x-www-form-urlencoded"
ALPHABET = "aZ0%é☃+ &=:@/?'$!*()[]{},.~-_|\\\"<>^`#\x7f"


@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT"])
def test_G_22_S_63_the_signature_is_that_of_oauthlib_for_2500_random_requests(method: str) -> None:
    chance = random.Random(method)

    def words(most: int) -> str:
        return "".join(chance.choices(ALPHABET, k=chance.randrange(most)))

    for _ in range(2500):
        host = chance.choice(["h.example", "H.Example:8080", "h.example:443", "[::1]:8443"])
        url = URL.build(scheme="https", authority=host, path=f"/{words(6)}", query=[(words(6), words(6)) for _ in range(4)])
        form = URL.build(query=[(words(6), words(6)) for _ in range(3)]).raw_query_string if chance.random() < 0.5 else ""
        secrets = words(6), words(6)
        signer = Client("key", secrets[0], "token", secrets[1], signature_method=method, signature_type="AUTH_HEADER")
        headers = signer.sign(str(url), "POST", form or None, {"Content-Type": FORM} if form else {})[1]
        fields = dict(part.split("=", 1) for part in headers["Authorization"].removeprefix("OAuth ").split(", "))
        theirs = fields.pop("oauth_signature").strip('"')
        protocol = [(name, value.strip('"')) for name, value in fields.items()]
        uri = base_string_uri(url.scheme, url.host_port_subcomponent or "", url.raw_path)
        text = base_string("POST", uri, protocol + parameters_of(url.raw_query_string) + parameters_of(form))
        ours = SIGNATURE_METHODS[method].sign(text, *secrets)
        assert isinstance(ours, str)
        assert encode(ours) == theirs, text
