"""How far a weight has moved from the untouched model's (NMKE, Table 10).

Everything is computed over the rows of ``W [d_out, d_in]``; a bias is one row. The paper does not say between
which distributions its Wasserstein distance is taken. Both readings are given: between the entries of a row
before and after, and between the lengths of all rows before and after (its Fig. 11).
"""

import torch

from ..arch.view import is_conv1d

ROWS = 1024
"""Rows at a time, which bounds the float32 copies."""


def drifts(
    model: torch.nn.Module, now: dict[str, torch.Tensor], base: dict[str, torch.Tensor]
) -> dict[str, dict]:
    """``drift`` of every parameter of ``now``, with rows as the model uses them (Conv1D is transposed)."""
    values = {}
    for name, value in sorted(now.items()):
        module, _, leaf = name.rpartition(".")
        transposed = leaf == "weight" and is_conv1d(model.get_submodule(module))
        values[name] = drift(value.t(), base[name].t()) if transposed else drift(value, base[name])
    return values


def drift(now: torch.Tensor, base: torch.Tensor) -> dict[str, list[float] | float]:
    """Distances of a weight ``W`` [d_out, d_in] or a bias [d] from its value in the untouched model, in
    float32.

    ``wasserstein``, ``cosine``, ``l2``: [mean, population standard deviation] over rows of the 1-Wasserstein
    distance between the row's entries, the cosine, and the Euclidean distance. ``wasserstein_norms``:
    distance between the rows' lengths. The cosine of a row that is zero before or after is 1 if both are,
    else 0.
    """
    now, base = (
        tensor.detach()[None] if tensor.dim() == 1 else tensor.detach().flatten(1) for tensor in (now, base)
    )
    rows = {"wasserstein": [], "cosine": [], "l2": []}
    now_norms, base_norms = [], []
    for start in range(0, len(now), ROWS):
        a = now[start : start + ROWS].float()
        b = base[start : start + ROWS].to(a.device).float()
        a_norm, b_norm = a.norm(dim=1), b.norm(dim=1)
        product = a_norm * b_norm
        cosine = (a * b).sum(1) / product.clamp_min(torch.finfo(torch.float32).tiny)
        rows["wasserstein"].append(wasserstein(a, b))
        rows["cosine"].append(torch.where(product > 0, cosine.clamp(-1, 1), (a_norm == b_norm).float()))
        rows["l2"].append((a - b).norm(dim=1))
        now_norms.append(a_norm)
        base_norms.append(b_norm)
    distances: dict = {}
    for name, parts in rows.items():
        values = torch.cat(parts).double()
        distances[name] = [float(values.mean()), float(values.std(correction=0))]
    distances["wasserstein_norms"] = float(
        wasserstein(torch.cat(now_norms)[None], torch.cat(base_norms)[None])
    )
    return distances


def wasserstein(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """1-Wasserstein distance between the entries of the rows of a and b, both [n, m]."""
    # On a line, mass moves in order.
    return (a.sort(dim=1).values - b.sort(dim=1).values).abs().mean(1)
