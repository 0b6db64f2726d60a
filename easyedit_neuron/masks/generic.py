"""Masks of no particular method: all neurons, random ones, listed ones, those with the highest scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import HparamsError, MaskError
from ..hyperparameters.options import SEED, Options, doc, require
from ..utils.plain_trees import read_json
from .contract import NeuronMask, checked_scores


def no_mask(scores: Tensor) -> NeuronMask:
    """Every neuron may change: the unmasked baseline."""
    return NeuronMask(torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device))


@dataclass(kw_only=True)
class RandomOptions(Options):
    """Options of mask ``random``."""

    density: float = doc("share of neurons", 0.5, above=0, most=1)
    seed: int = doc("seed of the draw", 0, **SEED)


def random_mask(scores: Tensor, options: RandomOptions, layer: int) -> NeuronMask:
    """Random ``round(density * d_ff)`` neurons (at least one), the same under the same seed and layer on any
    device.

    Args:
        scores: [B, d_ff]; only the number of neurons and the device are used.
        options: density and seed.
        layer: mixed into the seed, so that layers get different neurons.
    """
    d_ff = scores.shape[1]
    # Drawn on the CPU: generators of different devices differ.
    generator = torch.Generator().manual_seed(1_000_003 * options.seed + layer + 1)
    order = torch.randperm(d_ff, generator=generator)
    return NeuronMask.from_indices(order[: max(1, round(options.density * d_ff))], d_ff, scores.device)


@dataclass(kw_only=True)
class FixedOptions(Options):
    """Options of mask ``fixed``."""

    indices: list[int] | dict[int, list[int]] = doc("indices of neurons, or {layer: indices}", least=0)


def fixed_mask(scores: Tensor, options: FixedOptions, layer: int) -> NeuronMask:
    """The neurons named by the user.

    Args:
        scores: [B, d_ff]; only the number of neurons and the device are used.
        options: indices for all layers, or per layer.
        layer: selects the entry of indices per layer.

    Raises:
        MaskError: no entry for the layer, an empty list, or an index that is out of range or repeated.
    """
    numbers, name, d_ff = options.indices, "indices", scores.shape[1]
    if isinstance(numbers, dict):
        if layer not in numbers:
            listed = ", ".join(map(str, numbers)) or "none"
            raise MaskError(f"indices: no entry for layer {layer}; there are entries for {listed}")
        numbers, name = numbers[layer], f"indices of layer {layer}"
    if not numbers:
        raise MaskError(f"{name}: the list is empty, the edit could change nothing")
    for number in numbers:
        if not 0 <= number < d_ff:
            raise MaskError(f"{name}: {number} is not a neuron; the layer has neurons 0 to {d_ff - 1}")
        if numbers.count(number) > 1:
            raise MaskError(f"{name}: neuron {number} is given twice")
    return NeuronMask.from_indices(torch.tensor(numbers), d_ff, scores.device)


def read_indices(path: str) -> dict[str, Sequence[int]]:
    """The ``indices`` of ``fixed_mask`` from a JSON file ``{layer: [neuron, ...]}``.

    Raises:
        HparamsError: the file of the field ``mask_file`` cannot be read, or holds no object.
    """
    try:
        table = read_json(Path(path))
    except (OSError, ValueError) as problem:
        raise HparamsError(f"field 'mask_file': {path} cannot be read as JSON ({problem})") from problem
    if not isinstance(table, dict):
        raise HparamsError(f"field 'mask_file': {path} must be an object {{layer: [neuron, ...]}}")
    return table


@dataclass(kw_only=True)
class TopOptions(Options):
    """Options of the masks of the highest scores; at most one of them."""

    top_k: int | None = doc("neurons per row of scores", None, least=1)
    top_share: float | None = doc(
        "share of the neurons per row of scores; at least one neuron", None, above=0, most=1
    )

    def validate(self) -> None:
        """Check that one of them is given at most."""
        super().validate()
        require(self.top_k is None or self.top_share is None, "top_k", "give top_k or top_share, not both")


def top_k_mask(scores: Tensor, options: TopOptions, layer: int) -> NeuronMask:
    """The union over rows of the neurons with the highest scores (FiNE, Algorithm 1), by default 5 per row.

    FiNE ranks the neurons of all layers together. A mask function sees one layer, so here every edited layer
    has its own ``top_k``.
    """
    return _union_of_highest(scores, options, default_k=5)


def top_share_mask(scores: Tensor, options: TopOptions, layer: int) -> NeuronMask:
    """As ``top_k_mask``, by default a tenth of the neurons per row (those above PNKE's 90th percentile)."""
    return _union_of_highest(scores, options, default_k=max(1, round(0.1 * scores.shape[1])))


def _union_of_highest(scores: Tensor, options: TopOptions, default_k: int) -> NeuronMask:
    scores = checked_scores(scores)
    d_ff, count = scores.shape[1], options.top_k or default_k
    if options.top_share is not None:
        count = max(1, round(options.top_share * d_ff))
    if count > d_ff:
        raise MaskError(f"top_k: the layer has {d_ff} neurons, got {count}")
    # A stable sort: of equal scores the neuron with the lower number comes first, on every device.
    highest = scores.argsort(dim=1, descending=True, stable=True)[:, :count].flatten()
    return NeuronMask.from_indices(highest, d_ff, scores.device)
