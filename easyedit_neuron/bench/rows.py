"""What is kept of a cell, in one JSON file: every record's shares at every checkpoint, and side effects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..lifelong.measurer import mean_of_kinds
from ..lifelong.run_folder import RunFolder
from ..report.runs import read_run
from ..utils.io import write_text
from ..utils.lists import mean
from ..utils.plain_trees import read_json
from .cells import Cell

COLUMNS = {
    "rel": "rewrite_acc",
    "gen": "rephrase_acc",
    "rel_answered": "rewrite_answer_says",
    "gen_answered": "rephrase_answer_says",
    "rel_judged": "rewrite_answer_judged",
    "gen_judged": "rephrase_answer_judged",
    "rel_answer_equal": "rewrite_answer_exact_match",
    "rel_text_equal": "rewrite_text_exact_match",
}
"""Column -> name in the metrics of a run."""
GROUPS = {"loc": "locality", "port": "portability"}
SIDE_EFFECTS = ("retained", "retained_facts", "first_token_kl", "perplexity", "fluency", "ability")
COSTS = ("seconds_edit", "seconds_evaluate", "memory_mib")


@dataclass(frozen=True)
class CellRows:
    """The rows of a cell.

    Attributes:
        cell: method, data, seed and so on.
        failed: edits that failed.
        records: number of edits -> column -> one share per edit so far, None where a later edit of the same
            fact took its place, or the record has no such prompts.
        model: number of edits -> side effects and costs; "0" is the untouched model.
        stages: stage of the method -> seconds, over the whole run.
        log_bytes: size of the edit log, None where the method has none.
        versions: of the packages.
    """

    cell: Cell
    failed: int
    records: dict[str, dict[str, list[float | None]]]
    model: dict[str, dict[str, Any]]
    stages: dict[str, float]
    log_bytes: int | None
    versions: dict[str, str]

    @classmethod
    def of_run(cls, cell: Cell, folder: Path) -> CellRows:
        """Read a finished run."""
        files, run = RunFolder(folder), read_run(folder)
        if run.summary is None:
            raise DataError(f"{folder}: the run is {run.status}")
        summary, model = run.summary, {}
        for checkpoint, row in zip(run.checkpoints, run.rows):
            values = {name: checkpoint["final"].get(name) for name in SIDE_EFFECTS}
            model[str(checkpoint["edits"])] = values | {name: row[name] for name in COSTS}
        log = list(files.log.glob("*")) if files.log.is_dir() else []
        return cls(
            cell=cell,
            failed=summary["failed"],
            records={str(edits): _columns(finals) for edits, finals in files.read_finals().items()},
            model=model,
            stages=summary["stages"],
            log_bytes=sum(file.stat().st_size for file in log) or None,
            versions=summary["versions"],
        )

    def write(self, folder: Path) -> Path:
        """Write ``<name>.json``, shares with four digits."""
        path = folder / f"{self.cell.name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(_rounded(asdict(self)), ensure_ascii=False) + "\n")
        return path

    @classmethod
    def read(cls, path: Path) -> CellRows:
        try:
            values = read_json(path)
            cell = values.pop("cell")
            return cls(cell=Cell(**cell | {"changes": tuple(cell["changes"])}), **values)
        except (OSError, ValueError, TypeError, KeyError) as problem:
            raise DataError(f"{path}: holds no rows of the bench ({problem})") from None


def read_all(folder: Path) -> list[CellRows]:
    """The rows in a folder, in the order of their names."""
    return [CellRows.read(path) for path in sorted(folder.glob("*.json"))]


def _columns(finals: Sequence[dict[str, Any] | None]) -> dict[str, list[float | None]]:
    columns = {
        column: [mean(final.get(name, ())) if final else None for final in finals]
        for column, name in COLUMNS.items()
    }
    for column, group in GROUPS.items():
        columns[column] = [mean_of_kinds(final[group]) if final else None for final in finals]
    return {
        column: values for column, values in columns.items() if any(value is not None for value in values)
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.6g}") if value > 1 else round(value, 4)
    return value
