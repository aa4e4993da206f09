"""Where the token stands in a request, and that the request is afterwards as it was."""

from __future__ import annotations

import pytest
from aiohttp import ClientRequest, FormData
from aiohttp.payload import BytesPayload
from yarl import URL

from aiohttp_oauth_middleware import (
    BearerHeader,
    ConfigurationError,
    FormBody,
    Header,
    InsecureQuery,
    OAuth2Auth,
    Placement,
    StaticToken,
    Token,
)
from tests.middleware.wire import prepared

TOKEN = Token("a-._~+/b==")
FORM = "application/x-www-form-urlencoded"


def body_of(request: ClientRequest) -> bytes:
    assert isinstance(request.body, BytesPayload)
    return bytes(request.body._value)


@pytest.mark.parametrize("field", ["", "X Auth", "X-Auth:", "X-Auth\r\nHost", "X-Auth\n", "é", "X(Auth)"])
def test_S_35_a_field_that_is_none_is_refused(field: str) -> None:
    with pytest.raises(ConfigurationError, match="field"):
        Header(field)


@pytest.mark.parametrize("scheme", ["Bearer ", "two words", "Bearer\r\n", "Bearer\n", "é", '"x"'])
def test_S_35_a_scheme_that_is_no_word_is_refused(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match="scheme"):
        Header(scheme=scheme)


@pytest.mark.parametrize("name", ["", "access token", "a&b", "a=b", "é", "a%20b", "x\n"])
def test_S_35_a_parameter_name_that_would_need_encoding_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        FormBody(name)
    with pytest.raises(ConfigurationError, match="name"):
        InsecureQuery(name)


@pytest.mark.parametrize(
    ("placement", "field", "value", "scheme"),
    [
        (BearerHeader(), "Authorization", "Bearer a-._~+/b==", "bearer"),
        (Header(), "Authorization", "Bearer a-._~+/b==", "bearer"),
        (Header("authorization"), "Authorization", "Bearer a-._~+/b==", "bearer"),
        (Header(scheme="token"), "Authorization", "token a-._~+/b==", "token"),
        (Header("X-Auth-Token", scheme=""), "X-Auth-Token", "a-._~+/b==", ""),
        (Header("PRIVATE-TOKEN", scheme="Key"), "PRIVATE-TOKEN", "Key a-._~+/b==", "key"),
    ],
)
async def test_S_35_a_header_is_set_once_and_taken_out_again(placement: Header, field: str, value: str, scheme: str) -> None:
    assert placement.scheme == scheme
    request = await prepared("GET", "http://127.0.0.1/", headers={"X-Mine": "1"})
    before = list(request.headers.items())
    assert not placement.occupied(request)
    await placement.place(request, TOKEN)
    assert request.headers.getall(field) == [value]
    assert placement.occupied(request)
    await placement.clear(request)
    assert list(request.headers.items()) == before
    await placement.clear(request)
    assert list(request.headers.items()) == before


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION", "aUTHORIZATION"])
async def test_S_35_a_field_is_occupied_in_whatever_case_and_by_an_empty_value_too(name: str) -> None:
    for value in ("Bearer mine", ""):
        request = await prepared("GET", "http://127.0.0.1/", headers={name: value})
        assert BearerHeader().occupied(request)
        assert Header("X-Auth-Token").occupied(request) is False


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"a": "1"}, b"a=1"),
        ({"a": "1", "b": "ä &=+%"}, b"a=1&b=%C3%A4+%26%3D%2B%25"),
        ([("a", "1"), ("a", "2")], b"a=1&a=2"),
        (FormData({"x_access_token": "mine"}), b"x_access_token=mine"),
        ({"access_token_hint": "mine"}, b"access_token_hint=mine"),
        ({"q": "access_token=mine"}, b"q=access_token%3Dmine"),
    ],
)
async def test_S_35_a_form_gets_one_parameter_more_and_is_afterwards_what_it_was(data: object, text: bytes) -> None:
    placement = FormBody()
    request = await prepared("POST", "http://127.0.0.1/", data=data)
    before = list(request.headers.items())
    assert body_of(request) == text
    assert not placement.occupied(request)
    for _ in range(2):
        await placement.place(request, TOKEN)
        assert body_of(request) == text + b"&access_token=a-._~%2B%2Fb%3D%3D"
        assert request.headers.getall("Content-Length") == [str(len(body_of(request)))]
        assert request.headers.getall("Content-Type") == [FORM]
        assert placement.occupied(request)
        await placement.clear(request)
        assert body_of(request) == text
        assert sorted(request.headers.items()) == sorted(before)


async def test_S_35_a_form_given_as_bytes_keeps_its_label_and_an_empty_one_gets_no_ampersand() -> None:
    label = {"Content-Type": f"{FORM}; charset=utf-8"}
    for text, placed in ((b"", b"t=a-._~%2B%2Fb%3D%3D"), (b"a=%41", b"a=%41&t=a-._~%2B%2Fb%3D%3D")):
        request = await prepared("PUT", "http://127.0.0.1/", data=text, headers=label)
        await FormBody("t").place(request, TOKEN)
        assert body_of(request) == placed
        assert request.headers.getall("Content-Type") == [f"{FORM}; charset=utf-8"]
        await FormBody("t").clear(request)
        assert body_of(request) == text
        assert request.headers["Content-Length"] == str(len(text))


@pytest.mark.parametrize("text", [b"access_token=mine", b"a=1&access_token=mine", b"access_token=", b"a=1&access_token=&b=2"])
async def test_S_35_a_form_with_a_token_of_the_users_own_is_occupied(text: bytes) -> None:
    request = await prepared("POST", "http://127.0.0.1/", data=text, headers={"Content-Type": FORM})
    assert FormBody().occupied(request)
    assert not FormBody("other").occupied(request)


@pytest.mark.parametrize("text", [b"access%5Ftoken=mine", b"a=1&access%5ftoken=mine", b"%61ccess_token=mine"])
async def test_S_35_a_form_is_occupied_by_an_encoded_name_too(text: bytes) -> None:
    request = await prepared("POST", "http://127.0.0.1/", data=text, headers={"Content-Type": FORM})
    assert FormBody().occupied(request)


@pytest.mark.parametrize(
    ("method", "kwargs"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("POST", {}),
        ("POST", {"json": {"a": 1}}),
        ("POST", {"data": b"a=1"}),
        ("POST", {"data": "a=1"}),
        ("GET", {"data": {"a": "1"}}),
        ("HEAD", {"data": {"a": "1"}}),
    ],
)
async def test_S_35_a_request_without_a_form_body_is_refused_by_the_form_placement(
    method: str, kwargs: dict[str, object]
) -> None:
    request = await prepared(method, "http://127.0.0.1/", **kwargs)
    before = list(request.headers.items())
    assert not FormBody().occupied(request)
    with pytest.raises(ConfigurationError, match="form body"):
        await FormBody().place(request, TOKEN)
    await FormBody().clear(request)
    assert list(request.headers.items()) == before


async def test_S_35_a_multipart_form_and_a_stream_are_no_form_body() -> None:
    multipart = FormData({"a": "1"}, default_to_multipart=True)
    request = await prepared("POST", "http://127.0.0.1/", data=multipart)
    with pytest.raises(ConfigurationError):
        await FormBody().place(request, TOKEN)


QUERIES = [
    "",
    "a=1",
    "a=%41%20b+c",
    "z",
    "z=",
    "a=1&a=2&b",
    "a=%E4",
    "q=%2F%3F&x=/?:@",
    "q=a;b",
    "sig=abc%3D%3D",
    "x=ä",
    "access_token_hint=1",
    "my_access_token=1",
    "u=https://h/?access_token%3D1",
    "%61=1",
    "a=%C3%A9&a=%c3%a9",
]


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("query", QUERIES)
async def test_S_35_the_query_placement_keeps_the_raw_query_letter_by_letter(query: str, encoded: bool) -> None:
    if encoded and not query.isascii():
        query = "x=%C3%A4"
    url = URL("http://127.0.0.1/p%2Fq%7E" + (f"?{query}" if query else ""), encoded=encoded)
    placement = InsecureQuery()
    request = await prepared("GET", url)
    before = request.url
    text = str(before)
    for _ in range(2):
        assert not placement.occupied(request)
        await placement.place(request, TOKEN)
        rest, _, value = str(request.url).rpartition("access_token=")
        assert rest == text + ("&" if query else "?")
        assert value
        assert request.url.query.getall("access_token") == ["a-._~+/b=="]
        assert placement.occupied(request)
        await placement.clear(request)
        assert str(request.url) == text
        assert request.url.raw_query_string == before.raw_query_string
        assert request.url.raw_path == before.raw_path


@pytest.mark.parametrize("token", ["access_token=x", "a&access_token=b", "a?b=c#d", "%61%", "a+b", "~!$'()*,;:@/"])
async def test_S_36_any_visible_character_survives_in_form_and_query(token: str) -> None:
    request = await prepared("GET", "http://127.0.0.1/?a=1")
    await InsecureQuery().place(request, Token(token))
    assert request.url.query.getall("access_token") == [token]
    assert request.url.raw_fragment == ""
    await InsecureQuery().clear(request)
    assert str(request.url) == "http://127.0.0.1/?a=1"
    form = await prepared("POST", "http://127.0.0.1/", data={"a": "1"})
    await FormBody().place(form, Token(token))
    await FormBody().clear(form)
    assert body_of(form) == b"a=1"


@pytest.mark.parametrize("query", ["access_token=mine", "a=1&access_token=mine&b=2", "access%5Ftoken=mine", "access_token"])
async def test_S_35_a_query_with_a_token_of_the_users_own_is_occupied(query: str) -> None:
    request = await prepared("GET", URL(f"http://127.0.0.1/?{query}", encoded=True))
    assert InsecureQuery().occupied(request)
    assert not InsecureQuery("other").occupied(request)


async def test_S_35_clearing_a_query_in_which_nothing_stands_changes_nothing() -> None:
    request = await prepared("GET", "http://127.0.0.1/?a=1")
    await InsecureQuery().clear(request)
    assert str(request.url) == "http://127.0.0.1/?a=1"


def test_S_22_a_placement_says_what_it_is() -> None:
    assert repr(BearerHeader()) == "BearerHeader()"
    assert repr(Header("X-Auth-Token", scheme="")) == "Header('X-Auth-Token', scheme='')"
    assert repr(Header(scheme="token")) == "Header('Authorization', scheme='token')"
    assert repr(FormBody()) == "FormBody('access_token')"
    assert repr(InsecureQuery("t")) == "InsecureQuery('t')"


def test_S_35_a_placement_is_an_instance_and_may_be_of_the_users_own() -> None:
    class Own:
        scheme = "own"

        def occupied(self, request: ClientRequest) -> bool:
            return False

        async def place(self, request: ClientRequest, token: Token) -> None:
            return None

        async def clear(self, request: ClientRequest) -> None:
            return None

    own: Placement = Own()
    OAuth2Auth(StaticToken("t"), placement=own)
    with pytest.raises(ConfigurationError, match="placement"):
        OAuth2Auth(StaticToken("t"), placement=BearerHeader)  # type: ignore[arg-type]
