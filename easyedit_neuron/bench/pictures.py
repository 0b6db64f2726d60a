"""The bench in pictures: every column over the number of edits, and Rel against the facts that are kept."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..report import figures
from ..studies.plots import Lines, styles
from ..utils.lists import mean
from .rows import CellRows
from .tables import MethodRows, checkpoints, methods

SHARES = {
    "rel": "Rel: edited prompt",
    "gen": "Gen: rephrasings",
    "loc": "Loc: neighbours unchanged",
    "rel_answered": "Rel, answered freely",
}


SHARE = (0.0, 1.03)
Value = Callable[[MethodRows], float | None]


def write_pictures(rows: Sequence[CellRows], folder: Path) -> list[Path]:
    """``lasting-<data>.png`` for every data set with two or more checkpoints; the paths."""
    paths = []
    for data in sorted({row.cell.data for row in rows}):
        counts = checkpoints(rows, data)
        if len(counts) > 1:
            paths.append(folder / f"lasting-{data}.png")
            plots = _plots(rows, data, counts)
            figures.write_png(plots, paths[-1], styles(list(plots[0].series)))
    return paths


def _plots(rows: Sequence[CellRows], data: str, counts: Sequence[int]) -> list[Lines]:
    by_count = {count: methods(rows, data, count) for count in counts}
    labels = sorted({method.label for group in by_count.values() for method in group})
    points = {label: [_of(by_count[count], label) for count in counts] for label in labels}

    def over_edits(
        title: str, value: Value, y_label: str, limits: tuple[float, float] | None = SHARE
    ) -> Lines:
        series = {
            label: ([count for count, method in zip(counts, line) if method], [value(m) for m in line if m])
            for label, line in points.items()
        }
        return Lines(title, series, "edits", y_label, log="x", limits=limits, legend=False)

    plots = [
        over_edits(title, lambda method, name=column: mean(method.values(name)), "share")
        for column, title in SHARES.items()
    ]
    plots.append(over_edits("Facts that it knew before", lambda method: mean(method.facts()), "share"))
    plots.append(over_edits("Perplexity", lambda method: method.model("perplexity"), "per token", None))
    by_known = {
        label: ([mean(m.facts()) or 0.0 for m in line if m], [mean(m.values("rel")) for m in line if m])
        for label, line in points.items()
    }
    look = {"limits": SHARE, "fractions": True, "legend": False}
    return [*plots, Lines("Rel against known facts", by_known, "known facts", "Rel", **look)]


def _of(group: Sequence[MethodRows], label: str) -> MethodRows | None:
    return next((method for method in group if method.label == label), None)
