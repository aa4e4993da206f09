"""To which URLs a token may go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from yarl import URL

from aiohttp_oauth_middleware import ConfigurationError, InsecureTransport
from aiohttp_oauth_middleware.middleware.gate import Gate, Origins
from tests.middleware.corpus import FOREIGN, OWN, PREFIX_FOREIGN, PREFIX_FOREIGN_ENCODED, PREFIX_OWN

API = "https://api.example.com"


def test_G_13_the_corpus_has_two_hundred_urls() -> None:
    assert len(OWN) + len(FOREIGN) >= 200
    assert not set(OWN) & set(FOREIGN)


@pytest.mark.parametrize("url", OWN)
def test_F_42_G_13_an_own_url_is_allowed_however_it_is_spelled(url: str) -> None:
    assert Gate(API).allows(URL(url))


@pytest.mark.parametrize("url", FOREIGN)
def test_F_42_G_13_S_18_a_foreign_url_is_not_allowed_however_it_is_spelled(url: str) -> None:
    assert not Gate(API).allows(URL(url))
    assert not Gate([API, "https://other.example.org:8443/x"]).allows(URL(url))


@pytest.mark.parametrize("url", FOREIGN)
def test_S_18_each_url_of_the_corpus_is_an_origin_of_its_own_if_it_is_named(url: str) -> None:
    named = URL(url).with_user(None).with_path("/")
    gate = Gate(named, insecure_http=True)
    assert gate.allows(named)
    assert not gate.allows(URL(API + "/"))


@pytest.mark.parametrize("url", PREFIX_OWN)
def test_S_18_a_path_in_an_origin_is_a_prefix_by_whole_segments(url: str) -> None:
    assert Gate(f"{API}/reports").allows(URL(url))
    assert Gate(f"{API}/reports/").allows(URL(url))


@pytest.mark.parametrize("url", PREFIX_FOREIGN)
def test_S_18_what_is_beside_the_prefix_is_foreign(url: str) -> None:
    assert not Gate(f"{API}/reports").allows(URL(url))


@pytest.mark.parametrize("url", PREFIX_FOREIGN_ENCODED)
def test_S_18_what_a_server_would_resolve_to_beside_the_prefix_is_foreign(url: str) -> None:
    assert not Gate(f"{API}/reports").allows(URL(url, encoded=True))
    # With the whole origin allowed it is no matter where a server takes it.
    assert Gate(API).allows(URL(url, encoded=True))


def test_S_18_several_prefixes_of_one_origin_and_the_whole_of_it() -> None:
    gate = Gate([f"{API}/a", f"{API}/b"])
    assert [gate.allows(URL(f"{API}/{path}")) for path in ("a/1", "b", "c", "")] == [True, True, False, False]
    for entries in ([f"{API}/a", API], [API, f"{API}/a"], [API, API]):
        assert Gate(entries).allows(URL(f"{API}/c"))


def test_F_44_the_scheme_of_a_websocket_counts_as_that_of_its_handshake() -> None:
    for origin in ("https://api.example.com", "wss://api.example.com", "wss://api.example.com:443"):
        gate = Gate(origin)
        assert gate.allows(URL("https://api.example.com/"))
        assert gate.allows(URL("wss://api.example.com/"))
        assert not gate.allows(URL("ws://api.example.com:443/"))
        assert not gate.allows(URL("http://api.example.com:443/"))
    gate = Gate("ws://127.0.0.1:8080")
    assert gate.allows(URL("http://127.0.0.1:8080/"))
    assert gate.allows(URL("ws://127.0.0.1:8080/"))
    assert not gate.allows(URL("wss://127.0.0.1:8080/"))


def many() -> Iterator[str]:
    yield API
    yield "https://b.example.com"


@pytest.mark.parametrize(
    "origins",
    [
        API,
        URL(API),
        [API],
        (URL(API), "https://b.example.com"),
        {API},
        frozenset({API}),
        many(),
        lambda url: url.host == "api.example.com",
    ],
)
def test_S_18_origins_are_a_string_a_url_an_iterable_or_a_callable(origins: Origins) -> None:
    gate = Gate(origins)
    assert gate.allows(URL(f"{API}/x"))
    assert not gate.allows(URL("https://evil.example/x"))


@pytest.mark.parametrize(
    "origins",
    [
        "",
        "api.example.com",
        "//api.example.com",
        "/reports",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://u@api.example.com",
        "https://u:p@api.example.com",
        "https://:p@api.example.com",
        "https://api.example.com/?x=1",
        "https://api.example.com/#x",
        r"https://evil.example\@api.example.com",
        "https://api.example.com:99999",
        "https://api.example.com:port",
        "https://[::1",
        [],
        (),
        [API, ""],
        [API, None],
        [None],
        [5],
        b"https://api.example.com",
        [API, "https://u@b.example.com"],
        5,
        object(),
        True,
    ],
)
def test_S_18_origins_that_cannot_work_are_refused(origins: object) -> None:
    with pytest.raises(ConfigurationError, match="origins"):
        Gate(origins)  # type: ignore[arg-type]


def test_S_18_the_message_about_a_bad_origin_does_not_hold_its_password() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Gate("https://user:pa55word@api.example.com")
    assert "pa55word" not in str(raised.value)


@pytest.mark.parametrize(
    "origin",
    [
        "http://api.example.com",
        "ws://api.example.com",
        "http://api.example.com:8080/x",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://128.0.0.1",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[::2]",
        "http://0x7f.1",
        "http://2130706433",
    ],
)
def test_S_39_plain_http_beyond_this_machine_is_refused_unless_it_is_asked_for(origin: str) -> None:
    with pytest.raises(InsecureTransport, match="insecure_http=True"):
        Gate(origin)
    with pytest.raises(InsecureTransport):
        Gate([API, origin])
    with pytest.raises(InsecureTransport):
        Gate(None).admits(URL(origin))
    with pytest.raises(InsecureTransport):
        Gate(lambda url: True).admits(URL(origin))
    assert Gate(origin, insecure_http=True).allows(URL(origin))
    assert Gate(None, insecure_http=True).admits(URL(origin))
    assert Gate(lambda url: True, insecure_http=True).admits(URL(origin))
    assert not Gate(API).allows(URL(origin))
    assert not Gate(lambda url: False).allows(URL(origin))


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8080", "http://127.8.9.10", "http://[::1]:1", "http://localhost", "ws://localhost:8080"]
)
def test_S_39_plain_http_on_this_machine_needs_no_flag(origin: str) -> None:
    assert Gate(origin).allows(URL(origin))
    assert Gate(None).admits(URL(origin))


def test_S_39_a_refused_transport_pins_nothing() -> None:
    gate = Gate(None)
    with pytest.raises(InsecureTransport):
        gate.admits(URL("http://api.example.com/"))
    assert gate.admits(URL(API))
    assert not gate.allows(URL("http://api.example.com/"))


def test_S_18_without_origins_the_first_one_is_pinned_and_both_warnings_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate(None)
    assert repr(gate) == "none yet"
    with caplog.at_level(logging.DEBUG):
        assert gate.allows(URL("https://evil.example/before"))
        assert gate.admits(URL(f"{API}/first?access_token=no-matter"))
        assert not gate.admits(URL("https://evil.example/before")), "both were asked before either was pinned"
        assert gate.allows(URL(f"{API}:443/second"))
        assert gate.allows(URL("wss://api.example.com/third"))
        assert not gate.allows(URL("https://evil.example/first?key=k3y"))
        assert not gate.allows(URL("https://evil2.example/second"))
        assert gate.allows(URL(f"{API}/fourth"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    pinned, foreign = (record.getMessage() for record in caplog.records)
    assert "https://api.example.com:443" in pinned
    assert "origins=" in pinned
    assert "https://evil.example:443" in foreign
    assert "no-matter" not in pinned
    assert "k3y" not in foreign


def test_F_43_a_foreign_origin_is_said_once_and_is_no_warning_where_origins_were_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    gate = Gate(API)
    for url in ("https://a.example/", "https://b.example/", "https://a.example/"):
        assert not gate.allows(URL(url))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "a.example" in caplog.text


def test_S_18_a_callable_is_asked_for_each_url_and_nothing_is_said_of_its_choice(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[URL] = []

    def decide(url: URL) -> bool:
        asked.append(url)
        return url.path.startswith("/reports")

    gate = Gate(decide)
    assert gate.allows(URL(f"{API}/reports"))
    assert not gate.allows(URL(f"{API}/admin"))
    assert len(asked) == 2
    assert not caplog.records
    assert repr(gate) == "by a callable"


def test_S_18_the_repr_names_the_origins() -> None:
    assert repr(Gate(API)) == "https://api.example.com:443, wss://api.example.com:443"


def test_F_42_an_explicit_default_port_is_the_same_origin_whoever_wrote_it() -> None:
    assert Gate("https://api.example.com:443").allows(URL("https://api.example.com/"))
    assert Gate("http://localhost").allows(URL("http://localhost:80/"))
    assert Gate("http://localhost:80").allows(URL("http://localhost/"))


def test_F_42_an_internationalised_name_is_compared_in_its_ascii_form() -> None:
    gate = Gate("https://bücher.example")
    assert gate.allows(URL("https://xn--bcher-kva.example/"))
    assert gate.allows(URL("https://BÜCHER.example/"))
    assert not gate.allows(URL("https://bucher.example/"))
    assert not gate.allows(URL("https://bücher.example./"))


def test_F_42_an_ipv6_address_is_compared_as_it_is_written_by_the_url() -> None:
    gate = Gate("https://[2001:db8::1]:8443")
    assert gate.allows(URL("https://[2001:DB8::1]:8443/"))
    assert not gate.allows(URL("https://[2001:db8::1]/"))
    assert not gate.allows(URL("https://[2001:db8::2]:8443/"))


def test_S_18_a_question_alone_pins_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(None)
    assert gate.allows(URL("https://evil.example/"))
    assert not caplog.records
    assert gate.admits(URL(f"{API}/x"))
    assert not gate.allows(URL("https://evil.example/"))
    assert not gate.admits(URL("https://evil.example/"))
    assert gate.admits(URL(f"{API}/y"))


def test_S_18_of_two_that_were_allowed_at_first_one_is_pinned() -> None:
    gate = Gate(None)
    assert gate.allows(URL("https://a.example/"))
    assert gate.allows(URL("https://b.example/"))
    assert gate.admits(URL("https://b.example/"))
    assert not gate.admits(URL("https://a.example/"))


async def _async_decision(url: URL) -> bool:
    return False


class _AsyncDecision:
    async def __call__(self, url: URL) -> bool:
        return False


@pytest.mark.parametrize("decide", [_async_decision, _AsyncDecision(), dict], ids=repr)
def test_S_18_a_callable_whose_answer_is_always_true_is_refused(decide: Any) -> None:
    with pytest.raises(ConfigurationError, match="plain function"):
        Gate(decide)


def test_S_18_a_callable_has_to_say_true() -> None:
    assert not Gate(lambda url: "yes").allows(URL(API))  # type: ignore[arg-type]


def test_S_18_an_origin_with_an_asterisk_is_refused_for_it_would_match_nothing() -> None:
    with pytest.raises(ConfigurationError, match="origins"):
        Gate("https://*.example.com")
