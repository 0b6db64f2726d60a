"""The directions of key space in which the model's text has (almost) no energy."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Subspace:
    """An orthonormal basis of the null space, or of its complement where that is smaller.

    Attributes:
        basis: [d_ff, r], orthonormal columns.
        complement: True if ``basis`` spans the complement of the null space.
    """

    basis: torch.Tensor
    complement: bool

    @property
    def dim(self) -> int:
        """Dimension of the null space."""
        d_ff, rank = self.basis.shape
        return d_ff - rank if self.complement else rank

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """``P x`` for x [d_ff, n]: two thin products, P itself is never built."""
        basis = self.basis.to(x)  # a float64 covariance has a float64 basis, keys are float32
        inside = basis @ (basis.T @ x)
        return x - inside if self.complement else inside


def null_space(covariance: torch.Tensor, threshold: float) -> Subspace:
    """Span of the eigenvectors of ``covariance`` [d_ff, d_ff] whose eigenvalue is below ``threshold`` (AlphaEdit's P).

    The thinner of the two bases is kept, in the covariance's dtype.
    """
    values, vectors = torch.linalg.eigh(covariance)
    small = int((values < threshold).sum())  # eigh sorts ascending
    if 2 * small <= values.numel():
        return Subspace(vectors[:, :small].contiguous(), complement=False)
    return Subspace(vectors[:, small:].contiguous(), complement=True)
