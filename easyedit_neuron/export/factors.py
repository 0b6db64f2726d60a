"""The sum of many edits of one parameter as a product of two thin matrices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..editlog.total import totals
from ..edits.record import EditRecord


@dataclass(frozen=True)
class Factors:
    """A change ``W[d_out, d_in] += left @ right.T``.

    Attributes:
        left: ``[d_out, r]``, float64.
        right: ``[d_in, r]``, float64.
    """

    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """r: columns of the factors; the product's rank may be smaller."""
        return self.left.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.left.shape[0], self.right.shape[0]

    def matrix(self) -> Tensor:
        """The change itself, ``[d_out, d_in]`` float64."""
        return self.left @ self.right.T


def summed(records: Iterable[EditRecord]) -> dict[str, Factors]:
    """{parameter: the sum of its changes}, nothing left out; parameters that do not change are left out.

    Low-rank changes keep their factors side by side; rows and columns of ``UnitDelta`` s are added up first
    and get a factor that selects them; beyond rank min(d_out, d_in) the factors are brought to that
    (``editlog.total``).
    """
    found = {}
    for name, total in totals(records).items():
        left, right = total.factors()
        used = (left != 0).any(0) & (right != 0).any(0)
        if used.any():
            found[name] = Factors(left[:, used], right[:, used])
    return found


def truncated(
    factors: Factors, max_rank: int | None = None, energy: float | None = None
) -> tuple[Factors, float]:
    """The best approximation of lower rank (Eckart-Young), and its relative error ``||D - D_r|| / ||D||``
    (Frobenius).

    Args:
        factors: D.
        max_rank: r is at most this.
        energy: r is the least whose squared singular values make up this share of all, in (0, 1].

    Returns:
        (factors with ``left = U sqrt(s)``, ``right = V sqrt(s)``; error). Without a reason to cut,
        ``factors`` themselves and 0.
    """
    if energy is None and (max_rank is None or factors.rank <= max_rank):
        return factors, 0.0
    q_left, r_left = torch.linalg.qr(factors.left)
    q_right, r_right = torch.linalg.qr(factors.right)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    power = s.square()
    keep = len(s)
    if energy is not None:
        keep = 1 + int((power.cumsum(0) < energy * power.sum()).sum())
    keep = min(keep, len(s), len(s) if max_rank is None else max_rank)
    error = float((power[keep:].sum() / power.sum()).sqrt()) if float(power.sum()) else 0.0
    root = s[:keep].sqrt()
    return Factors(q_left @ (u[:, :keep] * root), q_right @ (vh[:keep].T * root)), error
