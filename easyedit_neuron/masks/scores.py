"""Scores that masks are computed from: ``{layer: [B, d_ff]}`` of a batch that is about to be edited.

B counts the prompts, for ``contribution`` the target tokens. A scores function takes the ``ScoringContext``
and an instance of the ``Options`` dataclass that it is registered with.
"""

import torch
from torch import Tensor

from ..arch.tokens import encode, target_token_ids
from ..attribution import contribution_scores, integrated_gradients, neuron_scores, score_readings
from ..hyperparameters.options import Options
from ..hyperparameters.score_options import (
    ContributionOptions,
    GradientOptions,
    PromptOptions,
    ShiftScoreOptions,
)
from .scoring_context import ScoringContext, objects

Scores = dict[int, Tensor]


def lps(context: ScoringContext, options: ShiftScoreOptions) -> Scores:
    """Log-probability shift at the last token of every prompt (``attribution.neuron_scores``)."""
    return _shift(context, options, "lps")


def psa(context: ScoringContext, options: ShiftScoreOptions) -> Scores:
    """Probability shift at the last token of every prompt."""
    return _shift(context, options, "psa")


def mpc(context: ScoringContext, options: PromptOptions) -> Scores:
    """MLP projection coefficient ``|q_i| |v_i|`` at the last token of every prompt."""
    return _prompt_scores(context, options, kind="mpc")


def activation(context: ScoringContext, options: PromptOptions) -> Scores:
    """Activation ``|q_i|`` at the last token of every prompt."""
    return _prompt_scores(context, options, kind="activation")


def contribution(context: ScoringContext, options: ContributionOptions) -> Scores:
    """FiNE's contribution (``attribution.contribution_scores``); B = target tokens of all prompts."""
    prompts, predicted = context.prompts(options.score_prompts), options.attribution_target == "predicted"
    targets = context.object_tokens(prompts, "target_new" if predicted else options.attribution_target)
    return contribution_scores(context.view, targets, context.layers, predicted, options.prompt_batch).scores


def ig(context: ScoringContext, options: GradientOptions) -> Scores:
    """Integrated gradients of the object's probability (``attribution.integrated_gradients``)."""
    prompts = context.prompts(options.score_prompts)
    targets = context.object_tokens(prompts, options.attribution_target)
    position = context.subject_ends(prompts) if options.activation_position == "subject_last" else None
    return integrated_gradients(
        context.view,
        targets,
        context.layers,
        position,
        options.whole_target,
        options.steps,
        options.rule,
        options.step_batch,
    ).scores


def none(context: ScoringContext, options: Options) -> Scores:
    """One row of zeros, for masks that use only the number of neurons."""
    view = context.view
    return {layer: torch.zeros(1, view.d_ff, device=view.device_of(layer)) for layer in context.layers}


def _shift(context: ScoringContext, options: ShiftScoreOptions, kind: str) -> Scores:
    target: str | Tensor = "predicted"
    if options.attribution_target != "predicted":
        texts = objects(context.prompts(options.score_prompts), options.attribution_target)
        target = torch.tensor([target_token_ids(context.tok, text)[0] for text in texts])
    return _prompt_scores(
        context,
        options,
        kind=kind,
        amplify=options.amplify,
        target=target,
        reference_quirks=options.reference_quirks,
        vocab_sum=options.vocab_sum,
    )


def _prompt_scores(context: ScoringContext, options: PromptOptions, **arguments) -> Scores:
    if options.score_prompts == "contexts" and context.readings is not None:
        return score_readings(context.view, context.readings, **arguments).scores
    texts = [template.format(request.subject) for template, request in context.prompts(options.score_prompts)]
    batch = encode(context.tok, texts, context.view.input_device)
    return neuron_scores(
        context.view, batch, context.layers, prompt_batch=options.prompt_batch, **arguments
    ).scores
