"""Null space and leakage, in float64."""

import pytest
import torch

from easyedit_neuron.locate_then_edit.update import leakage
from easyedit_neuron.statistics.nullspace import null_space
from helpers.systems import D, some_covariance, some_keys


def test_projection_is_the_same_from_basis_and_complement():
    cov = some_covariance(rank=6)
    space = null_space(cov, 1e-9)
    u, s, _ = torch.linalg.svd(cov)
    small = u[:, s < 1e-9]
    assert space.complement and space.dim == D - 6
    torch.testing.assert_close(
        space.project(some_keys(3, 9)), small @ small.T @ some_keys(3, 9), rtol=1e-9, atol=1e-11
    )


def test_leakage_by_hand_and_by_the_full_matrices():
    """D = e0 e1^T, C = diag(1, 3): tr(D C D^T) = 3, |D|^2 = 1, tr C = 4."""
    left, right = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    assert leakage(left, right, torch.diag(torch.tensor([1.0, 3.0]))) == pytest.approx(0.75)
    left, right, cov = torch.randn(7, 2, dtype=torch.float64), some_keys(2, 4), some_covariance()
    delta = left @ right.T
    plain = torch.trace(delta @ cov @ delta.T) / (delta.norm() ** 2 * torch.trace(cov))
    assert leakage(left, right, cov) == pytest.approx(float(plain))
