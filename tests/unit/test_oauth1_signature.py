"""What is signed and how: the published vectors, and every way in which a query can be written."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import string
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oauthlib.oauth1.rfc5849 import signature as theirs
from yarl import URL

from aiohttp_oauth_middleware import ConfigurationError, InsecureTransport, OAuth1Client, OAuth1Token, SignatureMethod
from aiohttp_oauth_middleware.errors import OAuthError, TokenUnavailable
from aiohttp_oauth_middleware.oauth1.signature import (
    PLAINTEXT,
    SIGNATURE_METHODS,
    authorization_header,
    base_string,
    base_string_uri,
    body_hash,
    encode,
    parameters_of,
    signing_key,
)
from aiohttp_oauth_middleware.oauth1.signer import ORIGINS, Clocks, Signer
from aiohttp_oauth_middleware.value import Secret
from tests.clock import VirtualClock

VECTORS = Path(__file__).parent.parent / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"oauth1-{name}.json").read_text("utf-8"))


def uri_of(url: URL) -> str:
    return base_string_uri(url.scheme, url.host_port_subcomponent or "", url.raw_path)


def normalized(parameters: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in sorted(parameters))


async def awaited(value: str | Awaitable[str]) -> str:
    return value if isinstance(value, str) else await value


REQUESTS = {case["id"]: case for case in vectors("requests")}
SIGNATURES = {case["id"]: case for case in vectors("signatures")}


# The published vectors


@pytest.mark.parametrize("case", vectors("encoding")["cases"], ids=lambda case: ascii(case["input"]))
def test_S_63_text_is_encoded_as_the_vectors_have_it(case: dict[str, str]) -> None:
    assert encode(case["input"]) == case["encoded"]


@pytest.mark.parametrize("case", vectors("normalize")["cases"], ids=lambda case: case["input"][:30])
def test_S_63_parameters_are_normalized_as_the_vectors_have_it(case: dict[str, str]) -> None:
    assert normalized(parameters_of(case["input"])) == case["normalized"]


@pytest.mark.parametrize("case", vectors("base-uri")["cases"], ids=lambda case: case["url"])
def test_S_63_the_base_string_uri_is_that_of_the_vectors(case: dict[str, str]) -> None:
    assert uri_of(URL(case["url"])) == case["base_string_uri"]


@pytest.mark.parametrize(
    "url", [*vectors("base-uri")["refused"], "ftp://eg.com/", "//eg.com/", "/path", "https://a:b@eg.com"], ids=ascii
)
@pytest.mark.parametrize("kind", [str, URL])
async def test_S_63_what_is_no_url_is_not_signed(url: str, kind: Callable[[str], str | URL]) -> None:
    try:
        target = kind(url)
    except ValueError:
        return  # yarl has refused it
    with pytest.raises(ConfigurationError, match=r"OAuth1Client\.sign: url"):
        await OAuth1Client("id", "secret").sign("GET", target)


@pytest.mark.parametrize("case", vectors("body-hash")["cases"], ids=lambda case: case["body"] or "empty")
def test_S_63_the_hash_of_a_body_is_that_of_the_draft(case: dict[str, str]) -> None:
    assert body_hash(case["body"].encode(), "sha1") == case["oauth_body_hash"]


@pytest.mark.parametrize("case", REQUESTS.values(), ids=REQUESTS)
async def test_S_63_G_22_a_request_of_the_vectors_is_signed_as_they_say(case: dict[str, Any]) -> None:
    url, expected = URL(case["url"], encoded=True), case["expect"]
    protocol = [(encode(name), encode(value)) for name, value in case["oauth_params"].items()]
    parameters = protocol + parameters_of(url.raw_query_string) + parameters_of(case.get("form_body", ""))
    assert uri_of(url) == expected["base_string_uri"]
    assert normalized(parameters) == expected["normalized_parameters"]
    text = base_string(case["method"].lower(), uri_of(url), parameters)
    assert text == expected["base_string"]
    secrets = (case["client_secret"], case.get("token_secret", ""))
    assert signing_key(*secrets) == expected["key"]
    method = SIGNATURE_METHODS[case["oauth_params"]["oauth_signature_method"]]
    signature = await awaited(method.sign(text, *secrets))
    assert signature == expected["signature"]
    if "authorization" in expected:
        header = authorization_header(sorted([*protocol, ("oauth_signature", encode(signature))]), case.get("realm"))
        assert header == expected["authorization"]


@pytest.mark.parametrize("case", SIGNATURES.values(), ids=SIGNATURES)
async def test_S_63_G_22_a_base_string_of_the_vectors_is_signed_as_they_say(case: dict[str, Any]) -> None:
    name = case["signature_method"]
    method = SIGNATURE_METHODS.get(name) or SignatureMethod.rsa(name, case["rsa_private_key"])
    for _ in range(2):  # the second time with a key that is parsed
        signature = method.sign(case["base_string"], case["client_secret"] or "", case["token_secret"] or "")
        assert await awaited(signature) == case["signature"]


# Every way in which a query can be written


def as_urllib(text: str) -> list[tuple[str, str]]:
    """What urllib reads, byte by byte."""
    pairs = parse_qsl(text, keep_blank_values=True, encoding="latin-1")
    return [(quote(name.encode("latin-1"), safe="~"), quote(value.encode("latin-1"), safe="~")) for name, value in pairs]


def by_definition(data: bytes) -> list[tuple[str, str]]:
    """RFC 5849 sections 3.4.1.3.1 and 3.6, without haste."""
    pairs = []
    for part in data.split(b"&"):
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            pairs.append((quote(unquote_to_bytes(name), safe="~"), quote(unquote_to_bytes(value), safe="~")))
    return pairs


@pytest.mark.parametrize("place", ["{}=v", "n={}", "n{}m=v", "n=v{}w", "a=1&n={}&b=2"])
def test_S_63_every_byte_is_read_as_urllib_reads_it(place: str) -> None:
    for byte in range(256):
        text = place.format(chr(byte))
        assert parameters_of(text.encode("latin-1")) == as_urllib(text), text
        if byte < 128:
            assert parameters_of(text) == as_urllib(text), text


def test_S_63_every_escape_is_read_as_urllib_reads_it() -> None:
    for byte in range(256):
        for written in (f"%{byte:02x}", f"%{byte:02X}", f"%{byte:02X}".swapcase(), f"%{f'{byte:02x}'.title()}"):
            for text in (f"n={written}", f"{written}=v", f"n=a{written}{written}b", f"n=%{written}", f"n={written}%"):
                assert parameters_of(text) == as_urllib(text), text


def test_S_63_whatever_follows_a_percent_sign_is_read_as_urllib_reads_it() -> None:
    for first in map(chr, range(128)):
        for second in map(chr, range(128)):
            text = f"n=%{first}{second}x"
            assert parameters_of(text) == as_urllib(text), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (b"", []),
        ("&", []),
        ("&&a=1&&", [("a", "1")]),
        ("a", [("a", "")]),
        ("a=", [("a", "")]),
        ("=", [("", "")]),
        ("=b", [("", "b")]),
        ("a=b=c", [("a", "b%3Dc")]),
        ("a==", [("a", "%3D")]),
        ("a=%3D", [("a", "%3D")]),
        ("a=1&a=1&a=0", [("a", "1"), ("a", "1"), ("a", "0")]),
        ("a=x+y", [("a", "x%20y")]),
        ("a=x%20y", [("a", "x%20y")]),
        ("a=x%2By", [("a", "x%2By")]),
        ("a;b=1;c", [("a%3Bb", "1%3Bc")]),
        ("a[b]={c}&$='", [("a%5Bb%5D", "%7Bc%7D"), ("%24", "%27")]),
        ("a=%7e%7E~", [("a", "~~~")]),
        ("a=%2d%2E%5f", [("a", "-._")]),
        ("a=%2f%2F/", [("a", "%2F%2F%2F")]),
        ("a=%", [("a", "%25")]),
        ("a=%%", [("a", "%25%25")]),
        ("a=%4", [("a", "%254")]),
        ("a=%zz", [("a", "%25zz")]),
        ("a=%25", [("a", "%25")]),
        ("a=%2541", [("a", "%2541")]),
        ("ä=€", [("%C3%A4", "%E2%82%AC")]),
        ("a=%C3%A4%e2%82%ac", [("a", "%C3%A4%E2%82%AC")]),
        ("a=%FF%fe", [("a", "%FF%FE")]),
        (b"a=\xff\xfe", [("a", "%FF%FE")]),
        ("a=\ud800", [("a", "%ED%A0%80")]),
        ("a=b#c?d", [("a", "b%23c%3Fd")]),
        ("a=\r\n", [("a", "%0D%0A")]),
        ("a=\0", [("a", "%00")]),
    ],
    ids=ascii,
)
def test_S_63_parameters_are_what_went_over_the_wire(text: str | bytes, expected: list[tuple[str, str]]) -> None:
    assert parameters_of(text) == expected


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=40) | st.text("ab%4fFe~+&=;ä \0", max_size=30).map(str.encode))
def test_S_63_any_bytes_are_read_by_the_definition(data: bytes) -> None:
    assert parameters_of(data) == by_definition(data)


QUERY = st.text(string.ascii_letters + string.digits + "-._~!*'()$,;:@/?+=&%", max_size=40)


@settings(deadline=None, max_examples=300)
@given(QUERY, QUERY)
def test_S_63_G_22_a_base_string_is_the_one_that_oauthlib_makes(query: str, form: str) -> None:
    if theirs.extract_params(form) is None:
        return  # what it takes for malformed it leaves out
    if b"\xef\xbf\xbd" in unquote(f"{query}&{form}").encode():
        return  # what is not UTF-8 it changes
    try:
        collected = theirs.collect_parameters(uri_query=query, body=form, exclude_oauth_signature=False)
    except ValueError:
        return  # what it takes for malformed
    expected = theirs.signature_base_string("PUT", "https://api.example/p", theirs.normalize_parameters(collected))
    assert base_string("PUT", "https://api.example/p", parameters_of(query) + parameters_of(form)) == expected


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=20), st.text(max_size=20))
def test_S_63_G_22_any_text_is_encoded_as_oauthlib_does(one: str, other: str) -> None:
    try:
        one.encode(), other.encode()
    except UnicodeEncodeError:
        return
    assert encode(one) == quote(one.encode(), safe="~")
    assert signing_key(one, other) == f"{quote(one, safe='~')}&{quote(other, safe='~')}"


def test_S_63_parameters_are_sorted_by_what_they_are_encoded() -> None:
    # By bytes, as section 3.4.1.3.2 has it: "a-b" before "a" with a value is a matter of the name alone.
    pairs = parameters_of("a-b=1&a=2&a%20=3&A=4&a=10&%E3%81%82=5&a=")
    assert base_string("GET", "https://h/", pairs) == (
        "GET&https%3A%2F%2Fh%2F&%25E3%2581%2582%3D5%26A%3D4%26a%3D%26a%3D10%26a%3D2%26a%2520%3D3%26a-b%3D1"
    )


# Where the request goes


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h", "https://h/"),
        ("https://h?x=1", "https://h/"),
        ("https://h:443/a", "https://h/a"),
        ("https://h:80/a", "https://h:80/a"),
        ("https://h:4443/a", "https://h:4443/a"),
        ("http://h:80/", "http://h/"),
        ("http://h:8080/", "http://h:8080/"),
        ("ws://h/a", "http://h/a"),
        ("ws://h:80/a", "http://h/a"),
        ("wss://h/a", "https://h/a"),
        ("wss://h:443/a", "https://h/a"),
        ("wss://h:80/a", "https://h:80/a"),
        ("https://[::1]/", "https://[::1]/"),
        ("https://[::1]:443/", "https://[::1]/"),
        ("https://[2001:DB8::80]:8443/", "https://[2001:db8::80]:8443/"),
        ("http://[2001:db8::80]/", "http://[2001:db8::80]/"),
        ("https://MÜNCHEN.example/", "https://xn--mnchen-3ya.example/"),
        ("https://xn--mnchen-3ya.example/", "https://xn--mnchen-3ya.example/"),
        ("https://h/a%2fb", "https://h/a%2Fb"),
        ("https://h/ä/[x]/{y}", "https://h/%C3%A4/%5Bx%5D/%7By%7D"),
        ("https://h/a+b", "https://h/a+b"),
        ("https://h/a;b=c", "https://h/a;b=c"),
        ("https://h//a//", "https://h//a//"),
    ],
)
def test_S_63_the_uri_is_that_of_the_request_as_it_is_sent(url: str, expected: str) -> None:
    assert uri_of(URL(url)) == expected


def test_S_63_a_path_that_the_user_encoded_is_signed_as_it_is() -> None:
    assert uri_of(URL("https://h/a%2fb'(c)%7e", encoded=True)) == "https://h/a%2fb'(c)%7e"


def test_a_header_is_quoted_and_the_realm_comes_first_and_unencoded() -> None:
    parameters = [("oauth_token", ""), ("oauth_signature", "a%2Fb%3D")]
    assert authorization_header(parameters, "A & B") == 'OAuth realm="A & B", oauth_token="", oauth_signature="a%2Fb%3D"'
    assert authorization_header(parameters, "") == 'OAuth realm="", oauth_token="", oauth_signature="a%2Fb%3D"'
    assert authorization_header(parameters) == 'OAuth oauth_token="", oauth_signature="a%2Fb%3D"'


# The methods


@pytest.mark.parametrize("name", ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT"])
@pytest.mark.parametrize("secrets", [("", ""), ("cs", ""), ("", "ts"), ("c&s", "t%s"), ("ü€", "🔑")])
async def test_S_63_G_22_a_signature_is_the_one_that_oauthlib_makes(name: str, secrets: tuple[str, str]) -> None:
    make: Any = {
        "HMAC-SHA1": theirs.sign_hmac_sha1_with_client,
        "HMAC-SHA256": theirs.sign_hmac_sha256_with_client,
        "HMAC-SHA512": theirs.sign_hmac_sha512_with_client,
        "PLAINTEXT": theirs.sign_plaintext_with_client,
    }[name]

    class Whose:
        client_secret, resource_owner_secret = secrets

    assert await awaited(SIGNATURE_METHODS[name].sign("GET&x&y", *secrets)) == make("GET&x&y", Whose)


def test_a_method_is_a_value_without_secrets() -> None:
    def sign(text: str, client_secret: str, token_secret: str) -> str:
        return text

    method = SignatureMethod("MINE", sign, "sha256")
    assert repr(method) == "SignatureMethod('MINE')"
    assert method == SignatureMethod("MINE", sign, "sha256") != SignatureMethod("MINE", sign)
    assert method.hash_name == "sha256"
    assert [one.hash_name for one in SIGNATURE_METHODS.values()] == ["sha1", "sha256", "sha512", "sha1"]


@pytest.mark.parametrize("hash_name", sorted(hashlib.algorithms_available))
def test_a_hash_is_one_that_this_python_can_make(hash_name: str) -> None:
    try:
        method = SignatureMethod("MINE", lambda text, one, two: text, hash_name)
    except ConfigurationError:
        assert hash_name.startswith("shake") or hash_name not in hashlib.algorithms_guaranteed
    else:
        assert body_hash(b"x", method.hash_name)


# Who signs


def signer(method: str | SignatureMethod = "HMAC-SHA1", secret: Any = "cs", **more: Any) -> Signer:
    return OAuth1Client("id & co", secret, signature_method=method, **more).signer


API = URL("https://api.example/r?b=2&a=1&a")
TOKEN = OAuth1Token("tok/en", "ts")


async def test_S_63_G_22_what_is_signed_is_what_the_parameters_say() -> None:
    parameters = await signer().sign("POST", API, "api.example", token=TOKEN, form=b"c=3&a=x+y", protocol=[("oauth_x", "ä")])
    *protocol, (last, signature) = parameters
    assert last == "oauth_signature"
    assert [name for name, _ in protocol] == [
        "oauth_consumer_key",
        "oauth_nonce",
        "oauth_signature_method",
        "oauth_timestamp",
        "oauth_token",
        "oauth_version",
        "oauth_x",
    ]
    values = dict(protocol)
    assert values["oauth_consumer_key"] == "id%20%26%20co"
    assert (values["oauth_token"], values["oauth_version"], values["oauth_x"]) == ("tok%2Fen", "1.0", "%C3%A4")
    everything = protocol + parameters_of("b=2&a=1&a&c=3&a=x+y")
    text = base_string("POST", "https://api.example/r", everything)
    assert signature == encode(await awaited(SIGNATURE_METHODS["HMAC-SHA1"].sign(text, "cs", "ts")))


async def test_a_request_in_our_own_name_has_no_token_and_may_have_no_version() -> None:
    parameters = dict(await signer(send_version=False).sign("GET", API, "api.example"))
    assert "oauth_token" not in parameters
    assert "oauth_version" not in parameters


async def test_S_60_every_signature_has_a_nonce_of_its_own() -> None:
    one = signer()
    nonces = [dict(await one.sign("GET", API, "api.example"))["oauth_nonce"] for _ in range(2000)]
    assert len(set(nonces)) == 2000
    assert all(len(nonce) == 32 and nonce.isalnum() for nonce in nonces)


# What each writes is less than a pipe takes at once, so that no line is torn.
FORKING = """
import asyncio, os
from yarl import URL
from aiohttp_oauth_middleware import OAuth1Client

signer = OAuth1Client("id", "cs").signer

def nonces():
    async def several():
        return [dict(await signer.sign("GET", URL("https://h/"), "h"))["oauth_nonce"] for _ in range(120)]
    return "".join(nonce + "\\n" for nonce in asyncio.run(several())).encode()

nonces()
for _ in range(8):
    if os.fork() == 0:
        os.write(1, nonces())
        os._exit(0)
for _ in range(8):
    os.wait()
os.write(1, nonces())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
def test_S_60_forked_children_have_nonces_of_their_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True, text=True, timeout=60)
    found = done.stdout.split()
    assert len(found) == len(set(found)) == 9 * 120


async def test_a_timestamp_is_whole_seconds_of_our_clock_and_the_offset() -> None:
    clock = VirtualClock(1_700_000_000.9)
    one = signer(clock=clock)
    assert dict(await one.sign("GET", API, "api.example"))["oauth_timestamp"] == "1700000000"
    assert dict(await one.sign("GET", API, "api.example", offset=-0.95))["oauth_timestamp"] == "1699999999"
    one.clocks.learn(API, 3600.0)
    assert dict(await one.sign("GET", API, "api.example"))["oauth_timestamp"] == "1700003600"
    assert dict(await one.sign("GET", API, "api.example", offset=0.0))["oauth_timestamp"] == "1700000000"


@pytest.mark.parametrize(
    "name", ["oauth_consumer_key", "oauth_nonce", "oauth_signature", "oauth_token", "oauth_version", "oauth_verifier"]
)
@pytest.mark.parametrize("where", ["query", "form"])
async def test_S_63_no_parameter_of_the_protocol_is_signed_twice(name: str, where: str) -> None:
    url = API.update_query({name: "x"}) if where == "query" else API
    form = f"{name}=x" if where == "form" else ""
    with pytest.raises(ConfigurationError, match=rf"{name} .*RFC 5849 section 3\.1"):
        await signer().sign("POST", url, "api.example", token=TOKEN, form=form, protocol=[("oauth_verifier", "v")])


async def test_S_63_another_parameter_of_the_users_own_that_looks_like_ours_is_signed() -> None:
    parameters = await signer().sign("GET", URL("https://api.example/?oauth_other=1&oauth_token=mine"), "api.example")
    assert "oauth_other" not in dict(parameters)


async def test_a_method_of_the_users_own_may_be_a_coroutine_function_and_its_name_is_encoded() -> None:
    seen: list[tuple[str, str, str]] = []

    async def sign(text: str, client_secret: str, token_secret: str) -> str:
        seen.append((text, client_secret, token_secret))
        return "sig+/="

    parameters = dict(await signer(SignatureMethod("a&b", sign)).sign("GET", API, "api.example", token=TOKEN))
    assert (parameters["oauth_signature_method"], parameters["oauth_signature"]) == ("a%26b", "sig%2B%2F%3D")
    ((text, client_secret, token_secret),) = seen
    assert (client_secret, token_secret) == ("cs", "ts")
    assert "oauth_signature_method%3Da%2526b" in text


@pytest.mark.parametrize("result", [None, 7, b"sig", "", "a\nb", "\ud800", ["x"]], ids=ascii)
@pytest.mark.parametrize("later", [False, True])
async def test_F_55_a_method_that_yields_no_signature_is_named(result: Any, later: bool) -> None:
    async def coroutine(text: str, client_secret: str, token_secret: str) -> Any:
        return result

    method = SignatureMethod("MINE", coroutine if later else lambda text, one, two: result)
    with pytest.raises(ConfigurationError, match="signature_method"):
        await signer(method).sign("GET", API, "api.example")


@pytest.mark.parametrize("error", [KeyError("vault"), OSError(5, "x"), ZeroDivisionError()])
@pytest.mark.parametrize("what", ["method", "secret"])
async def test_F_55_a_callable_that_raises_makes_no_signature(error: Exception, what: str) -> None:
    def fails(*arguments: str) -> str:
        raise error

    one = signer(SignatureMethod("MINE", fails)) if what == "method" else signer(secret=fails)
    with pytest.raises(TokenUnavailable, match=type(error).__name__) as caught:
        await one.sign("GET", API, "api.example")
    assert caught.value.__cause__ is error


async def test_F_55_an_error_of_ours_that_a_callable_raises_passes_as_it_is() -> None:
    def fails(*arguments: str) -> str:
        raise InsecureTransport("no")

    with pytest.raises(InsecureTransport, match="no"):
        await signer(SignatureMethod("MINE", fails)).sign("GET", API, "api.example")


@pytest.mark.parametrize("secret", [lambda: "\ud800", lambda: 7, lambda: None, lambda: b"cs"])
async def test_F_55_a_secret_that_is_no_text_makes_no_signature(secret: Any) -> None:
    with pytest.raises(OAuthError) as caught:
        await signer(secret=secret).sign("GET", API, "api.example")
    assert not isinstance(caught.value.__context__, UnicodeEncodeError), "it holds the secret"


@pytest.mark.parametrize("secret", ["cs", Secret("cs"), lambda: "cs", Secret(lambda: "cs")])
async def test_a_secret_may_be_a_callable(secret: Any) -> None:
    parameters = dict(await signer("PLAINTEXT", secret).sign("GET", API, "api.example", token=TOKEN))
    assert parameters["oauth_signature"] == "cs%26ts"


async def test_a_secret_may_be_a_coroutine_function_and_is_read_each_time() -> None:
    numbers = iter(range(10))

    async def secret() -> str:
        await asyncio.sleep(0)
        return f"cs{next(numbers)}"

    one = signer("PLAINTEXT", secret)
    found = [dict(await one.sign("GET", API, "api.example"))["oauth_signature"] for _ in range(2)]
    assert found == ["cs0%26", "cs1%26"]


@pytest.mark.parametrize("token", ["tok", {"oauth_token": "tok"}, 7, object()])
async def test_F_55_what_a_source_of_tokens_yields_has_to_be_one(token: Any) -> None:
    with pytest.raises(ConfigurationError, match="OAuth1Token"):
        await signer().sign("GET", API, "api.example", token=token)


@pytest.mark.parametrize(
    "url", ["http://api.example/", "ws://api.example/", "http://10.0.0.1/", "http://localhost.evil.example/"]
)
def test_S_61_G_22_plaintext_is_refused_where_there_is_no_tls(url: str) -> None:
    with pytest.raises(InsecureTransport, match="PLAINTEXT"):
        signer("PLAINTEXT").check_transport("it", URL(url))
    signer("HMAC-SHA1").check_transport("it", URL(url))


@pytest.mark.parametrize(
    "url", ["https://api.example/", "wss://api.example/", "http://127.0.0.1/", "http://[::1]:8/", "ws://localhost/"]
)
def test_S_61_plaintext_goes_over_tls_or_stays_on_this_machine(url: str) -> None:
    signer("PLAINTEXT").check_transport("it", URL(url))


def test_S_61_a_method_of_the_users_own_by_that_name_is_plaintext_too() -> None:
    method = SignatureMethod("PLAINTEXT", PLAINTEXT.sign)
    with pytest.raises(InsecureTransport, match="PLAINTEXT"):
        signer(method).check_transport("it", URL("http://api.example/"))


def test_F_54_what_is_known_of_clocks_is_bounded_and_by_origin() -> None:
    clocks = Clocks()
    assert clocks.offset(API) == 0.0
    for number in range(3 * ORIGINS):
        clocks.learn(URL(f"https://h{number}/"), float(number))
        clocks.distrust(URL(f"https://h{number}/"), 0.0)
    assert len(clocks._offsets) == len(clocks._distrusted) == ORIGINS
    last = URL(f"https://h{3 * ORIGINS - 1}/other?x")
    assert clocks.offset(last) == 3 * ORIGINS - 1
    assert clocks.offset(last.with_port(8443)) == 0.0
    assert not clocks.trusts(last, 299.0)
    assert clocks.trusts(last, 300.0)
    assert clocks.trusts(API, 0.0)


# For what is not aiohttp


@pytest.mark.parametrize("url", ["https://api.example/r?a=1", URL("https://api.example/r?a=1"), "wss://api.example/r?a=1"])
async def test_S_63_a_header_can_be_made_for_another_client(url: str | URL) -> None:
    header = await OAuth1Client("id", "cs", realm="R", signature_method="PLAINTEXT").sign("get", url, TOKEN, form="b=2")
    assert header.startswith('OAuth realm="R", oauth_consumer_key="id", oauth_nonce="')
    assert header.endswith('oauth_token="tok%2Fen", oauth_version="1.0", oauth_signature="cs%26ts"')


async def test_S_63_a_header_is_signed_over_query_and_form() -> None:
    header = await OAuth1Client("id", "cs", clock=VirtualClock()).sign(
        "post", "https://API.example:443?a=%7e", TOKEN, form=b"b=+"
    )
    given_ = {name: value.strip('"') for name, _, value in (part.partition("=") for part in header[6:].split(", "))}
    signature = given_.pop("oauth_signature")
    text = base_string("POST", "https://api.example/", [*given_.items(), ("a", "~"), ("b", "%20")])
    assert signature == encode(await awaited(SIGNATURE_METHODS["HMAC-SHA1"].sign(text, "cs", "ts")))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("method", value) for value in ("", "GET /", 7, None, b"GET")),
        *(("token", value) for value in ("CANARY", {"oauth_token": "CANARY"}, 7)),
        *(("form", value) for value in ({"a": "CANARY"}, 7, None)),
        *(("url", value) for value in (7, None, b"https://h/", "https://h/#x", "https://h/ä")),
    ],
    ids=ascii,
)
async def test_F_55_what_cannot_be_signed_is_refused_by_name(argument: str, value: Any) -> None:
    arguments: dict[str, Any] = {"method": "GET", "url": "https://h/", "token": TOKEN, "form": b""} | {argument: value}
    with pytest.raises(ConfigurationError, match=rf"OAuth1Client\.sign: {argument}") as caught:
        await OAuth1Client("id", "secret").sign(**arguments)
    assert "CANARY" not in str(caught.value)
