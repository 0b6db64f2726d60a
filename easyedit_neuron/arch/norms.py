"""The numbers inside a normalisation module, whatever its class calls them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ArchitectureError

EPS_NAMES = ("variance_epsilon", "eps", "epsilon")


@dataclass(frozen=True)
class NormParameters:
    """A norm written as ``gain * (x - centre(x)) / scale(x) + bias``.

    Attributes:
        centred: True for LayerNorm (subtracts the mean), False for RMSNorm.
        gain: ``[d_model]``; ``1 + weight`` for norms that are written that way.
        bias: ``[d_model]`` or ``None``.
        eps: added to the variance (or mean square) under the root.
    """

    centred: bool
    gain: Tensor
    bias: Tensor | None
    eps: float

    def scale(self, x: Tensor) -> Tensor:
        """Denominator ``[...]`` at ``x [..., d_model]``: ``sqrt(variance or mean square + eps)``."""
        if self.centred:
            return torch.sqrt(x.var(dim=-1, unbiased=False) + self.eps)
        return torch.sqrt(x.pow(2).mean(dim=-1) + self.eps)


def detect_norm(module: nn.Module) -> str:
    """Kind of a norm module by its class; used for models described by hand.

    Raises:
        ArchitectureError: the class is neither a LayerNorm nor an RMSNorm.
    """
    name = type(module).__name__.lower()
    if isinstance(module, nn.LayerNorm):
        return "layer"
    if "rmsnorm" in name:
        return "rms"
    if "layernorm" in name:
        return "layer"
    raise ArchitectureError(
        f"cannot tell the kind of the final norm from its class {type(module).__name__}; "
        'set norm="rms", "rms_unit_offset" or "layer"'
    )


def norm_parameters(module: nn.Module, kind: str) -> NormParameters:
    """Read gain, bias and eps of ``module``.

    Args:
        module: the norm.
        kind: ``rms``, ``rms_unit_offset`` or ``layer`` (see ``Architecture.norm``).

    Raises:
        ArchitectureError: the module has no weight or no recognisable epsilon.
    """
    weight = getattr(module, "weight", None)
    if weight is None:
        raise ArchitectureError(f"norm {type(module).__name__} has no weight")
    eps = next((getattr(module, n) for n in EPS_NAMES if getattr(module, n, None) is not None), None)
    if eps is None:
        raise ArchitectureError(f"norm {type(module).__name__} has none of {', '.join(EPS_NAMES)}")
    weight = weight.detach()
    gain = 1.0 + weight if kind == "rms_unit_offset" else weight
    bias = getattr(module, "bias", None) if kind == "layer" else None
    return NormParameters(kind == "layer", gain, None if bias is None else bias.detach(), float(eps))
