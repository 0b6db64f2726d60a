r"""Which neurons may change: sweeps over options of the mask (NMKE, Fig. 6, Tables 3, 4; PNKE, Fig. 3, 5).

Measured: the runs' last checkpoints. Runs that differ only in ``seed`` and ``data.skip`` (other edits) are
repetitions of one setting: the table has their means and standard deviations. ``--centre`` names a run, or a
folder with its repetitions, from which all others depart; it is part of every sweep.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..report.runs import Run, differing, read_runs
from .averages import average_rows
from .command import Study
from .output import Result, Table
from .plots import Marks

MEASURES = {"rel": "Rel", "gen": "Gen", "loc": "Loc", "retained": "retained", "density": "density"}
COLUMNS = ("edits", *MEASURES, "delivered", "leakage", "perplexity")
"""Columns of ``checkpoints.csv`` that the table has."""
REPEATS = ("seed", "data.skip")
"""Options in which the runs of one setting may differ."""


@dataclass(frozen=True)
class Setting:
    """Values of the sweep's options, and the runs that have them."""

    values: list[Any]
    runs: list[Run]

    @property
    def repeats(self) -> list[tuple]:
        """The seeds and the edits of the runs."""
        return sorted(tuple(run.options.get(name) for name in REPEATS) for run in self.runs)


@dataclass(frozen=True)
class Sweep:
    """Settings in the order of their values; ``options``: the names of the hyperparameters that differ."""

    name: str
    options: list[str]
    settings: list[Setting]

    @property
    def repeated(self) -> bool:
        """Whether a setting was measured more than once."""
        return any(len(setting.runs) > 1 for setting in self.settings)

    def label(self, setting: Setting) -> str:
        names = [option.removeprefix("method.") for option in self.options]
        return ", ".join(f"{name} {value}" for name, value in zip(names, setting.values))

    def rows(self) -> list[dict[str, Any]]:
        """A row per setting: means over its runs, and with repetitions the standard deviations."""
        measured = []
        for setting in self.settings:
            row = {"sweep": self.name, "setting": self.label(setting), "runs": len(setting.runs)}
            measured += [row | {name: run.last.get(name) for name in COLUMNS} for run in setting.runs]
        rows = average_rows(measured, ("sweep", "setting", "runs"), MEASURES if self.repeated else ())
        return [row | {"edits": int(row["edits"])} for row in rows]


def read_sweep(folder: Path, centre: Path | None = None) -> Sweep:
    """Read a folder's settings, in the order of the options in which they differ.

    ``DataError`` for an unfinished run, runs that differ in nothing or in more than the method's options, or
    settings with other seeds or edits than the rest.
    """
    runs = read_runs([folder] if centre is None else [folder, centre])
    unfinished = next((run for run in runs if run.summary is None), None)
    if unfinished is not None:
        remedy = "give the command of the sweep again to finish it"
        raise DataError(f"{unfinished.folder}: {unfinished.status}; {remedy}")
    options = [name for name in differing(runs) if name not in REPEATS]
    others = [name for name in options if not name.startswith("method.")]
    if not options or others:
        difference = f"that also differ in {', '.join(others)}" if others else "with no such difference"
        expected = "expected runs that differ in options of one method"
        raise DataError(f"{folder}: {expected}, got {len(runs)} {difference}")
    settings: dict[str, Setting] = {}
    for run in runs:
        values = [run.options.get(name) for name in options]
        settings.setdefault(repr(values), Setting(values, [])).runs.append(run)
    ordered = sorted(settings.values(), key=lambda setting: [_sort_key(value) for value in setting.values])
    sweep, first = Sweep(folder.name, options, ordered), ordered[0]
    for setting in ordered:
        if setting.repeats != first.repeats:
            repeats = f"({', '.join(REPEATS)}) = {setting.repeats}, {sweep.label(first)} with {first.repeats}"
            problem = f"{sweep.label(setting)} was measured with {repeats}"
            raise DataError(f"{folder}: {problem}; run every setting with the same")
    return sweep


def _sort_key(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))


def measure(args: argparse.Namespace) -> Result:
    """Read every folder; a plot and rows for each."""
    sweeps = [read_sweep(folder, args.centre) for folder in args.folders]
    rows = [sweep.rows() for sweep in sweeps]
    runs = [run for sweep in sweeps for setting in sweep.settings for run in setting.runs]
    counts = sorted({int(run.last["edits"]) for run in runs})
    note = (
        f"{' or '.join(map(str, counts))} sequential edits, measured on the final model. Rel, Gen: token "
        "accuracy of the new object; Loc: share of tokens that agree with the untouched model; retained: "
        "share of the never edited facts that are still right; density: share of neurons in the mask; "
        "delivered: share of the requested change that arrives; leakage: onto the keys of ordinary text."
    )
    if any(sweep.repeated for sweep in sweeps):
        note += " Means over runs with other seeds or other edits; bars and _std: their standard deviation."
    return Result(
        "selection",
        "Which neurons: " + ", ".join(sweep.name for sweep in sweeps),
        note,
        [_plot(*pair) for pair in zip(sweeps, rows)],
        [Table("selection", "All settings", [row for sweep_rows in rows for row in sweep_rows])],
    )


def _plot(sweep: Sweep, rows: list[dict[str, Any]]) -> Marks:
    values = [setting.values for setting in sweep.settings]
    labels = [" ".join(map(str, several)).replace("_", " ") for several in values]
    names = [name for name in MEASURES if any(row[name] is not None for row in rows)]
    title = ", ".join(option.removeprefix("method.").replace("_", " ") for option in sweep.options)
    return Marks(
        f"{sweep.settings[0].runs[0].method}: {title}",
        labels,
        {MEASURES[name]: [row[name] for row in rows] for name in names},
        "",
        "final model",
        errors={MEASURES[name]: [row[f"{name}_std"] for row in rows] for name in names if sweep.repeated},
        limits=(-0.03, 1.05),
        joined=len(sweep.options) == 1 and all(isinstance(value, (int, float)) for (value, *_) in values),
        size=(max(4.2, 0.75 * len(labels)), 3.1),
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="output_dir of a sweep")
    centre_help = "a run, or the folder of its repetitions, that is part of every sweep"
    parser.add_argument("--centre", type=Path, metavar="FOLDER", help=centre_help)


_DESCRIPTION = "Runs of sweeps that differ in which neurons may change, as plots and a table."
main = Study("selection", _DESCRIPTION, _add_arguments, measure).main

if __name__ == "__main__":
    sys.exit(main())
