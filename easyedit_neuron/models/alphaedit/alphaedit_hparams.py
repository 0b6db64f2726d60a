"""Hyperparameters of AlphaEdit, the null-space path."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.options import doc
from ...locate_then_edit.hparams import PathHyperParams


@dataclass(kw_only=True)
class AlphaEditHyperParams(PathHyperParams):
    """AlphaEdit of the built-in host; EasyEdit's own files load unchanged."""

    ALG_NAME: ClassVar[str] = "AlphaEdit"

    path: Literal["alphaedit"] = doc("AlphaEdit solves in the null space of the covariance", "alphaedit")
    layer_selection: Literal["all"] = doc("EasyEdit's field; every layer in layers is edited", "all")
    mom2_adjustment: bool = doc("EasyEdit's field; the covariance is always used on this path", True)
    P_loc: str | None = doc(
        "accepted for EasyEdit's files, not used; the projector is cached below stats_dir", None
    )
