"""The contract of a mask function.

A mask function takes the scores [B, d_ff] of one layer (B prompts or target tokens, floating point, finite;
see ``attribution``). It returns a boolean tensor [d_ff], or a ``NeuronMask``, on the scores' device. A
function with options is called as ``function(scores, options, layer)``: with an instance of the ``Options``
dataclass that it is registered with, and the number of the layer.

The function is pure: no model, no global state, randomness only from an option ``seed`` (set from the
hyperparameter), and the scores are not changed. Bad scores raise ``MaskError``. ``register_mask`` gives the
function a name and the scores that it is computed from.

The mask multiplies row i of ``W_down^T``, i.e. column i of the down projection's [d_model, d_ff] matrix:
neuron i's value vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import MaskError


@dataclass(frozen=True)
class NeuronMask:
    """The neurons of one layer that may change, and how they were chosen.

    Attributes:
        mask: bool [d_ff], or float32 weights in [0, 1] for a soft mask.
        general, specific: bool [d_ff], the two kinds of neurons; None for masks without kinds.
        general_ratio, specific_ratio: requested shares (the actual ones are higher if scores tie at the
            threshold).
        general_entropy, specific_entropy: normalised entropies H_g, H_s in [0, 1].
        general_threshold, specific_threshold: scores at the cut.
        info: what else the mask reports, as plain JSON values.
    """

    mask: Tensor
    general: Tensor | None = None
    specific: Tensor | None = None
    general_ratio: float | None = None
    specific_ratio: float | None = None
    general_entropy: float | None = None
    specific_entropy: float | None = None
    general_threshold: float | None = None
    specific_threshold: float | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_indices(cls, indices: Tensor, d_ff: int, device: torch.device) -> NeuronMask:
        """The mask of the neurons with these indices."""
        mask = torch.zeros(d_ff, dtype=torch.bool, device=device)
        return cls(mask.index_fill(0, indices.to(device), True))

    @property
    def weight(self) -> Tensor:
        """float32 [d_ff], what the rows of the delta are multiplied by."""
        return self.mask.float()

    @property
    def rows(self) -> Tensor:
        """bool [d_ff], where the weight is not 0."""
        return self.mask != 0

    @property
    def binary(self) -> bool:
        """Whether the mask is a selection; a soft one holds weights."""
        return self.mask.dtype == torch.bool

    @property
    def size(self) -> int:
        """Number of neurons that may change: those with a weight other than 0."""
        return int(self.rows.sum())

    @property
    def density(self) -> float:
        """Share of neurons that may change."""
        return self.size / self.mask.numel()

    @property
    def indices(self) -> Tensor:
        """int64 [size], ascending: the neurons that may change."""
        return self.mask.nonzero().flatten()

    @property
    def full(self) -> bool:
        """Whether the mask changes nothing (every weight is 1)."""
        return bool((self.mask == 1).all())

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of neurons: ``selected``, with kinds also ``general``, ``specific`` and ``overlap``."""
        counts = {"selected": self.size}
        if self.general is not None and self.specific is not None:
            counts["general"] = int(self.general.sum())
            counts["specific"] = int(self.specific.sum())
            counts["overlap"] = int((self.general & self.specific).sum())
        return counts

    def to_json(self) -> dict[str, Any]:
        """Plain numbers for a record: everything but the per-neuron tensors."""
        return {
            "d_ff": self.mask.numel(),
            "density": self.density,
            "mean_weight": float(self.mask.float().mean()),
            "counts": self.counts,
            "ratios": {"general": self.general_ratio, "specific": self.specific_ratio},
            "entropies": {"general": self.general_entropy, "specific": self.specific_entropy},
            "thresholds": {"general": self.general_threshold, "specific": self.specific_threshold},
            **self.info,
        }


MaskFunction = Callable[..., NeuronMask | Tensor]


def checked_scores(scores: Tensor) -> Tensor:
    """Scores [B, d_ff] in float32 or float64; ``MaskError`` unless they are finite and of that form."""
    if not isinstance(scores, Tensor) or scores.dim() != 2 or not scores.is_floating_point():
        got = f"{scores.dtype} {list(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise MaskError(f"scores: expected a floating-point tensor [prompts, d_ff], got {got}")
    if scores.shape[0] < 1 or scores.shape[1] < 1:
        raise MaskError(f"scores: expected at least one prompt and one neuron, got {list(scores.shape)}")
    finite = torch.isfinite(scores)
    if not finite.all():
        prompt = int((~finite).any(dim=1).nonzero()[0])
        raise MaskError(
            f"scores: {int((~finite).sum())} of {scores.numel()} are not finite (first in prompt {prompt}); "
            "the model's activations overflow or its weights are broken"
        )
    return scores.detach() if scores.dtype == torch.float64 else scores.detach().float()


def min_max(values: Tensor) -> Tensor:
    """Values scaled to [0, 1]; all ones where they are all equal."""
    low, high = values.min(), values.max()
    return torch.ones_like(values) if low == high else (values - low) / (high - low)
