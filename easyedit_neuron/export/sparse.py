"""Edits as the rows or columns of the weights that they touch: put in and taken off bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..edits.record import EditRecord
from ..edits.write import clone_weights, fingerprint, restore
from ..errors import NeuronEditError, StateError
from ..utils.io import save_tensors, write_folder
from .provenance import Exported, check_base, describe, folder_size, free, read_about, write_about
from .source import Source, fingerprints

WEIGHTS = "sparse.safetensors"
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def export_sparse(
    edits: Iterable[EditRecord],
    model: nn.Module,
    out: str | Path,
    *,
    base: str | None = None,
    ids: Sequence | None = None,
) -> Exported:
    """Writes the folder ``out`` with what ``apply_sparse`` needs to give the model the edited weights, bit
    for bit, and to take them off again.

    ``sparse.safetensors`` holds per touched parameter the numbers of its rows or columns (whichever takes
    less room) that differ, ``<parameter>.units`` int64 ``[n]``, and the exclusive or of their bits before and
    after, ``<parameter>.bits`` ``[n, d]`` in the integer of the weight's size. Sums of floating-point numbers
    would be rounded, and could not be taken off exactly.

    Args and errors as those of ``export_peft``; there is nothing that this form cannot hold.
    ``about["parameters"]`` says per parameter: ``dim``, of the stored tensor, that ``units`` number;
    ``units``, how many; ``of``, of how many.
    """
    out = Path(out)
    free(out)
    source = Source.of(edits, model, base, ids)
    before = fingerprints(source.model, source.parameters)
    tensors, about = {}, {}
    with source.edited() as originals:
        after = fingerprint(source.model, source.parameters)
        for name in source.parameters:
            dim, units, bits = _difference(originals[name], source.model.get_parameter(name))
            tensors[f"{name}.units"], tensors[f"{name}.bits"] = units, bits
            about[name] = {"dim": dim, "units": len(units), "of": originals[name].shape[dim]}
    if after == before["touched"]:
        raise NeuronEditError("there is nothing to export: the edits leave every weight as it is")
    described = describe(source, "sparse", before, after, about)

    def fill(folder: Path) -> None:
        save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
        write_about(folder, described, [WEIGHTS])

    write_folder(out, fill)
    return Exported(out, described, folder_size(out))


def apply_sparse(model: nn.Module, path: str | Path, take_off: bool = False) -> dict[str, Tensor]:
    """Gives ``model`` the edited weights of an ``export_sparse`` folder, or takes the edits off a model that
    has them.

    Returns:
        {parameter name: copy of its value from before this call}.

    Raises:
        StateError: another kind of export, a damaged one, or one of another model (or of this model with
            other edits in it); the model is as it was.
    """
    folder, about = read_about(path)
    if about["kind"] != "sparse":
        raise StateError(f"{folder}: holds a {about['kind']} export, not a sparse one")
    check_base(model, about, folder, taken_off=take_off)
    names = list(about["parameters"])
    originals = clone_weights(model, names)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            for name in names:
                _flip(
                    model.get_parameter(name),
                    about["parameters"][name]["dim"],
                    file.get_tensor(f"{name}.units"),
                    file.get_tensor(f"{name}.bits"),
                )
        if fingerprint(model, sorted(names)) != (about["base"]["touched"] if take_off else about["after"]):
            raise StateError(f"{folder}: does not lead to the weights that its side file names; export again")
    except BaseException:
        restore(model, originals)
        raise
    return originals


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
