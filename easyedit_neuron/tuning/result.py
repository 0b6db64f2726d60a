"""What ``tune`` leaves: a commented YAML file, the tables of its search, and a picture."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import resources
from ..report import figures
from ..studies.output import write_csv
from ..studies.plots import Lines
from .search import Trial

ALWAYS = ("alg_name", "model_name", "device", "layers", "batch_size")
SHARES = ("rel", "gen", "loc", "fluent")


def yaml_text(hparams: Any, trials: Sequence[Trial], best: Trial, header: str) -> str:
    """The hyperparameters as YAML: what differs from the class's defaults, and everything that was tried.

    A field that was tried has the scores of its other values beside it, the other fields their help.
    """
    lines = [f"# {line}".rstrip() for line in header.splitlines()] + [""]
    tried = _scores_by_field(hparams, trials, best)
    for entry in dataclasses.fields(hparams):
        value = getattr(hparams, entry.name)
        if entry.name == "model_name":
            value = resources.model_short_name(value)
        if entry.name == "stats_dir":  # where this machine keeps its cache
            value = None
        is_required = entry.default is dataclasses.MISSING  # EasyEdit's classes want most of their fields
        is_default = value is None or value == entry.default
        if is_default and not is_required and entry.name not in (*ALWAYS, *tried):
            continue
        comment = entry.metadata.get("help", "").split(";")[0]
        if entry.name in tried:
            comment = f"{best.score:.3f}; " + ", ".join(
                f"{other}: {score:.3f}" for other, score in tried[entry.name]
            )
        lines.append(f"{_yaml_line(entry.name, value)}  # {comment}".removesuffix("  # "))
    return "\n".join(lines) + "\n"


def _yaml_line(name: str, value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return f"{name}: {text.removesuffix('...' + chr(10)).strip()}"


def _scores_by_field(
    hparams: Any, trials: Sequence[Trial], best: Trial
) -> dict[str, list[tuple[Any, float]]]:
    """Field -> the other values that were tried with the best setting's values elsewhere, and their
    scores."""
    tried: dict[str, list[tuple[Any, float]]] = {}
    for name in {name for trial in trials for name in trial.changes}:
        scores: dict[str, tuple[Any, float]] = {}
        for trial in trials:
            value = trial.changes.get(name)
            if name in trial.changes and value != getattr(hparams, name):
                key = json.dumps(value)
                scores[key] = (value, max(trial.score, scores.get(key, (value, 0.0))[1]))
        tried[name] = sorted(scores.values(), key=lambda pair: str(pair[0]))
    return tried


def trial_row(number: int, trial: Trial) -> dict[str, Any]:
    """A trial as a row of ``trials.csv``."""
    changes = {name: json.dumps(value) for name, value in trial.changes.items()}
    return {"trial": number, "score": trial.score, **trial.values, **changes}


def write_tables(folder: Path, rates: list[dict], layers: list[dict], trials: Sequence[Trial]) -> list[Path]:
    """``rates.csv``, ``layers.csv`` and ``trials.csv``; those without rows are left out."""
    rows = {"rates": rates, "layers": layers}
    rows["trials"] = [trial_row(number, trial) for number, trial in enumerate(trials, 1)]
    return [write_csv(folder / f"{name}.csv", table) for name, table in rows.items() if table]


def write_picture(path: Path, layers: list[dict], trials: Sequence[Trial]) -> None:
    """What z* and keys are like by layer, and the trials in their order."""
    plots: list[figures.Plot] = []
    if layers:
        depth = [row["layer"] for row in layers]
        names = {"rel": "z* put in: edited prompt", "gen": "z* put in: rephrasings"}
        names |= {"same_subject": "key, same subject", "other_subject": "key, other subject"}
        series = {label: (depth, [row[name] for row in layers]) for name, label in names.items()}
        plots.append(Lines("Where: by layer", series, "layer", "share, or cosine"))
    numbers = list(range(1, len(trials) + 1))
    series = {"score": (numbers, [trial.score for trial in trials])}
    series |= {name: (numbers, [trial.values.get(name) for trial in trials]) for name in SHARES}
    plots.append(Lines("How: by trial", series, "trial", "share"))
    figures.write_png(plots, path)
