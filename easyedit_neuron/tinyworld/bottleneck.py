"""Attention masks that make the subject's last token the place where the model looks a subject's facts up.

Large models do so, and ROME rests on it. A small model has no reason to: its last position reads first name
and surname from their own tokens. The key at the surname's token then belongs to the whole family, and so
does an edit. Under the masks what follows a subject sees only the subject's last token, and that only from
layer ``enrich`` on: the first ``enrich`` layers must assemble there who is meant.
"""

from contextlib import contextmanager

import torch


def bottleneck_masks(
    ids: torch.Tensor, spans: list[list[tuple[int, int]]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention masks of the lower and the upper layers: bool [B, 1, T, T], True where a query may see a key.

    Both are causal and hide a subject's tokens but the last from what follows it; the lower one hides the
    last token as well. ``ids`` [B, T] are padded on the right; ``spans``: per row, (first, last) token of
    every subject.
    """
    batch, length = ids.shape
    upper = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril().repeat(batch, 1, 1)
    lower = upper.clone()
    for row, row_spans in enumerate(spans):
        for first, last in row_spans:
            upper[row, last + 1 :, first:last] = False
            lower[row, last + 1 :, first : last + 1] = False
    return lower[:, None], upper[:, None]


@contextmanager
def subject_bottleneck(model, ids: torch.Tensor, spans: list[list[tuple[int, int]]], enrich: int):
    """Give the lower mask to the first ``enrich`` layers; yield the upper one for the model's call."""
    lower, upper = bottleneck_masks(ids, spans)

    def use_lower_mask(_module, args, kwargs):
        return args, kwargs | {"attention_mask": lower}

    layers = model.model.layers[:enrich]
    handles = [layer.register_forward_pre_hook(use_lower_mask, with_kwargs=True) for layer in layers]
    try:
        yield upper
    finally:
        for handle in handles:
            handle.remove()
