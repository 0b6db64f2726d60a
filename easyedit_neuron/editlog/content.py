"""What a log says of an edit beside its record: a hash of what makes it, and a few numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from ..edits.record import Delta, EditRecord, LayerDelta


def content_of(record: EditRecord) -> str:
    """Hash of what makes an edit: its changes, method and requests."""
    digest = hashlib.sha256(json.dumps([record.method, record.requests], sort_keys=True).encode())
    for name, delta in sorted(record.deltas.items()):
        parts = (delta.left, delta.right) if isinstance(delta, LayerDelta) else (delta.units, delta.vectors)
        for part in parts:
            digest.update(f"{name}|{tuple(part.shape)}|{part.dtype};".encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def about_change(delta: Delta) -> dict[str, Any]:
    """What a list of edits shows of a change."""
    if isinstance(delta, LayerDelta):
        energy = ((delta.left.T @ delta.left) * (delta.right.T @ delta.right)).sum()
        return {
            "rank": delta.left.shape[1],
            "neurons": int(delta.right.any(1).sum()),
            "norm": float(energy.clamp_min(0).sqrt()),
        }
    return {
        "units": len(delta.units),
        "axis": delta.axis,
        "neurons": len(delta.units),
        "norm": float(delta.vectors.norm()),
    }
