"""The sum over the vocabulary under amplified neurons: ``log sum_v exp(softcap(base_bv + scale_bi (W
columns)_vi))``.

The product ``m = W columns`` is the same for every prompt: each tile of it is made once, used for all prompts
while it is in the cache, and dropped. An entry of a tile costs a prompt one multiply-add, one power of two
and one addition.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LOG2E = math.log2(math.e)  # powers of two, because exp2 is about three times as fast as exp on a CPU
REACH = 40.0
"""As long as neurons move the logits of a tile by at most 2^+-40, its sum may be taken relative to the
largest unperturbed logit.

That sum is at least 2^-40 and at most 2^40 times the vocabulary. float32 holds 2^-126 to 2^127, so what
underflows on the way, within a tile or where tiles of different height are joined, is below 2^-86 before and
2^-46 after division by such a sum, which leaves float32's 2^-24 alone even when 2^18 tokens do it.
"""
CAP = 60.0
"""A soft cap up to here keeps every logit where exp can neither overflow nor vanish, and no reference is
needed."""


@dataclass(frozen=True)
class Chunks:
    """Neurons and tokens handled at once, and numbers in the largest temporary ``[prompts, tokens,
    neurons]``."""

    neurons: int
    tokens: int
    elements: int


# a CPU is fastest while tile and temporary stay in its cache (1 MiB each in float32), a GPU with few large
# kernels (64 MiB)
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
    """``[B, n]`` for B prompts and n neurons, in the dtype of ``columns``: by the fused kernel where it
    works, or plainly.

    Args:
        weight: ``[V, d]`` unembedding W, any floating dtype.
        columns: ``[d, n]`` what the neurons add to the unembedding's input.
        base: ``[B, V]`` unperturbed logits, without soft cap.
        scale: ``[B, n]`` by how much each neuron is moved.
        cap: soft cap c, ``softcap(x) = c tanh(x / c)``; ``None``: the identity.
        tokens, elements: see ``Chunks``; the fused kernel has sizes of its own.
    """
    kernel = fused_kernel(columns.device) if columns.is_cuda and columns.dtype == torch.float32 else None
    if kernel is not None:
        return kernel(weight, columns, base, scale, cap)
    return plain_logsumexp(weight, columns, base, scale, cap, tokens, elements)


@functools.cache
def fused_kernel(device: torch.device) -> Callable[..., Tensor] | None:
    """The kernel of ``fused.py`` if Triton is there and the kernel gives the plain path's numbers on the
    device."""
    try:
        from .fused import fused_logsumexp
    except ImportError:
        return None
    random = torch.Generator().manual_seed(0)
    shapes = (200, 40), (40, 70), (3, 200), (3, 70)
    try:
        given = [torch.randn(*shape, generator=random).to(device) for shape in shapes]
        for cap in (None, 5.0):
            found, known = fused_logsumexp(*given, cap), plain_logsumexp(*given, cap, 64, 1 << 14)
            torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-4)
    except Exception as error:  # whatever a compiler may say: the other way is as right
        log.warning(
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
    reach = scale.abs().amax(0)
    top, total = torch.full_like(scale, float("-inf")), torch.zeros_like(scale)
    prompts, neurons = scale.shape
    group = min(prompts, max(1, elements // (tokens * neurons)))
    tile, work = columns.new_empty(tokens, neurons), columns.new_empty(group, tokens, neurons)
    for start in range(0, len(weight), tokens):
        part, plain = weight[start : start + tokens].to(columns.dtype), base[:, start : start + tokens]
        effect = torch.mm(part, columns, out=tile[: len(part)])
        height = plain.amax(1, keepdim=True) if cap is None else torch.zeros_like(plain[:, :1])
        plain, height = (plain - height) * unit, height * LOG2E
        # not "> REACH": a NaN goes the way that is safe
        bounded = bool((reach * effect.abs().amax(0)).max() <= REACH) if cap is None else cap <= CAP
        sums, highest = torch.empty_like(scale), torch.zeros_like(scale)
        for row in range(0, prompts, group):
            some = slice(row, min(row + group, prompts))
            logits = torch.addcmul(
                plain[some, :, None], scale[some, None], effect, out=work[: some.stop - row, : len(part)]
            )
            if cap is not None:
                logits.tanh_().mul_(cap * LOG2E)
            if not bounded:
                highest[some] = logits.amax(1)
                logits.sub_(highest[some, None])
            torch.sum(logits.exp2_(), 1, out=sums[some])
        highest += height
        new = torch.maximum(top, highest)
        total = total * torch.exp2(top - new) + sums * torch.exp2(highest - new)
        top = new
    return (top + total.log2()) / LOG2E
