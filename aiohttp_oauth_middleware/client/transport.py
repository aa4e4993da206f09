"""Bytes to the authorization server and back, on an event loop in a thread of its own.

The exchange never uses the caller's session or connector: closing them would cut off an answer in which the server has rotated
a refresh token, and their default headers, cookies, traces and ``ssl=False`` would ride along. And it does not run on the
caller's loop: ``asyncio.run`` cancels every task there when it ends.

There is one such thread in a process, started at the first exchange; it ends after a while without any. A session is kept for
bursts, one that all Clients share, and one for each ``session_factory``.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, ClientTimeout
from yarl import URL

from ..errors import ConfigurationError, OAuthError, TokenResponseError, TokenUnavailable
from ..protocol.endpoint import EndpointRequest, EndpointResponse
from ..value import Secret

__all__ = ("SessionFactory", "exchange")

SessionFactory = Callable[[], "ClientSession | Awaitable[ClientSession]"]

SESSION_IDLE = 15.0
# An answer lost with a stale connection leaves a refresh token in doubt, so connections are reused in bursts only.
KEEPALIVE = 2.0
# An answer that nobody has come for may hold a token: so many seconds it is kept, and so many of them.
UNCLAIMED_TIME = 600.0
UNCLAIMED_MOST = 1_000


def exchange(
    request: EndpointRequest, *, name: str, timeout: float, body_limit: int, session_factory: SessionFactory | None = None
) -> asyncio.Future[EndpointResponse]:
    """Send *request*; the future yields the answer, whatever its status.

    Whoever stops waiting leaves the exchange to end by itself, within its timeout. If it spends something that may be sent only
    once, whoever would send that again gets this answer instead.

    :param name: of the endpoint, for messages.
    :param timeout: seconds for all of it, from the connection to the last byte.
    :param body_limit: bytes of the body that are read; a longer one is an error.
    :raises TokenUnavailable: no whole answer came; ``maybe_spent`` tells whether the request had left.
    :raises TokenResponseError: the body is too long.
    :raises ConfigurationError: *session_factory* doesn't yield a session.
    """
    loop = asyncio.get_running_loop()
    arrival: asyncio.Future[EndpointResponse] = loop.create_future()
    lane = _lane
    outcome = lane.submit(_Exchange(request, name, timeout, body_limit, session_factory))

    def arrive(done: Future[EndpointResponse]) -> None:
        if not arrival.done():
            lane.claimed(request.spends)
            _copy(done, arrival)

    def hand_over(done: Future[EndpointResponse]) -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed: nobody waits any more
            loop.call_soon_threadsafe(arrive, done)

    outcome.add_done_callback(hand_over)
    return arrival


def _copy(done: Future[EndpointResponse], arrival: asyncio.Future[EndpointResponse]) -> None:
    if done.cancelled():
        arrival.set_exception(TokenUnavailable("the exchange was cut off: this process is ending", maybe_spent=True))
    elif error := done.exception():
        arrival.set_exception(error)
    else:
        arrival.set_result(done.result())


class _Exchange:
    """One request and what is to be known of it."""

    def __init__(
        self, request: EndpointRequest, name: str, timeout: float, body_limit: int, session_factory: SessionFactory | None
    ) -> None:
        self.request = request
        self.name = name
        self.timeout = timeout
        self.body_limit = body_limit
        self.session_factory = session_factory
        self.sent = False

    async def run(self, session: ClientSession) -> EndpointResponse:
        broken: TokenUnavailable | None = None
        problem = ""
        try:
            return await self._run(session)
        except OAuthError as error:
            raise error.bare() from error.__cause__
        except TimeoutError:
            raise self._unavailable(f"did not answer within {self.timeout:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._unavailable("has a TLS certificate that can't be verified") from error
        except OSError as error:
            raise self._unavailable(f"could not be reached ({type(error).__name__})") from error
        except aiohttp.ClientError as error:
            # Not as the cause: what can't be parsed is quoted there, and so is the URL, which in a GET holds the parameters.
            broken = self._unavailable(f"gave no whole answer ({type(error).__name__})")
            broken.__cause__ = aiohttp.ClientError(type(error).__name__)
        except (ValueError, TypeError, RuntimeError) as error:
            # Not as the cause: such an error may hold the very header or parameter that it complains of.
            problem = type(error).__name__
        if broken is not None:
            raise broken
        raise ConfigurationError(
            f"the request to {self.name} can't be sent ({problem}): a header or parameter that a hook or a secret put there "
            "is not valid, or session_factory didn't make its session when it was called"
        )

    async def _run(self, session: ClientSession) -> EndpointResponse:
        request = self.request
        # RFC 9700 section 4.12: a 307 or 308 would carry the credentials in the body on to wherever it points.
        async with session.request(
            request.method,
            URL(request.target(), encoded=True),
            data=None if request.method == "GET" else request.body(),
            allow_redirects=False,
            raise_for_status=False,
            timeout=ClientTimeout(total=self.timeout),
            middlewares=(self._present,),
            trace_request_ctx=self,
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self.body_limit:
                    response.close()
                    raise TokenResponseError(
                        f"the answer of {self.name} is longer than {self.body_limit} bytes", status=response.status
                    )
            headers = dict(response.headers)
            if (challenges := response.headers.getall("WWW-Authenticate", ())) and len(challenges) > 1:
                headers["WWW-Authenticate"] = ", ".join(challenges)  # RFC 9110 section 5.3
            return EndpointResponse(response.status, headers, bytes(body))

    async def _present(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Set the header fields innermost, where neither netrc nor a session's defaults can replace or add credentials."""
        if self.sent and (self.request.form or self.request.spends):
            # aiohttp repeats a GET whose connection broke; what is single-use is sent once.
            raise aiohttp.ClientConnectionError("the connection broke")
        fields = self.request.headers
        headers = request.headers
        headers.popall("Authorization", None)
        for field, value in fields.items():
            headers[field] = value.reveal() if isinstance(value, Secret) else value
        try:
            return await handler(request)
        finally:
            headers.popall("Authorization", None)

    def _unavailable(self, what: str) -> TokenUnavailable:
        return TokenUnavailable(f"{self.name} {what}", maybe_spent=self.sent)


async def _mark_sent(session: ClientSession, context: object, params: aiohttp.TraceRequestHeadersSentParams) -> None:
    marked = getattr(context, "trace_request_ctx", None)
    if isinstance(marked, _Exchange):
        marked.sent = True


def _watched(session: ClientSession) -> ClientSession:
    """*session*, with the trace that tells whether a request has left."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_mark_sent)
    trace.freeze()
    session.trace_configs.append(trace)
    return session


def _own_session() -> ClientSession:
    # auto_decompress is off: no encoding is asked for, and a bomb stays as small as it came.
    return ClientSession(
        connector=aiohttp.TCPConnector(keepalive_timeout=KEEPALIVE),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


class _Kept:
    """A session between exchanges."""

    __slots__ = ("idle_since", "session", "users")

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.users = 0
        self.idle_since = 0.0


class _Lane:
    """The thread, its loop, and the sessions that live there."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._under_way = 0
        self._sessions: dict[SessionFactory | None, _Kept] = {}
        self._opening: dict[SessionFactory | None, asyncio.Lock] = {}
        self._tidying: asyncio.Task[None] | None = None
        # By what they spend: exchanges whose answer nobody has got yet, and when they began.
        self._unclaimed: dict[str, tuple[Future[EndpointResponse], float]] = {}

    def submit(self, exchange: _Exchange) -> Future[EndpointResponse]:
        """Begin *exchange*, unless one is under way, or has ended unheard, that spends the same: then that one."""
        spends = exchange.request.spends
        with self._guard:
            if spends in self._unclaimed:
                outcome, began = self._unclaimed[spends]
                if not outcome.done() or (not outcome.cancelled() and outcome.exception() is None):
                    exchange.request.sent_before = time.monotonic() - began
                    return outcome
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._work, args=(self._loop,), name="oauth-exchange", daemon=True)
                self._thread.start()
            self._under_way += 1
            outcome = asyncio.run_coroutine_threadsafe(self._carry(exchange), self._loop)
            if spends:
                self._unclaimed.pop(spends, None)  # so that the oldest stays the first
                self._unclaimed[spends] = outcome, time.monotonic()
                self._drop_unclaimed()
            return outcome

    def _drop_unclaimed(self) -> None:
        now = time.monotonic()
        while True:
            oldest, (outcome, began) = next(iter(self._unclaimed.items()))
            due = now - began > UNCLAIMED_TIME or len(self._unclaimed) > UNCLAIMED_MOST
            if not due or not outcome.done():
                return
            del self._unclaimed[oldest]

    def claimed(self, spends: str) -> None:
        """Somebody has got the answer, and will write down what it says."""
        with self._guard:
            self._unclaimed.pop(spends, None)

    async def _carry(self, exchange: _Exchange) -> EndpointResponse:
        kept: _Kept | None = None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(exchange.timeout):
                kept = await self._session(exchange.session_factory)
            kept.users += 1
            return await exchange.run(kept.session)
        except TimeoutError:
            raise TokenUnavailable(f"{exchange.name} was not asked: session_factory took {exchange.timeout:g} s") from None
        finally:
            if kept is not None:
                kept.users -= 1
                kept.idle_since = loop.time()
            with self._guard:
                self._under_way -= 1
            if self._tidying is None:
                self._tidying = loop.create_task(self._tidy_up())

    async def _session(self, factory: SessionFactory | None) -> _Kept:
        async with self._opening.setdefault(factory, asyncio.Lock()):
            kept = self._sessions.get(factory)
            if kept is None or kept.session.closed:
                kept = self._sessions[factory] = _Kept(_watched(await _open(factory)))
            return kept

    async def _tidy_up(self) -> None:
        """Close what has been idle for a while; when nothing is left, end the loop and with it the thread."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SESSION_IDLE)
            for factory, kept in list(self._sessions.items()):
                if kept.users == 0 and loop.time() - kept.idle_since >= SESSION_IDLE:
                    del self._sessions[factory]
                    if not self._opening[factory].locked():
                        del self._opening[factory]
                    await kept.session.close()
            with self._guard:
                if self._under_way == 0 and not self._sessions and self._loop is loop:
                    self._loop = self._tidying = None
                    self._opening.clear()
                    loop.stop()
                    return

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            if pending := asyncio.all_tasks(loop):
                for task in pending:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def close(self) -> None:
        """End the thread, its sessions closed."""
        with self._guard:
            loop, thread, self._loop, self._tidying = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return

        async def close_all() -> None:
            for kept in list(self._sessions.values()):
                await kept.session.close()
            self._sessions.clear()
            self._opening.clear()
            loop.stop()

        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(close_all(), loop)
            thread.join(2.0)


async def _open(factory: SessionFactory | None) -> ClientSession:
    if factory is None:
        return _own_session()
    try:
        session = factory()
        if inspect.isawaitable(session):
            session = await session
    except Exception as error:
        raise ConfigurationError(f"session_factory raised {type(error).__name__}") from error
    if not isinstance(session, ClientSession):
        raise ConfigurationError("session_factory must return a new aiohttp.ClientSession each time it is called")
    if session.closed:
        raise ConfigurationError("session_factory returned a closed session; it must make a new one each time it is called")
    return session


_lane = _Lane()


def _forget_lane() -> None:
    """In a forked child the thread does not exist, and the parent's sockets are not ours."""
    global _lane
    _lane = _Lane()


def close_exchanges() -> None:
    """Close the sessions that are kept for bursts, and end their thread, now rather than after a while."""
    _lane.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lane)
atexit.register(close_exchanges)
