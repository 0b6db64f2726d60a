"""Masks of the neurons with the highest scores: FiNE's selection, and a share of the best."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import MaskError
from .contract import NeuronMask, check_share, mask_function

FINE_TOP_K = 5
PNKE_TOP_SHARE = 0.1


@mask_function
def top_k_mask(
    scores: Tensor, *, layer: int | None = None, top_k: int | None = None, top_share: float | None = None
) -> NeuronMask:
    """The best neurons of each row, the rows' sets united (FiNE, algorithm 1); 5 per row unless told.

    FiNE ranks the neurons of all layers together; a mask function sees one layer, so that here every edited
    layer gives its own ``top_k``.

    Args:
        scores: ``[B, d_ff]``, one row per token or prompt; higher is better.
        layer: not used.
        top_k: neurons per row, at least 1.
        top_share: instead of ``top_k``: share of the neurons per row, in (0, 1]; rounded, at least one
            neuron.

    Raises:
        MaskError: both given, or one out of range.
    """
    return _union_of_best(scores, top_k, top_share, {"top_k": FINE_TOP_K})


@mask_function
def top_share_mask(
    scores: Tensor, *, layer: int | None = None, top_k: int | None = None, top_share: float | None = None
) -> NeuronMask:
    """As ``top_k_mask``, but a tenth of the neurons of each row unless told (those above PNKE's 90th
    percentile)."""
    return _union_of_best(scores, top_k, top_share, {"top_share": PNKE_TOP_SHARE})


def _union_of_best(scores: Tensor, top_k, top_share, default: dict) -> NeuronMask:
    if top_k is not None and top_share is not None:
        raise MaskError(f"top_k, top_share: give one of them, got {top_k!r} and {top_share!r}")
    if top_k is None and top_share is None:
        top_k, top_share = default.get("top_k"), default.get("top_share")
    size = scores.shape[1]
    if top_share is not None:
        count = max(1, round(check_share("top_share", top_share) * size))
    elif isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= size:
        raise MaskError(
            f"top_k: expected an integer between 1 and the {size} neurons of the layer, got {top_k!r}"
        )
    else:
        count = top_k
    # a stable sort: of equal scores the neuron with the lower number comes first, on every device
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :count].flatten()
    return NeuronMask(torch.zeros(size, dtype=torch.bool, device=scores.device).index_fill(0, best, True))
