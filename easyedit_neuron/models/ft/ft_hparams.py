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

    layers: list[int] = doc("layers whose weights are trained", least=0)
    num_steps: int = doc(
        "largest number of passes over the requests; every batch of a pass is one Adam step", least=1
    )
    lr: float = doc("learning rate", above=0)

    objective_optimization: Literal["prompt_last", "target_new"] = doc(
        "prompt_last: every target token is predicted from the prompt's last token (FT-L); "
        "target_new: cross-entropy of the target after the prompt (FT-M)",
        "prompt_last",
    )
    weight_decay: float = doc("Adam's L2 term", 0.0, least=0)
    kl_factor: float = doc(
        "accepted for EasyEdit's files; not used, neither here nor by EasyEdit's FT", 0.0, least=0
    )
    norm_constraint: bool | float = doc(
        "largest change of any single weight; false: no limit", False, above=0
    )
    target_special_tokens: bool = doc(
        "with prompt_last: tokenise the target with special tokens as EasyEdit does, so that a BOS token "
        "which the tokenizer adds is trained as a target; false: the target's own tokens only",
        True,
    )

    batch_size: int = doc("requests per Adam step", 64, least=1)

    rewrite_module_tmp: str | None = doc(
        "template of the trained weight or module; unset: the down projection of the architecture table", None
    )

    def validate(self) -> None:
        """Check what no range says."""
        super().validate()
        require(
            bool(self.layers) and len(set(self.layers)) == len(self.layers),
            "layers",
            f"must be a non-empty list of different layer numbers, got {self.layers}",
        )
        require(
            self.norm_constraint is not True,
            "norm_constraint",
            "must be false (none) or greater than 0, not true",
        )
        require(
            self.rewrite_module_tmp is None or self.rewrite_module_tmp.count("{}") == 1,
            "rewrite_module_tmp",
            "must hold '{}' exactly once, for the layer's number",
        )
