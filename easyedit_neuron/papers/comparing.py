"""What was measured beside what the paper prints, as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..evaluation.intervals import mean_interval
from ..lifelong.run_folder import RunFolder
from ..report.runs import read_run
from ..studies.single_edits import read_rows
from .entry import Entry, Rows
from .measures import KINDS, OF_RECORDS, shares
from .running import Request

Interval = tuple[float, float, float]
Cells = dict[str, Interval | float | None]


def comparison(request: Request) -> str:
    """A table for each data set: a line per method and number of edits, below it the paper's numbers and the
    difference where the model is the paper's."""
    entry, parts = request.entry, []
    for data in entry.data:
        lines, another = [], []
        for label, variant in request.variants.items():
            measured = _measured(request, data, label)
            checkpoint = request.checkpoint(variant)
            group = entry.group(data, checkpoint) if checkpoint else None
            if group is None:
                another.append(label)
            published = group.published.get(label) if group else None
            for number, (edits, cells) in enumerate(measured.items()):
                lines.append(
                    [label, str(edits), *(_shown(cells[c], _scale(c, entry)) for c in entry.columns)]
                )
                row = _row(entry, published, edits, number)
                if row is not None:
                    lines.append(["  paper", "", *("-" if value is None else f"{value:g}" for value in row)])
                    lines.append(["  difference", "", *_differences(entry, cells, row)])
        title = f"### {data}\n"
        if another:
            models = ", ".join(entry.models)
            title += f"\nAnother model than the paper's ({models}): no difference for {', '.join(another)}.\n"
        parts.append(f"{title}\n{_table(['method', 'edits', *entry.columns], lines)}")
    return f"## {entry.name}: {entry.title}\n\n" + "\n".join(parts)


def _measured(request: Request, data: str, label: str) -> dict[int, Cells]:
    """Number of edits -> column -> value, of what there is."""
    variant, columns = request.variants[label], request.entry.columns
    if request.entry.protocol == "single":
        rows = read_rows(request.rows_file(data, variant))[: request.size(data)]
        return {len(rows): {column: _of_rows(rows, column) for column in columns}} if rows else {}
    folder = request.run_folder(data, variant)
    files = RunFolder(folder)
    if not files.summary.is_file():
        return {}
    beside = {row["edits"]: row for row in read_run(folder).rows}
    measured: dict[int, Cells] = {}
    for edits, finals in files.read_finals().items():
        records = [shares(final, columns) for final in finals if final is not None]
        cells: Cells = {
            c: mean_interval([record[c] for record in records]) for c in columns if c in OF_RECORDS
        }
        measured[edits] = cells | {c: _of_model(beside[edits], c) for c in columns if c not in OF_RECORDS}
    return measured


def _of_rows(rows: Sequence[dict[str, Any]], column: str) -> Interval | None:
    if column in KINDS:
        group, *names = KINDS[column]
        kinds = [[row["kinds"].get(f"{group}.{name}") for name in names] for row in rows]
        values = [next((value for value in own if value is not None), None) for own in kinds]
    else:
        factor = 100 if column == "fluency" else 1
        values = [None if row.get(column) is None else factor * row[column] for row in rows]
    return mean_interval(values)


def _of_model(row: dict[str, Any], column: str) -> float | None:
    if column == "fluency":
        return None if row["fluency"] is None else 100 * row["fluency"]
    if column == "seconds":
        return row["seconds_edit"] / row["edits"] if row["edits"] else None
    if column == "memory_gb":
        return (row["cuda_mib"] or row["memory_mib"]) / 1024
    return row.get(f"ability:{column}")


def _row(entry: Entry, published: Rows | None, edits: int, number: int) -> list[float | None] | None:
    """The paper's row at that number of edits; a single row stands for every size."""
    if not published:
        return None
    if not entry.steps:
        return published[0]
    return published[entry.steps.index(edits)] if edits in entry.steps else None


def _scale(column: str, entry: Entry) -> float:
    """What a column is multiplied with: shares may be printed as percentages."""
    return entry.scale if column in OF_RECORDS else 1.0


def _shown(cell: Interval | float | None, scale: float) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, tuple):
        mean, low, high = (scale * value for value in cell)
        return f"{mean:.3g} [{low:.3g}, {high:.3g}]"
    return f"{cell:.3g}"


def _differences(entry: Entry, cells: Cells, row: Sequence[float | None]) -> list[str]:
    texts = []
    for column, value in zip(entry.columns, row):
        cell = cells[column]
        if cell is None or value is None:
            texts.append("-")
            continue
        mean = cell[0] if isinstance(cell, tuple) else cell
        texts.append(f"{_scale(column, entry) * mean - value:+.3g}")
    return texts


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
