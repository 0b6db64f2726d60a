"""Sums of changes, against dense matrices in float64."""

import pytest
import torch

from easyedit_neuron.editlog.summed_change import SummedChange
from easyedit_neuron.edits.record import LayerDelta, UnitDelta
from easyedit_neuron.errors import StateError

SHAPE = (5, 7)


def low_rank(seed, rank=1):
    g = torch.Generator().manual_seed(seed)
    return LayerDelta(torch.randn(5, rank, generator=g), torch.randn(7, rank, generator=g))


def rows(seed, units, axis):
    g = torch.Generator().manual_seed(seed)
    return UnitDelta(
        torch.tensor(units), torch.randn(len(units), 7 if axis == "output" else 5, generator=g), axis, SHAPE
    )


CASES = {
    "few": [low_rank(1), low_rank(2, 2)],
    "more than the width": [low_rank(i) for i in range(23)],
    "rows": [rows(1, [0, 2], "output"), rows(2, [2, 3], "output")],
    "columns": [rows(1, [1, 6], "input"), rows(2, [0, 1], "input")],
    "rows and columns": [rows(1, [0, 2], "output"), rows(2, [0, 1], "input")],
    "all": [low_rank(1), rows(1, [0, 2], "output"), rows(2, [0, 1, 5], "input"), low_rank(4, 4)],
}


def dense(deltas):
    return sum(
        delta.value_factor.double() @ delta.key_factor.double().T
        if isinstance(delta, LayerDelta)
        else delta.matrix().double()
        for delta in deltas
    )


def total(deltas):
    result = SummedChange(SHAPE)
    for delta in deltas:
        result.add(delta)
    return result


@pytest.mark.parametrize("case", CASES)
def test_factors_are_the_sum(case):
    left, right = total(CASES[case]).factors()
    assert left.shape[1] <= 5
    torch.testing.assert_close(left @ right.T, dense(CASES[case]), rtol=0, atol=1e-12)


def test_the_rank_is_exact():
    """Changes that are more than the width, and lie in three dimensions, come out as three columns."""
    g = torch.Generator().manual_seed(0)
    plane = torch.randn(5, 3, generator=g, dtype=torch.float64)
    parts = [
        LayerDelta(
            plane @ torch.randn(3, 1, generator=g, dtype=torch.float64),
            torch.randn(7, 1, generator=g, dtype=torch.float64),
        )
        for _ in range(22)
    ]
    left, right = total(parts).factors()
    assert left.shape[1] == 3
    torch.testing.assert_close(left @ right.T, dense(parts), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_products(case):
    for other in CASES:
        expected = float((dense(CASES[case]) * dense(CASES[other])).sum())
        assert total(CASES[case]).dot(total(CASES[other])) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_units_stay_units():
    units = total(CASES["rows"]).units()
    assert units.units.tolist() == [0, 2, 3] and units.axis == "output"
    torch.testing.assert_close(units.matrix(), dense(CASES["rows"]))
    assert total(CASES["all"]).units() is None and total(CASES["rows and columns"]).units() is None


def test_changes_before_and_after_neurons_were_added():
    """A matrix of two parts, of 2 neurons and then of 3: rows g0 g1 u0 u1, then g0 g1 g2 u0 u1 u2."""
    before = UnitDelta(torch.tensor([0, 3]), torch.tensor([[1.0], [2.0]]), "output", (4, 1), parts=2)
    after = UnitDelta(
        torch.tensor([3, 4, 5]), torch.tensor([[4.0], [8.0], [16.0]]), "output", (6, 1), parts=2
    )
    expected = torch.tensor([[1.0], [0.0], [8.0], [0.0], [6.0], [16.0]]).double()
    for deltas in ([before, after], [after, before]):
        change = SummedChange((4, 1))
        for delta in deltas:
            change.add(delta)
        assert torch.equal(change.units().matrix(), expected)
        torch.testing.assert_close(change.factors().matrix(), expected)
    narrow, wide = SummedChange((4, 1)), SummedChange((6, 1))
    narrow.add(before)
    wide.add(after)
    wide.add(LayerDelta(torch.ones(6, 1), torch.ones(1, 1)))  # so that the product is of factors
    assert narrow.dot(wide) == pytest.approx(1 * 1 + 2 * (4 + 1))


def test_numbers_of_an_earlier_version_are_not_mixed_with_others():
    """Records had no ``parts`` before: the numbers were the rows."""
    old = UnitDelta(torch.tensor([2]), torch.ones(1, 1), "output", (4, 1))
    new = UnitDelta(torch.tensor([2]), torch.ones(1, 1), "output", (4, 1), parts=2)
    for first, second in ((old, new), (new, old)):
        change = SummedChange((4, 1))
        change.add(first)
        with pytest.raises(StateError, match="number the rows of a matrix in different ways"):
            change.add(second)
    a, b = SummedChange((4, 1)), SummedChange((4, 1))
    a.add(old)
    b.add(new)  # row 1
    assert a.dot(b) == 0 and a.dot(a) == b.dot(b) == 1


def test_neurons():
    masked = LayerDelta(torch.ones(5, 1), torch.tensor([[0.0], [1], [0], [2], [0], [0], [0]]))
    assert total([masked, rows(1, [4], "output"), rows(2, [3, 6], "input")]).neurons() == {
        ("input", 1),
        ("input", 3),
        ("input", 6),
        ("output", 4),
    }


def test_taken_out_again():
    deltas = CASES["all"]
    result = total(deltas)
    for delta in deltas:
        result.add(delta.negated())
    left, right = result.factors()
    assert float((left @ right.T).abs().max()) < 1e-12
