"""The rome path against its formula, masks, several requests and layers, and what a failure leaves."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.edits.session import ModelSession
from easyedit_neuron.errors import StateError
from easyedit_neuron.hyperparameters.options import Options
from easyedit_neuron.locate_then_edit import edit as edit_module
from easyedit_neuron.locate_then_edit import rome_update as rome_module
from easyedit_neuron.locate_then_edit.context_templates import context_templates
from easyedit_neuron.masks import register_mask, registry
from easyedit_neuron.statistics.cache import Statistics
from helpers.editing import CONTEXTS, REQUESTS, apply, changed_tensors, make_hparams, snapshot
from helpers.plain_search import plain_keys, plain_search
from helpers.tiny_models import tiny_model

FLAT = ["{}", *CONTEXTS]


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gptj", "gemma2"])
def test_the_formula_in_float64(model_type, averaged, tmp_path, exact):
    """Two layers in order, each with its own search: (v* - W k - b) (C^-1 k_mean)^T / (k_mean^T C^-1 k)."""
    model, tok = tiny_model(model_type, dtype=torch.float64)
    hparams = make_hparams("ROME", tmp_path, averaged_keys=averaged, mom2_dtype="float64", v_num_grad_steps=4)
    request, before = REQUESTS[1], snapshot(model)
    _, _, record = apply(model, tok, [request], hparams)
    plain, _ = tiny_model(model_type, dtype=torch.float64)
    view = ModelView.of(plain)
    statistics = Statistics(view, tok, hparams)
    covariances = {layer: statistics.covariance(layer).double() for layer in (1, 2)}
    for layer in (1, 2):
        initial, delta, losses = plain_search(plain, view.mlp(layer), tok, request, hparams, FLAT)
        keys, weight = plain_keys(plain, view, tok, request, layer, FLAT), view.down_matrix(layer)
        key = keys.mean(0) if averaged else keys[0]
        bias = 0.0 if view.down_bias(layer) is None else view.down_bias(layer)
        u = torch.linalg.solve(covariances[layer], keys.mean(0))
        expected = torch.outer(initial + delta - weight @ key - bias, u) / (u @ key)
        torch.testing.assert_close(record.layers[layer].matrix(), expected, rtol=1e-6, atol=1e-8)
        assert record.layers[layer].residual_share == pytest.approx(1.0)
        with torch.no_grad():
            weight += expected
    assert record.losses == [pytest.approx(losses, rel=1e-7)]
    assert sorted(changed_tensors(model, before)) == sorted(record.names.values())
    edited = dict(model.named_parameters())
    for name, value in plain.named_parameters():
        torch.testing.assert_close(edited[name], value, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("stage", ["post", "solve"])
@pytest.mark.parametrize("adjusted", [True, False])
def test_what_a_mask_delivers(stage, adjusted, tmp_path):
    """solve: the whole residual, through the system of the masked rows; post: the share that the mask leaves
    of u k."""
    rows = torch.arange(48) % 3 == 0
    fixed = dict(
        mask="fixed", mask_options={"indices": {"2": rows.nonzero().flatten().tolist()}}, mask_stage=stage
    )
    model, tok = tiny_model("llama")
    hparams = make_hparams("ROME", tmp_path, layers=[2], mom2_adjustment=adjusted, **fixed)
    keys = plain_keys(model, ModelView.of(model), tok, REQUESTS[0], 2, FLAT)
    covariance = Statistics(ModelView.of(model), tok, hparams).covariance(2) if adjusted else torch.eye(48)
    before = ModelView.of(model).down_matrix(2).clone()
    _, _, record = apply(model, tok, REQUESTS[:1], hparams)
    delta, after = record.layers[2], ModelView.of(model).down_matrix(2)
    mean, bare = keys.mean(0), keys[0]
    if stage == "solve":
        u = torch.zeros(48)
        u[rows] = torch.linalg.solve(covariance[rows][:, rows].double(), mean[rows].double()).float()
        share = 1.0
    else:
        u = torch.linalg.solve(covariance.double(), mean.double()).float()
        share = float((u * rows) @ bare / (u @ bare))
    right = u * rows / (u @ bare)
    torch.testing.assert_close(delta.key_factor[:, 0], right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))
    torch.testing.assert_close(
        after @ bare, before @ bare + share * delta.value_factor[:, 0], rtol=1e-4, atol=1e-3
    )
    assert (
        delta.residual_share == pytest.approx(share, rel=1e-3)
        and torch.equal(delta.mask, rows)
        and delta.density == 1 / 3
    )
    assert torch.equal(after[:, ~rows], before[:, ~rows]) and (delta.leakage is None) == (not adjusted)


def test_an_empty_mask_leaves_the_layer_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_MASKS", dict(registry._MASKS))
    register_mask(
        "upper", lambda scores, options, layer: torch.full((48,), layer == 2), scores="mpc", options=Options
    )
    for stage in ("post", "solve"):
        model, tok = tiny_model("llama")
        before = snapshot(model)
        hparams = make_hparams("ROME", tmp_path, mask="upper", mask_stage=stage, v_num_grad_steps=2)
        _, _, record = apply(model, tok, REQUESTS[:1], hparams)
        assert changed_tensors(model, before) == [record.names[2]] and record.layers[1].residual_share == 0


def test_without_the_adjustment_no_text_is_read(tmp_path):
    """EasyEdit's own files say so, and name a corpus of gigabytes."""
    model, tok = tiny_model("llama")
    hparams = make_hparams(
        "ROME", tmp_path, mom2_adjustment=False, mom2_dataset="nowhere.txt", v_num_grad_steps=2
    )
    _, _, record = apply(model, tok, REQUESTS[:1], hparams)
    clean, _ = tiny_model("llama")
    keys = plain_keys(clean, ModelView.of(clean), tok, REQUESTS[0], 1, FLAT)
    torch.testing.assert_close(
        record.layers[1].key_factor[:, 0], keys.mean(0) / (keys.mean(0) @ keys[0]), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("mask", ["none", "contribution"])
def test_several_requests_are_several_calls(mask, tmp_path):
    """One record of all of them, with a column each."""
    hparams = make_hparams("ROME", tmp_path, mask=mask, v_num_grad_steps=4)
    together, tok = tiny_model("llama")
    _, _, record = apply(together, tok, REQUESTS, hparams)
    one_by_one, _ = tiny_model("llama")
    records = [apply(one_by_one, tok, [request], hparams)[2] for request in REQUESTS]
    for layer in (1, 2):
        parts = [r.layers[layer] for r in records]
        delta, expected = record.layers[layer], sum(p.matrix() for p in parts)
        assert (
            delta.value_factor.shape == (32, 3)
            and float((delta.matrix() - expected).norm() / expected.norm()) < 1e-4
        )
        if mask != "none":
            assert torch.equal(delta.mask, parts[0].mask | parts[1].mask | parts[2].mask)
            assert delta.mask_info["requests"] == [p.mask_info for p in parts]
            assert delta.density > max(p.density for p in parts)
    assert record.losses == [pytest.approx(r.losses[0], rel=1e-4) for r in records]
    assert record.probability == [pytest.approx(r.probability[0], rel=1e-3) for r in records]
    record.save(tmp_path / "record.safetensors")
    assert EditRecord.load(tmp_path / "record.safetensors").to_json() == record.to_json()


def test_no_keys_are_kept(tmp_path):
    model, tok = tiny_model("llama")
    apply(model, tok, REQUESTS[:2], make_hparams("ROME", tmp_path, v_num_grad_steps=2))
    (state,) = ModelSession.of(model).sequential_states.values()
    assert state.counts == [0] and len(state.buffer(1)) == 0


@pytest.mark.parametrize(
    "name, error", [("compute_z", ZeroDivisionError), ("_direction", ZeroDivisionError), ("nan", StateError)]
)
def test_a_failure_at_the_second_request_leaves_everything_as_it_was(name, error, tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    hparams = make_hparams("ROME", tmp_path, v_num_grad_steps=2)
    before, calls = snapshot(model), []
    module = edit_module if name == "compute_z" else rome_module
    plain = getattr(module, "_direction" if name == "nan" else name)

    def broken(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:  # two layers, one call each for the first request
            return plain(*args, **kwargs) * float("nan") if name == "nan" else 1 / 0
        return plain(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_direction" if name == "nan" else name, broken)
        with pytest.raises(error):
            apply(model, tok, REQUESTS, hparams)
    assert len(calls) > 2 and changed_tensors(model, before) == []
    again, _, _ = apply(model, tok, REQUESTS[:1], hparams)
    fresh, _, _ = apply(tiny_model("llama")[0], tok, REQUESTS[:1], hparams)
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), fresh.parameters()))


def test_a_singular_covariance_names_the_remedy(tmp_path):
    model, tok = tiny_model("llama")
    text = tmp_path / "short.txt"
    text.write_text("Anna Berg lives.\n")
    settings = dict(mom2_dataset=str(text), mom2_n_samples=1, v_num_grad_steps=2)
    before = snapshot(model)
    with pytest.raises(StateError, match="raise L2"):
        apply(model, tok, REQUESTS[:1], make_hparams("ROME", tmp_path, **settings))
    assert changed_tensors(model, before) == []
    _, _, record = apply(model, tok, REQUESTS[:1], make_hparams("ROME", tmp_path, L2=1e-3, **settings))
    assert record.layers[1].residual_share == pytest.approx(1.0, abs=1e-4)


def test_sentences_by_length_and_number():
    """[length, number]: number / openers sentences from each opener, the same for the same seed."""
    model, tok = tiny_model("llama")
    groups = context_templates(model, tok, ["The", "I"], seed=3, length_params=[[5, 4], [9, 2], [7, 1]])
    assert groups[0] == ["{}"] and len(groups[1]) == 4 + 2 + 2
    assert groups == context_templates(
        model, tok, ["The", "I"], seed=3, length_params=[[5, 4], [9, 2], [7, 1]]
    )
    assert [text.startswith("The") for text in groups[1]] == [
        True,
        True,
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    assert groups[1][:1] == context_templates(model, tok, ["The"], 5, seed=3)[1]
