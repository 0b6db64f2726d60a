"""Silenced neurons, and random ones to compare with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ..arch import Capture, ModelView
from ..errors import NeuronEditError


@contextmanager
def silenced(view: ModelView, neurons: Mapping[int, Tensor]) -> Iterator[None]:
    """Set ``q_i = 0`` at every token for these neurons (layer -> int64 ``[n]``) inside the block."""
    neurons = {layer: units for layer, units in neurons.items() if len(units)}
    for layer, units in neurons.items():
        if not 0 <= int(units.min()) <= int(units.max()) < view.d_ff:
            raise NeuronEditError(f"layer {layer}: neurons are 0 to {view.d_ff - 1}, got {units.tolist()}")
    with Capture(view, [], (), edit_key={layer: _zeroing(units) for layer, units in neurons.items()}):
        yield


def _zeroing(units: Tensor):
    return lambda q: q.index_fill(-1, units.to(q.device), 0)


def counterparts(neurons: Mapping[int, Tensor], d_ff: int, seed: int) -> dict[int, Tensor]:
    """Draw as many neurons of the same layers at random, other ones where a layer has enough of them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for layer, units in sorted(neurons.items()):
        allowed = torch.ones(d_ff, dtype=torch.bool)
        if 2 * len(units) <= d_ff:
            allowed[units.cpu()] = False
        pool = allowed.nonzero().flatten()
        drawn[layer] = pool[torch.randperm(len(pool), generator=generator)[: len(units)]]
    return drawn
