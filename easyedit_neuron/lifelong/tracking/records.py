"""Numbers of a run under the names that trackers show them by; the step is the number of edits so far."""

import json
import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from ...utils.lists import mean
from ..measurer import means
from ..run_folder import csv_row
from .callback import TrackedRun

Row = tuple[int, dict[str, float]]
"""Number of edits so far, and values by name."""
_SCORES = {"rel": "rewrite_acc", "gen": "rephrase_acc", "loc": "loc", "portability": "port"}


def edit_row(lines: list[dict[str, Any]]) -> Row:
    """``edit/...`` of a batch: means of the immediate metrics, seconds per edit and by stage, the masks."""
    first = lines[0]
    immediate = means([line["immediate"] for line in lines if line["immediate"] is not None])
    values = {name: immediate.get(key) for name, key in _SCORES.items()}
    values |= {"seconds": first["seconds"], "failed": sum(line["status"] == "failed" for line in lines)}
    for name in ("density", "leakage", "delivered"):
        values[name] = mean(layer.get(name) for layer in first["layers"].values())
    values |= {f"stage/{stage}": seconds for stage, seconds in first["stages_of_batch"].items()}
    return lines[-1]["edit"] + 1, _numbers("edit", values)


def checkpoint_row(checkpoint: dict[str, Any]) -> Row:
    """``checkpoint/...``: all columns of ``checkpoints.csv``; a task of general ability is
    ``checkpoint/ability/TASK``."""
    values = {name.replace(":", "/"): value for name, value in csv_row(checkpoint).items() if name != "edits"}
    return checkpoint["edits"], _numbers("checkpoint", values)


def guard_row(reading: dict[str, Any]) -> Row:
    """``guard/...``: what the canaries said, and the number of broken limits."""
    values = {name: reading[name] for name in ("retained", "perplexity", "rel")}
    return reading["edits"], _numbers("guard", values | {"breaches": len(reading["breaches"])})


def rows_of(run: TrackedRun) -> list[Row]:
    """Everything that was recorded so far, one row for each number of edits, in order."""
    batches = [list(lines) for _, lines in groupby(run.lines, key=lambda line: line["batch"])]
    rows = [*map(edit_row, batches), *map(guard_row, run.readings), *map(checkpoint_row, run.checkpoints)]
    joined: dict[int, dict[str, float]] = {}
    for step, values in rows:
        joined.setdefault(step, {}).update(values)
    return sorted(joined.items())


def flat_config(config: dict[str, Any]) -> dict[str, str]:
    """The configuration by dotted name, such as ``settings.runner.order``, as text."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in _leaves(config)}


def _numbers(group: str, values: dict[str, Any]) -> dict[str, float]:
    return {
        f"{group}/{name}": float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
