"""Eq. 9 by Adam (B.6.1): the loss of Eq. 1 for a FFN whose critical neurons alone may change, layer after
layer."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ...arch import Capture, ModelView, take
from ...arch.tokens import Batch, pad
from ...edits.apply_vectors import Trained, apply_vectors
from ...edits.record import UnitDelta
from ...edits.request import EditRequest
from ...edits.session import SequentialState
from ...edits.write import down_names, fingerprint, restore, write
from ...errors import EditError
from ...locate_then_edit.apply import check_layers, state_under
from ...locate_then_edit.compute_keys import KeyPrompts, key_prompts
from ...locate_then_edit.compute_z import find_targets
from ...locate_then_edit.preservation import kept_prompts
from ...locate_then_edit.update import before_norm
from ...masks import mask_factory
from ...utils.timing import Stopwatch
from .neurons import CriticalNeurons

LOG = logging.getLogger(__name__)
ROWS = 64  # token rows per forward pass


def apply_adam(model, tok, requests, hparams, copy=False, return_orig_weights=False, records=None):
    """``apply_pnke_to_model`` with ``solver: adam``."""
    done: list[tuple[SequentialState, list[EditRequest]]] = []

    def execute(view: ModelView, tok, prepared: list[EditRequest], hparams) -> Trained:
        check_layers(view, hparams)
        state, _ = state_under(view, tok, hparams)
        done.append((state, prepared))
        return execute_adam(view, tok, prepared, hparams, state)

    edited, originals = apply_vectors(
        "PNKE", model, tok, requests, hparams, execute, copy, return_orig_weights, records
    )
    view = ModelView.of(edited, **hparams.module_overrides())
    ((state, prepared),) = done  # contexts and statistics stay those of the unedited model
    state.note(fingerprint(edited, down_names(view, hparams.layers)), {}, prepared)
    return edited, originals


def execute_adam(
    view: ModelView, tok, requests: list[EditRequest], hparams, state: SequentialState
) -> Trained:
    """Computes the changes of one batch of requests; the model is afterwards as it was.

    z* and the residual ``r = (z* - z) / layers left`` are those of ``paths.execute``. In a layer with FFN f,
    x_1 its inputs at the subjects' last tokens (in all contexts; a request's weights are those of its key's
    mean), x_0 those at tokens of text::

        L = sum_requests mean_contexts |f'(x_1) - f(x_1) - r|^2 + lambda mean |f'(x_0) - f(x_0)|^2      (Eq. 1
        and 9)

    lambda is ``mom2_update_weight``: with ``adam_trains: [w_out]`` the minimum is Eq. 10's, C being that of
    the tokens.

    Raises:
        EditError: the loss becomes infinite or is no number, or never falls below the first; or there is
            nothing to train.
    """
    watch, info = (
        Stopwatch(),
        {"contexts": [context for group in state.contexts for context in group], "layers": {}},
    )
    layers, z_layer = list(hparams.layers), hparams.layers[-1]
    targets = find_targets(
        view,
        tok,
        requests,
        hparams,
        info["contexts"],
        z_layer,
        kept=kept_prompts(requests, state.edited, hparams),
    )
    wanted = torch.stack([t.value for t in targets], 1)
    watch.lap("target")
    factory = mask_factory(hparams)
    masks = factory(view, tok, requests, hparams, state.contexts, None, info) if factory else {}
    watch.lap("mask")
    prompts = key_prompts(tok, requests, state.contexts, view.input_device)
    text = pad(state.statistics.sample(hparams.adam_preserve_tokens), view.input_device)
    changes: dict[str, UnitDelta] = {}
    originals: dict[str, Tensor] = {}
    try:
        for position, layer in enumerate(layers):
            inputs, f, z = _at_subjects(view, prompts, layer, z_layer)
            residual = (wanted - z[:, prompts.bare].to(wanted.device)) / (len(layers) - position)
            rows = residual.to(f.device).repeat_interleave(len(f) // len(requests), 1)
            rows = before_norm(view, layer, rows, f.T).T
            kept = _at_tokens(view, text, layer)
            watch.lap("keys")
            mask = masks.get(layer)
            units = torch.arange(view.d_ff) if mask is None else mask.indices.cpu()
            neurons = CriticalNeurons(view, layer, units)
            told = _descend(neurons, inputs, rows, _weights(prompts).to(f), kept, layer, hparams)
            trained = [part for part in neurons.parts if part.kind in hparams.adam_trains]
            found = {part.name: part.delta(layer=layer, kind=part.kind) for part in trained}
            info["layers"][str(layer)] = {**told, "mask": {} if mask is None else mask.to_json()}
            originals |= write(view, found)
            changes |= found
            watch.lap("solve")
    finally:
        restore(view.model, originals)
    return Trained(
        changes, [t.losses for t in targets], [t.probability for t in targets], watch.seconds, info
    )


@torch.no_grad()
def _at_subjects(
    view: ModelView, prompts: KeyPrompts, layer: int, z_layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(input ``[R, d_model]`` and output ``[R, d_model]`` of a FFN, z ``[d_model, R]``) at the last token of
    all rows."""
    found = []
    for start in range(0, len(prompts.batch.lengths), ROWS):
        part = prompts.batch.rows(start, start + ROWS)
        x, seen = _run(view, part, layer, z_layer)
        at = torch.arange(len(part.lengths)), part.last
        found.append([take(states, *at) for states in (x, seen.ffn_out[layer], seen.layer_out[z_layer])])
    x, f, z = (torch.cat(parts).to(view.compute_dtype) for parts in zip(*found))
    return x.to(view.device_of(layer)), f.to(view.device_of(layer)), z.T


@torch.no_grad()
def _at_tokens(view: ModelView, text: Batch, layer: int) -> Tensor:
    """``[tokens, d_model]`` inputs of a FFN at all real tokens."""
    found = []
    for start in range(0, len(text.lengths), ROWS):
        part = text.rows(start, start + ROWS)
        x, _ = _run(view, part, layer, layer)
        found.append(x[part.attention_mask.bool().to(x.device)])
    return torch.cat(found).to(view.device_of(layer), view.compute_dtype)


def _run(view: ModelView, batch: Batch, layer: int, last: int) -> tuple[Tensor, Capture]:
    """One forward up to block ``last``: the FFN's input, and its output with the last block's."""
    read: list[Tensor] = []

    def keep(output: Tensor, x: Tensor) -> Tensor:
        read.append(x)
        return output

    name = view.arch.mlp_module_tmp.format(layer)
    with Capture(
        view, [layer, last], ("ffn_out", "layer_out"), stop_after=last, edit_modules=[(layer, name, keep)]
    ) as seen:
        view.model(**batch.inputs, use_cache=False)
    return read[0], seen


def _weights(prompts: KeyPrompts) -> Tensor:
    """``[R]``, a row's share in the mean of its request: groups of contexts weigh the same, as in a key."""
    sizes = torch.tensor(prompts.group_sizes)
    return (1 / (sizes * len(sizes))).repeat_interleave(sizes).repeat(prompts.n)


@torch.enable_grad()
def _descend(
    neurons: CriticalNeurons, x: Tensor, residual: Tensor, weights: Tensor, kept: Tensor, layer: int, hparams
) -> dict:
    """Adam on L; changes ``neurons.parts`` and gives back the course of the loss."""
    trained = [part.change for part in neurons.parts if part.kind in hparams.adam_trains]
    if not trained:
        raise EditError(
            f"layer {layer}: field 'adam_trains' names nothing that the FFN has: {hparams.adam_trains}"
        )
    with torch.no_grad():
        wanted, before = neurons.written(x) + residual, neurons.written(kept)
    for change in trained:
        change.requires_grad_()
    optimizer, losses = torch.optim.Adam(trained, lr=hparams.adam_lr), []
    best = {"step": 0, "loss": float("inf")}
    for step in range(hparams.adam_steps + 1):
        optimizer.zero_grad()
        edit = (neurons.written(x) - wanted).square().sum(1) @ weights
        preserve = (neurons.written(kept) - before).square().sum(1).mean()
        loss = edit + hparams.mom2_update_weight * preserve
        losses.append(float(loss.detach()))
        if losses[-1] < best["loss"]:  # the steps of Adam do not all go down
            best = {
                "step": step,
                "loss": losses[-1],
                "edit_loss": float(edit.detach()),
                "preserve_loss": float(preserve.detach()),
            }
            reached = [change.detach().clone() for change in trained]
        if not loss.isfinite() or losses[-1] <= hparams.adam_stop * losses[0] or step == hparams.adam_steps:
            break
        loss.backward()
        optimizer.step()
    if not loss.isfinite() or best["step"] == 0 < losses[0]:
        raise EditError(
            f"layer {layer}: Adam on Eq. 9 diverged, its loss went from {losses[0]:.3g} to {losses[-1]:.3g} in {step} "
            f"steps; lower adam_lr ({hparams.adam_lr}). The model was left as it was"
        )
    for change, value in zip(trained, reached):
        change.requires_grad_(False).copy_(value)
    LOG.debug("layer %d: %d steps, loss %.3g to %.3g", layer, step, losses[0], best["loss"])
    return {"steps": step, "first_loss": losses[0], **best}
