"""Edits as the rows or columns of the weights that they touch: put in and taken off bit for bit."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..arch.view import ModelView
from ..arch.widen import widen_to_shapes
from ..edits.record import EditRecord
from ..edits.write import clone_weights, fingerprint, restore
from ..errors import NeuronEditError, StateError
from ..utils.io import save_tensors
from ..utils.schema import damage_is
from .side_file import Exported, check_base, describe, read_side_file, refuse_existing, write_export
from .source import Source

WEIGHTS = "sparse.safetensors"
MOST_ADDED = 2**20
"""Neurons that edits add to a layer: no export of ours has more, and memory for more may not be there."""
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def export_sparse(
    edits: Iterable[EditRecord],
    model: nn.Module,
    out: str | Path,
    *,
    base: str | None = None,
    ids: Sequence | None = None,
) -> Exported:
    """Write the folder ``out``, from which ``apply_sparse`` puts the edits in and takes them off bit for bit.

    ``sparse.safetensors`` holds for each touched parameter ``<parameter>.units``, int64 ``[n]``: the numbers
    of the rows or columns (whichever takes less room) that differ. ``<parameter>.bits`` ``[n, d]`` is the
    exclusive or of their bits before and after, in the integer of the weight's size: floating-point sums
    could not be taken off exactly. Arguments and errors as for ``export_peft``; this form holds every edit.
    """
    refuse_existing(out)
    source = Source.of(edits, model, base, ids)
    tensors, parameters = {}, {}
    with source.edited() as weights:
        for name, original in sorted(weights.originals.items()):
            dim, units, bits = _difference(original, source.model.get_parameter(name))
            tensors[f"{name}.units"], tensors[f"{name}.bits"] = units, bits
            parameters[name] = {"dim": dim, "units": len(units), "of": original.shape[dim]}
    if weights.after == weights.before["touched"]:
        raise NeuronEditError("there is nothing to export: the edits leave every weight as it is")

    def fill(folder: Path) -> None:
        save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})

    return write_export(out, describe(source, "sparse", weights, parameters), fill, [WEIGHTS])


def apply_sparse(model: nn.Module, path: str | Path, take_off: bool = False) -> dict[str, Tensor]:
    """Give ``model`` the edited weights of an ``export_sparse`` folder, or take the edits off a model with
    them.

    Returns {parameter name: copy of its value from before this call}. ``StateError``, with the model as it
    was, for another kind of export, a damaged one, or one of another model.
    """
    folder, side_file = read_side_file(path)
    if side_file["kind"] != "sparse":
        raise StateError(f"{folder}: holds a {side_file['kind']} export, not a sparse one")
    check_base(model, side_file, folder, has_edits=take_off)
    parameters = side_file["parameters"]
    expected = side_file["base"]["touched"] if take_off else side_file["after"]
    damaged = partial(damage_is, StateError, f"{folder}: its files do not fit together; export again")
    with damaged():
        take_away = _grow(model, parameters)
    originals = clone_weights(model, parameters)
    try:
        with damaged(), safe_open(folder / WEIGHTS, "pt") as file:
            for name, parameter in parameters.items():
                units, bits = file.get_tensor(f"{name}.units"), file.get_tensor(f"{name}.bits")
                _flip(model.get_parameter(name), parameter["dim"], units, bits)
        if fingerprint(model, sorted(parameters)) != expected:
            raise StateError(f"{folder}: does not lead to the weights that its side file names; export again")
    except BaseException:
        restore(model, originals)
        take_away()
        raise
    return originals


def _grow(model: nn.Module, parameters: dict[str, dict]) -> Callable[[], None]:
    """Give the FFNs the neurons that the edits have added; returns what takes them away."""
    shapes = {name: list(model.get_parameter(name).shape) for name in parameters}
    wider = {
        name: shape
        for name, shape in shapes.items()
        if parameters[name]["of"] > shape[parameters[name]["dim"]]
    }
    for name, shape in wider.items():
        if parameters[name]["of"] > shape[parameters[name]["dim"]] + MOST_ADDED:
            raise ValueError(f"{name} would get {parameters[name]['of']:,} neurons")
        shape[parameters[name]["dim"]] = parameters[name]["of"]
    return widen_to_shapes(ModelView.of(model), wider) if wider else lambda: None


def _bits(tensor: Tensor) -> Tensor:
    """The tensor's memory as integers, ``[rows, columns]``; a bias is one column."""
    ints = tensor.detach().view(_INTEGERS[tensor.element_size()])
    return ints if ints.dim() == 2 else ints[:, None]


def _difference(before: Tensor, after: Tensor) -> tuple[int, Tensor, Tensor]:
    """(dimension, numbers of the rows or columns that differ, exclusive or of their bits ``[n, d]``)."""
    changed = _bits(before) ^ _bits(after)
    rows, columns = ((changed != 0).any(1).nonzero()[:, 0], (changed != 0).any(0).nonzero()[:, 0])
    if len(rows) * changed.shape[1] <= len(columns) * changed.shape[0]:
        return 0, rows, changed[rows]
    return 1, columns, changed.T[columns]


@torch.no_grad()
def _flip(parameter: Tensor, dim: int, units: Tensor, bits: Tensor) -> None:
    ints = _bits(parameter) if dim == 0 else _bits(parameter).T
    units = units.to(ints.device)
    ints[units] = ints[units] ^ bits.to(ints.device)
