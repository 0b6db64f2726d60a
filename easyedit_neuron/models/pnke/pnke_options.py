"""Options of PNKE's neurons: the prompts P_sem, the scores and the mask. The defaults are the paper's."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.options import SEED, Options, doc, require

Source = Literal["dataset", "paraphrase", "translation", "context"]


@dataclass(kw_only=True)
class PNKEOptions(Options):
    """Options of mask ``pnke`` and of its scores; hyperparameters of PNKE."""

    ALIASES: ClassVar[dict[str, str]] = {
        "steps": "ig_steps",
        "rule": "ig_rule",
        "step_batch": "ig_step_batch",
    }

    psem_size: int = doc("m, number of prompts in P_sem (B.1)", 10, least=1)
    psem_sources: list[Source] = doc(
        "sources of P_sem, used in this order until there are m prompts; dataset takes the request's "
        "rephrase_prompt, which is also the prompt on which generalisation is measured",
        factory=lambda: ["dataset", "paraphrase", "translation", "context"],
    )
    psem_paraphrase_model: str | None = doc(
        "model that writes the paraphrases; unset: the edited model itself", None
    )
    psem_translation_models: list[str] | None = doc(
        "two translation models, into another language and back; unset: no back-translation", None
    )
    psem_max_new_tokens: int = doc("largest number of tokens of a paraphrase or translation", 40, least=1)
    psem_cache_by: Literal["strict", "text"] = doc(
        "when a cached paraphrase is used again; strict: only if the weights that wrote it are the present "
        "ones, which every edit changes; text: whatever the weights, so that all edits and runs share a "
        "P_sem",
        "strict",
    )

    activation_position: Literal["last", "subject_last"] = doc(
        "token at which neurons are read; last: the prompt's last token; subject_last: the subject's last "
        "token, where keys are read",
        "last",
    )
    activation_value: Literal["signed", "magnitude"] = doc(
        "Act(n, p); signed: the activation; magnitude: its absolute value. In a gated FFN the sign alone "
        "has no meaning: negating the neuron's row of the up projection and its column of the down "
        "projection gives the same function",
        "signed",
    )
    background_activation: float = doc(
        "theta_bg_act (B.2): background neurons have a mean activation over P_sem above this percentile",
        75.0,
        least=0,
        most=100,
    )
    background_std: float = doc(
        "epsilon_stable (B.2): background neurons have a standard deviation over P_sem below this percentile",
        25.0,
        least=0,
        most=100,
    )
    trigger_activation: float = doc(
        "theta_trig_act (B.3.3): trigger neurons have an activation on P_spec above this percentile",
        90.0,
        least=0,
        most=100,
    )
    trigger_attribution: float = doc(
        "theta_attr (B.3.3): trigger neurons have an attribution above this percentile",
        90.0,
        least=0,
        most=100,
    )
    thresholds: Literal["percentile", "range"] = doc(
        "unit of the four thresholds above; percentile: percentiles over the neurons of the layer; range: "
        "percent of the way from the least to the greatest value. The paper's Fig. 5 gives shares counted "
        "from the top: its 0.2 to 0.3 for trigger neurons is a threshold of 80 to 70 here",
        "percentile",
    )
    attribution_target: Literal["target_new", "ground_truth", "predicted"] = doc(
        "object whose probability is attributed; target_new: the new one; ground_truth: the old one; "
        "predicted: the model's own next token",
        "target_new",
    )
    whole_target: bool = doc(
        "attribute the probability of all tokens of the object; false: of its first token", False
    )
    ig_steps: int = doc(
        "number of points on the path of integrated gradients (C.1: 10 + 20 evaluations)",
        20,
        least=1,
        most=1000,
    )
    ig_rule: Literal["gauss", "right"] = doc(
        "quadrature rule of the path; gauss: Gauss-Legendre; right: the Riemann sum", "gauss"
    )
    ig_step_batch: int = doc(
        "points per forward and backward pass; halved if memory does not suffice", 64, least=1
    )

    strategy: Literal["entropy", "trigger", "background", "activation"] = doc(
        "which neurons are critical (Fig. 3); entropy: Algorithm 4; trigger: all of N_trig; background: all "
        "of N_bg; activation: the activation_share of the layer's neurons with the highest activation",
        "entropy",
    )
    alpha: float = doc(
        "weight of the activation in the importance s; the attribution has the rest (Eq. 5)",
        0.5,
        least=0,
        most=1,
    )
    q_base: float = doc(
        "percentile of s above which neurons are critical if its entropy is greatest (Eq. 6)",
        85.0,
        least=0,
        most=100,
    )
    gamma: float = doc(
        "what each nat below the greatest entropy adds to the percentile (Eq. 6)", 10.0, least=0
    )
    activation_share: float = doc(
        "with strategy activation: share of neurons that are critical", 0.1, above=0, most=1
    )
    min_neurons: int = doc(
        "smallest number of critical neurons per request; if fewer are selected, those with the next "
        "highest s are added",
        1,
        least=1,
    )

    @property
    def uses_prompts(self) -> bool:
        """Whether the strategy uses P_sem."""
        return self.strategy in ("entropy", "background")

    @property
    def uses_attribution(self) -> bool:
        """Whether the strategy uses integrated gradients."""
        return self.strategy in ("entropy", "trigger")

    def validate(self) -> None:
        """Check what no range says."""
        super().validate()
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
    """With the options that methods set by fields of other names."""

    prompt_batch: int = doc("prompts per forward pass; halved if memory does not suffice", 64, least=1)
    psem_cache_dir: str | None = doc("folder where written prompts are cached; unset: no cache", None)
    seed: int = doc("seed of the sampling of paraphrases", 0, **SEED)

    @property
    def prompt_cache(self) -> str | None:
        """Folder of written prompts; None: nothing is cached."""
        return self.psem_cache_dir
