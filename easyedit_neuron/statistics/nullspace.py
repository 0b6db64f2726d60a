"""The directions of key space in which the model's text has (almost) no energy."""

from dataclasses import dataclass, field

import torch

from ..errors import StateError
from ..utils.memory import is_out_of_memory
from .memory_use import decomposition_bytes, leave_full_device, readable, to_device_or_host


@dataclass(frozen=True)
class Subspace:
    """An orthonormal basis of the null space, or of its complement if that is smaller.

    With r the dimension of the null space, ``P = B B^T`` is also ``I - B' B'^T`` of the d_ff - r other
    eigenvectors. The thinner basis is exact, at most half as large as P, and never slower in a product.

    Attributes:
        basis: ``[d_ff, min(r, d_ff - r)]``, orthonormal columns.
        complement: whether ``basis`` spans the complement of the null space.
        dim: r.
    """

    basis: torch.Tensor
    complement: bool
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        d_ff, rank = self.basis.shape
        object.__setattr__(self, "dim", d_ff - rank if self.complement else rank)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """``P x`` for x ``[d_ff, n]`` by two thin products; P itself is never built."""
        basis = self.basis.to(x)  # a float64 covariance has a float64 basis, keys are float32
        inside = basis @ (basis.T @ x)
        return x - inside if self.complement else inside


def null_space(covariance: torch.Tensor, threshold: float) -> Subspace:
    """Span of the eigenvectors of ``covariance`` whose eigenvalue is below ``threshold`` (AlphaEdit's P).

    The symmetric eigen-decomposition takes about three times the covariance's memory beside it (d_ff 14336,
    float32: 2.3 GiB), less than AlphaEdit's SVD. It runs on the CPU if a GPU has no room.

    Args:
        covariance: ``[d_ff, d_ff]``, symmetric.
        threshold: bound of the eigenvalues.

    Returns:
        The thinner of the two bases, in the covariance's dtype, on its device if there is room.

    Raises:
        StateError: host memory does not suffice; the message says how much is needed.
    """
    values, vectors = _eigh(covariance)
    rank = int((values < threshold).sum())  # eigh sorts ascending
    complement = 2 * rank > values.numel()
    basis = (vectors[:, rank:] if complement else vectors[:, :rank]).contiguous()
    del vectors
    return Subspace(to_device_or_host(basis, covariance.device, "basis of a null space"), complement)


def _eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return torch.linalg.eigh(matrix)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if matrix.device.type == "cpu":
            need = readable(decomposition_bytes(len(matrix), matrix.dtype))
            raise StateError(
                f"eigen-decomposition of a covariance of d_ff {len(matrix)}: no room for {need} in host "
                "memory; free some"
            ) from error
    leave_full_device(matrix.device, "eigen-decomposition")
    return _eigh(matrix.cpu())
