"""Random requests over a real session, judged by what arrives: by oauthlib or authlib, and always by the letter of RFC 5849.

Each is reproducible from its seed and its number.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import ClientSession, FormData, MultipartWriter, TCPConnector
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client, OAuth1Token, SignatureMethod
from aiohttp_oauth_middleware.oauth1.client import BodyHash, Placement
from aiohttp_oauth_middleware.testing import AuthorizationServer
from aiohttp_oauth_middleware.testing.oauth1.wire import OAuth1Record
from tests.middleware.wire import elsewhere

from .oauthlib_server import OauthlibServer, Verdict
from .oracle import CLIENT_SECRET, TOKEN_SECRET, in_header, is_misread, pairs, verify

__all__ = ("BODIES", "BY_RSA", "BY_SECRETS", "FORMS", "PLACEMENTS", "once", "run")

BY_SECRETS: Final = ("HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT")
BY_RSA: Final = ("RSA-SHA1", "RSA-SHA256", "RSA-SHA512")
PLACEMENTS: Final[Sequence[Placement]] = ("header", "query", "form")
HASHES: Final[Sequence[BodyHash]] = ("on", "draft", "off", "off", "off")
KEY: Final = rsa.generate_private_key(65537, 2048)
PUBLIC_KEY: Final = KEY.public_key()
PUBLIC_PEM: Final = PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
FORM: Final = "application/x-www-form-urlencoded"
NUMBER: Final = "X-Case"

IN_FLIGHT: Final = 16
# The servers remember all nonces, so that each serves for so many requests.
CHUNK: Final = 20_000

# What URLs and forms are made of, and what is known to be encoded in different ways.
ALPHABET: Final = "aZ0%é☃𝄞 +&=:@/?'$!*()[]{},.~-_;|\\\"<>^`#"
ESCAPES: Final = ("%41", "%7e", "%2F", "%2f", "%c3%bc", "%E2%98%83", "%20", "%25", "%26", "%3D", "%2B", "%00", "%0A")
PIECES: Final = ("a", "Z", "0", *ESCAPES, *"+;$'=&!*():@/?,~-_.")
# What oauthlib can't read, or no server as text.
HARD: Final = ("%FF", "%c3", "%", "%4", "%zz", *'[]{}|^`\\"<>')
NAMES: Final = ("a", "a", "z", "c@", "oauth", "realm_", "Oauth_token", "b5")
# A host that is somewhere else is reached on this machine; PLAINTEXT may not go there.
HOSTS: Final = ("api.example.com", "API.Example.COM:80", "h.example:8080", "bücher.example", "[2001:db8::1]:81", "[::1]")


@dataclass(slots=True)
class Case:
    """One request, as its user would make it.

    :ivar arguments: for ``session.request``, made when it is sent.
    :ivar expected: the body, without what we add to it.
    """

    number: int
    signature_method: str
    placement: Placement
    body_hash: BodyHash
    in_our_own_name: bool
    method: str
    url: URL
    kind: str
    arguments: Callable[[], dict[str, Any]]
    expected: bytes | None


# --- What is sent -------------------------------------------------------------------------------------------------------


def text(random: Random) -> str:
    return "".join(random.choices(ALPHABET, k=int(random.random() * 6)))


def raw(random: Random, most: int = 6) -> str:
    parts = random.choices(PIECES, k=int(random.random() * most))
    if random.random() < 0.04:
        parts.append(random.choice(HARD))
    return "".join(parts)


def words(random: Random, least: int = 0) -> list[tuple[str, str]]:
    count = least + int(random.random() * 4)
    return [(random.choice(NAMES) if random.random() < 0.5 else text(random), text(random)) for _ in range(count)]


def raw_pairs(random: Random) -> str:
    """As a user writes them who encodes by himself: repeated names, names without a value, values without a name."""
    parts = [
        f"{random.choice(NAMES)}={raw(random)}" if random.random() < 0.6 else raw(random)
        for _ in range(int(random.random() * 5))
    ]
    if random.random() < 0.03:
        parts.append("oauth_extra=mine")
    return "&".join(parts)


def url(random: Random, origin: URL, plaintext: bool) -> URL:
    host = str(origin.origin()) if plaintext or random.random() < 0.6 else f"http://{random.choice(HOSTS)}"
    kind = random.random()
    if kind < 0.35:
        return URL.build(scheme="http", authority=host.removeprefix("http://"), path=f"/{text(random)}", query=words(random))
    path = raw(random).replace("?", "")
    made = f"{host}/{path}{'?' if random.random() < 0.8 else ''}{raw_pairs(random)}"
    if kind < 0.65:
        return URL(made + ("#fragment?a=b" if random.random() < 0.1 else ""))
    # In encoded form there is no international host.
    return URL(made.replace(host, str(URL(host).origin())), encoded=True) if host.isascii() else URL(made)


def file(random: Random) -> bytes:
    return random.randbytes(int(random.random() * 40))


Made = tuple[Callable[[], dict[str, Any]], bytes | None]


def none(random: Random) -> Made:
    return dict, b""


def form_dict(random: Random) -> Made:
    data = dict(words(random, 1))
    return lambda: {"data": data}, urlencode(data).encode()


def form_pairs(random: Random) -> Made:
    data = words(random, 1)
    return lambda: {"data": data}, urlencode(data).encode()


def form_data(random: Random) -> Made:
    data = words(random, 1)
    return lambda: {"data": FormData(data)}, urlencode(data).encode()


def form_str(random: Random) -> Made:
    data = raw_pairs(random) + ("&ü=é" if random.random() < 0.1 else "")
    return lambda: {"data": data, "headers": {"Content-Type": FORM}}, data.encode()


def form_bytes(random: Random) -> Made:
    data = raw_pairs(random).encode() + (file(random) if random.random() < 0.1 else b"")
    return lambda: {"data": data, "headers": {"content-type": f"{FORM}; charset=utf-8"}}, data


def json_object(random: Random) -> Made:
    data = dict(words(random))
    return lambda: {"json": data}, json.dumps(data).encode()


def plain_text(random: Random) -> Made:
    data = text(random)
    return lambda: {"data": data}, data.encode()


def octets(random: Random) -> Made:
    data = file(random)
    return lambda: {"data": data}, data


def multipart(random: Random) -> Made:
    # Its boundary is random, so that its bytes can't be told beforehand.
    fields, data = [(name, text(random)) for name in random.sample(NAMES, 2)], file(random)

    def arguments() -> dict[str, Any]:
        form = FormData(fields)
        form.add_field("file", io.BytesIO(data), filename="f", content_type="application/x-test")
        return {"data": form}

    return arguments, None


def multipart_mixed(random: Random) -> Made:
    parts = [file(random) for _ in range(1 + int(random.random() * 2))]

    def arguments() -> dict[str, Any]:
        writer = MultipartWriter("mixed", boundary="bound")
        for part in parts:
            writer.append(part)
        return {"data": writer}

    head = b"--bound\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%b\r\n"
    return arguments, b"".join(head % (len(part), part) for part in parts) + b"--bound--\r\n"


def stream(random: Random) -> Made:
    chunks = [file(random) + b"a=b" for _ in range(int(random.random() * 3))]

    async def generated() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return lambda: {"data": generated()}, b"".join(chunks)


def in_memory(random: Random) -> Made:
    data = file(random)
    return lambda: {"data": io.BytesIO(data)}, data


def on_disk(random: Random) -> Made:
    path = Path(__file__).with_name("__init__.py")
    return lambda: {"data": path.open("rb")}, path.read_bytes()


BODIES: Final[dict[str, Callable[[Random], Made]]] = {
    "none": none,
    "form as a dict": form_dict,
    "form as pairs": form_pairs,
    "FormData": form_data,
    "form as str": form_str,
    "form as bytes": form_bytes,
    "JSON": json_object,
    "str": plain_text,
    "bytes": octets,
    "multipart": multipart,
    "multipart, mixed": multipart_mixed,
    "stream": stream,
    "BytesIO": in_memory,
    "file": on_disk,
}
FORMS: Final = ("none", "form as a dict", "form as pairs", "FormData", "form as str", "form as bytes")


def make(seed: int, number: int, origin: URL, methods: Sequence[str]) -> Case:
    random = Random(seed * 1_000_000_007 + number)
    # In turn, so that a short run has them all.
    signature_method, placement = methods[number % len(methods)], PLACEMENTS[number // len(methods) % 3]
    kind = random.choice(FORMS if placement == "form" else list(BODIES))
    arguments, expected = BODIES[kind](random)
    verbs = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "purge")
    return Case(
        number,
        signature_method,
        placement,
        random.choice(HASHES[1:] if kind == "stream" else HASHES),
        random.random() < 0.2,
        random.choice(verbs if placement == "form" else (*verbs, "GET", "HEAD")),
        url(random, origin, signature_method == "PLAINTEXT"),
        kind,
        arguments,
        expected,
    )


# --- Where it goes, and what is said there ------------------------------------------------------------------------------

Arrived = Verdict | OAuth1Record


class Place:
    """A server, who signs for it, and what arrived there.

    :ivar arrived: in the order of arrival, until it is taken.
    """

    def __init__(self, url: URL, arrived: list[Any], client_id: str, client_secret: str, token: OAuth1Token) -> None:
        self.url, self.arrived = url, arrived
        self.secrets = (client_secret, token.oauth_token_secret)
        self._client_id, self._token = client_id, token
        self._auths: dict[tuple[object, ...], OAuth1Auth] = {}

    def auth(self, case: Case) -> OAuth1Auth:
        key = (case.signature_method, case.placement, case.body_hash, case.in_our_own_name)
        if key not in self._auths:
            name = case.signature_method
            client = OAuth1Client(
                self._client_id,
                self.secrets[0],
                signature_method=SignatureMethod.rsa(name, KEY) if name.startswith("RSA") else name,
                placement=case.placement,
                body_hash=case.body_hash,
            )
            token = None if case.in_our_own_name else self._token
            self._auths[key] = OAuth1Auth(client, token, origins=lambda url: True, insecure_http=True)
        return self._auths[key]

    def take(self, case: Case) -> Arrived:
        (found,) = (at for at, one in enumerate(self.arrived) if one.headers[NUMBER] == str(case.number))
        one: Arrived = self.arrived.pop(found)
        return one


def by_oauthlib(server: OauthlibServer) -> Place:
    return Place(
        server.url, server.verdicts, server.client_id, server.client_secret, OAuth1Token(server.token, server.token_secret)
    )


def by_authlib(server: AuthorizationServer) -> Place:
    server.oauth1.register("app", CLIENT_SECRET, rsa_public_key=KEY.public_key())
    token = OAuth1Token.from_dict(server.oauth1.issue("app"))
    return Place(server.oauth1.api(two_legged=True).url, server.oauth1.requests, "app", CLIENT_SECRET, token)


def judge(case: Case, place: Place) -> bool:
    """Whether others verified what arrived, or rather can't judge it; it is what was asked for, and signed, in any case."""
    arrived = place.take(case)
    said = arrived.verified if isinstance(arrived, Verdict) else arrived.verdict == "accepted"
    target, body = arrived.target.encode("utf-8", "surrogateescape"), arrived.body
    asked = case.url.raw_path_qs
    assert arrived.method == case.method.upper()
    if case.placement == "query":
        added = arrived.target.removeprefix(asked)
        assert added.startswith("&oauth_" if case.url.raw_query_string else "?oauth_")
    else:
        assert arrived.target == asked
    if case.placement == "form":
        assert case.expected is not None
        assert body.startswith(case.expected + b"&oauth_" if case.expected else b"oauth_")
    else:
        assert case.expected in (body, None)
    form = body if arrived.headers.get("Content-Type", "").partition(";")[0] == FORM else b""
    header = arrived.headers.get("Authorization", "")
    assert bool(header) is (case.placement == "header")
    secrets = (place.secrets[0], "" if case.in_our_own_name else place.secrets[1])
    assert verify(arrived.method, "http", arrived.headers["Host"], target, form, header, secrets, PUBLIC_KEY)
    sent = in_header(header) if header else {}
    hashes = [value for name, value in (*pairs(target.partition(b"?")[2]), *pairs(form)) if name == b"oauth_body_hash"]
    for given in (*hashes, *([sent["oauth_body_hash"].encode()] if "oauth_body_hash" in sent else ())):
        hash_name = "sha1" if case.signature_method == "PLAINTEXT" else case.signature_method.partition("-")[2]
        assert given == base64.b64encode(hashlib.new(hash_name, body).digest())
    if not said:
        assert (isinstance(arrived, Verdict) and said is None) or is_misread(target, form), arrived
    return bool(said)


# --- Running ------------------------------------------------------------------------------------------------------------


async def run(methods: Sequence[str], count: int, seed: int = 1) -> Counter[tuple[str, str, str, bool]]:
    """Send *count* requests, and yield how many there were by signature method, placement, kind of body and verdict.

    :raises ExceptionGroup: of AssertionErrors, each with the seed and the number of its case in its notes.
    """
    judged: Counter[tuple[str, str, str, bool]] = Counter()
    for start in range(0, count, CHUNK):
        judged += await _run(methods, range(start, min(start + CHUNK, count)), seed)
    return judged


async def once(methods: Sequence[str], seed: int, number: int) -> None:
    """Send one of them again."""
    await _run(methods, range(number, number + 1), seed)


async def _run(methods: Sequence[str], numbers: range, seed: int) -> Counter[tuple[str, str, str, bool]]:
    judged: Counter[tuple[str, str, str, bool]] = Counter()
    odd = {"token": "tok/en+=&~ü", "token_secret": TOKEN_SECRET, "client_secret": CLIENT_SECRET}
    with AuthorizationServer() as embedded:
        async with (
            OauthlibServer(rsa_public_key=PUBLIC_PEM, **odd) as strange,
            OauthlibServer(rsa_public_key=PUBLIC_PEM) as plain,
            ClientSession(connector=TCPConnector(limit=IN_FLIGHT)) as session,
        ):
            places = by_oauthlib(strange), by_oauthlib(plain), by_authlib(embedded)
            left = iter(numbers)

            async def work() -> None:
                for number in left:
                    try:
                        case, place = prepare(methods, seed, number, places)
                        await send(session, case, place)
                        judged[case.signature_method, case.placement, case.kind, judge(case, place)] += 1
                    except BaseException as error:
                        error.add_note(f"case {number} of seed {seed} of {', '.join(methods)}")
                        raise

            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(work())
    return judged


def prepare(methods: Sequence[str], seed: int, number: int, places: tuple[Place, Place, Place]) -> tuple[Case, Place]:
    strange, plain, embedded = places
    place = embedded if number % 11 == 0 else strange
    case = make(seed, number, place.url, methods)
    # oauthlib decodes a signature in a query or a form twice.
    if place is strange and case.signature_method == "PLAINTEXT" and case.placement != "header":
        return make(seed, number, plain.url, methods), plain
    return case, place


async def send(session: ClientSession, case: Case, place: Place) -> None:
    here = elsewhere(lambda url: None if url.raw_host == place.url.raw_host else place.url.port)
    arguments = case.arguments()
    arguments["headers"] = {**arguments.get("headers", {}), NUMBER: str(case.number)}
    middlewares = (place.auth(case), here)
    async with session.request(case.method, case.url, **arguments, middlewares=middlewares, allow_redirects=False):
        pass
