"""Batches for evaluation: own padding, explicit masks and positions, a model put into eval mode and back.

The tokenizer is only ever called without padding, so neither its padding side nor its pad token (it may have
none) plays a part, and it is left as it was found.
"""

import contextlib
import inspect
from collections.abc import Iterator, Sequence

import torch

from ..arch.frozen import eval_mode
from ..arch.tokens import pad
from ..errors import RequestError


def token_ids(tok, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
    """Token ids of each text, special tokens included by default; no padding, no truncation."""
    texts = list(texts)
    if not texts:
        return []
    return [list(ids) for ids in tok(texts, add_special_tokens=add_special_tokens)["input_ids"]]


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row indices in batches of similar length, so that little is computed on padding."""
    if batch_size < 1:
        raise RequestError(f"batch_size is {batch_size}; it must be at least 1")
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def right_pad(rows: Sequence[Sequence[int]], device, offsets: Sequence[int] | None = None) -> dict:
    """Pad rows on the right.

    Args:
        rows: token ids of each text.
        device: where the tensors go.
        offsets: position of each row's first token (default 0). See :func:`.batched.predict_targets`.

    Returns:
        ``input_ids``, ``attention_mask``, ``position_ids``, each int64 ``[B, T]``. Padding is token 0 under a
        mask of 0.
    """
    batch = pad([list(row) for row in rows])
    ids, mask = batch.input_ids, batch.attention_mask
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    if offsets is not None:
        positions = positions + torch.tensor(offsets, dtype=torch.long)[:, None]
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "position_ids": positions.to(device),
    }


def input_device(model) -> torch.device:
    """Device of the token embeddings: where a model spread over devices takes its inputs."""
    return model.get_input_embeddings().weight.device


def accepted(model, inputs: dict) -> dict:
    """The inputs that the model's forward takes (a model without position embeddings has no
    ``position_ids``)."""
    names = inspect.signature(model.forward).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values()):
        return inputs
    return {name: value for name, value in inputs.items() if name in names}


def logits_at(model, inputs: dict, first: int, stop: int) -> torch.Tensor:
    """Logits ``[B, stop - first, V]`` of positions ``first .. stop - 1`` only: V is large, targets are
    short."""
    keep = torch.arange(first, stop)  # on the CPU: it may index hidden states of any device
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(**accepted(model, inputs), use_cache=False, logits_to_keep=keep).logits
    return model(**accepted(model, inputs), use_cache=False).logits[:, first:stop]


@contextlib.contextmanager
def evaluating(model):
    """No gradients and no dropout; every submodule's training flag is put back afterwards."""
    with eval_mode(model), torch.no_grad():
        yield model
