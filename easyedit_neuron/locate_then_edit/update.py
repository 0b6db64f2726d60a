"""The layer loop: from requests to factors, with the model the same before and after."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..arch.view import ModelView
from ..attribution import Readings
from ..edits.record import LayerDelta
from ..edits.request import EditRequest
from ..edits.session import SequentialState
from ..edits.write import add_delta, trial
from ..errors import HparamsError
from ..masks import NeuronMask
from ..statistics.nullspace import Subspace, null_space
from ..utils.timing import Stopwatch
from .compute_keys import LayerwiseKeys, key_prompts
from .compute_z import Target, find_targets
from .preservation import keeps, kept_prompts, own_keys
from .solver.problem import Problem, leakage
from .solver.sequential import SequentialSolver

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """Result of ``execute``: deltas per layer, keys after the edit, the targets and the seconds of each
    stage."""

    deltas: dict[int, LayerDelta]
    keys_after: dict[int, torch.Tensor]
    targets: list[Target]
    seconds: dict[str, float]


MaskMaker = Callable[[list[EditRequest], list[list[str]], Readings], dict[int, NeuronMask]]


def execute(
    view: ModelView,
    tok,
    requests: list[EditRequest],
    hparams,
    state: SequentialState,
    make_masks: MaskMaker | None = None,
) -> Execution:
    """Computes the deltas of one batch of requests.

    z* of every request at the last layer, then layer by layer: keys and present value on the already edited
    layers, residual ``(z* - z) / layers left``, solve, mask. Inside, weights are changed and exactly put
    back.

    Args:
        view, tok, requests, hparams, state: model, tokenizer, checked requests, ``PathHyperParams``,
            sequential state.
        make_masks: from requests, context groups, and the readings of all contexts of these requests
            (request-major) at their last token, to a mask per layer, on the model as it is; None: every
            neuron.

    Returns:
        Execution. ``keys_after`` are the keys of the solve: a layer's keys depend on the layers below it
        alone, and those had been edited by then.
    """
    watch = Stopwatch()
    state.statistics.ready()  # not in the loop, where it would be measured on layers that have been edited
    for layer in (
        hparams.layers
    ):  # null spaces too: a file that cannot be read is an error before the search for z*, not after it
        _solver(layer, hparams, state)
    watch.lap("statistics")
    layers, z_layer = list(hparams.layers), hparams.layers[-1]
    flat = [context for group in state.contexts for context in group]
    readings: list[Readings] = []

    def read(clean, prompts):
        return Readings.of(view, clean.seen, prompts.context_rows.flatten(), prompts.prompt_end.flatten())

    targets = find_targets(
        view,
        tok,
        requests,
        hparams,
        flat,
        z_layer,
        read if make_masks else None,
        readings,
        kept=kept_prompts(requests, state.edited, hparams),
    )
    wanted = torch.stack([t.value for t in targets], 1)
    watch.lap("target")
    masks = make_masks(requests, state.contexts, Readings.joined(readings)) if make_masks else {}
    watch.lap("mask")
    prompts = key_prompts(tok, requests, state.contexts, view.input_device)
    replaced = own_keys(requests, state.edited, state.counts) if keeps(hparams) else []
    deltas: dict[int, LayerDelta] = {}
    keys: dict[int, torch.Tensor] = {}
    with trial(view, layers):
        layerwise = LayerwiseKeys(view, prompts, z_layer)
        for position, layer in enumerate(layers):
            now = layerwise.at(layer)
            keys[layer] = now.keys
            residual = (wanted - now.value.to(wanted.device)) / (len(layers) - position)
            watch.lap("keys")
            residual = before_norm(view, layer, residual.to(now.keys.device), now.ffn_out)
            deltas[layer] = _layer_delta(
                keys[layer], residual, layer, hparams, state, masks.get(layer), replaced
            )
            watch.lap("solve")
            if position < len(layers) - 1:
                add_delta(view, view.down_weight_name(layer), deltas[layer])
    return Execution(deltas, keys, targets, watch.seconds)


def before_norm(view: ModelView, layer: int, residual: torch.Tensor, ffn_out: torch.Tensor) -> torch.Tensor:
    """What the FFN's output must gain for the block's output to gain ``residual``: other than it where a norm
    lies between (gemma2).

    With ``N(f) = g f / s(f)`` (and an offset), ``N(f + s(f) r / g)`` points exactly where ``N(f) + r`` does;
    a norm cannot give it another length, which differs by ``s((N(f) + r) / g)``, 1 for a small r. EasyEdit
    writes r itself, of which ``g / s(f)`` arrives.

    Args:
        view, layer: where.
        residual: r [d_model, n].
        ffn_out: f [d_model, n], the FFN's output now.
    """
    norm = view.post_ffn_norm_parameters(layer)
    if norm is None:
        return residual
    gain, scale = norm.gain.to(residual)[:, None], norm.scale(ffn_out.T.to(residual))
    # a dimension that the norm does not let through cannot be written
    return torch.where(
        gain.abs() > 1e-4 * gain.abs().max(), residual * scale / gain, torch.zeros_like(residual)
    )


def _layer_delta(
    keys, residual, layer: int, hparams, state: SequentialState, mask: NeuronMask | None, replaced: list[int]
) -> LayerDelta:
    covariance = state.statistics.covariance(layer)
    solver = _solver(layer, hparams, state)
    if mask is not None and hparams.mask_stage == "solve":
        right = solver.masked_right_factor(
            keys, mask.rows, _restricted_null_space(layer, covariance, hparams), replaced
        )
    else:
        right = solver.right_factor(keys, replaced)
        if mask is not None:
            right = right * mask.weight.to(right)[:, None]
    carried = residual @ (right.T @ keys)
    delivered = float((carried * residual).sum() / residual.pow(2).sum().clamp_min(1e-30))
    return LayerDelta(
        residual.contiguous(),
        right.contiguous(),
        None if mask is None else mask.rows,
        1.0 if mask is None else mask.density,
        leakage(residual, right, covariance),
        delivered,
        {} if mask is None else mask.to_json(),
    )


def _solver(layer: int, hparams, state: SequentialState) -> SequentialSolver:
    """The state's solver of a layer for the problem that the hyperparameters pose."""
    masked = hparams.mask_stage == "solve" and hparams.mask != "none"
    preserve = hparams.preserves
    weight = hparams.mom2_update_weight if preserve == "covariance" else hparams.nullspace_threshold
    setting = (preserve, masked, hparams.L2, weight, hparams.accumulate_keys, hparams.solve_dtype)

    def make() -> SequentialSolver:
        statistics = state.statistics
        if preserve == "covariance":
            problem = Problem(hparams.L2, preserve=statistics.covariance(layer), weight=weight)
        elif masked:
            problem = Problem(
                hparams.L2
            )  # the null space is that of the masked rows, another one at every edit
        else:
            space = statistics.null_space(layer, weight)
            if space.dim == 0:
                raise HparamsError(
                    f"field 'nullspace_threshold': the covariance of layer {layer} has no eigenvalue below {weight}, "
                    "so nothing may change; raise it"
                )
            problem = Problem(hparams.L2, subspace=space)
        return SequentialSolver(
            problem,
            state.buffer(layer) if hparams.accumulate_keys else None,
            dtype=getattr(torch, hparams.solve_dtype),
        )

    return state.solver(layer, setting, make)


def _restricted_null_space(
    layer: int, covariance: torch.Tensor, hparams
) -> Callable[[torch.Tensor], Subspace]:
    def restricted(index: torch.Tensor) -> Subspace:
        space = null_space(covariance[index[:, None], index], hparams.nullspace_threshold)
        if space.dim == 0:
            LOG.warning(
                "layer %d: the covariance of the %d masked neurons has no eigenvalue below nullspace_threshold %s; "
                "the layer stays as it is",
                layer,
                len(index),
                hparams.nullspace_threshold,
            )
        return space

    return restricted
