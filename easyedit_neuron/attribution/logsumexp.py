"""The sum over the vocabulary under amplified neurons.

    out_bi = log sum_v exp(softcap(base_bv + scale_bi (W columns)_vi))

The product ``m = W columns`` is the same for every prompt. Each tile of it is computed once, used for all
prompts while it is in the cache, and dropped. An entry of a tile costs a prompt one multiply-add, one power
of two and one addition.
"""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)

LOG2E = math.log2(math.e)  # powers of two, because exp2 is about three times as fast as exp on a CPU
REACH = 40.0
"""A tile's sum may be taken relative to the largest unperturbed logit if neurons move its logits by at most
2^+-40.

Such a sum lies between 2^-40 and 2^40 times the vocabulary, and float32 between 2^-126 and 2^127. What
underflows within a tile, or where tiles of different height are joined, is below 2^-86. After division by the
sum it is below 2^-46, far from float32's 2^-24 even if it happens for 2^18 tokens.
"""
CAP = 60.0
"""Up to this soft cap exp can neither overflow nor vanish, and no reference logit is subtracted."""


@dataclass(frozen=True)
class Chunks:
    """Sizes of what is handled at once.

    Attributes:
        neurons, tokens: of a tile.
        elements: numbers in the largest temporary ``[prompts, tokens, neurons]``.
    """

    neurons: int
    tokens: int
    elements: int


# A CPU is fastest while tile and temporary stay in its cache (1 MiB each in float32), a GPU with few large
# kernels (64 MiB).
CPU_CHUNKS = Chunks(512, 512, 1 << 18)
GPU_CHUNKS = Chunks(1024, 4096, 1 << 24)


def perturbed_logsumexp(
    weight: Tensor,
    columns: Tensor,
    base: Tensor,
    scale: Tensor,
    cap: float | None,
    tokens: int,
    elements: int,
) -> Tensor:
    """Log-sum-exp ``[B, n]`` for B prompts and n neurons, by the fused kernel where it works.

    Args:
        weight: ``[V, d]`` unembedding W, any floating dtype.
        columns: ``[d, n]`` what the neurons add to the unembedding's input.
        base: ``[B, V]`` unperturbed logits before the soft cap.
        scale: ``[B, n]`` factor by which each neuron is moved.
        cap: c of the soft cap ``c tanh(x / c)``, or ``None``.
        tokens, elements: see ``Chunks``; the fused kernel has sizes of its own.

    Returns:
        ``[B, n]`` in the dtype of ``columns``.
    """
    kernel = fused_kernel(columns.device) if columns.is_cuda and columns.dtype == torch.float32 else None
    if kernel is not None:
        return kernel(weight, columns, base, scale, cap)
    return plain_logsumexp(weight, columns, base, scale, cap, tokens, elements)


@functools.cache
def fused_kernel(device: torch.device) -> Callable[..., Tensor] | None:
    """The kernel of ``fused.py``, or ``None`` without Triton or if its numbers on the device are wrong."""
    try:
        from .fused import fused_logsumexp
    except ImportError:
        return None
    random = torch.Generator().manual_seed(0)
    shapes = (200, 40), (40, 70), (3, 200), (3, 70)
    try:
        inputs = [torch.randn(*shape, generator=random).to(device) for shape in shapes]
        for cap in (None, 5.0):
            expected = plain_logsumexp(*inputs, cap, 64, 1 << 14)
            torch.testing.assert_close(fused_logsumexp(*inputs, cap), expected, rtol=1e-4, atol=1e-4)
    except Exception as error:  # a compiler may raise anything, and the plain sum is as right
        LOG.warning(
            "the fused kernel of the attribution does not work on %s, going on without it: %s", device, error
        )
        return None
    return fused_logsumexp


def plain_logsumexp(
    weight: Tensor,
    columns: Tensor,
    base: Tensor,
    scale: Tensor,
    cap: float | None,
    tokens: int,
    elements: int,
) -> Tensor:
    """``perturbed_logsumexp`` in PyTorch; arguments and result as there."""
    unit = LOG2E if cap is None else 1.0 / cap
    scale = scale * unit
    largest_scale = scale.abs().amax(0)
    # The sum so far is 2^top * total.
    top, total = torch.full_like(scale, float("-inf")), torch.zeros_like(scale)
    prompts, neurons = scale.shape
    group = min(prompts, max(1, elements // (tokens * neurons)))
    tile, work = columns.new_empty(tokens, neurons), columns.new_empty(group, tokens, neurons)
    for start in range(0, len(weight), tokens):
        # Effect of each neuron on this tile's tokens, the same for all prompts.
        part, logits = weight[start : start + tokens].to(columns.dtype), base[:, start : start + tokens]
        effect = torch.mm(part, columns, out=tile[: len(part)])
        height = logits.amax(1, keepdim=True) if cap is None else torch.zeros_like(logits[:, :1])
        logits, height = (logits - height) * unit, height * LOG2E
        # Written as "<=" so that NaN takes the safe way.
        bounded = bool((largest_scale * effect.abs().amax(0)).max() <= REACH) if cap is None else cap <= CAP
        sums, highest = torch.empty_like(scale), torch.zeros_like(scale)
        for row in range(0, prompts, group):
            rows = slice(row, min(row + group, prompts))
            moved = torch.addcmul(
                logits[rows, :, None], scale[rows, None], effect, out=work[: rows.stop - row, : len(part)]
            )
            if cap is not None:
                moved.tanh_().mul_(cap * LOG2E)
            if not bounded:
                highest[rows] = moved.amax(1)
                moved.sub_(highest[rows, None])
            torch.sum(moved.exp2_(), 1, out=sums[rows])
        # Join the tile's sum to that of the earlier tiles.
        highest += height
        new_top = torch.maximum(top, highest)
        total = total * torch.exp2(top - new_top) + sums * torch.exp2(highest - new_top)
        top = new_top
    return (top + total.log2()) / LOG2E
