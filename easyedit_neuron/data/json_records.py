"""Read a JSON file that holds a list of records."""

import json
from pathlib import Path
from typing import Any

from ..errors import DataError


def read_records(path: Path) -> list[Any]:
    """The non-empty list in a JSON file (UTF-8); ``DataError`` names the file and what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: is not UTF-8 text: {problem.reason} at byte {problem.start}") from None
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise DataError(f"{path}: is not valid JSON: {problem.msg} at {place}") from None
    if not isinstance(content, list):
        raise DataError(f"{path}: must hold a list of records, found {type(content).__name__}")
    if not content:
        raise DataError(f"{path}: holds no records")
    return content
