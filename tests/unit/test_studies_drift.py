"""Drift of rows: samples, t-SNE, and the distances of the table by hand."""

import pytest
import torch

from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.studies.drift import _row, embedded, sample

sklearn = pytest.importorskip("sklearn")


def test_the_layout_is_the_same_every_time_and_keeps_neighbours():
    generator = torch.Generator().manual_seed(0)
    near, far = (torch.randn(20, 5, generator=generator) + place for place in (0, 50))
    first, again = (embedded({"near": near, "far": far}, seed=3) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first) and first["near"].shape == (20, 2)
    every = torch.cat([first["near"], first["far"]])
    distance = torch.cdist(every, every).fill_diagonal_(torch.inf)
    nearest = distance.argmin(1) < 20
    assert nearest[:20].all() and not nearest[20:].any()


def test_too_few_rows():
    with pytest.raises(NeuronEditError, match="at least four rows"):
        embedded({"a": torch.zeros(3, 2)}, 0)


def test_samples_are_rows_in_their_order_the_same_for_all():
    assert sample(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    some = sample(100, 10, 1)
    assert len(some.unique()) == 10 and some.tolist() == sorted(some.tolist()) == sample(100, 10, 1).tolist()


def test_the_table_by_hand():
    base, now = torch.tensor([[3.0, 4.0], [0.0, 5.0]]), torch.tensor([[4.0, 3.0], [0.0, 10.0]])
    # row 0: the same entries in another order, cosine 24 / 25, L2 sqrt 2; row 1: 5 is moved by 5 (mean over entries 2.5)
    found = _row(2, "NMKE", now, base)
    assert (found["wasserstein"], found["wasserstein_std"]) == (1.25, 1.25)
    assert found["cosine"] == pytest.approx((0.96 + 1) / 2) and found["l2"] == pytest.approx((2 ** 0.5 + 5) / 2)
    # lengths 5, 5 before and 5, 10 now
    assert (found["wasserstein_of_lengths"], found["mean_length"], found["mean_length_before"]) == (2.5, 7.5, 5.0)
    assert {name: _row(0, "x", base, base)[name] for name in ("wasserstein", "cosine", "l2")} == {
        "wasserstein": 0.0, "cosine": pytest.approx(1.0), "l2": 0.0}
