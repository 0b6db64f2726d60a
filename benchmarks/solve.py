"""The solve stage against EasyEdit's equations by ``torch.linalg.solve``, at the size of real FFN layers.

    python -m benchmarks.solve --sizes 2048 8192

One run of either side is one edit as it happens in a sequence: the n keys of the edit before join the earlier
ones, then n new keys are solved for. The peer adds ``K K^T`` to a d_ff x d_ff sum and solves

- alphaedit, float32: ``[P (K K^T + C_p) + L2 I] X = P K``
- memit, float64: ``(lambda C + C_p + K K^T) X = K`` (EasyEdit has no C_p there; it costs the peer one
  addition)

for X, not for the update ``X R^T`` that EasyEdit solves for with d_model right-hand sides: that favours the
peer. Its matrices stay in memory and on the device; EasyEdit moves P and C_p there for every layer and edit.
Where the earlier keys pass the number from which ours keeps the inverse as a matrix, one run pays for the
change: see the spread.
"""

import itertools
import math

import torch

from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver
from easyedit_neuron.statistics.memory_use import readable

from . import synthetic, timing
from .memory import free_bytes

PATHS = ["alphaedit", "memit"]
BYTES_PER_ENTRY = {"alphaedit": 5 * 4 + 4, "memit": 4 + 4 * 8 + 2 * 8}
"""Peak of both sides together, per entry of a d_ff x d_ff matrix.

alphaedit: P, C_p, the system, its product with P and LU's copy in float32; U and a projector basis of ours.
memit: C in float32; C_p, lambda C, the system and LU's copy of it in float64; our factor and its working
copy.
"""


class Peer:
    """The plain equation, solved anew for every edit of ``count`` keys."""

    def __init__(self, problem: Problem, source: synthetic.KeySource, count: int):
        self._problem, self._source, self._count = problem, source, count
        self._last: torch.Tensor | None = None
        if problem.preserve is None:
            basis = problem.subspace.basis  # of what is not in the null space
            self._projector = torch.eye(len(basis), device=basis.device) - basis @ basis.T
            self._earlier = torch.zeros_like(self._projector, dtype=torch.float32)
        else:
            self._earlier = torch.zeros_like(problem.preserve, dtype=torch.float64)

    def add(self, keys: torch.Tensor) -> None:
        """Keys of an earlier edit."""
        keys = keys.to(self._earlier.dtype)
        self._earlier.addmm_(keys, keys.T)

    def edit(self) -> torch.Tensor:
        """One edit in the sequence."""
        if self._last is not None:
            self.add(self._last)
        self._last = self._source.next(self._count)
        keys, problem = self._last.to(self._earlier.dtype), self._problem
        if problem.preserve is None:
            system = self._projector @ (keys @ keys.T + self._earlier)
            system.diagonal().add_(problem.ridge)
            return torch.linalg.solve(system, self._projector @ keys)
        system = problem.weight * problem.preserve.double() + self._earlier + keys @ keys.T
        return torch.linalg.solve(system, keys)


class Ours:
    """The sequential solver on the same keys."""

    def __init__(self, problem: Problem, source: synthetic.KeySource, count: int):
        matrix = problem.subspace.basis if problem.preserve is None else problem.preserve
        self._source, self._count, self._last = source, count, None
        self.buffer = KeyBuffer(len(matrix), matrix.device)
        self.solver = SequentialSolver(problem, self.buffer)

    def edit(self) -> torch.Tensor:
        """One edit in the sequence."""
        if self._last is not None:
            self.buffer.append(self._last)
        self._last = self._source.next(self._count)
        return self.solver.key_factor(self._last)


def measure(path: str, d_ff: int, keys: int, earlier: int, args) -> dict:
    """One line of the table."""
    directions = synthetic.energetic_directions(d_ff, d_ff // 8, device=args.device)
    ridge = args.L2 if path == "alphaedit" else 0.0
    problem = synthetic.problem(path, directions, ridge, args.weight)
    peer, ours = (
        side(problem, synthetic.KeySource(d_ff, seed=3, device=args.device), keys) for side in (Peer, Ours)
    )
    if earlier:
        earlier_keys = synthetic.KeySource(d_ff, seed=4, device=args.device).next(earlier)
        peer.add(earlier_keys)
        ours.buffer.append(earlier_keys)
    first, set_up = timing.timed(ours.edit)  # the warm-up: both sides solve the same equation
    expected = peer.edit()
    difference = float((first - expected).norm() / expected.norm())
    result = timing.alternate(peer.edit, ours.edit, args.repeats, warm_up=0)
    row = timing.report(f"{path} d_ff {d_ff} n {keys} earlier {earlier}", result)
    held = ours.solver.held_bytes
    print(
        f"    ours: first edit {set_up:.2f} s, X differs from the peer's by {difference:.1e}, "
        f"{held / 2**20:.0f} MB kept"
    )
    sizes = {"path": path, "d_ff": d_ff, "keys": keys, "earlier": earlier}
    return row | sizes | {"first_seconds": set_up, "difference": difference, "ours_bytes": held}


def add_problem_options(parser, ridge: float) -> None:
    """``--paths``, ``--L2`` and ``--weight``."""
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=PATHS)
    parser.add_argument("--L2", type=float, default=ridge)
    weight_help = "lambda, the weight of the covariance on the memit path"
    parser.add_argument("--weight", type=float, default=15000.0, help=weight_help)


def main(argv: list[str] | None = None) -> None:
    """All combinations of the arguments that fit into memory."""
    parser = timing.parser(__doc__, repeats=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 8192, 14336], help="d_ff")
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 100], help="requests solved together")
    parser.add_argument("--earlier", type=int, nargs="+", default=[0, 1000], help="keys of earlier edits")
    add_problem_options(parser, ridge=10.0)
    args = timing.parse(parser, argv)
    results = []
    for d_ff, path, keys, earlier in itertools.product(args.sizes, args.paths, args.keys, args.earlier):
        needed = BYTES_PER_ENTRY[path] * d_ff**2 + 3 * 8 * d_ff * (earlier + keys * (args.repeats + 2))
        free = free_bytes(args.device)
        if needed > free:
            print(
                f"{path} d_ff {d_ff} n {keys} earlier {earlier}: left out, it needs {readable(needed)} and "
                f"{readable(free)} are free on {args.device}"
            )
            continue
        results.append(measure(path, d_ff, keys, earlier, args))
    if results:
        mean = math.exp(sum(math.log(row["ratio"]) for row in results) / len(results))
        print(f"geometric mean of the ratios: {mean:.1f}")
    timing.save(args, results)


if __name__ == "__main__":
    with torch.no_grad():
        main()
