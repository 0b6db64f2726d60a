"""What was measured beside what the paper prints, as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..evaluation.intervals import mean_interval
from ..lifelong.run_folder import RunFolder
from ..report.runs import read_run
from ..report.table import markdown_line
from ..studies.edit_rows import first_rows
from ..studies.single_edits import record_row
from .entry import Entry
from .measures import OF_RECORDS, of_record
from .running import Request

Interval = tuple[float, float, float]
Cells = dict[str, Interval | float | None]


def comparison(request: Request) -> str:
    """A table for each data set: a line per method and number of edits, below it the paper's numbers and the
    difference where the model is the paper's."""
    entry, parts = request.entry, []
    for data in entry.data:
        lines, group = [], entry.group(data, request.model)
        for label in request.variants:
            measured = _measured(request, data, label)
            published = group.published.get(label) if group else None
            for edits, cells in measured.items():
                lines.append(
                    [label, str(edits), *(_shown(cells[c], _scale(c, entry)) for c in entry.measured)]
                )
                place = _place(entry, edits)
                row = published[place] if published and place is not None else None
                if row is not None:
                    printed = group.shown(label, place, len(entry.columns))
                    lines.append(["  paper", "", *printed, *["-"] * len(entry.beside)])
                    row = [*row, *[None] * len(entry.beside)]
                    lines.append(["  difference", "", *_differences(entry, cells, row)])
        title = f"### {data}\n"
        if group is None:
            title += f"\nAnother model than the paper's ({', '.join(entry.models)}): no difference.\n"
        parts.append(f"{title}\n{_table(['method', 'edits', *entry.measured], lines)}")
    return f"## {entry.name}: {entry.title}\n\n" + "\n".join(parts)


def _measured(request: Request, data: str, label: str) -> dict[int, Cells]:
    """Number of edits -> column -> value, of what there is."""
    variant, columns = request.variants[label], request.entry.measured
    if request.entry.protocol == "single":
        rows = first_rows(request.rows_file(data, variant), request.size(data))
        return {len(rows): {column: _interval(rows, column) for column in columns}} if rows else {}
    folder = request.run_folder(data, variant)
    files = RunFolder(folder)
    if not files.summary.is_file():
        return {}
    beside = {row["edits"]: row for row in read_run(folder).rows}
    measured: dict[int, Cells] = {}
    for edits, finals in files.read_finals().items():
        records = [record_row(final) for final in finals if final is not None]
        measured[edits] = {
            column: _interval(records, column) if column in OF_RECORDS else _of_model(beside[edits], column)
            for column in columns
        }
    return measured


def _interval(rows: Sequence[dict[str, Any]], column: str) -> Interval | None:
    return mean_interval([of_record(row, column) for row in rows])


def _of_model(row: dict[str, Any], column: str) -> float | None:
    if column == "fluency":
        return None if row["fluency"] is None else 100 * row["fluency"]
    if column == "seconds":
        return row["seconds_edit"] / row["edits"] if row["edits"] else None
    if column == "memory_gb":
        return (row["cuda_mib"] or row["memory_mib"]) / 1024
    return row.get(f"ability:{column}")


def _place(entry: Entry, edits: int) -> int | None:
    """Number of the paper's row at that number of edits; a single row stands for every size."""
    if not entry.steps:
        return 0
    return list(entry.steps).index(edits) if edits in entry.steps else None


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
    for column, value in zip(entry.measured, row):
        cell = cells[column]
        if cell is None or value is None:
            texts.append("-")
            continue
        mean = cell[0] if isinstance(cell, tuple) else cell
        texts.append(f"{_scale(column, entry) * mean - value:+.3g}")
    return texts


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"{markdown_line(row)}\n" for row in [head, ["---"] * len(head), *lines])
