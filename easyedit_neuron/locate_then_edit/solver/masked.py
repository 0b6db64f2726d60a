"""The solver of a problem that is restricted to the rows of a mask (``mask_stage: solve``)."""

from collections.abc import Sequence

import torch

from ...statistics.nullspace import Subspace
from .key_buffer import Coordinates, KeyBuffer, require_finite
from .problem import Problem
from .woodbury import cholesky

BLOCK = 256  # keys per matrix product; bounds the memory of their copy in float64


class MaskedSolver:
    """Solve a layer's ``Problem`` on the masked rows, given the keys of all earlier edits.

    The masked rows differ from edit to edit, so the system of s rows is factorised anew in float64, in
    s^3 / 3. The Gram matrix ``C_p = M M^T`` is kept: full blocks of earlier keys are summed once into a
    matrix [d_ff, d_ff], and the rest is added at each solve.
    """

    def __init__(self, problem: Problem, buffer: KeyBuffer | None):
        self._problem, self._buffer = problem, buffer
        self._gram: torch.Tensor | None = None
        self._count = 0  # keys in the Gram matrix
        self._version = 0 if buffer is None else buffer.version  # when the buffer was last read

    @property
    def held_bytes(self) -> int:
        """Bytes of the Gram matrix."""
        return 0 if self._gram is None else self._gram.numel() * self._gram.element_size()

    def key_factor(
        self,
        keys: torch.Tensor,
        rows: torch.Tensor,
        subspace: Subspace | None = None,
        superseded: Sequence[int] = (),
    ) -> torch.Tensor:
        """X of the problem on some rows.

        Args:
            keys: K [d_ff, n].
            rows: boolean [d_ff]; all False gives zero.
            subspace: null space of the restricted covariance, in which the solution must lie; None: all of
                key space. The problem's own null space is ignored: masked vectors of it are outside it.
            superseded: indices of earlier keys that this solve does not protect.

        Returns:
            X [d_ff, n] in the keys' dtype, zero outside ``rows``.

        Raises:
            StateError: the restricted system is not positive definite, or the keys are not finite.
        """
        require_finite(keys)
        solution = torch.zeros_like(keys)
        device = self._problem.device or keys.device
        index = rows.to(device).nonzero().squeeze(1)
        if not len(index) or (subspace is not None and subspace.dim == 0):
            return solution
        # K K^T + C_p on the masked rows, without the superseded keys
        masked = keys.T.to(device, torch.float64)[:, index]
        system = masked.T @ masked
        if self._buffer is not None:
            self._add_gram(system, index)
        if len(superseded):
            old = self._buffer.rows()[list(superseded)].to(device, torch.float64)[:, index]
            system.addmm_(old.T, old, alpha=-1)
        # what is preserved: lambda C, or the null space
        preserve = self._problem.preserve
        if preserve is not None:
            system.add_(preserve[index[:, None], index], alpha=self._problem.weight)
        coordinates = Coordinates(subspace, len(index), torch.float64)
        if subspace is not None:
            system = coordinates.project(coordinates.project(system).T)
        system.diagonal().add_(self._problem.ridge)
        inner = torch.cholesky_solve(coordinates.project(masked).T, cholesky(system))
        solution[index.to(keys.device)] = coordinates.to_key_space(inner.T).T.to(keys)
        return solution

    def _add_gram(self, system: torch.Tensor, index: torch.Tensor) -> None:
        """Add ``C_p[index, index]`` to ``system`` [s, s] in place: O(s^2), and O(d_ff^2) per new key."""
        if self._buffer.unchanged_since(self._version) < self._count:
            self._gram, self._count = None, 0
        self._version = self._buffer.version
        while len(self._buffer) - self._count >= BLOCK:
            block = self._buffer.rows(self._count, self._count + BLOCK).to(system)
            if self._gram is None:
                self._gram = system.new_zeros(block.shape[1], block.shape[1])
            self._gram.addmm_(block.T, block)
            self._count += BLOCK
        rest = self._buffer.rows(self._count)[:, index.to(self._buffer.device)].to(system)
        system.addmm_(rest.T, rest)
        if self._gram is not None:
            system += self._gram[index[:, None], index]

    def saved(self) -> dict | None:
        """Tensors and plain values for ``restore``; None without a buffer."""
        if self._buffer is None:
            return None
        return {"version": self._version, "sum": self._gram, "count": self._count}

    def restore(self, saved: dict | None) -> None:
        """Take over the state that was saved."""
        if saved is not None:
            self._version, self._gram, self._count = saved["version"], saved["sum"], saved["count"]
