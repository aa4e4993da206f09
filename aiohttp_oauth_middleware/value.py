"""What every room builds its values from: :class:`Value`, a frozen base, and :class:`Secret`, a string that doesn't print.

A frozen dataclass costs about 0.8 ms to define, and some twenty values lie on the import path of the first example, so the
base is written by hand.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

from .errors import ConfigurationError

__all__ = ("EMPTY", "Secret", "Value", "check_flags", "check_number")

EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


class Value:
    """A frozen value: equal by its fields, hashable, and silent about what it hides.

    A subclass names its fields in ``__slots__``, takes them under the same names in ``__init__``, and hands them to
    :meth:`_freeze`. Fields named in ``_hidden`` are printed as ``…``.
    """

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _hidden: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(slot for base in reversed(cls.__mro__) for slot in vars(base).get("__slots__", ()))
        cls._hidden = frozenset().union(*(getattr(base, "_hidden", frozenset()) for base in cls.__mro__))

    def _freeze(self, **fields: object) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; make another with replace({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _astuple(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._astuple() == other._astuple()

    def __hash__(self) -> int:
        return hash((type(self), *(v for v in self._astuple() if not isinstance(v, Mapping))))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}=…" if name in self._hidden else f"{name}={value!r}"
            for name in self._fields
            if (value := getattr(self, name, None)) not in (None, "", (), EMPTY)  # one that was refused is half built
        )
        return f"{type(self).__name__}({shown})"

    def replace(self, **changes: object) -> Self:
        """The same value with the given fields changed.

        >>> from aiohttp_oauth_middleware.token import Token
        >>> Token("abc", scope="read").replace(scope="write").scope
        'write'
        """
        fields = {name: getattr(self, name) for name in self._fields} | changes
        try:
            return type(self)(**fields)
        finally:
            fields.clear()  # a traceback that shows locals shall not show these
            changes.clear()

    __replace__ = replace

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        fields: dict[str, object] = self.__getstate__()
        return _rebuild, (type(self), {name: dict(v) if isinstance(v, Mapping) else v for name, v in fields.items()})

    def __getstate__(self) -> Any:
        if self._hidden:
            raise TypeError(f"{type(self).__name__} carries secrets and is not pickled")
        return {name: getattr(self, name) for name in self._fields}


def _rebuild(cls: type[Value], fields: dict[str, object]) -> Value:
    return cls(**fields)


class Secret:
    """A secret string, or a callable that yields one; neither its ``repr`` nor a pickle shows it.

    A callable is called at each use, so that a secret that is rotated (a mounted file, a vault) is read afresh. It may be a
    coroutine function, except where :meth:`reveal` is called directly.

    >>> Secret("s3cr3t")
    Secret(…)
    """

    __slots__ = ("_source",)

    def __init__(self, source: str | Callable[[], str | Awaitable[str]]) -> None:
        if isinstance(source, type) or not (isinstance(source, str) or callable(source)):
            del source
            raise ConfigurationError("Secret: give a string, or a callable that returns one")
        self._source = source

    @property
    def is_constant(self) -> bool:
        """Whether it is a string, and no callable whose answer may change."""
        return isinstance(self._source, str)

    @classmethod
    def of(cls, source: str | Secret | Callable[[], str | Awaitable[str]]) -> Secret:
        """*source* itself where it is a Secret already."""
        return source if isinstance(source, Secret) else cls(source)

    def reveal(self) -> str:
        """The secret, in the clear. Raises TypeError where only :meth:`read` can fetch it."""
        value = self._source if isinstance(self._source, str) else self._source()
        if not isinstance(value, str):
            if inspect.iscoroutine(value):
                value.close()
            raise TypeError("this Secret's callable did not return a string; if it is a coroutine function, await read()")
        return value

    async def read(self) -> str:
        """The secret, in the clear, whether the callable is a coroutine function or not."""
        if isinstance(self._source, str):
            return self._source
        value = self._source()
        if inspect.isawaitable(value):
            value = await value
        if not isinstance(value, str):
            raise TypeError("this Secret's callable did not return a string")
        return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        if isinstance(self._source, str) and isinstance(other._source, str):
            mine, theirs = (source.encode("utf-8", "surrogatepass") for source in (self._source, other._source))
            import hmac  # seldom needed

            return hmac.compare_digest(mine, theirs)
        return self._source == other._source

    def __hash__(self) -> int:
        return hash(self._source)

    def __bool__(self) -> bool:
        return self._source != ""

    def __repr__(self) -> str:
        return "Secret(…)"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")

    def __getstate__(self) -> Any:
        raise TypeError("a Secret is not pickled")


def check_number(argument: str, value: object, unit: str, *, above: float | None = None, least: float = 0) -> None:
    """Raise ConfigurationError unless *value* is a finite number above *above*, or of *least* or more.

    >>> check_number("timeout", 30.0, "seconds", above=0)
    """
    try:
        fits = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (value >= least if above is None else value > above)
        )
    except OverflowError:  # an int that is no float
        fits = False
    if not fits:
        bound = f"{least} or more" if above is None else f"above {above}"
        raise ConfigurationError(f"{argument} must be a number of {unit}, {bound}")


def check_flags(owner: str, **flags: object) -> None:
    """Raise ConfigurationError unless all are bools: a setting that reads ``"false"`` is true.

    >>> check_flags("Client", insecure_http=False)
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"{owner}: {name} must be True or False")
