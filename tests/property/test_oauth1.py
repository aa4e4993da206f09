"""What is signed is what oauthlib signs, where it takes the request, and else what RFC 5849 says, to the letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oauthlib.oauth1 import Client
from oauthlib.oauth1.rfc5849 import SIGNATURE_METHODS
from yarl import URL

from aiohttp_oauth_middleware import ConfigurationError, OAuth1Client, OAuth1Token, SignatureMethod
from aiohttp_oauth_middleware.oauth1.signature import authorization_header
from tests.oauth1.oracle import CLIENT_SECRET, PROTOCOL, TOKEN_SECRET, in_header, is_misread, pairs, verify

KEY = rsa.generate_private_key(65537, 2048)
TOKEN = OAuth1Token("tok/en+=&~ü", TOKEN_SECRET)
CLIENTS = {
    name: OAuth1Client(
        "app",
        CLIENT_SECRET,
        signature_method=SignatureMethod.rsa(name, KEY) if name.startswith("RSA") else name,
    )
    for name in SIGNATURE_METHODS
}
FORM = "application/x-www-form-urlencoded"

# Whatever is known to be encoded in different ways, and what only URL(…, encoded=True) lets through.
TEXTS = st.text(
    st.sampled_from("aZ0%é☃𝄞 +&=:@/?'$!*()[]{},.~-_;|\\\"<>^`#\x00\x7f") | st.characters(exclude_categories=["Cs"]), max_size=6
)
ESCAPES = (
    "%41",
    "%7e",
    "%7E",
    "%2F",
    "%2f",
    "%c3%bc",
    "%E2%98%83",
    "%20",
    "%25",
    "%26",
    "%3D",
    "%2B",
    "%00",
    "%FF",
    "%",
    "%4",
    "%zz",
)
PIECES = st.lists(st.sampled_from(("a", "Z", "0", "é", "☃", *ESCAPES, *"+;[]{}$'=&!*():@/?|^`\\\"<>,~-_.")), max_size=8).map(
    "".join
)
PAIRS = st.lists(st.tuples(TEXTS | st.sampled_from(["a", "oauth_extra"]), TEXTS), max_size=4)
NAMES = st.sampled_from(["a", "oauth_extra", "%6fauth_x", "oauth_token", "oauth%5Fnonce", "realm", "oauth"])
RAW = st.lists(st.tuples(NAMES | PIECES, st.just("") | PIECES.map("={}".format)).map("".join), max_size=4).map("&".join)
SCHEMES = st.sampled_from(["http", "https", "ws", "wss"])
HOSTS = (
    "example.com",
    "EXAMPLE.com",
    "example.com.",
    "bücher.example",
    "例え.テスト",
    "xn--bcher-kva.example",
    "127.0.0.1",
    "[::1]",
)
PLACES = st.tuples(st.sampled_from((*HOSTS, "[2001:DB8::1]")), st.sampled_from(["", ":80", ":443", ":8080", ":0"])).map("".join)
PATHS = st.just("") | TEXTS.map("/{}".format)
FORMS = st.none() | PAIRS.map(urlencode) | RAW | st.binary(max_size=12)


@st.composite
def urls(draw: st.DrawFn) -> URL:
    scheme, place, kind = draw(SCHEMES), draw(PLACES), draw(st.integers(0, 2))
    if kind == 0:
        return URL.build(scheme=scheme, authority=place, path=draw(PATHS), query=draw(PAIRS), fragment=draw(TEXTS))
    path = draw(st.just("") | PIECES.map(lambda text: "/" + text.replace("?", "")))
    text = f"{scheme}://{place}{path}?{draw(RAW)}{draw(st.sampled_from(['', '#f?g=h', '#']))}"
    if kind == 1:
        return URL(text)
    return URL(text.replace(place, str(URL(f"http://{place}").host_port_subcomponent)), encoded=True)


def done(coroutine: Coroutine[Any, Any, str]) -> str:
    """Nothing that signs with what it has at hand waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return str(stop.value)
    raise AssertionError("it waits")


async def signed(name: str, method: str, url: URL, host: str, form: str | bytes) -> str:
    return authorization_header(await CLIENTS[name].signer.sign(method, url, host, token=TOKEN, form=form))


def by_oauthlib(name: str, method: str, url: URL, host: str, form: bytes | None, sent: dict[str, str]) -> str | None:
    """Its signature; None where it refuses."""
    client = Client(
        *("app", CLIENT_SECRET, TOKEN.oauth_token, TOKEN_SECRET),
        signature_method=name,
        rsa_key=KEY,
        nonce=sent["oauth_nonce"],
        timestamp=sent["oauth_timestamp"],
    )
    uri = f"{url.scheme.replace('ws', 'http')}{str(url).removeprefix(url.scheme)}"
    headers = {"Host": host, **({} if form is None else {"Content-Type": FORM})}
    try:
        _, headers, _ = client.sign(uri, method, None if form is None else form.decode("latin-1"), headers)
    except ValueError:
        return None
    return in_header(headers["Authorization"])["oauth_signature"]


def test_S_63_G_22_for_any_url_and_form_the_signature_is_that_of_oauthlib_or_of_the_letter() -> None:
    judged: Counter[str] = Counter()

    @settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(SIGNATURE_METHODS), st.sampled_from(["GET", "POST", "patch"]), urls(), FORMS)
    def check(name: str, method: str, url: URL, form: str | bytes | None) -> None:
        target = url.raw_path_qs.encode()
        body = form.encode() if isinstance(form, str) else form
        host = url.host_port_subcomponent or ""
        users = {name for name, _ in (*pairs(target.partition(b"?")[2]), *pairs(body or b""))}
        try:
            header = done(signed(name, method, url, host, form or b""))
        except ConfigurationError:
            # RFC 5849 section 3.1: "Each parameter MUST NOT appear more than once per request".
            assert users & PROTOCOL
            judged["twice"] += 1
            return
        assert not users & (PROTOCOL - {b"oauth_body_hash"})
        scheme = url.scheme.replace("ws", "http")
        secrets = (CLIENT_SECRET, TOKEN_SECRET)
        assert verify(method.upper(), scheme, host, target, body or b"", header, secrets, KEY.public_key())
        sent = in_header(header)
        if is_misread(target, body or b"") or (theirs := by_oauthlib(name, method, url, host, body, sent)) is None:
            judged["letter"] += 1
            return
        judged["oauthlib"] += 1
        assert theirs == sent["oauth_signature"]

    check()
    assert min(judged["oauthlib"], judged["letter"]) > 150
    assert judged["twice"] > 5
