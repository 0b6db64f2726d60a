"""The inverse of a growing matrix, ``S = (A_0 + V^T V)^-1``, stored as ``S = S_0 - U^T U``.

Vectors are rows, [n, dim], as in a ``KeyBuffer``; products of few rows with a row-major matrix are then up to
four times as fast. Appending rows v changes S by ``- S v^T (I + v S v^T)^-1 v S``
(Sherman-Morrison-Woodbury), so U gains the rows ``chol(I + v S v^T)^-1 v S``. U only grows at its end, so
dropping its last rows gives an earlier S again.

An append and a product cost O(dim m) for m rows. With many rows S_0 is a matrix, and U is subtracted from it
every ``FOLD`` rows, so that the cost stops growing.

Drift is measured with a fixed random vector z, for which ``z A`` is updated beside S in O(dim n) per append.
``|(z A) S - z| / |z|`` is the relative error of a solve whose answer z is known.
"""

import torch

from ...errors import StateError
from .key_buffer import KeyBuffer

FOLD = 64  # rows of U that are subtracted from a dense S_0 with one matrix product


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factor; StateError where the matrix is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise StateError(
            "the editing system is singular: raise L2 or mom2_update_weight, or measure more text"
        )
    return factor


class Scaled:
    """S_0 of ``A_0 = ridge I``."""

    def __init__(self, ridge: float):
        if not ridge > 0:
            raise StateError(
                "the editing system is singular: L2 is 0 and no covariance is preserved; raise L2"
            )
        self.ridge, self.tensors = ridge, ()

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S_0``"""
        return x / self.ridge


class Triangular:
    """S_0 by the Cholesky factor of A_0: two triangular solves per product."""

    def __init__(self, factor: torch.Tensor):
        self.factor, self.tensors = factor, (factor,)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S_0``"""
        half = torch.linalg.solve_triangular(self.factor, x.T, upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True).T


class Dense:
    """S_0 as a matrix."""

    def __init__(self, inverse: torch.Tensor):
        self.inverse, self.tensors = inverse, (inverse,)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S_0``"""
        return x @ self.inverse

    def fold(self, rows: torch.Tensor) -> None:
        """``S_0 <- S_0 - U^T U``, which is exactly symmetric."""
        self.inverse.addmm_(rows.T, rows, alpha=-1)


class RunningInverse:
    """S of ``A = A_0 + V^T V`` for a V that gains rows, and can lose its last ones.

    Attributes:
        start: S_0.
        probe: z [1, dim].
        folded: number of appended rows that are in S_0 and can no longer be dropped.
    """

    def __init__(self, start: Scaled | Triangular | Dense, probe: torch.Tensor, image: torch.Tensor):
        """S_0, z and ``image = z A_0`` [1, dim], whose dtype and device all results have."""
        self.start, self.probe, self.folded = start, probe, 0
        self._image, self._start_image = image, image  # z A now, and with the folded rows alone
        self._rows = KeyBuffer(probe.shape[1], probe.device, probe.dtype)  # U
        # (v, v S, chol(I + v S v^T)) of the last solve: the next append often has the same v
        self._last_solve: tuple[torch.Tensor, ...] | None = None

    @property
    def appended(self) -> int:
        """Number of rows of V."""
        return self.folded + len(self._rows)

    @property
    def held_bytes(self) -> int:
        """Bytes of S and of the probe."""
        tensors = (*self.start.tensors, self.probe, self._image, self._start_image)
        return self._rows.held_bytes + sum(t.numel() * t.element_size() for t in tensors)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S`` for x [n, dim]."""
        product = self.start.times(x)
        if len(self._rows):
            rows = self._rows.rows()
            product = product - (x @ rows.T) @ rows
        return product

    def append(self, v: torch.Tensor) -> None:
        """``A <- A + v^T v`` for v [n, dim].

        Raises:
            StateError: S is no longer positive definite; nothing has changed then.
        """
        v_s, factor = self._woodbury_terms(v)
        self._rows.append(torch.linalg.solve_triangular(factor, v_s, upper=False).T)
        self._last_solve = None
        self._image = self._image + (self.probe @ v.T) @ v
        if isinstance(self.start, Dense) and len(self._rows) >= FOLD:
            self.start.fold(self._rows.rows())
            self.folded += len(self._rows)
            self._rows.truncate(0)
            self._start_image = self._image

    def solve(self, v: torch.Tensor) -> torch.Tensor:
        """``v (A + v^T v)^-1`` for v [n, dim], without adding v to A."""
        return torch.cholesky_solve(*self._woodbury_terms(v))

    def error(self) -> float:
        """``|z A S - z| / |z|``, see the module."""
        return float((self.times(self._image) - self.probe).norm() / self.probe.norm())

    def truncate(self, count: int, change: torch.Tensor) -> None:
        """Keep the first ``count >= folded`` rows of V.

        ``change`` [1, dim] is ``z v^T v`` of those among them that are not folded.
        """
        self._rows.truncate(count - self.folded)
        self._last_solve = None
        self._image = self._start_image + change

    def saved(self) -> dict:
        """Tensors and plain values for ``restore``; S_0 only where it is dense (others are made again)."""
        return {
            "start": self.start.inverse if isinstance(self.start, Dense) else None,
            "folded": self.folded,
            "image": self._image,
            "start_image": self._start_image,
            "rows": self._rows.saved(),
            "prepared": self._last_solve,
        }

    def restore(self, saved: dict) -> None:
        """Take over the state that was saved, in an inverse with the same S_0 and probe."""
        self.folded, self._image, self._start_image = saved["folded"], saved["image"], saved["start_image"]
        self._rows = KeyBuffer.restored(saved["rows"])
        self._last_solve = saved["prepared"] and tuple(saved["prepared"])

    def _woodbury_terms(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``v S`` and ``chol(I + v S v^T)``."""
        if self._last_solve is None or self._last_solve[0] is not v:
            v_s = self.times(v)
            inner = v_s @ v.T
            inner.diagonal().add_(1)
            self._last_solve = v, v_s, cholesky(inner)
        return self._last_solve[1:]
