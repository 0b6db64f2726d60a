"""The layer loop of MEMIT, AlphaEdit, NMKE and PNKE, and the delta of one layer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..arch.view import ModelView
from ..edits.record import LayerDelta
from ..edits.request import EditRequest
from ..edits.write import add_delta
from ..errors import HparamsError
from ..masks import NeuronMask
from ..statistics.nullspace import Subspace, null_space
from .compute_keys import LayerwiseKeys, key_prompts
from .compute_z import TargetValues
from .preservation import superseded_key_indices
from .solver.problem import Problem
from .solver.sequential import SequentialSolver

if TYPE_CHECKING:
    from .edit import LocateThenEdit

LOG = logging.getLogger(__name__)


def compute_deltas(
    edit: LocateThenEdit, batch: list[EditRequest], targets: TargetValues, masks: dict[int, NeuronMask]
) -> dict[int, LayerDelta]:
    """Spread the target values over the edited layers, one layer after the other.

    Each layer's delta is written into the model before the next layer is read; the block of
    ``edit.computing()`` puts the weights back.

    Returns:
        layer -> LayerDelta. ``keys`` are those of the solve: a layer's keys depend on the layers below it
        alone, and those have been edited by then.
    """
    view, layers, state = edit.view, edit.layers, edit.state
    prompts = key_prompts(edit.tok, batch, state.contexts, view.input_device)
    superseded = []
    if edit.hparams.preserves_subject:  # The new value stands for the subject's earlier edits.
        superseded = superseded_key_indices(batch, state.edited, state.counts)
    z_star, layerwise = targets.z, LayerwiseKeys(view, prompts, layers[-1])
    deltas: dict[int, LayerDelta] = {}
    for number, layer in enumerate(layers):
        reading = layerwise.at(layer)
        # Spread the remaining residual over the layers left.
        residual = (z_star - reading.z.to(z_star.device)) / (len(layers) - number)
        edit.watch.lap("keys")
        residual = before_norm(view, layer, residual.to(reading.keys.device), reading.ffn_out)
        deltas[layer] = layer_delta(edit, layer, reading.keys, residual, masks.get(layer), superseded)
        edit.watch.lap("solve")
        if layer != layers[-1]:
            add_delta(view, view.down_weight_name(layer), deltas[layer])
    return deltas


def layer_delta(
    edit: LocateThenEdit,
    layer: int,
    keys: Tensor,
    residual: Tensor,
    mask: NeuronMask | None,
    superseded: list[int],
) -> LayerDelta:
    """Solve for one layer: ``R X^T``, with X from the problem of all neurons or of the masked ones.

    Args:
        edit: hyperparameters and state.
        layer: number of the layer.
        keys: K [d_ff, n].
        residual: R [d_model, n], what the FFN's output must gain at these keys.
        mask: neurons that may change; None: all.
        superseded: indices of earlier keys that are not protected.
    """
    hparams, covariance = edit.hparams, edit.state.statistics.covariance(layer)
    solver = layer_solver(edit, layer)
    if mask is not None and hparams.mask_stage == "solve":
        subspace = None
        if hparams.preserves == "nullspace":
            subspace = _restricted_null_space(covariance, mask.rows, layer, hparams.nullspace_threshold)
        key_factor = solver.masked_key_factor(keys, mask.rows, subspace, superseded)
    else:
        key_factor = solver.key_factor(keys, superseded)
        if mask is not None:
            key_factor = key_factor * mask.weight.to(key_factor)[:, None]
    carried = residual @ (key_factor.T @ keys)
    residual_share = float((carried * residual).sum() / residual.pow(2).sum().clamp_min(1e-30))
    return LayerDelta(
        residual.contiguous(),
        key_factor.contiguous(),
        None if mask is None else mask.rows,
        1.0 if mask is None else mask.density,
        leakage(residual, key_factor, covariance),
        residual_share,
        {} if mask is None else mask.to_json(),
        keys if hparams.accumulate_keys else None,
    )


def layer_solver(edit: LocateThenEdit, layer: int) -> SequentialSolver:
    """The state's solver of a layer for the problem that the hyperparameters pose."""
    hparams, state = edit.hparams, edit.state
    masked, preserve = hparams.masks_in_solve, hparams.preserves
    weight = hparams.mom2_update_weight if preserve == "covariance" else hparams.nullspace_threshold
    setting = (preserve, masked, hparams.L2, weight, hparams.accumulate_keys, hparams.solve_dtype)
    solver = state.solver(layer, setting)
    if solver is not None:
        return solver
    if preserve == "covariance":
        problem = Problem(hparams.L2, preserve=state.statistics.covariance(layer), weight=weight)
    elif masked:
        problem = Problem(hparams.L2)  # The masked rows' null space differs from edit to edit.
    else:
        space = state.statistics.null_space(layer, weight)
        if space.dim == 0:
            raise HparamsError(
                f"field 'nullspace_threshold': the covariance of layer {layer} has no eigenvalue below "
                f"{weight}, so nothing may change; raise it"
            )
        problem = Problem(hparams.L2, subspace=space)
    buffer = state.buffer(layer) if hparams.accumulate_keys else None
    return state.add_solver(
        layer, setting, SequentialSolver(problem, buffer, dtype=getattr(torch, hparams.solve_dtype))
    )


def _restricted_null_space(covariance: Tensor, rows: Tensor, layer: int, threshold: float) -> Subspace | None:
    """Null space of the masked neurons' covariance; None where no neuron is masked in."""
    index = rows.to(covariance.device).nonzero().squeeze(1)
    if not len(index):
        return None
    space = null_space(covariance[index[:, None], index], threshold)
    if space.dim == 0:
        LOG.warning(
            "layer %d: the covariance of the %d masked neurons has no eigenvalue below nullspace_threshold "
            "%s; the layer does not change",
            layer,
            len(index),
            threshold,
        )
    return space


def before_norm(view: ModelView, layer: int, residual: Tensor, ffn_out: Tensor) -> Tensor:
    """What the FFN's output must gain for the block's output to gain ``residual``.

    The two differ where a norm lies between (gemma2). With ``N(f) = g f / s(f)`` (and an offset), ``N(f +
    s(f) r / g)`` points exactly where ``N(f) + r`` does. A norm cannot give it another length; the lengths
    differ by the factor ``s((N(f) + r) / g)``, 1 for a small r. EasyEdit writes r itself, of which ``g /
    s(f)`` arrives.

    Args:
        view, layer: where.
        residual: r [d_model, n].
        ffn_out: f [d_model, n], the FFN's output now.
    """
    norm = view.post_ffn_norm_parameters(layer)
    if norm is None:
        return residual
    gain, scale = norm.gain.to(residual)[:, None], norm.scale(ffn_out.T.to(residual))
    # A dimension that the norm does not let through cannot be written.
    passes = gain.abs() > 1e-4 * gain.abs().max()
    return torch.where(passes, residual * scale / gain, torch.zeros_like(residual))


def leakage(value_factor: Tensor, key_factor: Tensor, covariance: Tensor) -> float:
    """``tr(D C D^T) / (|D|^2 tr C)`` of ``D = value_factor key_factor^T``; 1 / d_ff for a random
    direction."""
    gram, trace = value_factor.T @ value_factor, covariance.diagonal().sum().to(key_factor)
    rows = key_factor.any(1)
    if 2 * int(rows.sum()) < len(rows):  # a mask's rows: only they are read
        index = rows.to(covariance.device).nonzero().squeeze(1)
        key_factor, covariance = key_factor[rows], covariance[index[:, None], index]
    energy = ((key_factor.T @ (covariance.to(key_factor) @ key_factor)) * gram).sum()
    norm = ((key_factor.T @ key_factor) * gram).sum() * trace
    return float(energy / norm) if float(norm) > 0 else 0.0
