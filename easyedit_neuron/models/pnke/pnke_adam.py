"""Eq. 9 by Adam (B.6.1): layer after layer, minimise the loss of Eq. 1 over the critical neurons only."""

import logging
import math

import torch
from torch import Tensor

from ...arch import Capture, ModelView, take
from ...arch.tokens import Batch, pad
from ...arch.view import frozen_parameters
from ...edits.request import EditRequest
from ...edits.write import restore, write
from ...errors import EditError
from ...locate_then_edit.compute_keys import KeyPrompts, key_prompts
from ...locate_then_edit.compute_z import TargetValues
from ...locate_then_edit.edit import LocateThenEdit
from ...masks import NeuronMask
from ...optim import Objective, minimise
from .critical_neurons import CriticalNeurons

LOG = logging.getLogger(__name__)
ROWS = 64
"""Token rows per forward pass."""


def train_critical_neurons(
    edit: LocateThenEdit, batch: list[EditRequest], targets: TargetValues, masks: dict[int, NeuronMask]
) -> None:
    """Train the critical neurons of every layer into ``edit.units``; the model is as before afterwards.

    z* and the residual ``r = (z* - z) / layers left`` are those of ``locate_then_edit.edit``. For a
    layer with FFN f, x_1 are its inputs at the subjects' last tokens, in all contexts, weighted as in the
    mean of the keys. x_0 are its inputs at tokens of text::

        L = sum_requests mean_contexts |f'(x_1) - f(x_1) - r|^2 + lambda mean |f'(x_0) - f(x_0)|^2

    (Eq. 1 and 9), with lambda = ``mom2_update_weight``. With ``adam_trains: [w_out]`` the minimum is that of
    Eq. 10, where C is computed from the same tokens.

    Raises:
        EditError: the loss is not finite or never falls, or there is nothing to train.
    """
    edit.watch.lap("mask")
    view, hparams, layers, state = edit.view, edit.hparams, edit.layers, edit.state
    prompts = key_prompts(edit.tok, batch, state.contexts, view.input_device)
    text = pad(state.statistics.sample(hparams.adam_preserve_tokens), view.input_device)
    edit.info["layers"] = {}
    originals: dict[str, Tensor] = {}
    try:
        for number, layer in enumerate(layers):
            inputs, outputs, z = _read_subjects(view, prompts, layer, layers[-1])
            # Spread the remaining residual over the layers left; all contexts of a request get the same one.
            residual = targets.z - z[:, prompts.bare].to(targets.z.device)
            residual = residual / (len(layers) - number)
            contexts = len(outputs) // len(batch)
            residual = residual.to(outputs.device).repeat_interleave(contexts, 1)
            residual = view.before_ffn_branch(layer, residual, outputs.T).T
            preserved = _read_tokens(view, text, layer)
            edit.watch.lap("keys")
            mask = masks.get(layer)
            units = torch.arange(view.d_ff) if mask is None else mask.indices.cpu()
            neurons = CriticalNeurons(view, layer, units)
            weights = prompts.row_weights.to(outputs)
            with frozen_parameters(view.model):  # an activation function may have parameters of its own
                loss_info = train_layer(neurons, inputs, residual, weights, preserved, layer, hparams)
            changes = {
                part.name: part.delta(layer=layer, kind=part.kind)
                for part in neurons.parts
                if part.kind in hparams.adam_trains
            }
            edit.info["layers"][str(layer)] = {**loss_info, "mask": {} if mask is None else mask.to_json()}
            originals |= write(view, changes)  # the next layer is read with this change
            edit.units |= changes
            edit.watch.lap("solve")
    finally:
        restore(view.model, originals)
    edit.report(targets)


@torch.no_grad()
def _read_subjects(
    view: ModelView, prompts: KeyPrompts, layer: int, z_layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(FFN input ``[R, d_model]``, FFN output ``[R, d_model]``, z ``[d_model, R]``) at the last token of all
    rows."""
    parts = []
    for start in range(0, len(prompts.batch.lengths), ROWS):
        part = prompts.batch.rows(start, start + ROWS)
        inputs, seen = _run(view, part, layer, z_layer)
        at = torch.arange(len(part.lengths)), part.last
        parts.append([take(states, *at) for states in (inputs, seen.ffn_out[layer], seen.layer_out[z_layer])])
    inputs, outputs, z = (torch.cat(columns).to(view.compute_dtype) for columns in zip(*parts))
    device = view.device_of(layer)
    return inputs.to(device), outputs.to(device), z.T


@torch.no_grad()
def _read_tokens(view: ModelView, text: Batch, layer: int) -> Tensor:
    """``[tokens, d_model]`` inputs of a FFN at all real tokens."""
    parts = []
    for start in range(0, len(text.lengths), ROWS):
        part = text.rows(start, start + ROWS)
        inputs, _ = _run(view, part, layer, layer)
        parts.append(inputs[part.attention_mask.bool().to(inputs.device)])
    return torch.cat(parts).to(view.device_of(layer), view.compute_dtype)


def _run(view: ModelView, batch: Batch, layer: int, last: int) -> tuple[Tensor, Capture]:
    """One forward up to block ``last``: the FFN's input, and the captured outputs of the FFN and of that
    block."""
    ffn_inputs: list[Tensor] = []

    def read_input(output: Tensor, inputs: Tensor) -> Tensor:
        ffn_inputs.append(inputs)
        return output

    hook = (layer, view.arch.mlp_module_tmp.format(layer), read_input)
    with Capture(view, [layer, last], ("ffn_out", "layer_out"), stop_after=last, edit_modules=[hook]) as seen:
        view.model(**batch.inputs, use_cache=False)
    return ffn_inputs[0], seen


def train_layer(
    neurons: CriticalNeurons,
    inputs: Tensor,
    residual: Tensor,
    weights: Tensor,
    preserved: Tensor,
    layer: int,
    hparams,
) -> dict:
    """Run Adam on L for one layer; changes ``neurons.parts`` and returns steps and losses.

    Args:
        neurons: the trained neurons.
        inputs: x_1 [R, d_model].
        residual: [R, d_model].
        weights: [R] of the rows.
        preserved: x_0 [tokens, d_model].
        layer: number of the layer, for errors.
        hparams: ``PNKEHyperParams``.
    """
    trained = [part.change for part in neurons.parts if part.kind in hparams.adam_trains]
    if not trained:
        raise EditError(
            f"layer {layer}: field 'adam_trains' names no parameter of this FFN: {hparams.adam_trains}"
        )
    for change in trained:
        change.requires_grad_()
    objective = _LayerObjective(neurons, trained, inputs, residual, weights, preserved, hparams)
    with torch.enable_grad():
        minimise(objective, hparams.adam_lr, hparams.adam_steps + 1)
    losses, best, steps = objective.curve, objective.best, len(objective.curve) - 1
    if not math.isfinite(losses[-1]) or best["step"] == 0 < losses[0]:
        raise EditError(
            f"layer {layer}: Adam on Eq. 9 diverged, its loss went from {losses[0]:.3g} to {losses[-1]:.3g} "
            f"in {steps} steps; lower adam_lr ({hparams.adam_lr}). The model was left as it was"
        )
    for change, value in zip(trained, objective.best_changes):
        change.requires_grad_(False).copy_(value)
    LOG.debug("layer %d: %d steps, loss %.3g to %.3g", layer, steps, losses[0], best["loss"])
    return {"steps": steps, "first_loss": losses[0], **best}


class _LayerObjective(Objective):
    """L of one layer. Not every step of Adam lowers it, so the best values are stored."""

    def __init__(
        self,
        neurons: CriticalNeurons,
        trained: list[Tensor],
        inputs: Tensor,
        residual: Tensor,
        weights: Tensor,
        preserved: Tensor,
        hparams,
    ):
        self.neurons, self.parameters, self.hparams = neurons, trained, hparams
        self.inputs, self.weights, self.preserved = inputs, weights, preserved
        with torch.no_grad():
            self.target = neurons.written(inputs) + residual
            self.before = neurons.written(preserved)
        self.curve: list[float] = []
        self.best: dict = {"step": 0, "loss": float("inf")}
        self.best_changes: list[Tensor] = []

    def losses(self) -> Tensor:
        """[1], the loss."""
        written = self.neurons.written
        self.edit_loss = (written(self.inputs) - self.target).square().sum(1) @ self.weights
        self.preserve_loss = (written(self.preserved) - self.before).square().sum(1).mean()
        return (self.edit_loss + self.hparams.mom2_update_weight * self.preserve_loss)[None]

    def assess(self, losses: Tensor, step: int, last: bool) -> list[bool]:
        """Go on while the loss is finite and above ``adam_stop`` times the first one."""
        loss = float(losses[0])
        self.curve.append(loss)
        if loss < self.best["loss"]:
            terms = {
                "edit_loss": float(self.edit_loss.detach()),
                "preserve_loss": float(self.preserve_loss.detach()),
            }
            self.best = {"step": step, "loss": loss, **terms}
            self.best_changes = [change.detach().clone() for change in self.parameters]
        return [math.isfinite(loss) and loss > self.hparams.adam_stop * self.curve[0] and not last]
