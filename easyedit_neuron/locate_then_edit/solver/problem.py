"""Right factor X of the delta ``R X^T``: one regularised least-squares problem behind every path.

With keys K [d_ff, n], earlier keys M (``C_p = M M^T``), covariance C and a subspace with projector P:

- alphaedit: ``X = [P (K K^T + C_p) + L2 I]^-1 P K``
- memit: ``X = (lambda C + C_p + K K^T + L2 I)^-1 K``
- ``mask_stage: post`` multiplies X by the mask; ``solve`` poses the problem on the masked rows alone (PNKE
  Eq. 10).

Everything is a symmetric positive definite system; a basis B of the null space gives the alphaedit solution
as ``X = B (B^T (K K^T + C_p) B + L2 I)^-1 B^T K``, because it lies in the null space. ``sequential`` solves
it.
"""

from dataclasses import dataclass

import torch

from ...statistics.nullspace import Subspace


@dataclass(frozen=True)
class Problem:
    """What is preserved while K is written.

    Attributes:
        ridge: L2.
        preserve: C [d_ff, d_ff], or None.
        subspace: null space in which the solution must lie, or None for all of key space.
        weight: lambda, the weight of C. Kept apart: ``lambda C`` would be another d_ff x d_ff matrix, and
            rounded to float32 it is another problem where C is ill-conditioned.
    """

    ridge: float
    preserve: torch.Tensor | None = None
    subspace: Subspace | None = None
    weight: float = 1.0
