"""Trees of tensors and plain values, as flat tensors and JSON, and back to the same bits in the same layout.

A matrix product rounds by the layout of its factors as well as by their values: a transposed matrix takes
    another kernel, and a
CPU kernel may treat an unaligned row otherwise. So that a continued run computes what an uninterrupted one
would, a tensor comes back with its strides and at its alignment, and what was one object stays one.
"""

from __future__ import annotations

from typing import Any

import torch

ALIGNMENT = 64  # bytes, of torch's CPU allocations
_TENSOR = "tensor"


def pack(tree: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """``(tensors, plan)``: 1-D tensors for a safetensors file, and the tree with references in their places,
    for JSON.

    Args:
        tree: dictionaries with string keys, lists and tuples (which come back as lists), tensors, plain
            values.
    """
    tensors: dict[str, torch.Tensor] = {}
    plan = _pack(tree, tensors, {})
    return tensors, plan


def unpack(tensors: dict[str, torch.Tensor], plan: Any) -> Any:
    """The tree that was packed, in new memory."""
    return _unpack(tensors, plan, {})


def _pack(tree: Any, tensors: dict, names: dict) -> Any:
    if isinstance(tree, torch.Tensor):
        if id(tree) not in names:
            names[id(tree)] = f"{_TENSOR}{len(names)}"
            memory = _memory(tree)
            # safetensors refuses tensors that share memory
            shared = memory.data_ptr() in {tensor.data_ptr() for tensor in tensors.values()}
            tensors[names[id(tree)]] = memory.clone() if shared else memory
        return {
            _TENSOR: names[id(tree)],
            "shape": list(tree.shape),
            "stride": list(tree.stride()),
            "device": str(tree.device),
            "shift": tree.data_ptr() % ALIGNMENT // tree.element_size(),
        }
    if isinstance(tree, dict):
        if _TENSOR in tree or not all(isinstance(key, str) for key in tree):
            raise TypeError(f"keys must be texts other than {_TENSOR!r}, got {list(tree)}")
        return {key: _pack(value, tensors, names) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_pack(value, tensors, names) for value in tree]
    return tree


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """The stretch of memory that a tensor covers, 1-D, gaps included."""
    return tensor.detach().as_strided((_span(tensor.shape, tensor.stride()),), (1,), tensor.storage_offset())


def _span(shape, stride) -> int:
    return 0 if 0 in shape else 1 + sum((size - 1) * step for size, step in zip(shape, stride))


def _unpack(tensors: dict, plan: Any, made: dict) -> Any:
    if isinstance(plan, list):
        return [_unpack(tensors, value, made) for value in plan]
    if not isinstance(plan, dict):
        return plan
    if _TENSOR not in plan:
        return {key: _unpack(tensors, value, made) for key, value in plan.items()}
    name = plan[_TENSOR]
    if name not in made:
        flat, shift = tensors[name], plan["shift"]
        memory = torch.empty(shift + flat.numel(), dtype=flat.dtype, device=plan["device"])
        memory[shift:] = flat
        made[name] = memory.as_strided(plan["shape"], plan["stride"], shift)
    return made[name]
