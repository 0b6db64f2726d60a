"""The sum of many changes of one parameter, in factors for as long as that is smaller."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..edits.record import Delta, EditRecord, LayerDelta, UnitDelta


class Total:
    """The sum of the changes of one parameter, in float64.

    Low-rank changes are joined; beyond rank min(d_out, d_in), the most that a sum can have, they are made
    into as many columns again (QR of the longer side, SVD of the rest). Rows and columns are added up by
    number.

    Args:
        shape: (d_out, d_in).
    """

    def __init__(self, shape: tuple[int, int]):
        self.shape = tuple(shape)
        self._left: list[torch.Tensor] = []
        self._right: list[torch.Tensor] = []
        self._units: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._columns = torch.zeros(self.shape[1], dtype=torch.bool)  # that low-rank changes have touched

    def add(self, delta: Delta, sign: int = 1) -> None:
        """Adds a change, or takes it out (-1)."""
        if isinstance(delta, LayerDelta):
            self._left.append(sign * delta.left.double().cpu())
            self._right.append(delta.right.double().cpu())
            self._columns[delta.neurons] = True
            if sum(part.shape[1] for part in self._left) > 2 * min(self.shape):
                self._compress()
        else:
            numbers, vectors = delta.units.cpu(), sign * delta.vectors.double().cpu()
            if delta.axis in self._units:
                known, sums = self._units[delta.axis]
                joined, which = torch.cat([known, numbers]).unique(return_inverse=True)
                added = sums.new_zeros(len(joined), sums.shape[1])
                numbers, vectors = joined, added.index_add_(0, which, torch.cat([sums, vectors]))
            self._units[delta.axis] = numbers, vectors

    def units(self) -> UnitDelta | None:
        """The sum as rows or columns; None where it is more than that."""
        if self._left or len(self._units) != 1:
            return None
        ((axis, (numbers, vectors)),) = self._units.items()
        return UnitDelta(numbers, vectors, axis, self.shape)

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(left [d_out, r], right [d_in, r]), r at most min(d_out, d_in); the sum is ``left @ right.T``."""
        joined = Total(self.shape)
        joined._left, joined._right = list(self._left), list(self._right)
        for axis, (numbers, vectors) in self._units.items():
            ones = torch.zeros(self.shape[0 if axis == "output" else 1], len(numbers), dtype=torch.float64)
            ones[numbers, torch.arange(len(numbers))] = 1
            joined._left.append(ones if axis == "output" else vectors.T)
            joined._right.append(vectors.T if axis == "output" else ones)
        if not joined._left:
            return torch.zeros(self.shape[0], 0, dtype=torch.float64), torch.zeros(
                self.shape[1], 0, dtype=torch.float64
            )
        if sum(part.shape[1] for part in joined._left) > min(self.shape):
            joined._compress()
        joined._join()
        return joined._left[0], joined._right[0]

    def neurons(self) -> set[tuple[str, int]]:
        """Rows (``output``) and columns (``input``) that may have changed; of low-rank changes the
        columns."""
        found = {(axis, number) for axis, (numbers, _) in self._units.items() for number in numbers.tolist()}
        return found | {("input", number) for number in self._columns.nonzero().squeeze(1).tolist()}

    def dot(self, other: Total) -> float:
        """Inner product of the two sums."""
        mine, theirs = self.units(), other.units()
        if mine is not None and theirs is not None and mine.axis == theirs.axis:
            common = sorted(set(mine.units.tolist()) & set(theirs.units.tolist()))
            rows = [
                torch.searchsorted(one.units, torch.tensor(common, dtype=torch.int64))
                for one in (mine, theirs)
            ]
            return float((mine.vectors[rows[0]] * theirs.vectors[rows[1]]).sum())
        (left, right), (other_left, other_right) = self.factors(), other.factors()
        return float(((left.T @ other_left) * (right.T @ other_right)).sum())

    def _join(self) -> None:
        self._left, self._right = [torch.cat(self._left, 1)], [torch.cat(self._right, 1)]

    def _compress(self) -> None:
        self._join()
        left, right = self._left[0], self._right[0]
        tall, short = (left, right) if len(left) >= len(right) else (right, left)
        basis, rest = torch.linalg.qr(tall)  # tall [d, k] = basis [d, min(d, k)] rest
        u, s, v = torch.linalg.svd(rest @ short.T, full_matrices=False)
        rank = max(1, int((s > s.max() * 1e-13 * max(self.shape)).sum()))
        tall, short = basis @ (u[:, :rank] * s[:rank]), v[:rank].T.contiguous()
        self._left, self._right = ([tall], [short]) if len(left) >= len(right) else ([short], [tall])


def totals(records: Iterable[EditRecord]) -> dict[str, Total]:
    """Parameter name -> the sum of all changes of it."""
    found: dict[str, Total] = {}
    for record in records:
        for name, delta in record.deltas.items():
            shape = delta.shape if isinstance(delta, UnitDelta) else (len(delta.left), len(delta.right))
            found.setdefault(name, Total(shape)).add(delta)
    return found
