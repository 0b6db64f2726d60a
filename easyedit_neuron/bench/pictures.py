"""The bench in pictures: every column over the number of edits, and Rel against the facts that are kept."""

from collections.abc import Sequence
from pathlib import Path

from ..evaluation.intervals import mean_interval
from ..report import figures
from ..studies.plots import Lines
from .rows import CellRows
from .tables import MethodRows, checkpoints, methods

SHARES = {
    "rel": "Rel: edited prompt",
    "gen": "Gen: rephrasings",
    "loc": "Loc: neighbours unchanged",
    "rel_answered": "Rel, answered freely",
}


def write_pictures(rows: Sequence[CellRows], folder: Path) -> list[Path]:
    """``lasting-<data>.png`` for every data set with two or more checkpoints; the paths."""
    paths = []
    for data in sorted({row.cell.data for row in rows}):
        counts = checkpoints(rows, data)
        if len(counts) > 1:
            paths.append(folder / f"lasting-{data}.png")
            figures.write_png(_plots(rows, data, counts), paths[-1])
    return paths


def _plots(rows: Sequence[CellRows], data: str, counts: Sequence[int]) -> list[Lines]:
    by_count = {count: methods(rows, data, count) for count in counts}
    labels = sorted({method.label for group in by_count.values() for method in group})
    points = {label: [_of(by_count[count], label) for count in counts] for label in labels}

    def over_edits(title: str, value, y_label: str) -> Lines:
        series = {}
        for label, line in points.items():
            present = [(count, method) for count, method in zip(counts, line) if method is not None]
            series[label] = [count for count, _ in present], [value(method) for _, method in present]
        return Lines(title, series, "edits", y_label, log="x")

    plots = [
        over_edits(title, lambda m, c=column: _mean(m.values(c)), "share") for column, title in SHARES.items()
    ]
    plots.append(over_edits("facts that it knew before", lambda m: (m.retained() or (None,))[0], "share"))
    plots.append(over_edits("perplexity", lambda m: m.model("perplexity"), "per token"))
    return plots


def _of(group: Sequence[MethodRows], label: str) -> MethodRows | None:
    return next((method for method in group if method.label == label), None)


def _mean(values: Sequence[float | None]) -> float | None:
    interval = mean_interval(values)
    return None if interval is None else interval[0]
