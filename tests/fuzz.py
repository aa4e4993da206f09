"""A seeded generator of answers, headers and documents, and what must hold for each: ``python -m tests.fuzz [cases] [seed]``.

It knows the structure of what it breaks: it writes a good answer, spoils some members with values that have hurt other parsers,
and then, sometimes, spoils the bytes. Every case is reproducible from its seed and its number.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import quote

from multidict import MultiDict

from aiohttp_oauth_middleware.errors import (
    AccessDenied,
    CallbackError,
    DiscoveryError,
    ErrorResponse,
    OAuthError,
    TokenResponseError,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.oauth1.client import OAuth1Client
from aiohttp_oauth_middleware.oauth1.responses import clock_offset, parse_credentials, problem_in
from aiohttp_oauth_middleware.oauth1.token import OAuth1Token
from aiohttp_oauth_middleware.protocol.challenge import Challenge, parse_challenges
from aiohttp_oauth_middleware.protocol.endpoint import EndpointResponse
from aiohttp_oauth_middleware.protocol.metadata import ServerMetadata, parse_metadata
from aiohttp_oauth_middleware.protocol.quirks import Quirks
from aiohttp_oauth_middleware.protocol.token_response import parse_object, parse_token_response
from aiohttp_oauth_middleware.token import Token
from aiohttp_oauth_middleware.urls import absolute_url
from tests.oauth1 import at_random

__all__ = ("KINDS", "cases", "check_challenge", "check_metadata", "check_token_response", "resident", "run")

NOW: Final = 1_700_000_000.0
ISSUER: Final = "https://as.example/tenant"
SECRETS: Final = ("CANARY-refresh-token", "CANARY-client-secret")
MOST_MEMORY: Final = 2 * 1024 * 1024
PROCESSES: Final = 8

B64TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
VSCHAR: Final = re.compile(r"[\x21-\x7e]+\Z")
PRINTABLE: Final = re.compile(r"[\x20-\x7e…]*\Z")  # our own messages have the ellipsis

QUIRKS: Final = (
    *[Quirks()] * 6,
    Quirks(vschar_tokens=True),
    Quirks(default_lifetime=600, strict_scope=True),
    Quirks(token_path=("data", "user")),
    Quirks(renamed={"accessToken": "access_token", "x": "expires_in", "scope": "refresh_token"}, token_types=["mac", "7"]),
)

# Raw JSON, so that what json.dumps never writes is there too.
VALUES: Final = (
    *('"at"', '"mF_9.B5f-4.1JqM"', '"Bearer"', '"bearer"', "3600", '"3600"', '"r w"', "null", "true", "false", "0", "-1", "-0"),
    *("3600.9", "1e3", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "9" * 5000, "-" + "1" * 400, "0.1", "1E+2"),
    *(
        '""',
        '" "',
        '"\\u0000"',
        '"\\r\\nX: y"',
        '"a\\nb"',
        '"\\u007f"',
        '"\\ud800"',
        '"\\udc00x"',
        '"\\ud83d\\ude00"',
        '"\u00e9"',
    ),
    *('"a b"', '"a,b"', '"a|b"', '"="', '"a="', '"\\u2028"', '"\\uff21"', '"soon"', '"NaN"', '"1e400"', '"1_000"', '"0x10"'),
    *(
        "[]",
        "{}",
        "[[]]",
        '[{"a": []}]',
        '{"message": "x", "code": 5}',
        '{"type": "t"}',
        '["r", "w"]',
        "[null]",
        '[{"errorType": 5}]',
    ),
    *(
        "[" * 50 + "]" * 50,
        "[" * 5000,
        '{"a":' * 3000,
        '{"a": 1, "a": 2}',
        '{"access_token": "nested"}',
        '{"user": {"access_token": "u"}}',
    ),
    *(
        '"2023-11-14T22:14:20Z"',
        '"0001-01-01T00:00:00+23:59"',
        '"9999-12-31T23:59:59-23:59"',
        '"2023-02-30"',
        "1700003600",
        "1700003600000",
    ),
    *(
        '"CANARY-refresh-token"',
        '"x CANARY-client-secret y"',
        '"\\u001b[31m"',
        '"' + "x" * 300 + '"',
        '"invalid_grant"',
        '"server_error"',
    ),
    *(
        "1" * 21,
        "123456789012345678901234567890",
        '"١٢"',
        "00",
        "+1",
        ".5",
        "5.",
        "'a'",
        "undefined",
        "tru",
        '"\\x"',
        '"\t"',
        "",
    ),
)
NAMES: Final = (
    *("access_token", "token_type", "expires_in", "refresh_token", "scope", "error", "error_description", "error_uri"),
    *(
        "expires",
        "expires_at",
        "refresh_in",
        "refresh_on",
        "obtained_at",
        "errors",
        "error_reason",
        "id_token",
        "extra",
        "data",
    ),
    *("user", "accessToken", "x", "", "acc\\u0065ss_token", "\\ud800", "__class__", "self", "key_id", "\u00e9"),
)
TYPES: Final = (
    *["application/json"] * 6,
    *(
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/html",
        "application/json; charset=utf-7",
        "",
        "\x00",
        "a/b;" * 50,
    ),
)
STATUSES: Final = (
    *[200] * 10,
    201,
    204,
    299,
    100,
    199,
    301,
    302,
    307,
    400,
    400,
    401,
    403,
    404,
    408,
    418,
    429,
    500,
    502,
    503,
    599,
    999,
)
HEADERS: Final = (
    *[("X", "y")] * 6,
    *(
        ("Retry-After", value)
        for value in ("5", "99999999999999999999", "-1", "Tue, 14 Nov 2023 22:14:20 GMT", "x", "", "\u0663", "Z" * 500)
    ),
    *(("Content-Encoding", value) for value in ("gzip", "identity", "", "br, gzip")),
    *(
        ("Location", value)
        for value in (
            "https://evil.example/?CANARY-refresh-token",
            "/x",
            "http://[",
            "https://CANARY-client-secret.x/",
            "//",
            "\x00",
        )
    ),
)
PLAIN: Final = tuple(value.strip('"') for value in VALUES if "\\" not in value and len(value) < 400)


# --- Token answers ------------------------------------------------------------------------------------------------------


def token_response(random: Random) -> tuple[EndpointResponse, Quirks]:
    choice, chance = random.choice, random.random
    members = {
        "access_token": '"at"',
        "token_type": '"Bearer"',
        "expires_in": "3600",
        "refresh_token": '"rt"',
        "scope": '"r w"',
    }
    if chance() < 0.15:
        members = {"error": '"invalid_grant"', "error_description": '"x"'}
    for _ in range(int(chance() * 4)):
        members[choice(NAMES)] = choice(VALUES)
    if chance() < 0.3:
        members.pop(choice(NAMES), None)
    content_type = choice(TYPES)
    if content_type in ("application/x-www-form-urlencoded", "text/plain") and chance() < 0.8:
        text = "&".join(
            f"{name}={choice(PLAIN) if chance() < 0.3 else value.strip(chr(34))}" for name, value in members.items()
        )
    else:
        pairs = [f'"{name}": {value}' for name, value in members.items()]
        if chance() < 0.05:
            pairs.append(choice(pairs or ["1"]))
        text = "{" + ", ".join(pairs) + "}"
        if chance() < 0.05:
            text = choice(
                (
                    text + text,
                    "[" + text + "]",
                    text[: int(chance() * len(text))],
                    "\ufeff" + text,
                    " " + text + "\n",
                    text + "x",
                )
            )
    body = text.encode("utf-8", "surrogatepass")
    if chance() < 0.15:
        body = spoilt(body, random)
    name, value = choice(HEADERS)
    response = EndpointResponse(choice(STATUSES), {"Content-Type": content_type, name: value}, body)
    return response, choice(QUIRKS)


def check_token_response(response: EndpointResponse, quirks: Quirks) -> Token | OAuthError:
    """Parse, and look whether what comes out is a token that may be sent, or one of our errors without a secret."""
    try:
        token = parse_token_response(
            response, sent_at=NOW, scope="r w", refresh_token=SECRETS[0], quirks=quirks, secrets=SECRETS
        )
    except OAuthError as error:
        assert isinstance(error, TokenResponseError | TokenUnavailable | ErrorResponse), repr(error)
        shown = str(error)
        if isinstance(error, ErrorResponse):
            for text, limit in ((error.error, 100), (error.error_description or "", 200), (error.error_uri or "", 200)):
                assert len(text) <= limit
                shown += text
        assert PRINTABLE.match(shown), shown
        assert not any(secret in shown for secret in SECRETS), shown
        assert error.retry_after is None or 0 <= error.retry_after <= 300
        return error
    assert 200 <= response.status < 300
    assert (VSCHAR if quirks.vschar_tokens else B64TOKEN).match(token.access_token), token.access_token
    assert token.refresh_token is None or VSCHAR.match(token.refresh_token)
    assert token.token_type == "Bearer"
    assert token.obtained_at == NOW
    for moment in (token.expires_at, token.refresh_at):
        assert moment is None or moment <= NOW + 10 * 365 * 86_400
    assert token.refresh_at is None or token.refresh_at > NOW
    restored = Token.from_json(token.to_json())
    assert (restored.access_token, restored.refresh_token, restored.expires_at) == (
        token.access_token,
        token.refresh_token,
        token.expires_at,
    )
    return token


# --- Challenges ---------------------------------------------------------------------------------------------------------

PIECES: Final = (
    *(
        "Bearer",
        "bearer",
        "Basic",
        "DPoP",
        "Negotiate",
        "NTLM",
        "Digest",
        "x",
        " ",
        " ",
        ", ",
        ",",
        "\t",
        "=",
        "==",
        '"',
        '\\"',
        "\\",
    ),
    *(
        'realm="a, b"',
        'error="invalid_token"',
        "error=insufficient_scope",
        'scope="a b"',
        'resource_metadata="https://r.example/m"',
    ),
    *(
        'a="x\\"y"',
        "YII=",
        "abc/+==",
        'nonce="',
        "a = b",
        "a= b",
        "é",
        "\x00",
        "\r\n",
        "\ud800",
        "<html>",
        ";",
        "=" * 40,
        '"' * 3,
        "," * 30,
    ),
)


def challenge_fields(random: Random) -> list[str]:
    choice, chance = random.choice, random.random
    fields = []
    for _ in range(1 + int(chance() * 2)):
        text = ""
        for _ in range(int(chance() * 14)):
            text += choice(PIECES) + choice(("", " ", ", "))
        fields.append(text)
    if chance() < 0.001:
        fields.append(choice(PIECES) * 1500)
    return fields


def check_challenge(fields: list[str]) -> tuple[Challenge, ...]:
    found = parse_challenges(fields)
    assert len(found) <= 32
    whole = "\n".join(fields)
    for one in found:
        assert one.scheme == one.scheme.lower()
        assert one.scheme in whole.lower()
        assert one.token68 is None or (one.token68 in whole and not one.parameters)
        assert all(name == name.lower() and isinstance(value, str) for name, value in one.parameters.items())
    return found


# --- Metadata -----------------------------------------------------------------------------------------------------------

URLS: Final = (
    *(
        '"https://as.example/token"',
        '"http://127.0.0.1/x"',
        '"https://as.example:99999/"',
        '"https://a@b/"',
        '"https:///x"',
        '"//as.example/"',
    ),
    *(
        '"https://as.example/#"',
        '"javascript:x"',
        '"https://[::1"',
        '"https://[::1]:0/"',
        '"https://as.example\\\\@evil.example/"',
    ),
    *(
        '"https://\\u00e9.example/"',
        '"https://as.example/\\r\\n"',
        '"HTTPS://AS.EXAMPLE/"',
        '"https://."',
        '"https://%00/"',
        '"https://a:b:c/"',
    ),
)
METADATA_NAMES: Final = (
    *(
        "issuer",
        "token_endpoint",
        "authorization_endpoint",
        "revocation_endpoint",
        "introspection_endpoint",
        "extra",
        "jwks_uri",
    ),
    *(
        "token_endpoint_auth_methods_supported",
        "revocation_endpoint_auth_methods_supported",
        "scopes_supported",
        "",
        "self",
        "__init__",
    ),
)
LISTS: Final = ('["client_secret_basic"]', "[]", '["none", 5]', '"none"', "[null]", '{"a": 1}')


def metadata_document(random: Random) -> bytes:
    choice, chance = random.choice, random.random
    members = {"issuer": f'"{ISSUER}"', "token_endpoint": choice(URLS), "token_endpoint_auth_methods_supported": LISTS[0]}
    for _ in range(int(chance() * 4)):
        kind = chance()
        members[choice(METADATA_NAMES)] = choice(URLS if kind < 0.5 else LISTS if kind < 0.7 else VALUES)
    body = ("{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}").encode("utf-8", "surrogatepass")
    return spoilt(body, random) if chance() < 0.1 else body


def check_metadata(body: bytes) -> ServerMetadata | None:
    data = parse_object(EndpointResponse(200, {}, body))
    if data is None:
        return None
    try:
        metadata = parse_metadata(data, ISSUER)
    except DiscoveryError as error:
        assert PRINTABLE.match(str(error))
        return None
    assert metadata.issuer == ISSUER == data["issuer"]
    for name in ("token", "authorization", "revocation", "introspection"):
        if (url := getattr(metadata, f"{name}_endpoint")) is not None:
            assert absolute_url(name, url).scheme in ("http", "https")
    for name in ("token", "revocation", "introspection"):
        assert all(isinstance(method, str) for method in metadata.methods_supported(name))
    return metadata


# --- OAuth 1 ------------------------------------------------------------------------------------------------------------

OAUTH1_SECRETS: Final = ("CANARY-verifier", "CANARY secret&+ü", "CANARY-token")
ECHOES: Final = tuple(echo for one in OAUTH1_SECRETS for echo in (one, quote(one, safe="~"), quote(quote(one, safe="~"))))
OAUTH1_NAMES: Final = (
    *("oauth_token", "oauth_token_secret", "oauth_callback_confirmed", "oauth_session_handle", "oauth_expires_in"),
    *("oauth_authorization_expires_in", "expires_at", "session_expires_at", "user_id", "extra", "self", "", "oauth_verifier"),
    *("oauth_problem", "oauth_problem_advice", "oauth_parameters_absent", "oauth_acceptable_timestamps", "denied"),
)
PROBLEMS: Final = (
    *("timestamp_refused", "token_expired", "parameter_absent", "nonce_used", "user_refused", "%74oken_rejected", "", "\x00"),
    *ECHOES,
)
RANGES: Final = (
    *("1699996400-1700003600", "0-0", "9-1", "-", "1-", "-1", "1e9-2e9", "٣-٤", "9" * 15 + "-" + "9" * 15, "9" * 40 + "-1"),
    *("1700000000%2D1700007200", "²-³", "1_0-2_0", " 1-2", "+1-+2", "1-2-3", "0x1-0x2"),
)
DATES: Final = (
    *("Tue, 14 Nov 2023 23:13:20 GMT", "Tue, 14 Nov 2023 22:13:20 -0000", "Tue, 14 Nov 2023 22:13:20", "14 Nov 23 22:13 +9999"),
    *(
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Thu, 1 Jan 1970 0:0 GMT",
    ),
    *(
        "Tue, 99 Nov 2023 22:13:20 GMT",
        "Tue, 14 Nov 2023 22:13:20 +99999999999",
        "١٤ Nov 2023",
        "",
        "soon",
        "\x00",
        "1700000000",
    ),
    *(
        "Tuesday, 14-Nov-23 22:13:20 GMT",
        "Tue Nov 14 22:13:20 2023",
        "2023-11-14T22:13:20Z",
        "Tue, 14 Nov 20233 22:13:20 GMT",
        "," * 50,
    ),
)


def oauth1_challenge(random: Random) -> str:
    choice, chance = random.choice, random.random
    if chance() < 0.3:
        return " ".join(challenge_fields(random))
    parts = [f'oauth_problem="{choice(PROBLEMS)}"', f'oauth_acceptable_timestamps="{choice(RANGES)}"']
    parts += [f'{choice(OAUTH1_NAMES)}="{choice(ECHOES + PLAIN)}"' for _ in range(int(chance() * 3))]
    random.shuffle(parts)
    return f"{choice(('OAuth', 'oauth', 'Basic'))} {', '.join(parts[: 1 + int(chance() * 4)])}"


def oauth1_answer(random: Random) -> EndpointResponse:
    choice, chance = random.choice, random.random
    members = {
        "oauth_token": '"hh5s93j4hdidpola"',
        "oauth_token_secret": '"hdhd0244k9j7ao03"',
        "oauth_callback_confirmed": "true",
    }
    if chance() < 0.15:
        members = {"oauth_problem": f'"{choice(PROBLEMS)}"'}
    for _ in range(int(chance() * 4)):
        members[choice(OAUTH1_NAMES)] = choice(VALUES) if chance() < 0.8 else f'"{choice(ECHOES)}"'
    if chance() < 0.2:
        members.pop(choice(OAUTH1_NAMES), None)
    if chance() < 0.6:
        text = "&".join(f"{name}={value.strip(chr(34))}" for name, value in members.items())
    else:
        text = "{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}"
    body = text.encode("utf-8", "surrogatepass")
    name, value = choice(HEADERS) if chance() < 0.7 else ("WWW-Authenticate", oauth1_challenge(random))
    return EndpointResponse(
        choice(STATUSES), {"Content-Type": choice(TYPES), name: value}, spoilt(body, random) if chance() < 0.15 else body
    )


def check_oauth1_answer(response: EndpointResponse) -> OAuth1Token | OAuthError:
    """Parse, and look whether what comes out is a token that can sign, or one of our errors without a secret."""
    try:
        token = parse_credentials(response, endpoint="the endpoint", sent_at=NOW, secrets=OAUTH1_SECRETS)
    except OAuthError as error:
        assert isinstance(error, TokenResponseError | TokenUnavailable | ErrorResponse), repr(error)
        shown = str(error)
        if isinstance(error, ErrorResponse):
            assert len(error.error) <= 100
            assert len(error.error_description or "") <= 200
            shown += error.error + (error.error_description or "")
        assert PRINTABLE.match(shown), shown
        assert not any(echo in shown for echo in ECHOES), shown
        assert error.retry_after is None or 0 <= error.retry_after <= 300
        return error
    assert 200 <= response.status < 300
    assert token.oauth_token
    assert (token.oauth_token + token.oauth_token_secret + (token.oauth_session_handle or "")).isprintable()
    assert OAuth1Token.from_json(token.to_json()) == token
    return token


def oauth1_refusal(random: Random) -> tuple[int, list[str], str | None]:
    date: str | None = random.choice(DATES)
    if date and random.random() < 0.3:
        date = spoilt(date.encode(), random).decode("latin-1")
    fields = [oauth1_challenge(random) for _ in range(int(random.random() * 3))]
    return random.choice((400, 401, 401, 403)), fields, date if random.random() < 0.9 else None


def check_oauth1_refusal(status: int, fields: list[str], date: str | None) -> float | None:
    problem = problem_in(fields)
    assert all(name == name.lower() and isinstance(value, str) for name, value in problem.items())
    offset = clock_offset(status, problem, date, now=NOW)
    # RFC 5849 section 3.3: "The timestamp value MUST be a positive integer."
    assert offset is None or re.fullmatch("[1-9][0-9]{0,10}", str(int(NOW + offset)))
    return offset


def oauth1_callback(random: Random) -> str | Mapping[str, str]:
    choice, chance = random.choice, random.random
    pairs = [("oauth_token", OAUTH1_SECRETS[2]), ("oauth_verifier", OAUTH1_SECRETS[0])]
    for _ in range(int(chance() * 3)):
        name, value = choice(OAUTH1_NAMES), choice(PLAIN + PROBLEMS + ECHOES)
        if chance() < 0.7:
            pairs = [pair for pair in pairs if pair[0] != name]
        pairs.append((name, value))
    if chance() < 0.3:
        return MultiDict(pairs) if chance() < 0.7 else dict(pairs)
    text = "&".join(f"{name}={value}" for name, value in pairs)
    if chance() < 0.1:
        text = spoilt(text.encode("utf-8", "surrogatepass"), random).decode("utf-8", "replace")
    return (
        choice(("", "https://app.example/cb?", "/cb?x=1&", "https://app.example/cb?"))
        + text
        + choice(("", "#", "#oauth_token=x"))
    )


def check_oauth1_callback(callback: str | Mapping[str, str]) -> str | OAuthError:
    try:
        verifier = _OAUTH1_CLIENT.parse_authorization_response(callback, OAUTH1_SECRETS[2])
    except OAuthError as error:
        assert isinstance(error, CallbackError | AccessDenied), repr(error)
        shown = str(error) + getattr(error, "error", "")
        assert PRINTABLE.match(shown), shown
        assert OAUTH1_SECRETS[2] not in shown, shown
        return error
    assert verifier
    assert verifier.isprintable()
    return verifier


_OAUTH1_CLIENT: Final = OAuth1Client("app")


# --- Running ------------------------------------------------------------------------------------------------------------


def spoilt(body: bytes, random: Random) -> bytes:
    """*body* with some bytes changed, cut out or put in."""
    data = bytearray(body)
    for _ in range(1 + int(random.random() * 3)):
        at = int(random.random() * (len(data) + 1))
        kind = random.random()
        if kind < 0.4 and at < len(data):
            data[at] = int(random.random() * 256)
        elif kind < 0.7:
            del data[at : at + 1 + int(random.random() * 8)]
        else:
            data[at:at] = random.choice(
                (
                    b"\x00",
                    b"\xff",
                    b'"',
                    b"\\",
                    b"{",
                    b"}",
                    b"[",
                    b",",
                    b"\xef\xbb\xbf",
                    b"\xed\xa0\x80",
                    b"&",
                    b"%",
                    b"=",
                    b"\n",
                )
            )
    return bytes(data)


KINDS: Final[dict[str, Callable[[Random], object]]] = {
    "token answers": lambda random: check_token_response(*token_response(random)),
    "challenges": lambda random: check_challenge(challenge_fields(random)),
    "metadata documents": lambda random: check_metadata(metadata_document(random)),
    "OAuth 1 answers": lambda random: check_oauth1_answer(oauth1_answer(random)),
    "OAuth 1 refusals": lambda random: check_oauth1_refusal(*oauth1_refusal(random)),
    "OAuth 1 callbacks": lambda random: check_oauth1_callback(oauth1_callback(random)),
}


def cases() -> int:
    """How many are asked for; 50,000 unless the variable FUZZ_CASES says otherwise."""
    return int(os.environ.get("FUZZ_CASES", "50000"))


def run(kind: str, count: int, seed: int = 1) -> tuple[int, int]:
    """Check *count* cases, and yield how many were accepted and by how many bytes the memory grew meanwhile.

    :raises AssertionError: with the seed and the number of the case in its notes.
    """
    check = KINDS[kind]
    accepted = 0
    before = 0
    warm_up = min(count // 5, 20_000)
    for number in range(count):
        if number == warm_up:
            before = resident()
        try:
            outcome = check(Random(seed * 1_000_000_007 + number))
        except BaseException as error:
            error.add_note(f"case {number} of seed {seed} of the {kind}")
            raise
        accepted += bool(outcome) and not isinstance(outcome, OAuthError)
    return accepted, max(0, resident() - before) if before else 0


def resident() -> int:
    """The memory of this process that is not shared and in RAM, in bytes; 0 where the system doesn't tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main(arguments: list[str]) -> int:
    count = int(arguments[0]) if arguments else int(os.environ.get("FUZZ_CASES", "1000000"))
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    failed = 0
    for kind in KINDS:
        start = time.perf_counter()
        accepted, growth = run(kind, count, seed)
        failed |= growth >= MOST_MEMORY
        report(start, kind=kind, cases=count, accepted=accepted, growth=growth)
    for kind, methods, share in (
        ("requests", at_random.BY_SECRETS, count),
        ("requests by RSA", at_random.BY_RSA, count * 9 // 100),
    ):
        start = time.perf_counter()
        judged = asyncio.run(at_random.run(methods, share, seed))
        verified = sum(times for way, times in judged.items() if way[3])
        report(start, kind=f"OAuth 1 {kind}", cases=judged.total(), accepted=verified)
    start = time.perf_counter()
    command = [sys.executable, "-m", "tests.oauth1.nonces", str(PROCESSES), str(count)]
    made, repeated = map(int, subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split())
    report(start, kind="OAuth 1 nonces", cases=made, repeated=repeated)
    return failed


def report(start: float, **findings: object) -> None:
    print(json.dumps(findings | {"seconds": round(time.perf_counter() - start, 1)}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
