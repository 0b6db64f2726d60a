"""FFNs with more neurons: the same outputs, the same fingerprints, an ordinary model on the disk."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.arch.widen import free_neurons, own_width, widen, widen_to_shapes
from easyedit_neuron.edits.write import clone_weights, restore
from easyedit_neuron.errors import ArchitectureError
from easyedit_neuron.utils.fingerprint import model_fingerprint
from helpers.tiny_models import MODEL_TYPES, tiny_model

IDS = torch.tensor([[1, 5, 9, 3]])


@pytest.mark.parametrize(
    "kind", [*MODEL_TYPES, "granite", "opt", "falcon", "gpt_neo", "qwen3_5_text", "phi3", "glm4"]
)
def test_added_neurons_change_nothing_and_can_be_taken_away(kind, tmp_path):
    model, _ = tiny_model(kind)
    view = ModelView.of(model)
    before, width = model(IDS).logits, view.d_ff
    fingerprint = model_fingerprint(model)
    sizes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    narrow = widen(view, width + 5)
    torch.testing.assert_close(model(IDS).logits, before)
    wide = ModelView.of(model)
    assert wide.d_ff == width + 5 and free_neurons(wide, 1).tolist() == list(range(width, width + 5))
    assert model_fingerprint(model) == fingerprint, "nothing that counts has changed"
    assert own_width(wide) == width, "so its statistics are measured on as much text as before"
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert ModelView.of(loaded).d_ff == width + 5
    torch.testing.assert_close(loaded(IDS).logits, before)
    narrow()
    assert {name: tuple(parameter.shape) for name, parameter in model.named_parameters()} == sizes
    assert torch.equal(model(IDS).logits, before) and not len(free_neurons(ModelView.of(model), 1))


def test_a_config_from_which_the_width_is_reckoned_says_it_afterwards(tmp_path):
    """LFM2's FFNs have two thirds of the number in the config, unless told otherwise."""
    model, _ = tiny_model("lfm2", block_auto_adjust_ff_dim=True, block_multiple_of=8)
    view, before = ModelView.of(model), model(IDS).logits
    assert (view.d_ff, model.config.intermediate_size) == (32, 48)
    narrow = widen(view, 35)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert ModelView.of(loaded).d_ff == loaded.config.intermediate_size == 35
    torch.testing.assert_close(loaded(IDS).logits, before)
    narrow()
    assert model.config.intermediate_size == 48 and model.config.block_auto_adjust_ff_dim
    model.config.intermediate_size, model.config.block_auto_adjust_ff_dim = 47, False
    with pytest.raises(ArchitectureError, match="does not say how many an FFN has"):
        widen(ModelView.of(model), 35)


@pytest.mark.parametrize("kind", ["phi3", "glm"])
def test_the_parts_of_a_fused_matrix_grow_at_their_own_ends(kind):
    model, _ = tiny_model(kind)
    view, name = ModelView.of(model), "model.layers.1.mlp.gate_up_proj.weight"
    narrow_copy = clone_weights(model, [name])
    gate, up = narrow_copy[name].split(48)
    widen(view, 51)
    expected = torch.cat([gate, torch.zeros(3, 32), up, torch.zeros(3, 32)])
    assert torch.equal(model.get_parameter(name), expected)
    assert model.get_submodule("model.layers.1.mlp.gate_up_proj").out_features == 102
    model.get_parameter(name).data.normal_()
    restore(model, narrow_copy)
    assert torch.equal(model.get_parameter(name), expected)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_copies_of_another_width_are_written_back(kind):
    model, _ = tiny_model(kind)
    view = ModelView.of(model)
    name, width = view.down_weight_name(1), view.d_ff
    narrow_copy, before = clone_weights(model, [name]), model(IDS).logits
    widen(view, width + 3)
    view.down_matrix(1)[:, -1] = 1.0
    wide_copy = clone_weights(model, [name])
    restore(model, narrow_copy)
    assert not view.down_matrix(1)[:, width:].any()
    torch.testing.assert_close(model(IDS).logits, before)
    other, _ = tiny_model(kind)
    restore(other, wide_copy)
    assert torch.equal(
        ModelView.of(other).down_matrix(1), wide_copy[name].T if kind == "gpt2" else wide_copy[name]
    )
    widen_to_shapes(ModelView.of(other), {name: wide_copy[name].shape})
    assert ModelView.of(other).d_ff == width + 3, "wide enough already"


def test_an_ffn_does_not_shrink():
    model, _ = tiny_model("llama")
    view = ModelView.of(model)
    with pytest.raises(ArchitectureError, match=f"have {view.d_ff} neurons and cannot be widened to 3"):
        widen(view, 3)


@pytest.mark.parametrize(
    "kind, words",
    [("bloom", "does not say how many an FFN has"), ("mpt", "does not say how many an FFN has")],
)
def test_what_cannot_grow_stays_as_it_is(kind, words):
    model, _ = tiny_model(kind)
    before = {name: parameter.shape for name, parameter in model.named_parameters()}
    view = ModelView.of(model)
    with pytest.raises(ArchitectureError, match=f"neurons cannot be added to {kind}: .*{words}"):
        widen(view, view.d_ff + 3)
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == before
