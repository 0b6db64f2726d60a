"""The covariance against one text at a time in float64, with hooks placed by hand."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import DataError, StateError
from easyedit_neuron.statistics.covariance import covariances
from easyedit_neuron.statistics.windows import head, pieces, windows
from helpers.tiny_models import CORPUS, tiny_model

TEXTS = CORPUS + ["I", "Oslo is", "Anna Berg"]
DOWN = {
    "llama": "model.layers.{}.mlp.down_proj",
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gptj": "transformer.h.{}.mlp.fc_out",
}


def plain(model, rows, layer, template):
    """1/N sum k k^T, token by token."""
    total, count = torch.zeros(48, 48, dtype=torch.float64), 0
    seen = []
    handle = model.get_submodule(template.format(layer)).register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    for row in rows:
        seen.clear()
        with torch.no_grad():
            model(input_ids=torch.tensor([row]))
        for key in seen[0][0].double():
            total += torch.outer(key, key)
            count += 1
    handle.remove()
    return total / count


@pytest.mark.parametrize("model_type", list(DOWN))
@pytest.mark.parametrize(
    "tokens_per_batch, window", [(1, 1), (40, 1), (40, 100), (8192, 100), (8192, 1 << 19)]
)
def test_equals_a_plain_loop_whatever_window_and_batches(model_type, tokens_per_batch, window):
    model, tok = tiny_model(model_type)
    measured = covariances(
        ModelView.of(model), tok, iter(TEXTS), [1, 2], 10, torch.float64, tokens_per_batch, window=window
    )
    rows = []
    for text in TEXTS:
        ids = tok(text)["input_ids"]
        rows += [ids[i : i + 10] for i in range(0, len(ids), 10)]
    for layer, matrix in measured.items():
        assert matrix.shape == (48, 48) and matrix.dtype == torch.float64
        torch.testing.assert_close(matrix, plain(model, rows, layer, DOWN[model_type]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [1, 1 << 19])
def test_texts_can_be_cut_as_easyedit_does(window):
    model, tok = tiny_model("gpt2")
    measured = covariances(
        ModelView.of(model), tok, iter(TEXTS), [1], 10, torch.float64, 40, window=window, cut=True
    )[1]
    rows = [tok(text)["input_ids"][:10] for text in TEXTS]
    assert max(len(tok(text)["input_ids"]) for text in TEXTS) > 10
    torch.testing.assert_close(measured, plain(model, rows, 1, DOWN["gpt2"]), rtol=1e-5, atol=1e-6)


def test_float32_sums_differ_by_rounding_alone():
    model, tok = tiny_model("llama")
    single, double = (
        covariances(ModelView.of(model), tok, TEXTS, [2], 10, dtype)[2]
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6 * float(double.diagonal().max()))


@pytest.mark.parametrize("model_type", list(DOWN))
def test_one_pass_that_ends_in_front_of_the_last_down_projection(model_type):
    model, tok = tiny_model(model_type)
    ran = []
    for layer in range(4):
        model.get_submodule(DOWN[model_type].format(layer)).register_forward_hook(
            lambda *_, n=layer: ran.append(n)
        )
    covariances(ModelView.of(model), tok, TEXTS[:1], [1, 2])
    assert ran == [0, 1]


def memory_of(model, tokens, error, layer=None):
    """Makes batches of more than ``tokens`` tokens fail: at the model's beginning, or inside ``layer``.
    Returns what ran."""
    ran, at = [], model if layer is None else model.model.layers[layer]

    def check(_module, args, kwargs):
        hidden = kwargs["input_ids"] if layer is None else args[0]
        if hidden.shape[0] * hidden.shape[1] > tokens:
            raise error
        ran.append(tuple(hidden.shape[:2]))

    at.register_forward_pre_hook(check, with_kwargs=True)
    return ran


CUDA_FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
CPU_FULL = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
)


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("error", [CUDA_FULL, CPU_FULL])
def test_batches_that_do_not_fit_are_halved_and_nothing_is_lost_or_counted_twice(error, layer, caplog):
    expected = covariances(
        ModelView.of(tiny_model("llama")[0]), tiny_model("llama")[1], TEXTS, [1, 2], 10, torch.float64
    )
    model, tok = tiny_model("llama")
    ran = memory_of(model, 25, error, layer)
    measured = covariances(ModelView.of(model), tok, TEXTS, [1, 2], 10, torch.float64, window=120)
    for number in (1, 2):
        torch.testing.assert_close(measured[number], expected[number], rtol=1e-5, atol=1e-6)
    assert "do not fit into memory: going on with" in caplog.text
    assert sum(rows for rows, _ in ran) == len(pieces(tok, TEXTS, 10))
    assert not any(m._forward_hooks for m in model.modules())


def test_once_halved_batches_stay_small(caplog):
    model, tok = tiny_model("llama")
    memory_of(model, 25, CUDA_FULL)
    covariances(ModelView.of(model), tok, TEXTS * 5, [1], 10, window=1)
    assert len(caplog.messages) <= 3


def test_a_single_piece_that_does_not_fit_is_an_error():
    model, tok = tiny_model("llama")
    memory_of(model, 9, CUDA_FULL)
    with pytest.raises(StateError, match="single piece of 10 tokens: lower 'mom2_max_length'"):
        covariances(ModelView.of(model), tok, TEXTS, [1], 10)


def test_other_errors_are_not_taken_for_missing_memory():
    model, tok = tiny_model("llama")
    memory_of(model, 25, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        covariances(ModelView.of(model), tok, TEXTS, [1], 10)


def test_texts_without_a_token():
    model, tok = tiny_model("gpt2")
    with pytest.raises(DataError, match="no tokens"):
        covariances(ModelView.of(model), tok, [""], [1])


def test_the_model_and_the_tokenizer_stay_as_they_are():
    model, tok = tiny_model("llama")
    tok.padding_side = "left"
    before = {n: p.clone() for n, p in model.named_parameters()}
    left = covariances(ModelView.of(model), tok, TEXTS, [1])
    assert tok.padding_side == "left" and all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    tok.padding_side = "right"
    assert torch.equal(covariances(ModelView.of(model), tok, TEXTS, [1])[1], left[1])


def test_batches_by_hand():
    rows = [[1] * n for n in (30, 8, 8, 7, 6, 5, 1, 1)]
    groups = []
    while rows:
        groups.append([len(row) for row in head(rows, 24)])
        rows = rows[len(groups[-1]) :]
    assert groups == [[30], [8, 8, 7], [6, 5], [1, 1]]


def test_windows_by_hand():
    texts = ["abc", "d", "ef", "ghijkl", "m"]
    assert list(windows(iter(texts), 4)) == [["abc", "d"], ["ef", "ghijkl"], ["m"]]
    assert list(windows([], 4)) == []


def test_a_window_is_read_when_it_is_asked_for():
    read = []
    groups = windows((read.append(text) or text for text in ("ab", "cd", "ef")), 3)
    assert next(groups) == ["ab", "cd"] and read == ["ab", "cd"]


def test_pieces_lose_no_token():
    _, tok = tiny_model("llama")
    rows = pieces(tok, TEXTS, 4)
    lengths = [len(row) for row in rows]
    assert max(lengths) <= 4 and lengths == sorted(lengths, reverse=True)
    assert sorted(sum(rows, [])) == sorted(sum((tok(t)["input_ids"] for t in TEXTS), []))
    assert pieces(tok, ["I", "Oslo is"], 99) == [tok("Oslo is")["input_ids"], tok("I")["input_ids"]]
