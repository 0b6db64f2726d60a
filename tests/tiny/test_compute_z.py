"""z*: loss and first Adam step against one prompt at a time with hooks placed by hand, without padding."""

import zlib

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from helpers.editing import CONTEXTS, REQUESTS, changed_tensors, find_target, make_hparams, snapshot
from helpers.plain_search import PlainLoss
from helpers.tiny_models import tiny_model

LAYERS = {
    "llama": "model.layers.{}",
    "gpt2": "transformer.h.{}",
    "gptj": "transformer.h.{}",
    "gemma2": "model.layers.{}",
}
FLAT = ["{}", *CONTEXTS]
LAYER = 2


@pytest.mark.parametrize("model_type", list(LAYERS))
@pytest.mark.parametrize("target", ["Oslo", "tennis and London", "Malmø"])
def test_first_step_equals_the_plain_one(model_type, target, tmp_path):
    request = {**REQUESTS[1], "target_new": target}
    model, tok = tiny_model(model_type)
    hparams = make_hparams("AlphaEdit", tmp_path, v_num_grad_steps=2, v_lr=0.05)
    result = find_target(ModelView.of(model), tok, prepare([request])[0], hparams, FLAT, LAYER)
    plain = PlainLoss(model, model.get_submodule(LAYERS[model_type].format(LAYER)), tok, request, FLAT)
    delta = torch.zeros(32, requires_grad=True)
    loss = plain(delta, hparams)
    (gradient,) = torch.autograd.grad(loss, delta)
    assert result.losses[0] == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(result.initial, plain.initial, rtol=1e-5, atol=1e-5)
    step = -0.05 * gradient / (gradient.abs() + 1e-8)  # Adam's first step
    torch.testing.assert_close(result.value - result.initial, step, rtol=1e-3, atol=1e-5)
    assert len(result.losses) == 2 and result.losses[1] == pytest.approx(
        float(plain(step, hparams).detach()), rel=1e-4
    )


def test_the_step_is_clamped(tmp_path):
    model, tok = tiny_model("llama")
    hparams = make_hparams("AlphaEdit", tmp_path, v_lr=5.0, clamp_norm_factor=0.5, v_num_grad_steps=3)
    target = find_target(ModelView.of(model), tok, prepare(REQUESTS)[0], hparams, FLAT, LAYER)
    assert float((target.value - target.initial).norm()) == pytest.approx(
        0.5 * float(target.initial.norm()), rel=1e-5
    )


def test_noise_is_added_beside_delta(tmp_path):
    """At the first step the loss is the plain one at the request's own draw; a batch draws the same."""
    model, tok = tiny_model("llama")
    options = {"v_noise": 0.5, "kl_factor": 0.0, "v_num_grad_steps": 3, "v_weight_decay": 0.0}
    hparams = make_hparams("AlphaEdit", tmp_path, **options)
    requests = prepare(REQUESTS)
    targets = [find_target(ModelView.of(model), tok, r, hparams, ["{}"], LAYER) for r in requests]
    for request, target in zip(requests, targets):
        plain = PlainLoss(model, model.get_submodule(LAYERS["llama"].format(LAYER)), tok, request.raw, ["{}"])
        seed = zlib.crc32(f"{hparams.seed} {request.fact}".encode())
        noise = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed))[0]
        scale = 0.5 * target.initial.square().mean().sqrt()
        with torch.no_grad():
            assert target.losses[0] == pytest.approx(float(plain(noise * scale, hparams)), rel=1e-4)
    batch = compute_z(ModelView.of(model), tok, requests, hparams, ["{}"], LAYER).targets
    for alone, together in zip(targets, batch):
        torch.testing.assert_close(alone.value, together.value, rtol=1e-4, atol=1e-5)
    silent = make_hparams("AlphaEdit", tmp_path, **options | {"v_noise": 0.0})
    other = find_target(ModelView.of(model), tok, requests[0], silent, ["{}"], LAYER)
    assert not torch.allclose(other.value, targets[0].value)


def test_it_stops_below_the_stop_loss(tmp_path):
    model, tok = tiny_model("llama")
    hparams = make_hparams("AlphaEdit", tmp_path, v_stop_loss=100.0)
    target = find_target(ModelView.of(model), tok, prepare(REQUESTS)[0], hparams, FLAT, LAYER)
    assert len(target.losses) == 1 and torch.equal(target.value, target.initial)


def test_loss_at_the_last_layer_is_the_loss_of_the_logits(tmp_path):
    """v_loss_layer = last layer and an unset one are the same, softcap and final norm included."""
    model, tok = tiny_model("gemma2")
    targets = [
        find_target(
            ModelView.of(model),
            tok,
            prepare(REQUESTS)[0],
            make_hparams("AlphaEdit", tmp_path, v_loss_layer=loss_layer),
            FLAT,
            LAYER,
        )
        for loss_layer in (None, 3)
    ]
    assert targets[0].losses == targets[1].losses and torch.equal(targets[0].value, targets[1].value)


def test_an_earlier_loss_layer_reads_its_output_through_the_head(tmp_path):
    model, tok = tiny_model("gemma2")
    hparams = make_hparams("AlphaEdit", tmp_path, v_loss_layer=2, v_num_grad_steps=1)
    z_target = find_target(ModelView.of(model), tok, prepare(REQUESTS)[0], hparams, ["{}"], LAYER)
    ids = tok(REQUESTS[0]["prompt"])["input_ids"]
    target = tok(" Oslo", add_special_tokens=False)["input_ids"]
    hidden = []
    handle = model.model.layers[2].register_forward_hook(
        lambda m, a, out: hidden.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        model(input_ids=torch.tensor([ids + target[:-1]]))
        handle.remove()
        logits = 5.0 * torch.tanh(model.lm_head(model.model.norm(hidden[0])) / 5.0)[0, len(ids) - 1 :]
    assert z_target.losses[0] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, torch.tensor(target))), rel=1e-5
    )


@pytest.mark.parametrize("grad", [True, False])
def test_the_model_is_as_before(grad, tmp_path):
    model, tok = tiny_model("llama")
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 == 0)
    before = snapshot(model)
    with torch.set_grad_enabled(grad):
        target = find_target(
            ModelView.of(model), tok, prepare(REQUESTS)[0], make_hparams("AlphaEdit", tmp_path), FLAT, LAYER
        )
    assert (
        changed_tensors(model, before) == []
        and target.losses[-1] < target.losses[0]
        and not target.value.requires_grad
    )
