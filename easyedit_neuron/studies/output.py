"""What a study leaves in its folder: its numbers as CSV, one picture of its plots, and a page with both."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..errors import NeuronEditError
from ..report import draw
from ..report.html import details, document, table
from ..report.table import number
from ..utils.io import refusing, write_text


@dataclass(frozen=True)
class Plot:
    """One pair of axes; ``paint`` draws on them, ``size`` is in inches."""

    title: str
    paint: Callable[[Any], None]
    size: tuple[float, float] = (4.2, 2.9)


@dataclass(frozen=True)
class Table:
    """Rows of numbers and words that become ``NAME.csv`` and a table of the page.

    Attributes:
        name: of the file.
        title: above it in the page.
        rows: dictionaries; columns in the order in which they first occur.
        folded: whether the page shows it behind its title.
        raw: a file alone, for the points of a plot.
    """

    name: str
    title: str
    rows: Sequence[dict[str, Any]]
    folded: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Result:
    """What a study found: a title, what the numbers are, plots and tables."""

    name: str
    title: str
    note: str
    plots: Sequence[Plot]
    tables: Sequence[Table]


def write_study(result: Result, out: Path) -> list[Path]:
    """Writes ``<table>.csv`` of every table, ``<name>.png`` and ``<name>.html``; the paths, in this order.

    Raises:
        NeuronEditError: matplotlib is not installed; nothing is written then.
        StateError: a file cannot be written.
    """
    need_plots()
    with refusing(out):
        out.mkdir(parents=True, exist_ok=True)
    paths = [write_csv(out / f"{made.name}.csv", made.rows) for made in result.tables]
    if result.plots:
        paths.append(out / f"{result.name}.png")
        with refusing(paths[-1]):
            write_png(result.plots, paths[-1])
    paths.append(out / f"{result.name}.html")
    write_text(paths[-1], page(result))
    return paths


def need_plots() -> None:
    """``NeuronEditError`` where matplotlib is not installed: before the work is done rather than after it."""
    if not draw.available():
        raise NeuronEditError(draw.INSTALL)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """One line per row, floats to six digits; returns the path."""
    text = io.StringIO()
    columns = columns_of(rows)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        )
    write_text(path, text.getvalue())
    return path


def columns_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Names of all columns, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Heading and rows as people read them."""
    columns = columns_of(rows)
    return [
        [name.replace("_", " ") for name in columns],
        *([_cell(row.get(name)) for name in columns] for row in rows),
    ]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of Markdown, numbers to the right."""
    head, *body = cells(rows)
    right = [
        "---:" if all(isinstance(row.get(name), (int, float, type(None))) for row in rows) else "---"
        for name in columns_of(rows)
    ]
    lines = [head, right, *body]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def write_png(plots: Sequence[Plot], path: Path, dpi: int = 130) -> None:
    """All plots in one picture, three in a row (four: two), each with its title above and its legend
    below."""
    columns = min(3, len(plots)) if len(plots) != 4 else 2
    rows = [plots[start : start + columns] for start in range(0, len(plots), columns)]
    width = max(sum(plot.size[0] for plot in row) for row in rows)
    heights = [max(plot.size[1] for plot in row) + 0.55 for row in rows]
    with draw.themed("png") as new:
        figure = new(figsize=(width, sum(heights)), layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        for place, row in zip(
            _listed(figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)), rows
        ):
            widths = [plot.size[0] for plot in row]
            rest = width - sum(widths)
            ratios = [*widths, rest] if rest > 0.5 else widths
            for spot, plot in zip(
                _listed(place.subfigures(1, len(ratios), width_ratios=ratios, squeeze=False)), row
            ):
                axes = spot.add_subplot()
                axes.set_title(plot.title)
                plot.paint(axes)
                _legend(spot, axes, plot.size[0])
        figure.savefig(path, dpi=dpi, metadata={"Software": None})


def page(result: Result) -> str:
    """The study as a page of the report's look, without scripts; the same bytes for the same numbers."""
    salts = draw.salts()
    figures = "".join(
        f"<figure><figcaption>{escape(plot.title)}</figcaption>\n{_svg(plot, next(salts))}</figure>"
        for plot in result.plots
    )
    body = [
        f"<header><h1>{escape(result.title)}</h1>",
        *(f"<p>{escape(part)}</p>" for part in result.note.split("\n\n")),
        "</header>",
        f'<section><div class="grid">{figures}</div>',
    ]
    for made in (made for made in result.tables if not made.raw):
        text = [
            at
            for at, name in enumerate(columns_of(made.rows))
            if any(isinstance(row.get(name), str) for row in made.rows)
        ]
        if made.folded:
            body.append(details(made.title, cells(made.rows), text))
        else:
            body.append(f"<h2>{escape(made.title)}</h2>{table(cells(made.rows), text)}")
    return document(result.title, [*body, "</section>"])


def _svg(plot: Plot, salt: str) -> str:
    with draw.themed(salt) as new:
        figure = new(figsize=plot.size, layout="constrained")
        axes = figure.add_subplot()
        plot.paint(axes)
        _legend(figure, axes, plot.size[0])
        return draw.svg_of(figure, salt, plot.title)


def _legend(place, axes, width: float) -> None:
    lines, labels = axes.get_legend_handles_labels()
    if labels:
        widths = [0.5 + 0.068 * len(label) for label in labels]
        columns = len(labels) if sum(widths) <= width else max(1, int(width / max(widths)))
        place.legend(
            lines,
            labels,
            loc="outside lower center",
            fontsize=8,
            handlelength=2.2,
            columnspacing=1.0,
            ncols=columns,
        )


def _listed(places) -> list:
    return list(places.flat)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return str(value)
