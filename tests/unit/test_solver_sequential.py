"""The sequential solver against the textbook equations, solved as they stand in float64."""

import logging

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver
from easyedit_neuron.locate_then_edit.solver.woodbury import Dense, Scaled, Triangular
from easyedit_neuron.statistics.nullspace import Subspace
from helpers.systems import F64, PROBLEMS, D, buffer_of, plain, some_keys


def _agrees(solver, buffer, problem, n=1, seed=1):
    keys = some_keys(n, seed)
    torch.testing.assert_close(
        solver.key_factor(keys), plain(keys, buffer.columns(), problem), rtol=1e-8, atol=1e-10
    )
    assert solver.residual < 1e-9


def _start(solver):
    return type(solver._inverse.start)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("m", [0, 3, 200])
@pytest.mark.parametrize("dense_after", [0, 10**6])
def test_every_form_equals_the_plain_formula(name, n, m, dense_after):
    problem, buffer = PROBLEMS[name], buffer_of(m)
    solver = SequentialSolver(problem, buffer, dense_after=dense_after)
    _agrees(solver, buffer, problem, n)
    expected = Dense if m > dense_after else Scaled if problem.preserve is None else Triangular
    assert _start(solver) is expected


@pytest.mark.parametrize("name", PROBLEMS)
def test_edit_after_edit_through_the_change_of_form(name):
    """Single keys and batches, over the point from which the inverse is a matrix and over several folds into
    it."""
    problem, buffer = PROBLEMS[name], KeyBuffer(D, dtype=F64)
    solver, starts = SequentialSolver(problem, buffer), set()
    for edit in range(120):
        if edit % 7 == 0:
            _agrees(solver, buffer, problem, n=2, seed=1000 + edit)
            starts.add(_start(solver))
        buffer.append(some_keys(1 if edit % 5 else 4, edit))
    assert Dense in starts and len(starts) == 2
    assert solver.refactorisations == 0
    inverse = solver._inverse.start.inverse
    assert float((inverse - inverse.T).abs().max()) <= 1e-12 * float(inverse.abs().max())


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dense_after", [4, 10**6])
def test_keys_that_are_taken_back(name, dense_after):
    """Truncated to a prefix, removed from the middle, the end and the start; then more keys."""
    problem, buffer = PROBLEMS[name], buffer_of(9)
    solver = SequentialSolver(problem, buffer, dense_after=dense_after)
    _agrees(solver, buffer, problem)
    for change in (
        lambda: buffer.append(some_keys(6, 30)),
        lambda: buffer.truncate(12),
        lambda: buffer.remove(2, 5),
        lambda: buffer.append(some_keys(3, 31)),
        lambda: buffer.remove(11, 12),
        lambda: buffer.remove(0, 1),
        lambda: (buffer.append(some_keys(1, 32)), buffer.truncate(8), buffer.append(some_keys(5, 33))),
        lambda: buffer.truncate(0),
        lambda: buffer.append(some_keys(2, 34)),
    ):
        change()
        _agrees(solver, buffer, problem, n=2)
    assert solver.refactorisations == 0


def test_a_truncation_to_a_prefix_keeps_the_factorisation():
    problem, buffer = PROBLEMS["memit"], buffer_of(5)
    solver = SequentialSolver(problem, buffer, dense_after=100)
    solver.key_factor(some_keys(1, 1))
    before = solver._inverse
    buffer.truncate(3)
    _agrees(solver, buffer, problem)
    assert solver._inverse is before


def test_edits_that_are_taken_back_before_the_next_one_cost_nothing():
    """A host that restores the weights after every edit: the solver has not yet taken the keys up."""
    problem, buffer = PROBLEMS["memit"], buffer_of(20)
    solver = SequentialSolver(problem, buffer, dense_after=10)
    for edit in range(3):
        _agrees(solver, buffer, problem)
        before = solver._inverse
        buffer.append(some_keys(2, edit))
        buffer.truncate(20)
        _agrees(solver, buffer, problem)
        assert solver._inverse is before


def test_keys_that_are_solved_for_and_then_added():
    """What was computed for them is used again; keys in their place in the buffer are not taken for them."""
    problem, buffer = PROBLEMS["thin"], KeyBuffer(D, dtype=F64)
    solver = SequentialSolver(problem, buffer, dense_after=20)
    for edit in range(30):
        _agrees(solver, buffer, problem, n=2, seed=edit)
        buffer.append(some_keys(2, edit))
        if edit % 4 == 3:
            buffer.truncate(len(buffer) - 2)
            buffer.append(some_keys(2, 100 + edit))


def test_without_a_buffer_nothing_accumulates():
    solver = SequentialSolver(PROBLEMS["complement"])
    for seed in range(3):
        _agrees(solver, buffer_of(0), PROBLEMS["complement"], n=2, seed=seed)


def test_two_by_two_by_hand():
    """L2 = 5, earlier key (1, 2), new key (3, 0):

    A = [[5 + 1 + 9, 2], [2, 5 + 4]] = [[15, 2], [2, 9]], det 131, X = A^-1 (3, 0) = (27, -6) / 131.
    """
    buffer = KeyBuffer(2, dtype=F64)
    buffer.append(torch.tensor([[1.0], [2.0]]))
    new = torch.tensor([[3.0], [0.0]], dtype=F64)
    expected = torch.tensor([[27.0], [-6.0]], dtype=F64) / 131
    for dense_after in (0, 10):
        for problem in (
            Problem(5.0),
            Problem(0.0, preserve=5 * torch.eye(2, dtype=F64)),
            Problem(5.0, subspace=Subspace(torch.eye(2, dtype=F64), complement=False)),
        ):
            got = SequentialSolver(problem, buffer, dense_after=dense_after).key_factor(new)
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_a_null_space_of_dimension_zero_allows_nothing():
    problem = Problem(1.0, subspace=Subspace(torch.zeros(D, 0, dtype=F64), complement=False))
    assert not SequentialSolver(problem, buffer_of(3)).key_factor(some_keys(2, 1)).any()


@pytest.mark.parametrize("dense_after", [3, 100])
def test_drift_is_noticed_and_mended(dense_after, caplog):
    """A running inverse that has gone wrong: the answer is right all the same, and the log says what
    happened."""
    problem, buffer = PROBLEMS["complement"], buffer_of(8)
    solver = SequentialSolver(problem, buffer, dense_after=dense_after)
    solver.key_factor(some_keys(1, 1))
    buffer.append(some_keys(2, 3))
    solver.key_factor(some_keys(1, 1))
    solver._inverse._rows.rows()[0, :5] *= 1.001
    with caplog.at_level(logging.WARNING):
        _agrees(solver, buffer, problem)
    assert solver.refactorisations == 1 and "factorising anew" in caplog.text
    _agrees(solver, buffer, problem, n=2)
    assert solver.refactorisations == 1


def test_drift_that_makes_the_system_indefinite_is_mended_too():
    problem, buffer = PROBLEMS["ridge"], buffer_of(4)
    solver = SequentialSolver(problem, buffer)
    solver.key_factor(some_keys(1, 1))
    solver._inverse._rows.rows().mul_(30)
    buffer.append(some_keys(1, 3))
    _agrees(solver, buffer, problem)
    assert solver.refactorisations == 1


def test_float32_state_goes_over_to_float64_by_itself():
    """A covariance of condition 1e7: float32 cannot meet a tolerance of 1e-4, and the answer must still be
    right."""
    values = torch.logspace(-3, 4, D, dtype=F64)
    basis = torch.linalg.qr(some_keys(D, 9))[0]
    problem, buffer = Problem(0.0, preserve=(basis * values) @ basis.T), buffer_of(5)
    solver = SequentialSolver(problem, buffer, dtype=torch.float32, tolerance=1e-4)
    _agrees(solver, buffer, problem)
    assert solver.refactorisations == 1 and solver.dtype == F64


def test_float32_keys_and_state():
    """Two float32 roundings of the state, none of the arithmetic: well-conditioned problems agree to single
    precision."""
    problem, buffer = Problem(10.0, subspace=PROBLEMS["complement"].subspace), KeyBuffer(D)
    keys = some_keys(2, 1).float()
    for dtype, tolerance in ((F64, 1e-6), (torch.float32, 1e-4)):
        solver = SequentialSolver(problem, buffer, dtype=dtype, dense_after=30)
        for edit in range(50):
            buffer.append(some_keys(1, edit).float())
            got = solver.key_factor(keys)
        expected = plain(keys.double(), buffer.columns().double(), problem)
        assert got.dtype == torch.float32 and solver.refactorisations == 0
        assert float((got - expected).norm() / expected.norm()) < tolerance


def test_an_asymmetric_covariance_is_no_drift():
    """float32 sums are symmetric only up to rounding; that must not be taken for an error of the inverse."""
    problem = Problem(0.0, preserve=PROBLEMS["memit"].preserve + 1e-6 * some_keys(D, 4).triu(1))
    solver = SequentialSolver(problem, buffer_of(3))
    solver.key_factor(some_keys(1, 1))
    assert solver.residual < 1e-9


@pytest.mark.parametrize("problem", [Problem(0.0), Problem(0.0, preserve=-torch.eye(D, dtype=F64))])
def test_a_singular_system_names_the_remedy(problem):
    solver = SequentialSolver(problem, buffer_of(2))
    with pytest.raises(StateError, match="raise L2"):
        solver.key_factor(some_keys(1, 1))
    assert solver.refactorisations == 0


def test_keys_that_are_not_finite_are_refused():
    buffer, solver = buffer_of(2), SequentialSolver(PROBLEMS["ridge"], buffer_of(2))
    broken = some_keys(1, 1)
    broken[3] = float("nan")
    for call in (
        buffer.append,
        solver.key_factor,
        lambda k: solver.masked_key_factor(k, torch.ones(D, dtype=torch.bool)),
    ):
        with pytest.raises(StateError, match="not finite"):
            call(broken)
    assert len(buffer) == 2


@pytest.mark.parametrize("name, rows", [("ridge", 8 + 3), ("memit", 8 + 3 + D)])
def test_held_bytes_count_what_is_kept(name, rows):
    """float64: two rows of U and room for six more; the probe, its image and the start's image; a Cholesky
    factor."""
    solver = SequentialSolver(PROBLEMS[name], buffer_of(2))
    assert solver.held_bytes == 0
    solver.key_factor(some_keys(1, 1))
    assert solver.held_bytes == rows * D * 8


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dense_after", [4, 10**6])
@pytest.mark.parametrize("masked", [False, True])
def test_superseded_keys_are_unprotected_in_this_solve_alone(name, dense_after, masked):
    """The answer is that of a buffer without them; the solver afterwards is the one from before."""
    problem, buffer = PROBLEMS[name], buffer_of(9)
    if masked and problem.subspace is not None:
        problem = Problem(problem.ridge)
    solver, keys = SequentialSolver(problem, buffer, dense_after=dense_after), some_keys(3, 5)
    keys[:, 1] = buffer.columns()[:, 4] + 0.01 * some_keys(1, 6)[:, 0]  # the same subject again
    rows = torch.arange(D) % 3 > 0 if masked else torch.ones(D, dtype=torch.bool)

    def solve(superseded=()):
        return (
            solver.masked_key_factor(keys, rows, superseded=superseded)
            if masked
            else solver.key_factor(keys, superseded)
        )

    def expected(earlier):
        if not masked:
            return plain(keys, earlier, problem)
        whole, inside = torch.zeros_like(keys), rows.nonzero().squeeze(1)
        preserve = None if problem.preserve is None else problem.preserve[inside[:, None], inside]
        whole[inside] = plain(
            keys[inside], earlier[inside], Problem(problem.ridge, preserve, None, problem.weight)
        )
        return whole

    remaining = torch.tensor([0, 1, 2, 3, 5, 6, 8])
    before = solve()
    torch.testing.assert_close(solve([4, 7]), expected(buffer.columns()[:, remaining]), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(solve(), before, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(before, expected(buffer.columns()), rtol=1e-8, atol=1e-10)
    buffer.append(keys)
    torch.testing.assert_close(
        solve([4]), expected(buffer.columns()[:, [*range(4), *range(5, 12)]]), rtol=1e-6, atol=1e-8
    )
