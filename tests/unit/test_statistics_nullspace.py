"""The null space by symmetric eigen-decomposition against AlphaEdit's way: singular values and a dense
projector."""

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.statistics.nullspace import null_space
from helpers.on_gpu import OnGpu
from helpers.systems import D, some_covariance, some_keys


def covariance(size, values, seed=0, dtype=torch.float64):
    """Q diag(values) Q^T of a random orthogonal Q."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return (q * values @ q.T).to(dtype)


def projector_by_svd(matrix, threshold):
    """Singular vectors whose singular value is below the threshold, as a dense projector."""
    u, s, _ = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, s < threshold] @ u[:, s < threshold].T


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("small", [0, 1, 20, 32, 33, 60, 64])
def test_the_projector_of_an_svd(small, dtype, tolerance):
    values = torch.cat([torch.logspace(-6, -3, small), torch.logspace(0, 2, 64 - small)]).double()
    matrix = covariance(64, values, dtype=dtype)
    space = null_space(matrix, 2e-2)
    assert (
        space.dim == small and space.basis.shape[1] == min(small, 64 - small) and space.basis.dtype == dtype
    )
    expected = projector_by_svd(matrix, 2e-2)
    torch.testing.assert_close(space.project(torch.eye(64, dtype=dtype)), expected, rtol=0, atol=tolerance)
    x = torch.randn(64, 3, dtype=dtype)
    torch.testing.assert_close(space.project(x), expected @ x, rtol=0, atol=20 * tolerance)


def test_a_singular_matrix_with_rounding_below_zero():
    """Fewer texts than neurons: eigenvalues that should be 0 come out slightly negative, and belong to the
    null space."""
    keys = torch.randn(10, 40, generator=torch.Generator().manual_seed(1))
    matrix = keys.T @ keys / 10
    space = null_space(matrix, 1e-3)
    assert space.dim == 30 and space.complement
    assert space.project(keys.T).abs().max() < 1e-4
    torch.testing.assert_close(
        space.project(torch.eye(40)), projector_by_svd(matrix, 1e-3), rtol=0, atol=1e-5
    )


def test_no_memory_for_the_decomposition(monkeypatch):
    def full(matrix):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."
        )

    monkeypatch.setattr(torch.linalg, "eigh", full)
    with pytest.raises(StateError, match="d_ff 64: no room for 48.0 KiB in host memory"):
        null_space(torch.eye(64), 0.1)


def test_other_errors_of_the_decomposition_stay_as_they_are(monkeypatch):
    def broken(matrix):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", broken)
    with pytest.raises(torch.linalg.LinAlgError):
        null_space(torch.eye(4), 0.1)


def test_a_full_gpu_leaves_the_decomposition_to_the_cpu(monkeypatch, caplog):
    matrix = covariance(8, torch.tensor([1e-3] * 3 + [1.0] * 5))
    expected = null_space(matrix, 0.1)
    plain = torch.linalg.eigh

    def eigh(x):
        if x.device.type == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(x)

    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    monkeypatch.setattr(
        "easyedit_neuron.statistics.nullspace.to_device_or_host", lambda tensor, device, what: tensor
    )
    space = null_space(matrix.as_subclass(OnGpu), 0.1)
    assert torch.equal(space.basis, expected.basis) and space.complement == expected.complement
    assert "eigen-decomposition: no room on cuda:0, going on in host memory" in caplog.text


def test_projection_is_the_same_from_basis_and_complement():
    cov = some_covariance(rank=6)
    space = null_space(cov, 1e-9)
    u, s, _ = torch.linalg.svd(cov)
    small = u[:, s < 1e-9]
    assert space.complement and space.dim == D - 6
    torch.testing.assert_close(
        space.project(some_keys(3, 9)), small @ small.T @ some_keys(3, 9), rtol=1e-9, atol=1e-11
    )
