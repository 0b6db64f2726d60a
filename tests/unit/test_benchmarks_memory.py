"""The memory arithmetic of the benchmarks against what objects really hold."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import memory
from benchmarks.memory import Rows, bytes_needed, parameters, rows_held, solver_bytes, widest_basis
from benchmarks.models import SHAPES
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.write import clone_weights, down_names
from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver
from easyedit_neuron.locate_then_edit.z_prompts import target_prompts
from easyedit_neuron.statistics.memory_use import decomposition_bytes, matrix_bytes
from easyedit_neuron.statistics.nullspace import Subspace, null_space
from helpers.editing import CONTEXTS, REQUESTS
from helpers.tiny_models import tiny_tokenizer

GROUPED = dict(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    vocab_size=70,
)
ROWS = Rows(requests=1, contexts=6, tokens=20, past=14, suffix=5, answers=12)
D_FF = 40


def _meta_llama(shape, dtype=torch.float32):
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False)).to(dtype)


@pytest.mark.parametrize("shape", [GROUPED, *SHAPES.values()])
def test_weights_are_those_of_the_real_model(shape):
    model = _meta_llama(shape)
    assert parameters(shape) == sum(p.numel() for p in model.parameters())
    needs = bytes_needed(shape, torch.bfloat16, [1], ROWS)
    assert needs["weights"] == sum(
        p.numel() * p.element_size() for p in model.to(torch.bfloat16).parameters()
    )


def test_llama_3_8b_has_its_published_size():
    assert parameters(SHAPES["llama3-8b"]) == 8_030_261_248


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trial_copies_are_what_clone_weights_makes(dtype):
    view = _view(dtype)
    copies = clone_weights(view.model, down_names(view, [0, 2]))
    needs = bytes_needed(GROUPED, dtype, [0, 2], ROWS)
    assert needs["trial copies"] == sum(t.numel() * t.element_size() for t in copies.values())


def _view(dtype):
    return ModelView.of(LlamaForCausalLM(LlamaConfig(**GROUPED, tie_word_embeddings=False)).to(dtype))


def _covariance():
    factor = torch.randn(D_FF, D_FF, generator=torch.Generator().manual_seed(0))
    return factor @ torch.diag(torch.arange(1.0, D_FF + 1)) @ factor.T


def _subspace(null_dim):
    values = torch.linalg.eigvalsh(_covariance())
    return null_space(_covariance(), float(values[null_dim - 1 : null_dim + 1].mean()))


@pytest.mark.parametrize("null_dim", [7, 20, 21, 33])
def test_bases_and_covariances_are_as_large_as_the_real_ones(null_dim):
    space = _subspace(null_dim)
    assert space.dim == null_dim
    needs = bytes_needed(GROUPED, torch.bfloat16, [0, 1], ROWS, null_dim=null_dim)
    assert needs["null space bases"] == 2 * space.basis.numel() * space.basis.element_size()
    assert needs["covariances"] == 2 * _covariance().numel() * 4 == 2 * matrix_bytes(D_FF, torch.float32)


def test_the_usual_basis_is_the_widest_that_there_is():
    usual = bytes_needed(GROUPED, torch.bfloat16, [0], ROWS)
    for null_dim in range(1, D_FF):
        other = bytes_needed(GROUPED, torch.bfloat16, [0], ROWS, null_dim=null_dim)
        assert other["solvers"] <= usual["solvers"]
        assert other["null space bases"] <= matrix_bytes(D_FF, torch.float32) // 2
    assert usual["null space bases"] == widest_basis(D_FF) * D_FF * 4 and widest_basis(D_FF) == 19


def test_statistics_of_llama_3_8b_in_numbers():
    needs = bytes_needed(SHAPES["llama3-8b"], torch.bfloat16, [4, 5, 6, 7, 8], ROWS)
    assert needs["covariances"] == 5 * 14336**2 * 4 == 5 * matrix_bytes(14336, torch.float32)
    assert needs["eigen-decomposition"] == decomposition_bytes(14336, torch.float32) == 3 * 822_083_584
    assert needs["trial copies"] == 5 * 4096 * 14336 * 2


def test_rows_of_a_buffer_double():
    assert [rows_held([1] * count) for count in (0, 1, 8, 9, 100, 5000)] == [0, 8, 8, 16, 128, 8192]
    assert rows_held([5000]) == 5000 and rows_held([298, 1, 1]) == 596 and rows_held([100] * 3) == 400
    assert rows_held([1] * 1000, fold=64) == 64 and rows_held([256, 44], fold=64) == 256


PROBLEMS = {
    "memit": (0, lambda: Problem(0.5, preserve=_covariance(), weight=3.0)),
    "alphaedit": (33, lambda: Problem(0.5, subspace=_subspace(33))),
    "alphaedit, thin": (7, lambda: Problem(0.5, subspace=_subspace(7))),
    "alphaedit, half": (20, lambda: Problem(0.5, subspace=_subspace(20))),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("requests", [1, 3, 300])
@pytest.mark.parametrize("name", PROBLEMS)
def test_solvers_and_key_buffers_hold_what_was_worked_out(name, requests, dtype):
    null_dim, make = PROBLEMS[name]
    path, edits = name.split(",")[0], {1: 100, 3: 40, 300: 3}[requests]
    buffer, random = KeyBuffer(D_FF), torch.Generator().manual_seed(1)
    solver = SequentialSolver(
        make(), buffer, dtype=dtype, tolerance=1e9
    )  # as drift would not change what is held
    for edit in range(1, edits + 1):
        keys = torch.randn(D_FF, requests, generator=random)
        solver.right_factor(keys)
        buffer.append(keys)
        assert solver.held_bytes == solver_bytes(path, D_FF, null_dim, edit, requests, dtype), (
            f"after edit {edit}"
        )
        needs = bytes_needed(
            GROUPED,
            torch.float32,
            [0],
            Rows(requests, 6, 20, 14, 5, 12),
            edits=edit,
            path=path,
            null_dim=null_dim,
            solve_dtype=dtype,
        )
        assert needs["keys"] == buffer.held_bytes and needs["solvers"] == solver.held_bytes


def test_a_solver_in_the_statistics_dtype_makes_no_copy_of_the_basis():
    space = Subspace(
        torch.linalg.qr(torch.randn(D_FF, 5, generator=torch.Generator().manual_seed(2)))[0].contiguous(),
        True,
    )
    solver = SequentialSolver(Problem(1.0, subspace=space), dtype=torch.float32)
    solver.right_factor(torch.ones(D_FF, 1))
    assert solver.held_bytes == solver_bytes("alphaedit", D_FF, 35, 1, 1, torch.float32) == 3 * D_FF * 4


def test_rows_are_those_of_the_token_batch():
    tok = tiny_tokenizer()
    prompts = target_prompts(tok, prepare(REQUESTS), ["{}", *CONTEXTS], "{} is a", "cpu")
    rows = Rows.of(prompts)
    assert (rows.requests, rows.contexts) == (3, 3) and (
        rows.count,
        rows.tokens,
    ) == prompts.batch.input_ids.shape
    assert rows.answers == len(prompts.answer_id) and rows.past == max(prompts.start.tolist())
    spans = [length - start for length, start in zip(prompts.batch.lengths.tolist(), prompts.start.tolist())]
    assert rows.suffix == max(spans)
    assert Rows.widest([rows, Rows(1, 6, 2, 3, 99, 5)]) == Rows(
        3, 6, rows.tokens, rows.past, 99, rows.answers
    )


def test_the_table_names_every_consumer_and_the_sum():
    needs = bytes_needed(SHAPES["llama3-8b"], torch.bfloat16, [4, 5, 6, 7, 8], ROWS)
    assert min(needs.values()) >= 0 and needs["factorisation"] == 0
    told = memory.table(needs)
    assert all((name in told) == bool(count) for name, count in needs.items())
    assert f"{sum(needs.values()) / 2**30:.1f} GiB" in told.splitlines()[-1]
    assert bytes_needed(GROUPED, torch.float32, [1], ROWS, device="cpu")["runtime"] == 0
