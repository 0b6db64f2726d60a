"""Hyperparameters of FiNE, with the field names of the authors' release; its files load as they are."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.base import ModelHyperParams
from ...hyperparameters.options import doc, require


@dataclass(kw_only=True)
class FiNEHyperParams(ModelHyperParams):
    """Defaults are the released code's; where the paper differs there is an option. ``docs/methods/fine.md``
    lists the differences."""

    ALG_NAME: ClassVar[str] = "FiNE"
    ALG_ALIASES: ClassVar[tuple[str, ...]] = ("FINE",)

    # which neurons
    neuron_num: int = doc("k, neurons per token of the object", 5)
    last_layer: int = doc("l_f, layers at the end that are frozen; 0: none", 3)
    layer: int | None = doc(
        "neurons of this layer alone, frozen or not; unset: of all layers that are not frozen", None
    )
    layer_start: int | None = doc(
        "lowest layer that is searched; unset: 0 (a field that the release does not read)", None
    )
    layer_end: int | None = doc(
        "highest layer that is searched; unset: the last that is not frozen (likewise)", None
    )
    random: bool = doc("neurons drawn at random, as many as would be located (ablation)", False)
    add_random: Literal[False] = doc("the release's field; it does not read it either", False)
    locate_on: Literal["prediction", "ground_truth"] = doc(
        "tokens to which neurons contribute: what the model itself says at each position of the new object (released), "
        "or the old object's tokens (paper)",
        "prediction",
    )
    repeated_neurons: Literal["add", "once"] = doc(
        "a neuron found for several tokens: a vector for each, which add up (released), or one (paper, a set)",
        "add",
    )

    # the vectors
    epochs: int = doc("Adam steps at most", 50)
    lr: float = doc("Adam's learning rate", 1e-3)
    early_stop_prob: float | None = doc(
        "stop once the new object is at least that probable; unset: never", 0.9
    )
    alpha: float = doc("weight of the KL term on the prompt; 0: no such term", 1.0)
    beta: float = doc("weight of the repetition penalty; 0: no such term", 10.0)
    gamma: float = doc("weight of the norm of all vectors together; not in the paper (0)", 0.1)
    edit_loss: Literal["max", "sum"] = doc(
        "NLL of the new object: that of its least likely token (released), or of all of it (paper, Eq. 4); also what stops early",
        "max",
    )
    kl_direction: Literal["before_after", "after_before"] = doc(
        "KL(before || after) (released) or KL(after || before) (paper, Eq. 5)", "before_after"
    )
    penalty_on: Literal["any", "first"] = doc(
        "repetition right behind the object: of its most likely token (released), or of its first (paper, Eq. 6)",
        "any",
    )
    vector_dtype: Literal["float32", "bfloat16"] = doc(
        "of vectors and Adam's state: float32 (float64 for a float64 model), or bfloat16 (released)",
        "float32",
    )
    add_eos: bool = doc("an end-of-text token belongs to the new object", False)
    eos_before_prompt: bool | None = doc(
        "an end-of-text token opens the prompt; unset: for GPT-J alone (released)", None
    )

    train_batch_size: int = doc(
        "requests that are located and trained at once; halved where memory does not suffice", 32
    )
    seed: int = doc("of the random neurons (released: 42, the same neurons for every request)", 42)

    def validate(self) -> None:
        """Ranges, with the field's name in the error."""
        super().validate()
        self.require_positive("neuron_num", "epochs", "lr", "train_batch_size")
        self.require_not_negative("last_layer", "alpha", "beta", "gamma")
        chance = self.early_stop_prob
        require(
            chance is None or 0 < chance < 1,
            "early_stop_prob",
            f"must be between 0 and 1, or null for never, got {chance}",
        )
        bounds = [name for name in ("layer_start", "layer_end") if getattr(self, name) is not None]
        require(
            self.layer is None or not bounds, "layer", f"is a single layer; leave out {' and '.join(bounds)}"
        )
        for name in ("layer", *bounds):
            if getattr(self, name) is not None:
                self.require_not_negative(name)
        require(
            len(bounds) < 2 or self.layer_start <= self.layer_end,
            "layer_end",
            f"must not be below layer_start {self.layer_start}, got {self.layer_end}",
        )

    def searched_layers(self, n_layers: int) -> list[int]:
        """Layers of a model whose neurons may be chosen; ``HparamsError`` where there is none, or one that
        does not exist."""
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
        found = list(range(self.layer_start or 0, end))
        require(
            bool(found),
            "last_layer",
            f"{self.last_layer} of {n_layers} layers are frozen, and no layer is left to "
            f"choose neurons from (layer_start {self.layer_start}, layer_end {self.layer_end})",
        )
        return found
