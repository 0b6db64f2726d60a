"""What a log's entry says of an edit: a digest of its content, and a few numbers per change."""

import hashlib
import json
from typing import Any

import torch

from ..edits.record import Delta, EditRecord, LayerDelta


def content_digest(record: EditRecord) -> str:
    """SHA-256 of an edit's changes, method and requests: the same for the same edit in another log."""
    digest = hashlib.sha256(json.dumps([record.method, record.requests], sort_keys=True).encode())
    for name, delta in sorted(record.deltas.items()):
        low_rank = isinstance(delta, LayerDelta)
        for part in ("value_factor", "key_factor") if low_rank else ("units", "vectors"):
            tensor = getattr(delta, part)
            digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype};".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def summarize_delta(delta: Delta) -> dict[str, Any]:
    """Rank or number of units, neurons and Frobenius norm of a change."""
    if isinstance(delta, LayerDelta):
        value_factor, key_factor = delta.value_factor.double(), delta.key_factor.double()
        energy = ((value_factor.T @ value_factor) * (key_factor.T @ key_factor)).sum()
        rank, neurons = delta.value_factor.shape[1], int(delta.key_factor.any(1).sum())
        return {"rank": rank, "neurons": neurons, "norm": float(energy.clamp_min(0).sqrt())}
    count = len(delta.units)
    return {
        "units": count,
        "axis": delta.axis,
        "neurons": count,
        "norm": float(delta.vectors.double().norm()),
    }
