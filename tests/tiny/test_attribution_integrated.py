"""Integrated gradients: completeness on every architecture, a path written out, and captum's."""

import pytest
import torch
from captum.attr import IntegratedGradients

from easyedit_neuron.arch import ModelView
from easyedit_neuron.attribution import integrated_gradients, target_tokens
from easyedit_neuron.errors import NeuronEditError
from helpers.tiny_models import MODEL_TYPES, tiny_model

PROMPTS = ["Anna Berg was born in", "The capital of Norway is"]
TARGETS = ["tennis and London", "Rome"]


def probability(model, tok, prompt, target, whole, layer=None, scale=1.0, at=-1):
    """P(target | prompt) with a layer's activations at one token multiplied by a number: one prompt, a hook
    of its own."""
    start, answer = tok(prompt)["input_ids"], tok(" " + target, add_special_tokens=False)["input_ids"]
    at = len(start) + at

    def scaled(_module, args):
        q = args[0].clone()
        q[0, at] = q[0, at].clone() * scale
        return (q, *args[1:])

    handle = (
        ModelView.of(model).down_proj(layer or 0).register_forward_pre_hook(scaled)
        if layer is not None
        else None
    )
    logs = model(input_ids=torch.tensor([start + answer])).logits[0].log_softmax(-1)
    if handle:
        handle.remove()
    picked = [logs[len(start) - 1 + i, token] for i, token in enumerate(answer)]
    return torch.stack(picked[: None if whole else 1]).sum().exp()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("whole", [False, True])
def test_attributions_add_up_to_the_change_of_the_probability(model_type, whole):
    # with gemma2's norm behind the FFN the change lies where |FFN output| is about the root of its eps: one
    # that points resolve
    model, tok = tiny_model(
        model_type, dtype=torch.float64, **({"rms_norm_eps": 30.0} if model_type == "gemma2" else {})
    )
    view, targets = ModelView.of(model), target_tokens(tok, PROMPTS, TARGETS)
    attributions = integrated_gradients(view, targets, [0, 2, 3], whole_target=whole, steps=60, step_batch=50)
    with torch.no_grad():
        for number, (prompt, target) in enumerate(zip(PROMPTS, TARGETS)):
            full = probability(model, tok, prompt, target, whole)
            torch.testing.assert_close(attributions.probability[number], full, rtol=1e-5, atol=0)
            for layer in (0, 2, 3):
                change = full - probability(model, tok, prompt, target, whole, layer, 0.0)
                torch.testing.assert_close(
                    attributions.scores[layer][number].sum(), change, rtol=2e-4, atol=1e-5 * float(full)
                )


def test_twenty_points_and_the_riemann_sum():
    """The integrand written out at every point of the path, its gradient taken with respect to the neurons'
    scales."""
    model, tok = tiny_model("llama", dtype=torch.float64)
    view, targets = ModelView.of(model), target_tokens(tok, PROMPTS[:1], TARGETS[:1])
    right = integrated_gradients(view, targets, [1], rule="right", steps=3).scores[1][0]
    expected = torch.zeros(48, dtype=torch.float64)
    for alpha in (1 / 3, 2 / 3, 1.0):
        scale = torch.full((48,), alpha, dtype=torch.float64, requires_grad=True)
        expected += (
            torch.autograd.grad(probability(model, tok, PROMPTS[0], TARGETS[0], False, 1, scale), scale)[0]
            / 3
        )
    torch.testing.assert_close(right, expected, rtol=1e-5, atol=1e-10)
    exact, twenty = (integrated_gradients(view, targets, [1], steps=m).scores[1][0] for m in (80, 20))
    assert (twenty - exact).norm() < 1e-3 * exact.norm() < (right - exact).norm()


def test_at_another_token():
    model, tok = tiny_model("gpt2", dtype=torch.float64)
    view, targets = ModelView.of(model), target_tokens(tok, PROMPTS, TARGETS)
    attributions = integrated_gradients(
        view, targets, [1], position=targets.prompt_end - torch.tensor([2, 0]), steps=40
    )
    with torch.no_grad():
        full, zero = (
            probability(model, tok, PROMPTS[0], TARGETS[0], False, 1, scale, at=-3) for scale in (1.0, 0.0)
        )
        change = full - zero
    torch.testing.assert_close(attributions.scores[1][0].sum(), change, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gptj"])
def test_captum_finds_the_same(model_type):
    model, tok = tiny_model(model_type, dtype=torch.float64)
    view, targets = ModelView.of(model), target_tokens(tok, PROMPTS[:1], TARGETS[:1])
    end, answer, seen = int(targets.prompt_end[0]), int(targets.token_ids[0]), []

    def forward(q):
        def put(_module, args):
            seen.append(args[0][0, end].detach())
            moved = args[0].clone()
            moved[:, end] = q
            return (moved, *args[1:])

        handle = view.down_proj(2).register_forward_pre_hook(put)
        logits = model(input_ids=targets.batch.input_ids.expand(len(q), -1), use_cache=False).logits[:, end]
        handle.remove()
        return logits.softmax(-1)[:, answer]

    forward(torch.zeros(1, 48, dtype=torch.float64))
    captums = IntegratedGradients(forward).attribute(
        seen[0][None], baselines=0.0, n_steps=20, method="gausslegendre"
    )
    scores = integrated_gradients(view, targets, [2], steps=20).scores[2]
    torch.testing.assert_close(scores, captums, rtol=1e-4, atol=1e-4 * float(captums.abs().max()))


def test_a_batch_gives_what_single_prompts_give_and_the_model_is_left_alone():
    model, tok = tiny_model("qwen3")
    view, together = ModelView.of(model), target_tokens(tok, PROMPTS, TARGETS)
    next(model.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        attributions = integrated_gradients(view, together, [3, 1], step_batch=7, steps=5)
    assert list(attributions.scores) == [3, 1] and flags == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    for number in range(2):
        alone = integrated_gradients(
            view, target_tokens(tok, PROMPTS[number:][:1], TARGETS[number:][:1]), [1, 3], steps=5
        )
        for layer in (1, 3):
            scale = float(alone.scores[layer].abs().max())
            torch.testing.assert_close(
                attributions.scores[layer][number], alone.scores[layer][0], rtol=1e-3, atol=1e-4 * scale
            )
            torch.testing.assert_close(
                attributions.activations[layer][number], alone.activations[layer][0], rtol=1e-4, atol=1e-5
            )


def test_half_precision():
    model, tok = tiny_model("llama", dtype=torch.bfloat16)
    attributions = integrated_gradients(ModelView.of(model), target_tokens(tok, PROMPTS, TARGETS), [1])
    assert (
        attributions.scores[1].dtype == torch.float32
        and torch.isfinite(attributions.scores[1]).all()
        and attributions.scores[1].any()
    )


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(steps=0), "steps must be at least 1"),
        (dict(step_batch=0), "step_batch"),
        (dict(rule="gaus"), "did you mean 'gauss'"),
        (dict(layers=[]), "at least one layer"),
        (dict(layers=[9]), "layer 9 does not exist"),
        (dict(position=torch.tensor([0])), "one index per prompt"),
        (dict(position=torch.tensor([0, 99])), "one index per prompt"),
    ],
)
def test_bad_input_is_refused(options, words):
    model, tok = tiny_model("llama")
    with pytest.raises(NeuronEditError, match=words):
        integrated_gradients(
            ModelView.of(model), target_tokens(tok, PROMPTS, TARGETS), **{"layers": [1], **options}
        )
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_small_probability_in_half_precision(dtype):
    """At 1e-10 the gradient of P is 0 in float16, and all neurons would look alike."""
    scores = []
    for kind in (dtype, torch.float32):
        model, tok = tiny_model("llama", dtype=dtype)
        model = model.to(kind)
        with torch.no_grad():
            model.lm_head.weight *= 0.3
        view, targets = ModelView.of(model), target_tokens(tok, PROMPTS[:1], TARGETS[:1])
        result = integrated_gradients(view, targets, [1], whole_target=True)
        assert 1e-30 < float(result.probability[0]) < 1e-8
        scores.append(result.scores[1][0].double() / result.probability[0].double())
    assert scores[0].any()
    assert float(torch.cosine_similarity(*scores, 0)) > 0.95
