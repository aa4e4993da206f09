"""The request that asks for credentials, signed, and sent once more where our clock was wrong; :rfc:`5849#section-2`."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

from yarl import URL

from ..errors import ConfigurationError, ErrorResponse, OAuthError, TokenUnavailable
from ..protocol.endpoint import EndpointRequest, EndpointResponse
from ..value import Secret
from .responses import clock_offset, parse_credentials, problem_of
from .signature import authorization_header
from .signer import Signer
from .token import OAuth1Token

__all__ = ("CredentialRequest", "fetch_credentials", "is_text")

_FORM: Final = "application/x-www-form-urlencoded"


class CredentialRequest:
    """A request for credentials, before it is signed: each time that it is, it has a nonce and a timestamp of its own.

    :param name: of the endpoint, for messages.
    :param extra: the user's parameters.
    :param protocol: those of the leg: ``oauth_callback``, ``oauth_verifier``, ….
    """

    def __init__(
        self,
        name: str,
        url: str,
        method: str,
        *,
        extra: list[tuple[str, Secret]],
        protocol: list[tuple[str, Secret]],
        token: OAuth1Token | None,
    ) -> None:
        self.name, self.url, self.method = name, url, method
        self.extra, self.protocol, self.token = extra, protocol, token


async def fetch_credentials(
    wanted: CredentialRequest,
    exchange: Callable[[EndpointRequest, str], Awaitable[EndpointResponse]],
    signer: Signer,
    *,
    client_id: str,
    placement: str,
    realm: str | None,
) -> OAuth1Token:
    """Send it, and once more where only our clock was wrong."""
    target = URL(wanted.url, encoded=True)
    clocks, clock = signer.clocks, signer.clock
    offset, learned = clocks.offset(target), False
    while True:
        try:
            request = await _signed(wanted, signer, offset, client_id=client_id, placement=placement, realm=realm)
        except OAuthError as error:
            raise error.bare() from error.__cause__
        sent_at = clock.time()
        response = await exchange(request, wanted.name)
        ahead = clock_offset(response.status, problem_of(response), response.headers.get("date"), now=sent_at + offset)
        if ahead is None or learned or not clocks.trusts(target, clock.monotonic()):
            break
        offset, learned = offset + ahead, True
    try:
        credentials = parse_credentials(response, endpoint=wanted.name, sent_at=sent_at, secrets=request.secrets())
    except OAuthError as error:
        if learned and isinstance(error, ErrorResponse) and error.error not in ("", "timestamp_refused"):
            clocks.learn(target, offset)  # it has got past the clock
        elif learned and not isinstance(error, TokenUnavailable):
            clocks.distrust(target, clock.monotonic())
        raise error.bare() from error.__cause__
    if learned:
        clocks.learn(target, offset)
    return credentials


async def _signed(
    wanted: CredentialRequest, signer: Signer, offset: float, *, client_id: str, placement: str, realm: str | None
) -> EndpointRequest:
    url, method, token = wanted.url, wanted.method, wanted.token
    pairs = [*wanted.protocol, *await _read(wanted.extra)]
    # What has no value is left out: EndpointRequest would do so with what is in a form.
    ours = [(name, value.reveal()) for name, value in pairs if name.startswith("oauth_") and value]
    others = [(name, value) for name, value in pairs if not name.startswith("oauth_") and value]
    if others and method == "GET":
        query = urlencode([(name, value.reveal()) for name, value in others])
        url, others = _with_query(url, query), []
    request = EndpointRequest(url, others)
    request.method = method
    request.headers["Accept-Encoding"] = "identity"
    target = URL(url, encoded=True)
    parameters = await signer.sign(
        method,
        target,
        target.host_port_subcomponent or "",
        token=token,
        form=request.body(),
        protocol=ours,
        offset=offset,
    )
    if placement == "header":
        request.headers["Authorization"] = Secret(authorization_header(parameters, realm))
    elif placement == "query":
        request.url = _with_query(url, parameters)
    else:
        request.form += [(name, Secret(value)) for name, value in parse_qsl(parameters, keep_blank_values=True)]
    if request.form:
        request.headers["Content-Type"] = _FORM
    signature = parameters.rpartition("=")[2]
    told = [value.reveal() for name, value in pairs if name != "oauth_callback"]
    # A signature by PLAINTEXT is the two secrets.
    told += [unquote(signature), *map(unquote, unquote(signature).split("&")), signer.known_secret()]
    if token is not None:
        told += [token.oauth_token, token.oauth_token_secret]
    request.ingredients += [Secret(value) for value in told]
    # A verifier and a session handle may be good for one request: whoever asks again gets the answer that is there. Without
    # a token nothing is spent but the nonce, which no request has twice.
    spent = [url, client_id, *(value for _, value in ours)]
    spent.append(token.oauth_token if token is not None else dict(parse_qsl(parameters))["oauth_nonce"])
    request.spends = hashlib.sha256("\0".join(spent).encode("utf-8", "surrogatepass")).hexdigest()
    return request


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"


async def _read(pairs: Iterable[tuple[str, Secret]]) -> list[tuple[str, Secret]]:
    found = []
    for name, secret in pairs:
        try:
            value = Secret(await secret.read())
        except OAuthError:
            raise
        except Exception as error:
            raise TokenUnavailable(f"the request was not sent: extra[{name!r}] raised {type(error).__name__}") from error
        if not is_text(value.reveal()):
            raise ConfigurationError(f"OAuth1Client: extra[{name!r}] yielded what can't be sent")
        found.append((name, value))
    return found


def is_text(value: str | Secret) -> bool:
    """Whether *value* can be sent."""
    try:
        return isinstance(value, Secret) or bool(value.encode()) or not value
    except UnicodeEncodeError:
        return False
