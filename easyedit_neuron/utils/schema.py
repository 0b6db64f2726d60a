"""The form that the content of our own JSON files has, and what in a file of others differs from it.

A schema is ``str``, ``int`` (not negative), ``float`` (any finite number), ``bool``, ``None`` or ``object``
(anything); a tuple of schemas, one of which holds; ``[schema]``, a list of such values; ``{str: schema}``, a
mapping with any names; or ``{"name": schema, "other?": schema}``, a mapping with these fields, of which those
with a question mark may be absent. Further fields are left alone.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from ..errors import NeuronEditError
from .shown import shown

DAMAGE = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError),
    *(AssertionError, OSError, SafetensorError),
)
"""What code raises that meets content of another form than the one it was written for."""
_NAMES = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}


def mismatch(value: Any, schema: Any, name: str = "") -> str | None:
    """What is wrong with a value, as ``'weights.a.shape' must be a list, not 3``; None if nothing is."""
    return next(_mismatches(value, schema, name), None)


def _mismatches(value: Any, schema: Any, name: str) -> Iterator[str]:
    if isinstance(schema, tuple):
        problems = [mismatch(value, choice, name) for choice in schema]
        if None not in problems:
            # What a mapping lacks says more than that it is not null.
            yield next((text for text in problems if text and " is missing" in text), problems[-1] or "")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield _must(name, "a list", value)
        else:
            for index, item in enumerate(value):
                yield from _mismatches(item, schema[0], f"{name}[{index}]")
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield _must(name, "a mapping", value)
        else:
            yield from _mismatches_of_fields(value, schema, name)
    elif schema is None:
        if value is not None:
            yield _must(name, "null", value)
    elif not _is(value, schema):
        yield _must(name, _NAMES[schema], value)


def _mismatches_of_fields(value: dict, schema: dict, name: str) -> Iterator[str]:
    prefix = f"{name}." if name else ""
    for field, part in schema.items():
        if field is str:
            for key, item in value.items():
                yield from _mismatches(item, part, prefix + key)
            continue
        key = field.removesuffix("?")
        if key in value:
            yield from _mismatches(value[key], part, prefix + key)
        elif key == field:
            yield f"'{prefix}{key}' is missing"


def _is(value: Any, kind: type) -> bool:
    if kind is object:
        return True
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    if kind is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and abs(value) < 1e308 and math.isfinite(value)
    return isinstance(value, kind)


def _must(name: str, expected: str, value: Any) -> str:
    return f"{repr(name) if name else 'the content'} must be {expected}, not {shown(value)}"


@contextmanager
def damage_is(error: Callable[[str], Exception], what: str) -> Iterator[None]:
    """Turn what code raises about content of an unknown form into ``error`` of one line; errors of ours,
    which say more, pass."""
    try:
        yield
    except NeuronEditError:
        raise
    except DAMAGE as problem:
        reason = str(problem).strip().split("\n")[0]
        raise error(f"{what} ({type(problem).__name__}: {reason})") from problem
