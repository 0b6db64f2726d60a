"""One model over several devices, as far as that can be seen without GPUs: accelerate's hooks at every
module, and what it has moved away."""

import pytest
import torch
import transformers
from accelerate import disk_offload, dispatch_model

from easyedit_neuron.arch import ModelView
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.errors import ArchitectureError
from helpers.editing import REQUESTS, apply, make_hparams
from helpers.tiny_models import tiny_model


@pytest.mark.parametrize("method", ["AlphaEdit", "NMKE"])
def test_edits_go_through_the_hooks_of_a_model_in_parts(method, tmp_path):
    hparams = make_hparams(method, tmp_path)
    whole, tok = tiny_model("llama")
    apply(whole, tok, REQUESTS[:1], hparams)
    parts, tok = tiny_model("llama")
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{layer}": "cpu" for layer in range(len(parts.model.layers))}
    parts = dispatch_model(parts, places, main_device="cpu", force_hooks=True)
    assert all(hasattr(block, "_hf_hook") for block in parts.model.layers)
    apply(parts, tok, REQUESTS[:1], hparams)
    expected, weights = whole.state_dict(), parts.state_dict()
    untouched = tiny_model("llama")[0].state_dict()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
    assert any(not torch.equal(expected[name], untouched[name]) for name in expected)


def test_model_parallel_asks_for_a_device_map(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    model.save_pretrained(tmp_path), tok.save_pretrained(tmp_path)
    asked, load = [], transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **options: asked.append(options.get("device_map")) or load(*args, **options),
    )
    for parallel in (True, False):
        hparams = make_hparams("AlphaEdit", tmp_path, model_name=str(tmp_path), model_parallel=parallel)
        loaded = load_model(hparams)[0].state_dict()
        assert all(torch.equal(weight, loaded[name]) for name, weight in model.state_dict().items())
    assert asked == ["auto", None]


def test_weights_that_are_elsewhere_are_refused(tmp_path):
    model, _ = tiny_model("llama")
    disk_offload(model.model.layers[1], tmp_path)
    with pytest.raises(ArchitectureError, match=r"model.layers.1.*offloaded.*load the model into memory"):
        ModelView.of(model)
