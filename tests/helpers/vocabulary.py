"""Inputs for the log-sum-exp over the vocabulary, and its plain computation with all logits in memory."""

import torch


def drawn(tokens, inner, neurons, prompts, dtype=torch.float32, size=1.0, seed=0):
    """Random ``(weight [V, d] in ``dtype``, columns [d, n], base [B, V], scale [B, n])``.

    The neurons change logits by about ``size``.
    """
    random = torch.Generator().manual_seed(seed)
    compute_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = (tokens, inner), (inner, neurons), (prompts, tokens), (prompts, neurons)
    weight, columns, base, scale = (
        torch.randn(*shape, generator=random, dtype=compute_dtype) for shape in shapes
    )
    return weight.to(dtype), columns, 3 * base, scale * size / inner**0.5


def written_out(weight, columns, base, scale, cap=None):
    """``log sum_v exp(softcap(base_bv + scale_bi m_vi))`` in float64."""
    weight, columns, base, scale = (tensor.double() for tensor in (weight, columns, base, scale))
    logits = base[:, :, None] + scale[:, None, :] * (weight @ columns)
    return (logits if cap is None else cap * torch.tanh(logits / cap)).logsumexp(1)
