"""Can this request be sent twice, and what is owed to the response that is dropped in between?"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import ClientError, ClientRequest, ClientResponse, MultipartWriter, ServerTimeoutError, hdrs
from aiohttp.payload import BytesPayload, IOBasePayload, Payload

__all__ = ("Refused", "can_send_again", "discard", "is_replayable")

DRAIN_LIMIT: Final = 64 * 1024
DRAIN_TIME: Final = 1.0


class Refused:
    """A response that was refused, out of sight: its own ``repr`` shows the cookies that it sets."""

    __slots__ = ("response",)

    def __init__(self, response: ClientResponse) -> None:
        self.response = response


def can_send_again(request: ClientRequest, body: object) -> bool:
    """Whether *body*, the request's before it was sent, can go out a second time with the same bytes.

    Its kind decides, not what is left of it: a stream that was sent reads as an empty body.

    A refused ``Expect: 100-continue`` leaves aiohttp's request in a state in which a second send hangs.
    """
    return hdrs.EXPECT not in request.headers and is_replayable(body)


def is_replayable(body: object) -> bool:
    """Whether *body* can be read twice with the same bytes."""
    if not isinstance(body, Payload):
        return True  # no body: b""
    if getattr(body, "consumed", False):
        return False
    if isinstance(body, BytesPayload):
        return True  # also of str, JSON and StringIO
    if isinstance(body, MultipartWriter):
        return all(is_replayable(part[0]) for part in body)
    if isinstance(body, IOBasePayload):
        try:
            return bool(body._value.seekable())  # there is no public way to the file
        except (AttributeError, ValueError):
            return False
    return False  # a stream, or a class of the user's: nobody can tell


async def discard(request: ClientRequest, response: ClientResponse) -> None:
    """Let go of *response*, within a bound: its connection is free afterwards, its cookies are kept.

    A response that is longer than the bound costs its connection; one that is never released would hold a slot of the pool,
    and with ``limit=1`` the next request would wait for ever.
    """
    if cookies := response.headers.getall(hdrs.SET_COOKIE, []):
        request.session.cookie_jar.update_cookies_from_headers(cookies, response.url)
    left = DRAIN_LIMIT
    drain = asyncio.timeout(DRAIN_TIME)
    try:
        async with drain:
            while left >= 0 and (chunk := await response.content.readany()):
                left -= len(chunk)
    except (ClientError, OSError) as error:
        # A TimeoutError of neither ours nor a read's is the caller's total: then nothing more may be sent.
        if isinstance(error, TimeoutError) and not isinstance(error, ServerTimeoutError) and not drain.expired():
            raise
    finally:
        # Leaving the context also ends the upload, if the server answered before it was done.
        async with response:
            pass
