"""The client of the three legs: temporary credentials, the user's consent, token credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, get_args
from urllib.parse import parse_qsl, urlencode

from yarl import URL

from ..clock import Clock, SystemClock
from ..errors import (
    ConfigurationError,
    TokenResponseError,
)
from ..protocol.client_auth import SecretSource
from ..protocol.endpoint import EndpointRequest, EndpointResponse
from ..urls import absolute_url, require_tls
from ..value import EMPTY, Secret, check_flags, check_number
from .callback import verifier_in
from .credentials import CredentialRequest, fetch_credentials, is_text
from .signature import SIGNATURE_METHODS, SignatureMethod, authorization_header, body_hash
from .signer import Signer
from .token import OAuth1Token

if TYPE_CHECKING:
    from ..client.transport import SessionFactory

__all__ = ("PROTOCOL_PARAMETERS", "BodyHash", "OAuth1Client", "Placement")

Placement = Literal["header", "form", "query"]
BodyHash = Literal["off", "on", "draft"]
Extra = Mapping[str, "str | Secret"]

_METHOD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
TOKEN_BODY_LIMIT: Final = 64 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
PROTOCOL_PARAMETERS: Final = frozenset(
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
        ``"draft"`` says, and where there is no body too, but not with a form, nor with GET and HEAD, nor with what can't be
        read before it is sent: a stream, a body that is compressed on the way.
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
        placement: Literal["header", "form", "query"] = "header",
        body_hash: Literal["off", "on", "draft"] = "off",
        send_version: bool = True,
        revision_a: bool = True,
        session_factory: SessionFactory | None = None,
        timeout: float = 30.0,
        insecure_http: bool = False,
        token_body_limit: int = TOKEN_BODY_LIMIT,
        clock: Clock | None = None,
    ) -> None:
        self.client_id = client_id
        missing = client_secret is None
        secret = _secret_of(client_secret)
        del client_secret  # a traceback that shows locals shall not show it
        if secret is None:
            raise ConfigurationError("OAuth1Client: client_secret must be a string of printable characters, or a callable")
        if not isinstance(client_id, str) or not client_id or not client_id.isprintable():
            raise ConfigurationError("OAuth1Client: client_id must be a non-empty string of printable characters")
        if isinstance(signature_method, str):
            if signature_method not in SIGNATURE_METHODS:
                del signature_method  # it may be the key
                raise ConfigurationError(
                    f"OAuth1Client: signature_method must be one of {', '.join(SIGNATURE_METHODS)}, or a SignatureMethod; "
                    'those of RSA take a key: SignatureMethod.rsa("RSA-SHA256", key)'
                )
            signature_method = SIGNATURE_METHODS[signature_method]
        if not isinstance(signature_method, SignatureMethod):
            del signature_method
            raise ConfigurationError("OAuth1Client: signature_method must be a name or a SignatureMethod")
        if missing and not signature_method.name.startswith("RSA-") and signature_method in SIGNATURE_METHODS.values():
            raise ConfigurationError(
                f'OAuth1Client: client_secret is None, and {signature_method.name} signs with it; give "" if it is empty'
            )
        if placement not in get_args(Placement):
            raise ConfigurationError(f"OAuth1Client: placement must be one of {', '.join(get_args(Placement))}")
        if body_hash not in get_args(BodyHash):
            raise ConfigurationError(f"OAuth1Client: body_hash must be one of {', '.join(get_args(BodyHash))}")
        if realm is not None and (not isinstance(realm, str) or not realm.isprintable() or set('"\\') & set(realm)):
            raise ConfigurationError("OAuth1Client: realm must be a string of printable characters without quotes")
        if redirect_uri != "oob" and not _is_absolute(redirect_uri):
            raise ConfigurationError("OAuth1Client: redirect_uri must be an absolute URL, or 'oob'")
        if session_factory is not None and not callable(session_factory):
            raise ConfigurationError("OAuth1Client: session_factory must be a callable that makes a new ClientSession")
        if clock is not None and (
            isinstance(clock, type) or not all(callable(getattr(clock, name, None)) for name in ("time", "monotonic", "sleep"))
        ):
            raise ConfigurationError("OAuth1Client: clock must have time(), monotonic() and sleep(seconds)")
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
        # The sessions are kept by factory, and one that compares by its fields may not be hashable.
        unhashable = session_factory is not None and type(session_factory).__hash__ is None
        self._session_factory = partial(session_factory) if session_factory is not None and unhashable else session_factory
        self._insecure_http = insecure_http
        self._token_body_limit = token_body_limit

    def __repr__(self) -> str:
        return f"<OAuth1Client {self.client_id!r}>"

    async def fetch_request_token(
        self, url: str | URL, *, method: Literal["POST", "GET"] = "POST", extra: Extra = EMPTY
    ) -> OAuth1Token:
        """Temporary credentials, the first leg; :rfc:`5849#section-2.1`.

        :param url: of the server's Temporary Credential Request endpoint.
        :param extra: more parameters, which the signature covers.
        :raises ErrorResponse: the server said no.
        :raises TokenUnavailable: it could not answer now.
        :raises TokenResponseError: its answer makes no sense, or does not confirm the callback.
        """
        try:
            more = _checked_extra("fetch_request_token", extra)
        finally:
            del extra  # a traceback that shows locals shall not show it
        protocol = [("oauth_callback", Secret(self.redirect_uri))] if self.revision_a else []
        token = await self._credentials("request token", url, method, more, protocol, None)
        # RFC 5849 section 2.1: oauth_callback_confirmed "MUST be present and set to "true". The parameter is used to
        # differentiate from previous versions of the protocol."
        confirmed = token.extra.get("oauth_callback_confirmed")
        if self.revision_a and confirmed != "true" and confirmed is not True:  # the latter in JSON
            del confirmed
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
        text = str(url)
        require_tls(name, absolute_url(name, text), self._insecure_http)
        try:
            parameters = {"oauth_token": _pending("create_authorization_url", request_token)}
        finally:
            del request_token  # a traceback that shows locals shall not show it
        if not self.revision_a and self.redirect_uri != "oob":
            parameters["oauth_callback"] = self.redirect_uri
        more = _checked_extra("create_authorization_url", extra)
        query = text.partition("?")[2]
        if "oauth_token" in dict(parse_qsl(query, keep_blank_values=True)):
            raise ConfigurationError(f"{name} must not hold an oauth_token: the request token's goes there")
        separator = "" if query.endswith("&") or text.endswith("?") else "&" if query else "?"
        return f"{text}{separator}{urlencode({**parameters, **{name: value.reveal() for name, value in more}})}"

    def parse_authorization_response(self, callback: str | URL | Mapping[str, str], request_token: OAuth1Token | str) -> str:
        """The verifier that the user brought back; :rfc:`5849#section-2.2`. Empty where *revision_a* is False.

        :param callback: the URL that was called, or its parameters. Its scheme and host are not looked at: a proxy may have
            changed them.
        :param request_token: the one that is pending, of this user's session.
        :raises StateMismatch: it is about another request token.
        :raises AccessDenied: the user said no.
        :raises CallbackError: a parameter is missing or stands twice.
        """
        try:
            pending = Secret(_pending("parse_authorization_response", request_token))
            return verifier_in(callback, pending, required=self.revision_a)
        finally:
            del request_token, callback  # a traceback that shows locals shall show neither

    async def fetch_access_token(
        self,
        url: str | URL,
        request_token: OAuth1Token | None = None,
        oauth_verifier: str = "",
        *,
        method: Literal["POST", "GET"] = "POST",
        extra: Extra = EMPTY,
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
        try:
            more = _checked_extra("fetch_access_token", extra)
            if not isinstance(oauth_verifier, str) or not oauth_verifier.isprintable():
                raise ConfigurationError(
                    "OAuth1Client.fetch_access_token: oauth_verifier must be a string of printable characters"
                )
            verifier = Secret(oauth_verifier)
            if request_token is not None:
                _check_token("fetch_access_token: request_token", request_token)
        except ConfigurationError:
            del request_token
            raise
        finally:
            del extra, oauth_verifier  # a traceback that shows locals shall not show these
        if request_token is not None and self.revision_a and not verifier:
            raise ConfigurationError(
                "OAuth1Client.fetch_access_token: oauth_verifier is empty; a server of OAuth Core 1.0, which gives none, "
                "takes OAuth1Client(revision_a=False)"
            )
        protocol = [("oauth_verifier", verifier)] if verifier else []
        return await self._credentials("access token", url, method, more, protocol, request_token)

    async def renew_access_token(
        self,
        url: str | URL,
        token: OAuth1Token,
        *,
        method: Literal["POST", "GET"] = "POST",
        extra: Extra = EMPTY,
    ) -> OAuth1Token:
        """A new token for one whose server knows the Session extension (OAuth Session 1.0, draft 1), such as Yahoo's was.

        The new token keeps the session handle of the old one, and what else was known of it, where the answer doesn't say.

        :param token: with an ``oauth_session_handle``.
        """
        try:
            more = _checked_extra("renew_access_token", extra)
            _check_token("renew_access_token: token", token)
        except ConfigurationError:
            del token
            raise
        finally:
            del extra  # a traceback that shows locals shall not show it
        if not token.oauth_session_handle:
            raise ConfigurationError("OAuth1Client.renew_access_token: this token has no oauth_session_handle")
        protocol = [("oauth_session_handle", Secret(token.oauth_session_handle))]
        new = await self._credentials("access token", url, method, more, protocol, token)
        if new.oauth_session_handle is None:
            new = new.replace(oauth_session_handle=token.oauth_session_handle, session_expires_at=token.session_expires_at)
        return new.replace(extra={**token.extra, **new.extra})

    async def sign(
        self,
        method: str,
        url: str | URL,
        token: OAuth1Token | None = None,
        *,
        form: str | bytes = b"",
        body: bytes = b"",
    ) -> str:
        """The value of the ``Authorization`` header for one request, for what is not aiohttp; :rfc:`5849#section-3`.

        :param url: as it will be sent, in encoded form.
        :param form: the body, where it is a form, as it will be sent.
        :param body: any other body, which only ``oauth_body_hash`` covers.
        """
        try:
            if not isinstance(method, str) or not re.fullmatch(_METHOD, method):
                raise ConfigurationError("OAuth1Client.sign: method must be the name of an HTTP method")
            if not isinstance(form, str | bytes) or not isinstance(body, bytes):
                raise ConfigurationError(
                    "OAuth1Client.sign: form and body must be bytes, as they will be sent; a form may be a string"
                )
            if token is not None:
                _check_token("sign: token", token)
            text = str(url)
            if text.startswith(("ws:", "wss:")):  # the handshake of a WebSocket is an HTTP request
                text = "http" + text[2:]
            target = absolute_url("OAuth1Client.sign: url", text)
            self.signer.check_transport("OAuth1Client.sign: url", target)
            hashed = [("oauth_body_hash", body_hash(body, self.signer.method.hash_name))] if self.hashes_body(method) else []
            parameters = await self.signer.sign(
                method,
                target,
                target.host_port_subcomponent or "",
                token=token,
                form=form,
                protocol=[] if form else hashed,
            )
            return authorization_header(parameters, self.realm)
        finally:
            del token, form, body  # a traceback that shows locals shall not show these

    def hashes_body(self, method: str) -> bool:
        """Whether a request whose body is no form has an ``oauth_body_hash``."""
        return self.body_hash == "on" or (self.body_hash == "draft" and method not in ("GET", "HEAD"))

    def check_endpoint(self, name: str, url: object) -> URL:
        """*url* as that of an endpoint that gives credentials; ConfigurationError, naming *name*, where it can't be one."""
        target = absolute_url(name, url)
        # RFC 5849 section 2.1 and 2.3: "the client MUST use [...] TLS or SSL".
        require_tls(name, target, self._insecure_http)
        self.signer.check_transport(name, target)
        return target

    async def _credentials(
        self,
        endpoint: str,
        url: str | URL,
        method: str,
        extra: list[tuple[str, Secret]],
        protocol: list[tuple[str, Secret]],
        token: OAuth1Token | None,
    ) -> OAuth1Token:
        name = f"the {endpoint} endpoint"
        self.check_endpoint(f"OAuth1Client: the URL of {name}", str(url))
        if method not in ("POST", "GET"):
            raise ConfigurationError(f"OAuth1Client: the method for {name} must be POST or GET")
        if method == "GET" and self.placement == "form":
            raise ConfigurationError('OAuth1Client: placement="form" needs POST')
        return await fetch_credentials(
            CredentialRequest(name, str(url), method, extra=extra, protocol=protocol, token=token),
            self._exchange,
            self.signer,
            client_id=self.client_id,
            placement=self.placement,
            realm=self.realm,
        )

    async def _exchange(self, request: EndpointRequest, name: str) -> EndpointResponse:
        from ..client.transport import exchange  # at the first token request, not with the import

        return await exchange(
            request,
            name=name,
            timeout=self.timeout,
            body_limit=self._token_body_limit,
            session_factory=self._session_factory,
        )


def _secret_of(source: object) -> Secret | None:
    """*source* as a Secret; None where it can't be one."""
    try:
        secret = Secret.of(source if source is not None else "")  # type: ignore[arg-type]
    except ConfigurationError:
        return None
    return secret if not secret.is_constant or secret.reveal().isprintable() else None


def _is_absolute(url: object) -> bool:
    try:
        return isinstance(url, str) and url.isprintable() and " " not in url and bool(URL(url).scheme)
    except ValueError:
        return False


def _check_token(argument: str, token: object) -> None:
    if not isinstance(token, OAuth1Token):
        del token  # a traceback that shows locals shall not show it
        raise ConfigurationError(f"OAuth1Client.{argument} must be an OAuth1Token; OAuth1Token.from_dict makes one of a dict")


def _pending(method: str, token: OAuth1Token | str) -> str:
    name = token.oauth_token if isinstance(token, OAuth1Token) else token
    if not isinstance(name, str) or not name:
        del token, name
        raise ConfigurationError(f"OAuth1Client.{method}: request_token must be an OAuth1Token, or its oauth_token")
    return name


def _checked_extra(method: str, extra: Extra) -> list[tuple[str, Secret]]:
    """*extra*, with nothing in it that prints."""
    pairs: list[tuple[str, Secret]] = []
    problem = "" if isinstance(extra, Mapping) else "must be a mapping of names of parameters to strings"
    for name, value in extra.items() if not problem else ():
        if not isinstance(name, str) or not name or not name.isprintable():
            problem = "must be a mapping of names of parameters to strings"
        elif name in PROTOCOL_PARAMETERS:
            problem = f"must not hold the protocol parameter {name}"
        elif not isinstance(value, str | Secret) or not is_text(value):
            problem = f"[{name!r}] must be a string or a Secret"
        else:
            pairs.append((name, Secret.of(value)))
    del extra
    name, value = "", None  # type: ignore[assignment]
    if problem:
        raise ConfigurationError(f"OAuth1Client.{method}: extra{'' if problem[0] == '[' else ' '}{problem}")
    return pairs
