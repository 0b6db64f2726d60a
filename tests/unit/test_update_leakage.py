"""Leakage of a delta onto the text's keys."""

import pytest
import torch

from easyedit_neuron.edits.record import leakage
from helpers.systems import some_covariance, some_keys


def test_leakage_by_hand_and_by_the_full_matrices():
    """D = e0 e1^T, C = diag(1, 3): tr(D C D^T) = 3, |D|^2 = 1, tr C = 4."""
    left, right = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    assert leakage(left, right, torch.diag(torch.tensor([1.0, 3.0]))) == pytest.approx(0.75)
    left, right, cov = torch.randn(7, 2, dtype=torch.float64), some_keys(2, 4), some_covariance()
    delta = left @ right.T
    plain = torch.trace(delta @ cov @ delta.T) / (delta.norm() ** 2 * torch.trace(cov))
    assert leakage(left, right, cov) == pytest.approx(float(plain))
