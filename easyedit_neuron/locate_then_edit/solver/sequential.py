"""The right factor of one edit after another: the problem of ``solve``, with what does not change between
edits kept.

Per edit the cost is O(d_ff (m + n)) and, from ``dense_after`` earlier keys on, O(d_ff^2 n): never d_ff^3, and
nothing of size d_ff^2 moves between host and device. alphaedit is solved in the coordinates of the null
space's basis where that is the thinner side (``A_0 = L2 I`` there), else in key space with projected keys;
memit in key space with ``A_0 = lambda C + L2 I``.
"""

import logging
import math
from collections.abc import Iterator, Sequence

import torch

from ...errors import StateError
from ...statistics.nullspace import Subspace
from .earlier_keys import BLOCK, EarlierGram
from .key_buffer import KeyBuffer, require_finite
from .problem import Problem
from .woodbury import Dense, RunningInverse, Scaled, Triangular, cholesky

LOG = logging.getLogger(__name__)


class _Coordinates:
    """Where a system is solved: coordinates in a thin basis of the null space, or key space without what lies
    outside it."""

    def __init__(self, subspace: Subspace | None, d_ff: int, dtype: torch.dtype):
        self.basis = None if subspace is None else subspace.basis.to(dtype)
        self.thin = subspace is not None and not subspace.complement
        self.dim = self.basis.shape[1] if self.thin else d_ff

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """From key space, x [n, d_ff], to coordinates [n, dim]."""
        if self.basis is None:
            return x
        inside = x @ self.basis
        return inside if self.thin else x - inside @ self.basis.T

    def leave(self, y: torch.Tensor) -> torch.Tensor:
        """The transpose of ``enter``: from coordinates to key space."""
        return y @ self.basis.T if self.thin else self.enter(y)


class SequentialSolver:
    """Solves one layer's problem for new keys, given the keys of all earlier edits.

    Attributes:
        residual: relative error of a solve whose answer is known (``inverse``), measured by the last
            ``right_factor``.
        refactorisations: how often it exceeded ``tolerance`` and everything was made anew from the buffer.
        dtype: of everything that is kept.
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
        """Makes nothing yet: what is kept is made when it is first needed.

        Args:
            problem: what is preserved; the work is done on the device of its tensors (without any: on that of
                the keys).
            buffer: keys of earlier edits, read and never written; None: earlier edits are not protected
                (``C_p = 0``).
            dtype: of what is kept. float32 takes half the memory; the first time it misses the tolerance,
                everything is made anew in float64 and stays so.
            tolerance: largest ``residual`` that is not taken for drift. None: 1e-6 in float64 and 1e-2 in
                float32, well above the rounding of 5,000 edits on ill-conditioned systems
                (``benchmarks/drift.py``).
            dense_after: number of earlier keys beyond which the inverse is kept as a matrix. None: where that
                costs less, half of the dimension for alphaedit and an eighth for memit
                (``benchmarks/solve.py``).
        """
        self.problem, self.dtype, self._tolerance, self.dense_after = problem, dtype, tolerance, dense_after
        self.residual, self.refactorisations = 0.0, 0
        self._buffer = buffer
        self._earlier = None if buffer is None else EarlierGram(buffer)
        self._coordinates: _Coordinates | None = None
        self._inverse: RunningInverse | None = None
        self._entered: tuple[torch.Tensor, torch.Tensor] | None = None  # see _enter
        self._started = 0  # keys that were in the system when the inverse was made
        self._version = 0  # of the buffer, when it was last read

    @property
    def tolerance(self) -> float:
        """Largest ``residual`` that is not taken for drift."""
        if self._tolerance is not None:
            return self._tolerance
        return 1e-6 if self.dtype == torch.float64 else 1e-2

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept beside the problem and the buffer."""
        held = self._earlier.held_bytes if self._earlier else 0
        if self._inverse is not None:
            held += self._inverse.held_bytes
            if (
                self._coordinates.basis is not None
                and self._coordinates.basis is not self.problem.subspace.basis
            ):
                held += self._coordinates.basis.numel() * self._coordinates.basis.element_size()
        return held

    def right_factor(self, keys: torch.Tensor, without: Sequence[int] = ()) -> torch.Tensor:
        """X of ``solve`` with the buffer's keys as the earlier ones.

        Args:
            keys: K [d_ff, n], any floating dtype and device. They are not added to the earlier ones.
            without: numbers of the buffer's keys that this solve does not protect.

        Returns:
            X [d_ff, n] in the keys' dtype and on their device.

        Raises:
            StateError: the system is not positive definite even in float64, or the keys are not finite.
        """
        require_finite(keys)
        if self._subspace is not None and self._subspace.dim == 0:
            return torch.zeros_like(keys)
        solution = self._attempt(keys, without)
        if not self.residual <= self.tolerance and not self._fresh:
            LOG.warning(
                "solver: residual %.1e exceeds %.1e; factorising anew in float64",
                self.residual,
                self.tolerance,
            )
            self.refactorisations += 1
            self._inverse, self.dtype = None, torch.float64
            solution = self._attempt(keys, without)
        if not self.residual <= self.tolerance:
            LOG.warning(
                "solver: residual %.1e exceeds %.1e in a fresh factorisation: the system is ill-conditioned, raise L2",
                self.residual,
                self.tolerance,
            )
        return solution.to(keys)

    @property
    def _fresh(self) -> bool:
        """Nothing was added to a float64 factorisation: making it again would not make it better."""
        return self.dtype == torch.float64 and (self._inverse is None or self._inverse.appended == 0)

    def _attempt(self, keys: torch.Tensor, without: Sequence[int]) -> torch.Tensor | None:
        """X and ``residual``; a system that only drift can have made indefinite has an infinite one."""
        try:
            self._take_up(keys)
            entered = self._enter(self._local(keys.T))
            solution = self._without(entered, without) if len(without) else self._inverse.solve(entered)
            self.residual = self._inverse.error()
            return self._coordinates.leave(solution).T
        except StateError:
            if self._fresh:
                raise
            self.residual = math.inf
            return None

    def _without(self, entered: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        """``K^T (A + K K^T - O O^T)^-1`` for earlier keys O: the solve for both, which adds O O^T, corrected
        by the inverse of a matrix of their number (Sherman-Morrison-Woodbury)."""
        old = self._coordinates.enter(self._local(self._buffer.rows()[list(numbers)]))
        both = self._inverse.solve(torch.cat([entered, old]))
        new, gone = both[: len(entered)], both[len(entered) :]
        inner = torch.eye(len(old), dtype=old.dtype, device=old.device) - 2 * gone @ old.T
        return new + 2 * torch.linalg.solve(inner, old @ new.T).T @ gone

    def _take_up(self, keys: torch.Tensor) -> None:
        """Brings the inverse to the buffer's present keys."""
        total = 0 if self._buffer is None else len(self._buffer)
        if self._inverse is not None:
            self._follow_cuts()
        if self._inverse is None or not isinstance(self._inverse.start, Dense) and total > self._limit:
            self._start(keys, total)
        for block in self._blocks(self._started + self._inverse.appended, total):
            self._inverse.append(self._enter(block))

    def _enter(self, x: torch.Tensor) -> torch.Tensor:
        """Coordinates of keys [n, d_ff]. Those of the last ones are kept: what an edit solved for is what it
        then adds."""
        if self._entered is None or not torch.equal(x, self._entered[0]):
            self._entered = x, self._coordinates.enter(x)
        return self._entered[1]

    def _start(self, keys: torch.Tensor, total: int) -> None:
        """A new inverse: without the earlier keys, or with all of them where they are many."""
        self._inverse = self._entered = None  # their memory is needed
        self._version = 0 if self._buffer is None else self._buffer.version
        probe = self._place(len(keys), keys.device)
        dense = total > self._limit
        self._started = total if dense else 0
        if dense or self.problem.preserve is not None:
            factor = cholesky(self._system(self._started))
            # not probe @ system: a covariance that is symmetric only up to rounding would look like drift
            start = Dense(torch.cholesky_inverse(factor)) if dense else Triangular(factor)
            self._inverse = RunningInverse(start, probe, (probe @ factor) @ factor.T)
        else:
            self._inverse = RunningInverse(Scaled(self.problem.ridge), probe, self.problem.ridge * probe)

    def _place(self, d_ff: int, device: torch.device) -> torch.Tensor:
        """Device and coordinates of a new inverse, and its probe."""
        self._device = self._problem_device or device
        self._coordinates = _Coordinates(self._subspace, d_ff, self.dtype)
        return torch.randn(1, self._coordinates.dim, generator=torch.Generator().manual_seed(0)).to(
            self._device, self.dtype
        )

    def saved(self) -> dict:
        """What ``restore`` needs to go on to the same bits: tensors and plain values. Nothing here changes by
        saving."""
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
            "started": self._started,
            "entered": self._entered,
            "inverse": inverse,
            "earlier": None if self._earlier is None else self._earlier.saved(),
        }

    def restore(self, saved: dict) -> None:
        """Takes the place of the saved solver, in one just made for the same problem and the same buffer."""
        self.dtype, self.residual = getattr(torch, saved["dtype"]), saved["residual"]
        self.refactorisations = saved["refactorisations"]
        inverse = saved["inverse"]
        if inverse is not None:
            device = torch.device(inverse["device"])
            if inverse["start"] is None:
                self._start(torch.empty(inverse["d_ff"], 0, device=device), 0)
            else:
                probe = self._place(inverse["d_ff"], device)
                self._inverse = RunningInverse(Dense(inverse["start"]), probe, inverse["image"])
            self._inverse.restore(inverse)
        self._version, self._started = saved["version"], saved["started"]
        self._entered = saved["entered"] and tuple(saved["entered"])
        if self._earlier is not None:
            self._earlier.restore(saved["earlier"])

    def _system(self, count: int) -> torch.Tensor:
        """A with the first ``count`` keys, as a matrix."""
        if self.problem.preserve is None:
            dim = self._coordinates.dim
            system = torch.zeros(dim, dim, dtype=self.dtype, device=self._device)
        else:
            system = self.problem.preserve.to(self.dtype, copy=True).mul_(self.problem.weight)
        system.diagonal().add_(self.problem.ridge)
        for block in self._blocks(0, count):
            inside = self._coordinates.enter(block)
            system.addmm_(inside.T, inside)
        return system

    def _follow_cuts(self) -> None:
        """Forgets keys that are no longer in the buffer; the inverse is dropped where they cannot be taken
        out."""
        if self._buffer is None or self._version == self._buffer.version:
            return
        held = self._started + self._inverse.appended
        known = min(self._buffer.unchanged_since(self._version), held)
        self._version = self._buffer.version
        fixed = self._started + self._inverse.folded
        if known < fixed:
            self._inverse = None
        elif known < held:
            probe = self._coordinates.leave(self._inverse.probe)
            change = torch.zeros_like(probe)
            for block in self._blocks(fixed, known):
                change += (probe @ block.T) @ block
            self._inverse.forget(known - self._started, self._coordinates.enter(change))

    @property
    def _limit(self) -> int:
        if self.dense_after is not None:
            return self.dense_after
        return self._coordinates.dim // (2 if self.problem.preserve is None else 8)

    @property
    def _subspace(self) -> Subspace | None:
        return self.problem.subspace if self.problem.preserve is None else None

    def _blocks(self, start: int, stop: int) -> Iterator[torch.Tensor]:
        """The buffer's keys from ``start`` to ``stop``, in pieces [<= BLOCK, d_ff] of the solver's dtype."""
        for first in range(start, stop, BLOCK):
            yield self._local(self._buffer.rows(first, min(first + BLOCK, stop)))

    def _local(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(
            self._device, self.dtype, copy=True
        )  # never a view of the buffer: its memory is used again

    @property
    def _problem_device(self) -> torch.device | None:
        preserve, subspace = self.problem.preserve, self.problem.subspace
        return (
            preserve.device if preserve is not None else None if subspace is None else subspace.basis.device
        )

    def masked_right_factor(
        self,
        keys: torch.Tensor,
        rows: torch.Tensor,
        subspace: Subspace | None = None,
        without: Sequence[int] = (),
    ) -> torch.Tensor:
        """``mask_stage: solve``: X of the same problem on the rows of a mask, with the buffer's keys as the
        earlier ones.

        The masked rows differ from edit to edit, so the system of s rows is factored anew, in float64, s^3 /
        3; the Gram matrix of the earlier keys is kept.

        Args:
            keys: K [d_ff, n].
            rows: boolean [d_ff]; all False gives zero.
            subspace: null space of the restricted covariance, in which the solution must lie; None: all of
                key space. The problem's own subspace is ignored: a masked vector of it leaves it.
            without: numbers of the buffer's keys that this solve does not protect.

        Returns:
            X [d_ff, n] in the keys' dtype, zero outside ``rows``.

        Raises:
            StateError: the restricted system is not positive definite, or the keys are not finite.
        """
        require_finite(keys)
        solution = torch.zeros_like(keys)
        device = self._problem_device or keys.device
        index = rows.to(device).nonzero().squeeze(1)
        if not len(index):
            return solution
        preserve = self.problem.preserve
        if subspace is not None and subspace.dim == 0:
            return solution
        masked = keys.T.to(device, torch.float64)[:, index]
        system = masked.T @ masked
        if self._earlier is not None:
            self._earlier.add_to(system, index)
        if len(without):
            gone = self._buffer.rows()[list(without)].to(device, torch.float64)[:, index]
            system.addmm_(gone.T, gone, alpha=-1)
        if preserve is not None:
            system.add_(preserve[index[:, None], index], alpha=self.problem.weight)
        coordinates = _Coordinates(subspace, len(index), torch.float64)
        if subspace is not None:
            system = coordinates.enter(coordinates.enter(system).T)
        system.diagonal().add_(self.problem.ridge)
        inner = torch.cholesky_solve(coordinates.enter(masked).T, cholesky(system))
        solution[index.to(keys.device)] = coordinates.leave(inner.T).T.to(keys)
        return solution
