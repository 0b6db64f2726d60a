"""What the edits' records say of the layers: density, leakage, delivered share, and how masks overlap."""

from collections.abc import Iterator
from typing import Any

import torch

from ..arch.widen import zero_padded
from ..utils.lists import mean


def layer_values(records: list) -> dict[str, dict[str, float | None]]:
    """``layers`` of one batch for ``edits.jsonl``; records other than ``EditRecord`` have none."""
    layers: dict[str, dict[str, float | None]] = {}
    for record in records:
        for layer, delta in getattr(record, "layers", {}).items():
            values = {"density": delta.density, "leakage": delta.leakage}
            layers[str(layer)] = values | {"delivered": delta.residual_share}
        for name, delta in getattr(record, "units", {}).items():
            layers[name] = {"density": delta.density, "leakage": None, "delivered": None}
    return layers


def stage_seconds(records: list) -> dict[str, float]:
    return add_up(getattr(record, "seconds", {}) for record in records)


def add_up(seconds: Iterator[dict[str, float]]) -> dict[str, float]:
    """The sum of several dictionaries of seconds by stage."""
    total: dict[str, float] = {}
    for stages in seconds:
        for stage, spent in stages.items():
            total[stage] = total.get(stage, 0.0) + spent
    return total


class MaskCounts:
    """How many batches chose each neuron, by layer (by parameter for methods that change rows or columns)."""

    def __init__(self):
        self._counts: dict[str, torch.Tensor] = {}
        self._batches: dict[str, int] = {}

    def add(self, records: list) -> None:
        for record in records:
            for layer, delta in getattr(record, "layers", {}).items():
                if delta.mask is not None:
                    self._add(str(layer), delta.mask.cpu().bool())
            for name, delta in getattr(record, "units", {}).items():
                mask = torch.zeros(delta.shape[0 if delta.axis == "output" else 1], dtype=torch.bool)
                mask[delta.units.cpu()] = True
                self._add(name, mask)

    def _add(self, name: str, mask: torch.Tensor) -> None:
        counts = self._counts.get(name, mask.new_zeros(0, dtype=torch.long))
        size = [max(len(counts), len(mask))]  # methods that add neurons have masks that grow
        self._counts[name] = zero_padded(counts, size) + zero_padded(mask.long(), size)
        self._batches[name] = self._batches.get(name, 0) + 1

    def overlap(self, name: str) -> float | None:
        """Dice overlap over all pairs of batches: neurons in both masks / mean size of the two, both summed
        over the pairs. None before the second mask.

        Equal masks have 1, independent ones of density p about p. A neuron that is in c of n masks is in
        c (c - 1) / 2 of the pairs.
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

    def saved_state(self) -> dict[str, Any]:
        return {"counts": dict(self._counts), "batches": dict(self._batches)}

    def load_state(self, saved: dict[str, Any]) -> None:
        self._counts, self._batches = dict(saved["counts"]), dict(saved["batches"])


def layer_means(lines: list[dict], masks: MaskCounts) -> dict[str, dict[str, float | None]]:
    """Means over batches of ``layer_values`` (failed batches have none), with the masks' overlap."""
    collected: dict[str, dict[str, list]] = {}
    batches = {line["batch"]: line for line in reversed(lines)}
    for _, line in sorted(batches.items()):
        for layer, values in line["layers"].items():
            for name, value in values.items():
                collected.setdefault(layer, {}).setdefault(name, []).append(value)
    means = {}
    for layer, by_name in collected.items():
        means[layer] = {name: mean(values) for name, values in by_name.items()}
        means[layer] |= {"overlap": masks.overlap(layer), "touched": masks.touched(layer)}
    return means
