"""The layer loop: from requests to factors, with the model the same before and after."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..arch.view import ModelView
from ..errors import HparamsError
from ..record import LayerDelta
from ..requests import EditRequest
from ..stats.nullspace import null_space
from ..state import SequentialState
from ..write import add_delta, trial
from .keys import LayerwiseKeys, key_prompts
from .solve import Problem, leakage, masked_right_factor, right_factor
from .target import Target, find_targets

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowMask:
    """A neuron mask of one layer: ``weight`` float [d_ff] multiplies rows, ``rows`` bool [d_ff] is where it is not zero."""

    weight: torch.Tensor
    info: dict = field(default_factory=dict)

    @property
    def rows(self) -> torch.Tensor:
        return self.weight != 0

    @property
    def density(self) -> float:
        return float(self.rows.float().mean())


@dataclass(frozen=True)
class Execution:
    """Result of ``execute``: deltas per layer, keys after the edit, the targets and the seconds of each stage."""

    deltas: dict[int, LayerDelta]
    keys_after: dict[int, torch.Tensor]
    targets: list[Target]
    seconds: dict[str, float]


class Stopwatch:
    """Adds up seconds by stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Books the time since the last lap under ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


MaskMaker = Callable[[list[list[str]]], dict[int, RowMask]]


def execute(view: ModelView, tok, requests: list[EditRequest], hparams, state: SequentialState,
            make_masks: MaskMaker | None = None) -> Execution:
    """Computes the deltas of one batch of requests.

    z* of every request at the last layer, then layer by layer: keys and present value on the already edited layers, residual
    ``(z* - z) / layers left``, solve, mask. Inside, weights are changed and exactly put back.

    Args:
        view, tok, requests, hparams, state: model, tokenizer, checked requests, ``PathHyperParams``, sequential state.
        make_masks: from the context groups to a RowMask per layer, on the unedited model; None: every neuron.

    Returns:
        Execution. ``keys_after`` are the keys of the solve: a layer's keys depend on the layers below it alone, and those had been
        edited by then.
    """
    watch = Stopwatch()
    layers, z_layer = list(hparams.layers), hparams.layers[-1]
    flat = [context for group in state.contexts for context in group]
    targets = find_targets(view, tok, requests, hparams, flat, z_layer)
    wanted = torch.stack([t.value for t in targets], 1)
    watch.lap("target")
    masks = make_masks(state.contexts) if make_masks else {}
    watch.lap("mask")
    prompts = key_prompts(tok, requests, state.contexts, view.input_device)
    deltas: dict[int, LayerDelta] = {}
    keys: dict[int, torch.Tensor] = {}
    with trial(view, layers):
        layerwise = LayerwiseKeys(view, prompts, z_layer)
        for position, layer in enumerate(layers):
            keys[layer], present = layerwise.at(layer)
            residual = (wanted - present.to(wanted.device)) / (len(layers) - position)
            watch.lap("keys")
            deltas[layer] = _layer_delta(keys[layer], residual.to(keys[layer].device), layer, hparams, state,
                                         masks.get(layer))
            watch.lap("solve")
            if position < len(layers) - 1:
                add_delta(view, layer, deltas[layer])
    return Execution(deltas, keys, targets, watch.seconds)


def _layer_delta(keys, residual, layer: int, hparams, state: SequentialState, mask: RowMask | None) -> LayerDelta:
    earlier = state.earlier_keys(layer) if hparams.accumulate_keys else None
    covariance = state.statistics.covariance(layer)
    if mask is not None and hparams.mask_stage == "solve":
        right = _solve_masked(keys, earlier, layer, covariance, hparams, mask)
    else:
        right = right_factor(keys, earlier, _problem(layer, covariance, hparams, state))
        if mask is not None:
            right = right * mask.weight.to(right)[:, None]
    carried = residual @ (right.T @ keys)
    delivered = float((carried * residual).sum() / residual.pow(2).sum().clamp_min(1e-30))
    return LayerDelta(residual.contiguous(), right.contiguous(), None if mask is None else mask.rows,
                      1.0 if mask is None else mask.density, leakage(residual, right, covariance), delivered,
                      {} if mask is None else mask.info)


def _problem(layer: int, covariance, hparams, state: SequentialState) -> Problem:
    if hparams.path == "alphaedit":
        space = state.statistics.null_space(layer, hparams.nullspace_threshold)
        if space.dim == 0:
            raise HparamsError(f"field 'nullspace_threshold': the covariance of layer {layer} has no eigenvalue below "
                               f"{hparams.nullspace_threshold}, so nothing may change; raise it")
        return Problem(hparams.L2, subspace=space)
    return Problem(hparams.L2, preserve=covariance.float() * hparams.mom2_update_weight)


def _solve_masked(keys, earlier, layer: int, covariance, hparams, mask: RowMask) -> torch.Tensor:
    rows = mask.rows.to(keys.device)
    if hparams.path == "alphaedit" and hparams.solve_preserve == "nullspace":
        def restricted(index):
            space = null_space(covariance[index][:, index], hparams.nullspace_threshold)
            if space.dim == 0:
                LOG.warning("layer %d: the covariance of the %d masked neurons has no eigenvalue below nullspace_threshold %s; "
                            "the layer stays as it is", layer, len(index), hparams.nullspace_threshold)
            return space
        return masked_right_factor(keys, earlier, Problem(hparams.L2), rows, restricted)
    preserve = covariance.float() * hparams.mom2_update_weight
    return masked_right_factor(keys, earlier, Problem(hparams.L2, preserve=preserve), rows)
