"""Hyperparameters of the gate."""

from dataclasses import dataclass
from typing import ClassVar

from ...hyperparameters.options import doc, require
from ...locate_then_edit.target_hparams import TargetHyperParams


@dataclass(kw_only=True)
class GateHyperParams(TargetHyperParams):
    """A memory beside the model, looked up by cosine, as in GRACE, NeuralDB and MEMOIR, in its plainest form.

    It is what Lasting's neurons are measured against: the same z*, found without a neuron.
    """

    ALG_NAME: ClassVar[str] = "Gate"

    key_layer: int = doc("layer whose keys (inputs of down_proj) are compared", least=0)
    threshold: float = doc("cosine with the nearest stored key above which z* - z is added", 0.75, most=1)

    def validate(self) -> None:
        """Check the rules between fields."""
        super().validate()
        require(len(self.layers) == 1, "layers", f"name one layer, got {self.layers}")
        layer = self.layers[0]
        require(
            self.key_layer <= layer,
            "key_layer",
            f"must not lie behind the layer that is written ({layer}), got {self.key_layer}",
        )

    @property
    def uses_text(self) -> bool:
        """Keys are compared with each other, not with text."""
        return False
