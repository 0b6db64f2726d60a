"""Drift of a weight, against numbers worked out by hand and scipy's."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from easyedit_neuron.lifelong import drift as module
from easyedit_neuron.lifelong.drift import drift


def test_by_hand():
    base = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    now = torch.tensor([[4.0, 3.0], [0.0, 0.0], [0.0, 2.0]])
    distances = drift(now, base)
    # rows: entries swapped (same distribution, cosine 24/25, length sqrt 2); zero stays; (1, 0) to (0, 2)
    assert distances["wasserstein"] == pytest.approx([0.5 / 3, math.sqrt(0.25 / 3 - (0.5 / 3) ** 2)])
    assert distances["cosine"][0] == pytest.approx((24 / 25 + 1 + 0) / 3)
    assert distances["l2"][0] == pytest.approx((math.sqrt(2) + math.sqrt(5)) / 3)
    # lengths 5, 0, 1 and 5, 0, 2
    assert distances["wasserstein_norms"] == pytest.approx(1 / 3)


def test_against_scipy(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 3)
    torch.manual_seed(0)
    base, now = torch.randn(8, 50, dtype=torch.float64), torch.randn(8, 50, dtype=torch.float64) * 2 + 1
    each = [wasserstein_distance(a, b) for a, b in zip(now.numpy(), base.numpy())]
    distances = drift(now, base)
    assert distances["wasserstein"][0] == pytest.approx(sum(each) / 8, rel=1e-5)
    assert distances["wasserstein"][1] == pytest.approx(torch.tensor(each).std(correction=0).item(), rel=1e-4)
    assert distances["wasserstein_norms"] == pytest.approx(
        wasserstein_distance(now.norm(dim=1).numpy(), base.norm(dim=1).numpy()), rel=1e-5
    )
    assert distances["cosine"][0] == pytest.approx(
        torch.nn.functional.cosine_similarity(now, base, dim=1).mean().item(), rel=1e-4
    )


def test_nothing_moved_and_a_bias():
    weight = torch.randn(4, 6).half()
    distances = drift(weight, weight.clone())
    assert (
        distances["wasserstein"] == [0, 0]
        and distances["l2"] == [0, 0]
        and distances["wasserstein_norms"] == 0
    )
    assert distances["cosine"] == pytest.approx([1, 0], abs=1e-6)
    assert drift(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 2.0]))["l2"] == [1, 0]
