"""Where tokens are kept: one store for each way to run a program."""

import os

from aiohttp_oauth_middleware import (
    CallbackStore,
    Client,
    ClientSecret,
    FileStore,
    KeyringStore,
    RedisStore,
    SealedStore,
    SQLiteStore,
    Token,
    Tokens,
    TokenStore,
)

# [client]
client = Client("https://login.example.com", "portal", ClientSecret(os.environ["PORTAL_SECRET"]))


def tokens_in(store: TokenStore) -> Tokens:
    return Tokens(client, store=store)


# [file]
def of_a_command_line_tool() -> TokenStore:
    return FileStore("~/.config/my-tool/tokens")


# [sqlite]
def of_many_users_on_one_machine() -> TokenStore:
    return SQLiteStore("/var/lib/portal/tokens.sqlite")


# [redis]
def of_many_machines() -> TokenStore:
    import redis.asyncio

    return RedisStore(lambda: redis.asyncio.Redis.from_url("redis://127.0.0.1:6379"))


# [keyring]
def of_a_desktop_program() -> TokenStore:
    return KeyringStore("my-tool")


# [sealed]
def sealed() -> TokenStore:
    newest, older = os.environ["TOKEN_KEY"], os.environ["OLD_TOKEN_KEY"]
    return SealedStore(SQLiteStore("/var/lib/portal/tokens.sqlite"), [newest, older])


# [callback]
ROWS: dict[str, str] = {}


async def load(key: str) -> str | None:
    return ROWS.get(key)


async def save(key: str, text: str | None) -> None:
    if text is None:
        ROWS.pop(key, None)
    else:
        ROWS[key] = text


def of_your_own_database() -> TokenStore:
    return CallbackStore(load, save)


# [move]
async def move(old: Tokens, new: Tokens) -> None:
    """Take all users along to another store."""
    async for user in old.keys():
        if token := await old.for_key(user).token():
            await new.save(token, key=user)


# [authlib]
async def from_authlib(tokens: Tokens, rows: dict[str, dict[str, object]]) -> None:
    for user, token in rows.items():
        await tokens.save(Token.from_dict(token), key=user)
