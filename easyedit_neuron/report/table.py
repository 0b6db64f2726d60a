"""One table over all runs of a sweep: a row per run, as it is at its newest checkpoint."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import NeuronEditError
from ..lifelong.run_folder import ABILITY, CSV_COLUMNS
from ..utils.io import refusing, write_text
from .runs import Run, differing

HEADINGS = {
    **{"edits": "edits", "rel": "Rel", "gen": "Gen", "loc": "Loc", "portability": "Port"},
    **{"rel_exact_match_generated": "Rel written", "gen_exact_match_generated": "Gen written"},
    **{"rel_immediate": "Rel immediate", "rel_lost": "Rel lost", "gen_lost": "Gen lost"},
    **{"retained": "retained", "perplexity": "perplexity", "fluency": "fluency", "drift_l2": "L2 drift"},
    **{"density": "density", "seconds_per_edit": "s per edit", "evaluation_share": "eval share"},
    **{"failed": "failed"},
}
"""Columns that are shown to people, and their headings; the CSV has all columns."""

LEGEND = (
    "Rel, Gen, Loc, Port: teacher-forced token accuracy of all edits so far (final protocol). Rel "
    "written, Gen written: the model writes the whole new answer, greedily. Rel immediate: each edit "
    "right after its own batch; lost: immediate - final. retained: share of the facts known before, and "
    "never edited, that are still right. fluency: n-gram entropy, bits. L2 drift: mean over rows of the "
    "edited weights. density: share of neurons in the mask. eval share: part of the run's time spent on "
    "measuring."
)


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Put everything known about each run into one row; all rows have the same columns, None for no value.

    Columns: run, status, settings (by name those in which the runs differ), ``checkpoints.csv`` at the newest
    checkpoint, what was lost, ``seconds_per_edit``, scores by kind, general ability by task, folder.
    """
    option_names = [name for name in differing(runs) if name not in ("seed", "batch_size", "edits")]
    rows = [_row(run, option_names) for run in runs]
    prefixes = ("loc:", "portability:", ABILITY)
    columns = [
        *("run", "status", "method", "model", "data", "planned", "batch_size", "seed"),
        *option_names,
        *CSV_COLUMNS,
        *("rel_lost", "gen_lost", "loc_lost", "seconds_per_edit"),
        *sorted({name for row in rows for name in row if name.startswith(prefixes)}),
        "folder",
    ]
    return [{name: row.get(name) for name in columns} for row in rows]


def _row(run: Run, option_names: Sequence[str]) -> dict[str, Any]:
    last = run.last
    row = {"run": run.label, "folder": str(run.folder)}
    row |= {name: getattr(run, name) for name in ("status", "method", "model", "data", "planned")}
    row |= {name: run.settings.get(name) for name in ("batch_size", "seed")}
    row |= {name: run.options.get(name) for name in option_names} | last
    measured = last and last["seconds_edit"] is not None
    return row | {"seconds_per_edit": last["seconds_edit"] / last["edits"] if measured else None}


def untouched(runs: Sequence[Run]) -> dict[str, Any]:
    """Row of the untouched model: the values in which all runs agree; empty if there are none."""
    values = {}
    for name in ("rel", "gen", "portability", "retained", "perplexity", "fluency"):
        value = common_untouched(runs, name)
        if value is not None:
            values[name] = value
    return {"run": "untouched model", "status": "", "edits": 0, **values} if values else {}


def common_untouched(runs: Sequence[Run], column: str) -> float | None:
    """Value of the untouched model in a column of ``Run.rows``; None unless all runs agree (to 1e-6)."""
    values = [run.untouched.get(column) for run in runs]
    if not values or None in values or max(values) - min(values) > 1e-6 * abs(max(values)):
        return None
    return values[0]


def write_table(runs: Sequence[Run], path: str | Path) -> Path:
    """Write the table of runs: ``.csv`` (all columns), ``.md`` or ``.txt``; else ``NeuronEditError``."""
    return save(Path(path), _formatter(Path(path))(runs))


def save(path: Path, text: str) -> Path:
    """Write a text file and the folders above it; ``StateError`` where that fails."""
    with refusing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def _formatter(path: Path) -> Callable[[Sequence[Run]], str]:
    formatters = {".csv": as_csv, ".md": as_markdown, ".txt": as_text}
    if path.suffix not in formatters:
        raise NeuronEditError(f"{path}: a table is written as {', '.join(formatters)}")
    return formatters[path.suffix]


def as_csv(runs: Sequence[Run]) -> str:
    """All columns, numbers in full."""
    rows, text = results(runs), io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(runs: Sequence[Run]) -> str:
    head, *body = shown(runs)
    rule = "|---|" + "---:|" * (len(head) - 2) + "---|"
    return "\n".join([markdown_line(head), rule, *map(markdown_line, body)]) + f"\n\n{LEGEND}\n"


def markdown_line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"


def as_text(runs: Sequence[Run]) -> str:
    return aligned(shown(runs)) + "\n"


def shown(runs: Sequence[Run]) -> list[list[str]]:
    """Heading and rows of the columns for people, the status last; columns that no run has are left out."""
    base, rows = untouched(runs), results(runs)
    columns = [name for name in HEADINGS if any(row.get(name) is not None for row in rows)]
    columns = [name for name in columns if name != "failed" or any(row.get(name) for row in rows)]
    lines = [
        [row["run"], *(number(row.get(name)) for name in columns), row["status"]]
        for row in [base] * bool(base) + rows
    ]
    return [["run", *(HEADINGS[name] for name in columns), "status"], *lines]


def aligned(cells: list[list[str]]) -> str:
    """Lines of a table: first and last column left, numbers right, long headings on two lines."""
    head, *body = cells
    upper, lower = zip(*(text.rpartition(" ")[::2] for text in head))
    rows = [list(upper), list(lower), *body] if any(upper) else [list(lower), *body]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        middle = "".join("  " + cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1]))
        lines.append(f"{row[0].ljust(widths[0])}{middle}  {row[-1]}".rstrip())
    return "\n".join(lines)


def number(value: Any) -> str:
    """A number for people: three decimals, powers of ten where those would hide it; a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"
