"""Hyperparameters of FiNE, with the field names of the authors' release; its files load as they are."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...hyperparameters.base import ModelHyperParams
from ...hyperparameters.options import SEED, doc, require
from ...hyperparameters.preset import Preset

_BOTH: dict[str, Any] = {
    **{"neuron_num": 5, "last_layer": 3, "random": False, "layer": None},
    **{"epochs": 50, "early_stop_prob": 0.9, "alpha": 1.0, "beta": 10.0},
}
PRESETS = {
    "paper": Preset(
        "Eq. 1 to 6 and appendix C, of Table 1; the learning rates, 1e-3 for GPT-J and LLaMA-3 and 5e-3 for "
        "LLaMA-2, are the files'",
        {
            **_BOTH,
            **{"locate_on": "ground_truth", "repeated_neurons": "once", "edit_loss": "sum", "gamma": 0.0},
            **{"kl_direction": "after_before", "penalty_on": "first", "vector_dtype": "float32"},
        },
    ),
    "released": Preset(
        "the authors' code",
        {
            **_BOTH,
            **{"locate_on": "prediction", "repeated_neurons": "add", "edit_loss": "max", "gamma": 0.1},
            **{"kl_direction": "before_after", "penalty_on": "any", "vector_dtype": "bfloat16"},
        },
    ),
}


@dataclass(kw_only=True)
class FiNEHyperParams(ModelHyperParams):
    """Defaults are the released code's; where the paper differs, an option follows it. The differences are
    listed in ``docs/methods/fine.md``."""

    ALG_NAME: ClassVar[str] = "FiNE"
    PRESETS: ClassVar[dict[str, Preset]] = PRESETS
    ALG_ALIASES: ClassVar[tuple[str, ...]] = ("FINE",)

    # which neurons
    neuron_num: int = doc("k, number of neurons per token of the object", 5, least=1)
    last_layer: int = doc("l_f, number of layers at the end that are not edited; 0: none", 3, least=0)
    layer: int | None = doc(
        "edit neurons of this layer only, even if it is one of the last ones; unset: of all layers that "
        "last_layer leaves",
        None,
        least=0,
    )
    layer_start: int | None = doc(
        "lowest layer that is searched for neurons; unset: 0 (the release has the field but ignores it)",
        None,
        least=0,
    )
    layer_end: int | None = doc(
        "highest layer that is searched for neurons; unset: the last one that last_layer leaves (the release "
        "has the field but ignores it)",
        None,
        least=0,
    )
    random: bool = doc("draw the neurons at random, as many as would be located (ablation)", False)
    add_random: Literal[False] = doc(
        "accepted for the release's files; not used, neither here nor by the release", False
    )
    locate_on: Literal["prediction", "ground_truth"] = doc(
        "tokens for which contributions are computed; prediction: the model's own prediction at each "
        "position of the new object (released); ground_truth: the tokens of the old object (paper)",
        "prediction",
    )
    repeated_neurons: Literal["add", "once"] = doc(
        "a neuron located for several tokens; add: it gets a vector for each of them, and these are added "
        "(released); once: it gets a single vector (paper)",
        "add",
    )

    # the vectors
    epochs: int = doc("largest number of Adam steps", 50, least=1)
    lr: float = doc("Adam's learning rate", 1e-3, above=0)
    early_stop_prob: float | None = doc(
        "stop once the new object has at least this probability; unset: never", 0.9, above=0, below=1
    )
    alpha: float = doc("weight of the KL term on the prompt; 0: no such term", 1.0, least=0)
    beta: float = doc("weight of the repetition penalty; 0: no such term", 10.0, least=0)
    gamma: float = doc(
        "weight of the norm of all vectors together; the paper has no such term (0)", 0.1, least=0
    )
    edit_loss: Literal["max", "sum"] = doc(
        "NLL of the new object; max: of its least likely token (released); sum: of all its tokens (paper, "
        "Eq. 4); the early stop uses the same value",
        "max",
    )
    kl_direction: Literal["before_after", "after_before"] = doc(
        "KL(before || after) (released) or KL(after || before) (paper, Eq. 5)", "before_after"
    )
    penalty_on: Literal["any", "first"] = doc(
        "repetition right after the object that is penalised; any: of the object's most likely token "
        "(released); first: of its first token (paper, Eq. 6)",
        "any",
    )
    vector_dtype: Literal["float32", "bfloat16"] = doc(
        "dtype of the vectors and of Adam's state; float32 becomes float64 for a float64 model; the release "
        "uses bfloat16",
        "float32",
    )
    add_eos: bool = doc("append an end-of-text token to the new object", False)
    eos_before_prompt: bool | None = doc(
        "put an end-of-text token before the prompt; unset: only for GPT-J (released)", None
    )

    train_batch_size: int = doc(
        "requests that are located and trained together; halved if memory does not suffice", 32, least=1
    )
    seed: int = doc(
        "seed of the random neurons (released: 42, which draws the same neurons for every request)",
        42,
        **SEED,
    )

    def validate(self) -> None:
        """Check the rules between fields."""
        super().validate()
        bounds = [name for name in ("layer_start", "layer_end") if getattr(self, name) is not None]
        require(
            self.layer is None or not bounds, "layer", f"is a single layer; leave out {' and '.join(bounds)}"
        )
        require(
            len(bounds) < 2 or self.layer_start <= self.layer_end,
            "layer_end",
            f"must not be below layer_start {self.layer_start}, got {self.layer_end}",
        )

    def searched_layers(self, n_layers: int) -> list[int]:
        """Layers of a model whose neurons may be chosen; ``HparamsError`` if there are none, or if a given
        layer does not exist."""
        for name in ("layer", "layer_start", "layer_end"):
            value = getattr(self, name)
            require(
                value is None or value < n_layers,
                name,
                f"the model has layers 0 to {n_layers - 1}, got {value}",
            )
        if self.layer is not None:
            return [self.layer]
        end = n_layers - self.last_layer
        if self.layer_end is not None:
            end = min(end, self.layer_end + 1)
        layers = list(range(self.layer_start or 0, end))
        require(
            bool(layers),
            "last_layer",
            f"the last {self.last_layer} of {n_layers} layers are left out, and no layer is left to choose "
            f"neurons from (layer_start {self.layer_start}, layer_end {self.layer_end})",
        )
        return layers
