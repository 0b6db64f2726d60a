"""The covariance against one text at a time in float64, with hooks placed by hand."""

import pytest
import torch
from helpers.tiny_models import CORPUS, tiny_model

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.stats.covariance import batched_by_tokens, covariances, pieces

TEXTS = CORPUS + ["I", "Oslo is", "Anna Berg"]
DOWN = {"llama": "model.layers.{}.mlp.down_proj", "gpt2": "transformer.h.{}.mlp.c_proj", "gptj": "transformer.h.{}.mlp.fc_out"}


def plain(model, rows, layer, template):
    """1/N sum k k^T, token by token."""
    total, count = torch.zeros(48, 48, dtype=torch.float64), 0
    seen = []
    handle = model.get_submodule(template.format(layer)).register_forward_pre_hook(lambda m, args: seen.append(args[0]))
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
@pytest.mark.parametrize("tokens_per_batch", [1, 40, 8192])
def test_equals_a_plain_loop_whatever_the_batches(model_type, tokens_per_batch):
    model, tok = tiny_model(model_type)
    found = covariances(ModelView.of(model), tok, TEXTS, [1, 2], 10, torch.float64, tokens_per_batch)
    rows = []
    for text in TEXTS:
        ids = tok(text)["input_ids"]
        rows += [ids[i:i + 10] for i in range(0, len(ids), 10)]
    for layer, matrix in found.items():
        assert matrix.shape == (48, 48) and matrix.dtype == torch.float64
        torch.testing.assert_close(matrix, plain(model, rows, layer, DOWN[model_type]), rtol=1e-5, atol=1e-6)


def test_the_model_and_the_tokenizer_stay_as_they_are():
    model, tok = tiny_model("llama")
    tok.padding_side = "left"
    before = {n: p.clone() for n, p in model.named_parameters()}
    left = covariances(ModelView.of(model), tok, TEXTS, [1])
    assert tok.padding_side == "left" and all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    tok.padding_side = "right"
    assert torch.equal(covariances(ModelView.of(model), tok, TEXTS, [1])[1], left[1])


def test_groups_by_hand():
    rows = [[1] * n for n in (3, 1, 2, 2, 9)]
    groups = batched_by_tokens(rows, 6)
    assert [[len(r) for r in g] for g in groups] == [[1, 2, 2], [3], [9]]
    assert batched_by_tokens([], 6) == []


def test_pieces_lose_no_token():
    _, tok = tiny_model("llama")
    rows = pieces(tok, TEXTS, 4)
    assert max(map(len, rows)) <= 4 and sum(rows, []) == sum((tok(t)["input_ids"] for t in TEXTS), [])
