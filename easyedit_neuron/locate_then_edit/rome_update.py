"""The rome path: a rank-one update per request and layer, ``Delta = r u^T / (u . k)`` with ``u = C^-1
k_mean`` (ROME, Eq. 2).

The value is searched for at the FFN's output (v*), so that the residual is the vector that the search found:
after the edit ``(W + Delta) k = W k + r`` exactly, whatever u is. ROME takes the key of the bare prompt for
k, R-ROME (``averaged_keys``) the mean over all contexts in both places; v* is then what that key shall give,
and ``r = v* - (W k_mean + b)``.
"""

from dataclasses import dataclass

import torch

from ..arch.states import take
from ..arch.view import ModelView
from ..attribution import Readings
from ..edits.record import LayerDelta
from ..edits.request import EditRequest
from ..edits.session import SequentialState
from ..edits.write import add_delta, trial
from ..masks import NeuronMask
from ..utils.timing import Stopwatch
from .compute_z import Target, find_targets
from .preservation import Kept, kept_prompts
from .solver.problem import Problem, leakage
from .solver.sequential import SequentialSolver
from .update import Execution, MaskMaker


def execute_rome(
    view: ModelView,
    tok,
    requests: list[EditRequest],
    hparams,
    state: SequentialState,
    make_masks: MaskMaker | None = None,
) -> Execution:
    """Computes the deltas of some requests, one after the other, each on the weights that the one before
    left.

    Per request and layer, in order: search for v*, with the keys read off its first forward, on the weights
        as they are by then;
    direction, mask, rank-one update. The masks of a request are made before its first layer changes. Inside,
    weights are changed and exactly put back.

    Args:
        view, tok, requests, hparams, state, make_masks: as ``execute.execute``; the state's keys are neither
            read nor added to.

    Returns:
        Execution: a layer's delta has one column per request; ``targets`` are those of the last layer.
    """
    watch = Stopwatch()
    if hparams.mom2_adjustment:
        state.statistics.ready()  # not in the loop, where it would be measured on layers that have been edited
    watch.lap("statistics")
    contexts = [context for group in state.contexts for context in group]
    updates: dict[int, list[LayerDelta]] = {layer: [] for layer in hparams.layers}
    targets = []
    with trial(view, list(hparams.layers)):
        for number, request in enumerate(requests):
            masks: dict[int, NeuronMask] = {}
            kept = kept_prompts(
                [request], [*state.edited, [other.fact for other in requests[:number]]], hparams
            )
            for layer in hparams.layers:
                first = layer == hparams.layers[0]
                found = _search(
                    view, tok, request, hparams, contexts, layer, make_masks is not None and first, kept
                )
                watch.lap("target")
                if found.readings is not None:
                    masks = make_masks([request], state.contexts, found.readings)
                    watch.lap("mask")
                update = _update(view, layer, found, masks.get(layer), hparams, state)
                add_delta(view, view.down_weight_name(layer), update)
                updates[layer].append(update)
                watch.lap("solve")
            targets.append(found.target)
    deltas = {layer: _joined(parts, _covariance(layer, hparams, state)) for layer, parts in updates.items()}
    return Execution(deltas, {}, targets, watch.seconds)


@dataclass(frozen=True)
class _Found:
    """What one search gives: v*, the keys [c, d_ff] of the contexts, the bare prompt's first, and readings
    for a mask."""

    target: Target
    keys: torch.Tensor
    readings: Readings | None


def _search(
    view: ModelView,
    tok,
    request: EditRequest,
    hparams,
    contexts: list[str],
    layer: int,
    wants_readings: bool,
    kept: list[list[Kept]],
) -> _Found:
    def read(clean, prompts):
        rows = prompts.context_rows.flatten()
        keys = take(clean.seen.key[layer], rows, prompts.lookup[rows]).to(
            view.device_of(layer), view.compute_dtype
        )
        return keys, Readings.of(
            view, clean.seen, rows, prompts.prompt_end.flatten()
        ) if wants_readings else None

    read_off: list = []
    (target,) = find_targets(
        view, tok, [request], hparams, contexts, layer, read, read_off, site="ffn_out", kept=kept
    )
    return _Found(target, *read_off[0])


def _update(
    view: ModelView, layer: int, found: _Found, mask: NeuronMask | None, hparams, state: SequentialState
) -> LayerDelta:
    bare, mean = found.keys[0], found.keys.mean(0)
    key = mean if hparams.averaged_keys else bare
    restricted = mask is not None and hparams.mask_stage == "solve"
    right = _direction(mean, mask.rows.to(mean.device) if restricted else None, layer, hparams, state)
    if bool(right.any()):  # an empty mask leaves the layer as it is
        right = right / (right @ key)
    if mask is not None and not restricted:
        right = right * mask.weight.to(right)
    residual = (found.target.value - found.target.initial).to(key)
    if hparams.averaged_keys:
        residual = residual + view.down_matrix(layer).to(key.dtype) @ (bare - key)
    about = (None, 1.0, {}) if mask is None else (mask.rows, mask.density, mask.to_json())
    return LayerDelta(
        residual[:, None], right[:, None], about[0], about[1], None, float(right @ key), about[2]
    )


def _direction(
    key: torch.Tensor, rows: torch.Tensor | None, layer: int, hparams, state: SequentialState
) -> torch.Tensor:
    """u [d_ff] but for its length: ``C^-1 k``, of the system restricted to ``rows`` where they are given."""
    if not hparams.mom2_adjustment:
        return key if rows is None else key * rows

    def make() -> SequentialSolver:
        problem = Problem(hparams.L2, preserve=state.statistics.covariance(layer))
        return SequentialSolver(problem, dtype=getattr(torch, hparams.solve_dtype))

    # (C + k k^T)^-1 k, which is parallel to C^-1 k
    solver = state.solver(layer, ("rome", hparams.L2, hparams.solve_dtype), make)
    keys = key[:, None]
    return (solver.right_factor(keys) if rows is None else solver.masked_right_factor(keys, rows)).squeeze(1)


def _covariance(layer: int, hparams, state: SequentialState) -> torch.Tensor | None:
    """C for the leakage, where it is at hand anyway."""
    return state.statistics.covariance(layer) if hparams.mom2_adjustment else None


def _joined(parts: list[LayerDelta], covariance: torch.Tensor | None) -> LayerDelta:
    """The sum of the requests' updates of one layer; its mask is the union of theirs."""
    left, right = (torch.cat([getattr(part, side) for part in parts], 1) for side in ("left", "right"))
    energy = left.pow(2).sum(0)
    delivered = float(
        energy @ energy.new_tensor([part.delivered for part in parts]) / energy.sum().clamp_min(1e-30)
    )
    leaked = None if covariance is None else leakage(left, right, covariance)
    mask, density, info = None, 1.0, parts[0].mask_info
    if parts[0].mask is not None:
        mask = torch.stack([part.mask for part in parts]).any(0)
        density = int(mask.sum()) / len(mask)
        if len(parts) > 1:
            info = {"density": density, "requests": [part.mask_info for part in parts]}
    return LayerDelta(left.contiguous(), right.contiguous(), mask, density, leaked, delivered, info)
