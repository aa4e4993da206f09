"""A process whose tokens are in Redis: it does what its arguments say, and tells about it line by line in JSON.

``ask`` obtains one token. ``load`` calls an API with many tasks for some seconds, and counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter

from aiohttp import ClientError, ClientSession
from redis.asyncio import Redis

from aiohttp_oauth_middleware import Client, ClientSecretBasic, OAuth2Auth, OAuthError, RedisStore, Tokens


def say(what: str, **more: object) -> None:
    # In one write, for a pipe may be shared.
    sys.stdout.write(json.dumps({"what": what, **more}) + "\n")
    sys.stdout.flush()


async def ask(tokens: Tokens) -> None:
    try:
        token = await tokens.token()
        say("token", access_token=token.access_token)
    except OAuthError as error:
        say(type(error).__name__)
    say("counts", **tokens.counts)


async def load(tokens: Tokens, api: str, tasks: int, seconds: float, think: float) -> None:
    answers: Counter[str] = Counter()
    slowest = 0.0

    async def work(number: int) -> None:
        nonlocal slowest
        await asyncio.sleep(think * number / tasks)
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                async with session.get(f"{api}/{number}") as response:
                    answers[str(response.status)] += 1
            except (OAuthError, ClientError) as error:
                answers[f"{type(error).__name__}: {error}"] += 1
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(min(think, max(0.0, end - time.monotonic())))

    async with ClientSession(middlewares=[OAuth2Auth(tokens, origins=api)]) as session:
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        end = time.monotonic() + seconds
        await asyncio.gather(*(work(number) for number in range(tasks)))
    say("answers", answers=answers, slowest=slowest, counts=tokens.counts)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("ask", "load"))
    for name in ("issuer", "prefix", "api"):
        parser.add_argument(f"--{name}", default="")
    for name, kind in (("port", int), ("lease", float), ("tasks", int), ("seconds", float), ("think", float)):
        parser.add_argument(f"--{name}", type=kind, default=0)
    given = parser.parse_args()
    async with Redis(port=given.port) as redis:
        store = RedisStore(redis, prefix=given.prefix, lease=given.lease)
        client = Client(given.issuer, "app", ClientSecretBasic("app-secret"))
        tokens = Tokens(client, store=store, on_event=lambda event: say(event.name, process=os.getpid()))
        if given.what == "ask":
            await ask(tokens)
        else:
            await load(tokens, given.api, given.tasks, given.seconds, given.think)


if __name__ == "__main__":
    asyncio.run(main())
