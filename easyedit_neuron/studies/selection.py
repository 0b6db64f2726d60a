"""Selection studies: runs of Hydra sweeps that differ in options of the mask (NMKE, Fig. 6, Tables 3 and 4;
PNKE, Fig. 3 and 5).

    sweep="python -m easyedit_neuron --multirun edits=30 evaluation=quick"
    $sweep method=nmke method.neurons=general,specific,both method.ratio=entropy,fixed \\
        method.general_ratio=0.35 method.specific_ratio=0.35 output_dir=sweeps/fig6               # NMKE, Fig.
        6
    $sweep method=nmke method.neurons=overlap,non_overlap,both output_dir=sweeps/table3          # NMKE, Table
    3 $sweep method=nmke method.mask_values=soft,binary output_dir=sweeps/table4                   # NMKE,
    Table 4 $sweep method=pnke method.strategy=entropy,trigger,background,activation output_dir=sweeps/fig3  
    # PNKE, Fig. 3 $sweep method=pnke method.trigger_activation=60,75,90 output_dir=sweeps/fig5   # PNKE, Fig.
    5: each of the four likewise python -m easyedit_neuron.studies.selection sweeps/* --out selection

A panel for each folder: token accuracies of all edits on the final model (Rel, Gen, Loc), retained facts, and
    the mask's
density over the settings. Runs that differ in nothing but ``seed`` and ``data.skip`` (other edits) are one
setting measured several times: means, with the standard deviation over the runs. ``--centre``: a run, or a
    folder with its repetitions, from which
all others depart, part of every panel. Any other method and option does as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..report.runs import Run, differing, read_runs, setting
from .command import parser, run
from .output import Plot, Result, Table
from .plots import marks
from .spread import deviation, mean

MEASURES = {"rel": "Rel", "gen": "Gen", "loc": "Loc", "retained": "retained", "density": "density"}
TOLD = ("edits", *MEASURES, "delivered", "leakage", "perplexity")
"""Columns of ``checkpoints.csv`` that the table has."""
REPEATS = ("seed", "data.skip")
"""What runs of one setting may differ in."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One choice of the options, measured once or several times.

    Attributes:
        values: of the sweep's options.
        runs: those with these values.
    """

    values: list[Any]
    runs: list[Run]

    def numbers(self, name: str) -> list[float | None]:
        """A column of the runs' last checkpoints."""
        return [one.last.get(name) for one in self.runs]

    def mean(self, name: str) -> float | None:
        """The mean over the runs."""
        return mean(self.numbers(name))

    def deviation(self, name: str) -> float | None:
        """The standard deviation (n - 1) over the runs; None for less than two."""
        return deviation(self.numbers(name))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Settings that differ in some options.

    Attributes:
        name: of the folder.
        options: the options, by the names of the hyperparameters.
        settings: ordered by their values.
    """

    name: str
    options: list[str]
    settings: list[Setting]

    @property
    def repeated(self) -> bool:
        """Whether a setting was measured more than once."""
        return any(len(one.runs) > 1 for one in self.settings)


def read_sweep(folder: Path, centre: Path | None = None) -> Sweep:
    """A folder's settings in the order of the options in which they differ.

    Raises:
        DataError: an unfinished run, runs that differ in nothing or in more than the method's options, or a
            setting that was not measured with the seeds and on the edits of the others.
    """
    runs = read_runs([folder] if centre is None else [folder, centre])
    unfinished = next((one for one in runs if one.summary is None), None)
    if unfinished is not None:
        raise DataError(
            f"{unfinished.folder}: {unfinished.status}; the command that began the sweep goes on with it"
        )
    names = [name for name in differing(runs) if name not in REPEATS]
    other = [name for name in names if not name.startswith("method.")]
    if not names or other:
        told = (
            f"{len(runs)} runs that also differ in {', '.join(other)}"
            if other
            else f"{len(runs)} with no such difference"
        )
        raise DataError(f"{folder}: expected runs that differ in options of one method, found {told}")
    found: dict[str, Setting] = {}
    for one in runs:
        values = [setting(one, name) for name in names]
        found.setdefault(repr(values), Setting(values, [])).runs.append(one)
    sweep = Sweep(
        folder.name, names, sorted(found.values(), key=lambda one: [_sortable(value) for value in one.values])
    )
    wanted = _measured_with(sweep.settings[0])
    for one in sweep.settings:
        if _measured_with(one) != wanted:
            raise DataError(
                f"{folder}: {_told(sweep, one)} was measured with ({', '.join(REPEATS)}) = {_measured_with(one)}, "
                f"{_told(sweep, sweep.settings[0])} with {wanted}; give every setting the same runs"
            )
    return sweep


def _measured_with(one: Setting) -> list[tuple]:
    return sorted(tuple(setting(run, name) for name in REPEATS) for run in one.runs)


def _sortable(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))


def study(arguments: argparse.Namespace) -> Result:
    """Every folder's panel and rows."""
    sweeps = [read_sweep(folder, arguments.centre) for folder in arguments.folders]
    rows = [row for sweep in sweeps for row in _rows(sweep)]
    counts = sorted(
        {int(one.last["edits"]) for sweep in sweeps for place in sweep.settings for one in place.runs}
    )
    repeated = any(sweep.repeated for sweep in sweeps)
    return Result(
        "selection",
        "Which neurons: " + ", ".join(sweep.name for sweep in sweeps),
        f"{' or '.join(map(str, counts))} sequential edits, measured on the final model. Rel, Gen: token accuracy of "
        "the new object; Loc: share of tokens that are the untouched model's; retained: never edited facts that are "
        "still right; density: share of neurons in the mask; delivered: share of the wanted change that arrives; "
        "leakage: onto the text's keys."
        + (
            " Means over runs with other seeds or other edits; bars and _std: their standard deviation."
            if repeated
            else ""
        ),
        [_picture(sweep) for sweep in sweeps],
        [Table("selection", "All settings", rows)],
    )


def _rows(sweep: Sweep) -> list[dict[str, Any]]:
    rows = []
    for one in sweep.settings:
        row: dict[str, Any] = {"sweep": sweep.name, "setting": _told(sweep, one), "runs": len(one.runs)}
        for name in TOLD:
            row[name] = int(one.mean(name)) if name == "edits" else one.mean(name)
            if sweep.repeated and name in MEASURES:
                row[f"{name}_std"] = one.deviation(name)
        rows.append(row)
    return rows


def _told(sweep: Sweep, one: Setting) -> str:
    return ", ".join(
        f"{option.removeprefix('method.')} {value}" for option, value in zip(sweep.options, one.values)
    )


def _picture(sweep: Sweep) -> Plot:
    labels = [" ".join(map(str, one.values)).replace("_", " ") for one in sweep.settings]
    numbers = len(sweep.options) == 1 and all(
        isinstance(one.values[0], (int, float)) for one in sweep.settings
    )
    shown = {
        label: [one.mean(name) for one in sweep.settings]
        for name, label in MEASURES.items()
        if any(one.mean(name) is not None for one in sweep.settings)
    }
    errors = (
        {MEASURES[name]: [one.deviation(name) for one in sweep.settings] for name in MEASURES}
        if sweep.repeated
        else None
    )
    title = ", ".join(option.removeprefix("method.").replace("_", " ") for option in sweep.options)
    return Plot(
        f"{sweep.settings[0].runs[0].method}: {title}",
        marks(labels, shown, "", "final model", errors=errors, limits=(-0.03, 1.05), joined=numbers),
        (max(4.2, 0.75 * len(labels)), 3.1),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 2 for folders that hold no such sweep."""
    made = parser(
        "selection",
        "Runs of sweeps that differ in which neurons may change, as plots and a table.",
        model=False,
    )
    made.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="output_dir of a sweep")
    made.add_argument(
        "--centre",
        type=Path,
        metavar="FOLDER",
        help="run, or folder of its repetitions, that is part of every sweep",
    )
    return run(made.parse_args(argv), "selection", study)


if __name__ == "__main__":
    sys.exit(main())
