"""Some neurons of a FFN as a small FFN of their own: W_critical of section 3, and the mask of Eq. 8."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...arch import ModelView, projection, projection_names
from ...edits.record import UnitDelta
from ...errors import ArchitectureError

KINDS = ("w_out", "w_in", "b_in")


@dataclass
class Part:
    """What belongs to the neurons in one parameter of the FFN.

    Attributes:
        kind: ``w_out``, ``w_in`` or ``b_in``.
        name: of the parameter.
        units: int64 ``[k]``, its rows (``axis: output``) or columns (``input``) in
            ``ModelView.matrix(name)``, ascending.
        axis, shape: as in ``UnitDelta``.
        start: ``[k, d]``, these rows or columns as they are, in the compute dtype.
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
        """The units as they stand in the model."""
        matrix = view.matrix(name)
        rows = matrix if axis == "output" else matrix.T
        start = rows[units.to(rows.device)].to(view.compute_dtype)
        return cls(kind, name, units, axis, tuple(matrix.shape), start, torch.zeros_like(start))

    @property
    def now(self) -> Tensor:
        """``[k, d]`` with the change."""
        return self.start + self.change

    def delta(self, **info) -> UnitDelta:
        """The change, for ``write``."""
        return UnitDelta(self.units, self.change.detach().contiguous(), self.axis, self.shape, info)


class CriticalNeurons:
    """The neurons ``units`` of one FFN: what they write for given inputs of the FFN, and how that changes
    with their parameters.

    Neuron i is row i of every matrix that reads the residual stream (gate and up in a gated FFN), element i
    of its bias, and column i of the down projection. The FFN's own forward is run on these alone, so that
    activation function and gating are the model's; a product costs ``d_model * n`` and not ``d_model *
    d_ff``.

    Args:
        view, layer: which FFN.
        units: int64 ``[n]``, ascending.

    Attributes:
        parts: the ``Part`` s, those of W_out first.

    Raises:
        ArchitectureError: a FFN whose projections are not its own children.
    """

    def __init__(self, view: ModelView, layer: int, units: Tensor):
        units = units.cpu()
        self.parts = [Part.of(view, "w_out", view.down_weight_name(layer), units, axis="input")]
        inputs = {self.parts[0].name.removesuffix(".weight"): (self.parts[0], None)}
        for module, rows in _reading(view, layer, units).items():
            weight = Part.of(view, "w_in", f"{module}.weight", rows)
            biased = getattr(view.model.get_submodule(module), "bias", None) is not None
            bias = Part.of(view, "b_in", f"{module}.bias", rows) if biased else None
            inputs[module] = weight, bias
            self.parts += [weight] if bias is None else [weight, bias]
        mlp, prefix = view.mlp(layer), view.arch.mlp_module_tmp.format(layer) + "."
        small = {}
        for module, parts in inputs.items():
            name = module.removeprefix(prefix)
            if name not in mlp._modules:
                raise ArchitectureError(
                    f"{module} is not a child of the FFN {prefix[:-1]!r}: solver adam cannot run its "
                    "neurons alone"
                )
            small[name] = _Rows(*parts)
        self._ffn = copy.copy(mlp)
        self._ffn.__dict__.pop("forward", None)  # a hook that was put around the whole FFN's
        self._ffn._modules = {**mlp._modules, **small}

    def written(self, x: Tensor) -> Tensor:
        """``sum_i v_i q_i(x)`` over the neurons, ``[rows, d_model]``, for inputs of the FFN ``x [rows,
        d_model]``."""
        return self._ffn.forward(x)


class _Rows(nn.Module):
    """A linear map made of parts."""

    def __init__(self, weight: Part, bias: Part | None):
        super().__init__()
        self._weight, self._bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        weight = self._weight.now if self._weight.axis == "output" else self._weight.now.T
        return functional.linear(x, weight, None if self._bias is None else self._bias.now[:, 0])


def _reading(view: ModelView, layer: int, units: Tensor) -> dict[str, Tensor]:
    """{module that reads the residual stream: its rows that belong to the neurons}; gate and up may be one
    module."""
    names = [name for name in ("gate_proj", "up_proj") if name in projection_names(view)]
    if not names:
        raise ArchitectureError(
            "solver adam needs the FFN's up projection (and gate); the field 'projections' names it by hand"
        )
    rows_of: dict[str, Tensor] = {}
    for name in names:
        site = projection(view, layer, name)
        rows = site.rows.cpu()[units]
        rows_of[site.module] = torch.cat([rows_of[site.module], rows]) if site.module in rows_of else rows
    return rows_of
