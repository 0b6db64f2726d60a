"""The linear maps of a block by their common names, also if an architecture fuses several into one parameter.

A projection is written as its module's name: ``"model.layers.{}.self_attn.q_proj"``. A fused one adds the
rows that belong to it:

- ``"...c_attn[1/3]"``: the first of three equal blocks of rows;
- ``"...query_key_value[1/3 by head]"``: the first third of the rows of every head (``by 4``: of
  every quarter);
- ``"...qkv_proj[q of qkv]"``: the rows of all query heads, whose places follow from the config's numbers of
  heads (``k of qkv`` and ``v of qkv`` likewise);
- ``"...qkv_proj[0:4096]"``: rows 0 to 4095.

The architecture table holds those of its architectures. The override ``projections`` of ``ModelView.of`` adds
others.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import ArchitectureError
from ..utils.suggest import did_you_mean
from .plain_model import is_bitsandbytes
from .view import ModelView, bias_of

Axis = Literal["output", "input"]
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_PART = r"(?P<part>\d+)/(?P<parts>\d+)( by (?P<by>head|\d+))?"
_ROWS = rf"{_PART}|(?P<qkv>[qkv]) of qkv|(?P<start>\d+):(?P<stop>\d+)"
_SPELLING = re.compile(rf"(?P<module>[^\[\]]+)(\[({_ROWS})\])?")


@dataclass(frozen=True)
class Projection:
    """One linear map ``y = W x`` of one layer.

    Attributes:
        layer: number of the block.
        name: common name, such as ``q_proj``.
        module: name of the module that computes it, perhaps together with others.
        parameter: name of its weight, as in ``model.named_parameters()``.
        rows: int64 ``[d_out]``, ascending, on the weight's device: the map's rows in
            ``ModelView.matrix(parameter)`` ``[all rows, d_in]``, and its entries in the module's output.
        d_in: length of a row.
        fused: whether the parameter holds other rows too.
    """

    layer: int
    name: str
    module: str
    parameter: str
    rows: Tensor
    d_in: int
    fused: bool

    @property
    def key(self) -> str:
        """``"<layer>.<name>"``, under which its scores are stored."""
        return f"{self.layer}.{self.name}"

    def size(self, axis: Axis) -> tuple[int, int]:
        """(neurons, parameters of each): d_out rows (``output``) or d_in columns (``input``)."""
        return (len(self.rows), self.d_in) if axis == "output" else (self.d_in, len(self.rows))

    def weight(self, view: ModelView) -> Tensor:
        """``W [d_out, d_in]``; a copy where the parameter is fused, else a view."""
        matrix = view.matrix(self.parameter)
        return matrix[self.rows] if self.fused else matrix

    def bias(self, view: ModelView) -> Tensor | None:
        """Bias ``[all rows]`` of the module, or ``None``."""
        return bias_of(view.model.get_submodule(self.module))


def projection_names(view: ModelView) -> list[str]:
    """Names of the projections that the model's architecture has."""
    return list(_spellings(view))


def computes(view: ModelView, name: str, module: str) -> bool:
    """Whether a module, by its name, computes the projection called ``name`` in some layer."""
    spelling = _spellings(view).get(name)
    if not isinstance(spelling, str):
        return False
    template = re.escape(spelling.partition("[")[0].removesuffix(".weight")).replace(r"\{\}", r"\d+")
    return re.fullmatch(template, module) is not None


def projection(view: ModelView, layer: int, name: str) -> Projection:
    """The projection called ``name`` in a layer.

    Raises:
        ArchitectureError: no such layer; a name that the architecture does not have (an FFN without a gate
            has no ``gate_proj``); a module that does not exist or has no floating-point matrix; rows that the
            matrix does not have.
    """
    view.layer(layer)
    spellings = _spellings(view)
    if name not in spellings:
        raise ArchitectureError(
            f"{view.arch.model_type} has no projection {name!r}{_reason(name)}; it has "
            f"{', '.join(spellings)}. The field 'projections' adds one by hand"
        )
    spelling = spellings[name]
    match = _SPELLING.fullmatch(spelling) if isinstance(spelling, str) else None
    if match is None or match["module"].count("{}") != 1:
        raise ArchitectureError(
            f"projections.{name}: {spelling!r} must name a module with '{{}}' for the layer, and may end in "
            "[1/3], [1/3 by head], [q of qkv] or [0:4096]"
        )
    module = match["module"].removesuffix(".weight").format(layer)
    try:
        weight = view.model.get_submodule(module).weight
    except AttributeError:
        raise ArchitectureError(
            f"projections.{name}: the model has no module {module!r} with a weight; name it as "
            "model.named_modules() does"
        ) from None
    if is_bitsandbytes(view.model.get_submodule(module)):
        view.matrix(f"{module}.weight")  # refuses it, with the remedy
    if weight.dim() != 2 or not weight.is_floating_point() or weight.is_meta:
        raise ArchitectureError(
            f"projections.{name}: {module}.weight is not a floating-point matrix in memory, so its rows "
            "cannot be edited; load the model unquantised and not offloaded"
        )
    size, d_in = view.matrix(f"{module}.weight").shape
    rows = _rows(match, size, view, name).to(weight.device)
    return Projection(layer, name, module, f"{module}.weight", rows, d_in, len(rows) < size)


def _spellings(view: ModelView) -> dict[str, str]:
    spellings = dict(view.arch.projections)
    spellings.setdefault("down_proj", view.arch.rewrite_module_tmp)
    return spellings


def _reason(name: str) -> str:
    if name == "gate_proj":
        return " (its FFN has no gate)"
    return "" if name in NAMES else f" ({did_you_mean(name, NAMES)})"


def _rows(match: re.Match, size: int, view: ModelView, name: str) -> Tensor:
    rows = torch.arange(size)
    if match["start"]:
        start, stop = int(match["start"]), int(match["stop"])
        if not start < stop <= size:
            raise ArchitectureError(f"projections.{name}: rows {start}:{stop} of a weight with {size} rows")
        return rows[start:stop]
    if match["qkv"]:
        return _attention_rows(match["qkv"], size, view.config, name)
    if not match["part"]:
        return rows
    part, parts = int(match["part"]), int(match["parts"])
    heads = view.config.num_attention_heads if match["by"] == "head" else int(match["by"] or 1)
    if not 1 <= part <= parts or size % (parts * heads):
        of_heads = f" of each of {heads} heads" if heads > 1 else ""
        raise ArchitectureError(
            f"projections.{name}: part {part} of {parts}{of_heads} of a weight with {size} rows"
        )
    return rows.view(heads, parts, -1)[:, part - 1].flatten()


def _attention_rows(kind: str, size: int, config, name: str) -> Tensor:
    """Rows of ``q``, ``k`` or ``v`` in a matrix of ``size`` rows that computes all three.

    The matrix is a row of groups, and a group has its query heads, then its key heads, then its value heads.
    """
    heads = config.num_attention_heads
    if getattr(config, "new_decoder_architecture", False):  # Falcon: a group for each key head
        groups, key_heads = config.num_kv_heads, 1
    elif hasattr(config, "multi_query"):  # Falcon, GPT-BigCode: one key head, or one for each query head
        groups, key_heads = (1 if config.multi_query else heads), 1
    else:  # Phi-3
        groups, key_heads = 1, getattr(config, "num_key_value_heads", heads)
    query_heads = heads // groups
    of_group = query_heads + 2 * key_heads
    if size % (groups * of_group):
        raise ArchitectureError(
            f"projections.{name}: a weight with {size} rows has no {groups} groups of {of_group} heads"
        )
    q, k, v = torch.arange(size).view(groups, of_group, -1).split([query_heads, key_heads, key_heads], 1)
    return {"q": q, "k": k, "v": v}[kind].flatten()
