"""The seam to authlib's server side: messages in, answers out, the :class:`Ledger` behind it.

authlib ships no types, so nothing of it leaves this module.
"""

# mypy: disable-error-code="misc"
# mypy: disallow-any-unimported=False

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from authlib.oauth2.rfc6749 import AuthorizationServer as AuthlibServer
from authlib.oauth2.rfc6749 import OAuth2Error, OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, ClientCredentialsGrant, RefreshTokenGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from .ledger import Code, Family, IssuedToken, Ledger, RefreshRecord, RegisteredClient, new_code, new_values
from .messages import Answer, Message, basic_credentials

__all__ = ("Engine", "check_metadata")

_SECRET_METHODS: Final = ["client_secret_basic", "client_secret_basic_raw", "client_secret_post"]
_ALL_METHODS: Final = [*_SECRET_METHODS, "none"]
# RFC 8707 section 2: "Its value MUST be an absolute URI [...]. The URI MUST NOT include a fragment component."
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[\x21\x22\x24-\x7e]+\Z")


class Engine:
    """Decides, by authlib's rules, what each endpoint answers. Not thread-safe: call it under the ledger's lock."""

    def __init__(self, ledger: Ledger, issuer: str) -> None:
        self._server = _Server(ledger, issuer)

    def token(self, message: Message) -> Answer:
        """The token endpoint; :rfc:`6749#section-3.2`."""
        return self._strict(message, self._server.create_token_response)

    def revoke(self, message: Message) -> Answer:
        """The revocation endpoint; :rfc:`7009#section-2`."""
        return self._strict(message, lambda m: self._server.create_endpoint_response("revocation", m))

    def introspect(self, message: Message) -> Answer:
        """The introspection endpoint; :rfc:`7662#section-2`."""
        return self._strict(message, lambda m: self._server.create_endpoint_response("introspection", m))

    def authorize(self, message: Message, user: str | None) -> Answer:
        """The authorization endpoint, where *user* consents at once; None refuses."""
        request = self._server.create_oauth2_request(message)
        try:
            grant = self._server.get_consent_grant(request, user)
        except OAuth2Error as error:
            answer: Answer = self._server.handle_error_response(request, error)
            return answer
        answer = self._server.create_authorization_response(request, grant_user=user, grant=grant)
        return answer

    def _strict(self, message: Message, decide: Callable[[Message], Answer]) -> Answer:
        names = [name for name, _ in message.parameters]
        basic = message.headers.get("Authorization", "")[:6].lower() == "basic "
        try:
            # RFC 6749 section 3.2: "Request and response parameters MUST NOT be included more than once." RFC 8707 section 2:
            # "Multiple resource parameters MAY be used".
            if any(names.count(name) > 1 for name in set(names) - {"resource", "audience"}):
                raise InvalidRequestError("A parameter was sent more than once.")
            # RFC 6749 section 2.3: "The client MUST NOT use more than one authentication method in each request."
            if basic and "client_secret" in names:
                raise InvalidRequestError("More than one authentication method was used.")
            if (
                basic
                and (client_id := dict(message.parameters).get("client_id"))
                and client_id not in (given[0] for given in basic_credentials(message.headers))
            ):
                raise InvalidRequestError("The form names another client than the Authorization header.")
        except InvalidRequestError as error:
            answer: Answer = self._server.handle_response(*error())
            return answer
        return decide(message)


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where *metadata* breaks :rfc:`8414#section-2`."""
    # Earlier releases of authlib let no plain http pass, not even on loopback.
    secure = {n: v.replace("http://", "https://", 1) if isinstance(v, str) else v for n, v in metadata.items()}
    AuthorizationServerMetadata(secure).validate()


class _Secretive(dict[str, Any]):
    """A token answer; authlib logs it at DEBUG, so its repr shows the names alone."""

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


class _Payload(OAuth2Payload):
    def __init__(self, parameters: tuple[tuple[str, str], ...]) -> None:
        self._data: dict[str, str] = {}
        self._datalist: dict[str, list[str]] = {}
        for name, value in parameters:
            self._data.setdefault(name, value)
            self._datalist.setdefault(name, []).append(value)

    @property
    def data(self) -> dict[str, str]:
        return self._data

    @property
    def datalist(self) -> dict[str, list[str]]:
        return self._datalist


class _Request(OAuth2Request):
    def __init__(self, message: Message) -> None:
        # authlib refuses plain http; that this server is on loopback was settled when it was bound.
        super().__init__(message.method, f"https://localhost{message.path}", headers=message.headers)
        self.payload = _Payload(message.parameters)

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data


class _Client:
    """A registered client, under the names of authlib's ClientMixin."""

    def __init__(self, registered: RegisteredClient) -> None:
        self.registered = registered

    def get_default_redirect_uri(self) -> str | None:
        return self.registered.redirect_uris[0] if len(self.registered.redirect_uris) == 1 else None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        return self.registered.allowed_scope(scope)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return not self.registered.redirect_uris or redirect_uri in self.registered.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        known = self.registered.client_secret
        return known is not None and hmac.compare_digest(known.encode(), client_secret.encode("utf-8", "surrogatepass"))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in self.registered.authentication

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and "authorization_code" in self.registered.grant_types

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.registered.grant_types


class _Credential:
    """A refresh or access token, under the names of authlib's TokenMixin."""

    def __init__(self, ledger: Ledger, record: RefreshRecord | IssuedToken) -> None:
        self.ledger = ledger
        self.record = record

    def check_client(self, client: _Client) -> bool:
        return self.record.family.client_id == client.registered.client_id

    def get_scope(self) -> str:
        # RFC 6749 section 6: "If a new refresh token is issued, the refresh token scope MUST be identical to that of the
        # refresh token included by the client in the request."
        return self.record.scope if isinstance(self.record, IssuedToken) else self.record.family.scope

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return not self.ledger.is_active(self.record)


class _Code:
    """An authorization code, under the names of authlib's AuthorizationCodeMixin and rfc7636."""

    def __init__(self, record: Code) -> None:
        self.record = record
        self.code_challenge = record.challenge
        self.code_challenge_method = "S256"

    def get_redirect_uri(self) -> str | None:
        return self.record.redirect_uri

    def get_scope(self) -> str:
        return self.record.family.scope


class _ClientCredentials(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _SECRET_METHODS

    def generate_token(self, *, scope: str | None, include_refresh_token: bool) -> _Secretive:
        wanted = self.request.client.registered.refresh_token_for_client_credentials
        return super().generate_token(scope=scope, include_refresh_token=wanted)  # type: ignore[no-any-return]


class _AuthorizationCode(AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _ALL_METHODS

    def generate_authorization_code(self) -> str:
        return new_code()

    def save_authorization_code(self, code: str, request: _Request) -> None:
        payload = request.payload
        family = Family(
            request.client.registered.client_id,
            request.user,
            request.scope or "",
            _resources(payload, ()),
            tuple(payload.datalist.get("audience", ())),
        )
        self.server.ledger.save_code(code, family, payload.redirect_uri, payload.data["code_challenge"])

    def query_authorization_code(self, code: str, client: _Client) -> _Code | None:
        record = self.server.ledger.present_code(code, client.registered.client_id)
        return None if record is None else _Code(record)

    def delete_authorization_code(self, authorization_code: _Code) -> None:
        authorization_code.record.used = True

    def authenticate_user(self, authorization_code: _Code) -> str | None:
        return authorization_code.record.family.user


class _RefreshToken(RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _ALL_METHODS

    @property
    def INCLUDE_NEW_REFRESH_TOKEN(self) -> bool:
        return bool(self.server.ledger.policy.rotation)

    def authenticate_refresh_token(self, refresh_token: str) -> _Credential | None:
        record = self.server.ledger.present_refresh(refresh_token, self.request.client.registered.client_id)
        return None if record is None else _Credential(self.server.ledger, record)

    def authenticate_user(self, refresh_token: _Credential) -> str:
        # authlib wants a user for every refresh token; one that came of client credentials has none.
        return refresh_token.record.family.user or refresh_token.record.family.client_id

    def revoke_old_credential(self, refresh_token: _Credential) -> None:
        self.server.ledger.supersede(refresh_token.record)


class _RequiredChallenge(CodeChallenge):
    # RFC 9700 section 2.1.1: clients "should use PKCE code challenge methods that do not expose the PKCE verifier in the
    # authorization request. [...] Currently, S256 is the only such method."
    SUPPORTED_CODE_CHALLENGE_METHOD: ClassVar = ["S256"]

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge") or data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("A 'code_challenge' with the 'code_challenge_method' S256 is required.")
        super().validate_code_challenge(grant, redirect_uri)


class _Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS: ClassVar = _ALL_METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> _Credential | None:
        return _find(self.server.ledger, token_string)

    def revoke_token(self, token: _Credential, request: _Request) -> None:
        self.server.ledger.revoke(token.record)


class _Introspection(IntrospectionEndpoint):
    CLIENT_AUTH_METHODS: ClassVar = _SECRET_METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> _Credential | None:
        return _find(self.server.ledger, token_string)

    def check_permission(self, token: _Credential, client: _Client, request: _Request) -> bool:
        return True

    def introspect_token(self, token: _Credential) -> dict[str, Any]:
        record, family = token.record, token.record.family
        payload: dict[str, Any] = {
            "client_id": family.client_id,
            "sub": family.user or family.client_id,
            "iss": self.server.issuer,
        }
        if scope := token.get_scope():
            payload["scope"] = scope
        if family.user is not None:
            payload["username"] = family.user
        if isinstance(record, IssuedToken):
            payload |= {"token_type": "Bearer", "iat": int(record.issued_at)}
            if record.expires_at is not None:
                payload["exp"] = int(record.expires_at)
            if audience := record.resource + record.audience:
                payload["aud"] = list(audience)
        return payload


class _Server(AuthlibServer):
    def __init__(self, ledger: Ledger, issuer: str) -> None:
        super().__init__()
        self.ledger = ledger
        self.issuer = issuer
        self.register_client_auth_method("client_secret_basic", _authenticate_basic)
        self.register_client_auth_method("client_secret_basic_raw", _authenticate_basic_raw)
        self.register_token_generator("default", self._generate)
        self.register_grant(_ClientCredentials)
        self.register_grant(_AuthorizationCode, [_RequiredChallenge(required=True)])
        self.register_grant(_RefreshToken)
        self.register_endpoint(_Revocation)
        self.register_endpoint(_Introspection)

    def query_client(self, client_id: str) -> _Client | None:
        registered = self.ledger.client(client_id)
        return None if registered is None else _Client(registered)

    def create_oauth2_request(self, request: Message | _Request) -> _Request:
        return request if isinstance(request, _Request) else _Request(request)

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Answer:
        answer = Answer(status, body or {}, tuple(headers))
        if answer.error == "unsupported_token_type":
            # RFC 7009 section 2.2.1 refers to RFC 6749 section 5.2: "The authorization server responds with an HTTP 400 (Bad
            # Request) status code"; authlib says 401.
            answer = replace(answer, status=400)
        if answer.error == "invalid_client":
            self.ledger.counts.authentication_failures += 1
        return answer

    def _generate(
        self,
        *,
        grant_type: str,
        client: _Client,
        user: str | None,
        scope: str | None,
        expires_in: float | None,
        include_refresh_token: bool,
    ) -> _Secretive:
        granted = client.get_allowed_scope(scope)
        if granted is None:
            raise OAuth2Error(error="invalid_scope", description="None of the requested scope is allowed.")
        access, refresh = new_values(include_refresh_token)
        lifetime = self.ledger.policy.lifetime
        answer = _Secretive(token_type="Bearer", access_token=access)
        if lifetime is not None:
            answer["expires_in"] = int(lifetime) if float(lifetime).is_integer() else lifetime
        if refresh is not None:
            answer["refresh_token"] = refresh
        if granted:
            answer["scope"] = granted
        return answer

    def save_token(self, token: _Secretive, request: _Request) -> None:
        payload, scope = request.payload, token.get("scope", "")
        asked = tuple(payload.datalist.get("audience", ()))
        if request.refresh_token is not None:
            family = request.refresh_token.record.family
        elif request.authorization_code is not None:
            family = request.authorization_code.record.family
        else:
            family = Family(request.client.registered.client_id, None, scope, _resources(payload, ()), asked)
        self.ledger.issue(
            family,
            (token["access_token"], token.get("refresh_token")),
            scope=scope,
            resource=_resources(payload, family.resource),
            audience=asked or family.audience,
            lifetime=token.get("expires_in"),
        )
        self.ledger.counts.tokens_issued += 1
        if request.refresh_token is not None:
            self.ledger.counts.refreshes += 1


def _find(ledger: Ledger, value: str) -> _Credential | None:
    record = ledger.find(value)
    return None if record is None else _Credential(ledger, record)


def _resources(payload: _Payload, granted: tuple[str, ...]) -> tuple[str, ...]:
    """The ``resource`` parameters, or what was granted where there are none."""
    asked = tuple(payload.datalist.get("resource", ()))
    # RFC 8707 section 2: "invalid_target: The requested resource is invalid, missing, unknown, or malformed."
    if not all(_ABSOLUTE_URI.match(uri) for uri in asked) or (granted and not set(asked) <= set(granted)):
        raise OAuth2Error(error="invalid_target", description="A resource is malformed, or was not granted.")
    return asked or granted


def _authenticate_basic(query_client: Callable[[str], _Client | None], request: _Request) -> _Client | None:
    # RFC 6749 section 2.3.1: both are "encoded using the "application/x-www-form-urlencoded" encoding algorithm", in which a
    # "+" is a space; authlib's own method leaves the "+" as it is.
    return _authenticate(query_client, basic_credentials(request.headers)[:1])


def _authenticate_basic_raw(query_client: Callable[[str], _Client | None], request: _Request) -> _Client | None:
    return _authenticate(query_client, basic_credentials(request.headers)[1:])


def _authenticate(query_client: Callable[[str], _Client | None], given: list[tuple[str, str]]) -> _Client | None:
    for client_id, secret in given:
        client = query_client(client_id)
        if client is not None and client.check_client_secret(secret):
            return client
    return None
