"""Trees of tensors and plain values as flat tensors and JSON, and back to the same bits in the same layout.

A matrix product rounds by the layout of its factors as well as by their values: a transposed or an unaligned
matrix may take another kernel. A tensor therefore comes back with its strides and alignment, and one object
stays one object. A continued run then computes what an uninterrupted one would.
"""

from typing import Any

import torch

ALIGNMENT = 64  # bytes, of torch's CPU allocations
_TENSOR = "tensor"


def pack(tree: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """``(tensors, plan)``: 1-D tensors for a safetensors file, and the tree for JSON with references to them.

    Args:
        tree: dictionaries with string keys, lists and tuples (which come back as lists), tensors, plain
            values.

    Raises:
        TypeError: a key of a dictionary is not a string, or is ``"tensor"``.
    """
    tensors: dict[str, torch.Tensor] = {}
    names: dict[int, str] = {}

    def pack_node(node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            if id(node) not in names:
                names[id(node)] = f"{_TENSOR}{len(names)}"
                memory = _memory(node)
                # safetensors refuses tensors that share memory
                shared = memory.data_ptr() in {tensor.data_ptr() for tensor in tensors.values()}
                tensors[names[id(node)]] = memory.clone() if shared else memory
            return {
                _TENSOR: names[id(node)],
                "shape": list(node.shape),
                "stride": list(node.stride()),
                "device": str(node.device),
                "shift": node.data_ptr() % ALIGNMENT // node.element_size(),
            }
        if isinstance(node, dict):
            if _TENSOR in node or not all(isinstance(key, str) for key in node):
                raise TypeError(f"keys must be texts other than {_TENSOR!r}, got {list(node)}")
            return {key: pack_node(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [pack_node(value) for value in node]
        return node

    return tensors, pack_node(tree)


def unpack(tensors: dict[str, torch.Tensor], plan: Any) -> Any:
    """The tree that was packed, in new memory."""
    unpacked: dict[str, torch.Tensor] = {}

    def unpack_node(node: Any) -> Any:
        if isinstance(node, list):
            return [unpack_node(value) for value in node]
        if not isinstance(node, dict):
            return node
        if _TENSOR not in node:
            return {key: unpack_node(value) for key, value in node.items()}
        name = node[_TENSOR]
        if name not in unpacked:
            flat, shift = tensors[name], node["shift"]
            memory = torch.empty(shift + flat.numel(), dtype=flat.dtype, device=node["device"])
            memory[shift:] = flat
            unpacked[name] = memory.as_strided(node["shape"], node["stride"], shift)
        return unpacked[name]

    return unpack_node(plan)


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """The stretch of memory that a tensor covers, 1-D, gaps included."""
    steps = zip(tensor.shape, tensor.stride())
    span = 0 if 0 in tensor.shape else 1 + sum((size - 1) * step for size, step in steps)
    return tensor.detach().as_strided((span,), (1,), tensor.storage_offset())
