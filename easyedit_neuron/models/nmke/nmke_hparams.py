"""Hyperparameters of NMKE (Neuron-specific Masked Knowledge Editing): AlphaEdit's, and those of its neuron
mask."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...hyperparameters.options import Options, doc, require
from ...hyperparameters.preset import Preset
from ...hyperparameters.score_options import ShiftOptions, ShiftScoreOptions
from ...locate_then_edit.hparams import PathHyperParams


@dataclass(kw_only=True)
class NMKEOptions(Options):
    """Options of mask ``nmke``; hyperparameters of NMKE."""

    score_form: Literal["zscore", "raw"] = doc(
        "scores whose positive values the general score counts; zscore: z-scored over the neurons of a "
        "prompt (released); raw: as they are (paper, Eq. 4)",
        "zscore",
    )
    ratio: Literal["entropy", "linear", "fixed"] = doc(
        "how the share of selected neurons follows from the entropy H; entropy: lo + (hi - lo) H^gamma "
        "(released); linear: scaler * H + bias (paper); fixed: general_ratio and specific_ratio",
        "entropy",
    )
    general_bounds: list[float] = doc(
        "with ratio entropy: [lo, hi] of the general neurons", factory=lambda: [0.3, 0.4], above=0, most=1
    )
    specific_bounds: list[float] = doc(
        "with ratio entropy: [lo, hi] of the specific neurons", factory=lambda: [0.3, 0.4], above=0, most=1
    )
    gamma_general: float = doc("with ratio entropy: exponent of the general entropy", 3.0, above=0)
    gamma_specific: float = doc("with ratio entropy: exponent of the specific entropy", 2.0, above=0)
    tau: float = doc("factor of the scores in the softmax of the general entropy", 30.0, above=0)
    general_scaler: float = doc(
        "with ratio linear: scaler (lambda) of the general neurons", 0.4, least=-1, most=1
    )
    general_bias: float = doc("with ratio linear: bias (beta) of the general neurons", 0.0, least=0, most=1)
    specific_scaler: float = doc(
        "with ratio linear: scaler (lambda) of the specific neurons", 0.4, least=-1, most=1
    )
    specific_bias: float = doc("with ratio linear: bias (beta) of the specific neurons", 0.0, least=0, most=1)
    general_ratio: float | None = doc("with ratio fixed: share of general neurons", None, above=0, most=1)
    specific_ratio: float | None = doc("with ratio fixed: share of specific neurons", None, above=0, most=1)
    ties: Literal["include", "exclude"] = doc(
        "whether neurons whose score equals the threshold are selected (released: include). The general "
        "score is a small integer, so many neurons tie: include may select more than the ratio asks for, "
        "exclude fewer or none",
        "include",
    )
    neurons: Literal["both", "general", "specific", "overlap", "non_overlap"] = doc(
        "which neurons the mask holds: general or specific ones, either kind (both), those that are both "
        "(overlap), or those that are one but not the other (non_overlap) (Fig. 6, Table 3)",
        "both",
    )
    mask_values: Literal["binary", "soft"] = doc(
        "binary: 0 or 1; soft: no selection, the update of every neuron is scaled by its normalised score "
        "(paper, Table 4)",
        "binary",
    )

    def validate(self) -> None:
        """Check the rules between fields."""
        super().validate()
        for kind in ("general", "specific"):
            bounds = getattr(self, f"{kind}_bounds")
            ordered = len(bounds) == 2 and bounds[0] <= bounds[1]
            require(ordered, f"{kind}_bounds", f"must be [lo, hi] with 0 < lo <= hi <= 1, got {bounds}")
            scaler, bias = getattr(self, f"{kind}_scaler"), getattr(self, f"{kind}_bias")
            require(
                self.ratio != "linear" or 0 <= scaler + bias <= 1,
                f"{kind}_scaler",
                f"the ratio runs from {kind}_bias to {kind}_scaler + {kind}_bias, both must lie in [0, 1]; "
                f"got scaler {scaler} and bias {bias}",
            )
            share = f"{kind}_ratio"
            require(
                self.ratio != "fixed" or getattr(self, share) is not None,
                share,
                "ratio 'fixed' needs a share in (0, 1]",
            )


RELEASED: dict[str, Any] = {
    **{"path": "alphaedit", "mask": "nmke", "mask_stage": "post", "error_compensation": False},
    **{"attribution": "lps", "amplify": 30.0, "vocab_sum": "exact", "attribution_target": "predicted"},
    **{"score_form": "zscore", "ratio": "entropy", "gamma_general": 3.0, "gamma_specific": 2.0, "tau": 30.0},
    **{"general_bounds": [0.3, 0.4], "specific_bounds": [0.3, 0.4], "ties": "include"},
    **{"neurons": "both", "mask_values": "binary"},
}
PRESETS = {
    "released": Preset("the authors' code, whose numbers Tables 1, 2 and 6 to 8 most likely are", RELEASED),
    "paper": Preset(
        "Eq. 2 to 8 and section 3.2.2, as written: raw scores, shares linear in the entropy; the numbers of "
        "scalers and biases cannot be read in Fig. 7, so that they are this package's",
        RELEASED | {"score_form": "raw", "ratio": "linear"},
    ),
    "table-9": Preset(
        "the counts of Table 9: burst ratios of .24 to .28 and masks of 42 to 51% of the neurons cannot come "
        "from the code's bounds [.3, .4] and its ties; bounds [.2, .3] without ties reach them",
        RELEASED | {"general_bounds": [0.2, 0.3], "specific_bounds": [0.2, 0.3], "ties": "exclude"},
    ),
}


@dataclass(kw_only=True)
class NMKEHyperParams(NMKEOptions, ShiftScoreOptions, PathHyperParams):
    """Defaults are those of the authors' released code; options follow the paper where it differs."""

    ALG_NAME: ClassVar[str] = "NMKE"
    PRESETS: ClassVar[dict[str, Preset]] = PRESETS
    OWN_MASK: ClassVar[str] = "nmke"
    OWN_OPTIONS: ClassVar[tuple[type[Options], ...]] = (NMKEOptions, ShiftOptions)
    OPTION_FIELDS: ClassVar[dict[tuple[str, str], str]] = {("random", "density"): "mask_density"}

    mask: str = doc(
        "which neurons may change; the options of nmke are fields of this method, those of other masks are "
        "in mask_options",
        "nmke",
    )
    attribution: Literal["lps", "psa", "mpc"] = doc(
        "score of a neuron; lps: gain in log probability; psa: gain in probability; mpc: |q| |v|, which "
        "does not use the unembedding",
        "lps",
    )
    mask_density: float = doc("with mask random: share of neurons in the mask", 0.5, above=0, most=1)
    layer_selection: Literal["all"] = doc("EasyEdit's field; every layer in layers is edited", "all")
    P_loc: str | None = doc(
        "accepted for EasyEdit's files, not used; the projector is cached below stats_dir", None
    )

    def validate(self) -> None:
        """Check the rules between fields."""
        super().validate()
        require(
            self.mask != "nmke" or self.mask_values == "binary" or self.mask_stage == "post",
            "mask_values",
            "a soft mask cannot restrict the problem; use mask_stage 'post'",
        )
