"""KNE's scores: Eq. 5 to the letter on the weights themselves, and completeness of every module of every
architecture."""

import pytest
import torch

from easyedit_neuron.arch import ModelView, projection, projection_names
from easyedit_neuron.attribution import target_tokens
from easyedit_neuron.errors import HparamsError, NeuronEditError
from helpers.editing import REQUESTS, changed_tensors, snapshot
from helpers.kne_cases import answer_log_probabilities, attributions
from helpers.tiny_models import MODEL_TYPES, tiny_model

LONG = REQUESTS[1]  # an answer of several tokens


def targets_of(tok, *requests):
    return target_tokens(tok, [r["prompt"] for r in requests], [r["target_new"] for r in requests])


def exact_model(model_type):
    # a norm behind a module undoes its scale (gemma2: behind attention and FFN, qwen3: behind q and k), and P
    # changes where |output| is about the root of the norm's eps: make that a place that points resolve
    return tiny_model(
        model_type,
        dtype=torch.float64,
        **({"rms_norm_eps": 30.0} if model_type in ("gemma2", "qwen3") else {}),
    )


def in_layout(view, site, scale):
    """The site's parameter in its own layout, the site's rows times a number."""
    matrix = view.matrix(site.parameter)
    changed = matrix.clone()
    changed[site.rows] *= scale
    return changed if matrix.is_contiguous() else changed.T


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@torch.no_grad()
def test_scores_of_a_module_add_up_to_what_it_does_to_the_answer(model_type, exact):
    model, tok = exact_model(model_type)
    view = ModelView.of(model)
    sites = [projection(view, 2, name) for name in projection_names(view)]
    scores = attributions(
        view, targets_of(tok, LONG), sites, attribution_steps=200, attribution_rule="gauss", step_batch=100
    )
    full = answer_log_probabilities(model, tok, LONG).exp().sum()
    for site in sites:
        change = (
            full
            - answer_log_probabilities(model, tok, LONG, {site.parameter: in_layout(view, site, 0.0)})
            .exp()
            .sum()
        )
        assert abs(float(change)) > 1e-9 and scores[site.key].shape == (site.size("output")[0],)
        torch.testing.assert_close(scores[site.key].sum(), change, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "gptj"])
@pytest.mark.parametrize("cumulative", [False, True])
def test_equation_5_to_the_letter(model_type, cumulative, exact):
    """w_k / m times the sum over tokens and points of dP/dw_k, the derivative taken with respect to the
    weight itself."""
    model, tok = exact_model(model_type)
    view, m = ModelView.of(model), 3
    for layer, name in ((0, "q_proj"), (2, "v_proj"), (3, "down_proj"), (2, "up_proj")):
        site = projection(view, layer, name)
        expected = torch.zeros(site.weight(view).shape, dtype=torch.float64)
        for i in range(1, m + 1):
            leaf = in_layout(view, site, i / m).requires_grad_()
            logs = answer_log_probabilities(model, tok, LONG, {site.parameter: leaf})
            total = (
                sum(logs[: j + 1].sum().exp() for j in range(len(logs))) if cumulative else logs.exp().sum()
            )
            (gradient,) = torch.autograd.grad(total, leaf)
            gradient = gradient if view.matrix(site.parameter).is_contiguous() else gradient.T
            expected += site.weight(view) * gradient[site.rows] / m
        options = dict(
            attribution_steps=m, token_probability="prefix" if cumulative else "token", step_batch=2
        )
        rows = attributions(view, targets_of(tok, LONG), [site], **options)[site.key]
        columns = attributions(view, targets_of(tok, LONG), [site], neuron_axis="input", **options)[site.key]
        scale = float(expected.sum(1).abs().max())
        torch.testing.assert_close(rows, expected.sum(1), rtol=1e-8, atol=1e-10 * scale)
        torch.testing.assert_close(columns, expected.sum(0), rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("axis", ["output", "input"])
def test_one_neuron_scaled_at_a_time(model_type, axis, exact):
    """Eq. 3 to 5: only w_k takes the values of the path, the other rows (columns) keep their weights."""
    model, tok = exact_model(model_type)
    view, m = ModelView.of(model), 3
    for layer, name in ((2, "v_proj"), (3, "down_proj")):
        site = projection(view, layer, name)
        weight = site.weight(view).clone()
        units = weight.shape[0 if axis == "output" else 1]
        expected = torch.zeros(units, dtype=torch.float64)
        for k in range(units):
            for i in range(1, m + 1):
                changed = view.matrix(site.parameter).clone()
                own = changed[site.rows]
                own[k if axis == "output" else slice(None), slice(None) if axis == "output" else k] *= i / m
                changed[site.rows] = own
                is_contiguous = view.matrix(site.parameter).is_contiguous()
                leaf = (changed if is_contiguous else changed.T).detach().requires_grad_()
                total = answer_log_probabilities(model, tok, LONG, {site.parameter: leaf}).exp().sum()
                (gradient,) = torch.autograd.grad(total, leaf)
                gradient = (gradient if is_contiguous else gradient.T)[site.rows]
                product = weight * gradient
                expected[k] += (product[k] if axis == "output" else product[:, k]).sum() / m
        options = dict(attribution_steps=m, neuron_axis=axis, scaling="neuron", step_batch=7)
        scores = attributions(view, targets_of(tok, LONG), [site], **options)[site.key]
        torch.testing.assert_close(scores, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
        together = attributions(view, targets_of(tok, LONG), [site], attribution_steps=m, neuron_axis=axis)
        assert float((together[site.key] - scores).abs().max()) > 1e-3 * float(scores.abs().max())


def test_joint_scaling_is_complete_over_all_modules(exact):
    model, tok = exact_model("gpt_neox")
    view = ModelView.of(model)
    sites = [projection(view, layer, name) for layer in (2, 0) for name in ("k_proj", "q_proj", "down_proj")]
    scores = attributions(
        view,
        targets_of(tok, LONG),
        sites,
        attribution_steps=100,
        attribution_rule="gauss",
        scaling="joint",
        step_batch=100,
    )
    with torch.no_grad():
        matrices = {site.parameter: view.matrix(site.parameter).clone() for site in sites}
        for site in sites:
            matrices[site.parameter][site.rows] = 0.0
        full, none = (
            answer_log_probabilities(model, tok, LONG, given).exp().sum() for given in ({}, matrices)
        )
    torch.testing.assert_close(
        sum(site_scores.sum() for site_scores in scores.values()), full - none, rtol=1e-5, atol=1e-12
    )
    alone = attributions(view, targets_of(tok, LONG), sites)
    assert max(float((alone[key] - scores[key]).abs().max()) for key in scores) > 1e-6
    first_site = [sites[0]]
    joint, single = (
        attributions(view, targets_of(tok, LONG), first_site, scaling=scaling)[first_site[0].key]
        for scaling in ("joint", "module")
    )
    assert torch.equal(joint, single)


def test_a_batch_is_the_mean_of_its_prompts_and_the_model_is_left_alone():
    model, tok = tiny_model("llama")
    view, before = ModelView.of(model), snapshot(model)
    sites = [projection(view, layer, name) for layer in (3, 1) for name in ("down_proj", "o_proj")]
    together = attributions(view, targets_of(tok, *REQUESTS), sites, step_batch=7, attribution_steps=5)
    single = [
        attributions(view, targets_of(tok, r), sites, step_batch=64, attribution_steps=5) for r in REQUESTS
    ]
    for key, mean_scores in together.items():
        expected = sum(scores[key] for scores in single) / 3
        torch.testing.assert_close(mean_scores, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert changed_tensors(model, before) == []


def test_half_precision():
    model, tok = tiny_model("gpt2", dtype=torch.bfloat16)
    view = ModelView.of(model)
    for axis in ("output", "input"):
        scores = attributions(view, targets_of(tok, LONG), [projection(view, 1, "q_proj")], neuron_axis=axis)[
            "1.q_proj"
        ]
        assert scores.dtype == torch.float32 and bool(torch.isfinite(scores).all()) and bool(scores.any())


def test_bad_input():
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    site = projection(view, 1, "up_proj")
    with pytest.raises(NeuronEditError, match="at least one module"):
        attributions(view, targets_of(tok, LONG), [])
    for option, must_be in (("attribution_steps", r"in \[1, 1000\]"), ("step_batch", "at least 1")):
        with pytest.raises(HparamsError, match=f"'{option}': must be {must_be}, not 0"):
            attributions(view, targets_of(tok, LONG), [site], **{option: 0})
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = float("inf")
    with pytest.raises(NeuronEditError, match="scores of 1.up_proj are not finite"):
        attributions(view, targets_of(tok, LONG), [site], attribution_steps=2)


def test_a_small_probability_in_half_precision():
    """The same weights in float16 and float32; the answer's probability is far below float16's smallest
    number."""
    scores = []
    for kind in (torch.float16, torch.float32):
        model, tok = tiny_model("llama", dtype=torch.float16)
        model = model.to(kind)
        with torch.no_grad():
            model.lm_head.weight *= 6
        view = ModelView.of(model)
        sites = [projection(view, 1, "down_proj")]
        scores.append(attributions(view, targets_of(tok, REQUESTS[0]), sites)[sites[0].key].double())
        with torch.no_grad():
            assert 0 < float(answer_log_probabilities(model.float(), tok, REQUESTS[0]).exp().sum()) < 1e-8
    assert scores[0].any() and float(torch.cosine_similarity(*scores, 0)) > 0.9
