"""Scores of PNKE's mask: activations on P_sem and P_spec, integrated gradients, and their costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...arch import Capture, ModelView, take
from ...arch.calls import ModelCalls
from ...arch.chat import plain_tokenizer
from ...arch.tokens import Batch, encode, token_ids, unfinished_ids
from ...attribution import IntegratedGradients, TargetTokens, integrated_gradients, read_prompts
from ...masks import NeuronMask, ScoringContext
from ...utils.memory import in_batches
from ...utils.timing import Stopwatch
from .pnke_mask import CausalScores, pnke_mask
from .pnke_options import PNKEScoringOptions
from .prompts import SemanticPrompts, semantic_prompts

COST = "identification"
"""Key of the report for the costs of identifying the neurons (Table 3)."""


def pnke_masks(context: ScoringContext, hparams) -> dict[int, NeuronMask]:
    """``{layer: NeuronMask}`` of a batch: score every neuron, then select the critical ones.

    Args:
        context: the batch on the unedited weights.
        hparams: ``PNKEHyperParams`` without ``mask_options``.
    """
    scores = pnke_scores(context, hparams)
    return {layer: pnke_mask(scores[layer], hparams, layer) for layer in context.layers}


def pnke_scores(context: ScoringContext, options: PNKEScoringOptions) -> dict[int, list[CausalScores]]:
    """``{layer: one CausalScores per request}``; scores that the strategy does not use are not computed.

    The prompts of P_sem of all requests are batched, and run up to the last edited layer's activations. The
    points of integrated gradients are batched too, and run from the attributed layer on; they also give
    P_spec's activations. With ``activation_position: subject_last`` a prompt of P_sem without the subject is
    left out and counted in the report. ``context.report["identification"]`` gets P_sem with its sources, the
    passes through the model and the seconds.

    Raises:
        RequestError: ``ground_truth`` for a request without one.
        HparamsError: a model that is to write prompts cannot be used.
    """
    view, watch = context.view, Stopwatch()
    prompts: list[SemanticPrompts] = []
    if options.uses_prompts:
        prompts = semantic_prompts(
            context.requests, view.model, plain_tokenizer(context.tok), options, context.contexts
        )
        watch.lap("semantic prompts")
    places, lost = _places(context, prompts, options.activation_position)
    if not options.uses_attribution:  # the gradients bring P_spec's activations with them
        ends = _bare_ends(context, options.activation_position).tolist()
        places += [
            _Place(number, request.text, end)
            for number, (request, end) in enumerate(zip(context.requests, ends))
        ]
    activations_at, gradients = None, None
    with ModelCalls(view) as calls:
        if places:
            batch = encode(context.tok, [place.text for place in places], view.input_device)
            ends = torch.tensor([place.position for place in places])
            activations_at = activations(view, batch, context.layers, ends, options.prompt_batch)
        watch.lap("activations")
        if options.uses_attribution:
            predicted = options.attribution_target == "predicted"
            gradients = integrated_gradients(
                view,
                _predicted(context)
                if predicted
                else context.object_tokens(context.prompts("bare"), options.attribution_target),
                context.layers,
                _bare_ends(context, options.activation_position),
                options.whole_target,
                options.ig_steps,
                options.ig_rule,
                options.ig_step_batch,
            )
            watch.lap("attribution")
    scores = {}
    for layer in context.layers:
        empty = torch.empty(0, view.d_ff, device=view.device_of(layer), dtype=view.compute_dtype)
        rows = empty if activations_at is None else activations_at[layer]
        scores[layer] = _layer_scores(context, options, places, rows, gradients, layer)
    _report(context, prompts, lost, calls, watch)
    return scores


@dataclass(frozen=True)
class _Place:
    """A text of a request, and the position of the token at which neurons are read."""

    request: int
    text: str
    position: int


def _places(
    context: ScoringContext, prompts: list[SemanticPrompts], position: str
) -> tuple[list[_Place], list[int]]:
    """The texts of P_sem with the position to read, and per request the number of texts without one."""
    places, lost = [], []
    for number, semantic in enumerate(prompts):
        subject, before = context.requests[number].subject, len(places)
        for text in semantic.texts:
            start = text.rfind(subject)
            if position == "last":
                places.append(_Place(number, text, len(token_ids(context.tok, text)) - 1))
            elif start >= 0:
                end = len(unfinished_ids(context.tok, text[: start + len(subject)])) - 1
                places.append(_Place(number, text, end))
        lost.append(len(semantic.texts) - (len(places) - before))
    return places, lost


@torch.no_grad()
def activations(
    view: ModelView, batch: Batch, layers: Sequence[int], position: Tensor, prompt_batch: int = 64
) -> dict[int, Tensor]:
    """Act(n_i, p): ``{layer: [B, d_ff]}`` inputs of the down projection at ``position [B]``, in the compute
    dtype.

    The forward pass stops before the last of the down projections.
    """

    def run(rows: Sequence[int]) -> list[list[Tensor]]:
        part = batch.select(torch.tensor(rows))
        with Capture(view, layers, stop_after="key") as seen:
            view.model(**part.inputs, use_cache=False)
        at = torch.arange(len(rows)), position[list(rows)]
        by_layer = [
            take(seen.key[layer], *at).to(view.device_of(layer), view.compute_dtype) for layer in layers
        ]
        return list(zip(*by_layer))

    rows = in_batches(range(len(position)), prompt_batch, run, "activations on P_sem")
    return {layer: torch.stack(columns) for layer, columns in zip(layers, zip(*rows))}


def _bare_ends(context: ScoringContext, position: str) -> Tensor:
    """``[requests]``, position to read in every P_spec."""
    if position == "subject_last":
        return context.subject_ends(context.prompts("bare"))
    return torch.tensor([len(token_ids(context.tok, request.text)) - 1 for request in context.requests])


def _predicted(context: ScoringContext) -> TargetTokens:
    """The bare prompts, each with the next token that the model predicts."""
    device = context.view.input_device
    batch = encode(context.tok, [request.text for request in context.requests], device)
    if context.readings is not None:
        contexts = len(context.readings.top1) // len(context.requests)
        top1 = context.readings.top1[::contexts]  # the first context of a request is the bare prompt
    else:
        top1 = read_prompts(context.view, batch, context.layers[:1]).top1
    owner = torch.arange(len(top1), device=device)
    return TargetTokens(batch, batch.last, owner, batch.last, top1.to(device))


def _layer_scores(
    context: ScoringContext,
    options: PNKEScoringOptions,
    places: list[_Place],
    rows: Tensor,
    gradients: IntegratedGradients | None,
    layer: int,
) -> list[CausalScores]:
    """One CausalScores per request; ``rows`` are the activations at the places."""
    magnitude = options.activation_value == "magnitude"
    rows = context.own(rows.abs() if magnitude else rows)
    by_request = [
        rows[[row for row, place in enumerate(places) if place.request == number]]
        for number in range(len(context.requests))
    ]
    if gradients is None:  # P_spec's activation is the last row of its request
        return [
            CausalScores(values[-1], values[:-1] if options.uses_prompts else None) for values in by_request
        ]
    specific = context.own(gradients.activations[layer])
    specific = specific.abs() if magnitude else specific
    semantic = by_request if options.uses_prompts else [None] * len(by_request)
    return [CausalScores(*scores) for scores in zip(specific, semantic, context.own(gradients.scores[layer]))]


def _report(
    context: ScoringContext,
    prompts: list[SemanticPrompts],
    lost: list[int],
    calls: ModelCalls,
    watch: Stopwatch,
) -> None:
    """Add to earlier reports of the edit: on the rome path every request is scored by itself."""
    report = context.report.setdefault(COST, {"requests": 0, "passes": {}, "seconds": {}, "prompts": []})
    report["requests"] += len(context.requests)
    for name, values in (("passes", calls.to_json()), ("seconds", watch.seconds)):
        for key, value in values.items():
            report[name][key] = report[name].get(key, 0) + value
    report["prompts"] += [
        {
            "texts": list(semantic.texts),
            "sources": list(semantic.sources),
            "shortfall": semantic.shortfall,
            "without_subject": missing,
        }
        for semantic, missing in zip(prompts, lost)
    ]
