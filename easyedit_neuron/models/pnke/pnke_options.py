"""Options of PNKE's neurons: the prompts P_sem, the scores and the mask. The defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.options import Options, doc, require

Source = Literal["dataset", "paraphrase", "translation", "context"]


@dataclass(kw_only=True)
class PNKEOptions(Options):
    """Options of mask ``pnke`` and of its scores; hyperparameters of PNKE."""

    ALIASES: ClassVar[dict[str, str]] = {
        "steps": "ig_steps",
        "rule": "ig_rule",
        "step_batch": "ig_step_batch",
    }

    psem_size: int = doc("m, prompts in P_sem (B.1)", 10)
    psem_sources: list[Source] = doc(
        "sources of P_sem, asked in this order until there are m prompts; 'dataset' takes the request's rephrase_prompt, "
        "which generalisation is measured on",
        factory=lambda: ["dataset", "paraphrase", "translation", "context"],
    )
    psem_paraphrase_model: str | None = doc(
        "model that writes the paraphrases; unset: the edited model itself", None
    )
    psem_translation_models: list[str] | None = doc(
        "two translation models, into another language and back; unset: no back-translation", None
    )
    psem_max_new_tokens: int = doc("longest paraphrase or translation", 40)
    psem_cache_by: Literal["strict", "text"] = doc(
        "what a cached paraphrase is looked up by: strict: also the weights that wrote it, which every edit changes; text: "
        "not those",
        "strict",
    )

    activation_position: Literal["last", "subject_last"] = doc(
        "token whose activations are read and attributed to: the prompt's last, or the subject's, where keys are read",
        "last",
    )
    activation_value: Literal["signed", "magnitude"] = doc(
        "Act(n, p): the activation as it is, or its absolute value. The sign of a gated FFN's activation means nothing by "
        "itself: with its row of the up projection and its column of the down projection negated it is the same neuron",
        "signed",
    )
    background_activation: float = doc(
        "theta_bg_act (B.2): percentile of the mean activation over P_sem", 75.0
    )
    background_std: float = doc("epsilon_stable (B.2): percentile of the standard deviation over P_sem", 25.0)
    trigger_activation: float = doc("theta_trig_act (B.3.3): percentile of the activation on P_spec", 90.0)
    trigger_attribution: float = doc("theta_attr (B.3.3): percentile of the attribution", 90.0)
    thresholds: Literal["percentile", "range"] = doc(
        "what these four are: percentiles of the layer, or percent of the way from the least to the greatest value. The "
        "paper's Fig. 5 counts from above and gives shares: its 0.2 to 0.3 for trigger neurons is a level of 80 to 70",
        "percentile",
    )
    attribution_target: Literal["target_new", "ground_truth", "predicted"] = doc(
        "whose probability is attributed: the new object, the old one, or the model's own next token",
        "target_new",
    )
    whole_target: bool = doc("probability of all of the object's tokens, else of the first", False)
    ig_steps: int = doc("points of the path of integrated gradients (C.1: 10 + 20 evaluations)", 20)
    ig_rule: Literal["gauss", "right"] = doc(
        "quadrature of the path: Gauss-Legendre, or the Riemann sum", "gauss"
    )
    ig_step_batch: int = doc("points per forward and backward pass; halved where memory does not suffice", 64)

    strategy: Literal["entropy", "trigger", "background", "activation"] = doc(
        "which neurons are critical (Fig. 3): Algorithm 4, N_trig or N_bg as they are, or activation_share of the most "
        "active",
        "entropy",
    )
    alpha: float = doc("weight of the activation in the importance s (Eq. 5)", 0.5)
    q_base: float = doc("percentile of s where its entropy is greatest (Eq. 6)", 85.0)
    gamma: float = doc("percentiles per nat that the entropy lacks (Eq. 6)", 10.0)
    activation_share: float = doc("share of neurons of strategy: activation", 0.1)
    min_neurons: int = doc(
        "critical neurons at least, per request; where the selection has fewer, the next best by s join them",
        1,
    )

    @property
    def uses_prompts(self) -> bool:
        """Whether the strategy looks at P_sem."""
        return self.strategy in ("entropy", "background")

    @property
    def uses_attribution(self) -> bool:
        """Whether the strategy looks at integrated gradients."""
        return self.strategy in ("entropy", "trigger")

    def validate(self) -> None:
        """Check the ranges."""
        super().validate()
        self.require_positive("psem_size", "psem_max_new_tokens", "ig_steps", "ig_step_batch", "min_neurons")
        self.require_not_negative("gamma")
        self.require_share("activation_share")
        levels = ("background_activation", "background_std", "trigger_activation", "trigger_attribution")
        for name in (*levels, "q_base"):
            value = getattr(self, name)
            require(0 <= value <= 100, name, f"must lie between 0 and 100, got {value}")
        require(0 <= self.alpha <= 1, "alpha", f"must lie between 0 and 1, got {self.alpha}")
        require(len(set(self.psem_sources)) == len(self.psem_sources), "psem_sources", "names a source twice")
        require(
            self.psem_translation_models is None or len(self.psem_translation_models) == 2,
            "psem_translation_models",
            "must name two models: into the other language, and back",
        )
        require(
            not (self.whole_target and self.attribution_target == "predicted"),
            "whole_target",
            "the model's own prediction is one token; set attribution_target to target_new or ground_truth",
        )


@dataclass(kw_only=True)
class PNKEScoringOptions(PNKEOptions):
    """The same with what every method sets elsewhere."""

    prompt_batch: int = doc("prompts per forward pass; halved where memory does not suffice", 64)
    psem_cache_dir: str | None = doc("folder of written prompts; unset: psem below stats_dir", None)
    seed: int = doc("of the sampling of paraphrases", 0)

    @property
    def prompt_cache(self) -> str | None:
        """Folder of written prompts; None: nothing is kept."""
        return self.psem_cache_dir
