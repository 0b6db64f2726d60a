"""What a run leaves: one JSON line per edit, a summary, and a table on stdout."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..evaluation import summarize
from ..hparams_base import HyperParams
from .settings import Settings

PROTOCOL = {
    "before": "the untouched model",
    "immediate": "each batch of edits measured right after it (EasyEdit's protocol)",
    "final": "all edits measured on the final model",
    "scorer": "teacher-forced token accuracy on prompt + ' ' + target (EasyEdit's token_em); exact_match: greedy generation",
    "locality": "share of predicted tokens equal to the untouched model's",
    "retained": "share of never edited facts whose whole answer is still right, of those the untouched model answers right",
    "fluency": "n-gram entropy in bits (2- and 3-grams) of sampled continuations of the edit prompts",
    "perplexity": "exp of the mean negative log-likelihood per token of held-out text",
}

_NAMES = {
    "rewrite_acc": "Rel   rewrite",
    "rephrase_acc": "Gen   rephrase",
    "rewrite_generation_exact_match": "Rel   exact match, generated",
    "rephrase_generation_exact_match": "Gen   exact match, generated",
}


def slim(metrics: dict | None) -> dict | None:
    """The numbers of one request's metrics, without token lists and explanations."""
    if metrics is None:
        return None
    kept = {name: value for name, value in metrics.items() if name not in ("locality", "portability", "metric_meta")}
    for group in ("locality", "portability"):
        kept[group] = {name: value for name, value in metrics.get(group, {}).items() if name.endswith("_acc")}
    return kept


def edit_line(index: int, batch: int, request: dict, before: dict, immediate: dict | None, records: list, seconds: float) -> dict:
    """The line of one edit; of a batch, every line carries the batch's layers."""
    layers = {}
    stages: dict[str, float] = {}
    for record in records:
        for layer, delta in record.layers.items():
            layers[str(layer)] = {"density": delta.density, "leakage": delta.leakage, "delivered": delta.delivered}
        for stage, spent in record.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + spent
    return {
        "edit": index,
        "batch": batch,
        "request": request,
        "before": slim(before),
        "immediate": slim(immediate),
        "layers": layers,
        "seconds": seconds,
        "stages_of_batch": stages,
    }


def summarise(
    settings: Settings, hparams: HyperParams, source: Path, lines: list[dict], before: dict, final: dict, clock: dict[str, float]
) -> dict[str, Any]:
    """All means of a run, with everything that is needed to repeat it."""
    results = {}
    for phase in ("before", "immediate", "final"):
        measured = [line[phase] for line in lines if line[phase] is not None]
        if measured:
            results[phase] = summarize(measured)
    results["before"].update(before)
    results["final"].update(final)
    return {
        "method": settings.method_name,
        "model": settings.model.path or settings.model.name,
        "data": {"path": settings.data.path, "shape": settings.data.shape},
        "edits": len(lines),
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "results": results,
        "layers": _layer_means(lines),
        **_edit_seconds(lines),
        "seconds": clock,
        "protocol": PROTOCOL,
        "hparams_file": str(source),
        "hparams": hparams.to_dict(),
        "settings": settings.to_dict(),
        "versions": versions(),
    }


def _edit_seconds(lines: list[dict]) -> dict[str, float]:
    # The first batch pays for what is done once (contexts, statistics that are not cached yet): it is kept apart.
    later = [line["seconds"] for line in lines if line["batch"] > 0] or [line["seconds"] for line in lines]
    return {"seconds_per_edit": sum(later) / len(later), "seconds_per_edit_first_batch": lines[0]["seconds"]}


def _layer_means(lines: list[dict]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = {}
    first_of_batch = {line["batch"]: line for line in reversed(lines)}
    for _, line in sorted(first_of_batch.items()):
        for layer, values in line["layers"].items():
            for name, value in values.items():
                if value is not None:
                    found.setdefault(layer, {}).setdefault(name, []).append(value)
    return {layer: {name: sum(v) / len(v) for name, v in values.items()} for layer, values in found.items()}


def versions() -> dict[str, str]:
    """Versions that the numbers depend on."""
    found = {"easyedit_neuron": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "tokenizers", "numpy"):
        found[name] = metadata.version(name)
    return found


def write(folder: Path, lines: list[dict], summary: dict) -> list[Path]:
    """Write ``edits.jsonl`` and ``summary.json`` (each complete or not at all); numbers that are not finite become null."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "edits.jsonl": "".join(json.dumps(_finite(line), ensure_ascii=False) + "\n" for line in lines),
        "summary.json": json.dumps(_finite(summary), ensure_ascii=False, indent=2) + "\n",
    }
    for name, content in contents.items():
        part = folder / f".{name}.part"
        part.write_text(content, encoding="utf-8")
        os.replace(part, folder / name)
    return [folder / name for name in contents]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(summary: dict) -> str:
    """The summary as text: one row per measure, one column per phase; what was not measured is a dash."""
    phases = [phase for phase in ("before", "immediate", "final") if phase in summary["results"]]
    rows = [("", *phases)]
    for label, values in _rows(summary["results"], phases):
        rows.append((label, *(_number(value) for value in values)))
    blank = [""] * (len(phases) - 1)
    rows.append(("", *blank, ""))
    for name, label in (("seconds_per_edit_first_batch", "seconds per edit, first batch"), ("seconds_per_edit", "seconds per edit, later")):
        rows.append((label, *blank, _number(summary[name])))
    names = {"density": "mask density", "leakage": "leakage", "delivered": "residual delivered"}
    for name, label in names.items():
        for layer, values in summary["layers"].items():
            if name in values:
                rows.append((f"{label}, layer {layer}", *blank, _number(values[name])))
    width = max(len(row[0]) for row in rows)
    body = "\n".join((row[0].ljust(width) + "".join(cell.rjust(12) for cell in row[1:])).rstrip() for row in rows)
    title = (
        f"{summary['method']} on {summary['model']}: {summary['edits']} sequential edits of {summary['data']['path']}, "
        f"batch size {summary['batch_size']}, seed {summary['seed']}"
    )
    return f"{title}\n\n{body}\n"


def _rows(results: dict, phases: list[str]):
    def across(*trail):
        values = []
        for phase in phases:
            value: Any = results[phase]
            for name in trail:
                value = value.get(name, {}) if isinstance(value, dict) else {}
            values.append(None if isinstance(value, dict) else value)
        return values

    for name, label in _NAMES.items():
        if any(name in results[phase] for phase in phases):
            yield label, across(name)
    for group, short in (("locality", "Loc"), ("portability", "Port")):
        for kind in sorted({kind for phase in phases for kind in results[phase].get(group, {})}):
            yield f"{short:<6}{kind.removesuffix('_acc')}", across(group, kind)
    final = results["final"]
    if "retained" in final:
        yield f"retained facts (of {final['retained_facts']} known)", across("retained")
    if "fluency" in final:
        yield "fluency, bits", across("fluency")
    if "perplexity" in final:
        yield "perplexity, held-out text", across("perplexity")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.2e}"
    return f"{value:.3f}"


def show(text: str) -> None:
    """The one place that writes to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()
