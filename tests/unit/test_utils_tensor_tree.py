"""A tree of tensors comes back to the bit, with its layout; a solver that was saved goes on to the same
bits."""

import json

import pytest
import torch

from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver
from easyedit_neuron.utils.tensor_tree import ALIGNMENT, pack, unpack
from helpers.systems import PROBLEMS, D, buffer_of, some_keys


def again(tree):
    tensors, plan = pack(tree)
    assert all(tensor.dim() == 1 for tensor in tensors.values())
    return unpack({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(plan)))


def test_layout_alignment_identity():
    base = torch.arange(60.0)
    matrix = base[5:53].view(6, 8)
    trees = {
        "rows": matrix,
        "columns": matrix.T,
        "gaps": matrix[:, 2:5],
        "one": matrix[:1].T,
        "empty": matrix[:0],
        "half": torch.ones(3, dtype=torch.bfloat16),
        "number": torch.tensor(3),
        "flags": torch.tensor([True, False]),
    }
    back = again({"some": [trees, None, 1.5, "x"], "same": matrix})
    restored = back["some"][0]
    for name, tensor in trees.items():
        assert restored[name].stride() == tensor.stride() and restored[name].dtype == tensor.dtype
        assert torch.equal(restored[name], tensor)
        assert restored[name].data_ptr() % ALIGNMENT == tensor.data_ptr() % ALIGNMENT or not tensor.numel()
    assert back["same"] is restored["rows"] and back["some"][1:] == [None, 1.5, "x"]
    with pytest.raises(TypeError, match="keys must be texts"):
        pack({1: matrix})


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("dense_after", [0, 9, None])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_solver_goes_on_to_the_same_bits(kind, dense_after, masked, dtype):
    """Saved before every edit into a second solver, which takes the first one's place now and then."""
    problem, rows, keys = PROBLEMS[kind], torch.arange(D) % 3 > 0, some_keys(200, 1)
    buffer = KeyBuffer(D, dtype=keys.dtype)
    solver = SequentialSolver(problem, buffer, dtype=dtype, dense_after=dense_after)

    def solve(by, new):
        return by.masked_key_factor(new, rows) if masked else by.key_factor(new)

    def saved_and_restored():
        back = again({"solver": solver.saved(), "buffer": buffer.saved()})
        twin_buffer = KeyBuffer.restored(back["buffer"])
        twin = SequentialSolver(problem, twin_buffer, dtype=dtype, dense_after=dense_after)
        twin.restore(back["solver"])
        return twin, twin_buffer

    first = 0
    for edit in range(14):
        new = keys[:, first : first + 1 + edit % 3]
        if edit == 7:
            buffer.truncate(len(buffer) - 2)  # an edit was taken back
        twin, twin_buffer = saved_and_restored()
        assert torch.equal(solve(solver, new), solve(twin, new)), edit
        assert (twin.residual, twin.dtype, twin.refactorisations) == (
            solver.residual,
            solver.dtype,
            solver.refactorisations,
        )
        buffer.append(new), twin_buffer.append(new)
        if edit % 4 == 3:
            solver, buffer = twin, twin_buffer
        first += new.shape[1]


def test_many_keys_folded_and_summed():
    """Beyond the numbers at which rows are folded into the matrix, and at which the Gram matrix is made."""
    problem, rows = PROBLEMS["memit"], torch.arange(D) % 2 > 0
    buffer = buffer_of(300)
    solver = SequentialSolver(problem, buffer, dense_after=5)
    new = some_keys(2, 9)
    solver.key_factor(new), solver.masked_key_factor(new, rows)
    for count in range(70):
        buffer.append(some_keys(1, 100 + count))
        solver.key_factor(new)
    back = again({"solver": solver.saved(), "buffer": buffer.saved()})
    twin = SequentialSolver(problem, KeyBuffer.restored(back["buffer"]), dense_after=5)
    twin.restore(back["solver"])
    assert solver.saved()["inverse"]["folded"] and solver.saved()["earlier"]["count"]
    assert torch.equal(solver.key_factor(new), twin.key_factor(new))
    assert torch.equal(solver.masked_key_factor(new, rows), twin.masked_key_factor(new, rows))
