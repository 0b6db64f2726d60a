"""The solve stage against EasyEdit's equations as ``torch.linalg.solve`` takes them, at the size of real FFN
layers.

``python -m benchmarks.solve --sizes 2048 8192``. One run of either side is one edit as it happens in a
sequence: the n keys of the edit before join the earlier ones, then n new keys are solved for. The peer adds
    ``K K^T`` to a d_ff x d_ff sum and solves

- alphaedit, float32: ``[P (K K^T + C_p) + L2 I] X = P K``
- memit, float64: ``(lambda C + C_p + K K^T) X = K`` (EasyEdit has no C_p there; it costs the peer one
  addition)

for X, not for the update ``X R^T`` that EasyEdit solves for with d_model right-hand sides: that favours the
peer. Its matrices stay in memory and on the device; EasyEdit moves P and C_p there for every layer and edit.
Where the earlier keys pass the number from which ours keeps the inverse as a matrix, one run pays for the
    change: see the spread.
"""

import math
from pathlib import Path

import torch

from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver

from . import synthetic
from .timing import alternate, free_bytes, parser, report, seconds, write_json

# bytes per entry of a d_ff x d_ff matrix at the peak, peer and ours together
# alphaedit: P, C_p, the system, its product with P and LU's copy in float32; U and a projector basis of ours
# memit: C in float32; C_p, lambda C in float64, the system and LU's copy of it in float64; our factor and its
# working copy
NEEDED = {"alphaedit": 5 * 4 + 4, "memit": 4 + 4 * 8 + 2 * 8}


def needed_bytes(d_ff: int, path: str, earlier: int, keys: int, repeats: int) -> int:
    """Memory that a measurement takes, both sides together: the matrices, and all keys in float32 and
    float64."""
    return NEEDED[path] * d_ff**2 + 3 * 8 * d_ff * (earlier + keys * (repeats + 2))


class Peer:
    """The plain equation, solved anew for every edit."""

    def __init__(
        self,
        path: str,
        directions: torch.Tensor,
        ridge: float,
        weight: float,
        source: synthetic.KeySource,
        keys: int,
    ):
        self._path, self._ridge, self._weight, self._source, self._count = path, ridge, weight, source, keys
        self._last: torch.Tensor | None = None
        d_ff = len(directions)
        if path == "alphaedit":
            self._fixed = torch.eye(d_ff, device=directions.device) - directions @ directions.T
        else:
            self._fixed = synthetic.covariance(directions)
        self._earlier = torch.zeros_like(
            self._fixed, dtype=torch.float32 if path == "alphaedit" else torch.float64
        )

    def add(self, keys: torch.Tensor) -> None:
        """Keys of an edit that has been made."""
        keys = keys.to(self._earlier.dtype)
        self._earlier.addmm_(keys, keys.T)

    def edit(self) -> torch.Tensor:
        """One edit in the sequence."""
        if self._last is not None:
            self.add(self._last)
        self._last = self._source.next(self._count)
        keys = self._last.to(self._earlier.dtype)
        if self._path == "alphaedit":
            system = self._fixed @ (keys @ keys.T + self._earlier)
            system.diagonal().add_(self._ridge)
            return torch.linalg.solve(system, self._fixed @ keys)
        return torch.linalg.solve(self._weight * self._fixed.double() + self._earlier + keys @ keys.T, keys)


class Ours:
    """The sequential solver on the same keys."""

    def __init__(
        self,
        path: str,
        directions: torch.Tensor,
        ridge: float,
        weight: float,
        source: synthetic.KeySource,
        keys: int,
    ):
        self._source, self._count, self._last = source, keys, None
        self.buffer = KeyBuffer(len(directions), directions.device)
        if path == "alphaedit":
            problem = Problem(ridge, subspace=synthetic.null_space_of(directions))
        else:
            problem = Problem(0.0, preserve=synthetic.covariance(directions), weight=weight)
        self.solver = SequentialSolver(problem, self.buffer)

    def edit(self) -> torch.Tensor:
        """One edit in the sequence."""
        if self._last is not None:
            self.buffer.append(self._last)
        self._last = self._source.next(self._count)
        return self.solver.right_factor(self._last)


def measure(path: str, d_ff: int, keys: int, earlier: int, given) -> dict:
    """One line of the table."""
    directions = synthetic.energetic_directions(d_ff, d_ff // 8, device=given.device)
    both = [
        kind(
            path,
            directions,
            given.L2,
            given.weight,
            synthetic.KeySource(d_ff, seed=3, device=given.device),
            keys,
        )
        for kind in (Peer, Ours)
    ]
    peer, ours = both
    if earlier:
        before = synthetic.KeySource(d_ff, seed=4, device=given.device).next(earlier)
        peer.add(before)
        ours.buffer.append(before)
    first = []  # the warm-up: both sides solve the same equation
    set_up = seconds(lambda: first.append(ours.edit()))
    truth = peer.edit()
    difference = float((first[0] - truth).norm() / truth.norm())
    result = report(
        f"{path} d_ff {d_ff} n {keys} earlier {earlier}",
        alternate(peer.edit, ours.edit, given.repeats, warm_up=0),
    )
    print(
        f"    ours: first edit {set_up:.2f} s, X differs from the peer's by {difference:.1e}, "
        f"{ours.solver.held_bytes / 2**20:.0f} MB kept"
    )
    return result | {
        "path": path,
        "d_ff": d_ff,
        "keys": keys,
        "earlier": earlier,
        "first_seconds": set_up,
        "difference": difference,
        "ours_bytes": ours.solver.held_bytes,
    }


def main() -> None:
    """All combinations that were asked for and that fit into memory."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sizes", type=int, nargs="+", default=[2048, 8192, 14336], help="d_ff")
    arguments.add_argument(
        "--keys", type=int, nargs="+", default=[1, 100], help="n, requests solved together"
    )
    arguments.add_argument("--earlier", type=int, nargs="+", default=[0, 1000], help="keys of earlier edits")
    arguments.add_argument(
        "--paths", nargs="+", choices=["alphaedit", "memit"], default=["alphaedit", "memit"]
    )
    arguments.add_argument("--repeats", type=int, default=5, help="pairs of runs after the warm-up")
    arguments.add_argument("--L2", type=float, default=10.0)
    arguments.add_argument(
        "--weight", type=float, default=15000.0, help="lambda, the weight of the covariance on the memit path"
    )
    given = arguments.parse_args()
    results = []
    for d_ff in given.sizes:
        for path in given.paths:
            for keys in given.keys:
                for earlier in given.earlier:
                    needed, free = (
                        needed_bytes(d_ff, path, earlier, keys, given.repeats),
                        free_bytes(given.device),
                    )
                    if needed > free:
                        print(
                            f"{path} d_ff {d_ff} n {keys} earlier {earlier}: left out, it needs {_gigabytes(needed)} and "
                            f"{_gigabytes(free)} are free on {given.device}"
                        )
                        continue
                    results.append(measure(path, d_ff, keys, earlier, given))
    if results:
        mean = math.exp(sum(math.log(r["ratio"]) for r in results) / len(results))
        print(f"geometric mean of the ratios: {mean:.1f}")
    write_json(given.json, results, **{k: v for k, v in vars(given).items() if not isinstance(v, Path)})


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"


if __name__ == "__main__":
    with torch.no_grad():
        main()
