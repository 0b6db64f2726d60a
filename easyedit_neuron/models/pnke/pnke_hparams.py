"""Hyperparameters of PNKE (Precise Neuron-Level Knowledge Editing): a path's, the mask's, and those of the
update."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ...hyperparameters.options import Options, doc, require
from ...locate_then_edit.hparams import PathHyperParams
from .pnke_options import PNKEOptions, PNKEScoringOptions


@dataclass(kw_only=True)
class PNKEHyperParams(PNKEScoringOptions, PathHyperParams):
    """Every option of the method; the defaults are the paper's. There is no released code."""

    ALG_NAME: ClassVar[str] = "PNKE"
    OWN_MASK: ClassVar[str] = "pnke"
    OWN_OPTIONS: ClassVar[tuple[type[Options], ...]] = (PNKEOptions,)

    path: Literal["rome", "memit", "alphaedit"] = doc(
        "Eq. 10 on the principles of MEMIT (memit) or ROME (rome); with mask_stage solve alphaedit is memit",
        "memit",
    )
    mask_stage: Literal["post", "solve"] = doc(
        "solve: Eq. 10, the problem of the critical neurons alone; post: the delta of all neurons times the mask",
        "solve",
    )
    mask: str = doc(
        "which neurons may change; pnke takes its options from this method's fields, other masks from mask_options",
        "pnke",
    )
    L2: float = doc("ridge added to the diagonal (not in Eq. 10)", 0.0)
    preserve: Literal["covariance", "nullspace"] = doc(
        "mask_stage solve: what stands for the retained samples K0. covariance: lambda C among the critical neurons "
        "(Eq. 10), lambda is mom2_update_weight; nullspace: the update lies in the null space of that",
        "covariance",
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
        """Check the ranges and rules between fields."""
        super().validate()
        self.require_positive("adam_steps", "adam_lr", "adam_preserve_tokens")
        self.require_not_negative("adam_stop")
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
    def prompt_cache(self) -> str:
        """Folder of written prompts."""
        return self.psem_cache_dir or str(Path(self.stats_dir) / "psem")

    @property
    def preserves(self) -> str:
        """``preserve`` where the problem is restricted to masked neurons, on the path memit too."""
        return self.preserve if self.masks_in_solve else super().preserves

    @property
    def uses_covariance(self) -> bool:
        """Adam takes tokens of the text for K0, not their covariance."""
        return self.solver == "closed_form" and super().uses_covariance
