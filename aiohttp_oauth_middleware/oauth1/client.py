"""The client of the three legs: temporary credentials, the user's consent, token credentials."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlencode

from yarl import URL

from ..clock import Clock, SystemClock
from ..errors import (
    AccessDenied,
    CallbackError,
    ConfigurationError,
    OAuthError,
    StateMismatch,
    TokenResponseError,
    clean,
)
from ..protocol.client_auth import SecretSource
from ..protocol.endpoint import EndpointRequest, EndpointResponse
from ..urls import absolute_url, require_tls
from ..value import EMPTY, Secret, check_flags, check_number
from .responses import clock_offset, parse_credentials, problem_of
from .signature import SIGNATURE_METHODS, SignatureMethod, authorization_header
from .signer import Signer
from .token import OAuth1Token

if TYPE_CHECKING:
    from ..client.transport import SessionFactory

__all__ = ("BodyHash", "OAuth1Client", "Placement")

Placement = Literal["header", "form", "query"]
BodyHash = Literal["off", "on", "draft"]

TOKEN_BODY_LIMIT: Final = 64 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_OURS: Final = frozenset(
    {"oauth_consumer_key", "oauth_nonce", "oauth_signature_method", "oauth_timestamp", "oauth_token", "oauth_version"}
    | {"oauth_signature", "oauth_callback", "oauth_verifier", "oauth_session_handle", "oauth_body_hash"}
)


class OAuth1Client:
    """Who we are at one OAuth 1.0a server, and how we sign there.

    It holds no session and no loop: it may be made at import time, and used from several loops and threads.

    :param client_id: the consumer key.
    :param client_secret: the consumer secret, or a callable that yields it and is called at each use; empty where the method
        needs none.
    :param redirect_uri: where the user comes back to, ``oauth_callback``; ``"oob"`` where the verifier is shown for the user
        to copy.
    :param signature_method: ``"HMAC-SHA1"``, ``"HMAC-SHA256"``, ``"HMAC-SHA512"``, ``"PLAINTEXT"``, or a
        :class:`SignatureMethod`, such as ``SignatureMethod.rsa("RSA-SHA256", key)``.
    :param realm: sent, unsigned, with the protocol parameters in a header; some servers (NetSuite) want it.
    :param placement: where the protocol parameters stand (:rfc:`5849#section-3.5`): in the ``Authorization`` header, in the
        form that is the body (``"form"``; a request with any other body is refused), or in the URL's query, which logs show.
    :param body_hash: whether ``oauth_body_hash`` is sent: ``"off"``; ``"on"``, with every body but a form; or as the
        ``"draft"`` says, with every body but a form and what can't be read twice, and not with GET and HEAD.
    :param send_version: whether ``oauth_version`` is sent.
    :param revision_a: False for a server of OAuth Core 1.0, before revision A, which confirms no callback and gives no
        verifier. That is open to session fixation (advisory 2009-1): whoever starts a login can have another finish it.
    :param session_factory: makes the :class:`aiohttp.ClientSession` for token requests, as for :class:`Client`.
    :param timeout: seconds for one token request, from the connection to the last byte.
    :param insecure_http: allow token requests over plain http beyond this machine, in a closed network; not with ``PLAINTEXT``.
    :param token_body_limit: bytes of a token answer that are read.
    :param clock: where the time comes from.
    :raises ConfigurationError: where an argument can't work.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: SecretSource | None = "",
        *,
        redirect_uri: str = "oob",
        signature_method: str | SignatureMethod = "HMAC-SHA1",
        realm: str | None = None,
        placement: Placement = "header",
        body_hash: BodyHash = "off",
        send_version: bool = True,
        revision_a: bool = True,
        session_factory: SessionFactory | None = None,
        timeout: float = 30.0,
        insecure_http: bool = False,
        token_body_limit: int = TOKEN_BODY_LIMIT,
        clock: Clock | None = None,
    ) -> None:
        self.client_id = client_id
        try:
            secret = Secret.of(client_secret if client_secret is not None else "")
        finally:
            del client_secret  # a traceback that shows locals shall not show it
        if not isinstance(client_id, str) or not client_id or not client_id.isprintable():
            raise ConfigurationError("OAuth1Client: client_id must be a non-empty string of printable characters")
        if isinstance(signature_method, str):
            if signature_method not in SIGNATURE_METHODS:
                raise ConfigurationError(
                    f"OAuth1Client: signature_method must be one of {', '.join(SIGNATURE_METHODS)}, or a SignatureMethod; "
                    'those of RSA take a key: SignatureMethod.rsa("RSA-SHA256", key)'
                )
            signature_method = SIGNATURE_METHODS[signature_method]
        if not isinstance(signature_method, SignatureMethod):
            raise ConfigurationError("OAuth1Client: signature_method must be a name or a SignatureMethod")
        if placement not in get_args(Placement):
            raise ConfigurationError(f"OAuth1Client: placement must be one of {', '.join(get_args(Placement))}")
        if body_hash not in get_args(BodyHash):
            raise ConfigurationError(f"OAuth1Client: body_hash must be one of {', '.join(get_args(BodyHash))}")
        if realm is not None and (not isinstance(realm, str) or not realm.isprintable() or set('"\\') & set(realm)):
            raise ConfigurationError("OAuth1Client: realm must be a string of printable characters without quotes")
        if redirect_uri != "oob" and (not isinstance(redirect_uri, str) or not URL(redirect_uri).scheme):
            raise ConfigurationError("OAuth1Client: redirect_uri must be an absolute URL, or 'oob'")
        if session_factory is not None and not callable(session_factory):
            raise ConfigurationError("OAuth1Client: session_factory must be a callable that makes a new ClientSession")
        check_number("OAuth1Client: timeout", timeout, "seconds", above=0)
        check_number("OAuth1Client: token_body_limit", token_body_limit, "bytes", above=0)
        check_flags("OAuth1Client", send_version=send_version, revision_a=revision_a, insecure_http=insecure_http)
        self.redirect_uri = redirect_uri
        self.realm = realm
        self.placement: Placement = placement
        self.body_hash: BodyHash = body_hash
        self.revision_a = revision_a
        self.timeout = timeout
        self.signer = Signer(
            client_id, secret, signature_method, send_version=send_version, clock=clock if clock is not None else SystemClock()
        )
        self._session_factory = session_factory
        self._insecure_http = insecure_http
        self._token_body_limit = token_body_limit

    def __repr__(self) -> str:
        return f"<OAuth1Client {self.client_id!r}>"

    async def fetch_request_token(
        self, url: str | URL, *, method: Literal["POST", "GET"] = "POST", extra: Mapping[str, str] = EMPTY
    ) -> OAuth1Token:
        """Temporary credentials, the first leg; :rfc:`5849#section-2.1`.

        :param url: of the server's Temporary Credential Request endpoint.
        :param extra: more parameters, which the signature covers.
        :raises ErrorResponse: the server said no.
        :raises TokenUnavailable: it could not answer now.
        :raises TokenResponseError: its answer makes no sense, or does not confirm the callback.
        """
        protocol = [("oauth_callback", self.redirect_uri)] if self.revision_a else []
        token = await self._credentials("request token", url, method, extra, protocol, None)
        # RFC 5849 section 2.1: oauth_callback_confirmed "MUST be present and set to "true". The parameter is used to
        # differentiate from previous versions of the protocol."
        if self.revision_a and token.extra.get("oauth_callback_confirmed") != "true":
            raise TokenResponseError(
                "the answer of the request token endpoint doesn't confirm the callback (RFC 5849 section 2.1); "
                "OAuth1Client(revision_a=False) accepts that of a server of OAuth Core 1.0",
                rule="RFC 5849 section 2.1",
                status=200,
            )
        return token

    def create_authorization_url(
        self, url: str | URL, request_token: OAuth1Token | str, extra: Mapping[str, str] = EMPTY
    ) -> str:
        """Where to send the user, the second leg; :rfc:`5849#section-2.2`.

        :param url: of the server's Resource Owner Authorization endpoint.
        :param request_token: what :meth:`fetch_request_token` returned.
        :param extra: more parameters, such as ``force_login``.
        """
        name = "OAuth1Client.create_authorization_url: url"
        target = absolute_url(name, str(url))
        require_tls(name, target, self._insecure_http)
        token = request_token.oauth_token if isinstance(request_token, OAuth1Token) else request_token
        parameters = {"oauth_token": token}
        if not self.revision_a and self.redirect_uri != "oob":
            parameters["oauth_callback"] = self.redirect_uri
        if clash := [name for name in extra if name in (*parameters, "oauth_callback")]:
            raise ConfigurationError(f"OAuth1Client.create_authorization_url: extra must not hold {clash[0]}")
        text = str(url)
        return f"{text}{'&' if '?' in text else '?'}{urlencode({**parameters, **extra})}"

    def parse_authorization_response(self, callback: str | URL | Mapping[str, str], request_token: OAuth1Token | str) -> str:
        """The verifier that the user brought back; :rfc:`5849#section-2.2`. Empty where *revision_a* is False.

        :param callback: the URL that was called, or its parameters. Its scheme and host are not looked at: a proxy may have
            changed them.
        :param request_token: the one that is pending, of this user's session.
        :raises StateMismatch: it is about another request token.
        :raises AccessDenied: the user said no.
        :raises CallbackError: a parameter is missing or stands twice.
        """
        pending = request_token.oauth_token if isinstance(request_token, OAuth1Token) else request_token
        parameters = _parameters_of_callback(callback)
        del callback
        problem = clean(parameters.get("oauth_problem"), limit=100)
        denied = parameters.get("denied")  # X, formerly Twitter, names the token so
        token = parameters.get("oauth_token", denied)
        if token != pending and not (token is None and problem):
            del pending, parameters, denied, token
            raise StateMismatch(
                "the callback is not about the request token that is pending: perhaps it belongs to another login "
                "(RFC 5849 section 2.3)",
                rule="RFC 5849 section 2.3",
            )
        if denied is not None or problem:
            raise AccessDenied(f"the user was asked, and the callback says {problem or 'denied'}", error=problem or "denied")
        verifier = parameters.get("oauth_verifier", "")
        if self.revision_a and not verifier:
            raise CallbackError("the callback has no oauth_verifier (RFC 5849 section 2.2)", rule="RFC 5849 section 2.2")
        return verifier

    async def fetch_access_token(
        self,
        url: str | URL,
        request_token: OAuth1Token | None = None,
        oauth_verifier: str = "",
        *,
        method: Literal["POST", "GET"] = "POST",
        extra: Mapping[str, str] = EMPTY,
    ) -> OAuth1Token:
        """Token credentials, the third leg; :rfc:`5849#section-2.3`. A verifier is sent once.

        :param url: of the server's Token Request endpoint.
        :param request_token: what :meth:`fetch_request_token` returned; None where there is no second leg (xAuth).
        :param oauth_verifier: what :meth:`parse_authorization_response` returned, or what the user copied.
        :param extra: more parameters, which the signature covers: xAuth's ``x_auth_username``, ….
        :raises ErrorResponse: the server said no.
        :raises TokenUnavailable: it could not answer now.
        :raises TokenResponseError: its answer makes no sense.
        """
        if request_token is not None and self.revision_a and not oauth_verifier:
            raise ConfigurationError(
                "OAuth1Client.fetch_access_token: oauth_verifier is empty; a server of OAuth Core 1.0, which gives none, "
                "takes OAuth1Client(revision_a=False)"
            )
        protocol = [("oauth_verifier", oauth_verifier)] if oauth_verifier else []
        return await self._credentials("access token", url, method, extra, protocol, request_token)

    async def renew_access_token(
        self,
        url: str | URL,
        token: OAuth1Token,
        *,
        method: Literal["POST", "GET"] = "POST",
        extra: Mapping[str, str] = EMPTY,
    ) -> OAuth1Token:
        """A new token for one whose server knows the Session extension (OAuth Session 1.0, draft 1), such as Yahoo's was.

        The new token keeps the session handle of the old one where the answer brings none.

        :param token: with an ``oauth_session_handle``.
        """
        if not token.oauth_session_handle:
            raise ConfigurationError("OAuth1Client.renew_access_token: this token has no oauth_session_handle")
        protocol = [("oauth_session_handle", token.oauth_session_handle)]
        new = await self._credentials("access token", url, method, extra, protocol, token)
        if new.oauth_session_handle is None:
            new = new.replace(oauth_session_handle=token.oauth_session_handle, session_expires_at=token.session_expires_at)
        return new

    async def sign(self, method: str, url: str | URL, token: OAuth1Token | None = None, *, form: str | bytes = b"") -> str:
        """The value of the ``Authorization`` header for one request, for what is not aiohttp; :rfc:`5849#section-3`.

        :param url: as it will be sent, in encoded form.
        :param form: the body, where it is a form, as it will be sent.
        """
        target = url if isinstance(url, URL) else absolute_url("OAuth1Client.sign: url", url)
        self.signer.check_transport("OAuth1Client.sign: url", target)
        parameters = await self.signer.sign(method, target, target.host_port_subcomponent or "", token=token, form=form)
        return authorization_header(parameters, self.realm)

    async def _credentials(
        self,
        endpoint: str,
        url: str | URL,
        method: str,
        extra: Mapping[str, str],
        protocol: list[tuple[str, str]],
        token: OAuth1Token | None,
    ) -> OAuth1Token:
        """One signed request for credentials, and once more where only our clock was wrong."""
        name = f"the {endpoint} endpoint"
        target = absolute_url(f"OAuth1Client: the URL of {name}", str(url))
        # RFC 5849 section 2.1 and 2.3: "the client MUST use [...] TLS or SSL".
        require_tls(name, target, self._insecure_http)
        self.signer.check_transport(name, target)
        if method not in ("POST", "GET"):
            raise ConfigurationError(f"OAuth1Client: the method for {name} must be POST or GET")
        if method == "GET" and self.placement == "form":
            raise ConfigurationError('OAuth1Client: placement="form" needs POST')
        if clash := [parameter for parameter in extra if parameter in _OURS]:
            raise ConfigurationError(f"OAuth1Client: extra must not hold the protocol parameter {clash[0]}")
        clocks, clock = self.signer.clocks, self.signer.clock
        offset, learned = clocks.offset(target), False
        while True:
            request = await self._signed(str(url), method, extra, protocol, token, offset)
            sent_at = clock.time()
            response = await self._exchange(request, name)
            problem = problem_of(response)
            ahead = clock_offset(response.status, problem, response.headers.get("date"), now=sent_at + offset)
            if ahead is None or learned or not clocks.trusts(target, clock.monotonic()):
                break
            offset, learned = offset + ahead, True
        try:
            credentials = parse_credentials(response, endpoint=name, sent_at=sent_at, secrets=request.secrets())
        except OAuthError as error:
            if learned:
                clocks.distrust(target, clock.monotonic())
            raise error.bare() from error.__cause__
        if learned:
            clocks.learn(target, offset)
        return credentials

    async def _signed(
        self,
        url: str,
        method: str,
        extra: Mapping[str, str],
        protocol: list[tuple[str, str]],
        token: OAuth1Token | None,
        offset: float,
    ) -> EndpointRequest:
        protocol = [*protocol, *((name, value) for name, value in extra.items() if name.startswith("oauth_"))]
        others = [(name, value) for name, value in extra.items() if not name.startswith("oauth_")]
        if others and method == "GET":
            url, others = f"{url}{'&' if '?' in url else '?'}{urlencode(others)}", []
        request = EndpointRequest(url, [(name, Secret(value)) for name, value in others])
        request.method = method
        request.headers["Accept-Encoding"] = "identity"
        target = URL(url, encoded=True)
        parameters = await self.signer.sign(
            method,
            target,
            target.host_port_subcomponent or "",
            token=token,
            form=request.body(),
            protocol=protocol,
            offset=offset,
        )
        if self.placement == "header":
            request.headers["Authorization"] = Secret(authorization_header(parameters, self.realm))
        elif self.placement == "query":
            request.url = f"{url}{'&' if '?' in url else '?'}{'&'.join([f'{name}={value}' for name, value in parameters])}"
        else:
            request.form += [(name, Secret(unquote(value))) for name, value in parameters]
        if request.form:
            request.headers["Content-Type"] = _FORM
        request.ingredients += [Secret(value) for _, value in protocol if value != self.redirect_uri]
        request.ingredients += [Secret(unquote(parameters[-1][1]))]
        if token is not None:
            request.ingredients += [Secret(token.oauth_token), Secret(token.oauth_token_secret)]
            # A verifier and a session handle may be good for one request: whoever asks again gets the answer that is there.
            spent = (url, self.client_id, token.oauth_token, *(value for _, value in protocol))
            request.spends = hashlib.sha256("\0".join(spent).encode("utf-8", "surrogatepass")).hexdigest()
        return request

    async def _exchange(self, request: EndpointRequest, name: str) -> EndpointResponse:
        from ..client.transport import exchange  # at the first token request, not with the import

        return await exchange(
            request,
            name=name,
            timeout=self.timeout,
            body_limit=self._token_body_limit,
            session_factory=self._session_factory,
        )


def _parameters_of_callback(callback: str | URL | Mapping[str, str]) -> Mapping[str, str]:
    if isinstance(callback, Mapping):
        return {name: value for name, value in callback.items() if isinstance(value, str)}
    text = str(callback)
    pairs = parse_qsl(text.partition("?")[2].partition("#")[0] if "?" in text else text, keep_blank_values=True)
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        pairs.clear()
        parameters.clear()
        # RFC 5849 section 3.1: "Each parameter MUST NOT appear more than once per request".
        raise CallbackError("a parameter of the callback stands twice", rule="RFC 5849 section 3.1")
    return parameters
