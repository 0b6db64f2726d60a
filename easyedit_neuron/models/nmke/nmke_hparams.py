"""Hyperparameters of NMKE (Neuron-specific Masked Knowledge Editing): AlphaEdit's, and those of its neuron
mask."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.options import Options, doc, require
from ...hyperparameters.score_options import ShiftOptions, ShiftScoreOptions
from ...locate_then_edit.hparams import PathHyperParams


@dataclass(kw_only=True)
class NMKEOptions(Options):
    """Options of mask ``nmke``; hyperparameters of NMKE."""

    score_form: Literal["zscore", "raw"] = doc(
        "general score counts z-scored (released) or raw (paper, Eq. 4) positive scores", "zscore"
    )
    ratio: Literal["entropy", "linear", "fixed"] = doc(
        "entropy: lo + (hi - lo) H^gamma (released); linear: scaler * H + bias (paper); "
        "fixed: general_ratio and specific_ratio",
        "entropy",
    )
    general_bounds: list[float] = doc("(lo, hi) of the general ratio", factory=lambda: [0.3, 0.4])
    specific_bounds: list[float] = doc("(lo, hi) of the specific ratio", factory=lambda: [0.3, 0.4])
    gamma_general: float = doc("exponent of the general entropy", 3.0)
    gamma_specific: float = doc("exponent of the specific entropy", 2.0)
    tau: float = doc("temperature of the general entropy's softmax", 30.0)
    general_scaler: float = doc("lambda of the general neurons, ratio: linear", 0.4)
    general_bias: float = doc("beta of the general neurons, ratio: linear", 0.0)
    specific_scaler: float = doc("lambda of the specific neurons, ratio: linear", 0.4)
    specific_bias: float = doc("beta of the specific neurons, ratio: linear", 0.0)
    general_ratio: float | None = doc("share of general neurons, ratio: fixed", None)
    specific_ratio: float | None = doc("share of specific neurons, ratio: fixed", None)
    ties: Literal["include", "exclude"] = doc(
        "neurons whose score equals the threshold (released: include). Qg is a small integer, so many neurons tie and the "
        "mask gets denser than the ratio; exclude never selects more than the ratio asks for and may select none",
        "include",
    )
    neurons: Literal["both", "general", "specific", "overlap", "non_overlap"] = doc(
        "which of the two kinds (Fig. 6, Table 3)", "both"
    )
    mask_values: Literal["binary", "soft"] = doc(
        "binary: 0/1; soft: every neuron of the layer is scaled by its normalised score, without a selection "
        "(paper, Table 4)",
        "binary",
    )

    def validate(self) -> None:
        """Check the ranges."""
        super().validate()
        self.require_positive("tau", "gamma_general", "gamma_specific")
        self.require_share("general_ratio", "specific_ratio")
        for kind in ("general", "specific"):
            bounds = getattr(self, f"{kind}_bounds")
            ordered = len(bounds) == 2 and 0 < bounds[0] <= bounds[1] <= 1
            require(ordered, f"{kind}_bounds", f"must be [lo, hi] with 0 < lo <= hi <= 1, got {bounds}")
            scaler, bias = getattr(self, f"{kind}_scaler"), getattr(self, f"{kind}_bias")
            require(
                self.ratio != "linear" or (0 <= bias <= 1 and 0 <= scaler + bias <= 1),
                f"{kind}_scaler",
                f"the ratio runs from {kind}_bias to {kind}_scaler + {kind}_bias, both must lie in [0, 1]; got scaler "
                f"{scaler} and bias {bias}",
            )
            share = f"{kind}_ratio"
            require(
                self.ratio != "fixed" or getattr(self, share) is not None,
                share,
                "ratio 'fixed' needs a share in (0, 1]",
            )


@dataclass(kw_only=True)
class NMKEHyperParams(NMKEOptions, ShiftScoreOptions, PathHyperParams):
    """Every option of the method. Defaults are those of the authors' released code, the paper's forms are
    options."""

    ALG_NAME: ClassVar[str] = "NMKE"
    OWN_MASK: ClassVar[str] = "nmke"
    OWN_OPTIONS: ClassVar[tuple[type[Options], ...]] = (NMKEOptions, ShiftOptions)
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
