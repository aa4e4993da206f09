"""OAuth for aiohttp: objects that are attached to a session and make every request authorised.

The public names, and nothing else; each is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .client.client import Client as Client
    from .clock import Clock as Clock
    from .errors import AccessDenied as AccessDenied
    from .errors import CallbackError as CallbackError
    from .errors import ConfigurationError as ConfigurationError
    from .errors import DiscoveryError as DiscoveryError
    from .errors import ErrorResponse as ErrorResponse
    from .errors import InsecureTransport as InsecureTransport
    from .errors import InvalidClient as InvalidClient
    from .errors import InvalidGrant as InvalidGrant
    from .errors import LoginRequired as LoginRequired
    from .errors import OAuthError as OAuthError
    from .errors import ProtocolViolation as ProtocolViolation
    from .errors import RefreshInDoubt as RefreshInDoubt
    from .errors import StateMismatch as StateMismatch
    from .errors import StoreCorrupted as StoreCorrupted
    from .errors import StoreError as StoreError
    from .errors import StoreLockTimeout as StoreLockTimeout
    from .errors import TokenResponseError as TokenResponseError
    from .errors import TokenUnavailable as TokenUnavailable
    from .middleware.attach import attach as attach
    from .middleware.oauth2 import OAuth2Auth as OAuth2Auth
    from .middleware.placement import BearerHeader as BearerHeader
    from .middleware.placement import FormBody as FormBody
    from .middleware.placement import Header as Header
    from .middleware.placement import InsecureQuery as InsecureQuery
    from .middleware.placement import Placement as Placement
    from .oauth1.auth import OAuth1Auth as OAuth1Auth
    from .oauth1.client import OAuth1Client as OAuth1Client
    from .oauth1.signature import SignatureMethod as SignatureMethod
    from .oauth1.token import OAuth1Token as OAuth1Token
    from .oauth1.tokens import OAuth1Tokens as OAuth1Tokens
    from .protocol.challenge import Challenge as Challenge
    from .protocol.client_auth import ClientAuthentication as ClientAuthentication
    from .protocol.client_auth import ClientSecret as ClientSecret
    from .protocol.client_auth import ClientSecretBasic as ClientSecretBasic
    from .protocol.client_auth import ClientSecretPost as ClientSecretPost
    from .protocol.client_auth import NoAuthentication as NoAuthentication
    from .protocol.endpoint import EndpointRequest as EndpointRequest
    from .protocol.endpoint import EndpointResponse as EndpointResponse
    from .protocol.endpoint import Hook as Hook
    from .protocol.grants import AuthorizationCode as AuthorizationCode
    from .protocol.grants import ClientCredentials as ClientCredentials
    from .protocol.grants import ExtensionGrant as ExtensionGrant
    from .protocol.grants import Grant as Grant
    from .protocol.grants import RefreshToken as RefreshToken
    from .protocol.metadata import ServerMetadata as ServerMetadata
    from .protocol.quirks import Quirks as Quirks
    from .sources.events import Event as Event
    from .sources.source import Login as Login
    from .sources.source import Refusal as Refusal
    from .sources.source import TokenSource as TokenSource
    from .sources.source import Wanted as Wanted
    from .sources.static import StaticToken as StaticToken
    from .sources.tokens import Tokens as Tokens
    from .stores.callback import CallbackStore as CallbackStore
    from .stores.file import FileStore as FileStore
    from .stores.keyring import KeyringBackend as KeyringBackend
    from .stores.keyring import KeyringStore as KeyringStore
    from .stores.memory import MemoryStore as MemoryStore
    from .stores.redis import RedisStore as RedisStore
    from .stores.sealed import SealedStore as SealedStore
    from .stores.sqlite import SQLiteStore as SQLiteStore
    from .stores.store import Lock as Lock
    from .stores.store import Record as Record
    from .stores.store import TokenStore as TokenStore
    from .token import Token as Token
    from .value import Secret as Secret

_WHERE = {
    "client.client": ("Client",),
    "clock": ("Clock",),
    "errors": (
        "AccessDenied",
        "CallbackError",
        "ConfigurationError",
        "DiscoveryError",
        "ErrorResponse",
        "InsecureTransport",
        "InvalidClient",
        "InvalidGrant",
        "LoginRequired",
        "OAuthError",
        "ProtocolViolation",
        "RefreshInDoubt",
        "StateMismatch",
        "StoreCorrupted",
        "StoreError",
        "StoreLockTimeout",
        "TokenResponseError",
        "TokenUnavailable",
    ),
    "middleware.attach": ("attach",),
    "middleware.oauth2": ("OAuth2Auth",),
    "middleware.placement": ("BearerHeader", "FormBody", "Header", "InsecureQuery", "Placement"),
    "oauth1.auth": ("OAuth1Auth",),
    "oauth1.client": ("OAuth1Client",),
    "oauth1.signature": ("SignatureMethod",),
    "oauth1.token": ("OAuth1Token",),
    "oauth1.tokens": ("OAuth1Tokens",),
    "protocol.challenge": ("Challenge",),
    "protocol.client_auth": (
        "ClientAuthentication",
        "ClientSecret",
        "ClientSecretBasic",
        "ClientSecretPost",
        "NoAuthentication",
    ),
    "protocol.endpoint": ("EndpointRequest", "EndpointResponse", "Hook"),
    "protocol.grants": ("AuthorizationCode", "ClientCredentials", "ExtensionGrant", "Grant", "RefreshToken"),
    "protocol.metadata": ("ServerMetadata",),
    "protocol.quirks": ("Quirks",),
    "sources.events": ("Event",),
    "sources.source": ("Login", "Refusal", "TokenSource", "Wanted"),
    "sources.static": ("StaticToken",),
    "sources.tokens": ("Tokens",),
    "stores.callback": ("CallbackStore",),
    "stores.file": ("FileStore",),
    "stores.keyring": ("KeyringBackend", "KeyringStore"),
    "stores.memory": ("MemoryStore",),
    "stores.redis": ("RedisStore",),
    "stores.sealed": ("SealedStore",),
    "stores.sqlite": ("SQLiteStore",),
    "stores.store": ("Lock", "Record", "TokenStore"),
    "token": ("Token",),
    "value": ("Secret",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = tuple(sorted(_MODULE_OF))


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
