"""Methods that solve for keys, in a model whose FFNs grow between their edits."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.editlog import recording, replay, undo
from easyedit_neuron.edits.write import restore
from easyedit_neuron.export import export_merged
from helpers.contract import apply, fresh, parameters, settings
from helpers.editing import REQUESTS, make_hparams

IDS = torch.tensor([[1, 5, 9, 3]])
POST = {"mask_stage": "post"}
METHODS = [("AlphaEdit", {}), ("MEMIT", {}), ("ROME", {}), ("NMKE", {"mask_stage": "solve"}), ("NMKE", POST)]
METHODS += [("NMKE", {**POST, "error_compensation": True}), ("AlphaEdit", {"mask": "pnke"}), ("PNKE", {})]
METHODS += [("PNKE", {"solver": "adam"})]


def lasting(folder):
    """In a layer that the others neither change nor read, so that they make the same edits beside it."""
    return settings("Lasting", folder, layers=[3], capacity=4)


def solving(method, folder, **changes):
    """Target values are searched for within layer 2, which the neurons of layer 3 do not reach."""
    make = settings if method == "PNKE" else make_hparams
    return make(method, folder, layers=[1] if method == "ROME" else [1, 2], v_loss_layer=2, **changes)


@pytest.mark.parametrize("method, changes", METHODS)
def test_edits_go_on_as_if_nothing_had_grown(method, changes, tmp_path):
    plain, tok = fresh("llama")
    hparams = solving(method, tmp_path, **changes)
    for request in (REQUESTS[0], REQUESTS[2]):
        apply(plain, tok, [request], hparams)
    model, tok = fresh("llama")
    view, expected = ModelView.of(model), parameters(plain)
    with recording(model, tmp_path / "log") as log:
        apply(model, tok, [REQUESTS[0]], hparams)
        apply(model, tok, [REQUESTS[1]], lasting(tmp_path))
        *_, record = apply(model, tok, [REQUESTS[2]], hparams)
    assert ModelView.of(model).d_ff == view.d_ff + 4
    for layer in record.layers:
        name = view.down_weight_name(layer)
        now = model.get_parameter(name)
        assert torch.equal(now[:, : view.d_ff], expected[name]) and not now[:, view.d_ff :].any()
    again, _ = fresh("llama")
    assert replay(log, again).exact and torch.equal(again(IDS).logits, model(IDS).logits)
    untouched = parameters(fresh("llama")[0])
    for number in (2, 3, 1):
        undo(model, log, number)
    for name, value in untouched.items():
        now = model.get_parameter(name)[tuple(slice(size) for size in value.shape)]
        torch.testing.assert_close(now, value, atol=1e-5, rtol=1e-5)


def test_statistics_on_the_disk_are_found_after_a_growth(tmp_path):
    """The neurons' places are in no covariance: those of before and after it are one file."""
    model, tok = fresh("llama")
    hparams = solving("MEMIT", tmp_path)
    _, weights, _ = apply(model, tok, [REQUESTS[0]], hparams)
    restore(model, weights)
    files = sorted(path.name for path in (tmp_path / "stats").glob("covariance*"))
    grown, tok = fresh("llama")
    _, originals, _ = apply(grown, tok, [REQUESTS[1]], lasting(tmp_path), return_orig_weights=True)
    restore(grown, originals)
    *_, record = apply(grown, tok, [REQUESTS[0]], hparams)
    assert files == sorted(path.name for path in (tmp_path / "stats").glob("covariance*"))
    assert all(delta.shape[1] == ModelView.of(model).d_ff for delta in record.deltas.values())


def test_a_grown_model_with_both_kinds_of_edits_is_exported(tmp_path):
    model, tok = fresh("llama")
    hparams = solving("AlphaEdit", tmp_path)
    records = []
    for request in (REQUESTS[0], REQUESTS[2]):
        records.append(apply(model, tok, [request], hparams)[2])
        if request is REQUESTS[0]:
            records.append(apply(model, tok, [REQUESTS[1]], lasting(tmp_path))[2])
    base, _ = fresh("llama")
    export_merged(records, base, tok, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    torch.testing.assert_close(merged(IDS).logits, model(IDS).logits, atol=1e-5, rtol=1e-5)
