"""What the test server and its APIs write down of each request. No repr shows a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from .ledger import digest
from .messages import Message, basic_credentials

__all__ = ("APIRequest", "EndpointRecord")

_SECRET: Final = frozenset({"code", "code_verifier", "token", "assertion", "client_assertion", "login_hint_token"})

_OAUTH1_NAME: Final = re.compile(rb"oauth_[a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A request to the token, revocation or introspection endpoint."""

    grant_type: str | None
    """The form's ``grant_type``; None at the other endpoints."""
    client_id: str | None
    """Who the client said it was, in the header or the form."""
    authentication: str | None
    """How it proved that: ``client_secret_basic``, ``client_secret_post``, ``none`` (only a client_id), or None (nothing)."""
    names: tuple[str, ...]
    """The names of the form's parameters as they were sent, those without a value too."""
    parameters: Mapping[str, tuple[str, ...]] = field(repr=False)
    """The values of the parameters that are no secrets."""
    digests: Mapping[str, str]
    """Of those that are, the SHA-256 in hexadecimal, to compare with :func:`digest` of a value that the test knows."""
    header_names: tuple[str, ...]
    """The names of the headers as they were sent."""
    time: float
    """When it arrived, in epoch seconds of the server's clock."""


@dataclass(slots=True, eq=False)
class APIRequest:
    """A request to an :class:`EchoAPI`, written down on arrival and completed before the answer is sent."""

    method: str
    path: str
    """The path without the query."""
    authorization: str | None = field(repr=False)
    """The ``Authorization`` header; it holds the token."""
    headers: Mapping[str, str] = field(repr=False)
    """All headers, by their names in lower case; of several by one name the last."""
    query: Mapping[str, str] = field(repr=False)
    cookies: Mapping[str, str] = field(repr=False)
    target: str = field(default="", repr=False)
    """Path and query in the encoding of the wire."""
    oauth1: frozenset[str] = frozenset()
    """The names that begin with ``oauth_``, wherever they are: in the target, a header or the body; empty is what a foreign
    server should see of OAuth 1."""
    length: int | None = None
    """The length of the body in bytes; None where it was not read to its end."""
    sha256: str | None = None
    """The SHA-256 of the body in hexadecimal; None where it was not read to its end."""
    status: int | None = None
    """The status of the answer; None as long as there is none."""


def api_record(request: web.Request) -> APIRequest:
    """The record of a request that has just arrived."""
    return APIRequest(
        method=request.method,
        path=request.path,
        authorization=request.headers.get("Authorization"),
        headers=MappingProxyType({name.lower(): value for name, value in request.headers.items()}),
        query=MappingProxyType(dict(request.query)),
        cookies=MappingProxyType(dict(request.cookies)),
        target=request.raw_path,
        oauth1=oauth1_names(
            b"\n".join((request.raw_path.encode("utf-8", "surrogateescape"), *map(b":".join, request.raw_headers)))
        ),
    )


def oauth1_names(data: bytes) -> frozenset[str]:
    """All that begins with ``oauth_`` in *data*."""
    return frozenset(name.decode() for name in _OAUTH1_NAME.findall(data))


async def parse_form(request: web.Request) -> list[tuple[str, str]] | None:
    """The parameters of the form in the body; None where the body is no form."""
    body = await request.read()
    if body and request.content_type != "application/x-www-form-urlencoded":
        return None
    try:
        return parse_qsl(body.decode(), keep_blank_values=True)
    except ValueError:
        return None


def message(request: web.Request, pairs: list[tuple[str, str]]) -> Message:
    """The request as the engine takes it."""
    # RFC 6749 section 3.2: "Parameters sent without a value MUST be treated as if they were omitted from the request."
    return Message(request.method, request.path, request.headers, tuple(pair for pair in pairs if pair[1]))


def endpoint_record(request: web.Request, pairs: list[tuple[str, str]], now: float) -> EndpointRecord:
    """The record of a request to the token, revocation or introspection endpoint."""
    form = dict(pairs)
    parameters: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        if not is_secret(name):
            parameters[name] = (*parameters.get(name, ()), value)
    basic = basic_credentials(request.headers)
    if basic:
        authentication: str | None = "client_secret_basic"
    elif "client_secret" in form:
        authentication = "client_secret_post"
    else:
        authentication = "none" if "client_id" in form else None
    return EndpointRecord(
        grant_type=form.get("grant_type"),
        client_id=basic[0][0] if basic else form.get("client_id"),
        authentication=authentication,
        names=tuple(name for name, _ in pairs),
        parameters=MappingProxyType(parameters),
        digests=MappingProxyType({name: digest(value) for name, value in pairs if is_secret(name)}),
        header_names=tuple(request.headers),
        time=now,
    )


def is_secret(name: str) -> bool:
    """Whether a form's parameter of that name holds a secret."""
    return name in _SECRET or name.endswith("_token") or "secret" in name or "password" in name
