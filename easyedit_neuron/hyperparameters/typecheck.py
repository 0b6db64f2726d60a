"""Check a value against a type annotation, converting only what YAML and the command line read differently.

Conversions: an ``int`` or a numeric string to ``float`` (YAML 1.1 reads ``1e-1`` as a string); an integral
``float`` or numeric string to ``int`` (``1e3``); a tuple to a list and back. Everything else must already
have the right type. A ``bool`` is never a number: ``batch_size: yes`` is a mistake and not a 1.
"""

import math
import types
import typing
from dataclasses import dataclass
from typing import Any

from ..utils.plain_trees import check_text
from ..utils.shown import shown
from ..utils.suggest import did_you_mean


class TypeMismatch(Exception):
    """The value does not fit; the message says what was expected and what the value is."""


LARGEST = 1e30
LARGEST_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """Which numbers a field takes; None: no bound of that kind."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def __bool__(self) -> bool:
        return self != Range()

    def __str__(self) -> str:
        if self.most is self.below is None:
            return f"at least {self.least}" if self.above is None else f"greater than {self.above}"
        begin = f"({'-inf' if self.above is None else self.above}" if self.least is None else f"[{self.least}"
        return f"in {begin}, " + (f"{self.below})" if self.most is None else f"{self.most}]")


def convert(value: Any, annotation: Any, limits: Range = Range()) -> Any:
    """Return ``value`` converted to ``annotation``; raise ``TypeMismatch`` if it does not fit.

    ``limits`` hold for every number in it: the value itself, or the items of a list or mapping.
    """
    if annotation is Any or annotation is object:
        return value
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Literal:
        return _literal(value, arguments)
    if origin is typing.Union or origin is types.UnionType:
        return _union(value, arguments, limits)
    if annotation is type(None):
        return _expect(value is None, value, "null")
    if annotation is bool:
        return _expect(isinstance(value, bool), value, "true or false")
    if annotation is int:
        return _within(_int(value), limits)
    if annotation is float:
        return _within(_number(value, "a number"), limits)
    if annotation is str:
        return _text(value)
    container = origin or annotation
    if container in (list, tuple):
        return _sequence(value, container, arguments, limits)
    if container is dict:
        return _mapping(value, arguments, limits)
    return _expect(isinstance(value, container), value, getattr(container, "__name__", str(container)))


def _expect(fits: bool, value: Any, expected: str) -> Any:
    if not fits:
        raise TypeMismatch(f"must be {expected}, not {shown(value)} ({type(value).__name__})")
    return value


def _text(value: Any) -> str:
    _expect(isinstance(value, str), value, "a string")
    try:
        check_text(value)
    except ValueError as problem:
        raise TypeMismatch(str(problem)) from None
    return value


def _number(value: Any, expected: str) -> float:
    _expect(not isinstance(value, bool) and isinstance(value, (int, float, str)), value, expected)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    _expect(not math.isnan(number), value, expected)
    return _bounded(number, value, LARGEST)


def _int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value, value, LARGEST_INTEGER)
    _expect(not isinstance(value, float) or math.isfinite(value), value, "an integer")
    number = _number(value, "an integer")
    _expect(number.is_integer(), value, "an integer")
    return _bounded(int(number), value, LARGEST_INTEGER)


def _bounded(number, value: Any, largest: float):
    """The number; ``TypeMismatch`` where it is infinite, or float32 or 64 bits do not hold it."""
    if not abs(number) <= largest:
        raise TypeMismatch(f"must be at most {largest:g} in size, not {shown(value)}")
    return number


def _within(number, limits: Range):
    if number not in limits:
        raise TypeMismatch(f"must be {limits}, not {number}")
    return number


def _literal(value: Any, choices: tuple) -> Any:
    for choice in choices:
        # Compares the types too: True == 1 and 1 == 1.0 in Python, and neither was meant.
        if type(choice) is type(value) and choice == value:
            return choice
    raise TypeMismatch(f"must be one of the values below, not {shown(value)}: {did_you_mean(value, choices)}")


def _union(value: Any, members: tuple, limits: Range) -> Any:
    # A member that takes the value unchanged wins over one that converts it: "cpu" in int | str stays a
    # string, and the string "1e-1" in float | None becomes a number.
    problems, converted = [], []
    for member in members:
        try:
            result = convert(value, member, limits)
        except TypeMismatch as problem:
            if member is not type(None):
                problems.append(str(problem))
            continue
        if type(result) is type(value) and result == value:
            return result
        converted.append(result)
    if converted:
        return converted[0]
    optional = " (or null)" if type(None) in members else ""
    raise TypeMismatch(" / ".join(problems) + optional)


def _sequence(value: Any, container: type, arguments: tuple, limits: Range) -> Any:
    _expect(isinstance(value, (list, tuple)), value, "a list")
    if not arguments:
        return container(value)
    if container is list or arguments[1:] == (Ellipsis,):
        arguments = (arguments[0],) * len(value)
    _expect(len(value) == len(arguments), value, f"a list of {len(arguments)} values")
    items = []
    for index, (item, annotation) in enumerate(zip(value, arguments)):
        try:
            items.append(convert(item, annotation, limits))
        except TypeMismatch as problem:
            raise TypeMismatch(f"item {index} {problem}") from None
    return container(items)


def _mapping(value: Any, arguments: tuple, limits: Range) -> dict:
    _expect(isinstance(value, dict), value, "a mapping")
    if not arguments:
        return dict(value)
    result = {}
    for key, item in value.items():
        try:
            result[convert(key, arguments[0], limits)] = convert(item, arguments[1], limits)
        except TypeMismatch as problem:
            raise TypeMismatch(f"entry {shown(key)} {problem}") from None
    return result
