"""JSON and YAML of others: read with bounds, so that no later step meets what it cannot go through or write.

Copying, comparing and writing go through a tree by recursion, and Python's limit for it is 1,000 calls.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 60
"""Levels of lists and mappings inside of each other."""
MOST_VALUES = 200_000
"""Values of a YAML file, where a few lines of aliases can stand for billions."""


def parse_json(text: str | bytes, finite: bool = False) -> Any:
    """The value of a JSON text; ``ValueError`` of one line for a text that is none.

    Refused as well: more than ``DEEPEST`` levels, integers of thousands of digits, halves of surrogate pairs
    (which no file can be written with), and with ``finite`` numbers that are not.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except json.JSONDecodeError:
        raise
    except ValueError as problem:
        raise ValueError(_short(problem)) from None
    check_tree(value, finite=finite)
    return value


def read_json(path: Path, finite: bool = False) -> Any:
    """``parse_json`` of a file in UTF-8; ``OSError`` where it cannot be read."""
    return parse_json(path.read_text(encoding="utf-8"), finite)


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The value of a YAML text, with the bounds of ``parse_json`` and ``MOST_VALUES``; ``ValueError``."""
    try:
        value = yaml.load(text, Loader=loader)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except (yaml.YAMLError, TypeError, AttributeError, ValueError) as problem:
        raise ValueError(_short(problem)) from None
    check_tree(value, MOST_VALUES)
    return value


def check_tree(value: Any, most: int | None = None, finite: bool = False) -> None:
    """``ValueError`` for a tree that is too deep, has more than ``most`` values, or texts that are no
    Unicode; with ``finite`` also for a number that is not."""
    level, count = [value], 0
    for _ in range(DEEPEST + 1):
        following: list[Any] = []
        for item in level:
            if isinstance(item, str):
                check_text(item)
            elif isinstance(item, float):
                if finite and not math.isfinite(item):
                    raise ValueError(f"holds {item}, which is no finite number")
            elif isinstance(item, dict):
                check_texts(item)
                following.extend(item.values())
            elif isinstance(item, (list, tuple)):
                following.extend(item)
            if most is not None and count + len(following) > most:
                raise ValueError(f"holds more than {most:,} values")
        count += len(following)
        level = following
        if not level:
            return
    raise ValueError(_too_deep())


def check_texts(values: Iterable[Any]) -> None:
    """``check_text`` of those values that are texts."""
    for value in values:
        if isinstance(value, str):
            check_text(value)


def check_text(text: str) -> None:
    """``ValueError`` for a text with half of a surrogate pair."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as problem:
            code = ord(text[problem.start])
            raise ValueError(
                f"holds half of a surrogate pair (U+{code:04X}), which is no character"
            ) from None


def _too_deep() -> str:
    return f"is nested more than {DEEPEST} levels deep"


def _short(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    if "integer string conversion" in text:
        return "holds an integer of thousands of digits"
    return text if len(text) <= 500 else f"{text[:400]} ... ({len(text):,} characters)"
