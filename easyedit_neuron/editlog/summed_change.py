"""The sum of many changes of one parameter, kept as factors while these are smaller than the matrix."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..arch.widen import zero_padded
from ..edits.record import Delta, EditRecord, LayerDelta, UnitDelta, unit_places
from ..errors import StateError


class Factors(NamedTuple):
    """A change ``W [d_out, d_in] += value_factor @ key_factor.T`` in float64: [d_out, r] and [d_in, r]."""

    value_factor: Tensor
    key_factor: Tensor

    @property
    def rank(self) -> int:
        """r: columns of the factors; the product's rank may be smaller."""
        return self.value_factor.shape[1]

    def matrix(self) -> Tensor:
        return self.value_factor @ self.key_factor.T


class SummedChange:
    """The sum of the changes of one parameter of shape (d_out, d_in), in float64.

    Factors of low-rank changes are joined, and compressed to rank min(d_out, d_in) when there are many more.
    Rows and columns are added up by their number. Changes made after neurons were added have larger shapes.
    """

    def __init__(self, shape: tuple[int, int]):
        self.shape = tuple(shape)
        self._parts = 1  # of the rows, see UnitDelta
        self._lefts: list[Tensor] = []
        self._rights: list[Tensor] = []
        self._units: dict[str, tuple[Tensor, Tensor]] = {}  # axis -> (numbers, vectors)
        self._columns: set[int] = set()  # columns in low-rank changes

    def add(self, delta: Delta) -> None:
        d_out, d_in = shape_of(delta)
        self.shape = (max(self.shape[0], d_out), max(self.shape[1], d_in))
        if isinstance(delta, LayerDelta):
            self._lefts.append(delta.value_factor.double().cpu())
            self._rights.append(delta.key_factor.double().cpu())
            self._columns.update(delta.neurons.tolist())
            if sum(left.shape[1] for left in self._lefts) > 2 * min(self.shape):
                left, right = _compress(torch.cat(self._lefts, 1), torch.cat(self._rights, 1))
                self._lefts, self._rights = [left], [right]
            return
        if delta.axis == "output":
            if "output" in self._units and delta.parts != self._parts:
                raise StateError(
                    "edits of this version and of an earlier one number the rows of a matrix in different "
                    "ways, so that they have no sum; take them apart"
                )
            self._parts = delta.parts
        numbers, vectors = delta.units.cpu(), delta.vectors.double().cpu()
        if delta.axis in self._units:
            old_numbers, old_vectors = self._units[delta.axis]
            numbers, rows = torch.cat([old_numbers, numbers]).unique(return_inverse=True)
            sums = old_vectors.new_zeros(len(numbers), old_vectors.shape[1])
            vectors = sums.index_add_(0, rows, torch.cat([old_vectors, vectors]))
        self._units[delta.axis] = numbers, vectors

    def units(self) -> UnitDelta | None:
        """The sum as rows or columns; None if it is anything else."""
        if self._lefts or len(self._units) != 1:
            return None
        ((axis, (numbers, vectors)),) = self._units.items()
        return UnitDelta(numbers, vectors, axis, self.shape, parts=self._parts if axis == "output" else 1)

    def factors(self, shape: tuple[int, int] | None = None) -> Factors:
        """The sum as factors with r at most min(d_out, d_in).

        ``shape``: that of the parameter, where neurons were added to it after these changes.
        """
        d_out, d_in = shape or self.shape
        lefts = list(self._lefts)
        rights = [zero_padded(right, (d_in, right.shape[1])) for right in self._rights]
        for axis, (numbers, vectors) in self._units.items():
            size, parts = (d_out, self._parts) if axis == "output" else (d_in, 1)
            selector = torch.zeros(size, len(numbers), dtype=torch.float64)
            selector[unit_places(numbers, parts, size), torch.arange(len(numbers))] = 1
            lefts.append(selector if axis == "output" else vectors.T)
            rights.append(vectors.T if axis == "output" else selector)
        left = torch.cat([torch.zeros(d_out, 0, dtype=torch.float64), *lefts], 1)
        right = torch.cat([torch.zeros(d_in, 0, dtype=torch.float64), *rights], 1)
        return Factors(left, right) if left.shape[1] <= min(self.shape) else _compress(left, right)

    def neurons(self) -> set[tuple[str, int]]:
        """(axis, number) of the rows (``output``) and columns (``input``) that may have changed.

        Low-rank changes count by their columns.
        """
        units = {(axis, number) for axis, (numbers, _) in self._units.items() for number in numbers.tolist()}
        return units | {("input", number) for number in self._columns}

    def dot(self, other: "SummedChange") -> float:
        """Inner product of the two sums as matrices."""
        units, other_units = self.units(), other.units()
        if units and other_units and (units.axis, units.parts) == (other_units.axis, other_units.parts):
            shared = units.vectors[torch.isin(units.units, other_units.units)]
            other_shared = other_units.vectors[torch.isin(other_units.units, units.units)]
            return float((shared * other_shared).sum())
        shape = max(self.shape[0], other.shape[0]), max(self.shape[1], other.shape[1])
        (left, right), (other_left, other_right) = self.factors(shape), other.factors(shape)
        return float(((left.T @ other_left) * (right.T @ other_right)).sum())


def sum_changes(records: Iterable[EditRecord]) -> dict[str, SummedChange]:
    """Parameter name -> the sum of all changes of it."""
    sums: dict[str, SummedChange] = {}
    for record in records:
        for name, delta in record.deltas.items():
            sums.setdefault(name, SummedChange(shape_of(delta))).add(delta)
    return sums


def shape_of(delta: Delta) -> tuple[int, int]:
    """(d_out, d_in) of the weight that a change is of."""
    low_rank = isinstance(delta, LayerDelta)
    return (len(delta.value_factor), len(delta.key_factor)) if low_rank else delta.shape


def _compress(left: Tensor, right: Tensor) -> Factors:
    """Factors of the same product with as many columns as its rank (QR of the longer side, then SVD)."""
    left_is_longer = len(left) >= len(right)
    long, short = (left, right) if left_is_longer else (right, left)
    basis, rest = torch.linalg.qr(long)  # long [d, k] = basis [d, min(d, k)] rest
    u, s, v = torch.linalg.svd(rest @ short.T, full_matrices=False)
    rank = max(1, int((s > s.max() * 1e-13 * max(len(left), len(right))).sum()))
    long, short = basis @ (u[:, :rank] * s[:rank]), v[:rank].T.contiguous()
    return Factors(long, short) if left_is_longer else Factors(short, long)
