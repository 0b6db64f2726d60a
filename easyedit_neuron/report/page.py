"""The report as one HTML file that loads nothing; the same bytes for the same runs."""

import csv
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..lifelong.run_folder import RunFolder
from ..utils.io import refusing
from . import answer_table, figures
from .html import details, document, table
from .panel_plots import RunKey, plot_of, run_styles
from .panels import POSITION, Bars, Panel, Section, sections
from .runs import Run, differing
from .table import LEGEND, number, results, save, shown

MOST_FAILED = 20  # failed edits shown per run


def write_page(runs: Sequence[Run], path: str | Path) -> Path:
    """Write the page of runs; without matplotlib it has the tables and says how to get the plots."""
    return save(Path(path), page(runs, plots=figures.available()))


def write_pictures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write one PNG per section of the page; ``StateError`` where one cannot be written."""
    styles, paths = run_styles(runs), []
    for section in (section for section in sections(runs) if section.panels):
        panels = [panel for panel in section.panels if isinstance(panel, Panel)]
        drawn = sorted({series.run for panel in panels for series in panel.series})
        legend = [(runs[run].label, styles[run]) for run in drawn]
        plots = [plot_of(panel, styles) for panel in section.panels]
        paths.append(folder / f"{section.name}.png")
        with refusing(paths[-1]):
            folder.mkdir(parents=True, exist_ok=True)
            figures.write_png(plots, paths[-1], legend)
    return paths


def write_look(runs: Sequence[Run], folder: Path) -> None:
    """Write ``report.html``, and the plots as pictures to ``plots`` where matplotlib is installed."""
    if figures.available():
        write_pictures(runs, folder / "plots")
    write_page(runs, folder / "report.html")


def page(runs: Sequence[Run], plots: bool = True) -> str:
    """The whole page; without ``plots`` it has their numbers (where matplotlib is not installed)."""
    styles = run_styles(runs) if plots else None
    all_sections = sections(runs)
    drawn = [section for section in all_sections if section.panels]
    titles = {section.name: section.title for section in drawn}
    answers = answer_table.section(runs)
    links = {answer_table.NAME: answer_table.TITLE} if answers else {}
    links |= {"results": "Results", **titles, "settings": "Settings"}
    title = f"Lifelong editing: {runs[0].label}" if len(runs) == 1 else f"Lifelong editing: {len(runs)} runs"
    anchors = " ".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in links.items())
    body = [
        f"<header><h1>{escape(title)}</h1>",
        *_introduction(runs, plots),
        f"<nav>{anchors}</nav></header>",
        answers,
        '<section><h2 id="results">Results</h2>',
        f'<p class="note">{escape(LEGEND)}</p>',
        table(shown(runs), text=(-1,)),
        details("All columns, as in the CSV", _all_columns(runs)),
        "</section>",
        _run_keys(runs, styles) if styles else "",
        *(part for section in drawn for part in _section(section, runs, styles)),
        *_missing(all_sections),
        *_meanings(runs),
        *_failed_edits(runs),
        *_settings(runs),
    ]
    return document(title, body, answer_table.SCRIPT if answers else None)


def _introduction(runs: Sequence[Run], plots: bool) -> Iterator[str]:
    for name, values in (("Model", [run.model for run in runs]), ("Edits of", [run.data for run in runs])):
        yield f"<p>{name} {', '.join(f'<code>{escape(value)}</code>' for value in dict.fromkeys(values))}</p>"
    unfinished = [f"{run.label} ({run.status})" for run in runs if run.summary is None]
    if unfinished:
        names = escape("; ".join(unfinished))
        yield f'<p class="warn">Not finished, and shown as far as they are: {names}</p>'
    if not plots:
        yield f'<p class="warn">Without plots: {escape(figures.INSTALL)}</p>'


def _all_columns(runs: Sequence[Run]) -> list[list[str]]:
    rows = results(runs)
    lines = [[name, *(_cell(row[name]) for row in rows)] for name in rows[0] if name != "run"]
    return [["", *(run.label for run in runs)], *lines]


def _run_keys(runs: Sequence[Run], styles: Sequence[dict]) -> str:
    """Line and marker of every run; it stays at the top of the window."""
    keys = "".join(
        f'<span class="key">{figures.svg(RunKey("", style), f"run {index}")}{escape(run.label)}</span>'
        for index, (run, style) in enumerate(zip(runs, styles))
    )
    return f'<div class="legend">{keys}</div>'


def _section(section: Section, runs: Sequence[Run], styles: Sequence[dict] | None) -> Iterator[str]:
    yield f'<section><h2 id="{section.name}">{escape(section.title)}</h2>'
    yield f'<p class="note">{escape(section.note)}</p>'
    yield '<div class="grid">'
    for panel in section.panels:
        remark, cells = ("", _lengths(panel)) if isinstance(panel, Bars) else (_remark(panel), _points(panel))
        drawing = figures.svg(plot_of(panel, styles), f"{section.name} {panel.name}") if styles else ""
        caption = f"<figcaption>{escape(panel.title)}{remark}</figcaption>"
        yield f"<figure>{caption}\n{drawing}\n{details('Numbers', cells)}</figure>"
    yield "</div>"
    if section.name == "drift":
        title = "By weight, at the last checkpoint: mean and standard deviation over rows"
        yield details(title, _drift_by_weight(runs), text=(1,))
    yield "</section>"


def _remark(panel: Panel) -> str:
    texts = [f"dotted: untouched model, {number(panel.reference)}"] if panel.reference is not None else []
    texts += [f"no value: {', '.join(panel.missing)}"] if panel.missing else []
    return f"<span>{escape('; '.join(texts))}</span>" if texts else ""


def _points(panel: Panel) -> list[list[str]]:
    lines = [dict(zip(series.x, series.y)) for series in panel.series]
    head = "up to position" if panel.x_label == POSITION else panel.x_label
    rows = [[head, *(series.label for series in panel.series)]]
    if panel.reference is not None:
        rows.append(["untouched", *[number(panel.reference)] * len(lines)])
    for x in sorted({x for line in lines for x in line}):
        rows.append([number(x), *(number(line.get(x)) for line in lines)])
    return rows


def _lengths(bars: Bars) -> list[list[str]]:
    rows = [["run", *bars.parts, "together"]]
    for label, values in zip(bars.labels, zip(*bars.parts.values())):
        rows.append([label, *map(number, values), number(sum(values))])
    return rows


def _drift_by_weight(runs: Sequence[Run]) -> list[list[str]]:
    head = ["run", "weight", "Wasserstein", "std", "Wasserstein of row lengths", "cosine", "std", "L2", "std"]
    rows = [head]
    for run in runs:
        for name, drift in run.last_checkpoint.get("drift", {}).items():
            values = [*drift["wasserstein"], drift.get("wasserstein_norms"), *drift["cosine"], *drift["l2"]]
            rows.append([run.label, name, *map(number, values)])
    return rows


def _missing(all_sections: Sequence[Section]) -> Iterator[str]:
    titles = [title for section in all_sections for title in section.missing]
    if titles:
        names = escape(", ".join(titles))
        yield f'<p class="missing">Measured by none of the runs, and left out: {names}.</p>'


def _meanings(runs: Sequence[Run]) -> Iterator[str]:
    """Tables that ``python -m easyedit_neuron.studies.meanings --run`` has left in the runs' folders."""
    paths = [(run, RunFolder(run.folder).meanings) for run in runs]
    paths = [(run, path) for run, path in paths if path.is_file()]
    if not paths:
        return
    yield '<section><h2 id="meanings">What the most changed neurons say</h2>'
    note = (
        "Tokens that a value vector points at through the unembedding, untouched and at the end of the run."
    )
    yield f'<p class="note">{note}</p>'
    for run, path in paths:
        try:
            cells = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        except (OSError, UnicodeDecodeError) as problem:
            raise DataError(f"{path}: cannot be read: {problem}") from problem
        if not cells or any(len(row) != len(cells[0]) or not row for row in cells):
            raise DataError(f"{path}: not a table of neurons; write it again")
        yield details(run.label, cells, text=range(3, len(cells[0])))
    yield "</section>"


def _failed_edits(runs: Sequence[Run]) -> Iterator[str]:
    rows = [["run", "position", "edit", "reason"]]
    for run in runs:
        failed = [edit for edit in run.edits if edit.reason is not None]
        for edit in failed[:MOST_FAILED]:
            rows.append([run.label, f"{edit.position + 1:,}", edit.text, edit.reason])
        if len(failed) > MOST_FAILED:
            rows.append([run.label, "", f"and {len(failed) - MOST_FAILED:,} more, in edits.jsonl", ""])
    if len(rows) > 1:
        note = "Each was rolled back; the run went on without it."
        yield f'<section><h2 id="failed">Failed edits</h2>\n<p class="note">{note}</p>'
        yield table(rows, text=(2, 3))
        yield "</section>"


def _settings(runs: Sequence[Run]) -> Iterator[str]:
    yield '<section><h2 id="settings">Settings</h2>'
    if len(runs) > 1:
        yield '<p class="note">The runs differ in these; all are in each <code>run.json</code>.</p>'
        rows = [[name, *(_plain(run.options.get(name)) for run in runs)] for name in differing(runs)]
        yield table([["", *(run.label for run in runs)], *rows])
    commands = [[run.label, str(run.info.get("command", "-")), str(run.folder)] for run in runs]
    yield details("Commands and folders", [["run", "command", "folder"], *commands], text=(1, 2))
    for run in runs:
        settings = {name: value for name, value in run.settings.items() if name != "method"}
        settings |= {"hparams": run.hparams, "versions": run.info["identity"].get("versions")}
        rows = [[name, _plain(value)] for name, value in _leaves(settings)]
        yield details(f"All settings of {run.label}", [["", ""], *rows], text=(1,))
    yield "</section>"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
