"""The weights that an edit or a run has changed, beside those of the untouched model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..arch import ModelView
from ..arch.view import is_conv1d
from ..edits.record import EditRecord
from ..errors import DataError, StateError
from ..lifelong.run_folder import RunFolder
from ..report.runs import read_run
from .command import Subject


def weights_of(subject: Subject, folder: Path) -> dict[str, Tensor]:
    """What a finished run added to the untouched model: parameter name -> ``[d_out, d_in]`` (CPU, compute
    dtype).

    Raises:
        DataError: no finished run with its weights there, or one of a model of another shape.
    """
    view = subject.view
    return {name: (now - matrix(view, name)) for name, now in edited_weights(subject, folder).items()}


def edited_weights(subject: Subject, folder: Path) -> dict[str, Tensor]:
    """The weights at the end of a run as the model uses them: parameter name -> ``[d_out, d_in]``; errors as
    ``weights_of``."""
    read_run(folder)
    path, found = RunFolder(folder).weights, {}
    if not path.is_file():
        raise DataError(
            f"{path} is not there: the run is unfinished, or was made with runner.keep_weights=false"
        )
    try:
        with safe_open(path, "pt") as handle:
            for name in handle.keys():
                found[name] = handle.get_tensor(name).to(subject.view.compute_dtype)
    except (OSError, SafetensorError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from problem
    parameters = dict(subject.model.named_parameters())
    for name, value in found.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise DataError(
                f"{path}: {name} {list(value.shape)} is not a weight of the model that --model names"
            )
        owner, _, leaf = name.rpartition(".")
        if leaf == "weight" and is_conv1d(subject.model.get_submodule(owner)):
            found[name] = value.t()
        elif value.dim() == 1:
            found[name] = value[:, None]
    return found


def matrix(view: ModelView, name: str) -> Tensor:
    """A weight of the model as ``[d_out, d_in]``, CPU, compute dtype."""
    return view.matrix(name).to("cpu", view.compute_dtype)


def deltas_of(records: Sequence[EditRecord]) -> dict[str, Tensor]:
    """What some edits changed together: parameter name -> ``[d_out, d_in]``."""
    total: dict[str, Tensor] = {}
    for record in records:
        for name, delta in record.deltas.items():
            total[name] = total[name] + delta.matrix() if name in total else delta.matrix()
    return total


def values_of(view: ModelView, changes: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Of changes by parameter name those of value vectors: layer -> ``[d_model, d_ff]``.

    Raises:
        StateError: none of them is a down projection of this model, or one is of another shape.
    """
    names = {view.down_weight_name(layer): layer for layer in range(view.n_layers)}
    found = {names[name]: change for name, change in changes.items() if name in names}
    if not found:
        raise StateError(
            f"no value vector has moved: no down projection is among the changed weights ({', '.join(changes)})"
        )
    for layer, change in found.items():
        if change.shape != torch.Size((view.d_model, view.d_ff)):
            raise StateError(
                f"layer {layer}: the change is {list(change.shape)}, W_down is [{view.d_model}, {view.d_ff}]"
            )
    return found
