"""OAuth 1: what a signature costs beside what it costs others, and what it adds to a whole request."""

from __future__ import annotations

import contextlib
import importlib
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import yarl
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse, hdrs
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from yarl import URL

from aiohttp_oauth_middleware import OAuth1Auth, OAuth1Client, OAuth1Token, SignatureMethod
from aiohttp_oauth_middleware.oauth1.signature import authorization_header

from .end_to_end import add_fine, fetching
from .measure import take_turns
from .report import Report, Result
from .wire import Wire

__all__ = ("measure_oauth1", "measure_oauth1_end_to_end")

ORIGIN: Final = "https://api.example.com"
FORM: Final = "application/x-www-form-urlencoded"
CLIENT: Final = ("consumer-key-0123456789", "consumer-secret-" + "x" * 24)
TOKEN: Final = ("4321-access-token-" + "y" * 32, "token-secret-" + "z" * 32)
# So many URLs that none is found again in a cache of somebody's; the caches are emptied all the same.
DISTINCT: Final = 512
ROUNDS: Final = 15
RSA_REQUESTS: Final = 64
RSA_ROUNDS: Final = 20
CHECKED_OF_RSA: Final = 4
RSA: Final = {"RSA-SHA1": hashes.SHA1(), "RSA-SHA256": hashes.SHA256()}

_THREE: Final = {
    "status": "Hello Ladies + Gentlemen, a signed OAuth request! So says the documentation",
    "include_entities": "true",
    "lang": "日本語",
}
_THIRTY: Final = [
    *((f"filter[{number}]", f"value {number}: {number * 7919}") for number in range(25)),
    ("検索", "東京 🚀"),
    ("odd", "&=%+"),
    ("tag", "red"),
    ("tag", "blue"),
    ("empty", ""),
]
_FORM: Final = {**_THREE, "possibly_sensitive": "false", "trim_user": "1"}


class _Request:
    def __init__(self, method: str, url: str, form: str = "") -> None:
        self.method, self.url, self.form = method, url, form

    def fields(self) -> dict[str, str]:
        return {"Content-Type": FORM} if self.form else {}


# What is given to a signer, made beforehand; and the signing of all of them, which returns the values of the header.
_Prepare = Callable[[_Request], Any]
_Sign = Callable[[list[Any]], Awaitable[list[Any]]]
_Candidate = tuple[_Prepare, _Sign]

CASES: Final[dict[str, Callable[[int], _Request]]] = {
    "get0": lambda number: _Request("GET", f"{ORIGIN}/1.1/statuses/{number}.json"),
    "get3": lambda number: _Request("GET", str(URL(f"{ORIGIN}/1.1/statuses/{number}.json").with_query(_THREE))),
    "get30": lambda number: _Request("GET", str(URL(f"{ORIGIN}/1.1/statuses/{number}.json").with_query(_THIRTY))),
    "post5": lambda number: _Request("POST", f"{ORIGIN}/1.1/statuses/{number}.json", urlencode(_FORM)),
}


async def measure_oauth1(report: Report) -> None:
    pem = _pem()
    for method in ("HMAC-SHA1", "HMAC-SHA256", "PLAINTEXT", *RSA):
        candidates = {"ours": _ours(SignatureMethod.rsa(method, pem) if method in RSA else method)}
        for name, peer in (("oauthlib", _oauthlib), ("authlib", _authlib), ("requests-oauthlib", _requests_oauthlib)):
            try:
                candidate = peer(method, pem)
            except ImportError:
                report.note(f"{name} is not installed")
            else:
                if candidate is not None:
                    candidates[name] = candidate
        for case in CASES:
            await _measure(report, method, case, candidates, pem)


async def measure_oauth1_end_to_end(report: Report, wire: Wire) -> None:
    async with contextlib.AsyncExitStack() as stack:

        async def session(*middlewares: ClientMiddlewareType) -> aiohttp.ClientSession:
            return await stack.enter_async_context(aiohttp.ClientSession(middlewares=middlewares))

        sessions = {
            "bare": await session(),
            "OAuth1Auth": await session(OAuth1Auth(OAuth1Client(*CLIENT), OAuth1Token(*TOKEN), origins=wire.origin)),
        }
        try:
            sessions["a middleware over authlib's ClientAuth"] = await session(_authlib_middleware())
        except ImportError:
            report.note("authlib is not installed")
        for title, query in (("no query", {}), ("3 parameters", _THREE)):
            url = str(URL(f"{wire.origin}/open").with_query(query))
            fetches = {name: fetching(each, url) for name, each in sessions.items()}
            await add_fine(report, f"OAuth 1 end to end on loopback, {title}", fetches, {"OAuth1Auth": 1.25})


def _authlib_middleware() -> ClientMiddlewareType:
    auth: Any = importlib.import_module("authlib.oauth1").ClientAuth(CLIENT[0], CLIENT[1], *TOKEN)

    async def sign(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        _, headers, _ = auth.prepare(request.method, str(request.url), {}, "")
        request.headers[hdrs.AUTHORIZATION] = headers["Authorization"]
        return await handler(request)

    return sign


async def _measure(report: Report, method: str, case: str, candidates: dict[str, _Candidate], pem: str) -> None:
    requests = [CASES[case](number) for number in range(DISTINCT)]
    blocks: dict[str, Callable[[], Awaitable[float]]] = {}
    for name, candidate in candidates.items():
        # Whoever parses the PEM at every request is long enough at one.
        some = requests if method not in RSA else requests[: RSA_REQUESTS if name == "ours" else 1]
        await _check(f"{name}, {method}, {case}", candidate, some[:CHECKED_OF_RSA] if method in RSA else some, method, pem)
        blocks[name] = _block(candidate, some)
    if method in RSA:
        blocks["raw"] = _block(await _raw(method, pem, requests), requests[:RSA_REQUESTS])
    rounds = await take_turns(blocks, RSA_ROUNDS if method in RSA else ROUNDS)
    section = f"OAuth 1, signing called directly: {method}"
    report.add(Result(section, f"{case}: ours", rounds.median("ours") / 1000, "µs"))
    if method in RSA:
        report.add(Result(section, f"{case}: ours, to the raw signature", rounds.ratio("ours", "raw"), "x", goal=1.1))
    goal = 12 if (method, case) == ("HMAC-SHA1", "get3") else None
    for name in candidates:
        if name != "ours":
            ratio = rounds.ratio(name, "ours")
            report.add(Result(section, f"{case}: {name}", ratio, "x ours", goal=goal, at_least=goal is not None))


def _block(candidate: _Candidate, requests: list[_Request]) -> Callable[[], Awaitable[float]]:
    prepare, sign = candidate

    async def block() -> float:
        made = [prepare(request) for request in requests]
        _clear_caches()
        began = time.thread_time_ns()
        await sign(made)
        return (time.thread_time_ns() - began) / len(requests)

    return block


def _clear_caches() -> None:
    yarl.cache_clear()
    for module in ("urllib.parse", "yarl._url", "yarl._parse"):
        for each in vars(importlib.import_module(module)).values():
            if hasattr(each, "cache_clear"):
                each.cache_clear()


async def _check(title: str, candidate: _Candidate, requests: list[_Request], method: str, pem: str) -> None:
    """Whether *candidate* signs as oauthlib does with the same nonce and timestamp: a wrong signature is soon made."""
    prepare, sign = candidate
    for request, header in zip(requests, await sign([prepare(request) for request in requests]), strict=True):
        told = _parameters(header)
        _, oracle = _oauthlib(method, pem, nonce=told["oauth_nonce"], timestamp=told["oauth_timestamp"])
        (expected,) = await oracle([request])
        if told != _parameters(expected):
            raise AssertionError(f"{title}: {request.url}: another signature than oauthlib's")


def _parameters(header: str | bytes) -> dict[str, str]:
    text = header if isinstance(header, str) else header.decode()
    return dict(re.findall(r'(\w+)="([^"]*)"', text))


def _as_it_is(request: _Request) -> _Request:
    return request


def _ours(method: str | SignatureMethod) -> _Candidate:
    signer = OAuth1Client(*CLIENT, signature_method=method).signer
    token = OAuth1Token(*TOKEN)

    def prepare(request: _Request) -> tuple[str, URL, bytes]:
        return request.method, URL(request.url, encoded=True), request.form.encode()

    async def sign(made: list[tuple[str, URL, bytes]]) -> list[str]:
        return [
            authorization_header(await signer.sign(method, url, "api.example.com", token=token, form=form))
            for method, url, form in made
        ]

    return prepare, sign


async def _raw(method: str, pem: str, requests: list[_Request]) -> _Candidate:
    """The signature alone, over base strings that are there already."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    texts: list[str] = []

    def keep(text: str, client_secret: str, token_secret: str) -> str:
        texts.append(text)
        return "unused"

    prepare_ours, sign_ours = _ours(SignatureMethod(method, keep))
    await sign_ours([prepare_ours(request) for request in requests])
    text_of = {request.url: text.encode() for request, text in zip(requests, texts, strict=True)}

    async def sign(made: list[bytes]) -> list[str]:
        for text in made:
            key.sign(text, padding.PKCS1v15(), RSA[method])
        return []

    return lambda request: text_of[request.url], sign


def _oauthlib(method: str, pem: str, **fixed: str) -> _Candidate:
    package: Any = importlib.import_module("oauthlib.oauth1")
    client = package.Client(*CLIENT, *TOKEN, signature_method=method, rsa_key=pem, **fixed)

    async def sign(made: list[_Request]) -> list[str]:
        return [
            client.sign(request.url, request.method, request.form or None, request.fields())[1]["Authorization"]
            for request in made
        ]

    return _as_it_is, sign


def _authlib(method: str, pem: str) -> _Candidate | None:
    client_auth: Any = importlib.import_module("authlib.oauth1").ClientAuth
    if method not in client_auth.SIGNATURE_METHODS:
        return None
    auth = client_auth(CLIENT[0], CLIENT[1], *TOKEN, signature_method=method, rsa_key=pem)

    async def sign(made: list[_Request]) -> list[str]:
        return [auth.sign(each.method, each.url, each.fields(), each.form)[1]["Authorization"] for each in made]

    return _as_it_is, sign


def _requests_oauthlib(method: str, pem: str) -> _Candidate:
    package: Any = importlib.import_module("requests_oauthlib")
    requests: Any = importlib.import_module("requests")
    auth = package.OAuth1(*CLIENT, *TOKEN, signature_method=method, rsa_key=pem)

    def prepare(request: _Request) -> Any:
        return requests.Request(request.method, request.url, data=request.form, headers=request.fields()).prepare()

    async def sign(made: list[Any]) -> list[bytes]:
        return [auth(request).headers["Authorization"] for request in made]

    return prepare, sign


def _pem() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
