"""Selection studies: runs of Hydra sweeps that differ in options of the mask (NMKE, Fig. 6, Tables 3 and 4; PNKE, Fig. 3 and 5).

    sweep="python -m easyedit_neuron --multirun edits=30 evaluation=quick"
    $sweep method=nmke method.neurons=general,specific,both method.ratio=entropy,fixed \\
        method.general_ratio=0.35 method.specific_ratio=0.35 output_dir=sweeps/fig6               # NMKE, Fig. 6
    $sweep method=nmke method.neurons=overlap,non_overlap,both output_dir=sweeps/table3          # NMKE, Table 3
    $sweep method=nmke method.mask_values=soft,binary output_dir=sweeps/table4                   # NMKE, Table 4
    $sweep method=pnke method.strategy=entropy,trigger,background,activation output_dir=sweeps/fig3   # PNKE, Fig. 3
    $sweep method=pnke method.trigger_activation=60,75,90 output_dir=sweeps/fig5   # PNKE, Fig. 5: each of the four likewise
    python -m easyedit_neuron.studies.selection sweeps/* --out selection

A panel for each folder: token accuracies of all edits on the final model (Rel, Gen, Loc), retained facts, and the mask's
density over the settings. ``--centre``: a run from which all others depart, part of every panel. Any other method and option
does as well.
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

MEASURES = {"rel": "Rel", "gen": "Gen", "loc": "Loc", "retained": "retained", "density": "density"}
TOLD = ("edits", *MEASURES, "delivered", "leakage", "perplexity")
"""Columns of ``checkpoints.csv`` that the table has."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Runs that differ in some options.

    Attributes:
        name: of the folder.
        options: the options, by the names of the hyperparameters.
        runs: ordered by their values.
    """

    name: str
    options: list[str]
    runs: list[Run]

    def values(self, one: Run) -> list[Any]:
        """The options' values of a run."""
        return [setting(one, option) for option in self.options]


def read_sweep(folder: Path, centre: Path | None = None) -> Sweep:
    """A folder's runs in the order of the options in which they differ.

    Raises:
        DataError: an unfinished run, or runs that differ in nothing or in more than the method's options.
    """
    runs = read_runs([folder] if centre is None else [folder, centre])
    unfinished = next((one for one in runs if one.summary is None), None)
    if unfinished is not None:
        raise DataError(f"{unfinished.folder}: {unfinished.status}; the command that began the sweep goes on with it")
    names = differing(runs)
    other = [name for name in names if not name.startswith("method.")]
    if not names or other:
        told = f"{len(runs)} runs that also differ in {', '.join(other)}" if other else f"{len(runs)} with no such difference"
        raise DataError(f"{folder}: expected runs that differ in options of one method, found {told}")
    sweep = Sweep(folder.name, names, runs)
    ordered = sorted(runs, key=lambda one: [_sortable(value) for value in sweep.values(one)])
    return dataclasses.replace(sweep, runs=ordered)


def _sortable(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))


def study(arguments: argparse.Namespace) -> Result:
    """Every folder's panel and rows."""
    sweeps = [read_sweep(folder, arguments.centre) for folder in arguments.folders]
    rows = [{"sweep": sweep.name, "setting": _told(sweep, one), **{name: one.last.get(name) for name in TOLD}}
            for sweep in sweeps for one in sweep.runs]
    counts = sorted({row["edits"] for row in rows})
    return Result("selection", "Which neurons: " + ", ".join(sweep.name for sweep in sweeps),
                  f"{' or '.join(map(str, counts))} sequential edits, measured on the final model. Rel, Gen: token accuracy of "
                  "the new object; Loc: share of tokens that are the untouched model's; retained: never edited facts that are "
                  "still right; density: share of neurons in the mask; delivered: share of the wanted change that arrives; "
                  "leakage: onto the text's keys.",
                  [_picture(sweep) for sweep in sweeps], [Table("selection", "All settings", rows)])


def _told(sweep: Sweep, one: Run) -> str:
    return ", ".join(f"{option.removeprefix('method.')} {value}" for option, value in zip(sweep.options, sweep.values(one)))


def _picture(sweep: Sweep) -> Plot:
    labels = [" ".join(map(str, sweep.values(one))).replace("_", " ") for one in sweep.runs]
    numbers = len(sweep.options) == 1 and all(isinstance(sweep.values(one)[0], (int, float)) for one in sweep.runs)
    series = {label: [one.last.get(name) for one in sweep.runs] for name, label in MEASURES.items()}
    shown = {label: values for label, values in series.items() if any(value is not None for value in values)}
    title = ", ".join(option.removeprefix("method.").replace("_", " ") for option in sweep.options)
    return Plot(f"{sweep.runs[0].method}: {title}", marks(labels, shown, "", "final model", limits=(-0.03, 1.05), joined=numbers),
                (max(4.2, 0.75 * len(labels)), 3.1))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 2 for folders that hold no such sweep."""
    made = parser("selection", "Runs of sweeps that differ in which neurons may change, as plots and a table.", model=False)
    made.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="output_dir of a sweep")
    made.add_argument("--centre", type=Path, metavar="FOLDER", help="run that is part of every sweep")
    return run(made.parse_args(argv), "selection", study)


if __name__ == "__main__":
    sys.exit(main())
