"""Models loaded in 4 bits but for the edited blocks: edited there, and exported on the whole model."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from easyedit_neuron import FTHyperParams
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.cli import main
from easyedit_neuron.editlog import recording
from easyedit_neuron.errors import ArchitectureError, HparamsError
from helpers import architecture_page, contract
from helpers.architecture_page import REQUEST, hyperparameters
from helpers.editing import changed_tensors, put_back, snapshot, target_nll
from helpers.tiny_models import tiny_model

pytest.importorskip("bitsandbytes", reason="pip install 'easyedit-neuron[four-bit]'")

EDITED = (1, 2)


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def folder(request, tmp_path_factory):
    """A model's folder."""
    folder = tmp_path_factory.mktemp(request.param)
    model, tok = tiny_model(request.param, seed=2)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def settings(method, folder, scratch, **changes):
    if method == "FT":
        return FTHyperParams(
            alg_name="FT", model_name=str(folder), layers=[1], num_steps=10, lr=0.02, device="cpu",
            objective_optimization="target_new", load_in_4bit=True,
        )  # fmt: skip
    plain = AutoModelForCausalLM.from_pretrained(folder)
    if method == "KNE":
        changes["layers"] = [1, 2]
    changes |= {"model_name": str(folder), "load_in_4bit": True}
    return hyperparameters(ModelView.of(plain), method, scratch, **changes)


def test_edited_blocks_and_the_head_keep_their_bits(folder, tmp_path):
    model, _, _ = load_model(settings("MEMIT", folder, tmp_path))
    plain = AutoModelForCausalLM.from_pretrained(folder)
    view, plain_view = ModelView.of(model), ModelView.of(plain)
    for layer in range(view.n_layers):
        kind = type(view.down_proj(layer)).__name__
        assert kind == ("Linear" if layer in EDITED else "Linear4bit")
    for layer in EDITED:
        ours, theirs = view.layer(layer).state_dict(), plain_view.layer(layer).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(view.unembedding()[0], plain_view.unembedding()[0])
    assert (view.d_ff, view.d_model) == (plain_view.d_ff, plain_view.d_model)


def test_a_pass_without_gradient_leaves_the_matrices_in_their_layout(folder, tmp_path, monkeypatch):
    """As on a CPU with AVX512-BF16, where bitsandbytes packs them anew at such a pass."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model, tok, _ = load_model(settings("MEMIT", folder, tmp_path))
    weight = ModelView.of(model).down_proj(0).weight
    before = weight.data.clone()
    with torch.no_grad():
        model(**tok("Anna Berg lives in", return_tensors="pt"))
    assert torch.equal(weight.data, before)
    assert not getattr(weight.quant_state, "packing_format_for_cpu", False)


@pytest.mark.parametrize(
    "method", ["NMKE", "PNKE", "PNKE, adam", "KNE", "Lasting", "ROME", "MEMIT", "AlphaEdit", "FT"]
)
def test_an_edit_takes_and_can_be_put_back(method, folder, tmp_path):
    hparams = settings(method, folder, tmp_path)
    model, tok, _ = load_model(hparams)
    before, nll = snapshot(model), target_nll(model, tok, REQUEST)
    width = ModelView.of(model).d_ff
    weights = architecture_page.edit(model, tok, method, hparams)
    assert target_nll(model, tok, REQUEST) < nll
    if method == "Lasting":
        view = ModelView.of(model)
        assert view.d_ff > width
        assert [view.down_proj(layer).in_features for layer in range(view.n_layers)] == [
            view.d_ff if layer == 1 else width for layer in range(view.n_layers)
        ]
        return
    put_back(model, weights)
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize("method", ["AlphaEdit", "Lasting"])
def test_the_log_is_exported_on_the_whole_model(method, folder, tmp_path):
    hparams = settings(method, folder, tmp_path)
    model, tok, _ = load_model(hparams)
    with recording(model, tmp_path / "log"):
        contract.apply(model, tok, [REQUEST], hparams)
    edited = {name: value.clone() for name, value in model.named_parameters() if value.is_floating_point()}
    assert main(["export", str(tmp_path / "log"), "--to", "merged", "--out", str(tmp_path / "out")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    for name, value in merged.named_parameters():
        layer = next((layer for layer in hparams.layers if f".{layer}." in name), None)
        if layer is not None:
            torch.testing.assert_close(value, edited[name], rtol=0, atol=1e-6)
        elif value.shape == plain.get_parameter(name).shape:
            assert torch.equal(value, plain.get_parameter(name))


def test_a_quantised_block_is_refused(folder, tmp_path):
    model, tok, _ = load_model(settings("MEMIT", folder, tmp_path))
    before = snapshot(model)
    for method in ("MEMIT", "Lasting", "FiNE"):
        hparams = contract.settings(method, tmp_path) if method != "MEMIT" else None
        hparams = hparams or settings(method, folder, tmp_path)
        if method != "FiNE":
            hparams = hparams.override({"layers": [3]})
        with pytest.raises(ArchitectureError, match="is quantised.*load_in_4bit"):
            contract.apply(model, tok, [REQUEST], hparams)
        assert changed_tensors(model, before) == []


def test_a_quantised_head_is_refused(folder, tmp_path):
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["model.layers", "gpt_neox"])
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map="cpu")
    with pytest.raises(ArchitectureError, match="(lm_head|embed_out) is quantised"):
        ModelView.of(model)


@pytest.mark.parametrize("method, said", [("FiNE", "has no such field"), ("KNE", "edits every layer")])
def test_layers_have_to_be_named(method, said, tmp_path):
    hparams = contract.settings(method, tmp_path).override({"load_in_4bit": True, "model_name": "tiny-llama"})
    if method == "KNE":
        hparams = hparams.override({"layers": []})
    with pytest.raises(HparamsError, match=f"'load_in_4bit'.*{said}"):
        load_model(hparams)
