"""Exact sums of edits as factors, and their best approximation of lower rank."""

from collections.abc import Iterable

import torch

from ..editlog.summed_change import Factors, sum_changes
from ..edits.record import EditRecord


def summed_factors(records: Iterable[EditRecord]) -> dict[str, Factors]:
    """Parameter name -> the sum of its changes, exact; parameters that do not change are left out.

    Low-rank changes keep their factors side by side. Rows and columns are added up first and get a factor
    that selects them. More than min(d_out, d_in) columns are brought to that rank.
    """
    sums = {}
    for name, change in sum_changes(records).items():
        left, right = change.factors()
        used = (left != 0).any(0) & (right != 0).any(0)
        if used.any():
            sums[name] = Factors(left[:, used], right[:, used])
    return sums


def truncate(
    factors: Factors, max_rank: int | None = None, energy: float | None = None
) -> tuple[Factors, float]:
    """The best approximation of lower rank (Eckart-Young), and its relative error ``||D - D_r|| / ||D||``.

    The rank r is at most ``max_rank``, and the least whose squared singular values make up the share
    ``energy`` of all. The factors are ``U sqrt(s)`` and ``V sqrt(s)``; ``factors`` themselves if nothing
    limits the rank.
    """
    if energy is None and (max_rank is None or factors.rank <= max_rank):
        return factors, 0.0
    q_left, r_left = torch.linalg.qr(factors.value_factor)
    q_right, r_right = torch.linalg.qr(factors.key_factor)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    power = s.square()
    rank = len(s)
    if energy is not None:
        rank = min(rank, 1 + int((power.cumsum(0) < energy * power.sum()).sum()))
    if max_rank is not None:
        rank = min(rank, max_rank)
    error = float((power[rank:].sum() / power.sum()).sqrt()) if float(power.sum()) else 0.0
    root = s[:rank].sqrt()
    return Factors(q_left @ (u[:, :rank] * root), q_right @ (vh[:rank].T * root)), error
