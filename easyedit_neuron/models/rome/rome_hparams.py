"""Hyperparameters of ROME, the path of rank-one updates."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...hyperparameters.options import doc
from ...locate_then_edit.hparams import PathHyperParams


@dataclass(kw_only=True)
class ROMEHyperParams(PathHyperParams):
    """ROME of the built-in host; EasyEdit's own files of ROME and R-ROME load unchanged.

    ``alg_name: R-ROME`` is ROME with ``averaged_keys: true``, and is stored as that.
    """

    ALG_NAME: ClassVar[str] = "ROME"
    ALG_ALIASES: ClassVar[tuple[str, ...]] = ("R-ROME",)

    path: Literal["rome"] = doc("ROME makes rank-one updates", "rome")
    L2: float = doc("number added to the diagonal of C", 0.0, least=0)
    accumulate_keys: Literal[False] = doc(
        "ROME does not preserve earlier edits; MEMIT and AlphaEdit can", False
    )
    enable_prompt_keys: Literal[False] = doc(
        "EasyEdit's field of R-ROME; keys of the bare prompt only are not supported", False
    )
    enable_random_prefix_keys: Literal[True] = doc(
        "EasyEdit's field of R-ROME; here averaged_keys sets it", True
    )
    original_implementation: Literal[False] = doc(
        "EasyEdit's field of R-ROME; averaged_keys: false gives the original ROME", False
    )

    def _check_alg_name(self) -> None:
        if self.alg_name in self.ALG_ALIASES:
            self.averaged_keys = True
        super()._check_alg_name()
