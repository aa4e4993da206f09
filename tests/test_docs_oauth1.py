"""What the documentation shows of OAuth 1.0a is run too; see test_docs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from yarl import URL

from aiohttp_oauth_middleware import (
    InvalidClient,
    OAuth1Auth,
    OAuth1Client,
    OAuth1Token,
    OAuth1Tokens,
    TokenResponseError,
)
from aiohttp_oauth_middleware.testing import AuthorizationServer, EchoAPI, OAuth1Server

from .test_docs import Stage

KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Stage1(Stage):
    """With an API of OAuth 1 beside the others."""

    def __init__(self, server: AuthorizationServer, folder: Path) -> None:
        super().__init__(server)
        self.oauth1: OAuth1Server = server.oauth1
        self.photos: EchoAPI = server.oauth1.api()
        self.private_key = folder / "private.pem"
        self.kept = folder / "token.json"

    def load(self, name: str, **replaced: str) -> Any:
        places = {
            "https://photos.example.com": self.photos.origin,
            "/etc/photos/private.pem": str(self.private_key),
            "token.json": str(self.kept),
        }
        return super().load(name, **places | replaced)

    def token(self) -> OAuth1Token:
        return OAuth1Token.from_dict(self.oauth1.issue("photos"))

    @property
    def last(self) -> Any:
        return self.oauth1.requests[-1]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage1]:
    for name in ("PHOTOS", "PORTAL", "REPORTS"):
        monkeypatch.setenv(f"{name}_SECRET", f"{name.lower()}-secret")
    with AuthorizationServer() as server:
        server.register("reports", "reports-secret")
        stage = Stage1(server, tmp_path)
        stage.private_key.write_bytes(
            KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        for name in ("photos", "portal"):
            server.oauth1.register(name, f"{name}-secret", rsa_public_key=KEY.public_key())
        yield stage


async def send(stage: Stage1, client: OAuth1Client, token: OAuth1Token | OAuth1Tokens | None, **body: Any) -> int:
    auth = OAuth1Auth(client, token, origins=stage.photos.origin)
    url = stage.photos.url / "albums"
    async with (
        ClientSession(middlewares=[auth]) as session,
        session.request("POST" if body else "GET", url, **body) as response,
    ):
        return response.status


def consented(stage: Stage1, url: str) -> str:
    return stage.oauth1.approve(URL(url).query["oauth_token"])


async def test_three_legs(stage: Stage1, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    legs = stage.load("oauth1/three_legs.py")

    class Person:
        def readline(self) -> str:
            return consented(stage, capsys.readouterr().out.split()[2]) + "\n"

    monkeypatch.setattr(sys, "stdin", Person())
    await legs.main()
    assert stage.oauth1.counts.verdicts == {"accepted": 5}
    assert stage.oauth1.counts.requests == {"request_token": 1, "access_token": 1, "resource": 3}
    assert [request.body for request in stage.oauth1.requests[2:]] == [
        b"",
        b"title=Ducks+%26+drakes",
        b'{"title": "Ducks & drakes"}',
    ]
    assert capsys.readouterr().out.split("\n", 1)[1] == "200\n200\n"


async def test_a_code_that_a_person_types(stage: Stage1) -> None:
    variants = stage.load("oauth1/variants.py")
    variants.input = lambda prompt: URL(consented(stage, prompt.split()[2])).query["oauth_verifier"]
    token = await variants.sign_in_by_a_code()
    assert stage.oauth1.requests[0].oauth["oauth_callback"] == "oob"
    assert await send(stage, variants.client, token) == 200


async def test_in_our_own_name_and_by_password(stage: Stage1) -> None:
    own = stage.oauth1.api(two_legged=True)
    variants = stage.load("oauth1/variants.py", **{"https://photos.example.com": own.origin})
    async with ClientSession(middlewares=[variants.in_our_own_name]) as session, session.get(own.url) as response:
        assert (await response.json())["client"] == "photos"
    stage.oauth1.passwords["alice"] = "wonderland"
    token = await variants.sign_in_with_a_password("alice", "wonderland")
    assert await send(stage, variants.client, token) == 200


async def test_signature_methods(stage: Stage1) -> None:
    async def vault(request: web.Request) -> web.Response:
        return web.Response(body=KEY.sign(await request.read(), padding.PKCS1v15(), hashes.SHA256()))

    app = web.Application()
    app.router.add_post("/keys/photos/sign", vault)
    async with TestServer(app) as server:
        variants = stage.load("oauth1/variants.py", **{"https://vault.example.com": str(server.make_url("/"))[:-1]})
        for name in ("by_sha256", "by_rsa", "in_plain_text", "by_a_vault"):
            assert await send(stage, getattr(variants, name), stage.token()) == 200
    assert stage.oauth1.counts.signature_methods == {"HMAC-SHA256": 1, "RSA-SHA256": 2, "PLAINTEXT": 1}


async def test_placements_hash_and_realm(stage: Stage1) -> None:
    variants = stage.load("oauth1/variants.py")
    assert await send(stage, variants.in_the_form, stage.token(), data={"a": "b"}) == 200
    assert await send(stage, variants.in_the_url, stage.token()) == 200
    assert stage.oauth1.counts.placements == {"form": 1, "query": 1}
    stage.oauth1.require_body_hash = True
    assert await send(stage, variants.with_a_hash, stage.token(), json={"a": "b"}) == 200
    stage.oauth1.require_body_hash = False
    stage.oauth1.realm = "1234567_SB1"
    assert await send(stage, variants.with_a_realm, stage.token()) == 200


async def test_S_62_a_server_of_1_0_has_to_be_named(stage: Stage1) -> None:
    variants = stage.load("oauth1/variants.py")
    stage.oauth1.confirm_callbacks = False
    with pytest.raises(TokenResponseError, match="revision_a"):
        await variants.client.fetch_request_token(stage.oauth1.request_token_url)
    token = await variants.of_1_0.fetch_request_token(stage.oauth1.request_token_url)
    callback = consented(stage, variants.of_1_0.create_authorization_url(stage.oauth1.authorize_url, token))
    verifier = variants.of_1_0.parse_authorization_response(callback, token)
    token = await variants.of_1_0.fetch_access_token(stage.oauth1.access_token_url, token, verifier)
    assert await send(stage, variants.of_1_0, token) == 200


async def test_renewal_and_a_wrong_clock(stage: Stage1, caplog: pytest.LogCaptureFixture) -> None:
    variants = stage.load("oauth1/variants.py")
    stage.oauth1.session_handles, stage.oauth1.lifetime = True, 3600
    await variants.tokens.save(stage.token())
    async with ClientSession(middlewares=[variants.renewing]) as session, session.get(stage.photos.url) as response:
        assert response.status == 200
        stage.oauth1.expire_all()
        async with session.get(stage.photos.url) as again:
            assert again.status == 200
    assert stage.oauth1.counts.renewals == 1
    stage.oauth1.clock_offset = 7200
    caplog.set_level(logging.WARNING, "photos")
    async with ClientSession(middlewares=[variants.watching]) as session:
        for _ in range(3):
            async with session.get(stage.photos.url) as response:
                assert response.status == 200
    assert [record.message for record in caplog.records if record.name == "photos"] == [
        f"the clock of {stage.photos.origin} and ours differ"
    ]


async def test_errors(stage: Stage1) -> None:
    variants = stage.load("oauth1/variants.py")
    stage.oauth1.session_handles = True
    async with ClientSession(middlewares=[variants.renewing]) as session:
        assert await variants.albums(session) == "please sign in"
        await variants.tokens.save(stage.token())
        assert json.loads(await variants.albums(session))["user"] == "alice"
        stage.photos.answer_next(418)
        assert await variants.albums(session) == "the API says 418"
        stage.oauth1.expire_all()
        stage.server.fail_next(503, endpoint="access_token")
        assert await variants.albums(session) == "please try again in a moment"
        await variants.tokens.save(stage.token())
        stage.oauth1.revoke_all()
        assert await variants.albums(session) == "please sign in"
    async with ClientSession(middlewares=[OAuth1Auth(variants.in_the_form, stage.token())]) as session:
        assert await variants.albums(session) == "sorry, this is out of order"
    with pytest.raises(InvalidClient):
        await OAuth1Client("nobody", "x").fetch_request_token(stage.oauth1.request_token_url)


async def test_both_and_elsewhere(stage: Stage1, capsys: pytest.CaptureFixture[str]) -> None:
    variants = stage.load("oauth1/variants.py")
    token = stage.token()
    await variants.both(token)
    assert capsys.readouterr().out == "200\n200\n"
    assert (stage.photos.requests[0].authorization or "").startswith("OAuth ")
    assert (stage.api.requests[0].authorization or "").startswith("Bearer ")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with ClientSession(headers=form | await variants.header_for(token)) as session:
        url = stage.photos.url / "albums"
        async with session.post(url % {"draft": "1"}, data=b"title=Ducks%20%26%20drakes") as response:
            assert response.status == 200


@pytest.fixture
async def alice(stage: Stage1) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    portal = stage.load("oauth1/portal.py")
    portal.SESSIONS.update({"a": {"user": "alice"}, "m": {"user": "mallory"}})
    async with TestClient(TestServer(portal.make_app()), cookies={"session": "a"}) as browser:
        yield browser


async def callback_of(stage: Stage1, browser: TestClient[web.Request, web.Application], **cookies: str) -> URL:
    async with browser.get("/connect", allow_redirects=False, cookies=cookies or None) as response:
        back = URL(consented(stage, response.headers["Location"]), encoded=True)
    assert back.host == "portal.example.com"
    return back.relative()


async def test_portal_connects_reads_and_disconnects(stage: Stage1, alice: TestClient[web.Request, web.Application]) -> None:
    async with alice.get("/albums", allow_redirects=False) as response:
        assert response.headers["Location"] == "/connect"
    back = await callback_of(stage, alice)
    async with alice.get(back) as response:
        assert (await response.json())["user"] == "alice"
    async with alice.get(back) as response:
        assert response.status == 400
    stage.oauth1.revoke_all()
    async with alice.get("/albums", allow_redirects=False) as response:
        assert response.headers["Location"] == "/connect"
    async with alice.get("/disconnect") as response:
        assert response.status == 200
    async with ClientSession() as stranger, stranger.get(alice.make_url("/albums")) as response:
        assert response.status == 403
    assert stage.oauth1.counts.requests["access_token"] == 1


async def test_S_62_portal_takes_no_callback_of_another_login(
    stage: Stage1, alice: TestClient[web.Request, web.Application]
) -> None:
    theirs = await callback_of(stage, alice, session="m")
    await callback_of(stage, alice)
    async with alice.get(theirs) as response:
        assert response.status == 400
    assert stage.oauth1.counts.requests["access_token"] == 0
    assert stage.oauth1.counts.tokens_issued == 0


async def test_portal_hears_a_no(stage: Stage1, alice: TestClient[web.Request, web.Application]) -> None:
    async with alice.get("/connect", allow_redirects=False) as response:
        back = URL(stage.oauth1.deny(URL(response.headers["Location"]).query["oauth_token"]))
    async with alice.get("/callback", params=back.query) as response:
        assert response.status == 403


async def test_migration(stage: Stage1, capsys: pytest.CaptureFixture[str]) -> None:
    stage.kept.write_text(json.dumps(stage.oauth1.issue("photos")))
    migrate = stage.load("oauth1/migrate.py")
    migrate.input = lambda prompt: consented(stage, capsys.readouterr().out.split()[2])
    await migrate.print_albums(await migrate.sign_in())
    await migrate.print_albums(migrate.kept_by_another_library())
    assert stage.oauth1.counts.verdicts == {"accepted": 6}
    async with ClientSession() as session:
        auth = OAuth1Auth(migrate.client, stage.token(), origins=stage.photos.origin)
        assert await migrate.one_request(session, auth) == 200
        headers = {"Authorization": await migrate.header(stage.token())}
        async with session.get(f"{stage.photos.origin}/albums?order=newest", headers=headers) as response:
            assert response.status == 200
    assert await send(stage, migrate.by_rsa, stage.token()) == 200
    assert await send(stage, migrate.of_my_own, stage.token()) == 400
    assert stage.last.oauth["oauth_signature"].endswith("characters of a-secret")
