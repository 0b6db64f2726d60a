"""Compiled, quantised and wrapped models: one error with the remedy, from every method, nothing changed."""

import copy
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from easyedit_neuron.errors import ArchitectureError
from easyedit_neuron.export import export_merged
from helpers.contract import CASES, apply, fresh, settings
from helpers.editing import REQUESTS, make_hparams
from helpers.tiny_models import tiny_model


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_block(model):
    model.model.layers[2].compile(backend="eager")
    return model


def dynamic_int8(model):
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def integer_weight(model):
    layer = model.model.layers[1].mlp.down_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    return model


def with_adapter(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(target_modules=["down_proj"]))


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

ODD = {
    "torch.compile": (lambda model: torch.compile(model, backend="eager"), "compiled .*edit model._orig_mod"),
    "model.compile": (compiled_in_place, "compiled .*compile it after editing"),
    "a compiled block": (compiled_block, "compiled .*compile it after editing"),
    "dynamic int8": (dynamic_int8, "quantised .* is a Linear.*load it with load_in_4bit"),
    "an integer weight": (integer_weight, r"quantised \(model.layers.1.mlp.down_proj is a Linear of int8\)"),
    "DataParallel": (torch.nn.DataParallel, "DataParallel .*edit model.module"),
    "peft": (with_adapter, "wrapped by peft .*merge_and_unload"),
}


@pytest.mark.parametrize("name", ODD)
def test_every_method_says_what_the_model_is(name, tmp_path):
    make, message = ODD[name]
    for method in dict.fromkeys([*(method for method, _ in CASES), "ROME", "FT"]):
        model, tok = fresh("llama")
        odd = make(model)
        if method == "FT":
            from easyedit_neuron import FTHyperParams, apply_ft_to_model

            hparams = FTHyperParams(alg_name="FT", model_name="x", layers=[1], num_steps=1, lr=0.1)
            with pytest.raises(ArchitectureError, match=message):
                apply_ft_to_model(odd, tok, REQUESTS, hparams)
            continue
        hparams = make_hparams(method, tmp_path) if method == "ROME" else settings(method, tmp_path)
        with pytest.raises(ArchitectureError, match=message):
            apply(odd, tok, REQUESTS, hparams)


def test_what_is_under_a_wrapper_can_be_edited(tmp_path):
    """``_orig_mod`` shares its weights with the compiled model, which then gives the edited answers."""
    model, tok = fresh("llama")
    compiled = torch.compile(model, backend="eager")
    inputs = tok("Anna Berg was born in", return_tensors="pt")
    before = compiled(**inputs).logits.clone()
    apply(compiled._orig_mod, tok, REQUESTS, make_hparams("MEMIT", tmp_path))
    after = compiled(**inputs).logits
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, model(**inputs).logits)


@pytest.mark.filterwarnings("ignore")
def test_an_invalid_generation_config_is_exported_as_it_is(tmp_path, caplog):
    """Llama-2-chat's has a temperature without sampling, which transformers refuses to write."""
    model, tok = tiny_model("llama")
    model.generation_config.temperature, model.generation_config.top_p = 0.9, 0.6
    config = model.generation_config
    with pytest.raises(ValueError):
        model.save_pretrained(tmp_path / "refused")
    twin = copy.deepcopy(model)
    *_, record = apply(twin, tok, REQUESTS, make_hparams("MEMIT", tmp_path))
    export_merged([record], model, tok, tmp_path / "merged")
    assert "written as it is" in caplog.text and model.generation_config is config
    content = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert content["temperature"] == 0.9 and content["top_p"] == 0.6
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for name, value in twin.named_parameters():
        torch.testing.assert_close(loaded.get_parameter(name), value)
