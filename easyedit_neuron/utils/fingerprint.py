"""Cheap, order-sensitive fingerprints of tensors, models, tokenizers and texts, 16 hexadecimal digits."""

import hashlib
import itertools
import json
from collections.abc import Iterable
from typing import Any

import torch

_CPU_CHUNK, _CHUNK = 1 << 16, 1 << 23
"""Elements taken at once: what a core's cache holds; on other devices more, for fewer calls."""
# Odd, from the golden ratio: neighbouring positions get unrelated weights in int64 arithmetic.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)


def tensor_checksum(tensor: torch.Tensor) -> int:
    """64-bit position-weighted sum of a tensor's bit patterns, computed on its own device.

    Any change of one element changes it; two different matrices collide with probability about 2^-64. It
    guards against mistakes, not against an adversary.
    """
    flat = tensor.detach().contiguous().flatten()
    bits = flat.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
    chunk = max(1, min(_CPU_CHUNK if bits.device.type == "cpu" else _CHUNK, bits.numel()))
    # A chunk starts at an even place, where the weight is start * _STEP more than in the first chunk.
    weights = torch.arange(chunk, device=bits.device) * _STEP | 1
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    weighted = torch.empty_like(weights)  # one for all chunks: a new one each time costs more than the sums
    for start in range(0, bits.numel(), chunk):
        part = bits[start : start + chunk]
        size = part.numel()
        total += torch.mul(part, weights[:size], out=weighted[:size]).sum()
        total += part.sum(dtype=torch.int64) * start * _STEP
    return int(total)


def tensors_fingerprint(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Fingerprint of named tensors: names, shapes, dtypes and contents.

    Neurons that were added and not used yet leave a model what it was. So zeros at the end of a vector do not
    count, nor do columns of zeros at the end of a matrix and rows of zeros anywhere in it: where gate and up
    are one matrix, new rows of the gate stand in the middle.
    """
    return _digest(_line(name, tensor) for name, tensor in tensors)


def fingerprints(tensors: Iterable[tuple[str, torch.Tensor]]) -> tuple[str, dict[str, str]]:
    """``tensors_fingerprint`` of all tensors together and of each by its name; every tensor is read once."""
    lines = {name: _line(name, tensor) for name, tensor in tensors}
    return _digest(lines.values()), {name: _digest([line]) for name, line in lines.items()}


def model_fingerprint(model: torch.nn.Module) -> str:
    """Fingerprint of all parameters and buffers of a model (rotary frequencies are buffers)."""
    return tensors_fingerprint(itertools.chain(model.named_parameters(), model.named_buffers()))


def text_fingerprint(texts: Iterable[str]) -> str:
    """Fingerprint of a list of texts."""
    return _digest(text + "\0" for text in texts)


def tokenizer_fingerprint(tok, texts: list[str], sample: int = 32) -> str:
    """Fingerprint of a tokenizer: its vocabulary, and the token ids of the first ``sample`` texts."""
    ids = [tok(text)["input_ids"] for text in texts[:sample]]
    return key_fingerprint({"vocabulary": tok.get_vocab(), "ids": ids})


def key_fingerprint(parts: dict[str, Any]) -> str:
    """Fingerprint of a JSON-able dictionary, the key of a cache entry."""
    return _digest([json.dumps(parts, sort_keys=True)])


def _line(name: str, tensor: torch.Tensor) -> str:
    tensor = _without_zeros(tensor.detach())
    return f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|{tensor_checksum(tensor)};"


def _without_zeros(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dim() not in (1, 2) or not tensor.numel():
        return tensor
    if tensor.dim() == 2:
        present = tensor[:, 0] != 0
        rest = ~present  # only these rows can be zeros: few are read whole
        present[rest] = tensor[rest].any(1).bool()  # of bytes it is bytes
        tensor = tensor if bool(present.all()) else tensor[present]
    if tensor.numel() and not bool(tensor[..., -1].any()):
        present = tensor.any(0).bool() if tensor.dim() == 2 else tensor != 0
        tensor = tensor[..., : int(present.nonzero().max()) + 1 if bool(present.any()) else 0]
    return tensor


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()[:16]
