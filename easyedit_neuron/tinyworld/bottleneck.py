"""Makes the subject's last token the place where a subject's facts are looked up.

Left alone, a small model has no reason to put a person together there: the last position reads the first name
    and the
surname from their own tokens and combines them itself. The keys at the surname's token then belong to the
surname, and an edit of one person is an edit of the family. Large models do look facts up at the subject's
last token (that is what ROME rests on). So most training sequences are seen through a mask: what follows a
subject sees nothing of it but its last token, and that only from layer ``enrich`` on. The first ``enrich``
layers at that token must therefore assemble who is meant. The other sequences are seen whole, because that is
how the model is used.
"""

from contextlib import contextmanager

import torch


def bottleneck_masks(
    ids: torch.Tensor, spans: list[list[tuple[int, int]]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention masks of the lower and the upper layers.

    Args:
        ids: [B, T] token ids, padded on the right.
        spans: per row, (first, last) token of every subject.

    Returns:
        two bool [B, 1, T, T], True where a query (row) may see a key (column): causal; behind a subject its
        tokens but the last are hidden in both, the last one too in the first.
    """
    batch, length = ids.shape
    upper = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril().repeat(batch, 1, 1)
    lower = upper.clone()
    for row, found in enumerate(spans):
        for first, last in found:
            upper[row, last + 1 :, first:last] = False
            lower[row, last + 1 :, first : last + 1] = False
    return lower[:, None], upper[:, None]


@contextmanager
def subject_bottleneck(model, ids: torch.Tensor, spans: list[list[tuple[int, int]]], enrich: int):
    """Inside the block the first ``enrich`` layers get the lower mask; the upper one is yielded for the
    model's call."""
    lower, upper = bottleneck_masks(ids, spans)

    def swap(_module, args, kwargs):
        return args, kwargs | {"attention_mask": lower}

    handles = [
        layer.register_forward_pre_hook(swap, with_kwargs=True) for layer in model.model.layers[:enrich]
    ]
    try:
        yield upper
    finally:
        for handle in handles:
            handle.remove()
