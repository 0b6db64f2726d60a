"""What one finished run shows on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..lifelong.run_folder import mean
from .table import difference, number

PHASES = ("before", "immediate", "final")
LAYERS = 4  # more layers (or changed weights) than this are shown as their mean

_SCORES = {
    "rewrite_acc": "Rel   rewrite",
    "rephrase_acc": "Gen   rephrase",
    "rewrite_generation_exact_match": "Rel   exact match, generated",
    "rephrase_generation_exact_match": "Gen   exact match, generated",
}
_OF_LAYERS = {
    "density": "mask density",
    "overlap": "overlap of masks",
    "touched": "neurons in any mask",
    "leakage": "leakage",
    "delivered": "residual delivered",
}
_DRIFT = {"wasserstein": "drift, Wasserstein", "cosine": "drift, cosine", "l2": "drift, L2"}


def table(summary: dict[str, Any]) -> str:
    """The summary as text: a row per measure, a column per phase and one for what was lost; a dash for what
    was not measured.

    Args:
        summary: what ``summary.json`` holds (:func:`easyedit_neuron.lifelong.results.summarise`).
    """
    results = summary["results"]
    phases = [phase for phase in PHASES if phase in results]
    forgets = {"immediate", "final"} <= set(phases)
    rows = [("", *phases, *["lost"] * forgets)]
    for label, values in _scores(results, phases):
        lost = (
            [number(difference(values[phases.index("immediate")], values[phases.index("final")]))]
            if forgets
            else []
        )
        rows.append((label, *map(number, values), *lost))
    rows.append(("",))
    rows += [(label, *[""] * (len(phases) - 1), number(value)) for label, value in _beside(summary)]
    width = max(len(row[0]) for row in rows)
    body = "\n".join(
        (row[0].ljust(width) + "".join(cell.rjust(12) for cell in row[1:])).rstrip() for row in rows
    )
    return f"{_title(summary)}\n\n{body}\n"


def _title(summary: dict[str, Any]) -> str:
    counted = {
        "failed and rolled back": summary.get("failed"),
        "resumed": summary.get("resumed"),
        "duplicates": summary.get("duplicates"),
        "contradictions": summary.get("contradictions"),
    }
    notes = "".join(f"; {name}: {count}" for name, count in counted.items() if count)
    return (
        f"{summary['method']} on {summary['model']}: {summary['edits']} sequential edits of {summary['data']['path']}, "
        f"batch size {summary['batch_size']}, seed {summary['seed']}{notes}"
    )


def _scores(results: dict[str, Any], phases: list[str]) -> Iterator[tuple[str, list]]:
    def across(*trail: str) -> list:
        return [_at(results[phase], *trail) for phase in phases]

    for name, label in _SCORES.items():
        if any(name in results[phase] for phase in phases):
            yield label, across(name)
    for group, mean_name, short in (("locality", "loc", "Loc"), ("portability", "port", "Port")):
        kinds = sorted({kind for phase in phases for kind in results[phase].get(group, {})})
        if len(kinds) > 1 and any(value is not None for value in across(mean_name)):
            yield f"{short:<6}all kinds", across(mean_name)
        for kind in kinds:
            yield f"{short:<6}{kind.removesuffix('_acc')}", across(group, kind)
    final = results["final"]
    if "retained" in final:
        yield f"retained facts (of {final['retained_facts']} known)", across("retained")
    if "fluency" in final:
        yield "fluency, bits", across("fluency")
    if "perplexity" in final:
        yield "perplexity, held-out text", across("perplexity")
    for task, entry in final.get("ability", {}).items():
        yield f"{task}, {entry['metric']}", across("ability", task, "value")


def _beside(summary: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "seconds per edit, first batch", summary["seconds_per_edit_first_batch"]
    yield "seconds per edit, later", summary["seconds_per_edit"]
    if "evaluation_share" in summary:
        yield "share of time for measuring", summary["evaluation_share"]
    memory = summary.get("memory", {})
    for name, label in (
        ("rss_peak_mib", "peak memory, MiB"),
        ("cuda_peak_mib", "peak memory of the GPU, MiB"),
    ):
        if memory.get(name) is not None:
            yield label, memory[name]
    for name, label in _OF_LAYERS.items():
        yield from _layers(label, {layer: values.get(name) for layer, values in summary["layers"].items()})
    for name, label in _DRIFT.items():
        values = [drift[name][0] for drift in summary.get("drift", {}).values()]
        if values:
            yield f"{label} (mean of rows)", mean(values)


def _layers(label: str, values: dict[str, float | None]) -> Iterator[tuple[str, float]]:
    there = {layer: value for layer, value in values.items() if value is not None}
    if len(there) > LAYERS:
        yield f"{label}, mean of {len(there)} weights", sum(there.values()) / len(there)
        return
    for layer, value in there.items():
        yield f"{label}, {'layer ' if layer.isdigit() else ''}{layer}", value


def _at(value: Any, *trail: str) -> Any:
    for name in trail:
        value = value.get(name) if isinstance(value, dict) else None
    return value
