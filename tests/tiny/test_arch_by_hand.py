"""Models without an entry: what easyedit-neuron arch says of them, and the comparison before an edit."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from easyedit_neuron.arch.guess import guessed_names
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.arch.norms import detect_norm
from easyedit_neuron.arch.table import ARCHITECTURES, REQUIRED_FIELDS
from easyedit_neuron.arch.verify import verify_parts
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.cli import main
from easyedit_neuron.edits.write import restore
from easyedit_neuron.errors import ArchitectureError
from easyedit_neuron.models.lasting.lasting_main import apply_lasting_to_model
from helpers.contract import apply, settings
from helpers.editing import REQUESTS, changed_tensors, make_hparams, snapshot
from helpers.tiny_models import ALL_TYPES, RELATIVES, skip_without, tiny_model, tiny_tokenizer

SIZES = dict(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=128,
)  # fmt: skip


def unknown(model_type, **fields):
    """A random model of a type without an entry."""
    skip_without(model_type)
    fields = {**SIZES, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1, **fields}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields)).eval()


@pytest.mark.parametrize("model_type", [*ALL_TYPES, *RELATIVES])
def test_the_tables_own_models_add_up(model_type):
    for dtype in (torch.float32, torch.bfloat16):
        verify_parts(ModelView.of(tiny_model(model_type, dtype=dtype)[0]))


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_guesses_are_the_tables_names(model_type):
    """Where a family keeps to the usual order; norms differ most."""
    model, _ = tiny_model(model_type)
    view, guessed = ModelView.of(model), guessed_names(model)
    for field in REQUIRED_FIELDS:
        if (model_type, field) != ("opt", "mlp_module_tmp"):  # which has no module for its FFN
            assert guessed[field] in getattr(view.arch, field).split("|") or guessed[field] == getattr(
                view.arch, field
            ), field
    if view.arch.pre_ffn_norm_tmp and model_type not in ("olmo2", "opt") and not view.arch.parallel_residual:
        assert guessed["pre_ffn_norm_tmp"] == view.arch.pre_ffn_norm_tmp


def test_the_printed_names_make_an_edit_possible(tmp_path, capsys):
    """Olmo has no entry: the command's YAML, as it is, is a description with which it is edited."""
    model, tok = unknown("olmo", num_key_value_heads=2), tiny_tokenizer()
    assert "olmo" not in ARCHITECTURES
    model.save_pretrained(tmp_path / "olmo")
    assert main(["arch", str(tmp_path / "olmo")]) == 0
    said = capsys.readouterr().out
    assert "olmo has no entry" in said
    names = {name: value for name, value in yaml.safe_load(said).items() if value}
    assert set(REQUIRED_FIELDS) <= set(names)
    with pytest.raises(ArchitectureError, match="has no weight"):
        ModelView.of(model, **names).final_norm_parameters()  # a norm without weights: what no entry tells
    before = snapshot(model)
    *_, record = apply(model, tok, REQUESTS, make_hparams("MEMIT", tmp_path, **names))
    assert set(changed_tensors(model, before)) == set(record.deltas)


def test_weights_of_before_a_growth_are_put_back_without_the_names(tmp_path):
    """EasyEdit puts weights back, and a log replays them, without the hyperparameters."""
    model, tok = tiny_model("llama")
    names = {name: value for name, value in guessed_names(model).items() if value}
    model.config.model_type = "another"
    names["projections"] = {name: f"model.layers.{{}}.mlp.{name}" for name in ("gate_proj", "up_proj")}
    hparams = settings("Lasting", tmp_path, **names, stats_dir=str(tmp_path))
    ids = tok("one two three", return_tensors="pt")
    with torch.no_grad():
        before = model(**ids).logits
        twin = copy.deepcopy(model)
        edited, originals = apply_lasting_to_model(model, tok, REQUESTS, hparams, return_orig_weights=True)
        edited_twin = copy.deepcopy(edited)
        for grown in (edited, edited_twin):
            assert grown.config.intermediate_size > twin.config.intermediate_size
            restore(grown, originals)
            assert torch.allclose(grown(**ids).logits, before, atol=1e-6)


@pytest.mark.parametrize("model_type", ["granite", "cohere"])
def test_models_that_scale_their_parts_are_refused(model_type, tmp_path):
    """Granite multiplies what attention and FFN add, Cohere its logits: without that an edit would be of
    another model."""
    scaled = {"granite": {"residual_multiplier": 0.3, "logits_scaling": 4.0}, "cohere": {"logit_scale": 0.2}}
    model, tok = unknown(model_type, num_key_value_heads=2, **scaled[model_type]), tiny_tokenizer()
    model.config.model_type = f"{model_type}_2"  # a relative without an entry
    names = {name: value for name, value in guessed_names(model).items() if value}
    more = {"norm": "layer", "parallel_residual": True} if model_type == "cohere" else {}
    before = snapshot(model)
    with pytest.raises(ArchitectureError, match="do not give .* of this model .*scales its parts"):
        apply(model, tok, REQUESTS, make_hparams("MEMIT", tmp_path, **names, **more))
    assert changed_tensors(model, before) == []


def test_a_final_norm_that_stands_elsewhere_too_is_refused(tmp_path):
    """NanoChat's normalises the embeddings as well: the first of its calls is not the unembedding's input."""
    model, tok = unknown("nanochat", num_key_value_heads=2), tiny_tokenizer()
    names = {name: value for name, value in guessed_names(model).items() if value}
    before = snapshot(model)
    with pytest.raises(ArchitectureError, match="ln_f_module: the model calls model.norm 2 times in a pass"):
        apply(model, tok, REQUESTS, make_hparams("MEMIT", tmp_path, **names))
    assert changed_tensors(model, before) == []


class _Norm(torch.nn.Module):
    """``gain (x - mean or 0) / scale``, written out."""

    def __init__(self, centred, offset):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -0.2, 1.4, 0.9]))
        self.centred, self.offset, self.eps = centred, offset, 1e-5

    def forward(self, x):
        x = x - x.mean(-1, keepdim=True) * self.centred
        return (self.weight + self.offset) * x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()


@pytest.mark.parametrize(
    "norm, kind",
    [
        (_Norm(0, 0), "rms"),
        (_Norm(0, 1), "rms_unit_offset"),
        (_Norm(1, 0), "layer"),
        (_Norm(1, 1), "layer_unit_offset"),
        (torch.nn.LayerNorm(4), "layer"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kind_of_a_norm_is_told_from_what_it_computes(norm, kind, dtype):
    assert detect_norm(norm.to(dtype)) == kind
    norm.to(torch.float32)


def test_a_norm_of_no_kind_is_an_error():
    norm = _Norm(0, 2)
    with pytest.raises(ArchitectureError, match="what _Norm computes: it is none of rms, rms_unit_offset"):
        detect_norm(norm)
    norm.weight = None
    with pytest.raises(ArchitectureError, match="_Norm has no weight"):
        detect_norm(norm)


def test_a_wrong_kind_of_norm_is_noticed():
    """VaultGemma's norm multiplies by 1 + weight, and its class does not say so."""
    model = unknown("vaultgemma", num_key_value_heads=2, head_dim=8)
    model.config.model_type = "vaultgemma_2"  # a relative without an entry
    with torch.no_grad():
        model.model.norm.weight.copy_(torch.randn(32, generator=torch.Generator().manual_seed(0)))
    names = {name: value for name, value in guessed_names(model).items() if value}
    view = ModelView.of(model, **names)
    verify_parts(view)
    torch.testing.assert_close(view.final_norm_parameters().gain, 1.0 + model.model.norm.weight.detach())
    with pytest.raises(ArchitectureError, match="do not give the final norm's output.*wrong .norm."):
        verify_parts(ModelView.of(model, **names, norm="rms"))


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("ln_f_module", "model.layers.0.input_layernorm", "logits"),
        ("pre_ffn_norm_tmp", "model.layers.{}.input_layernorm", "the output of layer"),
        ("rewrite_module_tmp", "model.layers.{}.mlp.gate_proj", "residual|down projection|FFN"),
    ],
)
def test_a_wrong_name_is_noticed(field, value, message, tmp_path):
    model, tok = unknown("olmo", num_key_value_heads=2), tiny_tokenizer()
    names = {name: name_of for name, name_of in guessed_names(model).items() if name_of} | {field: value}
    with pytest.raises(ArchitectureError, match=message):
        apply(model, tok, REQUESTS, make_hparams("MEMIT", tmp_path, **names))


def test_of_a_model_with_pictures_the_text_part_is_loaded(tmp_path, capsys):
    skip_without("qwen3_5")
    text = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "linear_key_head_dim": 8}
    text |= {"linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    sight = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32)
    config = AutoConfig.for_model("qwen3_5", text_config=text, vision_config=sight)
    transformers.Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert main(["arch", str(tmp_path)]) == 0
    assert "qwen3_5_text, 3 layers, d_model 32, d_ff 48" in capsys.readouterr().out
    tiny_tokenizer().save_pretrained(tmp_path)
    model, _, _ = load_model(SimpleNamespace(model_name=str(tmp_path), device="cpu"))
    verify_parts(ModelView.of(model))
    assert model.config.model_type == "qwen3_5_text"


def test_a_known_model_by_its_config_alone(tmp_path, capsys):
    model, _ = tiny_model("qwen2")
    model.config.save_pretrained(tmp_path)
    assert main(["arch", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "qwen2, 4 layers, d_model 32, d_ff 48, 300 tokens" in said
    assert "model.layers.{}.mlp.down_proj" in said and "gate_proj" in said
    assert main(["arch", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
