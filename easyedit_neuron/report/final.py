"""What a finished run shows on the terminal: some edits in sentences, and its table."""

from collections.abc import Iterator
from typing import Any

from ..utils.lists import mean
from .runs import difference
from .sentences import sentences
from .table import number

PHASES = ("before", "immediate", "final")
MOST_LAYERS = 4  # more layers (or changed weights) than this are shown as their mean

_SCORES = {
    "rewrite_acc": "Rel   rewrite",
    "rephrase_acc": "Gen   rephrase",
    "rewrite_generation_exact_match": "Rel   exact match, generated",
    "rephrase_generation_exact_match": "Gen   exact match, generated",
}
_MEMORY = {"rss_peak_mib": "peak memory, MiB", "cuda_peak_mib": "peak memory of the GPU, MiB"}
_BY_LAYER = {"density": "mask density", "overlap": "overlap of masks", "touched": "neurons in any mask"}
_BY_LAYER |= {"leakage": "leakage", "delivered": "residual delivered"}
_DRIFT = {"wasserstein": "drift, Wasserstein", "cosine": "drift, cosine", "l2": "drift, L2"}


def table(summary: dict[str, Any]) -> str:
    """The content of ``summary.json`` as text: some edits in sentences, then a row per measure.

    The columns are the phases, what was lost between them, and the interval of the final mean.
    """
    phases = [phase for phase in PHASES if phase in summary["results"]]
    with_loss = {"immediate", "final"} <= set(phases)
    bounds = summary.get("intervals", {})
    rows = [("", *phases, *["lost"] * with_loss, *["95%"] * bool(bounds))]
    for label, keys, values in _scores(summary["results"], phases):
        by_phase = dict(zip(phases, values))
        lost = [number(difference(by_phase["immediate"], by_phase["final"]))] if with_loss else []
        interval = _lookup(bounds, *keys)
        shown = ["-".join(map(number, interval))] if interval else []
        rows.append((label, *map(number, values), *lost, *shown))
    rows.append(("",))
    rows += [(label, *[""] * (len(phases) - 1), number(value)) for label, value in _costs(summary)]
    width = max(len(row[0]) for row in rows)
    lines = [(row[0].ljust(width) + "".join(cell.rjust(12) for cell in row[1:])).rstrip() for row in rows]
    edits = sentences(summary.get("examples", []))
    return "\n".join([_title(summary), "", *[edits] * bool(edits), *lines]) + "\n"


def _title(summary: dict[str, Any]) -> str:
    names = {"failed": "failed and rolled back"} | dict.fromkeys(("resumed", "duplicates", "contradictions"))
    counts = [(label or name, summary.get(name)) for name, label in names.items()]
    notes = "".join(f"; {label}: {count}" for label, count in counts if count)
    return (
        f"{summary['method']} on {summary['model']}: {summary['edits']} sequential edits of "
        f"{summary['data']['path']}, batch size {summary['batch_size']}, seed {summary['seed']}{notes}"
    )


def _scores(results: dict[str, Any], phases: list[str]) -> Iterator[tuple[str, tuple[str, ...], list]]:
    """Label, place in the results, and the values of the phases."""

    def by_phase(*keys: str) -> tuple[tuple[str, ...], list]:
        return keys, [_lookup(results[phase], *keys) for phase in phases]

    for name, label in _SCORES.items():
        if any(name in results[phase] for phase in phases):
            yield label, *by_phase(name)
    for group, mean_name, short in (("locality", "loc", "Loc"), ("portability", "port", "Port")):
        kinds = sorted({kind for phase in phases for kind in results[phase].get(group, {})})
        if len(kinds) > 1 and any(value is not None for value in by_phase(mean_name)[1]):
            yield f"{short:<6}all kinds", *by_phase(mean_name)
        for kind in kinds:
            yield f"{short:<6}{kind.removesuffix('_acc')}", *by_phase(group, kind)
    final = results["final"]
    if "retained" in final:
        yield f"retained facts (of {final['retained_facts']} known)", *by_phase("retained")
    if "fluency" in final:
        yield "fluency, bits", *by_phase("fluency")
    if "perplexity" in final:
        yield "perplexity, held-out text", *by_phase("perplexity")
    for task, entry in final.get("ability", {}).items():
        yield f"{task}, {entry['metric']}", *by_phase("ability", task, "value")


def _costs(summary: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "seconds per edit, first batch", summary["seconds_per_edit_first_batch"]
    yield "seconds per edit, later", summary["seconds_per_edit"]
    if "evaluation_share" in summary:
        yield "share of time for measuring", summary["evaluation_share"]
    for name, label in _MEMORY.items():
        if summary.get("memory", {}).get(name) is not None:
            yield label, summary["memory"][name]
    for name, label in _BY_LAYER.items():
        yield from _layers(label, {layer: values.get(name) for layer, values in summary["layers"].items()})
    for name, label in _DRIFT.items():
        values = [drift[name][0] for drift in summary.get("drift", {}).values()]
        if values:
            yield f"{label} (mean of rows)", mean(values)


def _layers(label: str, values: dict[str, float | None]) -> Iterator[tuple[str, float]]:
    measured = {layer: value for layer, value in values.items() if value is not None}
    if len(measured) > MOST_LAYERS:
        yield f"{label}, mean of {len(measured)} weights", mean(measured.values())
        return
    for layer, value in measured.items():
        yield f"{label}, {'layer ' if layer.isdigit() else ''}{layer}", value


def _lookup(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
