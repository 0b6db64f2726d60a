"""The weights that an edit or a run has changed, compared with those of the untouched model."""

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
from .command import StudiedModel


def weights_of(studied: StudiedModel, folder: Path) -> dict[str, Tensor]:
    """What a finished run added to the model: parameter name -> ``[d_out, d_in]`` (CPU, compute dtype)."""
    weights = edited_weights(studied, folder)
    return {name: weight - matrix(studied.view, name) for name, weight in weights.items()}


def edited_weights(studied: StudiedModel, folder: Path) -> dict[str, Tensor]:
    """The weights at the end of a run, in the form of ``weights_of``.

    ``DataError`` where there is no finished run with its weights, or one of a model of another shape.
    """
    read_run(folder)
    path = RunFolder(folder).weights
    if not path.is_file():
        reason = "the run is unfinished, or was made with runner.keep_weights=false"
        raise DataError(f"{path} is not there: {reason}")
    try:
        with safe_open(path, "pt") as handle:
            names = handle.keys()
            weights = {name: handle.get_tensor(name).to(studied.view.compute_dtype) for name in names}
    except (OSError, SafetensorError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from problem
    parameters = dict(studied.model.named_parameters())
    for name, weight in weights.items():
        if name not in parameters or parameters[name].shape != weight.shape:
            problem = "is not a weight of the model that --model names"
            raise DataError(f"{path}: {name} {list(weight.shape)} {problem}")
        owner, _, leaf = name.rpartition(".")
        if leaf == "weight" and is_conv1d(studied.model.get_submodule(owner)):
            weights[name] = weight.t()
        elif weight.dim() == 1:
            weights[name] = weight[:, None]
    return weights


def matrix(view: ModelView, name: str) -> Tensor:
    """A weight of the model as ``[d_out, d_in]``, CPU, compute dtype."""
    return view.matrix(name).to("cpu", view.compute_dtype)


def deltas_of(records: Sequence[EditRecord]) -> dict[str, Tensor]:
    """The sum of what edits changed: parameter name -> ``[d_out, d_in]``."""
    total: dict[str, Tensor] = {}
    for record in records:
        for name, delta in record.deltas.items():
            total[name] = total[name] + delta.matrix() if name in total else delta.matrix()
    return total


def values_of(view: ModelView, changes: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """The changes of value vectors among changes by parameter name: layer -> ``[d_model, d_ff]``.

    ``StateError`` where none of them is a down projection of this model, or one is of another shape.
    """
    layers = {view.down_weight_name(layer): layer for layer in range(view.n_layers)}
    by_layer = {layers[name]: change for name, change in changes.items() if name in layers}
    if not by_layer:
        problem = f"no down projection is among the changed weights ({', '.join(changes)})"
        raise StateError(f"no value vector has moved: {problem}")
    for layer, change in by_layer.items():
        if change.shape != torch.Size((view.d_model, view.d_ff)):
            expected = f"W_down is [{view.d_model}, {view.d_ff}]"
            raise StateError(f"layer {layer}: the change is {list(change.shape)}, {expected}")
    return by_layer
