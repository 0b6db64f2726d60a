"""One locate-then-edit call: target values, masks, deltas and the sequential state that they leave."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..arch.view import ModelView, eval_mode
from ..edits.edit import Edit
from ..edits.record import EditRecord, Factors, LayerDelta, add_factors, leakage
from ..edits.request import EditRequest
from ..edits.write import add_delta, down_names, fingerprint, trial
from ..errors import HparamsError
from ..masks import NeuronMask, ScoringContext, make_masks
from ..statistics.cache import Statistics
from ..statistics.nullspace import Subspace, null_space
from .compute_keys import LayerwiseKeys, key_prompts
from .compute_z import TargetValues, compute_z
from .preservation import preserved_prompts, superseded_key_indices
from .rome_update import compute_rome_deltas, joined
from .sequential_state import SequentialState, sequential_state
from .shared_targets import SharedTargets
from .solver.compensation import Compensation
from .solver.problem import Problem
from .solver.sequential import SequentialSolver

LOG = logging.getLogger(__name__)


@dataclass
class LocateThenEdit(Edit):
    """One call of a method that edits down projections along ``hparams.path``.

    A method's main goes through ``batches``, and for each of them ``compute_z``, its masks,
    ``update_layers``, inside ``computing``; then it calls ``commit``. After an exception model and state are
    as they were.

    Attributes:
        state: what earlier edits left.
        compensations: layer -> what masks have cut off from earlier edits and from the batches of this one.
    """

    state: SequentialState = None  # type: ignore[assignment]
    compensations: dict[int, Compensation] = field(default_factory=dict)
    _rome_parts: dict[int, list[LayerDelta]] = field(default_factory=dict)

    @classmethod
    def begin(cls, method: str, model, tok, requests: list[dict], hparams, copy: bool = False):
        """As ``Edit.begin``; then the sequential state and the statistics of the unedited model.

        Both come before the search for z*: a file that cannot be read is an error before the work, and the
        statistics are never measured on edited layers.
        """
        edit = super().begin(method, model, tok, requests, hparams, copy)
        with eval_mode(edit.view.model):
            edit.state, edit.fingerprint_before = sequential_state(edit.view, tok, hparams)
            edit.contexts = edit.state.contexts
            if hparams.uses_text:
                edit.state.statistics.ready()
                for layer in edit.layers if hparams.path != "rome" else ():
                    layer_solver(edit, layer)
        edit.watch.lap("statistics")
        return edit

    @staticmethod
    def check(view: ModelView, hparams) -> None:
        """``HparamsError`` for layers that the model does not have."""
        last = view.n_layers - 1
        missing = [layer for layer in hparams.layers if layer > last]
        if missing:
            raise HparamsError(f"field 'layers': the model has layers 0 to {last}, got {missing}")
        if hparams.v_loss_layer is not None and not 0 <= hparams.v_loss_layer <= last:
            raise HparamsError(
                f"field 'v_loss_layer': the model has layers 0 to {last}, got {hparams.v_loss_layer}"
            )

    @property
    def layers(self) -> list[int]:
        """The edited layers, ascending."""
        return list(self.hparams.layers)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The block in which the method computes: no dropout, and down projections written in it are put
        back."""
        with eval_mode(self.view.model), trial(self.view, self.layers):
            yield

    def batches(self) -> list[list[EditRequest]]:
        """What is solved together: all requests, or on the rome path one after the other, each on the
        weights that the previous one left."""
        return [[request] for request in self.requests] if self.hparams.path == "rome" else [self.requests]

    def compute_z(self, batch: list[EditRequest], layer: int | None = None) -> TargetValues:
        """Target values of a batch, and what attribution needs of the same prompts if there is a mask.

        Args:
            batch: from ``batches``.
            layer: unset: the last edited layer, on the rome path the first. A layer that is named is a later
                one of the rome path, whose masks have been made.
        """
        hparams, is_rome = self.hparams, self.hparams.path == "rome"
        with_readings = hparams.mask != "none" and layer is None
        layer = self.layers[0 if is_rome else -1] if layer is None else layer
        shared, read_layers = SharedTargets.of(self.view.model), self.layers if with_readings else []
        if shared is not None and (earlier := shared.get(batch, hparams, layer, read_layers)) is not None:
            return earlier
        started, preserved = time.process_time(), None
        if hparams.preserves_subject:
            before = self.requests[: self.requests.index(batch[0])]
            edited = [*self.state.edited, [request.fact for request in before]]
            preserved = preserved_prompts(batch, edited, hparams)
        targets = compute_z(
            self.view,
            self.tok,
            batch,
            hparams,
            [context for group in self.state.contexts for context in group],
            layer,
            site="ffn_out" if is_rome else "layer_out",
            preserved=preserved,
            read_neurons=with_readings,
        )
        if shared is not None:
            shared.add(batch, hparams, layer, targets, time.process_time() - started)
        self.watch.lap("target")
        return targets

    def scoring_context(self, batch: list[EditRequest], targets: TargetValues) -> ScoringContext:
        """What a batch's masks are computed from."""
        return ScoringContext(
            self.view, self.tok, batch, self.state.contexts, self.layers, targets.readings, self.info
        )

    def update_layers(
        self, batch: list[EditRequest], targets: TargetValues, masks: dict[int, NeuronMask] | None = None
    ) -> None:
        """Compute the deltas of a batch, layer by layer: keys, residual, solve, mask."""
        self.watch.lap("mask")
        if self.hparams.path == "rome":
            deltas, targets = compute_rome_deltas(self, batch, targets, masks or {})
            for layer, delta in deltas.items():
                self._rome_parts.setdefault(layer, []).append(delta)
        else:
            self.deltas = compute_deltas(self, batch, targets, masks or {})
        self.report(targets)

    def compensated(
        self, layer: int, value: Tensor, key_factor: Tensor, mask: NeuronMask, keys: Tensor
    ) -> tuple[Factors, Factors | None]:
        """What ``mask_stage: post`` writes of a change ``value key_factor^T`` (``value`` [d_model, n] must be
        reached at ``keys``), and with error compensation the edit's own change."""
        weight = mask.weight.to(key_factor)
        if not self.hparams.error_compensation:
            return (value, key_factor * weight[:, None]), None
        earlier = self.compensations.get(layer) or self.state.compensation(layer)
        own = value - earlier.at(keys), key_factor
        value, key_factor = add_factors(earlier.rest, own)
        self.compensations[layer] = earlier.added(own, len(self.state.steps) + 1, weight)
        return (value, key_factor * weight[:, None]), own

    def report(self, targets: TargetValues) -> None:
        """Add loss curves and probabilities of a search to the record."""
        self.losses += [target.losses for target in targets.targets]
        self.probability += [target.probability for target in targets.targets]

    def commit(
        self, records: list[EditRecord] | None = None, return_orig_weights: bool = False
    ) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        """Write the edit and note it in the sequential state; see ``Edit.commit``."""
        for layer, parts in self._rome_parts.items():
            covariance = self.state.statistics.covariance(layer) if self.hparams.mom2_adjustment else None
            self.deltas[layer] = joined(parts, covariance)
        if self.units:
            self.fingerprint_before = None  # other parameters than the state's
        return super().commit(records, return_orig_weights)

    def after_commit(self, record: EditRecord) -> None:
        """Append the edit to the sequential state, with the keys that later edits protect."""
        after = record.fingerprint_after
        if self.units:
            after = fingerprint(self.view.model, down_names(self.view, self.layers))
        keys = {layer: delta.keys for layer, delta in self.deltas.items() if delta.keys is not None}
        self.state.append_edit(after, keys, self.requests)
        self.state.compensations |= self.compensations


def compute_deltas(
    edit: LocateThenEdit, batch: list[EditRequest], targets: TargetValues, masks: dict[int, NeuronMask]
) -> dict[int, LayerDelta]:
    """Spread the target values over the edited layers, one layer after the other, ``hparams.sweeps`` times.

    Each layer's delta is written into the model before the next layer is read; the block of
    ``edit.computing()`` puts the weights back.

    Returns:
        layer -> LayerDelta. ``keys`` are those of the solve: a layer's keys depend on the layers below it
        alone, and those have been edited by then.
    """
    view, layers, state = edit.view, edit.layers, edit.state
    prompts = key_prompts(edit.tok, batch, state.contexts, view.input_device)
    # The new value stands for earlier edits of the same prompt, and if it keeps them, of the same subject.
    superseded = superseded_key_indices(batch, state.edited, state.counts, edit.hparams.preserves_subject)
    z_star, sweeps = targets.z, edit.hparams.sweeps
    deltas: dict[int, LayerDelta] = {}
    for sweep in range(sweeps):
        layerwise = LayerwiseKeys(view, prompts, layers[-1])
        for number, layer in enumerate(layers):
            reading = layerwise.at(layer)
            # Spread the remaining residual over the layers left.
            residual = (z_star - reading.z.to(z_star.device)) / (len(layers) - number)
            edit.watch.lap("keys")
            residual = view.before_ffn_branch(layer, residual.to(reading.keys.device), reading.ffn_out)
            delta = layer_delta(edit, layer, reading.keys, residual, masks.get(layer), superseded)
            deltas[layer] = with_sweep(edit, layer, deltas[layer], delta) if sweep else delta
            edit.watch.lap("solve")
            if layer != layers[-1] or sweep < sweeps - 1:
                add_delta(view, view.down_weight_name(layer), delta)
    return deltas


def with_sweep(edit: LocateThenEdit, layer: int, earlier: LayerDelta, delta: LayerDelta) -> LayerDelta:
    """The sum of a layer's changes in earlier sweeps and in one more, with the keys of the newest.

    ``residual_share`` is that of the newest residual.
    """
    value_factor, key_factor = add_factors(
        (earlier.value_factor, earlier.key_factor), (delta.value_factor, delta.key_factor)
    )
    own = None if delta.own is None or earlier.own is None else add_factors(earlier.own, delta.own)
    covariance = edit.state.statistics.covariance(layer)
    leaked = leakage(value_factor, key_factor, covariance)
    return replace(delta, value_factor=value_factor, key_factor=key_factor, leakage=leaked, own=own)


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
    solver, value, own = layer_solver(edit, layer), residual, None
    if not hparams.accumulate_keys:
        superseded = []  # the problem holds no earlier keys, which another method may have left in the state
    if mask is not None and hparams.mask_stage == "solve":
        subspace = None
        if hparams.preserves == "nullspace":
            subspace = _restricted_null_space(covariance, mask.rows, layer, hparams.nullspace_threshold)
        key_factor = solver.masked_key_factor(keys, mask.rows, subspace, superseded)
    else:
        key_factor = solver.key_factor(keys, superseded)
        if mask is not None:
            (value, key_factor), own = edit.compensated(layer, residual, key_factor, mask, keys)
    carried = value @ (key_factor.T @ keys)
    residual_share = float((carried * residual).sum() / residual.pow(2).sum().clamp_min(1e-30))
    return LayerDelta(
        value.contiguous(),
        key_factor.contiguous(),
        None if mask is None else mask.rows,
        1.0 if mask is None else mask.density,
        leakage(value, key_factor, covariance),
        residual_share,
        {} if mask is None else mask.to_json(),
        keys if hparams.accumulate_keys else None,
        own,
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
    if masked and preserve != "covariance":
        problem = Problem(hparams.L2)  # The masked rows' null space differs from edit to edit.
    else:
        problem = problem_of(hparams, state.statistics, layer)
    buffer = state.buffer(layer) if hparams.accumulate_keys else None
    return state.add_solver(
        layer, setting, SequentialSolver(problem, buffer, dtype=getattr(torch, hparams.solve_dtype))
    )


def problem_of(hparams, statistics: Statistics, layer: int) -> Problem:
    """The problem of a layer for all of its neurons, without keys of edits.

    Raises:
        HparamsError: the null space is empty.
    """
    if hparams.path == "rome":
        return Problem(hparams.L2, preserve=statistics.covariance(layer))
    if hparams.preserves == "covariance":
        weight = hparams.mom2_update_weight
        return Problem(hparams.L2, preserve=statistics.covariance(layer), weight=weight)
    space = statistics.null_space(layer, hparams.nullspace_threshold)
    if space.dim == 0:
        raise HparamsError(
            f"field 'nullspace_threshold': the covariance of layer {layer} has no eigenvalue below "
            f"{hparams.nullspace_threshold}, so nothing may change; raise it"
        )
    return Problem(hparams.L2, subspace=space)


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


def apply_locate_then_edit(
    method: str,
    model,
    tok,
    requests: list[dict],
    hparams,
    copy: bool = False,
    return_orig_weights: bool = False,
    records: list[EditRecord] | None = None,
) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The whole of ROME, MEMIT and AlphaEdit, with the mask that ``hparams.mask`` names or none.

    Args:
        method: name for the record.
        model, tok, requests, hparams, copy, return_orig_weights, records: those of ``apply_*_to_model``.

    Returns:
        (edited model, {parameter name: original tensor}), the second empty unless asked for.

    Raises:
        NeuronEditError: bad hyperparameters or requests; model and state are then as they were.
    """
    edit = LocateThenEdit.begin(method, model, tok, requests, hparams, copy)
    with edit.computing():
        for batch in edit.batches():
            targets = edit.compute_z(batch)
            masks = {}
            if hparams.mask != "none":
                masks = make_masks(edit.scoring_context(batch, targets), hparams)
            edit.update_layers(batch, targets, masks)
    return edit.commit(records, return_orig_weights)
