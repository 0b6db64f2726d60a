"""More neurons in every FFN: the model stays an ordinary one, with a larger intermediate size.

A new neuron is zero in all that it reads and writes, so that the outputs stay as they were. Writing into it
later is a change of rows and columns of ordinary parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ArchitectureError
from .plain_model import is_bitsandbytes
from .projections import Projection, computes, projection, projection_names
from .view import ModelView, is_conv1d

READS = ("gate_proj", "up_proj")
"""Projections whose rows are the FFN's neurons; an FFN without a gate has ``up_proj`` alone."""
ADJUSTS = "block_auto_adjust_ff_dim"
"""Field of LFM2's config: whether the FFNs have the number of neurons that the config says, or two thirds."""
DESCRIPTION = "widened_as"
"""Attribute of a model that has grown, and of its copies: the ``Architecture`` as which it did. Weights of
before the growth are put back without the hyperparameters, which may have named the modules by hand."""
OWN_WIDTH = "neurons_before_growth"
"""Attribute of a model that has grown, and of its copies: neurons of an FFN before the first growth."""
SIZES = {True: ("out_features", "nf"), False: ("in_features", "nx")}
"""Attributes of a linear layer with the number of what it gives (True) or reads (False)."""


def neuron_reads(view: ModelView, layer: int) -> dict[str, Projection]:
    """Name -> projection of a layer whose rows are its neurons.

    Raises:
        ArchitectureError: the architecture's table does not name them.
    """
    reads = {name: projection(view, layer, name) for name in READS if name in projection_names(view)}
    if "up_proj" not in reads:
        raise ArchitectureError(
            f"neurons cannot be added to {view.arch.model_type}: it has no projection 'up_proj'. The field "
            "'projections' names one by hand; methods that add no neurons can edit it as it is"
        )
    return reads


def row_parts(view: ModelView, parameter: str) -> int:
    """Number of projections whose rows are neurons and that lie one behind the other in a parameter.

    It is 2 where gate and up are one matrix (Phi-3, GLM), else 1. There a neuron more moves the rows of the
    second, so that a ``UnitDelta`` numbers them in another way.
    """
    module = parameter.rpartition(".")[0]
    return max(1, sum(computes(view, name, module) for name in READS))


def free_neurons(view: ModelView, layer: int) -> Tensor:
    """int64, neurons of a layer that read and write nothing, ascending: added, and not used or freed."""
    used = view.down_matrix(layer).any(0)
    for read in neuron_reads(view, layer).values():
        used |= read.weight(view).any(1).to(used.device)
    return (~used).nonzero().squeeze(1).cpu()


def widen(view: ModelView, width: int) -> Callable[[], None]:
    """Give every FFN ``width`` neurons; the new ones, at the end, are zero.

    Parameters stay the same objects, on their devices and in their dtypes; the config says the new size.
    Views made before know the old one. FFNs that are quantised stay as they are: such a model is edited in
    memory, and its log is exported on the whole model.

    Returns:
        A function that takes the neurons away again.

    Raises:
        ArchitectureError: fewer neurons than there are; an architecture as in ``neuron_reads``.
    """
    if width < view.d_ff:
        raise ArchitectureError(f"the FFNs have {view.d_ff} neurons and cannot be widened to {width}")
    config, field = view.config, _width_field(view)
    sizes: list[tuple[Any, str, Any, int]] = [(config, field, getattr(config, field), width)]
    if getattr(config, ADJUSTS, False):
        sizes.append((config, ADJUSTS, True, False))
    tensors: list[tuple[nn.Parameter, Tensor]] = []
    for layer in range(view.n_layers):
        if is_bitsandbytes(view.down_proj(layer)):
            continue
        reads = Counter(read.module for read in neuron_reads(view, layer).values())
        modules = [(view.model.get_submodule(name), True, parts) for name, parts in reads.items()]
        for module, is_output, parts in [*modules, (view.down_proj(layer), False, 1)]:
            tensors += _grown(module, width, is_output, parts)
            names = [name for name in SIZES[is_output] if hasattr(module, name)]
            sizes += [(module, name, getattr(module, name), parts * width) for name in names]
    before = [(parameter, parameter.data) for parameter, _ in tensors]
    for parameter, value in tensors:
        parameter.data = value
    for owner, name, _, size in sizes:
        setattr(owner, name, size)
    setattr(view.model, DESCRIPTION, view.arch)
    if not hasattr(view.model, OWN_WIDTH):
        setattr(view.model, OWN_WIDTH, view.d_ff)

    def narrow() -> None:
        for parameter, value in before:
            parameter.data = value
        for owner, name, size, _ in sizes:
            setattr(owner, name, size)

    return narrow


def own_width(view: ModelView) -> int:
    """Neurons of an FFN without those that ``widen`` has added."""
    return getattr(view.model, OWN_WIDTH, view.d_ff)


def widen_to_shapes(view: ModelView, shapes: Mapping[str, Sequence[int]]) -> Callable[[], None]:
    """Widen the model where its down projections have larger shapes here, as stored, as those of a saved edit
    have.

    Other differences are left to whoever compares shapes. Returns what ``widen`` does.
    """
    width = view.d_ff
    for layer in range(view.n_layers):
        shape = shapes.get(view.down_weight_name(layer), ())
        if len(shape) == 2:
            width = max(width, shape[0 if is_conv1d(view.down_proj(layer)) else 1])
    return widen(view, width) if width > view.d_ff else lambda: None


def _grown(module: nn.Module, width: int, is_output: bool, parts: int) -> list[tuple[nn.Parameter, Tensor]]:
    """(parameter, its value with zeros for the new neurons), of the weight and of a bias of the neurons."""
    dim = 1 if is_output == is_conv1d(module) else 0  # of the neurons, as the weight is stored
    shape = [parts * width if place == dim else size for place, size in enumerate(module.weight.shape)]
    grown = [(module.weight, zero_padded(module.weight.data, shape, parts))]
    if is_output and getattr(module, "bias", None) is not None:
        grown.append((module.bias, zero_padded(module.bias.data, [parts * width], parts)))
    return grown


def zero_padded(value: Tensor, shape: Sequence[int], parts: int = 1) -> Tensor:
    """The value itself if it has this shape, else a copy with zeros where dimensions grow, at their end.

    Of ``parts`` equal parts of the first dimension each grows at its own end.
    """
    if tuple(value.shape) == tuple(shape):
        return value
    padded = value.new_zeros(tuple(shape))
    values = value.unflatten(0, (parts, -1))
    padded.unflatten(0, (parts, -1))[tuple(slice(size) for size in values.shape)] = values
    return padded


def padded_like(model: nn.Module, name: str, value: Tensor) -> Tensor:
    """A copy of a parameter, with zeros for the neurons that the model has had added since."""
    parameter = model.get_parameter(name)
    if parameter.shape == value.shape:
        return value
    return zero_padded(value, parameter.shape, row_parts(view_of_grown(model), name))


def view_of_grown(model: nn.Module) -> ModelView:
    """View of a model whose FFNs may have grown, as the one that they grew by."""
    arch = getattr(model, DESCRIPTION, None)
    return ModelView.of(model) if arch is None else ModelView(model, arch)


def _width_field(view: ModelView) -> str:
    """Field of the config with the number of neurons; in GPT-2 and GPT-J it may be None (4 d_model)."""
    for name in ("shared_intermediate_size", "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"):
        size = getattr(view.config, name, 0)
        if size in (view.d_ff, None) or (size and getattr(view.config, ADJUSTS, False)):
            return name
    raise ArchitectureError(
        f"neurons cannot be added to {view.arch.model_type}: its config does not say how many an FFN has, so "
        "that no model with more of them could be loaded"
    )
