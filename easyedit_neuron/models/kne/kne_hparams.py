"""Hyperparameters of KNE (Knowledge Neuronal Ensemble). No code was released; docs/methods/kne.md lists what
the paper leaves open."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ...hyperparameters.base import NamedProjections
from ...hyperparameters.options import Options, doc, require
from ...hyperparameters.preset import Preset
from ...resources import SHIPPED_DATA, statistics_dir
from ...utils.suggest import did_you_mean


@dataclass(kw_only=True)
class AttributionOptions(Options):
    """How rows (or columns) of a weight are scored; hyperparameters of KNE."""

    neuron_axis: Literal["output", "input"] = doc(
        "output: a neuron is a row of W (paper); input: it is a column (in down_proj an FFN neuron)", "output"
    )
    attribution_steps: int = doc("m, number of points between zero and the weights", 20, least=1, most=1000)
    attribution_rule: Literal["right", "gauss"] = doc(
        "right: the Riemann sum of Eq. 5; gauss: Gauss-Legendre, closer to the integral", "right"
    )
    scaling: Literal["module", "joint", "neuron"] = doc(
        "module: each module is scaled by itself; joint: all target modules are scaled together, which takes "
        "one backward pass per point instead of one per point and module; neuron: each row by itself (Eq. 3 "
        "to 5 to the letter), which takes one per point and row",
        "module",
    )
    token_probability: Literal["token", "prefix"] = doc(
        "what is summed over the answer's tokens; token: the probability of each token given those before "
        "it; prefix: the probability of the answer up to and including the token (Eq. 3 to the letter)",
        "token",
    )
    step_batch: int = doc(
        "points per forward and backward pass, which bounds the memory; halved if memory does not suffice",
        64,
        least=1,
    )


PRESETS = {
    "paper": Preset(
        "Eq. 3 to 11 and section 4.4, of Tables 1 and 2: rows of all layers, 1% of the parameters, located "
        "on 200 of the edits; m, alpha, learning rate and training steps are not given and are the file's",
        {
            **{"layers": [], "target_modules": ["down_proj"], "neuron_axis": "output"},
            **{"locate_on": "target_new", "attribution_rule": "right", "token_probability": "prefix"},
            **{"scaling": "module", "share_of_parameters": 0.01, "p": None},
            **{"localize": "shared", "localization_set_size": 200, "kl_factor": 0.0},
        },
    )
}


@dataclass(kw_only=True)
class KNEHyperParams(AttributionOptions, NamedProjections):
    """A neuron is an output row (or, with ``neuron_axis: input``, a column) of a target module's weight;
    biases are never changed."""

    ALG_NAME: ClassVar[str] = "KNE"
    PRESETS: ClassVar[dict[str, Preset]] = PRESETS

    layers: list[int] = doc(
        "layers whose modules are scored and trained; empty: all layers (paper, Eq. 6)", factory=list, least=0
    )
    target_modules: list[str] = doc(
        "modules that are scored and trained: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or "
        "down_proj; these names hold for every architecture",
        factory=lambda: ["down_proj"],
    )

    # locate
    locate_on: Literal["target_new", "ground_truth"] = doc(
        "answer whose probability is attributed to the neurons: the new object, or the old one", "target_new"
    )

    # choose
    share_of_parameters: float = doc(
        "size of the ensemble, as a share of the model's parameters (paper: about 1%)", 0.01, above=0, most=1
    )
    p: float | None = doc(
        "size of the ensemble, as a share of the scored neurons (Eq. 6); replaces share_of_parameters",
        None,
        above=0,
        most=1,
    )
    localize: Literal["per_edit", "shared"] = doc(
        "per_edit: score the neurons on the edited requests; shared: score them once, on localization data "
        "and the unedited model, and use the mean scores for all edits",
        "per_edit",
    )
    localization_set_size: int = doc(
        "with localize shared: number of requests that are scored, taken from the beginning of the data",
        200,
        least=1,
    )
    localization_data: str | None = doc(
        "with localize shared: a data file or tiny-world whose edits are scored; unset: the requests that a "
        "script gave to localize_shared",
        None,
    )
    stats_dir: str | None = doc("folder where shared scores are cached; unset: the user's cache", None)

    # train
    alpha: float = doc(
        "scale of the update W + alpha / sqrt(n) dW, with n trained neurons in that W (Eq. 11)", 1.0, above=0
    )
    lr: float = doc("Adam's learning rate for dW", 1e-3, above=0)
    num_steps: int = doc("largest number of Adam steps", 150, least=1)
    stop_probability: float | None = doc(
        "stop once exp(-mean NLL) of the new object is at least this for every request; unset: never",
        0.9,
        above=0,
        below=1,
    )
    kl_factor: float = doc("weight of the KL term; 0: no such term (the paper has none)", 0.0, least=0)
    kl_on: Literal["prompt", "neutral"] = doc(
        "where the KL term is computed; prompt: at all tokens of the prompt except its last (as in FiNE); "
        "neutral: at the subject's last token in kl_prompt",
        "prompt",
    )
    kl_prompt: str = doc("with kl_on neutral: template of the prompt", "{} is a")
    kl_direction: Literal["before_after", "after_before"] = doc(
        "KL(before || after) or KL(after || before)", "before_after"
    )
    train_batch_size: int = doc(
        "requests per forward and backward pass; their gradients are summed", 32, least=1
    )

    def validate(self) -> None:
        """Check what no range says."""
        super().validate()
        self.stats_dir = self.stats_dir or str(statistics_dir())
        require(
            len(set(self.layers)) == len(self.layers),
            "layers",
            f"must be different layer numbers, or empty for all layers, got {self.layers}",
        )
        self._check_target_modules()
        require(
            self.kl_prompt.count("{}") == 1 and not {"{", "}"} & set(self.kl_prompt.replace("{}", "")),
            "kl_prompt",
            f"{self.kl_prompt!r} must hold '{{}}' exactly once and no other braces",
        )

    def _check_target_modules(self) -> None:
        # Imported here because it loads torch, which the command's help does without.
        from ...arch.projections import NAMES

        names = (*NAMES, *(self.projections or ()))
        require(
            bool(self.target_modules) and len(set(self.target_modules)) == len(self.target_modules),
            "target_modules",
            f"must name different modules, at least one of {', '.join(names)}",
        )
        for name in self.target_modules:
            require(name in names, "target_modules", f"unknown module {name!r}: {did_you_mean(name, names)}")

    def check_inputs(self) -> None:
        """Check that ``localization_data`` exists if it is used."""
        file = self.localization_data
        if self.localize == "shared" and file is not None and file not in SHIPPED_DATA:
            require(
                Path(file).expanduser().is_file(),
                "localization_data",
                f"no file {file!r}; name a data file, or tiny-world",
            )
