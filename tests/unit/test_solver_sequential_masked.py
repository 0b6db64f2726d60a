"""``mask_stage: solve`` of the sequential solver against the equation of the restricted problem, in
float64."""

import pytest
import torch

from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver
from easyedit_neuron.statistics.nullspace import Subspace, null_space
from helpers.systems import F64, PROBLEMS, D, buffer_of, plain, some_covariance, some_keys


def _mask(seed, share=0.4):
    return torch.rand(D, generator=torch.Generator().manual_seed(seed)) < share


def _null_space(covariance, rows):
    index = rows.nonzero().squeeze(1)
    return null_space(covariance[index][:, index], 1e-9)


def _plain_masked(keys, earlier, problem, rows, subspace=None):
    """The plain equation of the restricted problem (PNKE Eq. 10, or with the null space of C_mm), zero
    elsewhere."""
    index = rows.nonzero().squeeze(1)
    preserve = None if problem.preserve is None else problem.preserve[index][:, index]
    inner = Problem(problem.ridge, preserve, subspace, problem.weight)
    expected = torch.zeros_like(keys)
    expected[index] = plain(keys[index], earlier[index], inner)
    return expected


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("m", [0, 3, 200, 600])
@pytest.mark.parametrize("case", ["memit", "ridge", 12, 5])
def test_masked_rows_equal_the_restricted_formula(case, n, m):
    """The covariance's ridge, none, and the restricted null space by its thin basis and by that of its
    complement."""
    problem, restricted = PROBLEMS.get(case, PROBLEMS["ridge"]), None
    buffer, keys = buffer_of(m), some_keys(n, 1)
    solver = SequentialSolver(problem, buffer)
    for seed in range(2):  # another mask at the next edit
        rows = _mask(seed)
        if case not in PROBLEMS:
            restricted = _null_space(some_covariance(case), rows)
            assert restricted.complement == (case == 5) and restricted.dim > 0
        got = solver.masked_key_factor(keys, rows, restricted)
        expected = _plain_masked(keys, buffer.columns(), problem, rows, restricted)
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)
        assert not got[~rows].any()


def test_masked_rows_follow_the_buffer():
    problem, buffer = PROBLEMS["memit"], buffer_of(300)
    solver = SequentialSolver(problem, buffer)
    for change in (
        lambda: None,
        lambda: buffer.append(some_keys(300, 7)),
        lambda: buffer.truncate(590),
        lambda: buffer.remove(100, 110),
        lambda: buffer.truncate(5),
        lambda: buffer.append(some_keys(1, 8)),
    ):
        change()
        rows, keys = _mask(len(buffer)), some_keys(2, 1)
        expected = _plain_masked(keys, buffer.columns(), problem, rows)
        torch.testing.assert_close(solver.masked_key_factor(keys, rows), expected, rtol=1e-8, atol=1e-10)


def test_masks_without_a_buffer_without_rows_and_without_a_null_space():
    keys, rows = some_keys(2, 1), _mask(1)
    solver = SequentialSolver(PROBLEMS["memit"])
    expected = _plain_masked(keys, keys[:, :0], PROBLEMS["memit"], rows)
    torch.testing.assert_close(solver.masked_key_factor(keys, rows), expected, rtol=1e-8, atol=1e-10)
    assert not solver.masked_key_factor(keys, rows & False).any()
    nothing = SequentialSolver(PROBLEMS["ridge"], buffer_of(3))
    empty = Subspace(torch.zeros(int(rows.sum()), 0, dtype=F64), complement=False)
    assert not nothing.masked_key_factor(keys, rows, empty).any()


def test_the_restricted_null_space_is_not_left():
    """Delta C = 0 where the null space is that of the restricted covariance; masking a finished solution
    breaks it."""
    keys, rows, cov = some_keys(2, 1), torch.arange(D) % 2 == 0, some_covariance(rank=6)
    inside = SequentialSolver(Problem(0.5)).masked_key_factor(keys, rows, _null_space(cov, rows))
    assert float(inside.norm()) > 1e-3 and float((cov @ inside).norm()) < 1e-9
    post = SequentialSolver(Problem(0.5, subspace=null_space(cov, 1e-9))).key_factor(keys) * rows[:, None]
    assert float((cov @ post).norm()) > 1e-3


def test_a_full_mask_changes_nothing():
    solver = SequentialSolver(PROBLEMS["memit"], buffer_of(5))
    masked = solver.masked_key_factor(some_keys(2, 1), torch.ones(D, dtype=torch.bool))
    torch.testing.assert_close(masked, solver.key_factor(some_keys(2, 1)), rtol=1e-9, atol=1e-11)
