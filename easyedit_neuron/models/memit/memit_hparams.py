"""Hyperparameters of MEMIT, the ridge path."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.options import doc
from ...locate_then_edit.hparams import PathHyperParams


@dataclass(kw_only=True)
class MEMITHyperParams(PathHyperParams):
    """MEMIT of the built-in host; EasyEdit's own files load unchanged."""

    ALG_NAME: ClassVar[str] = "MEMIT"

    path: Literal["memit"] = doc("MEMIT solves a ridge problem weighted by the covariance", "memit")
    L2: float = doc("number added to the diagonal of the system", 0.0, least=0)
    accumulate_keys: bool = doc(
        "true: the update also preserves the facts of earlier edits (not in the original MEMIT)", False
    )
    layer_selection: Literal["all"] = doc("EasyEdit's field; every layer in layers is edited", "all")
    mom2_adjustment: bool = doc("EasyEdit's field; the covariance is always used on this path", True)
