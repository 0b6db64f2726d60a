"""The numbers inside a normalisation module, whatever its class calls them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ArchitectureError


@dataclass(frozen=True)
class NormParameters:
    """A norm written as ``gain * (x - centre(x)) / scale(x) + bias``.

    Attributes:
        centred: True for LayerNorm (the mean is taken off), False for RMSNorm.
        gain: ``[d_model]`` (``1 + weight`` where the module is written that way).
        bias: ``[d_model]`` or ``None``.
        eps: added to the variance (or mean square) under the root.
    """

    centred: bool
    gain: Tensor
    bias: Tensor | None
    eps: float

    def scale(self, x: Tensor) -> Tensor:
        """Denominator of the norm at ``x [..., d_model]``: ``sqrt(var + eps)`` or ``sqrt(mean square +
        eps)``, ``[...]``."""
        if self.centred:
            return torch.sqrt(x.var(dim=-1, unbiased=False) + self.eps)
        return torch.sqrt(x.pow(2).mean(dim=-1) + self.eps)


def detect_norm(module: nn.Module) -> str:
    """Kind of a norm module by its class; used for models described by hand.

    Raises:
        ArchitectureError: the class says neither LayerNorm nor RMSNorm.
    """
    if isinstance(module, nn.LayerNorm):
        return "layer"
    name = type(module).__name__.lower()
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
    for name in ("variance_epsilon", "eps", "epsilon"):
        eps = getattr(module, name, None)
        if eps is not None:
            break
    else:
        raise ArchitectureError(f"norm {type(module).__name__} has none of variance_epsilon, eps, epsilon")
    weight = weight.detach()
    gain = 1.0 + weight if kind == "rms_unit_offset" else weight
    bias = getattr(module, "bias", None) if kind == "layer" else None
    return NormParameters(kind == "layer", gain, None if bias is None else bias.detach(), float(eps))
