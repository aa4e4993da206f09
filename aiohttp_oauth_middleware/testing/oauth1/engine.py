"""The seam to authlib's OAuth 1 server side, and what authlib lacks: SHA-256 and SHA-512, body hashes, renewal, xAuth.

authlib ships no types, so nothing of it leaves this module.
"""

# mypy: disable-error-code="misc"
# mypy: disallow-any-unimported=False

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import ClassVar, Final, NoReturn

from authlib.oauth1.rfc5849.authorization_server import AuthorizationServer as AuthlibServer
from authlib.oauth1.rfc5849.errors import OAuth1Error
from authlib.oauth1.rfc5849.signature import normalize_parameters, plaintext_signature
from authlib.oauth1.rfc5849.util import escape

from ..ledger import Family, IssuedToken
from .ledger import OUT_OF_BAND, OAuth1Ledger, RegisteredClient, Temporary, TokenCredentials
from .wire import OAuth1Record, Problem, Signed, signed

__all__ = ("SIGNATURE_METHODS", "Engine")

# authlib's names of errors, in the words of the OAuth Problem Reporting extension.
_PROBLEMS: Final = {
    "invalid_client": "consumer_key_unknown",
    "invalid_nonce": "nonce_used",
    "invalid_request": "parameter_rejected",
    "invalid_signature": "signature_invalid",
    "invalid_token": "token_rejected",
    "missing_required_parameter": "parameter_absent",
    "unsupported_signature_method": "signature_method_rejected",
}


class Engine:
    """Decides, by authlib's rules, on one request after the other. Not thread-safe: call it under the ledger's lock.

    Its methods raise Problem where they refuse.
    """

    def __init__(self, ledger: OAuth1Ledger) -> None:
        self._ledger = ledger
        self._server = _Server(ledger)

    def request_token(self, record: OAuth1Record) -> dict[str, str]:
        """Temporary credentials; :rfc:`5849#section-2.1`."""
        request = self._read(record)
        if not self._ledger.policy.confirm_callbacks:
            # OAuth Core 1.0, before its revision A, named the callback in the authorization URL.
            request.oauth_params.setdefault("oauth_callback", OUT_OF_BAND)
        answer: dict[str, str] = self._server.create_temporary_credentials_response(request)
        if not self._ledger.policy.confirm_callbacks:
            del answer["oauth_callback_confirmed"]
        return answer

    def access_token(self, record: OAuth1Record) -> dict[str, str]:
        """Token credentials; :rfc:`5849#section-2.3`."""
        request = self._read(record)
        self._server.create_token_response(request)
        assert request.issued is not None
        self._ledger.counts.tokens_issued += 1
        return self._ledger.answer(request.issued)

    def resource(self, record: OAuth1Record, two_legged: bool) -> IssuedToken:
        """What the request may act as; :rfc:`5849#section-3.2`."""
        request = self._read(record)
        if request.token is None:
            if not two_legged:
                raise _absent("oauth_token")
            self._server.authenticate(request, None)
            return IssuedToken(Family(record.oauth["oauth_consumer_key"], None, ""), "", (), (), record.time, None)
        credentials = self._ledger.tokens(request.token, record.oauth["oauth_consumer_key"])
        self._server.authenticate(request, credentials)
        if credentials.issued.family.revoked or credentials.issued.revoked:
            raise Problem("token_revoked")
        if not self._ledger.shared.is_active(credentials.issued):
            raise Problem("token_expired")
        return credentials.issued

    def _read(self, record: OAuth1Record) -> _Request:
        """What is asked of every request before authlib looks at it."""
        counts, policy = self._ledger.counts, self._ledger.policy
        request = _Request(signed(record))
        given = record.oauth
        counts.parameters.update(given.keys())
        if nonce := given.get("oauth_nonce"):
            counts.nonces[nonce] += 1
        # RFC 5849 section 2.1: "an authenticated [...] HTTP "POST" request [...] (unless the server advertises another HTTP
        # request method for the client to use)".
        if record.kind != "resource" and record.method not in policy.token_methods:
            raise Problem("method_not_allowed", 405)
        if not given and record.kind == "resource":
            raise Problem("missing")
        for name in ("oauth_consumer_key", "oauth_signature_method", "oauth_signature"):
            if not given.get(name):
                raise _absent(name)
        # RFC 5849 section 3.1: "oauth_version: OPTIONAL. If present, MUST be set to "1.0"."
        if given.get("oauth_version", "1.0") != "1.0":
            raise Problem("version_rejected", 400, oauth_acceptable_versions="1.0-1.0")
        # Section 3.1: "The parameter MAY be omitted if the request is not associated with a resource owner"; an empty one is
        # what providers are known to refuse.
        if given.get("oauth_token") == "":
            raise _rejected("oauth_token")
        if policy.realm is not None and record.placement == "header" and record.realm != policy.realm:
            raise _absent("realm") if record.realm is None else _rejected("realm")
        self._check_body_hash(request)
        return request

    def _check_body_hash(self, request: _Request) -> None:
        """By the draft "OAuth Request Body Hash 1.0", section 4.1.1."""
        is_form, given = request.signed.is_form, request.oauth_params.get("oauth_body_hash")
        if given is None:
            if self._ledger.policy.require_body_hash and request.signed.record.body and not is_form:
                raise _absent("oauth_body_hash")
            return
        # "OAuth Consumers MUST NOT include an oauth_body_hash parameter on requests with form-encoded request bodies."
        if is_form:
            raise _rejected("oauth_body_hash")
        # The draft knows SHA-1 alone; of the clients that sign by a later hash, some use that, and some do as the draft says.
        hashes = {hashlib.sha1, _HASHES[request.signature_method]} if request.signature_method in _HASHES else {hashlib.sha1}
        if given not in {_base64(hashed(request.signed.record.body).digest()) for hashed in hashes}:
            raise _rejected("oauth_body_hash")


class _Request:
    """A request, under the names of authlib's OAuth1Request, which raises on what many clients send unescaped."""

    def __init__(self, signed: Signed) -> None:
        self.signed = signed
        self.oauth_params = dict(signed.record.oauth)
        # The only one that authlib takes at the first leg; the true one was looked at before.
        self.method = "POST"
        self.client: _Client | None = None
        self.credential: _Credentials | None = None
        self.issued: TokenCredentials | None = None
        self.client_id = self.oauth_params.get("oauth_consumer_key")
        self.token = self.oauth_params.get("oauth_token")
        self.signature = self.oauth_params.get("oauth_signature", "")
        self.signature_method = self.oauth_params.get("oauth_signature_method", "")
        # RFC 5849 section 3.4.1.1, by authlib's normalisation and encoding.
        uri = signed.base_string_uri.encode("utf-8", "surrogateescape")
        parts = (signed.record.method.upper(), uri, normalize_parameters(signed.parameters))
        self.base_string = signed.record.base_string = "&".join(escape(part) for part in parts)

    @property
    def redirect_uri(self) -> str | None:
        return self.oauth_params.get("oauth_callback")

    @property
    def secrets(self) -> tuple[str, str]:
        """Of the client and of the token; empty where there is none."""
        client = self.client and self.client.registered.client_secret
        return client or "", self.credential.record.secret if self.credential else ""


class _Client:
    """A registered client, under the names of authlib's ClientMixin."""

    def __init__(self, registered: RegisteredClient) -> None:
        self.registered = registered


class _Credentials:
    """Temporary or token credentials, under the names of authlib's mixins."""

    def __init__(self, record: Temporary | TokenCredentials) -> None:
        self.record = record

    def get_oauth_token(self) -> str:
        return self.record.token

    def get_oauth_token_secret(self) -> str:
        return self.record.secret

    def check_verifier(self, verifier: str) -> bool:
        assert isinstance(self.record, Temporary)
        if not hmac.compare_digest(verifier.encode("utf-8", "surrogatepass"), self.record.verifier.encode()):
            raise Problem("verifier_invalid")
        return True


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


_HASHES: Final = {
    f"{kind}-{name}": hashed
    for kind in ("HMAC", "RSA")
    for name, hashed in (("SHA1", hashlib.sha1), ("SHA256", hashlib.sha256), ("SHA512", hashlib.sha512))
}


def _verify_plaintext(request: _Request) -> bool:
    return _same(plaintext_signature(*request.secrets), request.signature)


def _verify_hmac(request: _Request) -> bool:
    # RFC 5849 section 3.4.2: the key is both secrets encoded, with an "&" between that "MUST be included even when either
    # secret is empty", which is just what PLAINTEXT sends.
    key = plaintext_signature(*request.secrets)
    made = hmac.new(key.encode(), request.base_string.encode(), _HASHES[request.signature_method])
    return _same(_base64(made.digest()), request.signature)


def _verify_rsa(request: _Request) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    hashed = {"RSA-SHA1": hashes.SHA1(), "RSA-SHA256": hashes.SHA256(), "RSA-SHA512": hashes.SHA512()}
    assert request.client is not None
    key = request.client.registered.rsa_public_key
    assert key is not None
    try:
        signature = base64.b64decode(request.signature, validate=True)
        key.verify(signature, request.base_string.encode(), padding.PKCS1v15(), hashed[request.signature_method])
    except (InvalidSignature, ValueError):
        return False
    return True


def _same(made: str, given: str) -> bool:
    return hmac.compare_digest(made.encode(), given.encode("utf-8", "surrogatepass"))


_VERIFY: Final[Mapping[str, Callable[[_Request], bool]]] = {
    name: _verify_hmac if name.startswith("HMAC") else _verify_rsa for name in _HASHES
} | {"PLAINTEXT": _verify_plaintext}

SIGNATURE_METHODS: Final = tuple(_VERIFY)


class _Server(AuthlibServer):
    SIGNATURE_METHODS: ClassVar = _VERIFY

    def __init__(self, ledger: OAuth1Ledger) -> None:
        self.ledger = ledger

    @property
    def SUPPORTED_SIGNATURE_METHODS(self) -> Collection[str]:
        return self.ledger.policy.signature_methods

    def create_oauth1_request(self, request: _Request) -> _Request:
        return request

    def handle_response(self, status: int, payload: Iterable[tuple[str, str | bool]], headers: object) -> dict[str, str]:
        return {name: value if isinstance(value, str) else "true" for name, value in payload}

    def handle_error_response(self, error: OAuth1Error) -> NoReturn:
        problem = _PROBLEMS[error.error]
        names = "&".join(re.findall(r"oauth_\w+", error.description or ""))
        details = {f"oauth_{problem.replace('parameter', 'parameters')}": names} if problem.startswith("parameter") else {}
        raise Problem(problem, error.status_code, **details)

    def get_client_by_id(self, client_id: str) -> _Client | None:
        registered = self.ledger.client(client_id)
        return None if registered is None else _Client(registered)

    def authenticate(self, request: _Request, record: TokenCredentials | Temporary | None) -> None:
        """By the client's secret and that of *record*, with all that authlib asks of a request."""
        request.credential = None if record is None else _Credentials(record)
        try:
            if self._get_client(request) is None:
                raise Problem("consumer_key_unknown")
            self.validate_timestamp_and_nonce(request)
            self.validate_oauth_signature(request)
        except OAuth1Error as error:
            self.handle_error_response(error)

    def validate_timestamp_and_nonce(self, request: _Request) -> None:
        given = request.oauth_params
        timestamp, nonce = given.get("oauth_timestamp"), given.get("oauth_nonce")
        # RFC 5849 section 3.1: "The parameter MAY be omitted when using the "PLAINTEXT" signature method."
        if request.signature_method == "PLAINTEXT" and timestamp is None and nonce is None:
            return
        if not timestamp or not nonce:
            raise _absent("oauth_nonce" if timestamp else "oauth_timestamp")
        # Section 3.3: "The timestamp value MUST be a positive integer."
        if not re.fullmatch(r"[1-9][0-9]{0,14}", timestamp):
            raise _rejected("oauth_timestamp")
        now, tolerance = self.ledger.now(), self.ledger.policy.clock_tolerance
        if abs(now - int(timestamp)) > tolerance:
            acceptable = f"{now - tolerance:.0f}-{now + tolerance:.0f}"
            raise Problem("timestamp_refused", oauth_acceptable_timestamps=acceptable)
        if _nonce(request) in self.ledger.nonces:
            raise Problem("nonce_used")

    def validate_oauth_signature(self, request: _Request) -> None:
        assert request.client is not None
        registered = request.client.registered
        wanted = registered.rsa_public_key if request.signature_method.startswith("RSA") else registered.client_secret
        if request.signature_method in _VERIFY and wanted is None:
            raise Problem("signature_method_rejected", 400)
        super().validate_oauth_signature(request)
        if request.oauth_params.get("oauth_nonce"):
            self.ledger.nonces.add(_nonce(request))

    # Temporary credentials

    def create_temporary_credential(self, request: _Request) -> _Credentials:
        assert request.client is not None
        registered, callback = request.client.registered, request.oauth_params["oauth_callback"]
        if registered.callbacks and callback not in (*registered.callbacks, OUT_OF_BAND):
            raise _rejected("oauth_callback")
        return _Credentials(self.ledger.begin(registered.client_id, callback))

    def get_temporary_credential(self, request: _Request) -> _Credentials | None:
        temporary = self.ledger.temporary(request.token or "")
        if temporary is None or temporary.client_id != request.client_id:
            return None
        if temporary.used:
            raise Problem("token_used")
        if temporary.user is None:
            raise Problem("permission_denied" if temporary.denied else "permission_unknown")
        return _Credentials(temporary)

    def delete_temporary_credential(self, request: _Request) -> None:
        # authlib spends them on a refusal too, and a client whose clock is wrong could not try again.
        if request.issued is not None and request.credential is not None:
            assert isinstance(request.credential.record, Temporary)
            request.credential.record.used = True

    # Token credentials

    def create_token_response(self, request: _Request) -> None:
        if "oauth_session_handle" in request.oauth_params:
            self._renew(request)
        elif "x_auth_mode" in dict(request.signed.parameters):
            self._xauth(request)
        elif not self.ledger.policy.confirm_callbacks and "oauth_verifier" not in request.oauth_params:
            self._redeem_without_verifier(request)
        else:
            super().create_token_response(request)

    def create_token_credential(self, request: _Request) -> _Credentials:
        assert request.credential is not None
        temporary = request.credential.record
        assert isinstance(temporary, Temporary)
        request.issued = self.ledger.issue(Family(temporary.client_id, temporary.user, ""))
        return _Credentials(request.issued)

    def _redeem_without_verifier(self, request: _Request) -> None:
        """As OAuth Core 1.0 did, before its revision A."""
        found = self.get_temporary_credential(request)
        if found is None:
            raise Problem("token_rejected")
        self.authenticate(request, found.record)
        self.create_token_credential(request)
        self.delete_temporary_credential(request)

    def _renew(self, request: _Request) -> None:
        """By the OAuth Session extension: any token of the session, and its handle."""
        credentials = self.ledger.tokens(request.token or "", request.client_id or "")
        self.authenticate(request, credentials)
        family = credentials.issued.family
        if self.ledger.session(request.oauth_params["oauth_session_handle"]) is not family:
            raise _rejected("oauth_session_handle")
        if family.revoked:
            raise Problem("token_revoked")
        credentials.issued.revoked = True
        request.issued = self.ledger.issue(family)
        self.ledger.counts.renewals += 1

    def _xauth(self, request: _Request) -> None:
        """The user's name and password, in parameters that are signed like any other."""
        given = dict(request.signed.parameters)
        self.authenticate(request, None)
        user, password = given.get("x_auth_username", ""), given.get("x_auth_password", "")
        known = self.ledger.policy.passwords.get(user)
        if given["x_auth_mode"] != "client_auth" or known is None or not _same(known, password):
            raise Problem("permission_denied")
        request.issued = self.ledger.issue(Family(request.client_id or "", user, ""))


def _nonce(request: _Request) -> tuple[str, ...]:
    # RFC 5849 section 3.3: "The nonce value MUST be unique across all requests with the same timestamp, client credentials,
    # and token combinations."
    given = request.oauth_params
    return tuple(given.get(f"oauth_{name}", "") for name in ("nonce", "timestamp", "consumer_key", "token"))


def _absent(name: str) -> Problem:
    return Problem("parameter_absent", 400, oauth_parameters_absent=name)


def _rejected(name: str) -> Problem:
    return Problem("parameter_rejected", 400, oauth_parameters_rejected=name)
