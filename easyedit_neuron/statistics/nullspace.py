"""The directions of key space in which the model's text has (almost) no energy."""

import logging
from dataclasses import dataclass

import torch

from ..errors import StateError
from ..utils.memory import is_out_of_memory
from .memory_use import decomposition_bytes, near, readable, to_host

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subspace:
    """An orthonormal basis of the null space, or of its complement where that is smaller.

    ``P = B B^T`` of a null space of dimension r is also ``I - B' B'^T`` of the d_ff - r other eigenvectors:
    the thinner basis is exact, never larger than half of P, and a product with it never costs more than one
    with P.

    Attributes:
        basis: [d_ff, min(r, d_ff - r)], orthonormal columns.
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
    """Span of the eigenvectors of ``covariance`` [d_ff, d_ff] whose eigenvalue is below ``threshold``
    (AlphaEdit's P).

    By a symmetric eigen-decomposition, which takes about three times the covariance's memory beside it (d_ff
    14336, float32: 2.3 GiB): vectors and workspace, where AlphaEdit's SVD computes two sets of vectors. A GPU
        that has no room leaves it to
    the CPU. The thinner of the two bases is kept, in the covariance's dtype, on its device if there is room.

    Raises:
        StateError: host memory does not suffice; says how much is needed.
    """
    values, vectors = _eigh(covariance)
    small = int((values < threshold).sum())  # eigh sorts ascending
    complement = 2 * small > values.numel()
    basis = (vectors[:, small:] if complement else vectors[:, :small]).contiguous()
    del vectors
    return Subspace(near(basis, covariance.device, "basis of a null space"), complement)


def _eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return torch.linalg.eigh(matrix)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if matrix.device.type == "cpu":
            need = readable(decomposition_bytes(len(matrix), matrix.dtype))
            raise StateError(
                f"eigen-decomposition of a covariance of d_ff {len(matrix)}: no room for {need} in host memory; "
                "free some"
            ) from error
    to_host("eigen-decomposition", matrix.device)
    return _eigh(matrix.cpu())
