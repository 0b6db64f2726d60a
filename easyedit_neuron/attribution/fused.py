"""The sum of ``logsumexp.py`` as one Triton kernel: product, perturbation and sum over the vocabulary, no
logit ever written.

It has only ever run in Triton's interpreter (Triton 3.9, ``TRITON_INTERPRET=1``) and been compiled for sm_80
and sm_90: on no GPU has it run, its block sizes are guesses and its speed is unknown. ``logsumexp.py``
    therefore uses it on a device only after it has
given the plain path's numbers there.
"""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

TOKENS, NEURONS, INNER = (
    64,
    64,
    32,
)  # the tile of m, and how much of d_model goes into one step of its product
PROMPTS = 16  # of one program; the product is made again for every further group
PROGRAMS = 512  # wanted at least, to fill a GPU


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
    """One block of neurons, one share of the vocabulary, one group of prompts: maximum and sum are kept in
    registers."""
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
            prompt = tl.minimum(
                tl.program_id(2) * group + b, prompts - 1
            )  # a group may be larger: the last one again
            z = tl.load(base + prompt.to(tl.int64) * base_row + token, mask=is_token, other=0.0)
            a = tl.load(scale + prompt * scale_row + neuron, mask=is_neuron, other=0.0)
            logits = z[:, None] + a[None, :] * effect
            if capped:  # tanh: Triton's language has none
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
    """``[B, n]`` float32; arguments as ``logsumexp.plain_logsumexp`` has them, all but ``weight`` float32, on
    one GPU.

    ``precision`` is that of the product's factors: ``ieee`` is float32, ``tf32`` uses tensor cores and keeps
    10 bits. Memory: the result, once per share of the vocabulary. ``weight`` is read as it is, half precision
    too.
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
