"""Sums of edits in factors: numbers by hand, ranks, and what a cut costs."""

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.export.factors import deltas_by_parameter, summed, truncated
from easyedit_neuron.record import LayerDelta, UnitDelta


def rows(shape, units, *vectors):
    return UnitDelta(torch.tensor(units), torch.tensor(vectors, dtype=torch.float32), "output", shape)


def columns(shape, units, *vectors):
    return UnitDelta(torch.tensor(units), torch.tensor(vectors, dtype=torch.float32), "input", shape)


def low_rank(left, right):
    return LayerDelta(torch.tensor(left, dtype=torch.float32), torch.tensor(right, dtype=torch.float32))


def test_rows_and_columns_of_several_edits_by_hand():
    shape = (4, 5)
    found = summed("w", [rows(shape, [1, 3], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]), rows(shape, [1], [10, 10, 10, 10, 10])])
    assert found.rank == 2 and found.shape == shape  # row 1 once, although two edits change it
    expected = torch.zeros(shape)
    expected[1], expected[3] = torch.tensor([11.0, 12, 13, 14, 15]), torch.tensor([6.0, 7, 8, 9, 10])
    assert torch.equal(found.matrix().float(), expected)
    assert found.left.T.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]  # selects the rows

    found = summed("w", [columns(shape, [0, 4], [1, 2, 3, 4], [5, 6, 7, 8])])
    assert found.rank == 2 and found.right.T.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert found.matrix()[:, 4].tolist() == [5, 6, 7, 8]


def test_low_rank_changes_keep_their_factors():
    shape = (6, 7)
    torch.manual_seed(0)
    edits = [LayerDelta(torch.randn(6, 1), torch.randn(7, 1)) for _ in range(3)]
    found = summed("w", edits)
    assert torch.equal(found.left.float(), torch.cat([d.left for d in edits], 1))
    assert torch.equal(found.right.float(), torch.cat([d.right for d in edits], 1))
    mixed = summed("w", [*edits, rows(shape, [2], [1.0] * 7), columns(shape, [3], [1.0] * 6)])
    assert mixed.rank == 5
    plain = sum(d.left.double() @ d.right.double().T for d in edits)
    plain[2] += 1
    plain[:, 3] += 1
    torch.testing.assert_close(mixed.matrix(), plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape, edits", [((4, 9), 20), ((9, 4), 20)])
def test_the_rank_never_exceeds_the_smaller_side(shape, edits):
    torch.manual_seed(1)
    many = [LayerDelta(torch.randn(shape[0], 1), torch.randn(shape[1], 1)) for _ in range(edits)]
    found = summed("w", many)
    assert found.rank == 4
    torch.testing.assert_close(found.matrix(), sum(d.left.double() @ d.right.double().T for d in many), rtol=0, atol=1e-12)


def test_a_mask_of_few_neurons_bounds_the_rank():
    torch.manual_seed(2)
    many = []
    for _ in range(5):
        right = torch.zeros(9, 1)
        right[[2, 7]] = torch.randn(2, 1)
        many.append(LayerDelta(torch.randn(6, 1), right))
    found = summed("w", many)
    assert found.rank == 2 and found.right.nonzero()[:, 0].tolist() == [2, 7]
    torch.testing.assert_close(found.matrix(), sum(d.left.double() @ d.right.double().T for d in many), rtol=0, atol=1e-13)


def test_edits_that_cancel_and_models_that_differ():
    one = low_rank([[1], [2]], [[3], [4], [5]])
    back = rows((2, 3), [0, 1], [-3, -4, -5], [-6, -8, -10])
    assert float(summed("w", [one, back]).matrix().abs().max()) == 0
    assert summed("w", [low_rank([[0], [0]], [[3], [4], [5]])]).rank == 0
    with pytest.raises(StateError, match="w: the edits are of weights of different shapes"):
        summed("w", [one, rows((3, 2), [0], [1, 1])])


def test_a_cut_loses_the_smallest_singular_values():
    u, _ = torch.linalg.qr(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    v, _ = torch.linalg.qr(torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))
    whole = (u * torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)) @ v.T
    factors = summed("w", [LayerDelta((u * torch.tensor([4.0, 2.0, 1.0])).float(), v.float())])
    assert truncated(factors, max_rank=3)[0] is factors and truncated(factors)[1] == 0
    for options, rank, lost in (({"max_rank": 2}, 2, (1 / 21) ** 0.5), ({"max_rank": 1}, 1, (5 / 21) ** 0.5),
                                ({"energy": 0.9}, 2, (1 / 21) ** 0.5), ({"energy": 0.7}, 1, (5 / 21) ** 0.5),
                                ({"energy": 0.9, "max_rank": 1}, 1, (5 / 21) ** 0.5), ({"energy": 1.0}, 3, 0)):
        cut, error = truncated(factors, **options)
        assert cut.rank == rank and error == pytest.approx(lost, abs=1e-6)
        kept = (u[:, :rank] * torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)[:rank]) @ v[:, :rank].T
        torch.testing.assert_close(cut.matrix(), kept, rtol=0, atol=1e-6)
        assert float((whole - cut.matrix()).norm() / whole.norm()) == pytest.approx(lost, abs=1e-6)


def test_changes_are_grouped_in_order():
    class Record:
        def __init__(self, **deltas):
            self.deltas = deltas

    assert deltas_by_parameter([Record(a=1, b=2), Record(b=3)]) == {"a": [1], "b": [2, 3]}
