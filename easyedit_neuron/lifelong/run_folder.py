"""The files of a run's folder. Each is complete or absent, and survives a power cut."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from ..utils.io import append_text, refusing, write_text
from ..utils.lists import mean

CSV_COLUMNS = (
    # final protocol, teacher-forced token accuracy
    *("edits", "failed", "superseded", "rel", "gen", "loc", "portability"),
    *("rel_immediate", "gen_immediate", "loc_immediate", "portability_immediate"),
    # final protocol, greedy generation
    *("rel_exact_match_generated", "gen_exact_match_generated"),
    *("rel_answered", "gen_answered", "rel_judged", "gen_judged"),
    *("retained", "first_token_kl", "fluency", "perplexity"),
    # means over the changed weights of the means over their rows
    *("drift_wasserstein", "drift_cosine", "drift_l2"),
    # means over layers
    *("density", "leakage", "delivered", "overlap"),
    *("seconds_edit", "seconds_evaluate", "seconds_total", "evaluation_share", "memory_mib", "cuda_mib"),
)
"""Columns of ``checkpoints.csv``; after them one for every task of general ability, ``ability:TASK``."""
ABILITY = "ability:"
_SCORES = {"rel": "rewrite_acc", "gen": "rephrase_acc", "loc": "loc", "portability": "port"}
_FINAL_ONLY = {
    "rel_exact_match_generated": "rewrite_generation_exact_match",
    "gen_exact_match_generated": "rephrase_generation_exact_match",
    **{"rel_answered": "rewrite_answer_says", "gen_answered": "rephrase_answer_says"},
    **{"rel_judged": "rewrite_answer_judged", "gen_judged": "rephrase_answer_judged"},
    **{name: name for name in ("retained", "first_token_kl", "fluency", "perplexity")},
}


class RunFolder:
    """Paths of a run's files, and the formats of those that grow."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.run, self.before = folder / "run.json", folder / "before.json"
        self.edits, self.checkpoints = folder / "edits.jsonl", folder / "checkpoints.jsonl"
        self.table, self.summary = folder / "checkpoints.csv", folder / "summary.json"
        self.final, self.guard = folder / "final", folder / "guard.jsonl"
        self.forecast = folder / "forecast.json"
        self.state, self.log = folder / "state", folder / "log"
        self.weights, self.report = folder / "weights.safetensors", folder / "report.html"
        self.tracking = folder / "tracking"  # written by lifelong.tracking
        self.meanings = folder / "meanings.csv"  # written by studies.meanings

    def append_edits(self, lines: list[dict]) -> None:
        append_text(self.edits, as_lines(lines))

    def write_edits(self, lines: list[dict]) -> None:
        write_text(self.edits, as_lines(lines))

    def write_final(self, edits: int, added: list[dict]) -> None:
        """``final/EDITS.jsonl``: the edits' metrics at that checkpoint, a line each."""
        with refusing(self.final):
            self.final.mkdir(exist_ok=True)
        write_text(self.final / f"{edits}.jsonl", as_lines([{"final": line["final"]} for line in added]))

    def read_finals(self) -> dict[int, list[dict | None]]:
        """Number of edits -> what ``write_final`` wrote at that checkpoint."""
        return {
            int(path.stem): [
                json.loads(line)["final"] for line in path.read_text(encoding="utf-8").splitlines()
            ]
            for path in sorted(self.final.glob("*.jsonl"), key=lambda path: int(path.stem))
        }

    def write_forecast(self, content: dict) -> None:
        """``forecast.json``: what was told of the edits before the first was made."""
        write_text(self.forecast, as_json(content))

    def write_guard(self, readings: list[dict]) -> None:
        """``guard.jsonl``: what the canaries said, a line each; no file without a guard."""
        if readings or self.guard.exists():
            write_text(self.guard, as_lines(readings))

    def write_checkpoints(self, checkpoints: list[dict]) -> None:
        write_text(self.checkpoints, as_lines(checkpoints))
        table, rows = io.StringIO(), [csv_row(checkpoint) for checkpoint in checkpoints]
        tasks = dict.fromkeys(name for row in rows for name in row if name.startswith(ABILITY))
        writer = csv.DictWriter(table, [*CSV_COLUMNS, *tasks], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.table, table.getvalue())


def csv_row(checkpoint: dict) -> dict[str, Any]:
    """The row of a checkpoint in ``checkpoints.csv``; None where something was not measured."""
    final, seconds, memory = checkpoint["final"], checkpoint["seconds"], checkpoint["memory"]
    row = {name: checkpoint[name] for name in ("edits", "failed", "superseded", "evaluation_share")}
    row.update({column: final.get(name) for column, name in {**_SCORES, **_FINAL_ONLY}.items()})
    for column, name in _SCORES.items():
        row[f"{column}_immediate"] = checkpoint["immediate"].get(name)
    row["seconds_edit"] = seconds.get("edit", 0.0)
    row["seconds_evaluate"] = seconds_of_measuring(seconds)
    row["seconds_total"] = sum(seconds.values())
    row["memory_mib"], row["cuda_mib"] = memory["rss_peak_mib"], memory["cuda_peak_mib"]
    for name in ("wasserstein", "cosine", "l2"):
        row[f"drift_{name}"] = mean(drift[name][0] for drift in checkpoint["drift"].values())
    for name in ("density", "leakage", "delivered", "overlap"):
        row[name] = mean(layer.get(name) for layer in checkpoint["layers"].values())
    row = {name: row[name] for name in CSV_COLUMNS}
    tasks = final.get("ability", {})
    return finite(row | {f"{ABILITY}{task}": entry["value"] for task, entry in tasks.items()})


def seconds_of_measuring(seconds: dict[str, float]) -> float:
    """The part of a run's seconds that was spent on measuring."""
    return sum(spent for name, spent in seconds.items() if name.startswith("measure"))


def as_lines(objects: list[dict]) -> str:
    return "".join(json.dumps(finite(item), ensure_ascii=False, allow_nan=False) + "\n" for item in objects)


def as_json(value: Any) -> str:
    return json.dumps(finite(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Plain JSON values: numbers that are not finite become None, tuples lists."""
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
