"""Hyperparameters of PNKE (Precise Neuron-Level Knowledge Editing): a path's, the mask's, and those of the
update."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.model import doc, require
from ...locate_then_edit.own_mask import OwnMaskHyperParams

SAME_NAME = (
    "strategy",
    "thresholds",
    "background_activation",
    "background_std",
    "trigger_activation",
    "trigger_attribution",
    "alpha",
    "q_base",
    "gamma",
    "activation_share",
    "min_neurons",
    "activation_position",
    "activation_value",
    "attribution_target",
    "whole_target",
    "psem_size",
    "psem_sources",
    "psem_paraphrase_model",
    "psem_translation_models",
    "psem_max_new_tokens",
    "psem_cache_by",
)
"""Fields that are options of mask ``pnke`` and its scores, under the same name."""


@dataclass(kw_only=True)
class PNKEHyperParams(OwnMaskHyperParams):
    """Every option of the method; the defaults are the paper's. There is no released code."""

    ALG_NAME: ClassVar[str] = "PNKE"
    OWN_MASK: ClassVar[str] = "pnke"
    OWN_OPTIONS: ClassVar[dict[str, dict[str, str]]] = {
        "pnke": {
            **{name: name for name in SAME_NAME},
            "steps": "ig_steps",
            "rule": "ig_rule",
            "step_batch": "ig_step_batch",
        }
    }

    path: Literal["rome", "memit", "alphaedit"] = doc(
        "Eq. 10 on the principles of MEMIT (memit) or ROME (rome); with mask_stage solve alphaedit is memit",
        "memit",
    )
    mask_stage: Literal["post", "solve"] = doc(
        "solve: Eq. 10, the problem of the critical neurons alone; post: the delta of all neurons times the mask",
        "solve",
    )
    mask: str = doc(
        "which neurons may change; the fields below are the options of pnke, other masks have theirs in mask_options",
        "pnke",
    )
    L2: float = doc("ridge added to the diagonal (not in Eq. 10)", 0.0)
    preserve: Literal["covariance", "nullspace"] = doc(
        "mask_stage solve: what stands for the retained samples K0; covariance: lambda C among the critical neurons (Eq. 10), "
        "lambda is mom2_update_weight; nullspace: the update lies in the null space of that",
        "covariance",
    )

    psem_size: int = doc("m, prompts in P_sem (B.1)", 10)
    psem_sources: list[Literal["dataset", "paraphrase", "translation", "context"]] = doc(
        "sources of P_sem, asked in this order until there are m prompts; 'dataset' takes the request's rephrase_prompt, which "
        "generalisation is measured on",
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
        "what a cached paraphrase is found by: strict: also the weights that wrote it, which every edit changes; text: not those",
        "strict",
    )

    activation_position: Literal["last", "subject_last"] = doc(
        "token whose activations are read and attributed to: the prompt's last, or the subject's, where keys are read",
        "last",
    )
    activation_value: Literal["signed", "magnitude"] = doc(
        "Act(n, p): the activation as it is, or its absolute value", "signed"
    )
    background_activation: float = doc(
        "theta_bg_act (B.2): percentile of the mean activation over P_sem", 75.0
    )
    background_std: float = doc("epsilon_stable (B.2): percentile of the standard deviation over P_sem", 25.0)
    trigger_activation: float = doc("theta_trig_act (B.3.3): percentile of the activation on P_spec", 90.0)
    trigger_attribution: float = doc("theta_attr (B.3.3): percentile of the attribution", 90.0)
    thresholds: Literal["percentile", "range"] = doc(
        "what these four are: percentiles of the layer, or percent of the way from the least to the greatest value",
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
        "which neurons are critical (Fig. 3): Algorithm 4, N_trig or N_bg as they are, or activation_share of the most active",
        "entropy",
    )
    alpha: float = doc("weight of the activation in the importance s (Eq. 5)", 0.5)
    q_base: float = doc("percentile of s where its entropy is greatest (Eq. 6)", 85.0)
    gamma: float = doc("percentiles per nat that the entropy lacks (Eq. 6)", 10.0)
    activation_share: float = doc("share of neurons of strategy: activation", 0.1)
    min_neurons: int = doc(
        "critical neurons at least; where the selection has fewer, the next best by s join them", 1
    )

    solver: Literal["closed_form", "adam"] = doc(
        "closed_form: Eq. 10, the value vectors of the critical neurons; adam: Eq. 9, by gradients, adam_trains of them "
        "(accumulate_keys is for closed_form alone: Eq. 9 knows no earlier edits)",
        "closed_form",
    )
    adam_trains: list[Literal["w_out", "w_in", "b_in"]] = doc(
        "solver adam: rows of W_out, columns of W_in (gate and up), b_in where there is one",
        factory=lambda: ["w_out", "w_in", "b_in"],
    )
    adam_steps: int = doc("solver adam: steps per layer", 100)
    adam_lr: float = doc("solver adam: learning rate", 5e-3)
    adam_stop: float = doc("solver adam: stops when the loss is below this times the first one", 1e-2)
    adam_preserve_tokens: int = doc(
        "solver adam: tokens of mom2_dataset that stand for the retained samples K0", 512
    )

    def validate(self) -> None:
        """Ranges; the mask's options are checked by the mask."""
        super().validate()
        self.require_positive(
            "psem_size",
            "psem_max_new_tokens",
            "ig_steps",
            "ig_step_batch",
            "min_neurons",
            "adam_steps",
            "adam_lr",
            "adam_preserve_tokens",
        )
        self.require_not_negative("gamma", "adam_stop")
        for name in (
            "background_activation",
            "background_std",
            "trigger_activation",
            "trigger_attribution",
            "q_base",
        ):
            require(
                0 <= getattr(self, name) <= 100,
                name,
                f"must lie between 0 and 100, got {getattr(self, name)}",
            )
        require(0 <= self.alpha <= 1, "alpha", f"must lie between 0 and 1, got {self.alpha}")
        require(
            0 < self.activation_share <= 1,
            "activation_share",
            f"must be in (0, 1], got {self.activation_share}",
        )
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
        require(self.solve_preserve == "nullspace", "solve_preserve", "is called 'preserve' in PNKE")
        if self.preserve == "nullspace":
            require(
                self.path != "rome" and self.mask_stage == "solve",
                "preserve",
                "nullspace is for mask_stage solve on the paths memit and alphaedit",
            )
            require(
                self.L2 > 0,
                "L2",
                "must be greater than 0 with preserve: nullspace (the system is singular without it)",
            )
        if self.solver == "adam":
            require(
                self.path == "memit" and self.mask_stage == "solve" and self.preserve == "covariance",
                "solver",
                "adam solves Eq. 9 itself: leave path, mask_stage and preserve as they are",
            )
            require(
                bool(self.adam_trains) and len(set(self.adam_trains)) == len(self.adam_trains),
                "adam_trains",
                f"must name some of w_out, w_in and b_in, each once, got {self.adam_trains}",
            )

    @property
    def preserves(self) -> str:
        """``preserve`` where the problem is restricted to masked neurons, on the path memit too."""
        masked = self.mask_stage == "solve" and self.mask != "none"
        return self.preserve if masked else super().preserves
