"""Neurons silenced while a block runs, and random ones to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ..arch import Capture, ModelView
from ..errors import NeuronEditError


@contextmanager
def silenced(view: ModelView, neurons: Mapping[int, Tensor]) -> Iterator[None]:
    """Sets ``q_i = 0`` at every token for the neurons named, in every forward pass inside the block.

    By hooks in front of the down projections, which are gone at the end of the block, after an exception too;
    no weight changes.

    Args:
        view: the model.
        neurons: layer -> int64 ``[n]``.

    Raises:
        NeuronEditError: a neuron that does not exist.
        ArchitectureError: a layer that does not exist.
    """
    for layer, units in neurons.items():
        if len(units) and not 0 <= int(units.min()) <= int(units.max()) < view.d_ff:
            raise NeuronEditError(f"layer {layer}: neurons are 0 to {view.d_ff - 1}, got {units.tolist()}")
    with Capture(
        view, [], (), edit_key={layer: _without(units) for layer, units in neurons.items() if len(units)}
    ):
        yield


def _without(units: Tensor):
    return lambda q: q.index_fill(-1, units.to(q.device), 0)


def counterparts(neurons: Mapping[int, Tensor], d_ff: int, seed: int) -> dict[int, Tensor]:
    """As many other neurons of the same layers, drawn at random without these (with them where a layer has
    too few others)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for layer, units in sorted(neurons.items()):
        others = torch.ones(d_ff, dtype=torch.bool)
        if 2 * len(units) <= d_ff:
            others[units.cpu()] = False
        pool = others.nonzero().flatten()
        drawn[layer] = pool[torch.randperm(len(pool), generator=generator)[: len(units)]]
    return drawn
