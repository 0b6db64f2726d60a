"""The inverse of a growing system, ``S = (A_0 + V^T V)^-1``, kept as ``S = S_0 - U^T U``.

Vectors are rows here, [n, dim], as a ``KeyBuffer`` holds them: thin products with row-major matrices are up
to four times as fast that way round. A block of rows v more changes S by ``- S v^T (I + v S v^T)^-1 v S``
(Sherman-Morrison-Woodbury), that is, U gains the rows ``chol(I + v S v^T)^-1 v S``. U only grows at its end,
so an earlier S is had back by forgetting rows; an append and a product cost O(dim m) for m rows. ``S_0`` is a
number, a triangular factor, or (once there are many rows) a matrix into which U is folded now and then, so
that the cost stops growing.

The check: ``z`` is a fixed random vector and ``z A`` is kept beside S, at O(dim n) a block. ``|(z A) S - z| /
|z|`` is then the error of a solve whose answer is known; whatever has gone wrong in S shows in it.
"""

import torch

from ...errors import StateError
from .key_buffer import KeyBuffer

FOLD = 64  # rows of U that are folded into a dense S_0 with one matrix product


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
        self.ridge, self.held = ridge, ()

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S_0``"""
        return x / self.ridge


class Triangular:
    """S_0 as the Cholesky factor of A_0: two triangular solves a product."""

    def __init__(self, factor: torch.Tensor):
        self.factor, self.held = factor, (factor,)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S_0``"""
        half = torch.linalg.solve_triangular(self.factor, x.T, upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True).T


class Dense:
    """S_0 as a matrix."""

    def __init__(self, inverse: torch.Tensor):
        self.inverse = inverse
        self.held = (self.inverse,)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S_0``"""
        return x @ self.inverse

    def fold(self, rows: torch.Tensor) -> None:
        """``S_0 <- S_0 - U^T U``: symmetric as it stands."""
        self.inverse.addmm_(rows.T, rows, alpha=-1)


class RunningInverse:
    """S of ``A = A_0 + V^T V`` for a V that gains rows and now and then loses its last ones.

    Attributes:
        start: S_0.
        probe: z [1, dim].
        folded: how many of the appended rows can no longer be taken back.
    """

    def __init__(self, start: Scaled | Triangular | Dense, probe: torch.Tensor, image: torch.Tensor):
        """S_0, z and ``z A_0``, both [1, dim]; their dtype and device are those of everything here."""
        self.start, self.probe, self.folded = start, probe, 0
        self._image, self._start_image = image, image
        self._rows = KeyBuffer(probe.shape[1], probe.device, probe.dtype)
        self._prepared: tuple[torch.Tensor, ...] | None = (
            None  # of the block last solved for, often the next to be appended
        )

    @property
    def appended(self) -> int:
        """Rows of V that came after the start."""
        return self.folded + len(self._rows)

    @property
    def held_bytes(self) -> int:
        """Bytes of S and of the probe."""
        tensors = (*self.start.held, self.probe, self._image, self._start_image)
        return self._rows.held_bytes + sum(t.numel() * t.element_size() for t in tensors)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """``x S`` for x [n, dim]."""
        result = self.start.times(x)
        if len(self._rows):
            rows = self._rows.rows()
            result = result - (x @ rows.T) @ rows
        return result

    def append(self, v: torch.Tensor) -> None:
        """``A <- A + v^T v`` for v [n, dim]; StateError where S has lost its positive definiteness, nothing
        has changed then."""
        v_s, factor = self._prepare(v)
        self._rows.append(torch.linalg.solve_triangular(factor, v_s, upper=False).T)
        self._prepared = None
        self._image = self._image + (self.probe @ v.T) @ v
        if isinstance(self.start, Dense) and len(self._rows) >= FOLD:
            self.start.fold(self._rows.rows())
            self.folded += len(self._rows)
            self._rows.truncate(0)
            self._start_image = self._image

    def solve(self, v: torch.Tensor) -> torch.Tensor:
        """``v (A + v^T v)^-1`` for v [n, dim], without adding v to A."""
        return torch.cholesky_solve(*self._prepare(v))

    def error(self) -> float:
        """``|z A S - z| / |z|``, see the module."""
        return float((self.times(self._image) - self.probe).norm() / self.probe.norm())

    def forget(self, count: int, change: torch.Tensor) -> None:
        """Back to ``count >= folded`` appended rows; ``change`` [1, dim] is ``z v^T v`` of those after the
        folded ones."""
        self._rows.truncate(count - self.folded)
        self._prepared = None
        self._image = self._start_image + change

    def saved(self) -> dict:
        """What ``restore`` needs. S_0 is in it only where rows have been folded into it: else it is made
        again, to the same bits."""
        return {
            "start": self.start.inverse if isinstance(self.start, Dense) else None,
            "folded": self.folded,
            "image": self._image,
            "start_image": self._start_image,
            "rows": self._rows.saved(),
            "prepared": self._prepared,
        }

    def restore(self, saved: dict) -> None:
        """Goes on, to the bit, where the saved one was; this one must have its S_0 and probe."""
        self.folded, self._image, self._start_image = saved["folded"], saved["image"], saved["start_image"]
        self._rows = KeyBuffer.restored(saved["rows"])
        self._prepared = saved["prepared"] and tuple(saved["prepared"])

    def _prepare(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``v S`` and ``chol(I + v S v^T)``."""
        if self._prepared is None or self._prepared[0] is not v:
            v_s = self.times(v)
            inner = v_s @ v.T
            inner.diagonal().add_(1)
            self._prepared = v, v_s, cholesky(inner)
        return self._prepared[1:]
