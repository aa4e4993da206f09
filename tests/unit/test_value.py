"""The frozen base of every value, and the string that doesn't print."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from collections.abc import Awaitable, Mapping
from typing import Any

import pytest

from aiohttp_oauth_middleware.value import EMPTY, Secret, Value

CANARY = "CANARY-value-7Fjfp0ZBr1KtDRbnfVdmIw"
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Pair(Value):
    __slots__ = ("first", "second")

    first: object
    second: object

    def __init__(self, first: object = None, second: object = None) -> None:
        self._freeze(first=first, second=second)


class Twin(Pair):
    """Same fields, another class."""

    __slots__ = ()


class Triple(Pair):
    __slots__ = ("third",)

    third: object

    def __init__(self, first: object = None, second: object = None, third: object = None) -> None:
        super().__init__(first, second)
        self._freeze(third=third)


class Sealed(Value):
    __slots__ = ("name", "password")
    _hidden = frozenset({"password"})

    name: str
    password: object

    def __init__(self, name: str, password: object = None) -> None:
        self._freeze(name=name, password=password)


class Mapped(Value):
    __slots__ = ("values",)

    values: Mapping[str, object]

    def __init__(self, values: Mapping[str, object] = EMPTY) -> None:
        self._freeze(values=values)


def renderings(thing: object) -> list[str]:
    """Every way in which a thing ends up in a text."""
    record = logging.LogRecord("a", logging.DEBUG, __file__, 1, "%s %r", (thing, thing), None)
    return [repr(thing), str(thing), f"{thing}", repr([thing]), repr({"it": thing}), record.getMessage()]


# Value


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Pair(1, 2), Pair(1, 2), True),
        (Pair(1, 2), Pair(2, 1), False),
        (Pair(), Pair(None, None), True),
        (Pair(1, 2), Twin(1, 2), False),
        (Twin(1, 2), Pair(1, 2), False),
        (Pair(1, 2), Triple(1, 2), False),
        (Triple(1, 2, 3), Triple(1, 2, 3), True),
        (Triple(1, 2, 3), Triple(1, 2, 4), False),
        (Mapped(), Mapped({}), True),
        (Mapped({"a": 1}), Mapped({"a": 1}), True),
        (Mapped({"a": 1}), Mapped({"a": 2}), False),
        (Sealed("a", CANARY), Sealed("a", CANARY), True),
        (Sealed("a", CANARY), Sealed("a", "other"), False),
        (Pair(1, 2), (1, 2), False),
        (Pair(1, 2), None, False),
    ],
)
def test_a_value_equals_one_of_its_own_class_with_the_same_fields(one: Value, other: object, equal: bool) -> None:
    assert (one == other) is equal
    assert (one != other) is not equal
    if equal:
        assert hash(one) == hash(other)


def test_a_value_with_a_mapping_is_hashable_and_a_value_with_a_list_is_not() -> None:
    assert len({Mapped({"a": [1]}), Mapped({"a": [1]}), Mapped()}) == 2
    with pytest.raises(TypeError):
        hash(Pair([]))


def test_values_of_different_classes_are_different_keys() -> None:
    assert len({Pair(1, 2): 1, Twin(1, 2): 2}) == 2


def test_the_fields_of_a_subclass_follow_those_of_its_base() -> None:
    assert Triple._fields == ("first", "second", "third")
    assert repr(Triple(1, 2, 3)) == "Triple(first=1, second=2, third=3)"


@pytest.mark.parametrize("name", ["first", "third", "_hidden", "__dict__"])
def test_S_22_a_value_is_frozen_and_says_so_without_the_value(name: str) -> None:
    value = Pair(CANARY)
    with pytest.raises(AttributeError, match="frozen") as setting:
        setattr(value, name, CANARY)
    with pytest.raises(AttributeError, match="frozen") as deleting:
        delattr(value, name)
    assert CANARY not in str(setting.value) + str(deleting.value)
    assert value == Pair(CANARY)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Pair(), "Pair()"),
        (Pair("", ()), "Pair()"),
        (Pair(EMPTY, {}), "Pair()"),
        (Pair(0, False), "Pair(first=0, second=False)"),
        (Pair(0.0, [0]), "Pair(first=0.0, second=[0])"),
        (Pair("a\r\nb", "é"), r"Pair(first='a\r\nb', second='é')"),
        (Pair(Pair(1), Sealed("a", CANARY)), "Pair(first=Pair(first=1), second=Sealed(name='a', password=…))"),
        (Sealed("a"), "Sealed(name='a')"),
        (Sealed("a", ""), "Sealed(name='a')"),
        (Sealed("a", Secret(CANARY)), "Sealed(name='a', password=…)"),
    ],
)
def test_a_repr_names_what_is_there(value: Value, expected: str) -> None:
    assert repr(value) == expected


@pytest.mark.parametrize("password", [CANARY, [CANARY], {"a": CANARY}, Pair(CANARY)])
def test_S_22_a_hidden_field_is_printed_nowhere(password: object) -> None:
    for text in renderings(Sealed("a", password)):
        assert CANARY not in text
        assert "password=…" in text


def test_S_22_the_repr_of_a_value_half_built_does_not_raise() -> None:
    # A debugger, or a traceback with locals on Python 3.11, prints `self` while its __init__ is failing.
    assert CANARY not in repr(Sealed.__new__(Sealed))


def test_S_22_a_value_has_no_dict_to_dump() -> None:
    with pytest.raises(TypeError):
        vars(Sealed("a", CANARY))


def test_replace_changes_the_named_fields_only() -> None:
    value = Triple(1, 2, 3)
    assert value.replace(second=5) == Triple(1, 5, 3)
    assert value == Triple(1, 2, 3)
    assert type(value.replace()) is Triple
    assert value.__replace__(first=0) == Triple(0, 2, 3)


def test_replace_refuses_a_field_that_is_not_there() -> None:
    with pytest.raises(TypeError, match="fourth"):
        Triple(1, 2, 3).replace(fourth=4)


def test_a_copy_of_a_value_is_the_value() -> None:
    value = Pair([1], Secret(CANARY))
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [Pair(1, "a"), Twin(None, (1, 2)), Triple(1, 2, 3), Mapped({"a": 1}), Mapped()])
def test_a_value_without_secrets_survives_pickling(value: Value, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [Sealed("a", CANARY), Sealed("a", Secret(CANARY)), Pair(Secret(CANARY))])
def test_S_22_a_value_with_secrets_is_not_pickled(value: Value, protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(value, protocol)
    assert CANARY not in str(caught.value)


def test_the_empty_mapping_is_read_only() -> None:
    assert dict(EMPTY) == {}
    with pytest.raises(TypeError):
        EMPTY["a"] = 1  # type: ignore[index]


# Secret


def source() -> str:
    return CANARY


async def source_async() -> str:
    return CANARY


def source_awaitable() -> Awaitable[str]:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_result(CANARY)
    return future


@pytest.mark.parametrize("given", [CANARY, source, source_async, source_awaitable])
def test_S_22_a_secret_is_printed_nowhere(given: Any) -> None:
    for text in renderings(Secret(given)):
        assert CANARY not in text
        assert "source" not in text
        assert "Secret(…)" in text


@pytest.mark.parametrize("given", [CANARY, source, source_async])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_S_22_a_secret_is_not_pickled(given: Any, protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(given), protocol)


def test_S_22_a_secret_has_no_state_to_get() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        Secret("CANARY").__getstate__()


def test_S_22_a_secret_has_no_dict_to_dump() -> None:
    with pytest.raises(TypeError):
        vars(Secret(CANARY))


def test_a_secret_is_revealed_only_on_request() -> None:
    assert Secret(CANARY).reveal() == CANARY
    assert Secret(source).reveal() == CANARY


@pytest.mark.parametrize("given", [CANARY, source, source_async, source_awaitable])
async def test_a_secret_is_read_from_a_string_a_callable_or_a_coroutine_function(given: Any) -> None:
    assert await Secret(given).read() == CANARY


async def test_a_callable_is_called_at_each_use() -> None:
    values = iter(["first", "second", "third"])
    secret = Secret(lambda: next(values))
    assert [secret.reveal(), await secret.read(), secret.reveal()] == ["first", "second", "third"]


def test_reveal_refuses_a_coroutine_function_and_leaves_no_coroutine_behind() -> None:
    # A coroutine that is never awaited is a RuntimeWarning, which is an error here.
    with pytest.raises(TypeError, match=r"await read\(\)"):
        Secret(source_async).reveal()


@pytest.mark.parametrize("returned", [None, b"bytes", 5, ["a"]])
def test_reveal_refuses_what_is_no_string(returned: Any) -> None:
    with pytest.raises(TypeError, match="did not return a string"):
        Secret(lambda: returned).reveal()


@pytest.mark.parametrize("returned", [None, b"bytes", 5, ["a"]])
async def test_read_refuses_what_a_coroutine_function_returns_that_is_no_string(returned: Any) -> None:
    async def broken() -> Any:
        return returned

    with pytest.raises(TypeError, match="did not return a string"):
        await Secret(broken).read()


@pytest.mark.parametrize("returned", [None, b"bytes", 5, ["a"]])
async def test_read_refuses_what_a_callable_returns_that_is_no_string(returned: Any) -> None:
    with pytest.raises(TypeError, match="did not return a string"):
        await Secret(lambda: returned).read()


async def test_what_the_callable_raises_passes_untouched() -> None:
    def broken() -> str:
        raise LookupError("vault sealed")

    with pytest.raises(LookupError, match="vault sealed"):
        Secret(broken).reveal()
    with pytest.raises(LookupError, match="vault sealed"):
        await Secret(broken).read()


def test_of_keeps_a_secret_and_wraps_the_rest() -> None:
    secret = Secret(CANARY)
    assert Secret.of(secret) is secret
    assert Secret.of(CANARY) == secret
    assert Secret.of(source).reveal() == CANARY


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Secret("a"), Secret("a"), True),
        (Secret("a"), Secret("b"), False),
        (Secret("a"), Secret("aa"), False),
        (Secret("é€😀"), Secret("é€😀"), True),
        (Secret("\udc80"), Secret("\udc80"), True),  # what os.environ makes of a byte that is no UTF-8
        (Secret("\udc80"), Secret("a"), False),
        (Secret(source), Secret(source), True),
        (Secret(source), Secret(source_async), False),
        (Secret(source), Secret(CANARY), False),
        (Secret(CANARY), Secret(source), False),
        (Secret("a"), "a", False),
        ("a", Secret("a"), False),
        (Secret("a"), None, False),
    ],
)
def test_secrets_compare_by_string_or_by_callable(one: object, other: object, equal: bool) -> None:
    assert (one == other) is equal
    assert (one != other) is not equal
    if equal:
        assert hash(one) == hash(other)


def test_secrets_are_keys() -> None:
    assert len({Secret("a"), Secret("a"), Secret("b"), Secret(source), Secret(source)}) == 3


@pytest.mark.parametrize(("given", "truth"), [("", False), ("a", True), (" ", True), (source, True), (lambda: "", True)])
def test_a_secret_is_false_only_where_it_is_the_empty_string(given: Any, truth: bool) -> None:
    assert bool(Secret(given)) is truth


def test_a_copy_of_a_secret_is_the_secret() -> None:
    secret = Secret(source)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"it": [secret]})["it"][0] is secret
