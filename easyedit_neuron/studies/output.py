"""What a study leaves in its folder: its numbers as CSV, its plots as one picture, and a page with both."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..report import figures
from ..report.html import details, document, table
from ..report.table import number
from ..utils.io import refusing, write_text


@dataclass(frozen=True)
class Table:
    """Rows of numbers and words, written as ``NAME.csv`` and shown on the page.

    ``folded``: the page shows only the title until a click. ``raw``: only a file, for the points of a plot.
    """

    name: str
    title: str
    rows: Sequence[dict[str, Any]]
    folded: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Result:
    """Outcome of a study: page and picture are called ``name``, and ``note`` says what the numbers are.

    ``folder``: where the files go unless ``--out`` names a folder.
    """

    name: str
    title: str
    note: str
    plots: Sequence[figures.Plot]
    tables: Sequence[Table]
    folder: Path | None = None


def write_result(result: Result, out: Path) -> list[Path]:
    """Write ``<table>.csv`` of every table, ``<name>.png`` and ``<name>.html``; return their paths."""
    paths = [write_csv(out / f"{table.name}.csv", table.rows) for table in result.tables]
    if result.plots:
        paths.append(out / f"{result.name}.png")
        with refusing(paths[-1]):
            figures.write_png(result.plots, paths[-1])
    paths.append(out / f"{result.name}.html")
    write_text(paths[-1], page(result))
    return paths


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a line per row, floats with six significant digits; return the path."""
    with refusing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {name: f"{value:.6g}" for name, value in row.items() if isinstance(value, float)}
        writer.writerow(dict(row) | shown)
    write_text(path, text.getvalue())
    return path


def columns_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Names of all columns in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Heading and rows for people."""
    columns = columns_of(rows)
    heading = [name.replace("_", " ") for name in columns]
    return [heading, *([_cell(row.get(name)) for name in columns] for row in rows)]


def page(result: Result) -> str:
    """The study as a page in the look of the report, without scripts; the same bytes for the same numbers."""
    plots = "".join(
        f"<figure><figcaption>{escape(plot.title)}</figcaption>\n{figures.svg(plot, str(index))}</figure>"
        for index, plot in enumerate(result.plots)
    )
    body = [
        f"<header><h1>{escape(result.title)}</h1>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in result.note.split("\n\n")),
        "</header>",
        f'<section><div class="grid">{plots}</div>',
    ]
    for shown in (shown for shown in result.tables if not shown.raw):
        words = {name for row in shown.rows for name, value in row.items() if isinstance(value, str)}
        text = [index for index, name in enumerate(columns_of(shown.rows)) if name in words]
        if shown.folded:
            body.append(details(shown.title, cells(shown.rows), text))
        else:
            body.append(f"<h2>{escape(shown.title)}</h2>{table(cells(shown.rows), text)}")
    return document(result.title, [*body, "</section>"])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return number(value)
    return str(value)
