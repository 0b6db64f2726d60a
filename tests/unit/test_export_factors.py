"""Sums of edits in factors: numbers by hand, ranks, and what a cut costs."""

from types import SimpleNamespace

import pytest
import torch

from easyedit_neuron.edits.record import LayerDelta, UnitDelta
from easyedit_neuron.export.factors import Factors, summed_factors, truncate


def rows(shape, units, *vectors):
    return UnitDelta(torch.tensor(units), torch.tensor(vectors, dtype=torch.float32), "output", shape)


def columns(shape, units, *vectors):
    return UnitDelta(torch.tensor(units), torch.tensor(vectors, dtype=torch.float32), "input", shape)


def sum_of(*deltas):
    """The sum of one parameter's changes, each by a record of its own."""
    return summed_factors([SimpleNamespace(deltas={"w": delta}) for delta in deltas]).get("w")


def test_rows_and_columns_of_several_edits_by_hand():
    shape = (4, 5)
    change = sum_of(
        rows(shape, [1, 3], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]), rows(shape, [1], [10, 10, 10, 10, 10])
    )
    assert change.rank == 2 and change.matrix().shape == shape  # row 1 once, although two edits change it
    expected = torch.zeros(shape)
    expected[1], expected[3] = torch.tensor([11.0, 12, 13, 14, 15]), torch.tensor([6.0, 7, 8, 9, 10])
    assert torch.equal(change.matrix().float(), expected)
    assert change.value_factor.T.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]  # selects the rows

    change = sum_of(columns(shape, [0, 4], [1, 2, 3, 4], [5, 6, 7, 8]))
    assert change.rank == 2 and change.key_factor.T.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert change.matrix()[:, 4].tolist() == [5, 6, 7, 8]


def test_low_rank_changes_keep_their_factors():
    shape = (6, 7)
    torch.manual_seed(0)
    edits = [LayerDelta(torch.randn(6, 1), torch.randn(7, 1)) for _ in range(3)]
    change = sum_of(*edits)
    assert torch.equal(change.value_factor.float(), torch.cat([d.value_factor for d in edits], 1))
    assert torch.equal(change.key_factor.float(), torch.cat([d.key_factor for d in edits], 1))
    mixed = sum_of(*edits, rows(shape, [2], [1.0] * 7), columns(shape, [3], [1.0] * 6))
    assert mixed.rank == 5
    plain = sum(d.value_factor.double() @ d.key_factor.double().T for d in edits)
    plain[2] += 1
    plain[:, 3] += 1
    torch.testing.assert_close(mixed.matrix(), plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape, edits", [((4, 9), 20), ((9, 4), 20)])
def test_the_rank_never_exceeds_the_smaller_side(shape, edits):
    torch.manual_seed(1)
    many = [LayerDelta(torch.randn(shape[0], 1), torch.randn(shape[1], 1)) for _ in range(edits)]
    change = sum_of(
        *many, columns(shape, [0], [1.0] * shape[0]), rows(shape, [1, 2], *[[1.0] * shape[1]] * 2)
    )
    plain = sum(d.value_factor.double() @ d.key_factor.double().T for d in many)
    plain[:, 0] += 1
    plain[1:3] += 1
    assert change.rank == 4
    torch.testing.assert_close(change.matrix(), plain, rtol=0, atol=1e-12)


def test_what_does_not_change_is_left_out():
    zero = LayerDelta(torch.zeros(2, 1), torch.ones(3, 1))
    assert sum_of(zero) is None and sum_of(rows((2, 3), [1], [0, 0, 0])) is None
    change = LayerDelta(torch.tensor([[1.0], [2]]), torch.tensor([[3.0], [4], [5]]))
    assert sum_of(zero, change).rank == 1
    records = [
        SimpleNamespace(deltas={"a": change, "b": zero}),
        SimpleNamespace(deltas={"a": change, "c": change}),
    ]
    sums = summed_factors(records)
    assert set(sums) == {"a", "c"} and torch.equal(sums["a"].matrix().float(), 2 * change.matrix())


def test_a_cut_loses_the_smallest_singular_values():
    u, _ = torch.linalg.qr(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    v, _ = torch.linalg.qr(torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))
    whole = (u * torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)) @ v.T
    factors = Factors(u * torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), v)
    assert truncate(factors, max_rank=3)[0] is factors and truncate(factors)[1] == 0
    for options, rank, lost in (
        ({"max_rank": 2}, 2, (1 / 21) ** 0.5),
        ({"max_rank": 1}, 1, (5 / 21) ** 0.5),
        ({"energy": 0.9}, 2, (1 / 21) ** 0.5),
        ({"energy": 0.7}, 1, (5 / 21) ** 0.5),
        ({"energy": 0.9, "max_rank": 1}, 1, (5 / 21) ** 0.5),
        ({"energy": 1.0}, 3, 0),
    ):
        cut, error = truncate(factors, **options)
        assert cut.rank == rank and error == pytest.approx(lost, abs=1e-6)
        expected = (u[:, :rank] * torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)[:rank]) @ v[:, :rank].T
        torch.testing.assert_close(cut.matrix(), expected, rtol=0, atol=1e-12)
        assert float((whole - cut.matrix()).norm() / whole.norm()) == pytest.approx(lost, abs=1e-6)
