"""What masks are made from: scores ``{layer: [B, d_ff]}`` of an edit, by kind.

Each kind is a function of the ``Edit`` and of options; its signature is the list of its options and their
defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..arch.tokens import encode, target_token_ids
from ..attribution import contribution_scores, integrated_gradients, neuron_scores, score_readings
from ..models.pnke.pnke_scores import causal
from .context import Edit, Prompts, object_tokens, objects, subject_ends

Scores = dict[int, Tensor]


def _shift(kind: str):
    def shift(
        edit: Edit,
        *,
        amplify: float = 30.0,
        attribution_target: Literal["predicted", "target_new", "ground_truth"] = "predicted",
        reference_quirks: bool = False,
        score_prompts: Prompts = "contexts",
        prompt_batch: int = 32,
    ) -> Scores:
        """LPS or PSA at the last token of every prompt; B = prompts. Options as in
        ``attribution.neuron_scores``."""
        prompts = edit.prompts(score_prompts)
        target: str | Tensor = "predicted"
        if attribution_target != "predicted":
            target = torch.tensor(
                [target_token_ids(edit.tok, text)[0] for text in objects(prompts, attribution_target)]
            )
        options = dict(kind=kind, amplify=amplify, target=target, reference_quirks=reference_quirks)
        return _prompt_scores(edit, prompts, score_prompts, prompt_batch, options)

    return shift


def _magnitude(kind: str):
    def magnitude(edit: Edit, *, score_prompts: Prompts = "contexts", prompt_batch: int = 32) -> Scores:
        """MPC or the activation at the last token of every prompt; B = prompts."""
        return _prompt_scores(edit, edit.prompts(score_prompts), score_prompts, prompt_batch, dict(kind=kind))

    return magnitude


def _prompt_scores(edit: Edit, prompts, which: str, prompt_batch: int, options: dict) -> Scores:
    if which == "contexts" and edit.readings is not None:
        return score_readings(edit.view, edit.readings, **options).scores
    batch = encode(
        edit.tok, [template.format(request.subject) for template, request in prompts], edit.view.input_device
    )
    return neuron_scores(edit.view, batch, edit.layers, prompt_batch=prompt_batch, **options).scores


def contribution(
    edit: Edit,
    *,
    attribution_target: Literal["predicted", "target_new", "ground_truth"] = "predicted",
    score_prompts: Prompts = "bare",
    prompt_batch: int = 32,
) -> Scores:
    """FiNE's contribution (``attribution.contribution_scores``); B = target tokens of all prompts.

    ``predicted`` (release): the model's own token at each position of the new object; else the tokens of the
    object named.
    """
    prompts, predicted = edit.prompts(score_prompts), attribution_target == "predicted"
    targets = object_tokens(edit, prompts, "target_new" if predicted else attribution_target)
    return contribution_scores(edit.view, targets, edit.layers, predicted, prompt_batch).scores


def ig(
    edit: Edit,
    *,
    attribution_target: Literal["target_new", "ground_truth"] = "target_new",
    activation_position: Literal["last", "subject_last"] = "last",
    whole_target: bool = False,
    steps: int = 20,
    rule: Literal["gauss", "right"] = "gauss",
    step_batch: int = 64,
    score_prompts: Prompts = "bare",
) -> Scores:
    """Integrated gradients of the object's probability (``attribution.integrated_gradients``); B =
    prompts."""
    prompts = edit.prompts(score_prompts)
    targets = object_tokens(edit, prompts, attribution_target)
    position = subject_ends(edit, prompts) if activation_position == "subject_last" else None
    return integrated_gradients(
        edit.view, targets, edit.layers, position, whole_target, steps, rule, step_batch
    ).scores


def none(edit: Edit) -> Scores:
    """For masks that look at nothing but the number of neurons: one row of zeros."""
    return {layer: torch.zeros(1, edit.view.d_ff, device=edit.view.device_of(layer)) for layer in edit.layers}


SCORES: dict[str, Callable[..., Scores]] = {
    "lps": _shift("lps"),
    "psa": _shift("psa"),
    "mpc": _magnitude("mpc"),
    "activation": _magnitude("activation"),
    "contribution": contribution,
    "ig": ig,
    "none": none,
    "pnke": causal,
}
"""The kinds of scores that a mask can ask for."""

OF_ONE_MASK = {"pnke"}
"""Kinds that are more than one tensor, and so for the masks that were registered with them alone."""
