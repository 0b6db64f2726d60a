"""Masks that do not look at the scores' values: all neurons, random ones, given ones."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import HparamsError, MaskError
from .contract import NeuronMask, check_share, mask_function


@mask_function
def no_mask(scores: Tensor, *, layer: int | None = None) -> NeuronMask:
    """Every neuron may change: the unmasked baseline."""
    return NeuronMask(torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device))


@mask_function
def random_mask(
    scores: Tensor, *, layer: int | None = None, density: float = 0.5, seed: int = 0
) -> NeuronMask:
    """A random ``round(density * d_ff)`` neurons (at least one), the same ones under the same seed and layer
    on any device.

    Args:
        scores: ``[B, d_ff]``; only the number of neurons and the device are used.
        layer: mixed into the seed, so that layers get different neurons.
        density: share of neurons, in (0, 1].
        seed: of the draw.

    Raises:
        MaskError: a density out of range, a seed that is not a non-negative integer.
    """
    density = check_share("density", density)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise MaskError(f"seed: expected an integer of at least 0, got {seed!r}")
    size = scores.shape[1]
    # drawn on the CPU: generators of different devices differ
    generator = torch.Generator().manual_seed(1_000_003 * seed + (0 if layer is None else layer + 1))
    chosen = torch.randperm(size, generator=generator)[: max(1, round(density * size))]
    return _from_indices(chosen, size, scores.device)


@mask_function
def fixed_mask(
    scores: Tensor, *, layer: int | None = None, indices: Sequence[int] | Mapping[int, Sequence[int]]
) -> NeuronMask:
    """The neurons named by the user.

    Args:
        scores: ``[B, d_ff]``; only the number of neurons and the device are used.
        layer: which entry of a mapping to take.
        indices: neuron numbers, or ``{layer: neuron numbers}`` (layer numbers may be strings, as JSON writes
            them).

    Raises:
        MaskError: no entry for the layer, an empty list, a number that is no neuron of the layer, or one
            given twice.
    """
    where = "indices"
    if isinstance(indices, Mapping):
        entries = {str(key): value for key, value in indices.items()}
        if str(layer) not in entries:
            raise MaskError(
                f"indices: no entry for layer {layer}; there are entries for {', '.join(entries) or 'none'}"
            )
        indices, where = entries[str(layer)], f"indices of layer {layer}"
    if isinstance(indices, (str, bytes)):
        raise MaskError(f"{where}: expected neuron numbers, got {indices!r}")
    size = scores.shape[1]
    try:
        numbers = [operator.index(i) for i in (indices.tolist() if isinstance(indices, Tensor) else indices)]
    except TypeError:
        raise MaskError(f"{where}: expected neuron numbers, got {indices!r}") from None
    if not numbers:
        raise MaskError(f"{where}: the list is empty, the edit could change nothing")
    wrong = next((i for i in numbers if not 0 <= i < size), None)
    if wrong is not None:
        raise MaskError(f"{where}: {wrong} is not a neuron; the layer has neurons 0 to {size - 1}")
    if len(set(numbers)) != len(numbers):
        twice = next(i for i in numbers if numbers.count(i) > 1)
        raise MaskError(f"{where}: neuron {twice} is given twice")
    return _from_indices(torch.tensor(numbers), size, scores.device)


def read_indices(path: str) -> dict[str, Sequence[int]]:
    """The ``indices`` of ``fixed_mask`` from a JSON file ``{layer: [neuron, ...]}``; the neurons themselves
    are checked there.

    Raises:
        HparamsError: the file of the field ``mask_file`` cannot be read, or holds no object.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise HparamsError(f"field 'mask_file': {path} cannot be read as JSON ({problem})") from problem
    if not isinstance(table, dict):
        raise HparamsError(f"field 'mask_file': {path} must be an object {{layer: [neuron, ...]}}")
    return table


def _from_indices(indices: Tensor, size: int, device: torch.device) -> NeuronMask:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[indices] = True
    return NeuronMask(mask.to(device))
