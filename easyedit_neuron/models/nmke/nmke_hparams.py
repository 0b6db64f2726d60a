"""Hyperparameters of NMKE (Neuron-specific Masked Knowledge Editing): AlphaEdit's, and those of its neuron mask."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.options import doc, require
from ...locate_then_edit.hparams import PathHyperParams
from ...masks.scores import ShiftOptions
from .nmke_mask import NMKEOptions


@dataclass(kw_only=True)
class NMKEHyperParams(NMKEOptions, ShiftOptions, PathHyperParams):
    """Every option of the method. Defaults are those of the authors' released code, the paper's forms are options."""

    ALG_NAME: ClassVar[str] = "NMKE"
    OWN_MASK: ClassVar[str] = "nmke"
    OWN_OPTIONS: ClassVar[tuple[type, ...]] = (NMKEOptions, ShiftOptions)
    OPTION_FIELDS: ClassVar[dict[tuple[str, str], str]] = {("random", "density"): "mask_density"}

    mask: str = doc(
        "which neurons may change; nmke takes its options from this method's fields, other masks from mask_options",
        "nmke",
    )
    attribution: Literal["lps", "psa", "mpc"] = doc(
        "lps: gain in log probability; psa: gain in probability; mpc: |q| |v|, no unembedding", "lps"
    )
    mask_density: float = doc("share of neurons of mask: random", 0.5)
    layer_selection: Literal["all"] = doc("EasyEdit's field; every layer of 'layers' is edited", "all")
    P_loc: str | None = doc("EasyEdit's field; not read, the projector is cached below stats_dir", None)

    def validate(self) -> None:
        """Check the ranges and rules between fields."""
        super().validate()
        self.require_share("mask_density")
        require(
            self.mask != "nmke" or self.mask_values == "binary" or self.mask_stage == "post",
            "mask_values",
            "a soft mask cannot restrict the problem; use mask_stage 'post'",
        )
