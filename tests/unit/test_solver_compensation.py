"""Error compensation against OTE-SE's own equations with their d_model x d_ff errors, in float64."""

import pytest
import torch

from easyedit_neuron.edits.record import add_factors
from easyedit_neuron.locate_then_edit.solver.compensation import Compensation
from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver
from helpers.systems import F64, PROBLEMS, D, plain, some_keys

D_MODEL = 6


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mask_of(seed, soft=False):
    values = torch.rand(D, generator=torch.Generator().manual_seed(100 + seed), dtype=F64)
    return values if soft else (values < 0.4).to(F64)


def matrix(factors):
    return factors[0] @ factors[1].T


def empty():
    return Compensation.none(D_MODEL, D, torch.empty(0, dtype=F64))


def sequence(count=8, soft=False):
    """Compensations after 0 to ``count`` edits with changes and masks of chance."""
    states = [empty()]
    for edit in range(count):
        own = draw(D_MODEL, 2, seed=edit), draw(D, 2, seed=50 + edit)
        states.append(states[-1].added(own, edit + 1, mask_of(edit, soft)))
    return states


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_the_published_equations(name, soft):
    """D = (R K^T P - E) A^-1 with A = lambda C + C_p + K K^T + L2 I (P = I), or (C_p + K K^T) P + L2 I in the
    null space; E = D (M - I) A."""
    problem, identity = PROBLEMS[name], torch.eye(D, dtype=F64)
    projector = identity if problem.subspace is None else problem.subspace.project(identity)
    buffer, state = KeyBuffer(D, dtype=F64), empty()
    solver, error = SequentialSolver(problem, buffer), torch.zeros(D_MODEL, D, dtype=F64)
    for edit in range(9):
        n = 3 if edit % 3 else 1
        keys, residual, mask = some_keys(n, edit), draw(D_MODEL, n, seed=20 + edit), mask_of(edit, soft)
        gram = keys @ keys.T + buffer.columns() @ buffer.columns().T
        system = gram @ projector + problem.ridge * identity
        if problem.preserve is not None:
            system = system + problem.weight * problem.preserve
        change = torch.linalg.solve(system.T, (residual @ keys.T @ projector - error).T).T
        error = change * (mask - 1) @ system

        key_factor = solver.key_factor(keys)
        torch.testing.assert_close(key_factor, plain(keys, buffer.columns(), problem), rtol=1e-7, atol=1e-10)
        own = residual - state.at(keys), key_factor
        values, rows = add_factors(state.rest, own)
        state = state.added(own, edit + 1, mask)
        torch.testing.assert_close(values @ (rows * mask[:, None]).T, change * mask, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(matrix(state.rest), change * (1 - mask), rtol=1e-6, atol=1e-9)
        buffer.append(keys)


def test_by_hand():
    """Two neurons, one dimension. The first edit wants (1, 2) and may write neuron 0; the second wants
    nothing, may write neuron 1, and writes the 2."""
    state = Compensation.none(1, 2, torch.empty(0))
    first = torch.tensor([[1.0]]), torch.tensor([[1.0], [2.0]])
    state = state.added(first, 1, torch.tensor([1.0, 0.0]))
    assert matrix(state.rest).tolist() == [[0.0, 2.0]]
    assert state.at(torch.tensor([[10.0], [3.0]])).tolist() == [[6.0]]
    nothing = torch.zeros(1, 1), torch.zeros(2, 1)
    values, rows = add_factors(state.rest, nothing)
    assert (values @ rows.T).tolist() == [[0.0, 2.0]]
    state = state.added(nothing, 2, torch.tensor([0.0, 1.0]))
    assert state.rest[1].shape == (2, 0), "written in full: no column is left"


def test_columns_are_bounded():
    """Neurons that no mask has keep all columns alive; Q then has d_model columns, and is the same matrix."""
    state, expected = empty(), torch.zeros(D_MODEL, D, dtype=F64)
    mask = torch.zeros(D, dtype=F64)
    for edit in range(10):
        own = draw(D_MODEL, 1, seed=edit), draw(D, 1, seed=50 + edit)
        state, expected = state.added(own, edit + 1, mask), expected + matrix(own)
        assert state.rest[1].shape[1] <= D_MODEL
    torch.testing.assert_close(matrix(state.rest), expected)


@pytest.mark.parametrize("soft", [False, True])
def test_weights_that_are_put_back(soft):
    states = sequence(soft=soft)
    for count, earlier in enumerate(states):
        back = states[-1].truncated(count)
        assert torch.equal(matrix(back.rest), matrix(earlier.rest)) and len(back.steps) == count


def test_a_step_that_is_lost():
    """The state has dropped its third step: the fourth is its third, and going back to two drops both."""
    states = sequence(5)
    fewer = states[5].without_step(3)
    assert [step.after for step in fewer.steps] == [1, 2, 3, 3, 4]
    assert torch.equal(matrix(fewer.rest), matrix(states[5].rest))
    assert torch.equal(matrix(fewer.truncated(2).rest), matrix(states[2].rest))
    assert torch.equal(matrix(fewer.truncated(3).rest), matrix(states[4].rest))


@pytest.mark.parametrize("soft", [False, True])
def test_saved_and_restored(soft):
    state = sequence(soft=soft)[-1]
    again = Compensation.restored(state.saved())
    assert torch.equal(again.rest[0], state.rest[0]) and torch.equal(again.rest[1], state.rest[1])
    assert torch.equal(matrix(again.truncated(4).rest), matrix(state.truncated(4).rest))
    assert again.held_bytes == state.held_bytes > 8 * 8 * (2 * (D_MODEL + D) + D)
