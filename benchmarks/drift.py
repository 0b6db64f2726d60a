"""Thousands of sequential edits: the solver against a float64 solution of the plain equation.

    python -m benchmarks.drift

5,000 single edits at d_ff 2048, float32 keys. At edits 1, 100, 1000 and 5000: the relative error of X, the
solver's own residual, median seconds of an edit since the last checkpoint (of 100 at most) and bytes held.
"""

import statistics

import torch

from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver

from . import synthetic, timing
from .solve import add_problem_options

HEAD = (
    f"{'path':<16} {'kept':<8} {'edit':>6} {'error of X':>10} {'residual':>10} {'ms':>9} {'worst ms':>9} "
    f"{'solver MB':>9} {'keys MB':>9} {'refac.':>6}"
)


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


def measure(path: str, problem: Problem, dtype: torch.dtype, args) -> list[dict]:
    """One path with one dtype of what the solver keeps."""
    source = synthetic.KeySource(args.d_ff, device=args.device)
    buffer = KeyBuffer(args.d_ff, args.device)
    solver = SequentialSolver(problem, buffer, dtype=dtype)
    rows, times, edit = [], [], 0
    for checkpoint in sorted(args.checkpoints):
        while edit < checkpoint:
            edit += 1
            keys = source.next(1)
            solution, spent = timing.timed(solver.key_factor, keys)
            times.append(spent)
            if edit == checkpoint:
                expected = plain(keys, buffer.columns(), problem)
                error = float((solution - expected).norm() / expected.norm())
            buffer.append(keys)
        row = {
            "path": path,
            "kept": str(dtype).removeprefix("torch."),
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
            f"{path:<16} {row['kept']:<8} {edit:>6} {error:>10.1e} {row['residual']:>10.1e} "
            f"{row['seconds'] * 1e3:>9.2f} {row['slowest'] * 1e3:>9.0f} {row['solver_bytes'] / 2**20:>9.1f} "
            f"{row['key_bytes'] / 2**20:>9.1f} {row['refactorisations']:>6}",
            flush=True,
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    """Every path with every dtype of the arguments."""
    parser, dtypes = timing.parser(__doc__, d_ff=2048), ["float64", "float32"]
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[1, 100, 1000, 5000])
    kept_help = "dtype of what the solver keeps between edits"
    parser.add_argument("--kept", nargs="+", choices=dtypes, default=dtypes, help=kept_help)
    add_problem_options(parser, ridge=1.0)
    args = timing.parse(parser, argv)
    # In float64: the error of a float32 projector would hide that of the solver.
    directions = synthetic.energetic_directions(
        args.d_ff, args.d_ff // 8, device=args.device, dtype=torch.float64
    )
    print(HEAD)
    results = []
    for path in args.paths:
        problem = synthetic.problem(path, directions, args.L2, args.weight)
        for dtype in args.kept:
            results += measure(path, problem, getattr(torch, dtype), args)
    timing.save(args, results)


if __name__ == "__main__":
    with torch.no_grad():
        main()
