"""Drift of rows: samples, t-SNE, and the distances of the table by hand."""

import pytest
import torch

from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.studies.drift import distances, embedded, sample
from easyedit_neuron.studies.reach import concordance, orders, reached

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
    rows = sample(100, 10, 1)
    assert len(rows.unique()) == 10 and rows.tolist() == sorted(rows.tolist()) == sample(100, 10, 1).tolist()


def test_the_table_by_hand():
    base, now = torch.tensor([[3.0, 4.0], [0.0, 5.0]]), torch.tensor([[4.0, 3.0], [0.0, 10.0]])
    # row 0: the same entries in another order, cosine 24 / 25, L2 sqrt 2; row 1: 5 is moved by 5 (mean over
    # entries 2.5)
    row = distances(2, "NMKE", now, base)
    assert (row["wasserstein"], row["wasserstein_std"]) == (1.25, 1.25)
    assert row["cosine"] == pytest.approx((0.96 + 1) / 2) and row["l2"] == pytest.approx((2**0.5 + 5) / 2)
    # lengths 5, 5 before and 5, 10 now
    assert (row["wasserstein_of_lengths"], row["mean_length"], row["mean_length_before"]) == (2.5, 7.5, 5.0)
    assert {name: distances(0, "x", base, base)[name] for name in ("wasserstein", "cosine", "l2")} == {
        "wasserstein": 0.0,
        "cosine": pytest.approx(1.0),
        "l2": 0.0,
    }


def point(edits, leakage, l2, retained, perplexity, layer="1"):
    return {
        "edits": edits,
        "layers": {} if leakage is None else {layer: {"leakage": leakage}},
        "drift": {} if l2 is None else {f"W{layer}": {"l2": [l2, 0.5]}},
        "final": {"retained": retained, "perplexity": perplexity},
    }


def test_what_reaches_the_keys_by_hand():
    names = {"1": "W1", "2": "W2"}
    rows = reached("A", [point(0, None, None, 1.0, 2.0), point(10, 1e-4, 20.0, 0.9, 3.0)], names)
    assert rows == [
        {
            "model": "A",
            "edits": 10,
            "leakage": 1e-4,
            "l2": 20.0,
            "reach": pytest.approx(0.04),
            "retained": 0.9,
            "perplexity": 3.0,
        }
    ]
    two = point(10, 1e-4, 3.0, 0.9, 3.0)
    two["layers"]["2"], two["drift"]["W2"] = {"leakage": 3e-4}, {"l2": [4.0, 0.0]}
    (row,) = reached("A", [two], names)
    assert (row["leakage"], row["l2"], row["reach"]) == pytest.approx((2e-4, 5.0, 9e-4 + 48e-4))
    untold = point(10, 1e-4, 20.0, 0.9, 3.0)
    untold["layers"]["1"]["leakage"] = None  # KNE and FiNE report none
    assert reached("A", [untold], names) == []


def test_pairs_that_are_ordered_alike():
    assert concordance([1, 2, 3], [5, 6, 7]) == 1 and concordance([1, 2, 3], [7, 6, 5]) == 0
    assert concordance([1, 3, 2], [5, 6, 7]) == pytest.approx(2 / 3)  # 3 before 2 is the one wrong pair
    assert concordance([1, 2, 3], [5, 5, 6]) == 1  # the pair with the same y asks nothing
    assert (
        concordance([1, 1], [5, 6]) == 0
        and concordance([1, 2], [5, 5]) is None
        and concordance([], []) is None
    )


def test_orders_by_the_number_of_edits_and_of_all():
    points = {
        "A": point(10, 1e-4, 20.0, 0.5, 9.0),
        "B": point(10, 1e-6, 90.0, 0.9, 3.0),
        "C": point(20, 1e-6, 50.0, 0.9, 2.0),
    }
    rows = [
        row for name, last_point in points.items() for row in reached(name, [last_point], {"1": "W1"})
    ]  # reach 0.04, 0.0081, 0.0025
    ten, every = orders(rows)  # nothing to compare after 20
    assert ten == {
        "edits": 10,
        "checkpoints": 2,
        "reach_retained": 1,
        "l2_retained": 0,
        "reach_perplexity": 1,
        "l2_perplexity": 0,
    }
    # retained: B and C are equal, A is worse than both; perplexity: A, B, C, of which distance has only B and
    # C right
    assert (every["edits"], every["checkpoints"]) == ("all", 3) and (
        every["reach_retained"],
        every["reach_perplexity"],
    ) == (1, 1)
    assert every["l2_retained"] == 0 and every["l2_perplexity"] == pytest.approx(1 / 3)
