"""Scores of PNKE's mask: activations on P_sem and P_spec, and integrated gradients, with what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...arch import Capture, ModelView, take
from ...arch.calls import ModelCalls
from ...arch.tokens import Batch, encode, token_ids
from ...attribution import TargetTokens, integrated_gradients, read_prompts
from ...errors import MaskError
from ...masks.context import Edit, object_tokens, subject_ends
from ...utils.memory import in_batches
from ...utils.timing import Stopwatch
from .pnke_mask import CausalScores
from .prompts import SOURCES, PromptSettings, SemanticPrompts, semantic_prompts

COST = "identification"
"""Key of the report that says what identifying the neurons took."""


def causal(
    edit: Edit,
    *,
    strategy: Literal["entropy", "trigger", "background", "activation"] = "entropy",
    activation_position: Literal["last", "subject_last"] = "last",
    activation_value: Literal["signed", "magnitude"] = "signed",
    attribution_target: Literal["target_new", "ground_truth", "predicted"] = "target_new",
    whole_target: bool = False,
    steps: int = 20,
    rule: Literal["gauss", "right"] = "gauss",
    step_batch: int = 64,
    prompt_batch: int = 64,
    psem_size: int = 10,
    psem_sources: Sequence[str] = SOURCES,
    psem_paraphrase_model: str | None = None,
    psem_translation_models: Sequence[str] | None = None,
    psem_max_new_tokens: int = 40,
    psem_cache_dir: str | None = None,
    psem_cache_by: Literal["strict", "text"] = "strict",
    seed: int = 0,
) -> dict[int, list[CausalScores]]:
    """``{layer: one CausalScores per request}``.

    The prompts of P_sem of all requests go through the model together, as far as the last edited layer's
    activations; the points of the paths of integrated gradients likewise, from the attributed layer on.
    P_spec's activations come with the gradients.

    Args:
        edit: see ``Edit``. ``report["identification"]`` gets P_sem with its sources, the passes through the
            model, the seconds.
        strategy: that of the mask; what it does not look at is not computed.
        activation_position: token whose activations are read and attributed to: the prompt's last, or the
            subject's last. A prompt of P_sem without the subject is left out of the latter, and the report
            counts it.
        activation_value: Act: the activation itself, or its absolute value. The sign of a gated FFN's
            activation says nothing by itself: with its row of the up projection and its column of the down
                projection flipped it is the same neuron.
        attribution_target: whose probability is attributed: the new object, the old one, or the token that
            the model would say.
        whole_target: all of the object's tokens, else the first.
        steps, rule, step_batch: as in ``attribution.integrated_gradients``.
        prompt_batch: prompts per forward pass; halved where memory does not suffice.
        psem_size ... psem_cache_by, seed: as in ``prompts.PromptSettings``.

    Raises:
        RequestError: ``ground_truth`` for a request without one.
        MaskError: all tokens of an object that the model is to predict.
        HparamsError: of the prompts' settings.
    """
    if whole_target and attribution_target == "predicted":
        raise MaskError(
            "whole_target: the model's own prediction is one token; name target_new or ground_truth, or leave it out"
        )
    view, count, watch = edit.view, len(edit.requests), Stopwatch()
    prompts: list[SemanticPrompts] = []
    if strategy in ("entropy", "background"):
        settings = PromptSettings(
            m=psem_size,
            sources=tuple(psem_sources),
            seed=seed,
            cache_dir=psem_cache_dir,
            paraphrase_model=psem_paraphrase_model,
            translation_models=None if psem_translation_models is None else tuple(psem_translation_models),
            contexts=edit.contexts,
            max_new_tokens=psem_max_new_tokens,
            paraphrase_cache=psem_cache_by,
        )
        prompts = semantic_prompts(edit.requests, view.model, edit.tok, settings)
        watch.lap("semantic prompts")
    # P_spec has to be run by itself only where nothing is attributed
    with_gradients = strategy in ("entropy", "trigger")
    places = [
        place
        for number, one in enumerate(prompts)
        for place in _places(edit, number, one.texts, activation_position)
    ]
    lost = [
        len(one.texts) - sum(place[0] == number for place in places) for number, one in enumerate(prompts)
    ]
    if not with_gradients:
        ends = _bare_ends(edit, activation_position)
        places += [
            (number, request.text, end)
            for number, (request, end) in enumerate(zip(edit.requests, ends.tolist()))
        ]
    owner = [number for number, _, _ in places]
    with ModelCalls(view) as calls:
        if places:
            batch = encode(edit.tok, [text for _, text, _ in places], view.input_device)
            found = activations(
                view, batch, edit.layers, torch.tensor([end for _, _, end in places]), prompt_batch
            )
        watch.lap("activations")
        attributions = None
        if with_gradients:
            predicted = attribution_target == "predicted"
            targets = (
                _predicted(edit)
                if predicted
                else object_tokens(edit, edit.prompts("bare"), attribution_target)
            )
            at = _bare_ends(edit, activation_position)
            attributions = integrated_gradients(
                view, targets, edit.layers, at, whole_target, steps, rule, step_batch
            )
            watch.lap("attribution")
    value = torch.abs if activation_value == "magnitude" else lambda q: q
    scores: dict[int, list[CausalScores]] = {}
    for layer in edit.layers:
        none = torch.empty(0, view.d_ff, device=view.device_of(layer), dtype=view.compute_dtype)
        rows = value(found[layer]) if places else none
        mine = [
            rows[[row for row, number in enumerate(owner) if number == request]] for request in range(count)
        ]
        if with_gradients:
            specific, attribution = value(attributions.activations[layer]), attributions.scores[layer]
            semantic = mine if prompts else [None] * count
            scores[layer] = [CausalScores(*each) for each in zip(specific, semantic, attribution)]
        else:
            scores[layer] = [CausalScores(each[-1], each[:-1] if prompts else None) for each in mine]
    _report(edit, prompts, lost, calls, watch)
    return scores


@torch.no_grad()
def activations(
    view: ModelView, batch: Batch, layers: Sequence[int], position: Tensor, prompt_batch: int = 64
) -> dict[int, Tensor]:
    """Act(n_i, p): ``{layer: [B, d_ff]}`` inputs of the down projection at ``position [B]`` of B prompts, in
    the compute dtype.

    The forward ends in front of the last of the down projections.
    """

    def run(rows: Sequence[int]) -> list[list[Tensor]]:
        part = batch.select(torch.tensor(rows))
        with Capture(view, layers, stop_after="key") as seen:
            view.model(**part.inputs, use_cache=False)
        at = torch.arange(len(rows)), position[list(rows)]
        return list(
            zip(
                *(
                    take(seen.key[layer], *at).to(view.device_of(layer), view.compute_dtype)
                    for layer in layers
                )
            )
        )

    found = in_batches(range(len(position)), prompt_batch, run, "activations on P_sem")
    return {layer: torch.stack(rows) for layer, rows in zip(layers, zip(*found))}


def _places(edit: Edit, number: int, texts: Sequence[str], where: str) -> list[tuple[int, str, int]]:
    """(number of the request, text, token to read) of the texts that have such a token."""
    subject, found = edit.requests[number].subject, []
    for text in texts:
        at = text.rfind(subject)
        if where == "last" or at >= 0:
            found.append(
                (
                    number,
                    text,
                    len(token_ids(edit.tok, text if where == "last" else text[: at + len(subject)])) - 1,
                )
            )
    return found


def _bare_ends(edit: Edit, where: str) -> Tensor:
    """``[requests]``, the token of every P_spec that is read."""
    if where == "subject_last":
        return subject_ends(edit, edit.prompts("bare"))
    return torch.tensor([len(token_ids(edit.tok, request.text)) - 1 for request in edit.requests])


def _predicted(edit: Edit) -> TargetTokens:
    """The bare prompts with the token that the model would say behind each."""
    device = edit.view.input_device
    batch = encode(edit.tok, [request.text for request in edit.requests], device)
    if edit.readings is not None:
        each = len(edit.readings.top1) // len(edit.requests)
        top1 = edit.readings.top1[::each]  # the first context of a request is the bare prompt
    else:
        top1 = read_prompts(edit.view, batch, edit.layers[:1]).top1
    owner = torch.arange(len(top1), device=device)
    return TargetTokens(batch, batch.last, owner, batch.last, top1.to(device))


def _report(
    edit: Edit, prompts: list[SemanticPrompts], lost: list[int], calls: ModelCalls, watch: Stopwatch
) -> None:
    """Adds to what was reported before: on the rome path every request is scored by itself."""
    report = edit.report.setdefault(COST, {"requests": 0, "passes": {}, "seconds": {}, "prompts": []})
    report["requests"] += len(edit.requests)
    for name, found in (("passes", calls.to_json()), ("seconds", watch.seconds)):
        for key, value in found.items():
            report[name][key] = report[name].get(key, 0) + value
    report["prompts"] += [
        {
            "texts": list(one.texts),
            "sources": list(one.sources),
            "shortfall": one.shortfall,
            "without_subject": missing,
        }
        for one, missing in zip(prompts, lost)
    ]
