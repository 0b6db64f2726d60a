"""The one place that changes weights: add a delta, try one out, put the originals back."""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager

import torch

from ..arch.view import ModelView
from ..arch.widen import own_width, padded_like, row_parts, view_of_grown, widen, widen_to_shapes
from ..errors import StateError
from ..utils.fingerprint import tensors_fingerprint
from .record import Delta, UnitDelta, unit_places


def down_names(view: ModelView, layers: Iterable[int]) -> list[str]:
    """Names of the down_proj weights of the layers."""
    return [view.down_weight_name(layer) for layer in layers]


def fingerprint(model: torch.nn.Module, names: Iterable[str]) -> str:
    """Fingerprint of the named parameters."""
    return tensors_fingerprint((name, model.get_parameter(name)) for name in names)


def clone_weights(model: torch.nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Copies of parameters in EasyEdit's form: {parameter name: tensor in the parameter's own layout}."""
    return {name: model.get_parameter(name).detach().clone() for name in names}


def make_room(model: torch.nn.Module, copies: Mapping[str, torch.Tensor]) -> None:
    """Let the FFNs grow where copies of weights have more neurons than the model."""
    if any(value.numel() > model.get_parameter(name).numel() for name, value in copies.items()):
        widen_to_shapes(view_of_grown(model), {name: value.shape for name, value in copies.items()})


@torch.no_grad()
def restore(model: torch.nn.Module, originals: Mapping[str, torch.Tensor]) -> None:
    """Write copies back, bit for bit.

    Copies with more neurons than the model let its FFNs grow; where they have fewer, the others become zero.
    """
    make_room(model, originals)
    for name, value in originals.items():
        model.get_parameter(name).copy_(padded_like(model, name, value))


@torch.no_grad()
def add_delta(view: ModelView, name: str, delta: Delta) -> None:
    """``W += delta`` in float32 (float64 for a float64 weight), rounded once to the weight's dtype.

    Raises:
        StateError: the delta, or the weight with it (float16 ends at 65504), is not finite, or of another
            shape than the weight; the weight is not changed then.
    """
    weight = view.matrix(name)
    if not fits(delta, tuple(weight.shape), own_width(view)):
        shapes = f"{list(delta.shape)}, the model's is {list(weight.shape)}"
        raise StateError(f"{name}: the delta is for a weight {shapes}")
    if isinstance(delta, UnitDelta):
        is_older = delta.axis == "output" and delta.side < len(weight) and not delta.adds
        if is_older and delta.parts != row_parts(view, name):
            raise StateError(
                f"{name}: the edit was saved by an earlier version, before neurons were added to the model; "
                "its rows are not known any more"
            )
        rows = weight if delta.axis == "output" else weight.T
        places = unit_places(delta.units, delta.parts, len(rows)).to(weight.device)
        rows[places] = _sum(name, rows[places], delta.vectors)
    else:
        own = weight[:, : delta.shape[1]]
        own.copy_(_sum(name, own, delta.matrix()))


def _sum(name: str, weight: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    change = change.to(weight.device)
    if not bool(torch.isfinite(change).all()):
        raise StateError(f"{name}: the computed delta is not finite; the model was left as it was")
    changed = (weight.to(torch.promote_types(weight.dtype, torch.float32)) + change).to(weight.dtype)
    if not bool(torch.isfinite(changed).all()):
        raise StateError(f"{name}: the edited weight overflows {weight.dtype}; the model was left as it was")
    return changed


def fits(delta: Delta, shape: tuple[int, ...], own_width: int) -> bool:
    """Whether a change is one of a matrix of this shape, or of the matrix before neurons were added to it.

    ``own_width``: neurons of an FFN before, see ``arch.widen``; methods that solve change these alone.
    """
    if isinstance(delta, UnitDelta):
        units, other = (0, 1) if delta.axis == "output" else (1, 0)
        return delta.shape[other] == shape[other] and delta.shape[units] <= shape[units]
    return delta.shape[0] == shape[0] and delta.shape[1] in (shape[1], own_width)


def write(view: ModelView, deltas: Mapping[str, Delta]) -> dict[str, torch.Tensor]:
    """Add all deltas or none; return copies of the original parameters.

    Where changes are of neurons that the model does not have yet, its FFNs grow.
    """
    grow(view, deltas)
    originals = clone_weights(view.model, deltas)
    try:
        for name, delta in deltas.items():
            add_delta(view, name, delta)
    except BaseException:
        restore(view.model, originals)
        raise
    return originals


def grow(view: ModelView, deltas: Mapping[str, Delta]) -> None:
    """Give the FFNs the neurons that changes add to them."""
    units = [delta for delta in deltas.values() if isinstance(delta, UnitDelta) and delta.adds]
    widths = [delta.side // delta.parts for delta in units]
    now = ModelView(view.model, view.arch) if widths else view  # the FFNs may have grown since
    if widths and max(widths) > now.d_ff:
        widen(now, max(widths))


@contextmanager
def trial(view: ModelView, layers: list[int]):
    """A block at whose end the down_proj weights are put back, bit for bit, also after an exception."""
    originals = clone_weights(view.model, down_names(view, layers))
    try:
        yield
    finally:
        restore(view.model, originals)
