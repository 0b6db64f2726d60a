"""The solver of one layer's problem for one edit after another."""

import logging
import math
from collections.abc import Iterator, Sequence

import torch

from ...errors import StateError
from ...statistics.nullspace import Subspace
from .key_buffer import Coordinates, KeyBuffer, require_finite
from .masked import BLOCK, MaskedSolver
from .problem import Problem
from .woodbury import Dense, RunningInverse, Scaled, Triangular, cholesky

LOG = logging.getLogger(__name__)


class SequentialSolver:
    """Solve one layer's ``Problem`` for the keys of each edit, given the keys of all earlier edits.

    Let A be the problem's matrix with the earlier keys: ``lambda C + C_p + L2 I`` for memit, ``B^T C_p B +
    L2 I`` for alphaedit, in coordinates of the null space. The key factor of an edit is then
    ``X = (A + K K^T)^-1 K``. The solver keeps ``A^-1`` from edit to edit and updates it by Woodbury's
    identity (``RunningInverse``).

    An edit of n keys after m others costs O(d_ff (m + n)). After ``dense_after`` earlier keys the inverse is
    a matrix, and an edit costs O(d_ff^2 n). d_ff^3 is spent only to factorise; no d_ff x d_ff matrix moves
    between host and device.

    Attributes:
        residual: relative error of a solve whose answer is known (``RunningInverse.error``), measured by the
            last ``key_factor``.
        refactorisations: number of times that it exceeded the tolerance and A was factorised anew.
        dtype: dtype of the inverse.
    """

    def __init__(
        self,
        problem: Problem,
        buffer: KeyBuffer | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        tolerance: float | None = None,
        dense_after: int | None = None,
    ):
        """Nothing is factorised before the first solve.

        Args:
            problem: what is preserved. Its device does the work; a problem without tensors is solved on the
                device of the keys.
            buffer: keys of earlier edits, only read; None: earlier edits are not protected (``C_p = 0``).
            dtype: dtype of the inverse. float32 takes half the memory. At the first ``residual`` above the
                tolerance A is factorised in float64, and the solver stays in float64.
            tolerance: largest ``residual`` that is not drift. None: 1e-6 in float64 and 1e-2 in float32, well
                above the rounding of 5,000 edits on ill-conditioned systems (``benchmarks/drift.py``).
            dense_after: number of earlier keys after which the inverse is a matrix. None: where that costs
                less, half of the dimension for alphaedit and an eighth for memit (``benchmarks/solve.py``).
        """
        self.problem, self.dtype, self.dense_after = problem, dtype, dense_after
        self.residual, self.refactorisations = 0.0, 0
        self._tolerance, self._buffer = tolerance, buffer
        self._masked = MaskedSolver(problem, buffer)
        self._coordinates: Coordinates | None = None
        self._inverse: RunningInverse | None = None
        self._last_projected: tuple[torch.Tensor, torch.Tensor] | None = None  # see _project
        self._initial_count = 0  # keys in A_0, with which the inverse was started
        self._version = 0  # the buffer's version when it was last read

    @property
    def tolerance(self) -> float:
        """Largest ``residual`` that is not drift."""
        if self._tolerance is not None:
            return self._tolerance
        return 1e-6 if self.dtype == torch.float64 else 1e-2

    @property
    def held_bytes(self) -> int:
        """Bytes of memory beside the problem and the buffer."""
        held = self._masked.held_bytes
        if self._inverse is not None:
            held += self._inverse.held_bytes
            basis = self._coordinates.basis
            if basis is not None and basis is not self.problem.subspace.basis:
                held += basis.numel() * basis.element_size()
        return held

    def key_factor(self, keys: torch.Tensor, superseded: Sequence[int] = ()) -> torch.Tensor:
        """X for the keys of one edit.

        Args:
            keys: K [d_ff, n], any floating dtype and device. They are not added to the earlier keys.
            superseded: indices of earlier keys that this solve does not protect.

        Returns:
            X [d_ff, n] in the keys' dtype and on their device.

        Raises:
            StateError: the system is not positive definite even in float64, or the keys are not finite.
        """
        require_finite(keys)
        if self.problem.subspace is not None and self.problem.subspace.dim == 0:
            return torch.zeros_like(keys)
        solution = self._solve(keys, superseded)
        if not self.residual <= self.tolerance and not self._is_fresh:
            LOG.warning(
                "solver: residual %.1e exceeds %.1e; factorising anew in float64",
                self.residual,
                self.tolerance,
            )
            self.refactorisations += 1
            self._inverse, self.dtype = None, torch.float64
            solution = self._solve(keys, superseded)
        if not self.residual <= self.tolerance:
            LOG.warning(
                "solver: residual %.1e exceeds %.1e in a fresh factorisation: the system is "
                "ill-conditioned, raise L2",
                self.residual,
                self.tolerance,
            )
        return solution.to(keys)

    def masked_key_factor(
        self,
        keys: torch.Tensor,
        rows: torch.Tensor,
        subspace: Subspace | None = None,
        superseded: Sequence[int] = (),
    ) -> torch.Tensor:
        """X of the problem on the rows of a mask; see ``MaskedSolver.key_factor``."""
        return self._masked.key_factor(keys, rows, subspace, superseded)

    def saved(self) -> dict:
        """Tensors and plain values with which ``restore`` goes on to the same bits."""
        inverse = None
        if self._inverse is not None:
            basis = self._coordinates.basis
            d_ff = self._coordinates.dim if basis is None else len(basis)
            inverse = {**self._inverse.saved(), "d_ff": d_ff, "device": str(self._device)}
        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "residual": self.residual,
            "refactorisations": self.refactorisations,
            "version": self._version,
            "started": self._initial_count,
            "entered": self._last_projected,
            "inverse": inverse,
            "earlier": self._masked.saved(),
        }

    def restore(self, saved: dict) -> None:
        """Take over the state that was saved, in a new solver for the same problem and the same buffer."""
        self.dtype, self.residual = getattr(torch, saved["dtype"]), saved["residual"]
        self.refactorisations = saved["refactorisations"]
        inverse = saved["inverse"]
        if inverse is not None:
            d_ff, device = inverse["d_ff"], torch.device(inverse["device"])
            if inverse["start"] is None:
                self._factorise(d_ff, device, 0)
            else:
                probe = self._new_coordinates(d_ff, device)
                self._inverse = RunningInverse(Dense(inverse["start"]), probe, inverse["image"])
            self._inverse.restore(inverse)
        self._version, self._initial_count = saved["version"], saved["started"]
        self._last_projected = saved["entered"] and tuple(saved["entered"])
        self._masked.restore(saved["earlier"])

    @property
    def _is_fresh(self) -> bool:
        """Whether the inverse is a float64 factorisation without updates: another would be no better."""
        return self.dtype == torch.float64 and (self._inverse is None or self._inverse.appended == 0)

    def _solve(self, keys: torch.Tensor, superseded: Sequence[int]) -> torch.Tensor | None:
        """X, with ``residual`` set; None and infinity where drift has made the system indefinite."""
        try:
            self._update_inverse(keys)
            projected = self._project(self._local_copy(keys.T))
            if len(superseded):
                solution = self._solve_without(projected, superseded)
            else:
                solution = self._inverse.solve(projected)
            self.residual = self._inverse.error()
            return self._coordinates.to_key_space(solution).T
        except StateError:
            if self._is_fresh:
                raise
            self.residual = math.inf
            return None

    def _solve_without(self, projected: torch.Tensor, superseded: Sequence[int]) -> torch.Tensor:
        """``K^T (A + K K^T - O O^T)^-1`` for superseded keys O.

        The solve for K and O together has ``A + K K^T + O O^T``. Woodbury's identity subtracts ``2 O O^T``
        from it, with a system of the size of O.
        """
        old = self._coordinates.project(self._local_copy(self._buffer.rows()[list(superseded)]))
        both = self._inverse.solve(torch.cat([projected, old]))
        of_keys, of_old = both[: len(projected)], both[len(projected) :]
        inner = torch.eye(len(old), dtype=old.dtype, device=old.device) - 2 * of_old @ old.T
        return of_keys + 2 * torch.linalg.solve(inner, old @ of_keys.T).T @ of_old

    def _update_inverse(self, keys: torch.Tensor) -> None:
        """Bring the inverse to the buffer's present keys; ``keys`` give length and device of a new one."""
        count = 0 if self._buffer is None else len(self._buffer)
        if self._inverse is not None:
            self._drop_removed_keys()
        becomes_dense = self._inverse is not None and (
            not isinstance(self._inverse.start, Dense) and count > self._dense_limit
        )
        if self._inverse is None or becomes_dense:
            self._factorise(len(keys), keys.device, count)
        for block in self._key_blocks(self._initial_count + self._inverse.appended, count):
            self._inverse.append(self._project(block))

    def _drop_removed_keys(self) -> None:
        """Take out keys that have left the buffer; forget the inverse where that is impossible."""
        if self._buffer is None or self._version == self._buffer.version:
            return
        count = self._initial_count + self._inverse.appended
        unchanged = min(self._buffer.unchanged_since(self._version), count)
        self._version = self._buffer.version
        fixed = self._initial_count + self._inverse.folded
        if unchanged < fixed:
            self._inverse = None
        elif unchanged < count:
            probe = self._coordinates.to_key_space(self._inverse.probe)
            change = torch.zeros_like(probe)
            for block in self._key_blocks(fixed, unchanged):
                change += (probe @ block.T) @ block
            self._inverse.truncate(unchanged - self._initial_count, self._coordinates.project(change))

    def _factorise(self, d_ff: int, device: torch.device, count: int) -> None:
        """Start a new inverse: with the first ``count`` keys if they are many, else without any."""
        self._inverse = self._last_projected = None  # frees their memory first
        self._version = 0 if self._buffer is None else self._buffer.version
        probe = self._new_coordinates(d_ff, device)
        dense = count > self._dense_limit
        self._initial_count = count if dense else 0
        if dense or self.problem.preserve is not None:
            factor = cholesky(self._system(self._initial_count))
            # not probe @ system: a covariance that is symmetric only up to rounding would look like drift
            start = Dense(torch.cholesky_inverse(factor)) if dense else Triangular(factor)
            self._inverse = RunningInverse(start, probe, (probe @ factor) @ factor.T)
        else:
            self._inverse = RunningInverse(Scaled(self.problem.ridge), probe, self.problem.ridge * probe)

    def _new_coordinates(self, d_ff: int, device: torch.device) -> torch.Tensor:
        """Set device and coordinates of a new inverse; return its probe [1, dim]."""
        self._device = self.problem.device or device
        self._coordinates = Coordinates(self.problem.subspace, d_ff, self.dtype)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, self._coordinates.dim, generator=generator).to(self._device, self.dtype)

    def _system(self, count: int) -> torch.Tensor:
        """A with the first ``count`` keys [dim, dim]."""
        if self.problem.preserve is None:
            dim = self._coordinates.dim
            system = torch.zeros(dim, dim, dtype=self.dtype, device=self._device)
        else:
            system = self.problem.preserve.to(self.dtype, copy=True).mul_(self.problem.weight)
        system.diagonal().add_(self.problem.ridge)
        for block in self._key_blocks(0, count):
            projected = self._coordinates.project(block)
            system.addmm_(projected.T, projected)
        return system

    @property
    def _dense_limit(self) -> int:
        if self.dense_after is not None:
            return self.dense_after
        return self._coordinates.dim // (2 if self.problem.preserve is None else 8)

    def _project(self, keys: torch.Tensor) -> torch.Tensor:
        """Coordinates of keys [n, d_ff]; the last ones are kept, since an edit's keys are appended next."""
        if self._last_projected is None or not torch.equal(keys, self._last_projected[0]):
            self._last_projected = keys, self._coordinates.project(keys)
        return self._last_projected[1]

    def _key_blocks(self, start: int, stop: int) -> Iterator[torch.Tensor]:
        """The buffer's keys ``start`` to ``stop`` in blocks [<= BLOCK, d_ff] of the solver's dtype."""
        for first in range(start, stop, BLOCK):
            yield self._local_copy(self._buffer.rows(first, min(first + BLOCK, stop)))

    def _local_copy(self, keys: torch.Tensor) -> torch.Tensor:
        # a copy and never a view of the buffer, whose memory is used again
        return keys.to(self._device, self.dtype, copy=True)
