"""The sum of many edits of one parameter as a product of two thin matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import StateError
from ..record import Delta, EditRecord, LayerDelta


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


def deltas_by_parameter(records: Iterable[EditRecord]) -> dict[str, list[Delta]]:
    """{parameter: its changes in the order of the edits}."""
    found: dict[str, list[Delta]] = {}
    for record in records:
        for name, delta in record.deltas.items():
            found.setdefault(name, []).append(delta)
    return found


def summed(name: str, deltas: Sequence[Delta]) -> Factors:
    """The sum of the changes of one parameter, nothing left out, in as few columns as can be told without a decomposition.

    Low-rank changes keep their factors side by side; rows and columns of ``UnitDelta`` s are added up first and get a factor that
    selects them. Where fewer rows (or columns) are touched than there would be factor columns, the whole sum is written as these
    rows; so r never exceeds min(d_out, d_in). Edits that leave the parameter as it is give r = 0.

    Args:
        name: of the parameter, for the message.
        deltas: at least one.

    Raises:
        StateError: the changes are of weights of different shapes.
    """
    shapes = {_shape(delta) for delta in deltas}
    if len(shapes) > 1:
        raise StateError(f"{name}: the edits are of weights of different shapes, {sorted(shapes)}: they are of different models")
    d_out, d_in = shapes.pop()
    lefts = [delta.left.double().cpu() for delta in deltas if isinstance(delta, LayerDelta)]
    rights = [delta.right.double().cpu() for delta in deltas if isinstance(delta, LayerDelta)]
    rows = _units([delta for delta in deltas if not isinstance(delta, LayerDelta) and delta.axis == "output"])
    columns = _units([delta for delta in deltas if not isinstance(delta, LayerDelta) and delta.axis == "input"])
    if rows is not None:
        lefts.append(_selecting(rows[0], d_out))
        rights.append(rows[1].T)
    if columns is not None:
        lefts.append(columns[1].T)
        rights.append(_selecting(columns[0], d_in))
    return _fewest(Factors(torch.cat(lefts, 1), torch.cat(rights, 1)))


def truncated(factors: Factors, max_rank: int | None = None, energy: float | None = None) -> tuple[Factors, float]:
    """The best approximation of lower rank (Eckart-Young), and its relative error ``||D - D_r|| / ||D||`` (Frobenius).

    Args:
        factors: D.
        max_rank: r is at most this.
        energy: r is the least whose squared singular values make up this share of all, in (0, 1].

    Returns:
        (factors with ``left = U sqrt(s)``, ``right = V sqrt(s)``; error). Without a reason to cut, ``factors`` themselves and 0.
    """
    if factors.rank == 0 or energy is None and (max_rank is None or factors.rank <= max_rank):
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


def _shape(delta: Delta) -> tuple[int, int]:
    return (len(delta.left), len(delta.right)) if isinstance(delta, LayerDelta) else tuple(delta.shape)


def _units(deltas: Sequence[Delta]) -> tuple[Tensor, Tensor] | None:
    """(numbers of all units ``[n]``, the sums of what is added to each ``[n, d]``)."""
    if not deltas:
        return None
    units, places = torch.cat([delta.units.cpu() for delta in deltas]).unique(return_inverse=True)
    vectors = torch.cat([delta.vectors.double().cpu() for delta in deltas])
    return units, vectors.new_zeros(len(units), vectors.shape[1]).index_add_(0, places, vectors)


def _selecting(units: Tensor, length: int) -> Tensor:
    """``[length, n]``: column j has its 1 at ``units[j]``."""
    chosen = torch.zeros(length, len(units), dtype=torch.float64)
    chosen[units, torch.arange(len(units))] = 1.0
    return chosen


def _fewest(factors: Factors) -> Factors:
    used = (factors.left != 0).any(0) & (factors.right != 0).any(0)
    factors = Factors(factors.left[:, used], factors.right[:, used])
    rows, columns = ((side != 0).any(1).nonzero()[:, 0] for side in (factors.left, factors.right))
    if min(len(rows), len(columns)) >= factors.rank:
        return factors
    if len(rows) <= len(columns):
        return Factors(_selecting(rows, len(factors.left)), factors.right @ factors.left[rows].T)
    return Factors(factors.left @ factors.right[columns].T, _selecting(columns, len(factors.right)))
