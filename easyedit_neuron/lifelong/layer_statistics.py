"""What the edits' records say of the layers: density, leakage, what was delivered, and which neurons the
masks share."""

from __future__ import annotations

from typing import Any

import torch

from .run_folder import mean


def of_records(records: list) -> dict[str, dict[str, float | None]]:
    """The layers of one batch for ``edits.jsonl``; records of other forms than ``EditRecord`` say nothing."""
    layers: dict[str, dict[str, float | None]] = {}
    for record in records:
        for layer, delta in getattr(record, "layers", {}).items():
            layers[str(layer)] = {
                "density": delta.density,
                "leakage": delta.leakage,
                "delivered": delta.delivered,
            }
        for name, delta in getattr(record, "units", {}).items():
            layers[name] = {"density": delta.density, "leakage": None, "delivered": None}
    return layers


def stages_of(records: list) -> dict[str, float]:
    """Seconds by stage of one batch."""
    stages: dict[str, float] = {}
    for record in records:
        for stage, spent in getattr(record, "seconds", {}).items():
            stages[stage] = stages.get(stage, 0.0) + spent
    return stages


class MaskCounts:
    """How many batches chose each neuron, by layer (or by parameter, for methods that change single rows or
    columns)."""

    def __init__(self):
        self._counts: dict[str, torch.Tensor] = {}
        self._batches: dict[str, int] = {}

    def add(self, records: list) -> None:
        """Counts a batch."""
        for record in records:
            for layer, delta in getattr(record, "layers", {}).items():
                if delta.mask is not None:
                    self._add(str(layer), delta.mask.cpu().bool())
            for name, delta in getattr(record, "units", {}).items():
                chosen = torch.zeros(delta.shape[0 if delta.axis == "output" else 1], dtype=torch.bool)
                chosen[delta.units.cpu()] = True
                self._add(name, chosen)

    def _add(self, name: str, chosen: torch.Tensor) -> None:
        self._counts[name] = self._counts.get(name, 0) + chosen.long()
        self._batches[name] = self._batches.get(name, 0) + 1

    def overlap(self, name: str) -> float | None:
        """Of all pairs of batches: neurons in both masks / mean size of the two, summed over pairs (Dice);
        None before the second mask.

        Equal masks have 1; independent ones of density p about p. A neuron that c of n masks hold is in c (c
        - 1) / 2 of the pairs.
        """
        batches = self._batches.get(name, 0)
        if batches < 2:
            return None
        counts = self._counts[name]
        size = int(counts.sum())
        return int((counts * (counts - 1)).sum()) / (size * (batches - 1)) if size else None

    def touched(self, name: str) -> float | None:
        """Share of the neurons that are in any mask."""
        return int((self._counts[name] > 0).sum()) / len(self._counts[name]) if name in self._counts else None

    def saved(self) -> dict[str, Any]:
        """For ``load``."""
        return {"counts": dict(self._counts), "batches": dict(self._batches)}

    def load(self, saved: dict[str, Any]) -> None:
        """Goes on with what was saved."""
        self._counts, self._batches = dict(saved["counts"]), dict(saved["batches"])


def summary(lines: list[dict], masks: MaskCounts) -> dict[str, dict[str, float | None]]:
    """Means over batches of what ``of_records`` said (failed batches said nothing), with the masks'
    overlap."""
    found: dict[str, dict[str, list]] = {}
    batches = {line["batch"]: line for line in reversed(lines)}
    for _, line in sorted(batches.items()):
        for layer, values in line["layers"].items():
            for name, value in values.items():
                found.setdefault(layer, {}).setdefault(name, []).append(value)
    return {
        layer: {
            **{name: mean(values) for name, values in by_name.items()},
            "overlap": masks.overlap(layer),
            "touched": masks.touched(layer),
        }
        for layer, by_name in found.items()
    }
