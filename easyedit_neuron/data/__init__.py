"""Edit data: the files that users of EasyEdit already have, and the shipped tiny-world, as EasyEdit requests.

A request is ``{"prompt", "subject", "target_new", "ground_truth" (str or None), "rephrase_prompt" (only if
the record has one), "locality": {kind: {"prompt", "ground_truth"}}, "portability": {kind: {...}}}``.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from .. import resources
from ..errors import DataError
from ..utils.suggest import did_you_mean
from .datasets import records_of
from .record import Record, read_records
from .shapes import SHAPES, detect_shape

__all__ = ["load", "retained", "text", "SHAPES"]

LOG = logging.getLogger(__name__)
Invalid = Literal["error", "skip"]
Split = Literal["train", "heldout"]


def load(
    source: str | Path | Sequence[Any],
    shape: str | None = None,
    size: int | None = None,
    invalid: Invalid = "error",
) -> list[dict[str, Any]]:
    """Read edit requests; ``DataError`` names file, record index and field.

    Args:
        source: ``"tiny-world"``, a JSON file with a list of records, such a list, or an object of EasyEdit's
            ``CounterFactDataset``, ``KnowEditDataset`` or ``WikiRecentDataset`` (which read less of a file).
        shape: ``"counterfact"`` (EasyEdit's flat one), ``"counterfact_nested"`` (ROME/MEMIT), ``"zsre"``
            (MEND) or ``"knowedit"``; by default the keys of the first record decide.
        size: number of valid requests to read, from the beginning of the file; by default all.
        invalid: whether a record that makes no valid request is an ``"error"``, or is left out (``"skip"``)
            with a warning that names it.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise DataError(f"size must be an integer of at least 1, not {size!r}")
    _check_choice("value of invalid", invalid, get_args(Invalid))
    if shape is not None:
        _check_choice("data shape", shape, SHAPES)
    if isinstance(source, (str, Path)):
        path = _locate(source, f"edits_{shape or 'knowedit'}.json")
        if str(source) in resources.SHIPPED_DATA and not path.is_file():
            remedy = "use knowedit, counterfact or zsre"
            raise DataError(f"{source} does not come in the shape {shape!r}: {remedy}")
        records = read_records(path)
    else:
        path, records = Path(type(source).__name__), records_of(source)
    convert = SHAPES[shape or detect_shape(path, records[0])]
    requests, skipped = [], 0
    for index, raw in enumerate(records):
        if len(requests) == size:
            break
        try:
            requests.append(convert(Record(path, index, raw)))
        except DataError as problem:
            if invalid == "error":
                raise DataError(f"{problem} (invalid='skip' leaves such records out)") from None
            LOG.warning("left out: %s", problem)
            skipped += 1
    if size is not None and len(requests) < size:
        left_out = f" ({skipped} invalid records left out)" if skipped else ""
        raise DataError(
            f"{path}: {size} edits requested, the file has {len(requests)}{left_out}: ask for fewer"
        )
    if not requests:
        raise DataError(f"{path}: no valid record")
    return requests


def retained(name_or_path: str | Path = "tiny-world") -> list[dict[str, str]]:
    """Facts about subjects that are never edited: ``[{"prompt", "ground_truth", "subject", "relation"}]``.

    Of the shipped world, or of a JSON file with such records.
    """
    path = _locate(name_or_path, "retained.json")
    fields = ("prompt", "ground_truth", "subject", "relation")
    records = [Record(path, index, raw) for index, raw in enumerate(read_records(path))]
    return [{field: record.string(field) for field in fields} for record in records]


def text(name_or_path: str | Path = "tiny-world", split: Split = "train") -> list[str]:
    """The lines of a text file that are not blank: of a file, or of a split of the shipped text."""
    _check_choice("split", split, get_args(Split))
    path = _locate(name_or_path, f"text_{split}.txt")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from None
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{path}: holds no text")
    return lines


def _check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise DataError(f"unknown {what} {value!r}: {did_you_mean(value, choices)}")


def _locate(name_or_path: str | Path, shipped_file: str) -> Path:
    if str(name_or_path) in resources.SHIPPED_DATA:
        return resources.data_dir(str(name_or_path)) / shipped_file
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        suggestion = did_you_mean(name_or_path, resources.SHIPPED_DATA)
        raise DataError(f"no data file {str(name_or_path)!r}, and no shipped data of that name; {suggestion}")
    return path
