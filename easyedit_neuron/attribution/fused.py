"""The sum of ``logsumexp.py`` as one Triton kernel, which writes no logit to memory.

It has run in Triton's interpreter (Triton 3.9, ``TRITON_INTERPRET=1``) and was compiled for sm_80 and sm_90,
but never ran on a GPU: its block sizes are guesses and its speed is unknown. ``logsumexp.py`` uses it on a
device only after it has reproduced the plain sum there.
"""

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

TOKENS, NEURONS = 64, 64  # tile of m
INNER = 32  # part of d_model in one step of the tile's product
PROMPTS = 16  # per program; every further group computes the product again
PROGRAMS = 512  # at least so many, to fill a GPU


@triton.jit
def _kernel(
    weight,
    columns,
    base,
    scale,
    out,
    vocabulary,
    inner,
    neurons,
    prompts,
    share,
    cap,
    weight_row,
    columns_row,
    base_row,
    scale_row,
    capped: tl.constexpr,
    precision: tl.constexpr,
    group: tl.constexpr,
    tokens_block: tl.constexpr,
    neurons_block: tl.constexpr,
    inner_block: tl.constexpr,
):
    """A block of neurons, a share of the vocabulary, a group of prompts; maximum and sum in registers."""
    neuron = tl.program_id(0) * neurons_block + tl.arange(0, neurons_block)
    is_neuron = neuron < neurons
    first, end = tl.program_id(1) * share, tl.minimum((tl.program_id(1) + 1) * share, vocabulary)
    row = tl.arange(0, group)[:, None]
    top = tl.full([group, neurons_block], float("-inf"), tl.float32)
    total = tl.zeros([group, neurons_block], tl.float32)
    for start in range(first, end, tokens_block):
        token = start + tl.arange(0, tokens_block)
        is_token = token < end
        effect = tl.zeros([tokens_block, neurons_block], tl.float32)
        for step in range(0, inner, inner_block):
            k = step + tl.arange(0, inner_block)
            u = tl.load(
                weight + token[:, None].to(tl.int64) * weight_row + k[None, :],
                mask=is_token[:, None] & (k < inner)[None, :],
                other=0.0,
            ).to(tl.float32)
            v = tl.load(
                columns + k[:, None].to(tl.int64) * columns_row + neuron[None, :],
                mask=(k < inner)[:, None] & is_neuron[None, :],
                other=0.0,
            )
            effect = tl.dot(u, v, effect, input_precision=precision)
        tile_top, tile_total = tl.zeros_like(top), tl.zeros_like(total)
        for b in range(group):
            # A group may be larger than the prompts left: the last prompt is computed again.
            prompt = tl.minimum(tl.program_id(2) * group + b, prompts - 1)
            z = tl.load(base + prompt.to(tl.int64) * base_row + token, mask=is_token, other=0.0)
            a = tl.load(scale + prompt * scale_row + neuron, mask=is_neuron, other=0.0)
            logits = z[:, None] + a[None, :] * effect
            if capped:  # tanh, which Triton's language does not have
                logits = cap - 2.0 * cap / (tl.exp(2.0 / cap * logits) + 1.0)
            logits = tl.where(is_token[:, None], logits, float("-inf"))
            highest = tl.max(logits, 0)
            tile_top = tl.where(row == b, highest[None, :], tile_top)
            tile_total = tl.where(row == b, tl.sum(tl.exp(logits - highest[None, :]), 0)[None, :], tile_total)
        new = tl.maximum(top, tile_top)
        total = total * tl.exp(top - new) + tile_total * tl.exp(tile_top - new)
        top = new
    prompt = tl.program_id(2) * group + row
    tl.store(
        out + (tl.program_id(1) * prompts + prompt) * neurons + neuron[None, :],
        top + tl.log(total),
        mask=(prompt < prompts) & is_neuron[None, :],
    )


def fused_logsumexp(
    weight: Tensor,
    columns: Tensor,
    base: Tensor,
    scale: Tensor,
    cap: float | None,
    precision: Literal["ieee", "tf32"] = "ieee",
) -> Tensor:
    """The sum ``[B, n]`` float32 on one GPU; it needs the memory of the result per share of the vocabulary.

    Args:
        weight, columns, base, scale, cap: as in ``logsumexp.perturbed_logsumexp``, all float32 but
            ``weight``, which may be in half precision.
        precision: of the product's factors. ``ieee`` (default): float32; ``tf32``: tensor cores, 10 bits.
    """
    weight, columns, base, scale = (
        x if x.stride(1) == 1 else x.contiguous() for x in (weight, columns, base, scale)
    )
    (vocabulary, inner), (prompts, neurons) = weight.shape, scale.shape
    group = min(PROMPTS, triton.next_power_of_2(prompts))
    blocks, groups = triton.cdiv(neurons, NEURONS), triton.cdiv(prompts, group)
    tiles = triton.cdiv(vocabulary, TOKENS)
    share = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS, blocks * groups))) * TOKENS
    out = columns.new_empty(triton.cdiv(vocabulary, share), prompts, neurons)
    with torch.cuda.device_of(columns):  # Triton launches on the current device
        _kernel[(blocks, len(out), groups)](
            weight,
            columns,
            base,
            scale,
            out,
            vocabulary,
            inner,
            neurons,
            prompts,
            share,
            cap or 0.0,
            weight.stride(0),
            columns.stride(0),
            base.stride(0),
            scale.stride(0),
            capped=cap is not None,
            precision=precision,
            group=group,
            tokens_block=TOKENS,
            neurons_block=NEURONS,
            inner_block=INNER,
        )
    return out.logsumexp(0)
