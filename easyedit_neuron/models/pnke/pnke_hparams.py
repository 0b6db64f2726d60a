"""Hyperparameters of PNKE (Precise Neuron-Level Knowledge Editing)."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ...hyperparameters.options import Options, doc, require
from ...hyperparameters.preset import Preset
from ...locate_then_edit.hparams import PathHyperParams
from .pnke_options import PNKEOptions, PNKEScoringOptions

PRESETS = {
    "paper": Preset(
        "appendices B and C.1, Eq. 2 to 7 and 10, of Tables 1 to 3; the paper names neither lambda nor the "
        "token at which neurons are read, so that both are the file's",
        {
            **{"path": "memit", "mask": "pnke", "mask_stage": "solve", "solver": "closed_form"},
            **{"psem_size": 10, "psem_sources": ["paraphrase", "translation", "context"]},
            **{"background_activation": 75.0, "background_std": 25.0, "thresholds": "percentile"},
            **{"trigger_activation": 90.0, "trigger_attribution": 90.0},
            **{"ig_steps": 20, "ig_rule": "right"},
            **{"strategy": "entropy", "alpha": 0.5, "q_base": 85.0, "gamma": 10.0},
            **{"preserve": "covariance", "accumulate_keys": False, "error_compensation": False},
        },
    )
}


@dataclass(kw_only=True)
class PNKEHyperParams(PNKEScoringOptions, PathHyperParams):
    """Defaults are the paper's. There is no released code."""

    ALG_NAME: ClassVar[str] = "PNKE"
    PRESETS: ClassVar[dict[str, Preset]] = PRESETS
    OWN_MASK: ClassVar[str] = "pnke"
    OWN_OPTIONS: ClassVar[tuple[type[Options], ...]] = (PNKEOptions,)

    path: Literal["rome", "memit", "alphaedit"] = doc(
        "Eq. 10 on the principles of MEMIT (memit) or ROME (rome); with mask_stage solve, alphaedit is the "
        "same as memit",
        "memit",
    )
    mask_stage: Literal["post", "solve"] = doc(
        "solve: solve Eq. 10 for the critical neurons only; post: compute the update of all neurons and "
        "multiply it by the mask",
        "solve",
    )
    mask: str = doc(
        "which neurons may change; the options of pnke are fields of this method, those of other masks are "
        "in mask_options",
        "pnke",
    )
    L2: float = doc("number added to the diagonal of the system (Eq. 10 has no such term)", 0.0, least=0)
    preserve: Literal["covariance", "nullspace"] = doc(
        "with mask_stage solve: what represents the retained samples K0; covariance: lambda C among the "
        "critical neurons (Eq. 10), lambda is mom2_update_weight; nullspace: the update lies in the null "
        "space of that matrix",
        "covariance",
    )

    solver: Literal["closed_form", "adam"] = doc(
        "closed_form: solve Eq. 10 for the value vectors of the critical neurons; adam: minimise Eq. 9 by "
        "gradient steps on the parameters in adam_trains (accumulate_keys works with closed_form only, as "
        "Eq. 9 has no term for earlier edits)",
        "closed_form",
    )
    adam_trains: list[Literal["w_out", "w_in", "b_in"]] = doc(
        "with solver adam: parameters of the critical neurons that are trained; w_out: rows of W_out; w_in: "
        "columns of W_in (gate and up); b_in: the bias, if the model has one",
        factory=lambda: ["w_out", "w_in", "b_in"],
    )
    adam_steps: int = doc("with solver adam: largest number of steps per layer", 100, least=1)
    adam_lr: float = doc("with solver adam: learning rate", 5e-3, above=0)
    adam_stop: float = doc(
        "with solver adam: stop once the loss is below this share of the first loss", 1e-2, least=0
    )
    adam_preserve_tokens: int = doc(
        "with solver adam: number of tokens of mom2_dataset that represent the retained samples K0",
        512,
        least=1,
    )

    def validate(self) -> None:
        """Check the rules between fields."""
        super().validate()
        require(
            self.solve_preserve == "nullspace",
            "solve_preserve",
            "is not used by PNKE; set 'preserve' instead",
        )
        if self.preserve == "nullspace":
            require(
                self.path != "rome" and self.mask_stage == "solve",
                "preserve",
                "nullspace needs mask_stage solve and path memit or alphaedit",
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
                "adam needs path memit, mask_stage solve and preserve covariance (the defaults)",
            )
            require(
                bool(self.adam_trains) and len(set(self.adam_trains)) == len(self.adam_trains),
                "adam_trains",
                f"must name some of w_out, w_in and b_in, each once, got {self.adam_trains}",
            )

    @property
    def prompt_cache(self) -> str:
        """Folder of written prompts."""
        return self.psem_cache_dir or str(Path(str(self.stats_dir)) / "psem")

    @property
    def preserves(self) -> str:
        """``preserve`` where the problem is restricted to masked neurons, on the path memit too."""
        return self.preserve if self.masks_in_solve else super().preserves

    @property
    def uses_text(self) -> bool:
        """Adam takes tokens of the text for K0, not their covariance."""
        return self.solver == "closed_form" and super().uses_text
