"""Keys and present values by hand; context sentences are reproducible and leave the random state alone."""

import pytest
import torch

from easyedit_neuron.arch.tokens import subject_last_index
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit import compute_keys as keys_module
from easyedit_neuron.locate_then_edit.compute_keys import LayerwiseKeys, compute_keys, key_prompts
from easyedit_neuron.locate_then_edit.context_templates import ENGLISH_OPENERS, context_templates
from helpers.editing import CONTEXTS, REQUESTS
from helpers.tiny_models import tiny_model, tiny_tokenizer

GROUPS = [["{}"], CONTEXTS]
NAMES = {
    "llama": ("model.layers.{}.mlp.down_proj", "model.layers.{}"),
    "gpt2": ("transformer.h.{}.mlp.c_proj", "transformer.h.{}"),
    "qwen2": ("model.layers.{}.mlp.down_proj", "model.layers.{}"),
}


def by_hand(model, tok, request, context, layer, names):
    """(input of down_proj, output of the block) at the subject's last token, of one prompt alone."""
    template = context.replace("{}", request["prompt"].replace(request["subject"], "{}"))
    seen = {}
    handles = [
        model.get_submodule(names[0].format(layer)).register_forward_pre_hook(
            lambda m, a: seen.update(key=a[0])
        ),
        model.get_submodule(names[1].format(layer)).register_forward_hook(
            lambda m, a, out: seen.update(out=out[0] if isinstance(out, tuple) else out)
        ),
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([tok(template.format(request["subject"]))["input_ids"]]))
    for handle in handles:
        handle.remove()
    at = subject_last_index(tok, template, request["subject"])
    return seen["key"][0, at], seen["out"][0, at]


@pytest.mark.parametrize("model_type", list(NAMES))
@pytest.mark.parametrize("rows", [128, 2])
def test_keys_are_means_of_group_means(model_type, rows, monkeypatch):
    monkeypatch.setattr(keys_module, "ROWS_PER_FORWARD", rows)
    model, tok = tiny_model(model_type)
    prompts = key_prompts(tok, prepare(REQUESTS), GROUPS, "cpu")
    keys = compute_keys(ModelView.of(model), prompts, [1, 2])
    present = LayerwiseKeys(ModelView.of(model), prompts, 3).at(1).z
    assert prompts.group_sizes == [1, 2] and present.shape == (32, 3)
    for n, request in enumerate(REQUESTS):
        for layer in (1, 2):
            each = [by_hand(model, tok, request, c, layer, NAMES[model_type])[0] for c in ["{}", *CONTEXTS]]
            torch.testing.assert_close(
                keys[layer][:, n], each[0] / 2 + (each[1] + each[2]) / 4, rtol=1e-4, atol=1e-5
            )
        torch.testing.assert_close(
            present[:, n], by_hand(model, tok, request, "{}", 3, NAMES[model_type])[1], rtol=1e-4, atol=1e-5
        )


def test_given_contexts_and_none():
    assert context_templates(None, None, templates=["A. {}"]) == [["{}"], ["A. {}"]]
    assert context_templates(None, None, templates=["{}", "A. {}", "{}"]) == [["{}"], ["A. {}"]]
    assert context_templates(None, None, templates=["{}"]) == [["{}"]]
    assert context_templates(None, None, length=0) == [["{}"]]


@pytest.mark.parametrize("openers, count", [(None, len(ENGLISH_OPENERS)), (["", "Anna"], 2)])
def test_written_contexts_depend_on_the_seed_alone(openers, count):
    model, tok = tiny_model("llama")
    state = torch.random.get_rng_state()
    first = context_templates(model, tok, openers, seed=3)
    torch.randn(5)
    assert (
        context_templates(model, tok, openers, seed=3)
        == first
        != context_templates(model, tok, openers, seed=4)
    )
    assert len(first) == 2 and len(first[1]) == count
    assert all(c.count("{}") == 1 and c.endswith(". {}") and not set("{}\n") & set(c[:-2]) for c in first[1])
    torch.random.set_rng_state(state)
    context_templates(model, tok, openers, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_contexts_do_not_depend_on_the_padding_side():
    model, _ = tiny_model("llama")
    templates = []
    for side in ("left", "right"):
        tok = tiny_tokenizer()
        tok.padding_side = side
        templates.append(context_templates(model, tok))
        assert tok.padding_side == side
    assert templates[0] == templates[1]


def test_a_model_that_ends_its_text_at_once_has_no_contexts():
    model, tok = tiny_model("gptj")  # its head has a bias
    with torch.no_grad():
        model.lm_head.bias.fill_(-1e4)[tok.eos_token_id] = 1e4
    assert context_templates(model, tok, [""]) == [["{}"]]
