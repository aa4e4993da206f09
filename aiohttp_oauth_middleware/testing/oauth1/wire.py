"""Requests as they arrived on the wire, and the OAuth 1 parameters in them. Nothing is decoded more often than once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

from aiohttp import web
from multidict import CIMultiDictProxy

__all__ = ("Kind", "OAuth1Record", "Problem", "Signed", "oauth1_record", "signed")

Kind = Literal["request_token", "access_token", "resource"]
Placement = Literal["header", "form", "query"]
Pairs = tuple[tuple[str, str], ...]

FORM: Final = "application/x-www-form-urlencoded"

# RFC 5849 section 3.5.1: "Each parameter's name is immediately followed by an "=" character (ASCII code 61), a """ character
# (ASCII code 34), the parameter value (MAY be empty), and another """ character". Both were encoded, so only unreserved
# characters and percent signs are left; a signature whose "+" was not encoded is refused, not guessed at.
_PARAMETER: Final = re.compile(r'[ \t]*([A-Za-z0-9._~%-]+)="([A-Za-z0-9._~%-]*)"[ \t]*(?:,|\Z)')
_REALM: Final = re.compile(r'[ \t]*realm="((?:[^"\\]|\\.)*)"[ \t]*(?:,|\Z)', re.IGNORECASE)
_SCHEME: Final = re.compile(r"OAuth(?:[ \t]+|\Z)", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)


class Problem(Exception):
    """A refusal in the words of the OAuth Problem Reporting extension.

    :param details: further ``oauth_*`` parameters of the answer.
    """

    def __init__(self, problem: str, status: int = 401, **details: str) -> None:
        super().__init__(problem)
        self.problem: Final = problem
        self.status: Final = status
        self.details: Final = details


@dataclass(slots=True, eq=False)
class OAuth1Record:
    """A request as it arrived, byte for byte, at an OAuth 1 endpoint or an application that is protected.

    It is written down on arrival, and completed before the answer is sent. Its repr shows no secret.
    """

    kind: Kind
    """``request_token``, ``access_token`` (renewals too) or ``resource``."""
    method: str
    scheme: str
    """``http`` or ``https``."""
    target: str = field(repr=False)
    """The request target, path and query, in the encoding of the wire."""
    headers: CIMultiDictProxy[str] = field(repr=False)
    """All headers, in their order; the ``Authorization`` header holds the signature."""
    body: bytes = field(repr=False)
    time: float
    """When it arrived, in epoch seconds of the server's clock, ``clock_offset`` not counted."""
    oauth: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All parameters that begin with ``oauth_``, decoded; empty where they could not be read."""
    placement: Placement | None = None
    """Where they were: ``header``, ``form`` or ``query``."""
    realm: str | None = None
    """The header's ``realm``."""
    base_string: str = field(default="", repr=False)
    """The signature base string of :rfc:`5849#section-3.4.1`, as the server made it of what arrived."""
    verdict: str = ""
    """``accepted``, ``missing`` (nothing was presented), or the ``oauth_problem``; empty where a fault was answered instead."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What one request presents."""

    record: OAuth1Record
    parameters: Pairs = field(repr=False)
    """All that is signed but ``oauth_signature``: of query, form and header, decoded once."""
    is_form: bool

    @property
    def base_string_uri(self) -> str:
        """:rfc:`5849#section-3.4.1.2`."""
        record = self.record
        # "The host and port values MUST match the content of the HTTP request "Host" header field. The port MUST be included
        # if it is not the default port for the scheme, and MUST be excluded if it is the default."
        host = record.headers.get("Host", "").lower().removesuffix(":443" if record.scheme == "https" else ":80")
        path = _ORIGIN.sub("", record.target).partition("?")[0]
        return f"{record.scheme}://{host}{path or '/'}"


async def oauth1_record(kind: Kind, request: web.Request, now: float) -> OAuth1Record:
    """The record of a request that has just arrived; its body is read to the end."""
    body = await request.read()
    return OAuth1Record(kind, request.method, request.scheme, request.raw_path, request.headers, body, now)


def signed(record: OAuth1Record) -> Signed:
    """Read what *record* presents, and complete it. Raises Problem where that can't be read, or is there twice."""
    header, record.realm = _header(record)
    query = _pairs(record.target.partition("?")[2])
    is_form = record.headers.get("Content-Type", "").partition(";")[0].strip().lower() == FORM
    # RFC 5849 section 3.4.1.3.1: the entity-body counts only if it is single-part, follows "the encoding requirements of the
    # "application/x-www-form-urlencoded" content-type", and the header says so.
    form = _pairs(record.body.decode("utf-8", "surrogateescape")) if is_form else ()
    sources: dict[Placement, Pairs] = {"header": header, "form": form, "query": query}
    found = {name: [pair for pair in pairs if pair[0].startswith("oauth_")] for name, pairs in sources.items()}
    # RFC 5849 section 3.2: "The server SHOULD return a 400 (Bad Request) status code when receiving a request with [...]
    # duplicated protocol parameters."
    present = Counter(name for pairs in found.values() for name, _ in pairs)
    if twice := sorted(name for name, times in present.items() if times > 1):
        raise Problem("parameter_rejected", 400, oauth_parameters_rejected="&".join(twice))
    # Section 3.5: "protocol parameters as well as any other parameter using the "oauth_" prefix SHALL be included in the
    # request using one and only one of the following locations".
    places = [name for name, pairs in found.items() if pairs]
    if len(places) > 1:
        elsewhere = sorted(name for name, _ in found[places[1]])
        raise Problem("parameter_rejected", 400, oauth_parameters_rejected="&".join(elsewhere))
    if places:
        record.placement = places[0]
        record.oauth = MappingProxyType(dict(found[places[0]]))
    # Section 3.4.1.3.1: "The "oauth_signature" parameter MUST be excluded from the signature base string if present."
    return Signed(record, tuple(pair for pair in (*query, *form, *header) if pair[0] != "oauth_signature"), is_form)


def _header(record: OAuth1Record) -> tuple[Pairs, str | None]:
    """The parameters of the ``Authorization: OAuth`` header, and its realm."""
    values = [value for value in record.headers.getall("Authorization", []) if _SCHEME.match(value)]
    if not values:
        return (), None
    if len(values) > 1:
        raise Problem("parameter_rejected", 400, oauth_problem_advice="There are two Authorization headers.")
    pairs, realms = [], []
    for name, value in _parts(_SCHEME.sub("", values[0], count=1)):
        if name is None:
            realms.append(value)
        else:
            pairs.append((unquote(name), unquote(value)))
    if len(realms) > 1:
        raise Problem("parameter_rejected", 400, oauth_parameters_rejected="realm")
    return tuple(pairs), realms[0] if realms else None


def _parts(text: str) -> Iterator[tuple[str | None, str]]:
    """Names and values as they were sent; the name of the realm is None."""
    position = 0
    while position < len(text):
        if match := _REALM.match(text, position):
            yield None, re.sub(r"\\(.)", r"\1", match[1])
        elif match := _PARAMETER.match(text, position):
            yield match[1], match[2]
        else:
            raise Problem("parameter_rejected", 400, oauth_problem_advice="The Authorization header is malformed.")
        position = match.end()


def _pairs(text: str) -> Pairs:
    """Of a query or a form, in which any character may be: what clients leave as it is was sent so."""
    return tuple(parse_qsl(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), keep_blank_values=True))
