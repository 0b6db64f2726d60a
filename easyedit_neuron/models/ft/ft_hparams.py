"""Hyperparameters of the fine-tuning baselines, with EasyEdit's field names."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.base import ModelHyperParams
from ...hyperparameters.options import doc, require


@dataclass(kw_only=True)
class FTHyperParams(ModelHyperParams):
    """EasyEdit's hyperparameter files load unchanged; the module templates may be left out."""

    ALG_NAME: ClassVar[str] = "FT"
    NEEDS_SUBJECT: ClassVar[bool] = False

    layers: list[int] = doc("layers whose weights are trained")
    num_steps: int = doc("largest number of passes over the requests; every batch of a pass is one Adam step")
    lr: float = doc("learning rate")

    objective_optimization: Literal["prompt_last", "target_new"] = doc(
        "prompt_last: every target token is predicted from the prompt's last token (FT-L); "
        "target_new: cross-entropy of the target after the prompt (FT-M)",
        "prompt_last",
    )
    weight_decay: float = doc("Adam's L2 term", 0.0)
    kl_factor: float = doc("accepted for EasyEdit's files; not used, neither here nor by EasyEdit's FT", 0.0)
    norm_constraint: bool | float = doc("largest change of any single weight; false: no limit", False)
    target_special_tokens: bool = doc(
        "with prompt_last: tokenise the target with special tokens as EasyEdit does, so that a BOS token "
        "which the tokenizer adds is trained as a target; false: the target's own tokens only",
        True,
    )

    batch_size: int = doc("requests per Adam step", 64)

    rewrite_module_tmp: str | None = doc(
        "template of the trained weight or module; unset: the down projection of the architecture table", None
    )

    def validate(self) -> None:
        """Check the ranges."""
        super().validate()
        self.require_positive("num_steps", "lr")
        self.require_not_negative("weight_decay")
        require(
            bool(self.layers) and min(self.layers) >= 0 and len(set(self.layers)) == len(self.layers),
            "layers",
            f"must be a non-empty list of different layer numbers, got {self.layers}",
        )
        require(
            self.norm_constraint is False or (self.norm_constraint is not True and self.norm_constraint > 0),
            "norm_constraint",
            f"must be false (none) or greater than 0, got {self.norm_constraint}",
        )
        require(
            self.rewrite_module_tmp is None or self.rewrite_module_tmp.count("{}") == 1,
            "rewrite_module_tmp",
            "must hold '{}' exactly once, for the layer's number",
        )
