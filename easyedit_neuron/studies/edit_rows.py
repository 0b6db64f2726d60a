"""The rows of single edits on the disk, a line of JSON each; several processes may append to one file."""

import json
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..hyperparameters.variant import Variant
from ..utils.io import append_text, write_text


def rows_file(folder: Path, data_name: str, method: str) -> Path:
    """The file of a method's rows."""
    return folder / f"{Path(data_name).stem}-{Variant.of(method).file_name}.jsonl"


def read_rows(file: Path) -> dict[int, dict[str, Any]]:
    """Number of the record -> what ``measure_edit`` has returned for it, in the order of the numbers.

    A line without a number is of the record of its own position. A last line that a kill has cut off is left
    out; ``DataError`` for any other that is no row.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    rows: dict[int, dict[str, Any]] = {}
    for position, line in enumerate(text.split("\n")[:-1]):
        try:
            row = json.loads(line)
            rows[row.pop("record", position)] = row
        except (ValueError, AttributeError) as problem:
            reason = f"line {position + 1}: no row of an edit ({problem}); remove it"
            raise DataError(f"{file}, {reason}") from None
    return dict(sorted(rows.items()))


def first_rows(file: Path, count: int) -> list[dict[str, Any]]:
    """The rows of the first ``count`` records, of those that there are."""
    return [row for number, row in read_rows(file).items() if number < count]


def add_row(file: Path, number: int, row: dict[str, Any]) -> None:
    """Append the row of a record."""
    append_text(file, json.dumps({"record": number, **row}) + "\n")


def mend(file: Path) -> None:
    """Cut off what a kill has left of a last line, so that the next one begins on its own."""
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        if not text.endswith("\n") and text:
            write_text(file, text[: text.rfind("\n") + 1])
