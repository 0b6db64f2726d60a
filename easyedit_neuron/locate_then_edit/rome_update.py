"""The rome path: a rank-one update per request and layer, ``Delta = r u^T / (u . k)`` with ``u = C^-1
k_mean`` (ROME, Eq. 2).

The search is for the value at the FFN's output (v*), and r is the difference that it found. After the edit
``(W + Delta) k = W k + r`` exactly, whatever u is. ROME takes the key of the bare prompt for k. R-ROME
(``averaged_keys``) takes the mean over all contexts in both places. v* is then the value of that key, and
``r = v* - (W k_mean + b)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..arch.widen import own_width
from ..edits.record import LayerDelta, add_factors, leakage
from ..edits.request import EditRequest
from ..edits.write import add_delta
from ..masks import NeuronMask
from .compute_z import TargetValues
from .solver.problem import Problem
from .solver.sequential import SequentialSolver

if TYPE_CHECKING:
    from .edit import LocateThenEdit


def compute_rome_deltas(
    edit: LocateThenEdit, batch: list[EditRequest], targets: TargetValues, masks: dict[int, NeuronMask]
) -> tuple[dict[int, LayerDelta], TargetValues]:
    """Edit every layer by a rank-one update, with a search for v* of its own.

    Args:
        edit: hyperparameters and state; the state's keys are neither read nor added to.
        batch: one request.
        targets: v* of the first layer.
        masks: made before the first layer changes.

    Returns:
        (layer -> LayerDelta of one column, v* of the last layer).
    """
    view, deltas = edit.view, {}
    for layer in edit.layers:
        if layer != edit.layers[0]:
            targets = edit.compute_z(batch, layer)
        deltas[layer] = _rank_one(edit, layer, targets, masks.get(layer))
        add_delta(view, view.down_weight_name(layer), deltas[layer])
        edit.watch.lap("solve")
    return deltas, targets


def joined(parts: list[LayerDelta], covariance: Tensor | None) -> LayerDelta:
    """The sum of the requests' updates of one layer; its mask is the union of theirs."""
    value_factor = torch.cat([part.value_factor for part in parts], 1)
    key_factor = torch.cat([part.key_factor for part in parts], 1)
    own = [part.own or (part.value_factor, part.key_factor) for part in parts]
    energy = torch.stack([value.pow(2).sum() for value, _ in own])
    shares = energy.new_tensor([part.residual_share for part in parts])
    residual_share = float(energy @ shares / energy.sum().clamp_min(1e-30))
    leaked = None if covariance is None else leakage(value_factor, key_factor, covariance)
    mask, density, info = None, 1.0, parts[0].mask_info
    if parts[0].mask is not None:
        mask = torch.stack([part.mask for part in parts]).any(0)
        density = int(mask.sum()) / len(mask)
        if len(parts) > 1:
            info = {"density": density, "requests": [part.mask_info for part in parts]}
    return LayerDelta(
        value_factor.contiguous(),
        key_factor.contiguous(),
        mask,
        density,
        leaked,
        residual_share,
        info,
        own=None if parts[0].own is None else add_factors(*own),
    )


def _rank_one(edit: LocateThenEdit, layer: int, targets: TargetValues, mask: NeuronMask | None) -> LayerDelta:
    hparams, target = edit.hparams, targets.targets[0]
    width = own_width(edit.view)
    keys = targets.context_keys[:, :width]
    bare, mean = keys[0], keys.mean(0)
    key = mean if hparams.averaged_keys else bare
    masked_solve = mask is not None and hparams.mask_stage == "solve"
    u = _direction(edit, layer, mean, mask.rows.to(mean.device) if masked_solve else None)
    if bool(u.any()):  # an empty mask leaves the layer as it is
        u = u / (u @ key)
    residual = (target.value - target.initial).to(key)
    if hparams.averaged_keys:
        residual = residual + edit.view.down_matrix(layer)[:, :width].to(key.dtype) @ (bare - key)
    value, u, own = residual[:, None], u[:, None], None
    if mask is not None and not masked_solve:
        (value, u), own = edit.compensated(layer, value, u, mask, key[:, None])
    rows, density, info = (None, 1.0, {}) if mask is None else (mask.rows, mask.density, mask.to_json())
    share = float(residual @ (value @ (u.T @ key)) / residual.pow(2).sum().clamp_min(1e-30))
    return LayerDelta(value, u, rows, density, None, share, info, own=own)


def _direction(edit: LocateThenEdit, layer: int, key: Tensor, rows: Tensor | None) -> Tensor:
    """A vector [d_ff] parallel to u: ``C^-1 k``, or that of the system restricted to ``rows``."""
    hparams, state = edit.hparams, edit.state
    if not hparams.mom2_adjustment:
        return key if rows is None else key * rows
    # (C + k k^T)^-1 k is parallel to C^-1 k.
    setting = ("rome", hparams.L2, hparams.solve_dtype)
    solver = state.solver(layer, setting)
    if solver is None:
        problem = Problem(hparams.L2, preserve=state.statistics.covariance(layer))
        solver = SequentialSolver(problem, dtype=getattr(torch, hparams.solve_dtype))
        state.add_solver(layer, setting, solver)
    keys = key[:, None]
    return (solver.key_factor(keys) if rows is None else solver.masked_key_factor(keys, rows)).squeeze(1)
