"""How far the distribution of the first answered token has moved from the untouched model's."""

from collections.abc import Sequence

import torch

from ..arch.tokens import text_ids
from .batching import by_length, evaluating, input_device, logits_at, right_pad

LIKELIEST = 64

FirstTokens = list[tuple[list[int], list[float]]]
"""Of each prompt, the ids of the ``LIKELIEST`` next tokens and their natural log probabilities."""


def first_tokens(model, tok, prompts: Sequence[str], batch_size: int = 64) -> FirstTokens:
    """The likeliest next tokens of every prompt; take them on the untouched model."""
    result: FirstTokens = []
    for logs in _log_probabilities(model, tok, prompts, batch_size):
        values, ids = logs.topk(min(LIKELIEST, len(logs)))
        result.append((ids.tolist(), values.tolist()))
    return result


def first_token_divergence(
    model, tok, prompts: Sequence[str], before: FirstTokens, batch_size: int = 64
) -> list[float]:
    """KL(before || now) of the next token, in nats, one value per prompt.

    All tokens but the likeliest before are one class, so that it is at most the divergence over the whole
    vocabulary: ``sum_top p0 (log p0 - log p) + r0 (log r0 - log r)`` with r the rest's probability.
    """
    divergences = []
    for logs, (ids, values) in zip(_log_probabilities(model, tok, prompts, batch_size), before, strict=True):
        log_p0, log_p = torch.tensor(values, dtype=torch.float64), logs.double()[ids]
        inside = (log_p0.exp() * (log_p0 - log_p)).sum()
        rest0, rest = ((1 - logs.exp().sum()).clamp_min(1e-12) for logs in (log_p0, log_p))
        divergences.append(max(0.0, float(inside + rest0 * (rest0 / rest).log())))
    return divergences


def _log_probabilities(model, tok, prompts: Sequence[str], batch_size: int) -> list[torch.Tensor]:
    """Of each prompt, the log probabilities of the next token, [V] float32 on the CPU."""
    rows = text_ids(tok, prompts)
    result: dict[int, torch.Tensor] = {}
    with evaluating(model):
        for batch in by_length([len(row) for row in rows], batch_size):
            inputs = right_pad([rows[i] for i in batch], input_device(model))
            logits = logits_at(model, inputs, range(len(batch)), [len(rows[i]) - 1 for i in batch])
            for i, line in zip(batch, logits):
                result[i] = line.float().log_softmax(-1).cpu()
    return [result[i] for i in range(len(rows))]
