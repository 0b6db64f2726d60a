"""Uncentred second moment of a layer's keys, for all edited layers in one pass."""

import torch

from ..arch.capture import Capture
from ..arch.view import ModelView
from ..tokens import pad, token_ids

TOKENS_PER_BATCH = 8192


def pieces(tok, texts: list[str], max_length: int) -> list[list[int]]:
    """Token ids of the texts, long ones cut into pieces of at most ``max_length``, empty ones left out."""
    rows = []
    for text in texts:
        ids = token_ids(tok, text)
        rows += [ids[start:start + max_length] for start in range(0, len(ids), max_length)]
    return [row for row in rows if row]


def batched_by_tokens(rows: list[list[int]], tokens: int) -> list[list[list[int]]]:
    """Rows sorted by length and grouped so that a padded group has at most ``tokens`` tokens (at least one row)."""
    groups, current = [], []
    for row in sorted(rows, key=len):
        if current and len(row) * (len(current) + 1) > tokens:
            groups.append(current)
            current = []
        current.append(row)
    return groups + [current] if current else groups


@torch.no_grad()
def covariances(view: ModelView, tok, texts: list[str], layers: list[int], max_length: int = 256,
                dtype: torch.dtype = torch.float32, tokens_per_batch: int = TOKENS_PER_BATCH) -> dict[int, torch.Tensor]:
    """``C_l = 1/N sum_t k_t k_t^T`` over all N real tokens of the texts, k = input of down_proj of layer l.

    The forward ends after the last of the layers. Padding never counts.

    Args:
        view, tok: model and tokenizer.
        texts: plain text.
        layers: layers to measure, together.
        max_length: longest piece in tokens.
        dtype: dtype of the sums.

    Returns:
        layer -> [d_ff, d_ff], on the device of the layer's weight.
    """
    sums = {l: torch.zeros(view.d_ff, view.d_ff, dtype=dtype, device=view.device_of(l)) for l in layers}
    count = 0
    for group in batched_by_tokens(pieces(tok, texts, max_length), tokens_per_batch):
        batch = pad(group, view.input_device)
        with Capture(view, layers, want=("key",), stop_after=max(layers)) as seen:
            view.model(**batch.inputs, use_cache=False)
        real = batch.attention_mask.bool()
        count += int(real.sum())
        for l in layers:
            keys = seen.key[l][real.to(seen.key[l].device)].to(dtype)
            sums[l].addmm_(keys.T, keys)
    return {l: matrix / count for l, matrix in sums.items()}
