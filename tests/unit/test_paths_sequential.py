"""The sequential solver against the textbook equations, solved as they stand in float64."""

import logging

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.paths.inverse import Dense, Scaled, Triangular
from easyedit_neuron.paths.keybuffer import KeyBuffer
from easyedit_neuron.paths.sequential import SequentialSolver
from easyedit_neuron.paths.solve import Problem
from easyedit_neuron.stats.nullspace import Subspace, null_space

D = 48
F64 = torch.float64


def _keys(n, seed, d=D):
    """Keys with a common mean, so that they are far from orthogonal."""
    return torch.randn(d, n, generator=torch.Generator().manual_seed(seed), dtype=F64) * 3 + 2


def _covariance(rank=D):
    factor = torch.randn(D, rank, generator=torch.Generator().manual_seed(5), dtype=F64)
    return factor @ torch.diag(10 / torch.arange(1, rank + 1, dtype=F64) ** 2) @ factor.T


def _problems():
    thin, complement = null_space(_covariance(40), 1e-9), null_space(_covariance(12), 1e-9)
    assert not thin.complement and thin.dim == 8 and complement.complement and complement.dim == 36
    return {"thin": Problem(0.4, subspace=thin), "complement": Problem(0.4, subspace=complement), "ridge": Problem(0.4),
            "memit": Problem(0.1, preserve=100 * _covariance()), "memit without L2": Problem(0.0, preserve=100 * _covariance())}


PROBLEMS = _problems()


def _plain(keys, earlier, problem):
    """[P (K K^T + C_p) + L2 I]^-1 P K, or (lambda C + C_p + K K^T + L2 I)^-1 K"""
    identity = torch.eye(len(keys), dtype=F64)
    gram = keys @ keys.T + earlier @ earlier.T
    if problem.preserve is not None:
        return torch.linalg.solve(problem.preserve + gram + problem.ridge * identity, keys)
    p = identity if problem.subspace is None else problem.subspace.project(identity)
    return torch.linalg.solve(p @ gram + problem.ridge * identity, p @ keys)


def _buffer(m, seed=2):
    buffer = KeyBuffer(D, dtype=F64)
    buffer.append(_keys(m, seed))
    return buffer


def _agrees(solver, buffer, problem, n=1, seed=1):
    keys = _keys(n, seed)
    torch.testing.assert_close(solver.right_factor(keys), _plain(keys, buffer.columns(), problem), rtol=1e-8, atol=1e-10)
    assert solver.residual < 1e-9


def _start(solver):
    return type(solver._inverse.start)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("m", [0, 3, 200])
@pytest.mark.parametrize("dense_after", [0, 10 ** 6])
def test_every_form_equals_the_plain_formula(name, n, m, dense_after):
    problem, buffer = PROBLEMS[name], _buffer(m)
    solver = SequentialSolver(problem, buffer, dense_after=dense_after)
    _agrees(solver, buffer, problem, n)
    expected = Dense if m > dense_after else Scaled if problem.preserve is None else Triangular
    assert _start(solver) is expected


@pytest.mark.parametrize("name", PROBLEMS)
def test_edit_after_edit_through_the_change_of_form(name):
    """Single keys and batches, over the point from which the inverse is a matrix and over several folds into it."""
    problem, buffer = PROBLEMS[name], KeyBuffer(D, dtype=F64)
    solver, starts = SequentialSolver(problem, buffer), set()
    for edit in range(120):
        if edit % 7 == 0:
            _agrees(solver, buffer, problem, n=2, seed=1000 + edit)
            starts.add(_start(solver))
        buffer.append(_keys(1 if edit % 5 else 4, edit))
    assert Dense in starts and len(starts) == 2
    assert solver.refactorisations == 0
    inverse = solver._inverse.start.inverse
    assert float((inverse - inverse.T).abs().max()) <= 1e-12 * float(inverse.abs().max())


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dense_after", [4, 10 ** 6])
def test_keys_that_are_taken_back(name, dense_after):
    """Truncated to a prefix, removed from the middle, removed by index; then more keys."""
    problem, buffer = PROBLEMS[name], _buffer(9)
    solver = SequentialSolver(problem, buffer, dense_after=dense_after)
    _agrees(solver, buffer, problem)
    for change in (lambda: buffer.append(_keys(6, 30)), lambda: buffer.truncate(12), lambda: buffer.remove(slice(2, 5)),
                   lambda: buffer.append(_keys(3, 31)), lambda: buffer.remove(torch.tensor([11, 0])),
                   lambda: (buffer.append(_keys(1, 32)), buffer.truncate(8), buffer.append(_keys(5, 33))),
                   lambda: buffer.truncate(0), lambda: buffer.append(_keys(2, 34))):
        change()
        _agrees(solver, buffer, problem, n=2)
    assert solver.refactorisations == 0


def test_a_truncation_to_a_prefix_keeps_the_factorisation():
    problem, buffer = PROBLEMS["memit"], _buffer(5)
    solver = SequentialSolver(problem, buffer, dense_after=100)
    solver.right_factor(_keys(1, 1))
    before = solver._inverse
    buffer.truncate(3)
    _agrees(solver, buffer, problem)
    assert solver._inverse is before


def test_edits_that_are_taken_back_before_the_next_one_cost_nothing():
    """A host that restores the weights after every edit: the solver has not yet taken the keys up."""
    problem, buffer = PROBLEMS["memit"], _buffer(20)
    solver = SequentialSolver(problem, buffer, dense_after=10)
    for edit in range(3):
        _agrees(solver, buffer, problem)
        before = solver._inverse
        buffer.append(_keys(2, edit))
        buffer.truncate(20)
        _agrees(solver, buffer, problem)
        assert solver._inverse is before


def test_without_a_buffer_nothing_accumulates():
    solver = SequentialSolver(PROBLEMS["complement"])
    for seed in range(3):
        _agrees(solver, KeyBuffer(D, dtype=F64), PROBLEMS["complement"], n=2, seed=seed)


def test_two_by_two_by_hand():
    """L2 = 5, earlier key (1, 2), new key (3, 0):

    A = [[5 + 1 + 9, 2], [2, 5 + 4]] = [[15, 2], [2, 9]], det 131, X = A^-1 (3, 0) = (27, -6) / 131.
    """
    buffer = KeyBuffer(2, dtype=F64)
    buffer.append(torch.tensor([[1.0], [2.0]]))
    new = torch.tensor([[3.0], [0.0]], dtype=F64)
    expected = torch.tensor([[27.0], [-6.0]], dtype=F64) / 131
    for dense_after in (0, 10):
        for problem in (Problem(5.0), Problem(0.0, preserve=5 * torch.eye(2, dtype=F64)),
                        Problem(5.0, subspace=Subspace(torch.eye(2, dtype=F64), complement=False))):
            got = SequentialSolver(problem, buffer, dense_after=dense_after).right_factor(new)
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_a_null_space_of_dimension_zero_allows_nothing():
    problem = Problem(1.0, subspace=Subspace(torch.zeros(D, 0, dtype=F64), complement=False))
    assert not SequentialSolver(problem, _buffer(3)).right_factor(_keys(2, 1)).any()


@pytest.mark.parametrize("dense_after", [3, 100])
def test_drift_is_noticed_and_mended(dense_after, caplog):
    """A running inverse that has gone wrong: the answer is right all the same, and the log says what happened."""
    problem, buffer = PROBLEMS["complement"], _buffer(8)
    solver = SequentialSolver(problem, buffer, dense_after=dense_after)
    solver.right_factor(_keys(1, 1))
    buffer.append(_keys(2, 3))
    solver.right_factor(_keys(1, 1))
    solver._inverse._rows.rows()[0, :5] *= 1.001
    with caplog.at_level(logging.WARNING):
        _agrees(solver, buffer, problem)
    assert solver.refactorisations == 1 and "factorising anew" in caplog.text
    _agrees(solver, buffer, problem, n=2)
    assert solver.refactorisations == 1


def test_drift_that_makes_the_system_indefinite_is_mended_too():
    problem, buffer = PROBLEMS["ridge"], _buffer(4)
    solver = SequentialSolver(problem, buffer)
    solver.right_factor(_keys(1, 1))
    solver._inverse._rows.rows().mul_(30)
    buffer.append(_keys(1, 3))
    _agrees(solver, buffer, problem)
    assert solver.refactorisations == 1


def test_float32_state_goes_over_to_float64_by_itself():
    """A covariance of condition 1e7: float32 cannot meet a tolerance of 1e-4, and the answer must still be right."""
    values = torch.logspace(-3, 4, D, dtype=F64)
    basis = torch.linalg.qr(_keys(D, 9))[0]
    problem, buffer = Problem(0.0, preserve=(basis * values) @ basis.T), _buffer(5)
    solver = SequentialSolver(problem, buffer, dtype=torch.float32, tolerance=1e-4)
    _agrees(solver, buffer, problem)
    assert solver.refactorisations == 1 and solver.dtype == F64


def test_float32_keys_and_state():
    """Two float32 roundings of the state, none of the arithmetic: well-conditioned problems agree to single precision."""
    problem, buffer = Problem(10.0, subspace=PROBLEMS["complement"].subspace), KeyBuffer(D)
    keys = _keys(2, 1).float()
    for dtype, tolerance in ((F64, 1e-6), (torch.float32, 1e-4)):
        solver = SequentialSolver(problem, buffer, dtype=dtype, dense_after=30)
        for edit in range(50):
            buffer.append(_keys(1, edit).float())
            got = solver.right_factor(keys)
        expected = _plain(keys.double(), buffer.columns().double(), problem)
        assert got.dtype == torch.float32 and solver.refactorisations == 0
        assert float((got - expected).norm() / expected.norm()) < tolerance


def test_an_asymmetric_covariance_is_no_drift():
    """float32 sums are symmetric only up to rounding; that must not be taken for an error of the inverse."""
    problem = Problem(0.0, preserve=PROBLEMS["memit"].preserve + 1e-6 * _keys(D, 4).triu(1))
    solver = SequentialSolver(problem, _buffer(3))
    solver.right_factor(_keys(1, 1))
    assert solver.residual < 1e-9


@pytest.mark.parametrize("problem", [Problem(0.0), Problem(0.0, preserve=-torch.eye(D, dtype=F64))])
def test_a_singular_system_names_the_remedy(problem):
    solver = SequentialSolver(problem, _buffer(2))
    with pytest.raises(StateError, match="raise L2"):
        solver.right_factor(_keys(1, 1))
    assert solver.refactorisations == 0


def test_keys_that_are_not_finite_are_refused():
    buffer, solver = _buffer(2), SequentialSolver(PROBLEMS["ridge"], _buffer(2))
    broken = _keys(1, 1)
    broken[3] = float("nan")
    for call in (buffer.append, solver.right_factor, lambda k: solver.masked_right_factor(k, torch.ones(D, dtype=torch.bool))):
        with pytest.raises(StateError, match="not finite"):
            call(broken)
    assert len(buffer) == 2


def test_held_bytes_count_what_is_kept():
    """float64: two rows of U and room for six more; the probe, its image and the start's image; a Cholesky factor."""
    buffer = _buffer(2)
    ridge, memit = (SequentialSolver(PROBLEMS[name], buffer) for name in ("ridge", "memit"))
    assert ridge.held_bytes == 0
    ridge.right_factor(_keys(1, 1))
    memit.right_factor(_keys(1, 1))
    assert ridge.held_bytes == (8 + 3) * D * 8
    assert memit.held_bytes == (8 + 3 + D) * D * 8


def _mask(seed, share=0.4):
    return torch.rand(D, generator=torch.Generator().manual_seed(seed)) < share


def _plain_masked(keys, earlier, problem, rows, null_space_of=None):
    """The plain equation of the restricted problem (PNKE Eq. 10, or with the null space of C_mm), zero elsewhere."""
    index = rows.nonzero().squeeze(1)
    preserve = None if problem.preserve is None else problem.preserve[index][:, index]
    inner = Problem(problem.ridge, preserve, None if null_space_of is None else null_space_of(index))
    expected = torch.zeros_like(keys)
    expected[index] = _plain(keys[index], earlier[index], inner)
    return expected


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("m", [0, 3, 200, 600])
@pytest.mark.parametrize("case", ["memit", "ridge", 12, 5])
def test_masked_rows_equal_the_restricted_formula(case, n, m):
    """The covariance's ridge, none, and the restricted null space by its thin basis and by that of its complement."""
    problem, restricted = PROBLEMS.get(case, PROBLEMS["ridge"]), None
    if isinstance(case, int):
        def restricted(index):
            space = null_space(_covariance(case)[index][:, index], 1e-9)
            assert space.complement == (case == 5) and space.dim > 0
            return space
    buffer, keys = _buffer(m), _keys(n, 1)
    solver = SequentialSolver(problem, buffer)
    for seed in range(2):  # another mask at the next edit
        rows = _mask(seed)
        got = solver.masked_right_factor(keys, rows, restricted)
        expected = _plain_masked(keys, buffer.columns(), problem, rows, restricted)
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)
        assert not got[~rows].any()


def test_masked_rows_follow_the_buffer():
    problem, buffer = PROBLEMS["memit"], _buffer(300)
    solver = SequentialSolver(problem, buffer)
    for change in (lambda: None, lambda: buffer.append(_keys(300, 7)), lambda: buffer.truncate(590),
                   lambda: buffer.remove(slice(100, 110)), lambda: buffer.truncate(5), lambda: buffer.append(_keys(1, 8))):
        change()
        rows, keys = _mask(len(buffer)), _keys(2, 1)
        expected = _plain_masked(keys, buffer.columns(), problem, rows)
        torch.testing.assert_close(solver.masked_right_factor(keys, rows), expected, rtol=1e-8, atol=1e-10)


def test_masks_without_a_buffer_without_rows_and_without_a_null_space():
    keys, rows = _keys(2, 1), _mask(1)
    solver = SequentialSolver(PROBLEMS["memit"])
    expected = _plain_masked(keys, keys[:, :0], PROBLEMS["memit"], rows)
    torch.testing.assert_close(solver.masked_right_factor(keys, rows), expected, rtol=1e-8, atol=1e-10)
    assert not solver.masked_right_factor(keys, rows & False).any()
    nothing = SequentialSolver(PROBLEMS["ridge"], _buffer(3))
    assert not nothing.masked_right_factor(
        keys, rows, lambda index: Subspace(torch.zeros(len(index), 0, dtype=F64), complement=False)).any()
