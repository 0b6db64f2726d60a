"""Right factor X of the delta ``R X^T``: one regularised least-squares problem behind every path.

With keys K [d_ff, n], earlier keys M (``C_p = M M^T``), covariance C and a subspace with projector P:

- alphaedit: ``X = [P (K K^T + C_p) + L2 I]^-1 P K``
- memit: ``X = (lambda C + C_p + K K^T + L2 I)^-1 K``
- ``mask_stage: post`` multiplies X by the mask; ``solve`` poses the problem on the masked rows alone (PNKE Eq. 10).

Everything is a symmetric positive definite system; a basis B of the null space gives the alphaedit solution as
``X = B (B^T (K K^T + C_p) B + L2 I)^-1 B^T K``, because it lies in the null space.
"""

from dataclasses import dataclass

import torch

from ..errors import StateError
from ..stats.nullspace import Subspace
from .inverse import cholesky


@dataclass(frozen=True)
class Problem:
    """What is preserved while K is written.

    Attributes:
        ridge: L2.
        preserve: C [d_ff, d_ff], or None.
        subspace: null space in which the solution must lie, or None for all of key space.
        weight: lambda, the weight of C. Kept apart: ``lambda C`` would be another d_ff x d_ff matrix, and rounded to float32 it
            is another problem where C is ill-conditioned.
    """

    ridge: float
    preserve: torch.Tensor | None = None
    subspace: Subspace | None = None
    weight: float = 1.0


def right_factor(keys: torch.Tensor, earlier: torch.Tensor | None, problem: Problem) -> torch.Tensor:
    """Solves for X.

    Args:
        keys: K [d_ff, n], float32 or float64.
        earlier: M [d_ff, m], keys of earlier edits, or None.
        problem: what is preserved.

    Returns:
        X [d_ff, n] in the keys' dtype.

    Raises:
        StateError: the system is not positive definite even in float64 (no ridge and a singular covariance).
    """
    known = keys if earlier is None or earlier.shape[1] == 0 else torch.cat([earlier.to(keys), keys], 1)
    if problem.preserve is None:
        return _ridge_only(keys, known, problem)
    return _solve(_gram(known, problem) + problem.weight * problem.preserve.to(keys), keys)


def _gram(known: torch.Tensor, problem: Problem) -> torch.Tensor:
    gram = known @ known.T
    gram.diagonal().add_(problem.ridge)
    return gram


def _ridge_only(keys: torch.Tensor, known: torch.Tensor, problem: Problem) -> torch.Tensor:
    """``(V V^T + L2 I)^-1 P K`` with V = P [M K], by whichever of the d_ff and the dual (m + n) system is smaller."""
    inside = known if problem.subspace is None else problem.subspace.project(known)
    new = inside[:, known.shape[1] - keys.shape[1]:]
    d_ff, count = inside.shape
    if count >= d_ff:
        return _solve(_gram(inside, problem), new)
    dual = inside.T @ inside
    dual.diagonal().add_(problem.ridge)
    # (V V^T + c I)^-1 V = V (V^T V + c I)^-1, and the new keys are V's last columns
    unit = torch.zeros(count, keys.shape[1], dtype=keys.dtype, device=keys.device)
    unit[count - keys.shape[1]:] = torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device)
    return inside @ _solve(dual, unit)


def _solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """SPD solve by Cholesky; a matrix that float32 cannot factor is factored in float64."""
    try:
        return torch.cholesky_solve(right, cholesky(matrix))
    except StateError:
        if matrix.dtype == torch.float64:
            raise
        return _solve(matrix.double(), right.double()).to(right.dtype)


def masked_right_factor(keys: torch.Tensor, earlier: torch.Tensor | None, problem: Problem, rows: torch.Tensor,
                        null_space_of=None) -> torch.Tensor:
    """``mask_stage: solve``: the same problem on the rows of a boolean mask [d_ff]; other rows of X are zero.

    Args:
        keys, earlier: as in ``right_factor``.
        problem: its ``preserve`` is restricted to the masked rows and columns; its ``subspace`` is ignored, because a masked
            null-space vector leaves the null space.
        rows: boolean [d_ff]; all False gives zero.
        null_space_of: None, or a function from indices [m] to the ``Subspace`` of the restricted covariance.
    """
    index = rows.nonzero().squeeze(1)
    solution = torch.zeros_like(keys)
    if not len(index):
        return solution
    inner = Problem(problem.ridge, None if problem.preserve is None else problem.preserve[index][:, index],
                    None if null_space_of is None else null_space_of(index), problem.weight)
    solution[index] = right_factor(keys[index], None if earlier is None else earlier[index], inner)
    return solution


def leakage(left: torch.Tensor, right: torch.Tensor, covariance: torch.Tensor) -> float:
    """``tr(D C D^T) / (||D||^2 tr C)`` of D = left right^T, from thin products; 1/d_ff for a random direction."""
    gram = left.T @ left
    energy = ((right.T @ (covariance.to(right) @ right)) * gram).sum()
    norm = ((right.T @ right) * gram).sum() * covariance.diagonal().sum().to(right)
    return float(energy / norm) if float(norm) > 0 else 0.0
