"""The table of a run on stdout."""

from __future__ import annotations

import sys
from typing import Any

_NAMES = {
    "rewrite_acc": "Rel   rewrite",
    "rephrase_acc": "Gen   rephrase",
    "rewrite_generation_exact_match": "Rel   exact match, generated",
    "rephrase_generation_exact_match": "Gen   exact match, generated",
}


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
