"""The numbers inside a normalisation module, whatever its class calls them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ArchitectureError

KINDS = ("rms", "rms_unit_offset", "layer", "layer_unit_offset")
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

    def apply(self, x: Tensor) -> Tensor:
        """The norm of ``x [..., d_model]``."""
        centred = x - x.mean(dim=-1, keepdim=True) if self.centred else x
        normed = self.gain.to(x) * centred / self.scale(x)[..., None]
        return normed if self.bias is None else normed + self.bias.to(x)


def detect_norm(module: nn.Module) -> str:
    """Kind of a norm module by what it computes; used for models described by hand.

    Raises:
        ArchitectureError: it computes none of ``KINDS``.
    """
    weight = _weight_of(module)
    x = torch.cos(torch.arange(1.0, len(weight) + 1, device=weight.device)).to(weight.dtype) + 0.5
    try:
        with torch.no_grad():
            expected = module.forward(x[None])[0].float()  # not called: its hooks are others'
    except (TypeError, ValueError, RuntimeError):
        expected = torch.full_like(x, torch.nan)
    tolerance = 1e-3 if weight.dtype in (torch.float32, torch.float64) else 3e-2
    for kind in KINDS:
        error = (norm_parameters(module, kind).apply(x.float()) - expected).norm()
        if error <= tolerance * expected.norm():
            return kind
    raise ArchitectureError(
        f"cannot tell the kind of a norm from what {type(module).__name__} computes: it is none of "
        f"{', '.join(KINDS)}"
    )


def norm_parameters(module: nn.Module, kind: str) -> NormParameters:
    """Read gain, bias and eps of ``module``.

    Args:
        module: the norm.
        kind: one of ``KINDS`` (see ``Architecture.norm``).

    Raises:
        ArchitectureError: the module has no weight or no recognisable epsilon.
    """
    weight = _weight_of(module)
    eps = next((getattr(module, n) for n in EPS_NAMES if getattr(module, n, None) is not None), None)
    if eps is None:
        raise ArchitectureError(f"norm {type(module).__name__} has none of {', '.join(EPS_NAMES)}")
    gain = 1.0 + weight if kind.endswith("unit_offset") else weight
    centred = kind.startswith("layer")
    bias = getattr(module, "bias", None) if centred else None
    return NormParameters(centred, gain, None if bias is None else bias.detach(), float(eps))


def _weight_of(module: nn.Module) -> Tensor:
    weight = getattr(module, "weight", None)
    if weight is None:
        raise ArchitectureError(f"norm {type(module).__name__} has no weight")
    return weight.detach()
