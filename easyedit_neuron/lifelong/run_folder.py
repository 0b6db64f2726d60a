"""The files of a run's folder, written so that they are complete or not there, and survive the machine's
end."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from ..utils.io import append_text, write_text

CSV_COLUMNS = (
    "edits",
    "failed",
    "superseded",
    "rel",
    "gen",
    "loc",
    "portability",  # final protocol, teacher-forced token accuracy
    "rel_immediate",
    "gen_immediate",
    "loc_immediate",
    "portability_immediate",
    "rel_exact_match_generated",
    "gen_exact_match_generated",  # final protocol, greedy generation
    "retained",
    "fluency",
    "perplexity",
    "drift_wasserstein",
    "drift_cosine",
    "drift_l2",  # means over the changed weights of the means over their rows
    "density",
    "leakage",
    "delivered",
    "overlap",  # means over layers
    "seconds_edit",
    "seconds_evaluate",
    "seconds_total",
    "evaluation_share",
    "memory_mib",
    "cuda_mib",
)
"""Columns of ``checkpoints.csv``; behind them one for every task of general ability, ``ability:TASK``."""
ABILITY = "ability:"


class RunFolder:
    """Paths of a run's files, and their formats."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.run, self.before, self.summary = (
            folder / f"{name}.json" for name in ("run", "before", "summary")
        )
        self.edits, self.checkpoints = (folder / f"{name}.jsonl" for name in ("edits", "checkpoints"))
        self.table, self.state, self.weights = (
            folder / "checkpoints.csv",
            folder / "state",
            folder / "weights.safetensors",
        )
        self.log = folder / "log"
        self.meanings = folder / "meanings.csv"  # of studies.meanings

    def append_edits(self, lines: list[dict]) -> None:
        """Adds the lines of a batch."""
        append_text(self.edits, as_lines(lines))

    def write_edits(self, lines: list[dict]) -> None:
        """Writes all lines anew."""
        write_text(self.edits, as_lines(lines))

    def write_checkpoints(self, checkpoints: list[dict]) -> None:
        """Writes both forms of the checkpoints anew."""
        write_text(self.checkpoints, as_lines(checkpoints))
        table, rows = io.StringIO(), [csv_row(checkpoint) for checkpoint in checkpoints]
        tasks = dict.fromkeys(name for row in rows for name in row if name.startswith(ABILITY))
        writer = csv.DictWriter(table, [*CSV_COLUMNS, *tasks], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.table, table.getvalue())


def csv_row(checkpoint: dict) -> dict[str, Any]:
    """The row of a checkpoint in ``checkpoints.csv``; None where something was not measured."""
    final, soon, memory = checkpoint["final"], checkpoint["immediate"], checkpoint["memory"]
    seconds = checkpoint["seconds"]
    row = {
        "edits": checkpoint["edits"],
        "failed": checkpoint["failed"],
        "superseded": checkpoint["superseded"],
        "rel": final.get("rewrite_acc"),
        "gen": final.get("rephrase_acc"),
        "loc": final.get("loc"),
        "portability": final.get("port"),
        "rel_immediate": soon.get("rewrite_acc"),
        "gen_immediate": soon.get("rephrase_acc"),
        "loc_immediate": soon.get("loc"),
        "portability_immediate": soon.get("port"),
        "rel_exact_match_generated": final.get("rewrite_generation_exact_match"),
        "gen_exact_match_generated": final.get("rephrase_generation_exact_match"),
        "retained": final.get("retained"),
        "fluency": final.get("fluency"),
        "perplexity": final.get("perplexity"),
        "seconds_edit": seconds.get("edit", 0.0),
        "seconds_evaluate": sum(spent for name, spent in seconds.items() if name.startswith("measure")),
        "seconds_total": sum(seconds.values()),
        "evaluation_share": checkpoint["evaluation_share"],
        "memory_mib": memory["rss_peak_mib"],
        "cuda_mib": memory["cuda_peak_mib"],
    }
    for name in ("wasserstein", "cosine", "l2"):
        row[f"drift_{name}"] = mean(drift[name][0] for drift in checkpoint["drift"].values())
    for name in ("density", "leakage", "delivered", "overlap"):
        row[name] = mean(layer.get(name) for layer in checkpoint["layers"].values())
    row.update({f"{ABILITY}{task}": entry["value"] for task, entry in final.get("ability", {}).items()})
    return finite(row)


def mean(values) -> float | None:
    """Mean of the values that are there; None without any."""
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def as_lines(objects: list[dict]) -> str:
    """JSON lines."""
    return "".join(json.dumps(finite(item), ensure_ascii=False, allow_nan=False) + "\n" for item in objects)


def as_json(value: Any) -> str:
    """A JSON file."""
    return json.dumps(finite(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Plain JSON: numbers that are not finite become None, tuples lists."""
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
