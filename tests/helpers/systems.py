"""Editing systems in float64, and the textbook equations solved directly."""

import torch

from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.statistics.nullspace import null_space

D = 48
F64 = torch.float64


def some_keys(n, seed, d=D):
    """Keys with a common mean, so that they are far from orthogonal."""
    return torch.randn(d, n, generator=torch.Generator().manual_seed(seed), dtype=F64) * 3 + 2


def some_covariance(rank=D):
    """A covariance of the rank, with eigenvalues of very different sizes."""
    factor = torch.randn(D, rank, generator=torch.Generator().manual_seed(5), dtype=F64)
    return factor @ torch.diag(10 / torch.arange(1, rank + 1, dtype=F64) ** 2) @ factor.T


def _problems():
    thin, complement = null_space(some_covariance(40), 1e-9), null_space(some_covariance(12), 1e-9)
    assert not thin.complement and thin.dim == 8 and complement.complement and complement.dim == 36
    return {
        "thin": Problem(0.4, subspace=thin),
        "complement": Problem(0.4, subspace=complement),
        "ridge": Problem(0.4),
        "memit": Problem(0.1, preserve=some_covariance(), weight=100.0),
        "memit without L2": Problem(0.0, preserve=some_covariance()),
    }


PROBLEMS = _problems()


def plain(keys, earlier, problem):
    """``[P (K K^T + C_p) + L2 I]^-1 P K``, or ``(lambda C + C_p + K K^T + L2 I)^-1 K``."""
    identity = torch.eye(len(keys), dtype=F64)
    gram = keys @ keys.T + earlier @ earlier.T
    if problem.preserve is not None:
        return torch.linalg.solve(problem.weight * problem.preserve + gram + problem.ridge * identity, keys)
    projector = identity if problem.subspace is None else problem.subspace.project(identity)
    return torch.linalg.solve(projector @ gram + problem.ridge * identity, projector @ keys)


def buffer_of(count, seed=2):
    """A buffer with ``count`` earlier keys."""
    buffer = KeyBuffer(D, dtype=F64)
    buffer.append(some_keys(count, seed))
    return buffer
