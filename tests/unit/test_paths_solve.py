"""The solver against the plain formulas, in float64."""

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.paths.solve import Problem, leakage, masked_right_factor, right_factor
from easyedit_neuron.stats.nullspace import Subspace, null_space

D, N = 24, 2


def _keys(n, seed):
    return torch.randn(D, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _covariance(rank=D, seed=5):
    basis = torch.randn(D, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return basis @ basis.T / rank


def _projector(covariance, threshold):
    u, s, _ = torch.linalg.svd(covariance)
    small = u[:, s < threshold]
    return small @ small.T


@pytest.mark.parametrize("earlier", [0, 3, 40])
@pytest.mark.parametrize("rank", [6, 20])
def test_alphaedit_equals_the_dense_formula(earlier, rank):
    """[P (K K^T + C_p) + L2 I]^-1 P K, for both sides of the null space and of the dual form."""
    keys, old, cov, l2 = _keys(N, 1), _keys(earlier, 2) if earlier else None, _covariance(rank), 0.7
    p = _projector(cov, 1e-9)
    c_p = torch.zeros(D, D, dtype=torch.float64) if old is None else old @ old.T
    plain = torch.linalg.solve(p @ (keys @ keys.T + c_p) + l2 * torch.eye(D, dtype=torch.float64), p @ keys)
    got = right_factor(keys, old, Problem(l2, subspace=null_space(cov, 1e-9)))
    torch.testing.assert_close(got, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("earlier", [0, 3, 40])
def test_memit_equals_the_dense_formula(earlier):
    """(lambda C + C_p + K K^T)^-1 K"""
    keys, old, cov = _keys(N, 1), _keys(earlier, 2) if earlier else None, _covariance()
    c_p = torch.zeros(D, D, dtype=torch.float64) if old is None else old @ old.T
    plain = torch.linalg.inv(50 * cov + c_p + keys @ keys.T) @ keys
    got = right_factor(keys, old, Problem(0.0, preserve=cov, weight=50.0))
    torch.testing.assert_close(got, plain, rtol=1e-7, atol=1e-9)


def test_one_key_without_anything_to_preserve_by_hand():
    """K = (3, 4), L2 = 25: X = K / (|K|^2 + L2) = (0.06, 0.08)."""
    keys = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    everything = Subspace(torch.eye(2, dtype=torch.float64), complement=False)
    got = right_factor(keys, None, Problem(25.0, subspace=everything))
    torch.testing.assert_close(got, torch.tensor([[0.06], [0.08]], dtype=torch.float64))


def test_solve_stage_is_the_restricted_problem():
    """(K_m K_m^T + lambda C_mm + C_p,mm + L2 I)^-1 K_m (PNKE Eq. 10), zero elsewhere."""
    keys, old, cov = _keys(N, 1), _keys(5, 2), _covariance()
    rows = torch.zeros(D, dtype=torch.bool)
    rows[[1, 4, 7, 8, 20]] = True
    k, m = keys[rows], old[rows]
    system = k @ k.T + 3 * cov[rows][:, rows] + m @ m.T + 0.5 * torch.eye(5, dtype=torch.float64)
    got = masked_right_factor(keys, old, Problem(0.5, preserve=cov, weight=3.0), rows)
    torch.testing.assert_close(got[rows], torch.linalg.solve(system, k), rtol=1e-9, atol=1e-11)
    assert not got[~rows].any()


def test_solve_stage_with_null_space_stays_in_it():
    """Delta C_mm = 0 for the null space of the restricted covariance; masking a finished solution breaks it."""
    keys, cov = _keys(N, 1), _covariance(rank=6)
    rows = torch.arange(D) % 2 == 0

    def restricted(index):
        return null_space(cov[index][:, index], 1e-9)

    inside = masked_right_factor(keys, None, Problem(0.5), rows, restricted)
    assert float((cov @ inside).norm()) < 1e-9
    post = right_factor(keys, None, Problem(0.5, subspace=null_space(cov, 1e-9))) * rows[:, None]
    assert float((cov @ post).norm()) > 1e-3


def test_full_mask_changes_nothing():
    keys, cov = _keys(N, 1), _covariance()
    problem = Problem(0.5, preserve=cov)
    full = torch.ones(D, dtype=torch.bool)
    torch.testing.assert_close(masked_right_factor(keys, None, problem, full), right_factor(keys, None, problem))


def test_singular_system_is_an_error():
    with pytest.raises(StateError, match="raise L2"):
        right_factor(_keys(1, 1), None, Problem(0.0, preserve=torch.zeros(D, D, dtype=torch.float64)))


def test_a_float32_failure_is_solved_in_float64(monkeypatch):
    """Whatever float32 cannot factor is factored in float64, and the answer comes back in float32."""
    plain = torch.linalg.cholesky_ex

    def fails_in_float32(matrix):
        factor, info = plain(matrix)
        return factor, torch.ones_like(info) if matrix.dtype == torch.float32 else info

    keys, cov = _keys(N, 1), _covariance()
    exact = right_factor(keys, None, Problem(0.1, preserve=cov))
    monkeypatch.setattr(torch.linalg, "cholesky_ex", fails_in_float32)
    got = right_factor(keys.float(), None, Problem(0.1, preserve=cov.float()))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-4, atol=1e-6)


def test_projection_is_the_same_from_basis_and_complement():
    cov = _covariance(rank=6)
    space, p = null_space(cov, 1e-9), _projector(cov, 1e-9)
    assert space.complement and space.dim == D - 6
    torch.testing.assert_close(space.project(_keys(3, 9)), p @ _keys(3, 9), rtol=1e-9, atol=1e-11)


def test_leakage_by_hand_and_by_the_full_matrices():
    """D = e0 e1^T, C = diag(1, 3): tr(D C D^T) = 3, |D|^2 = 1, tr C = 4."""
    left, right = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    assert leakage(left, right, torch.diag(torch.tensor([1.0, 3.0]))) == pytest.approx(0.75)
    left, right, cov = torch.randn(7, 2, dtype=torch.float64), _keys(2, 4), _covariance()
    delta = left @ right.T
    plain = torch.trace(delta @ cov @ delta.T) / (delta.norm() ** 2 * torch.trace(cov))
    assert leakage(left, right, cov) == pytest.approx(float(plain))
