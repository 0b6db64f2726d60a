"""Lasting: for every edit, add a neuron that matches the subject's key and writes z* - z."""

import math
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor

from ...arch.chat import plain_tokenizer
from ...arch.tokens import Batch, pad, target_token_ids, unfinished_ids
from ...arch.view import ModelView
from ...arch.widen import free_neurons, widen
from ...edits.edit import Edit
from ...edits.request import EditRequest, Fact
from ...errors import EditError
from ...locate_then_edit.compute_keys import key_prompts
from ...locate_then_edit.compute_z import compute_z
from ...locate_then_edit.preservation import preserved_prompts
from .neurons import (
    Neuron,
    is_gated,
    neurons_per_edit,
    read_keys,
    reading_rows,
    responses,
    signs_of,
    unit_deltas,
    written,
)
from .state import LastingState

LEAST_RESPONSE = 0.05
"""Share of the full response that the subject's own key must reach for an edit to be written."""


def apply_lasting_to_model(
    model,
    tok,
    requests,
    hparams,
    copy=False,
    return_orig_weights=False,
    keep_original_weight=False,
    records=None,
    **kwargs,
):
    """Edit ``model`` in place by neurons that are added to its FFNs.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch.
            Edits of different subjects do not touch each other; several of one subject are made one after
            the other.
        hparams: ``LastingHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used.
        records: list to which the ``EditRecord`` is appended.
        **kwargs: accepted for EasyEdit (``train_ds=None``), not used.

    Returns:
        (model, {parameter name: original tensor}). Where the FFNs had no neuron left, they have grown by
        ``capacity`` neurons that are zero in the originals, so that putting those back takes the edit out.

    Raises:
        NeuronEditError: bad hyperparameters or requests, an architecture whose FFNs cannot grow, or
            (``EditError``) a subject whose key is no key of its own; the model is then as it was.
    """
    edit = Edit.begin("Lasting", model, tok, requests, hparams, copy)
    with edit.computing():
        state = LastingState.of(edit.view, tok, hparams)
        edit.watch.lap("statistics")
        layers = {request.subject: state.layer_of(request, hparams) for request in edit.requests}
        places, take_away = reserve(edit, [layers[request.subject] for request in edit.requests])
        try:
            edits, neurons, parts = [], [], rounds(edit.requests, layers)
            with ExitStack() as earlier:
                for layer, batch in parts:
                    units = [places[layer].pop() for _ in batch]
                    facts = [fact for _, _, fact in [*state.edits, *edits]]
                    changes = target_changes(edit, state.contexts, batch, layer, facts)
                    added = make_neurons(edit, state, batch, layer, units, changes)
                    earlier.enter_context(written(edit.view, added))
                    neurons += added
                    edits += [(layer, unit, request.fact) for unit, request in zip(units, batch)]
            edit.units = unit_deltas(edit.view, neurons)
            report(edit, edits, parts)
            result = edit.commit(records, return_orig_weights)
        except BaseException:
            take_away()
            raise
    state.keep(edit.view, hparams, edits)
    return result


def reserve(edit: Edit, layers: list[int]) -> tuple[dict[int, list[list[int]]], Callable[[], None]]:
    """Layer -> free neurons for edits in these layers (one entry each), the first at the end; the FFNs grow
    where they have too few.

    Also returns a function that takes the growth back.
    """

    def places(view: ModelView) -> dict[int, list[list[int]]]:
        free = {}
        for layer in set(layers):
            units, size = free_neurons(view, layer).tolist(), neurons_per_edit(view, layer)
            free[layer] = [units[i : i + size] for i in range(0, len(units) - size + 1, size)]
        return free

    def missing(free: dict[int, list[list[int]]]) -> int:
        sizes = {layer: neurons_per_edit(edit.view, layer) for layer in free}
        return max((layers.count(layer) - len(free[layer])) * sizes[layer] for layer in free)

    free, take_away = places(edit.view), lambda: None
    if missing(free) > 0:
        capacity = edit.hparams.capacity
        width = edit.view.d_ff + capacity * math.ceil(missing(free) / capacity)
        take_away = widen(edit.view, width)
        edit.view = ModelView.of(edit.view.model, **edit.hparams.module_overrides())
        free = places(edit.view)
    return {layer: units[::-1] for layer, units in free.items()}, take_away


def rounds(requests: list[EditRequest], layers: dict[str, int]) -> list[tuple[int, list[EditRequest]]]:
    """Requests that can be computed together, with their layer: no subject occurs in a round twice."""
    times: Counter[str] = Counter()
    parts: dict[tuple[int, int], list[EditRequest]] = {}
    for request in requests:
        times[request.subject] += 1
        parts.setdefault((times[request.subject], layers[request.subject]), []).append(request)
    return [(layer, batch) for (_, layer), batch in sorted(parts.items(), key=lambda part: part[0])]


def target_changes(
    edit: Edit, contexts: list[list[str]], batch: list[EditRequest], layer: int, facts: list[Fact]
) -> Tensor:
    """z* - z of a batch, [n, d_model]; ``facts`` are the earlier edits, those of its subjects are kept."""
    view, hparams = edit.view, edit.hparams
    preserved = preserved_prompts(batch, [facts], hparams) if hparams.preserves_subject else None
    flat = [context for group in contexts for context in group]
    targets = compute_z(view, edit.tok, batch, hparams, flat, layer, preserved=preserved).targets
    edit.losses += [target.losses for target in targets]
    edit.probability += [target.probability for target in targets]
    edit.watch.lap("target")
    return torch.stack([target.value - target.initial for target in targets]).to("cpu")


def make_neurons(
    edit: Edit,
    state: LastingState,
    batch: list[EditRequest],
    layer: int,
    units: list[list[int]],
    changes: Tensor,
) -> list[Neuron]:
    """The neurons of n requests, which change the FFN's output by ``changes`` [n, d_model] at their keys.

    The response at the bare prompt (in another context where the subject is an attention sink there) is
    measured in the model, and the column is the change divided by it.
    """
    view, hparams = edit.view, edit.hparams
    background = state.background(view, hparams, layer)
    prompts = key_prompts(edit.tok, batch, state.contexts, view.input_device)
    alone = pad([row for request in batch for row in read_alone(edit, request)], view.input_device)
    keys = torch.cat(
        [read_keys(view, rows, layer).unflatten(0, (len(batch), -1)) for rows in (prompts.batch, alone)], 1
    )
    usable = torch.stack([~background.is_sink(own) for own in keys])
    usable |= ~usable.any(1, keepdim=True)  # nothing else is left than what there is
    neurons = []
    for own_units, own, use, other in zip(units, keys, usable, read_others(edit, state.leads, batch, layer)):
        w, c = background.match(own[use], hparams.match_weight, other, hparams.others_weight)
        parts = zip(own_units, reading_rows(view, layer, w, c, hparams))
        neurons += [Neuron(layer, unit, rows, torch.zeros(view.d_model)) for unit, rows in parts]
    contexts_each = sum(prompts.group_sizes)
    first = torch.arange(len(batch)) * contexts_each + usable[:, :contexts_each].int().argmax(1)
    with written(view, neurons):
        flat = [neuron.unit for neuron in neurons]
        activations, outputs = responses(view, select(prompts.batch, first), layer, flat)
    own_activations = activations.unflatten(1, (len(batch), -1)).diagonal().T  # [n, neurons of an edit]
    signs = signs_of(own_activations)
    strength = own_activations @ signs
    check_strength(edit, batch, strength, layer)
    edit.info.setdefault("responses", []).extend(strength.tolist())
    residual = view.before_ffn_branch(layer, changes.T, outputs.T).T.to(strength)
    columns = (residual / strength[:, None])[:, None] * signs[:, None]  # [n, neurons of an edit, d_model]
    edit.watch.lap("match")
    return [replace(neuron, column=column) for neuron, column in zip(neurons, columns.flatten(0, 1))]


def select(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch."""
    rows = rows.to(batch.lengths.device)
    return Batch(batch.input_ids[rows], batch.attention_mask[rows], batch.lengths[rows])


def read_alone(edit: Edit, request: EditRequest) -> list[list[int]]:
    """Token ids of ``name_templates`` up to the subject. Keys of the edited prompt alone depend on what
    stands in front of the subject, and other phrasings then miss the neuron."""
    return [
        unfinished_ids(edit.tok, template.split("{}")[0] + request.subject)
        for template in edit.hparams.name_templates
    ]


def read_others(edit: Edit, leads: list[list[int]], batch: list[EditRequest], layer: int) -> list[Tensor]:
    """For each request the keys [m, d_model] of names that end like its subject: another name's beginning
    before the subject's last token, in the prompt and in ``name_templates``.

    The key of a name is mostly that of its last token. "Alexander Island" would match "Detaille Island". A
    subject of a single token has none (m = 0): it ends like itself.
    """
    view, count = edit.view, edit.hparams.others if leads else 0
    keys = []
    for request in batch:
        draw = random.Random(f"{edit.hparams.seed} {request.subject}")
        ids = target_token_ids(plain_tokenizer(edit.tok), request.subject)
        starts = [template.split("{}")[0] for template in (request.prompt, *edit.hparams.name_templates)]
        beginnings = [unfinished_ids(edit.tok, start.rstrip()) for start in starts]
        rows = [
            [*beginnings[number % len(beginnings)], *draw.choice(leads), ids[-1]]
            for number in range(count if len(ids) > 1 else 0)
        ]
        none = torch.zeros(0, view.d_model, dtype=view.compute_dtype)
        keys.append(read_keys(view, pad(rows, view.input_device), layer) if rows else none)
    return keys


def report(
    edit: Edit, edits: list[tuple[int, list[int], Fact]], parts: list[tuple[int, list[EditRequest]]]
) -> None:
    """The record's info and curves, in the order of the requests and not of the rounds."""
    computed = [request.index for _, batch in parts for request in batch]
    order = sorted(range(len(computed)), key=computed.__getitem__)
    edit.losses = [edit.losses[i] for i in order]
    edit.probability = [edit.probability[i] for i in order]
    edit.info["neurons"] = [[edits[i][0], edits[i][1]] for i in order]
    edit.info["responses"] = [edit.info["responses"][i] for i in order]


def check_strength(edit: Edit, batch: list[EditRequest], strength: Tensor, layer: int) -> None:
    """``EditError`` where a subject's own key does not move its neuron."""
    hparams = edit.hparams
    t, s, a = hparams.threshold, hparams.saturation, hparams.steepness
    full = a * (s - t) * ((1 - s / (2 * s - t)) if is_gated(edit.view, layer) else 1)
    for request, value in zip(batch, strength.tolist()):
        if not value > LEAST_RESPONSE * full:
            raise EditError(
                f"request {request.index}: the key of {request.subject!r} cannot be told from other text at "
                f"layer {layer} (response {value / full:.2f} of 1); use another layer, or lower 'threshold'"
            )
