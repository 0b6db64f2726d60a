"""The one place that changes weights: add a delta, try one out, put the originals back."""

from contextlib import contextmanager

import torch

from .arch.view import ModelView
from .errors import StateError
from .fingerprint import tensors_fingerprint
from .record import LayerDelta


def edited_weights(view: ModelView, layers: list[int]) -> dict[str, torch.Tensor]:
    """name -> the parameter itself, for the down_proj weights of the layers."""
    return {view.down_weight_name(l): view.model.get_parameter(view.down_weight_name(l)) for l in layers}


def fingerprint(view: ModelView, layers: list[int]) -> str:
    """Fingerprint of the down_proj weights of the layers."""
    return tensors_fingerprint(edited_weights(view, layers).items())


def clone_weights(view: ModelView, layers: list[int]) -> dict[str, torch.Tensor]:
    """Copies of the weights in EasyEdit's form: {parameter name: tensor in the parameter's own layout}."""
    return {name: weight.detach().clone() for name, weight in edited_weights(view, layers).items()}


@torch.no_grad()
def restore(view: ModelView, originals: dict[str, torch.Tensor]) -> None:
    """Writes copies back, bit for bit."""
    for name, value in originals.items():
        view.model.get_parameter(name).copy_(value)


@torch.no_grad()
def add_delta(view: ModelView, layer: int, delta: LayerDelta) -> None:
    """``W += left @ right.T`` in float32 (float64 for a float64 weight), rounded once to the weight's dtype.

    Raises:
        StateError: the delta, or the weight with it (float16 ends at 65504), is not finite; nothing is written.
    """
    weight = view.down_matrix(layer)
    change = delta.matrix().to(weight.device)
    if not bool(torch.isfinite(change).all()):
        raise StateError(f"layer {layer}: the computed delta is not finite; the model was left as it was")
    changed = (weight.to(torch.promote_types(weight.dtype, torch.float32)) + change).to(weight.dtype)
    if not bool(torch.isfinite(changed).all()):
        raise StateError(f"layer {layer}: the edited weight overflows {weight.dtype}; the model was left as it was")
    weight.copy_(changed)


@contextmanager
def trial(view: ModelView, layers: list[int]):
    """Weights written inside the block are exactly undone at its end, also after an exception."""
    originals = clone_weights(view, layers)
    try:
        yield
    finally:
        restore(view, originals)
