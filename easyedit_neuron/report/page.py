"""The report as one HTML file: no scripts, nothing from elsewhere, the same bytes for the same runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..lifelong.run_folder import RunFolder
from ..utils.io import refusing, write_text
from . import draw
from .html import details, document, table
from .panels import POSITION, Bars, Panel, Section, sections
from .runs import Run, differing, read_runs, setting
from .table import LEGEND, number, results, shown

FAILED_SHOWN = 20  # failed edits per run


def write_report(folders: Sequence[str | Path], path: str | Path) -> Path:
    """Reads run folders (or sweeps) and writes their page, all of it or nothing; without plots where
    matplotlib is not installed.

    Raises:
        DataError: a folder is not a run, or a file of a run cannot be read.
        StateError: the page cannot be written.
    """
    return write_page(read_runs(folders), path)


def write_page(runs: Sequence[Run], path: str | Path) -> Path:
    """``write_report`` of runs that have been read."""
    path = Path(path)
    text = page(runs, plots=draw.available())
    with refusing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def write_pictures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """One PNG per section of the page; StateError where one cannot be written."""
    paths = []
    for section in sections(runs):
        if section.panels:
            paths.append(folder / f"{section.name}.png")
            with refusing(paths[-1]):
                draw.section_png(section, runs, paths[-1])
    return paths


def write_look(runs: Sequence[Run], folder: Path) -> None:
    """``report.html``, and the plots as pictures in ``plots`` where matplotlib is installed."""
    if draw.available():
        write_pictures(runs, folder / "plots")
    write_page(runs, folder / "report.html")


def page(runs: Sequence[Run], plots: bool = True) -> str:
    """The whole page.

    Args:
        runs: what :func:`.runs.read_runs` gave.
        plots: False leaves the drawings out (where matplotlib is not installed); the numbers are there either
            way.
    """
    parts = sections(runs)
    title = f"Lifelong editing: {runs[0].label}" if len(runs) == 1 else f"Lifelong editing: {len(runs)} runs"
    links = [
        ("results", "Results"),
        *((part.name, part.title) for part in parts if part.panels),
        ("settings", "Settings"),
    ]
    painter = Painter(runs, plots)
    body = [
        f"<header><h1>{escape(title)}</h1>",
        *_introduction(runs, plots),
        "<nav>"
        + " ".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in links)
        + "</nav></header>",
        '<section><h2 id="results">Results</h2>',
        f'<p class="note">{escape(LEGEND)}</p>',
        table(shown(runs), text=(-1,)),
        details("All columns, as in the CSV", _everything(runs)),
        "</section>",
        painter.legend(),
        *(text for part in parts if part.panels for text in painter.section(part)),
        *_missing(parts),
        *_meanings(runs),
        *_failed(runs),
        *_settings(runs),
    ]
    return document(title, body)


class Painter:
    """Sections with their drawings."""

    def __init__(self, runs: Sequence[Run], plots: bool):
        self.runs, self.plots = runs, plots
        self._styles, self._salts = draw.styles(runs), draw.salts()

    def legend(self) -> str:
        """Colour and marker of every run; it stays at the top of the window."""
        if not self.plots:
            return ""
        keys = "".join(
            f'<span class="key">{draw.swatch_svg(style, next(self._salts))}{escape(run.label)}</span>'
            for run, style in zip(self.runs, self._styles)
        )
        return f'<div class="legend">{keys}</div>'

    def section(self, section: Section) -> Iterator[str]:
        """Heading, note, panels, and what belongs below them."""
        yield f'<section><h2 id="{section.name}">{escape(section.title)}</h2>\n<p class="note">{escape(section.note)}</p>'
        yield '<div class="grid">'
        for panel in section.panels:
            yield self._figure(panel)
        yield "</div>"
        if section.name == "drift":
            title = "By weight, at the last checkpoint: mean and standard deviation over rows"
            yield details(title, _weights(self.runs), text=(1,))
        yield "</section>"

    def _figure(self, panel: Panel | Bars) -> str:
        picture = draw.panel_svg(panel, self._styles, next(self._salts)) if self.plots else ""
        if isinstance(panel, Bars):
            caption, cells = "", _lengths(panel)
            picture += self._chips(panel)
        else:
            caption, cells = _aside(panel), _points(panel)
        numbers = details("Numbers", cells)
        return (
            f"<figure><figcaption>{escape(panel.title)}{caption}</figcaption>\n{picture}\n{numbers}</figure>"
        )

    def _chips(self, panel: Bars) -> str:
        if not self.plots:
            return ""
        return (
            '<div class="chips">'
            + "".join(
                f'<span class="key">{draw.chip_svg(color, hatch, next(self._salts))}{escape(name)}</span>'
                for name, (color, hatch) in zip(panel.parts, draw.part_colors(len(panel.parts)))
            )
            + "</div>"
        )


def _introduction(runs: Sequence[Run], plots: bool) -> Iterator[str]:
    for name, values in (("Model", [run.model for run in runs]), ("Edits of", [run.data for run in runs])):
        yield f"<p>{name} {', '.join(f'<code>{escape(value)}</code>' for value in dict.fromkeys(values))}</p>"
    unfinished = [f"{run.label} ({run.status})" for run in runs if run.summary is None]
    if unfinished:
        yield f'<p class="warn">Not finished, and shown as far as they are: {escape("; ".join(unfinished))}</p>'
    if not plots:
        yield f'<p class="warn">Without plots: {escape(draw.INSTALL)}</p>'


def _everything(runs: Sequence[Run]) -> list[list[str]]:
    made = results(runs)
    rows = [[name, *(_cell(row.get(name)) for row in made.rows)] for name in made.columns if name != "run"]
    return [["", *(run.label for run in runs)], *rows]


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _plain(value)


def _aside(panel: Panel) -> str:
    texts = [f"dotted: untouched model, {number(panel.reference)}"] if panel.reference is not None else []
    texts += [f"no value: {', '.join(panel.missing)}"] if panel.missing else []
    return f"<span>{escape('; '.join(texts))}</span>" if texts else ""


def _points(panel: Panel) -> list[list[str]]:
    found = [dict(zip(series.x, series.y)) for series in panel.series]
    rows = [["untouched", *[number(panel.reference)] * len(found)]] if panel.reference is not None else []
    rows += [
        [number(x), *(number(points.get(x)) for points in found)]
        for x in sorted({x for points in found for x in points})
    ]
    head = "up to position" if panel.x_label == POSITION else panel.x_label
    return [[head, *(series.label for series in panel.series)], *rows]


def _lengths(panel: Bars) -> list[list[str]]:
    rows = [[parts[row] for parts in panel.parts.values()] for row in range(len(panel.labels))]
    return [
        ["run", *panel.parts, "together"],
        *([label, *map(number, values), number(sum(values))] for label, values in zip(panel.labels, rows)),
    ]


def _weights(runs: Sequence[Run]) -> list[list[str]]:
    head = ["run", "weight", "Wasserstein", "std", "Wasserstein of row lengths", "cosine", "std", "L2", "std"]
    rows = []
    for run in runs:
        for name, drift in (run.checkpoints[-1]["drift"] if run.last else {}).items():
            values = [*drift["wasserstein"], drift.get("wasserstein_norms"), *drift["cosine"], *drift["l2"]]
            rows.append([run.label, name, *map(number, values)])
    return [head, *rows]


def _missing(parts: Sequence[Section]) -> Iterator[str]:
    missing = [title for part in parts for title in part.missing]
    if missing:
        yield f'<p class="missing">Measured by none of the runs, and left out: {escape(", ".join(missing))}.</p>'


def _meanings(runs: Sequence[Run]) -> Iterator[str]:
    """What ``python -m easyedit_neuron.studies.meanings --run`` has left in the runs' folders."""
    found = [(run, files.meanings) for run in runs if (files := RunFolder(run.folder)).meanings.is_file()]
    if not found:
        return
    yield (
        '<section><h2 id="meanings">What the most changed neurons say</h2>\n<p class="note">Tokens that a value vector points '
        "at through the unembedding, in the untouched model and at the end of the run.</p>"
    )
    for run, path in found:
        try:
            cells = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        except (OSError, UnicodeDecodeError) as problem:
            raise DataError(f"{path}: cannot be read: {problem}") from problem
        if not cells or any(len(row) != len(cells[0]) or not row for row in cells):
            raise DataError(f"{path}: not a table of neurons; write it again")
        yield details(run.label, cells, text=range(3, len(cells[0])))
    yield "</section>"


def _failed(runs: Sequence[Run]) -> Iterator[str]:
    found = [(run, [edit for edit in run.edits if edit.reason is not None]) for run in runs]
    if not any(edits for _, edits in found):
        return
    yield '<section><h2 id="failed">Failed edits</h2>\n<p class="note">Each was rolled back; the run went on without it.</p>'
    rows = [["run", "position", "edit", "reason"]]
    for run, edits in found:
        rows += [
            [run.label, f"{edit.position + 1:,}", edit.text, edit.reason] for edit in edits[:FAILED_SHOWN]
        ]
        if len(edits) > FAILED_SHOWN:
            rows.append([run.label, "", f"and {len(edits) - FAILED_SHOWN:,} more, in edits.jsonl", ""])
    yield table(rows, text=(2, 3))
    yield "</section>"


def _settings(runs: Sequence[Run]) -> Iterator[str]:
    yield '<section><h2 id="settings">Settings</h2>'
    names = differing(runs)
    if len(runs) > 1:
        yield '<p class="note">In which the runs differ; the rest is in each run\'s <code>run.json</code>.</p>'
        rows = [[name, *(_plain(setting(run, name)) for run in runs)] for name in names]
        yield table([["", *(run.label for run in runs)], *rows])
    commands = [[run.label, str(run.about.get("command", "-")), str(run.folder)] for run in runs]
    yield details("Commands and folders", [["run", "command", "folder"], *commands], text=(1, 2))
    for run in runs:
        both = {
            **{name: value for name, value in run.settings.items() if name != "method"},
            "hparams": run.hparams,
            "versions": run.about["identity"].get("versions"),
        }
        rows = [[name, _plain(value)] for name, value in _leaves(both)]
        yield details(f"All settings of {run.label}", [["", ""], *rows], text=(1,))
    yield "</section>"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _plain(value: Any) -> str:
    return (
        "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )
