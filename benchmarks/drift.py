"""Drift and growth: thousands of sequential edits, the solver against a float64 solution of the plain
equation.

``python -m benchmarks.drift``: 5,000 single edits at d_ff 2048, float32 keys; at edits 1, 100, 1000 and 5000
    the relative error
of X, the solver's own residual, median seconds of an edit since the last checkpoint (of 100 at most) and
bytes held.
"""

import statistics
from pathlib import Path

import torch

from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver

from . import synthetic
from .timing import parser, seconds, write_json


def plain(keys: torch.Tensor, earlier: torch.Tensor, problem: Problem) -> torch.Tensor:
    """X of the textbook equation in float64, by ``torch.linalg.solve`` on the whole system."""
    keys, earlier = keys.double(), earlier.double()
    system = keys @ keys.T + earlier @ earlier.T
    if problem.preserve is None:
        basis = problem.subspace.basis.double()
        system -= basis @ (basis.T @ system)
        keys = keys - basis @ (basis.T @ keys)
    else:
        system += problem.weight * problem.preserve.double()
    system.diagonal().add_(problem.ridge)
    return torch.linalg.solve(system, keys)


def measure(
    name: str, problem: Problem, d_ff: int, dtype: torch.dtype, checkpoints: list[int], device: str
) -> list[dict]:
    """One path with one dtype of what the solver keeps."""
    source, buffer = synthetic.KeySource(d_ff, device=device), KeyBuffer(d_ff, device)
    solver = SequentialSolver(problem, buffer, dtype=dtype)
    rows, times, edit = [], [], 0
    for checkpoint in checkpoints:
        while edit < checkpoint:
            edit += 1
            keys = source.next(1)
            solved = []
            times.append(seconds(lambda: solved.append(solver.right_factor(keys))))
            if edit == checkpoint:
                truth = plain(keys, buffer.columns(), problem)
                error = float((solved[0] - truth).norm() / truth.norm())
            buffer.append(keys)
        row = {
            "path": name,
            "kept": str(dtype)[6:],
            "edit": edit,
            "error": error,
            "residual": solver.residual,
            "seconds": statistics.median(times[-100:]),
            "slowest": max(times[1:] or times),
            "solver_bytes": solver.held_bytes,
            "key_bytes": buffer.held_bytes,
            "refactorisations": solver.refactorisations,
        }
        rows.append(row)
        print(
            f"{name:<16} {row['kept']:<8} {edit:>6} {error:>10.1e} {row['residual']:>10.1e} {row['seconds'] * 1e3:>9.2f}"
            f" {row['slowest'] * 1e3:>9.0f} {row['solver_bytes'] / 2**20:>9.1f} {row['key_bytes'] / 2**20:>9.1f}"
            f" {row['refactorisations']:>6}",
            flush=True,
        )
    return rows


def main() -> None:
    """Runs every path that was asked for."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--d-ff", type=int, default=2048)
    arguments.add_argument("--checkpoints", type=int, nargs="+", default=[1, 100, 1000, 5000])
    arguments.add_argument(
        "--paths", nargs="+", choices=["alphaedit", "memit"], default=["alphaedit", "memit"]
    )
    arguments.add_argument(
        "--kept",
        nargs="+",
        choices=["float64", "float32"],
        default=["float64", "float32"],
        help="dtype of what the solver keeps between edits",
    )
    arguments.add_argument("--L2", type=float, default=1.0)
    arguments.add_argument(
        "--weight", type=float, default=15000.0, help="lambda, the weight of the covariance on the memit path"
    )
    given = arguments.parse_args()
    # float64: a projector that is one only to float32 would be measured, not the solver
    directions = synthetic.energetic_directions(
        given.d_ff, given.d_ff // 8, device=given.device, dtype=torch.float64
    )
    problems = {
        "alphaedit": lambda: Problem(given.L2, subspace=synthetic.null_space_of(directions)),
        "memit": lambda: Problem(
            given.L2, preserve=synthetic.covariance(directions.float()), weight=given.weight
        ),
    }
    print(
        f"{'path':<16} {'kept':<8} {'edit':>6} {'error of X':>10} {'residual':>10} {'ms':>9} {'worst ms':>9} {'solver MB':>9}"
        f" {'keys MB':>9} {'refac.':>6}"
    )
    results = []
    for path in given.paths:
        for kept in given.kept:
            results += measure(
                path,
                problems[path](),
                given.d_ff,
                getattr(torch, kept),
                sorted(given.checkpoints),
                given.device,
            )
    write_json(given.json, results, **{k: v for k, v in vars(given).items() if not isinstance(v, Path)})


if __name__ == "__main__":
    with torch.no_grad():
        main()
