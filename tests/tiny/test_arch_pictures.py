"""Models that see pictures too: their text part is edited, as it is in the model."""

import pytest
import torch
import transformers
from transformers import AutoConfig

from easyedit_neuron.arch.verify import verify_parts
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.arch.widen import widen
from easyedit_neuron.cli import main
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from helpers.editing import REQUESTS, apply, changed_tensors, make_hparams, snapshot, target_nll
from helpers.plain_search import plain_search
from helpers.tiny_models import tiny_tokenizer

TEXT = dict(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, head_dim=8,
)  # fmt: skip
_PATCHES = dict(
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28,
    patch_size=14,
)  # fmt: skip
_BLOCKS = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32)
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
MODELS = {
    "gemma3": ({"query_pre_attn_scalar": 8}, _PATCHES, {"mm_tokens_per_image": 4}),
    "mistral3": ({"model_type": "mistral"}, {**_PATCHES, "model_type": "pixtral", "head_dim": 8}, {}),
    "llava": ({"model_type": "llama"}, {**_PATCHES, "model_type": "clip_vision_model"}, {}),
    "qwen2_5_vl": (_ROPE, _BLOCKS, {}),
    "qwen3_vl": (_ROPE, _BLOCKS, {}),
}


def with_pictures(model_type, dtype=torch.float32):
    text, sight, more = MODELS[model_type]
    config = AutoConfig.for_model(model_type, text_config={**TEXT, **text}, vision_config=sight, **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "language_model" in name or "lm_head" in name:
                    parameter.normal_(0.0, 0.25)
                    parameter += 1.0 if "norm" in name and name.endswith("weight") else 0.0
    return model.to(dtype).eval(), tiny_tokenizer()


@pytest.mark.parametrize("model_type", MODELS)
def test_the_parts_of_the_text_part_add_up(model_type):
    model, _ = with_pictures(model_type)
    view = ModelView.of(model)
    verify_parts(view)
    assert view.down_weight_name(1) == "model.language_model.layers.1.mlp.down_proj.weight"
    assert (view.n_layers, view.d_ff, view.vocab_size) == (4, 48, 300)


@pytest.mark.parametrize("model_type", MODELS)
def test_the_search_is_the_plain_one(model_type, tmp_path):
    """Frozen keys and values, and positions that are handed over, hold for these models too."""
    model, tok = with_pictures(model_type, torch.float64)
    view, contexts = ModelView.of(model), ["{}", "You know. {}"]
    hparams = make_hparams("AlphaEdit", tmp_path, v_num_grad_steps=4)
    (target,) = compute_z(view, tok, prepare(REQUESTS[:1]), hparams, contexts, 1).targets
    _, delta, losses = plain_search(model, view.layer(1), tok, REQUESTS[0], hparams, contexts)
    assert target.losses == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(target.value - target.initial, delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", MODELS)
def test_an_edit(model_type, tmp_path):
    model, tok = with_pictures(model_type)
    before, nll = snapshot(model), target_nll(model, tok, REQUESTS[2])
    free = {"nullspace_threshold": 50.0, "v_weight_decay": 0.0, "clamp_norm_factor": 4.0}
    *_, record = apply(model, tok, REQUESTS[2:], make_hparams("AlphaEdit", tmp_path, **free))
    assert target_nll(model, tok, REQUESTS[2]) < nll
    assert set(changed_tensors(model, before)) == set(record.names.values())


def test_neurons_are_added_to_the_text_part(tmp_path):
    model, _ = with_pictures("gemma3")
    ids = torch.tensor([[1, 5, 9, 3]])
    before = model(input_ids=ids).logits
    widen(ModelView.of(model), 53)
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert model.config.text_config.intermediate_size == 53
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager")
    assert ModelView.of(loaded.eval()).d_ff == 53
    torch.testing.assert_close(loaded(input_ids=ids).logits, before)


def test_the_command_recognises_it(tmp_path, capsys):
    with_pictures("gemma3")[0].config.save_pretrained(tmp_path)
    assert main(["arch", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "4 layers, d_model 32, d_ff 48" in said and "model.language_model.layers.{}.mlp.down_proj" in said
