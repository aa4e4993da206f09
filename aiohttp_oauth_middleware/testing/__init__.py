"""An OAuth 2.0 and 1.0a authorization server to test against, embedded in the test process.

:class:`AuthorizationServer` runs on loopback in a thread of its own, can be made to expire, revoke, rotate, delay, fail and
lose answers, and counts what it saw: its counters, not the client's word, say what happened.
:meth:`AuthorizationServer.protect` guards an application of yours with its tokens, :meth:`AuthorizationServer.api` is a small
one that is ready; its attribute ``oauth1`` is an :class:`OAuth1Server`. The pytest fixtures ``oauth_server``, ``oauth_api``,
``oauth1_server`` and ``oauth1_api`` are in :mod:`aiohttp_oauth_middleware.testing.plugin`, which is not loaded by itself. Never
expose any of it beyond your own machine: it consents to everything.
"""

from __future__ import annotations

from .faults import Held
from .ledger import Counts, IssuedToken, digest
from .oauth1.ledger import OAuth1Counts
from .oauth1.server import OAuth1Server
from .oauth1.wire import OAuth1Record
from .records import APIRequest, EndpointRecord
from .resource import TOKEN, EchoAPI
from .server import AuthorizationServer

__all__ = (
    "TOKEN",
    "APIRequest",
    "AuthorizationServer",
    "Counts",
    "EchoAPI",
    "EndpointRecord",
    "Held",
    "IssuedToken",
    "OAuth1Counts",
    "OAuth1Record",
    "OAuth1Server",
    "digest",
)
