"""Hyperparameters of NMKE (Neuron-specific Masked Knowledge Editing): AlphaEdit's, and the neuron mask's."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...errors import HparamsError
from ...hyperparameters.model import doc
from ...locate_then_edit.own_mask import OwnMaskHyperParams

NMKE_OPTIONS = (
    "attribution",
    "amplify",
    "attribution_target",
    "reference_quirks",
    "score_form",
    "ratio",
    "general_bounds",
    "specific_bounds",
    "gamma_general",
    "gamma_specific",
    "tau",
    "general_scaler",
    "general_bias",
    "specific_scaler",
    "specific_bias",
    "general_ratio",
    "specific_ratio",
    "ties",
    "neurons",
    "mask_values",
)
"""Fields that are options of mask ``nmke`` and its scores."""


@dataclass(kw_only=True)
class NMKEHyperParams(OwnMaskHyperParams):
    """Every option of the method; the defaults are those of the authors' released code, the paper's forms are
    options."""

    ALG_NAME: ClassVar[str] = "NMKE"
    OWN_MASK: ClassVar[str] = "nmke"
    OWN_OPTIONS: ClassVar[dict[str, dict[str, str]]] = {
        "nmke": {name: name for name in NMKE_OPTIONS},
        "random": {"density": "mask_density"},
    }

    mask: str = doc(
        "which neurons may change; the fields below are the options of nmke, other masks have theirs in mask_options",
        "nmke",
    )
    attribution: Literal["lps", "psa", "mpc"] = doc(
        "lps: gain in log probability; psa: gain in probability; mpc: |q| |v|, no unembedding", "lps"
    )
    amplify: float = doc("A, factor of the perturbation q v (released: 30)", 30.0)
    attribution_target: Literal["predicted", "target_new", "ground_truth"] = doc(
        "token whose probability is scored: the model's own next token (released), or the first token of the new or old object",
        "predicted",
    )
    reference_quirks: bool = doc(
        "repeat the released code's deviations (no LayerNorm bias on GPT-2, its epsilons)", False
    )

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
        "neurons whose score equals the threshold (released: include)", "include"
    )
    neurons: Literal["both", "general", "specific", "overlap", "non_overlap"] = doc(
        "which of the two kinds (Fig. 6)", "both"
    )
    mask_values: Literal["binary", "soft"] = doc(
        "binary: 0/1; soft: every neuron of the layer is scaled by its normalised score, without a selection (paper, Table 4)",
        "binary",
    )
    mask_density: float = doc("share of neurons of mask: random", 0.5)
    layer_selection: Literal["all"] = doc("EasyEdit's field; every layer of 'layers' is edited", "all")
    P_loc: str | None = doc("EasyEdit's field; not read, the projector is cached below stats_dir", None)

    def validate(self) -> None:
        """Ranges of the mask's options, after those of the path."""
        super().validate()
        for name in ("general_bounds", "specific_bounds"):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= 1:
                raise HparamsError(f"field '{name}': must be [lo, hi] with 0 < lo <= hi <= 1, got {value}")
        if self.ratio == "fixed":
            for name in ("general_ratio", "specific_ratio"):
                value = getattr(self, name)
                if value is None or not 0 < value <= 1:
                    raise HparamsError(f"field '{name}': ratio 'fixed' needs a share in (0, 1], got {value}")
        if self.mask == "random" and not 0 < self.mask_density <= 1:
            raise HparamsError(f"field 'mask_density': must be in (0, 1], got {self.mask_density}")
        if self.mask == "nmke" and self.mask_values == "soft" and self.mask_stage == "solve":
            raise HparamsError(
                "field 'mask_values': a soft mask cannot restrict the problem; use mask_stage 'post'"
            )
        if self.amplify <= 0 or self.tau <= 0:
            raise HparamsError("field 'amplify' / 'tau': must be greater than 0")
