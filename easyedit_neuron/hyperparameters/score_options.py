"""Options of the scores that masks are computed from (``masks.scores``); no torch, so that the help is
quick."""

from dataclasses import dataclass
from typing import Literal

from .options import Options, doc

Prompts = Literal["contexts", "bare"]


@dataclass(kw_only=True)
class PromptOptions(Options):
    """Which prompts are scored."""

    score_prompts: Prompts = doc(
        "prompts that are scored: contexts in front of the prompt, or bare", "contexts"
    )
    prompt_batch: int = doc("prompts per forward pass", 32, least=1)


@dataclass(kw_only=True)
class ShiftOptions(Options):
    """Probability shifts (NMKE, Eq. 3)."""

    amplify: float = doc("A, factor of the perturbation q v (released: 30)", 30.0, above=0)
    attribution_target: Literal["predicted", "target_new", "ground_truth"] = doc(
        "token whose probability is scored: the model's own next token (released), or the first token of the "
        "new or old object",
        "predicted",
    )
    vocab_sum: Literal["exact", "sampled"] = doc(
        "the sum over the vocabulary for every neuron; sampled: from some hundred tokens of each prompt, "
        "exact where that is not sure enough: twelve times faster on 49,152 tokens, 99% of the mask is equal",
        "exact",
    )
    reference_quirks: bool = doc(
        "repeat the released code's deviations (no LayerNorm bias on GPT-2, its epsilons)", False
    )


@dataclass(kw_only=True)
class ShiftScoreOptions(ShiftOptions, PromptOptions):
    """Options of the scores ``lps`` and ``psa``."""


@dataclass(kw_only=True)
class ContributionOptions(PromptOptions):
    """Options of the scores ``contribution``."""

    attribution_target: Literal["predicted", "target_new", "ground_truth"] = doc(
        "tokens contributed to: the model's own at each position of the new object (released), or the "
        "object's",
        "predicted",
    )
    score_prompts: Prompts = doc("prompts that are scored", "bare")


@dataclass(kw_only=True)
class GradientOptions(Options):
    """Options of the scores ``ig``."""

    attribution_target: Literal["target_new", "ground_truth"] = doc(
        "object whose probability is attributed", "target_new"
    )
    activation_position: Literal["last", "subject_last"] = doc("token whose neurons are scored", "last")
    whole_target: bool = doc("probability of all of the object's tokens, else of the first", False)
    steps: int = doc("points of the path", 20, least=1, most=1000)
    rule: Literal["gauss", "right"] = doc("quadrature of the path", "gauss")
    step_batch: int = doc("points per forward and backward pass", 64, least=1)
    score_prompts: Prompts = doc("prompts that are scored", "bare")
