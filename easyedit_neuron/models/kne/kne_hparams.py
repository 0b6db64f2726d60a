"""Hyperparameters of KNE (Knowledge Neuronal Ensemble). No code was released; docs/methods/kne.md says what
the paper leaves open."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ...hyperparameters.base import ModelHyperParams
from ...hyperparameters.options import doc, require
from ...resources import SHIPPED_DATA
from ...utils.suggest import did_you_mean


@dataclass(kw_only=True)
class KNEHyperParams(ModelHyperParams):
    """A neuron is an output row (or, ``neuron_axis: input``, a column) of a target module's weight; biases
    never take part."""

    ALG_NAME: ClassVar[str] = "KNE"

    layers: list[int] = doc(
        "layers whose modules are scored and trained; empty: all (paper, Eq. 6)", factory=list
    )
    target_modules: list[str] = doc(
        "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, whatever the architecture calls them",
        factory=lambda: ["down_proj"],
    )
    projections: dict[str, str] | None = doc(
        "modules named by hand, as in {q_proj: 'transformer.blocks.{}.attn.Wqkv[1/3]'}; also [1/3 by head] and [0:4096]",
        None,
    )
    neuron_axis: Literal["output", "input"] = doc(
        "a neuron is a row of W (paper) or a column (of down_proj: an FFN neuron)", "output"
    )

    # locate
    locate_on: Literal["target_new", "ground_truth"] = doc(
        "answer whose tokens are attributed: the new object, or the old one", "target_new"
    )
    attribution_steps: int = doc("m, points between 0 and the weights", 20)
    attribution_rule: Literal["right", "gauss"] = doc(
        "right: the Riemann sum of Eq. 5; gauss: Gauss-Legendre, closer to the integral", "right"
    )
    scaling: Literal["module", "joint"] = doc(
        "module: each module is scaled by itself; joint: all target modules at once, one backward pass per step in place of "
        "one per step and module",
        "module",
    )
    token_probability: Literal["token", "prefix"] = doc(
        "summed over the answer's tokens: each one's probability behind those before it, or that of the answer up to it (Eq. 3 "
        "to the letter)",
        "token",
    )
    step_batch: int = doc(
        "points per forward and backward pass; bounds the memory, halved where that does not suffice", 64
    )

    # choose
    share_of_parameters: float = doc(
        "the ensemble is as large as this share of the model's parameters (paper: about 1%)", 0.01
    )
    p: float | None = doc(
        "share of the scored neurons in the ensemble (Eq. 6), in place of share_of_parameters", None
    )
    localize: Literal["per_edit", "shared"] = doc(
        "per_edit: the scores of the edited requests themselves; shared: mean scores of localization data, once, on the unedited "
        "model",
        "per_edit",
    )
    localization_set_size: int = doc("requests whose scores are shared, the first ones of the data", 200)
    localization_data: str | None = doc(
        "localize: shared: edits to take scores from, a data file or tiny-world; unset: what localize_shared was called with",
        None,
    )
    stats_dir: str = doc("folder where shared scores are cached", "./data/stats")

    # train
    alpha: float = doc("W + alpha / sqrt(n) dW, n neurons of the ensemble in that W (Eq. 11)", 1.0)
    lr: float = doc("Adam's learning rate for dW", 1e-3)
    num_steps: int = doc("Adam steps at most", 150)
    stop_probability: float | None = doc(
        "stop once exp(-mean NLL) of every request's new object is at least this; unset: never", 0.9
    )
    kl_factor: float = doc("weight of the KL term; 0: none (the paper names none)", 0.0)
    kl_on: Literal["prompt", "neutral"] = doc(
        "KL at all tokens of the prompt but its last (as FiNE), or at the subject's last token in kl_prompt",
        "prompt",
    )
    kl_prompt: str = doc("kl_on: neutral: template of the prompt", "{} is a")
    kl_direction: Literal["before_after", "after_before"] = doc(
        "KL(before || after) or KL(after || before)", "before_after"
    )
    train_batch_size: int = doc("requests of a batch per forward and backward pass; gradients add up", 32)

    def validate(self) -> None:
        """Ranges, with the field's name in the error."""
        super().validate()
        self.require_positive(
            "attribution_steps",
            "step_batch",
            "localization_set_size",
            "alpha",
            "lr",
            "num_steps",
            "train_batch_size",
        )
        self.require_not_negative("kl_factor")
        require(
            len(set(self.layers)) == len(self.layers) and min(self.layers, default=0) >= 0,
            "layers",
            f"must be different layer numbers, or empty for all layers, got {self.layers}",
        )
        from ...arch.projections import (
            NAMES,
        )  # here and not above: it imports torch, which the command's help can do without

        known = (*NAMES, *(self.projections or ()))
        require(
            bool(self.target_modules) and len(set(self.target_modules)) == len(self.target_modules),
            "target_modules",
            f"must name different modules, at least one of {', '.join(known)}",
        )
        for name in self.target_modules:
            require(name in known, "target_modules", f"unknown module {name!r}: {did_you_mean(name, known)}")
        for name in ("share_of_parameters", "p"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, name, f"must be in (0, 1], got {value}")
        chance = self.stop_probability
        require(
            chance is None or 0 < chance < 1,
            "stop_probability",
            f"must be between 0 and 1, or null for never, got {chance}",
        )
        require(
            self.kl_prompt.count("{}") == 1 and not {"{", "}"} & set(self.kl_prompt.replace("{}", "")),
            "kl_prompt",
            f"{self.kl_prompt!r} must hold '{{}}' exactly once and no other braces",
        )

    def check_inputs(self) -> None:
        """The data that shared scores are taken from."""
        file = self.localization_data
        if self.localize == "shared" and file is not None and file not in SHIPPED_DATA:
            require(
                Path(file).expanduser().is_file(),
                "localization_data",
                f"no file {file!r}; name a data file, or tiny-world",
            )

    def module_overrides(self) -> dict:
        """The module names that were set by hand, for ``ModelView.of``."""
        return {
            **super().module_overrides(),
            **({"projections": self.projections} if self.projections else {}),
        }
