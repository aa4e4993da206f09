"""The same for a session that takes no middlewares, on public API alone: trace hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Generic, TypeVar

import aiohttp
from aiohttp import ClientSession, TraceConfig
from multidict import MultiMapping, istr
from yarl import URL

from .gate import Gate

__all__ = ("Traced",)

C = TypeVar("C")


class Traced(Generic[C]):
    """Sets a header on each request, on each redirect hop within the origins, and on each reconnect.

    :param obtain: the credentials to present at a URL, or None to go without.
    :param value: the field's value for them.
    :param refused: told of a response that may have refused them: its URL, status and header fields.
    """

    def __init__(
        self,
        gate: Gate,
        field: istr,
        *,
        obtain: Callable[[URL], Awaitable[C | None]],
        value: Callable[[C, aiohttp.TraceRequestHeadersSentParams], Awaitable[str]],
        refused: Callable[[C, URL, int, MultiMapping[str]], Awaitable[None]],
    ) -> None:
        self._gate, self._field = gate, field
        self._obtain, self._value, self._refused = obtain, value, refused

    def config(self) -> TraceConfig:
        """The TraceConfig, frozen already."""
        trace = TraceConfig()
        trace.on_request_start.append(self._start)
        trace.on_request_headers_sent.append(self._headers)
        trace.on_request_end.append(self._end)
        trace.on_request_exception.append(self._exception)
        trace.freeze()
        return trace

    async def _start(self, session: ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
        # Before a connection is taken from the pool: a source that uses this session would wait for it for ever.
        wanted = self._gate.allows(params.url) and self._field not in params.headers
        context.oauth_credentials = await self._obtain(params.url) if wanted else None
        context.oauth_value = None

    async def _headers(
        self, session: ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        if not self._gate.allows(params.url):
            return
        present = params.headers.get(self._field)
        if present is not None and present != context.oauth_value:  # ours stands there where a middleware sends it again
            self._gate.say_occupied(params.url)
            return
        credentials: C | None = context.oauth_credentials or await self._obtain(params.url)
        if credentials is not None and self._gate.admits(params.url):
            context.oauth_credentials = credentials
            context.oauth_value = params.headers[self._field] = await self._value(credentials, params)

    async def _end(self, session: ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        await self._tell(context, params.response.url, params.response.status, params.response.headers)

    async def _exception(
        self, session: ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        error = params.exception
        if isinstance(error, aiohttp.ClientResponseError) and error.headers is not None:
            await self._tell(context, params.url, error.status, error.headers)

    async def _tell(self, context: SimpleNamespace, url: URL, status: int, headers: MultiMapping[str]) -> None:
        if context.oauth_credentials is not None and self._gate.allows(url):
            await self._refused(context.oauth_credentials, url, status, headers)
