"""PNKE's sensitivity: the runs of Hydra sweeps that vary one option each, as a table and a plot.

    python -m easyedit_neuron --multirun method=pnke method.alpha=0,0.5,1 edits=30 evaluation=quick output_dir=sweeps/alpha
    python -m easyedit_neuron.studies.pnke sweeps/* --out pnke_sensitivity

writes ``pnke_sensitivity.png``, a panel for each folder, and ``pnke_sensitivity.md``. A folder with the one run that all others depart
from may be named with ``--centre`` and is then part of every panel.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import NeuronEditError
from .table import new_figure

MEASURES = {"Rel": "rewrite_acc", "Gen": "rephrase_acc", "retained": "retained"}


def read_run(folder: Path) -> dict[str, Any]:
    """Hyperparameters and final results of a finished run.

    Raises:
        NeuronEditError: there is none.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        final, layers = summary["results"]["final"], summary["layers"].values()
        density = [layer["density"] for layer in layers if layer.get("density") is not None]
        return {"hparams": summary["hparams"], **{name: final.get(key) for name, key in MEASURES.items()},
                "density": sum(density) / len(density) if density else None}
    except (OSError, ValueError, KeyError) as problem:
        raise NeuronEditError(f"{path}: no summary of a finished run ({problem!r})") from None


def read_sweep(folder: Path, centre: Path | None = None) -> tuple[str, list[dict[str, Any]]]:
    """(the option that differs, its runs in its order).

    Raises:
        NeuronEditError: no runs, or runs that differ in nothing, or in more than one option.
    """
    runs = [read_run(path.parent) for path in sorted(folder.glob("*/summary.json"))]
    runs += [] if centre is None else [read_run(centre)]
    names = {name for run in runs for name, value in run["hparams"].items() if value != runs[0]["hparams"].get(name)}
    if len(names) != 1:
        raise NeuronEditError(f"{folder}: expected runs that differ in one option, got {len(runs)} runs and {sorted(names) or 'none'}")
    name, = names
    for run in runs:
        run["value"] = run["hparams"][name]
    return name, sorted(runs, key=lambda run: (isinstance(run["value"], str), run["value"]))


def table(sweeps: list[tuple[str, list[dict[str, Any]]]]) -> str:
    """Markdown."""
    lines = ["| option | value | neurons | Rel | Gen | retained |", "|---|---:|---:|---:|---:|---:|"]
    for name, runs in sweeps:
        for run in runs:
            numbers = [run["density"], *(run[measure] for measure in MEASURES)]
            told = ["-" if number is None else f"{number:.1%}" if i == 0 else f"{number:.3f}" for i, number in enumerate(numbers)]
            lines.append(f"| {name} | {run['value']} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def plot(path: Path, sweeps: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """PNG: a panel for each sweep, the measures over the option."""
    columns = min(3, len(sweeps))
    rows = -(-len(sweeps) // columns)
    figure = new_figure(3.1 * columns, 2.5 * rows + 0.4, 90)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, (name, runs) in zip(grid, sweeps):
        for measure in (*MEASURES, "density"):
            values = [float("nan") if run[measure] is None else run[measure] for run in runs]
            axes.plot([str(run["value"]) for run in runs], values, marker="o", markersize=4, label=measure,
                      linestyle=":" if measure == "density" else "-")
        axes.set(title=name, ylim=(0, 1.05))
    for axes in grid[len(sweeps):]:
        axes.remove()
    figure.legend(*grid[0].get_legend_handles_labels(), ncols=4, fontsize="small", loc="outside lower center")
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 2 for folders that hold no such sweep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="output_dir of sweeps")
    parser.add_argument("--centre", type=Path, help="run that is part of every sweep")
    parser.add_argument("--out", type=Path, required=True, help="of the files, without .png and .md")
    args = parser.parse_args(arguments)
    try:
        sweeps = [read_sweep(folder, args.centre) for folder in args.folders]
        plot(args.out.with_suffix(".png"), sweeps)
    except NeuronEditError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    args.out.with_suffix(".md").write_text(table(sweeps), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
