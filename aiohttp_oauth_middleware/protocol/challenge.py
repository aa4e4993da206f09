"""``WWW-Authenticate`` challenges; :rfc:`9110#section-11.6.1`, :rfc:`6750#section-3`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from ..value import EMPTY, Value

__all__ = ("Challenge", "parse_challenges")

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|\Z))")
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SEPARATOR: Final = re.compile(r"[ \t,]*")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_MOST: Final = 32
_LONGEST: Final = 16_384


class Challenge(Value):
    """One challenge of a ``WWW-Authenticate`` header.

    :param scheme: in lower case, ``"bearer"``.
    :param parameters: by name in lower case; of a repeated one the first counts.
    :param token68: what stands in place of parameters, as in ``Negotiate YII=``.
    """

    __slots__ = ("parameters", "scheme", "token68")

    scheme: str
    parameters: Mapping[str, str]
    token68: str | None

    def __init__(self, scheme: str, parameters: Mapping[str, str] = EMPTY, token68: str | None = None) -> None:
        self._freeze(scheme=scheme.lower(), parameters=dict(parameters), token68=token68)

    @property
    def error(self) -> str | None:
        """``invalid_token``, ``insufficient_scope``, …; None where the request carried no credentials that it knows."""
        return self.parameters.get("error")


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Split the values of ``WWW-Authenticate`` headers into their challenges, in order.

    >>> [c.scheme for c in parse_challenges(['Basic realm="a, b", Bearer error="invalid_token"', "Negotiate"])]
    ['basic', 'bearer', 'negotiate']

    What can't be parsed yields what was understood before the fault: it never raises, for the header is the peer's.
    """
    found: list[Challenge] = []
    for value in values:
        found += _parse(value[:_LONGEST], _MOST - len(found))
    return tuple(found)


def _parse(text: str, most: int) -> list[Challenge]:
    found: list[Challenge] = []
    position = _skip(text, 0)
    while position < len(text) and len(found) < most:
        scheme = _TOKEN.match(text, position)
        if scheme is None:
            break
        position = scheme.end()
        parameters: dict[str, str] = {}
        if position < len(text) and text[position] not in " \t,":
            break  # neither a scheme's end nor a parameter: a fault
        start = _skip(text, position)
        if start > position and "," not in text[position:start] and (token68 := _TOKEN68.match(text, start)):
            found.append(Challenge(scheme.group(), token68=token68.group()))
            position = _skip(text, token68.end())
            continue
        position = start
        faulty = False
        while (name := _TOKEN.match(text, position)) and (equals := _EQUALS.match(text, name.end())):
            quoted = _QUOTED.match(text, equals.end())
            plain = None if quoted else _TOKEN.match(text, equals.end())
            if quoted:
                content, end = _ESCAPED.sub(r"\1", quoted.group(1)), quoted.end()
            elif plain:
                content, end = plain.group(), plain.end()
            else:
                faulty = True
                break
            parameters.setdefault(name.group().lower(), content)
            position = _skip(text, end)
        found.append(Challenge(scheme.group(), parameters))
        if faulty:
            break
    return found


def _skip(text: str, position: int) -> int:
    match = _SEPARATOR.match(text, position)
    return match.end() if match else position
