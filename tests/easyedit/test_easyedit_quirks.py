"""Where we do not as EasyEdit does, a named option does: each beside the real one."""

import copy

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.easyedit_quirks import generated_contexts
from helpers.editing import find_target, make_hparams, put_back
from helpers.parity import REQUESTS, Pair
from helpers.tiny_models import tiny_model


@pytest.fixture
def pair(easyeditor, tmp_path, monkeypatch):
    return lambda model_type, **changes: Pair("AlphaEdit", model_type, tmp_path, monkeypatch, **changes)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("target", ["Malmø", "Oslo", "tennis and London"])
def test_retokenised_target(pair, model_type, target):
    """The object that ends in a cut character too, on which the two differ otherwise (test_paths_parity)."""
    both = pair(model_type, easyedit_quirks=["retokenised_target"])
    expected, actual, initial = both.targets({**REQUESTS[0], "target_new": target})
    assert float((expected - actual).norm() / (expected - initial).norm()) < 1e-3


def test_stale_keys(pair):
    """The same edit three times, put back each time: EasyEdit's deltas shrink, and so do ours with the quirk,
    by as much."""
    both = pair("llama", easyedit_quirks=["stale_keys"])
    start = both.weights()[0]
    norms = []
    for _ in range(3):
        assert both.edit([REQUESTS[0]]) < 1e-3
        norms.append(float((both.weights()[1][0] - start[0]).norm()))
        for model in (both.easyedit_model, both.builtin_model):
            put_back(
                model, {both.view.down_weight_name(layer): w for layer, w in zip(both.hparams.layers, start)}
            )
    assert norms[0] > 1.01 * norms[1] > 1.01**2 * norms[2]


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen2", "gptj"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_generated_contexts(easyeditor, model_type, side):
    from easyeditor.util.generate import generate_fast

    model, tok = tiny_model(model_type)
    tok.padding_side = side
    model.name_or_path = model_type  # EasyEdit goes by the name
    openers = ["The", "Therefore", "Because", "I", "You"]
    assert len({len(ids) for ids in tok(openers)["input_ids"]}) > 1, "otherwise nothing is padded"
    state = torch.random.get_rng_state()
    actual = generated_contexts(model, tok, openers, 14, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    expected = generate_fast(copy.deepcopy(model), tok, openers, n_gen_per_prompt=1, max_out_len=14)
    assert actual == [["{}"], [text.replace("{", " ").replace("}", " ") + ". {}" for text in expected]]


def test_no_softcap(easyeditor, tmp_path):
    """EasyEdit knows no gemma2; its formula by hand, against ours with and without the quirk."""

    model, tok = tiny_model("gemma2")
    view, request = ModelView.of(model), prepare([REQUESTS[0]])[0]
    ids = tok(REQUESTS[0]["prompt"])["input_ids"]
    target = torch.tensor(tok(" Oslo", add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([ids + target[:-1].tolist()])).last_hidden_state[
            0, len(ids) - 1 :
        ]
        logits = hidden @ model.lm_head.weight.T
    plain = {
        True: torch.nn.functional.cross_entropy(logits, target),
        False: torch.nn.functional.cross_entropy(5 * torch.tanh(logits / 5), target),
    }
    for quirk, expected in plain.items():
        hparams = make_hparams(
            "AlphaEdit", tmp_path, v_num_grad_steps=1, easyedit_quirks=["no_softcap"] if quirk else None
        )
        assert find_target(view, tok, request, hparams, ["{}"], 1).losses[0] == pytest.approx(
            float(expected), rel=1e-5
        )
    assert abs(float(plain[True] - plain[False])) > 0.01
