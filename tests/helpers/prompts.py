"""Prompts of different lengths, right-padded by hand."""

from types import SimpleNamespace

import torch

TEXTS = [
    "Anna Berg was born in",
    "I",
    "The capital of Norway is",
    "Peter Olsen lives in Rome. Anna Berg was born in",
]


def right_padded(tok, texts=TEXTS, filler: int = 7):
    """The fields of ``tokens.Batch``; the filler is an ordinary token: reading it would change results."""
    rows = [tok(text)["input_ids"] for text in texts]
    width = max(map(len, rows))
    return SimpleNamespace(
        input_ids=torch.tensor([row + [filler] * (width - len(row)) for row in rows]),
        attention_mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        lengths=torch.tensor([len(row) for row in rows]),
    )
