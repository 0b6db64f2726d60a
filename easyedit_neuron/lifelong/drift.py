"""How far a weight has moved from the untouched model's: NMKE, Table 10.

All by rows of ``W [d_out, d_in]`` (a bias is one row). The paper does not say between which distributions its
Wasserstein distance is taken; both readings are given: between the entries of a row before and after, and
between all rows' lengths before and after (its Fig. 11).
"""

from __future__ import annotations

import torch

from ..arch.view import is_conv1d

ROWS = 1024
"""Rows at once: bounds the float32 copies."""


def drifts(
    model: torch.nn.Module, now: dict[str, torch.Tensor], base: dict[str, torch.Tensor]
) -> dict[str, dict]:
    """``drift`` of every parameter of ``now``, with its rows as the model uses them."""
    found = {}
    for name, value in sorted(now.items()):
        path, _, leaf = name.rpartition(".")
        turned = leaf == "weight" and is_conv1d(model.get_submodule(path))
        found[name] = drift(value.t(), base[name].t()) if turned else drift(value, base[name])
    return found


def drift(now: torch.Tensor, base: torch.Tensor) -> dict[str, list[float] | float]:
    """Distances of a weight from its origin.

    Args:
        now, base: ``W`` [d_out, d_in] or a bias [d], of any floating dtype and on any two devices; computed
            in float32.

    Returns:
        ``wasserstein``, ``cosine``, ``l2``: [mean, standard deviation (population)] over rows of the
            1-Wasserstein distance
        between the row's entries, the cosine, and the Euclidean distance; ``wasserstein_norms``: distance
        between the rows' lengths. The cosine of a row that is zero before or after is 1 where both are, else
        0.
    """
    rows, lengths = {"wasserstein": [], "cosine": [], "l2": []}, ([], [])
    now, base = (
        tensor.detach()[None] if tensor.dim() == 1 else tensor.detach().flatten(1) for tensor in (now, base)
    )
    for start in range(0, len(now), ROWS):
        a = now[start : start + ROWS].float()
        b = base[start : start + ROWS].to(a.device).float()
        rows["wasserstein"].append(wasserstein(a, b))
        rows["l2"].append((a - b).norm(dim=1))
        norms = a.norm(dim=1), b.norm(dim=1)
        product = norms[0] * norms[1]
        cosine = (a * b).sum(1) / product.clamp_min(torch.finfo(torch.float32).tiny)
        rows["cosine"].append(torch.where(product > 0, cosine.clamp(-1, 1), (norms[0] == norms[1]).float()))
        for kept, norm in zip(lengths, norms):
            kept.append(norm)
    found: dict = {}
    for name, parts in rows.items():
        values = torch.cat(parts).double()
        found[name] = [float(values.mean()), float(values.std(correction=0))]
    found["wasserstein_norms"] = float(wasserstein(torch.cat(lengths[0])[None], torch.cat(lengths[1])[None]))
    return found


def wasserstein(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """1-Wasserstein distance between the entries of the rows of a and b, both [n, m]: on a line, mass moves
    in order."""
    return (a.sort(dim=1).values - b.sort(dim=1).values).abs().mean(1)
