"""The regularised least-squares problem whose solution is the key factor X of a delta ``R X^T``.

With keys K [d_ff, n], earlier keys M (``C_p = M M^T``), covariance C and the projector P of its null space:

- alphaedit: ``X = [P (K K^T + C_p) + L2 I]^-1 P K``
- memit: ``X = (lambda C + C_p + K K^T + L2 I)^-1 K``
- ``mask_stage: post`` multiplies X by the mask; ``solve`` poses the problem on the masked rows alone (PNKE
  Eq. 10).

The alphaedit solution lies in the null space. With a basis B of it, the solution is that of a symmetric
positive definite system: ``X = B (B^T (K K^T + C_p) B + L2 I)^-1 B^T K``.
"""

from dataclasses import dataclass

import torch

from ...statistics.nullspace import Subspace


@dataclass(frozen=True)
class Problem:
    """What is preserved while K is written; at most one of ``preserve`` and ``subspace``.

    Attributes:
        ridge: L2.
        preserve: C [d_ff, d_ff], or None.
        subspace: null space in which the solution must lie; None: all of key space.
        weight: lambda, the weight of C. ``lambda C`` is not stored: it would take another d_ff x d_ff, and
            its rounding to float32 changes the problem where C is ill-conditioned.
    """

    ridge: float
    preserve: torch.Tensor | None = None
    subspace: Subspace | None = None
    weight: float = 1.0

    @property
    def device(self) -> torch.device | None:
        """Device of the tensors; None without any."""
        if self.preserve is not None:
            return self.preserve.device
        return None if self.subspace is None else self.subspace.basis.device
