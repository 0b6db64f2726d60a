"""Some neurons of an FFN as a small FFN of their own: W_critical of section 3, and the mask of Eq. 8."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...arch import ModelView, projection, projection_names
from ...edits.record import UnitDelta
from ...errors import ArchitectureError


@dataclass
class Part:
    """The rows or columns of one FFN parameter that belong to the neurons.

    Attributes:
        kind: ``w_out``, ``w_in`` or ``b_in``.
        name: name of the parameter.
        units: int64 ``[k]``, its rows (``axis: output``) or columns (``input``) in
            ``ModelView.matrix(name)``, ascending.
        axis, shape: as in ``UnitDelta``.
        start: ``[k, d]``, values of these rows or columns in the model, compute dtype.
        change: ``[k, d]``, what is added to them; zero at first.
    """

    kind: str
    name: str
    units: Tensor
    axis: str
    shape: tuple[int, int]
    start: Tensor
    change: Tensor

    @classmethod
    def of(cls, view: ModelView, kind: str, name: str, units: Tensor, axis: str = "output") -> Part:
        """Read the units from the model."""
        matrix = view.matrix(name)
        rows = matrix if axis == "output" else matrix.T
        start = rows[units.to(rows.device)].to(view.compute_dtype)
        return cls(kind, name, units, axis, tuple(matrix.shape), start, torch.zeros_like(start))

    @property
    def value(self) -> Tensor:
        """``[k, d]``, start and change added."""
        return self.start + self.change

    def delta(self, **info) -> UnitDelta:
        """The change in the form that ``edits.write.write`` takes."""
        return UnitDelta(self.units, self.change.detach().contiguous(), self.axis, self.shape, info)


class CriticalNeurons:
    """The neurons ``units`` of one FFN: their output for the FFN's inputs, and its dependence on them.

    Neuron i is row i of every matrix that reads the residual stream (gate and up in a gated FFN), element i
    of its bias, and column i of the down projection. The FFN's own forward runs on these rows and columns
    only, with the model's activation function and gating. A product costs ``d_model * n`` instead of
    ``d_model * d_ff``.

    Args:
        view, layer: model and layer of the FFN.
        units: int64 ``[n]``, ascending.

    Attributes:
        parts: the parameters of the neurons, that of W_out first.

    Raises:
        ArchitectureError: an FFN whose projections are not its own children.
    """

    def __init__(self, view: ModelView, layer: int, units: Tensor):
        units = units.cpu()
        down_name = view.down_weight_name(layer)
        w_out = Part.of(view, "w_out", down_name, units, axis="input")
        self.parts = [w_out]
        small_modules = {down_name.removesuffix(".weight"): _PartialLinear(w_out, None)}
        for module, rows in _rows_by_input_module(view, layer, units).items():
            weight = Part.of(view, "w_in", f"{module}.weight", rows)
            has_bias = getattr(view.model.get_submodule(module), "bias", None) is not None
            bias = Part.of(view, "b_in", f"{module}.bias", rows) if has_bias else None
            small_modules[module] = _PartialLinear(weight, bias)
            self.parts += [weight] if bias is None else [weight, bias]

        # A shallow copy of the FFN with the small modules in place of its own.
        mlp, prefix = view.mlp(layer), view.arch.mlp_module_tmp.format(layer) + "."
        children = {name.removeprefix(prefix): module for name, module in small_modules.items()}
        for name in children:
            if name not in mlp._modules:
                raise ArchitectureError(
                    f"{name} is not a child of the FFN {prefix[:-1]!r}, so solver adam cannot run its "
                    "neurons alone; use solver closed_form"
                )
        self._adds_residual = "adds_residual" in view.arch.ffn_quirks
        self._ffn = copy.copy(mlp)
        self._ffn.__dict__.pop("forward", None)  # of the whole FFN; accelerate may have replaced it
        self._ffn._modules = {**mlp._modules, **children}

    def written(self, x: Tensor) -> Tensor:
        """``sum_i v_i q_i(x)`` over the neurons, ``[n, d_model]``, for FFN inputs ``x [n, d_model]``."""
        return self._ffn.forward(x, torch.zeros_like(x)) if self._adds_residual else self._ffn.forward(x)


class _PartialLinear(nn.Module):
    """The linear map of the parts."""

    def __init__(self, weight: Part, bias: Part | None):
        super().__init__()
        self._weight, self._bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        weight = self._weight.value if self._weight.axis == "output" else self._weight.value.T
        return functional.linear(x, weight, None if self._bias is None else self._bias.value[:, 0])


def _rows_by_input_module(view: ModelView, layer: int, units: Tensor) -> dict[str, Tensor]:
    """{module that reads the residual stream: the neurons' rows}; gate and up may be one module."""
    names = [name for name in ("gate_proj", "up_proj") if name in projection_names(view)]
    if not names:
        raise ArchitectureError(
            "solver adam needs the FFN's up projection (and gate); name it in the field 'projections'"
        )
    rows_of: dict[str, Tensor] = {}
    for name in names:
        site = projection(view, layer, name)
        rows = site.rows.cpu()[units]
        rows_of[site.module] = torch.cat([rows_of[site.module], rows]) if site.module in rows_of else rows
    return rows_of
