"""PNKE by Eq. 9: Adam on the critical neurons' own parameters, beside Adam on whole matrices whose gradients
are masked."""

import copy
from functools import partial

import pytest
import torch

from easyedit_neuron.arch import ModelView, projection
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.errors import EditError
from easyedit_neuron.models.pnke.critical_neurons import CriticalNeurons
from easyedit_neuron.models.pnke.pnke_adam import train_layer
from helpers.editing import CONTEXTS, REQUESTS, changed_tensors, put_back, snapshot
from helpers.plain_search import plain_keys
from helpers.pnke_cases import edit, own_prompts, pnke_hparams  # noqa: F401
from helpers.tiny_models import MODEL_TYPES, tiny_model

pytestmark = pytest.mark.usefixtures("own_prompts")
F64 = torch.float64
ADAM = dict(solver="adam", adam_steps=8, adam_lr=2e-3)


def parameters_of(view, layer, units):
    """{parameter of the FFN: boolean mask of Eq. 8, in the parameter's own layout}, written out for every
    architecture."""
    mlp, kind = view.arch.mlp_module_tmp.format(layer), view.arch.model_type
    gated = {"gate_proj.weight": 0, "up_proj.weight": 0, "down_proj.weight": 1}
    rows = {
        "gpt2": {"c_fc.weight": 1, "c_fc.bias": 0, "c_proj.weight": 0},
        "gptj": {"fc_in.weight": 0, "fc_in.bias": 0, "fc_out.weight": 1},
        "gpt_neox": {"dense_h_to_4h.weight": 0, "dense_h_to_4h.bias": 0, "dense_4h_to_h.weight": 1},
        "bloom": {"dense_h_to_4h.weight": 0, "dense_h_to_4h.bias": 0, "dense_4h_to_h.weight": 1},
        "falcon": {"dense_h_to_4h.weight": 0, "dense_4h_to_h.weight": 1},
    }.get(kind, gated)
    masks = {}
    for name, side in rows.items():
        mask = torch.zeros_like(view.model.get_parameter(f"{mlp}.{name}"), dtype=torch.bool)
        masks[f"{mlp}.{name}"] = mask.index_fill(side, units, True)
    return masks


def random_inputs(count, seed):
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("model_type", [*MODEL_TYPES, "bloom", "falcon"])
def test_adam_on_the_neurons_is_adam_on_the_matrices_behind_the_mask_of_equation_8(model_type, tmp_path):
    model, tok = tiny_model(model_type, dtype=F64)
    view, layer, units = ModelView.of(model), 1, torch.tensor([0, 7, 30, 47])
    x, preserved, residual = random_inputs(3, 1), random_inputs(5, 2), random_inputs(3, 3)
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=F64)
    hparams = pnke_hparams(tmp_path, mom2_update_weight=0.3, **ADAM)
    neurons = CriticalNeurons(view, layer, units)
    result = train_layer(neurons, x, residual, weights, preserved, layer, hparams)

    plain = copy.deepcopy(model)
    masks, ffn = parameters_of(view, layer, units), ModelView.of(plain).mlp(layer)
    if model_type == "bloom":  # which adds what it gets as a second argument
        ffn = partial(ffn, residual=torch.zeros(1, dtype=F64))
    with torch.no_grad():
        target, before = ffn(x) + residual, ffn(preserved)
    trained = [plain.get_parameter(name) for name in masks]
    optimizer = torch.optim.Adam(trained, lr=hparams.adam_lr)
    losses = []
    for _ in range(hparams.adam_steps + 1):
        optimizer.zero_grad()
        loss = ((ffn(x) - target).square().sum(1) * weights).sum() + 0.3 * (
            ffn(preserved) - before
        ).square().sum(1).mean()
        losses.append(float(loss.detach()))
        if len(losses) <= hparams.adam_steps:
            loss.backward()
            for parameter, mask in zip(trained, masks.values()):
                parameter.grad.mul_(mask)
            optimizer.step()
    assert losses == sorted(losses, reverse=True) and result["steps"] == result["step"] == 8
    assert (result["first_loss"], result["loss"]) == pytest.approx((losses[0], losses[-1]))
    deltas = {part.name: part.delta() for part in neurons.parts}
    assert deltas.keys() == masks.keys()
    for name, parameter in zip(masks, trained):
        moved = parameter.detach() - model.get_parameter(name).detach()
        shaped = moved[:, None] if moved.dim() == 1 else moved
        matrix = deltas[name].matrix()
        assert bool(shaped.any())
        torch.testing.assert_close(
            matrix
            if matrix.shape == shaped.shape and model_type != "gpt2"
            else matrix.T
            if moved.dim() == 2
            else matrix,
            shaped,
            rtol=1e-6,
            atol=1e-9,
        )


def test_with_value_vectors_alone_the_minimum_is_that_of_equation_10(tmp_path):
    model, tok = tiny_model("llama", dtype=F64)
    view, units = ModelView.of(model), torch.arange(0, 48, 4)
    x, preserved, residual = random_inputs(2, 1), random_inputs(40, 2), random_inputs(2, 3)
    hparams = pnke_hparams(
        tmp_path,
        mom2_update_weight=0.5,
        solver="adam",
        adam_steps=2000,
        adam_lr=0.01,
        adam_trains=["w_out"],
        adam_stop=0.0,
    )
    neurons = CriticalNeurons(view, 2, units)
    result = train_layer(neurons, x, residual, torch.ones(2, dtype=F64), preserved, 2, hparams)

    def keys(states):
        seen = []
        handle = view.down_proj(2).register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        with torch.no_grad():
            view.mlp(2)(states)
        handle.remove()
        return seen[0][:, units].T

    k, k0 = keys(x), keys(preserved)
    expected = torch.linalg.solve(k @ k.T + 0.5 * k0 @ k0.T / 40, k) @ residual
    least = (expected.T @ k - residual.T).square().sum() + 0.5 * (expected.T @ k0).square().sum(0).mean()
    assert (
        result["loss"] == pytest.approx(float(least), rel=1e-4)
        and result["loss"] < 0.9 * result["first_loss"]
    )
    torch.testing.assert_close(
        neurons.parts[0].change, expected, rtol=0.02, atol=0.02 * float(expected.abs().max())
    )
    assert not any(part.change.any() for part in neurons.parts[1:])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_neurons_alone_write_their_part_of_the_ffn(model_type):
    model, _ = tiny_model(model_type, dtype=F64)
    view, x = ModelView.of(model), random_inputs(6, 4)
    first, rest = (CriticalNeurons(view, 3, units) for units in (torch.arange(5), torch.arange(5, 48)))
    bias = view.down_bias(3)
    whole = first.written(x) + rest.written(x) + (0 if bias is None else bias)
    torch.testing.assert_close(whole, view.mlp(3)(x))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_critical_neurons_parameters_change_and_nothing_else(model_type, tmp_path):
    model, tok = tiny_model(model_type)
    before, view = snapshot(model), ModelView.of(model)
    record, weights = edit(model, tok, REQUESTS[:2], tmp_path, **ADAM)
    names = changed_tensors(model, before)
    assert sorted(names) == sorted(weights) == sorted(record.deltas)
    clean, expected = ModelView.of(tiny_model(model_type)[0]), {}
    for layer in (1, 2):
        units = record.units[view.down_weight_name(layer)].units
        assert 5 <= len(units) <= 10 and record.info["layers"][str(layer)]["mask"]["counts"][
            "selected"
        ] == len(units)
        expected |= parameters_of(view, layer, units)
    assert sorted(expected) == sorted(names)
    for name, mask in expected.items():
        moved = model.get_parameter(name) != clean.model.get_parameter(name)
        assert not bool(moved[~mask].any()) and bool(moved[mask].all())
    for layer in ("1", "2"):
        assert record.info["layers"][layer]["loss"] < record.info["layers"][layer]["first_loss"]
    put_back(model, weights)
    assert changed_tensors(model, before) == []


def test_the_residual_is_spread_over_layers_and_arrives(tmp_path):
    """With every neuron, no preserved text and one context the last layer's output at the subject becomes
    z*."""
    model, tok = tiny_model("llama")
    before = ModelView.of(copy.deepcopy(model))
    record, _ = edit(
        model,
        tok,
        REQUESTS[:1],
        tmp_path,
        mask="none",
        mom2_update_weight=0.0,
        solver="adam",
        adam_steps=400,
        adam_lr=0.01,
        adam_stop=1e-8,
        context_templates=None,
        context_length=0,
    )
    assert record.info["layers"]["1"]["edit_loss"] < 1e-3 and record.info["layers"]["2"]["edit_loss"] < 1e-3
    keys = [
        plain_keys(view.model, view, tok, REQUESTS[0], 1, ["{}"]) for view in (before, ModelView.of(model))
    ]
    assert not torch.allclose(*keys)  # the activations move, not the values alone


def test_text_is_kept(tmp_path):
    infos = []
    for weight in (0.0, 100.0):
        model, tok = tiny_model("gpt2")
        record, _ = edit(
            model,
            tok,
            REQUESTS[:1],
            tmp_path,
            layers=[1],
            mom2_update_weight=weight,
            adam_preserve_tokens=20,
            **{**ADAM, "adam_steps": 60},
        )
        infos.append(record.info["layers"]["1"])
    assert (
        infos[1]["preserve_loss"] < 0.1 * infos[0]["preserve_loss"]
        and infos[0]["edit_loss"] < infos[1]["edit_loss"]
    )


def test_a_diverging_edit_is_an_error_and_leaves_the_model_alone(tmp_path):
    model, tok = tiny_model("llama")
    before = snapshot(model)
    with pytest.raises(
        EditError, match="layer 1: Adam on Eq. 9 diverged, its loss went from .* lower adam_lr"
    ):
        edit(model, tok, REQUESTS[:1], tmp_path, **{**ADAM, "adam_lr": 1e3})
    assert changed_tensors(model, before) == []
    # in the second layer, when the first has been written
    calls, real = [], CriticalNeurons.written

    def broken(self, x):
        calls.append(x)
        return real(self, x) * (
            float("nan") if any(not part.name.count(".1.") for part in self.parts) else 1.0
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CriticalNeurons, "written", broken)
        with pytest.raises(EditError, match="layer 2"):
            edit(model, tok, REQUESTS[:1], tmp_path, **ADAM)
    assert changed_tensors(model, before) == [] and len(calls) > 10


def test_a_sequence_of_edits_keeps_its_state(tmp_path, caplog):
    model, tok = tiny_model("llama")
    first, weights = edit(model, tok, REQUESTS[:1], tmp_path, **ADAM)
    second, _ = edit(model, tok, REQUESTS[1:2], tmp_path, **ADAM)
    assert first.fingerprint_after == second.fingerprint_before and first.contexts == ["{}", *CONTEXTS]
    assert "changed from outside" not in caplog.text
    put_back(model, weights)
    again, _ = edit(model, tok, REQUESTS[1:2], tmp_path, **ADAM)
    assert "changed from outside" not in caplog.text
    third, _ = edit(tiny_model("llama")[0], tok, REQUESTS[1:2], tmp_path, **ADAM)
    assert all(torch.equal(third.units[n].vectors, d.vectors) for n, d in again.units.items())
    again.save(tmp_path / "record.safetensors")
    assert EditRecord.load(tmp_path / "record.safetensors").to_json() == again.to_json()


def test_what_is_trained_can_be_chosen(tmp_path):
    model, tok = tiny_model("gpt2")
    record, _ = edit(model, tok, REQUESTS[:1], tmp_path, adam_trains=["b_in"], layers=[2], **ADAM)
    assert list(record.units) == ["transformer.h.2.mlp.c_fc.bias"]
    assert record.units["transformer.h.2.mlp.c_fc.bias"].info == {"layer": 2, "kind": "b_in"}
    model, tok = tiny_model("llama")
    with pytest.raises(EditError, match="names no parameter of this FFN"):
        edit(model, tok, REQUESTS[:1], tmp_path, adam_trains=["b_in"], **ADAM)
    assert projection(ModelView.of(model), 1, "gate_proj").rows.tolist() == list(range(48))
