"""The records of the bench: without those that must not be reported, in the order of a seed."""

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.files import read_records
from ..errors import DataError
from ..utils.io import write_text
from ..utils.plain_trees import read_json
from ..utils.schema import mismatch

REAL_WORLD = "real-world"


@dataclass(frozen=True)
class Source:
    """A data set of the bench.

    Attributes:
        name: in tables and names of files.
        file: its records; None for the shipped real-world, of which the part ``report`` is used.
        folder: for the files in the order of each seed.
        left_out: ``case_id`` of records that are left out.
        neighbors: at most so many ``neighborhood_prompts`` of a record are asked (ROME's shape).
        retained, text: files for ``data.retained`` and ``data.text``; None: the data set's own.
    """

    name: str
    file: Path | None
    folder: Path
    left_out: frozenset[int | str] = frozenset()
    neighbors: int = 5
    retained: Path | None = None
    text: Path | None = None

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        assert self.file is not None
        return [
            _with_neighbors(record, self.neighbors)
            for record in read_records(self.file)
            if not self._is_left_out(record)
        ]

    def _is_left_out(self, record: Any) -> bool:
        case = record.get("case_id") if isinstance(record, dict) else None
        return isinstance(case, (int, str)) and case in self.left_out

    def ordered(self, seed: int) -> Path:
        """File of all records, shuffled by the seed. A run that was begun with other ones refuses it."""
        path = self.folder / f"{self.name}-{seed}.json"
        records = list(self.records)
        random.Random(seed).shuffle(records)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(records, ensure_ascii=False))
        return path


def _with_neighbors(record: Any, count: int) -> Any:
    prompts = record.get("neighborhood_prompts") if isinstance(record, dict) else None
    return record | {"neighborhood_prompts": prompts[:count]} if isinstance(prompts, list) else record


def left_out(file: Path) -> frozenset[int | str]:
    """``case_id`` of a JSON list, or of an object whose values are such lists (its other values are
    comments); ``DataError`` for a file of another form."""
    try:
        content = read_json(file)
    except (OSError, ValueError) as problem:
        raise DataError(f"{file}: not readable: {problem}") from None
    problem = mismatch(content, ([object], {str: object}))
    lists = [content] if isinstance(content, list) else [] if problem else list(content.values())
    cases = [case for cases in lists if isinstance(cases, list) for case in cases]
    problem = problem or mismatch(cases, [(int, str)], "case_id")
    if problem is not None:
        raise DataError(f"{file}: {problem}")
    return frozenset(cases)
