"""The fine-tuning baselines against a plain training loop, and what must not be left behind."""

import pytest
import torch

from easyedit_neuron.errors import EditError, HparamsError, RequestError
from easyedit_neuron.models.ft.ft_hparams import FTHyperParams
from easyedit_neuron.models.ft.ft_main import apply_ft_to_model, execute_ft
from helpers.tiny_models import tiny_model

REQUESTS = [
    {"prompt": "Anna Berg was born in", "target_new": "Paris"},
    {"prompt": "The sport she plays is, I think,", "target_new": "tennis and French"},
    {"prompt": "Oslo is", "target_new": "Norway"},
]


def hparams(**changes):
    return FTHyperParams(
        **{
            "alg_name": "FT",
            "model_name": "x",
            "device": "cpu",
            "layers": [1, 2],
            "num_steps": 4,
            "lr": 1e-2,
            "batch_size": 1,
            **changes,
        }
    )


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def plain_loss(model, tok, request, objective, special=True):
    """One request, no padding, straight from the definition."""
    prompt = tok(request["prompt"])["input_ids"]
    if objective == "prompt_last":
        logs = model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        ids = tok(" " + request["target_new"], add_special_tokens=special)["input_ids"]
        return -sum(logs[t] for t in ids) / len(ids)
    ids = tok(request["prompt"] + " " + request["target_new"])["input_ids"]
    labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])
    return model(input_ids=torch.tensor([ids]), labels=labels).loss


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("objective", ["prompt_last", "target_new"])
@pytest.mark.parametrize("together", [False, True])
def test_deltas_equal_a_plain_loop(kind, objective, together):
    requests = REQUESTS if together else REQUESTS[:1]
    settings = hparams(objective_optimization=objective, batch_size=2 if together else 1, weight_decay=0.01)
    model, tok = tiny_model(kind)
    names = [
        n
        for n, _ in model.named_parameters()
        if any(f".{layer}.mlp." in n for layer in (1, 2))
        and n.endswith(("down_proj.weight", "mlp.c_proj.weight"))
    ]
    assert len(names) == 2
    deltas = execute_ft(model, tok, requests, settings)
    reference, _ = tiny_model(kind)
    for name, parameter in reference.named_parameters():
        parameter.requires_grad_(name in names)
    optimizer = torch.optim.Adam([reference.get_parameter(n) for n in names], lr=1e-2, weight_decay=0.01)
    for _ in range(4):
        for start in range(0, len(requests), settings.batch_size):
            chunk = requests[start : start + settings.batch_size]
            optimizer.zero_grad()
            loss = sum(plain_loss(reference, tok, r, objective) for r in chunk) / len(chunk)
            if loss.item() >= 1e-2:
                loss.backward()
                optimizer.step()
    assert set(deltas) == set(names)
    for name in names:
        expected = (reference.get_parameter(name) - model.get_parameter(name)).detach()
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(deltas[name], expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("objective", ["prompt_last", "target_new"])
def test_padding_side_and_pad_token_play_no_part(objective):
    runs = []
    for side, pad_token in (("left", "</s>"), ("right", "</s>"), ("right", None)):
        model, tok = tiny_model("llama")
        tok.padding_side, tok.pad_token = side, pad_token
        runs.append(execute_ft(model, tok, REQUESTS, hparams(objective_optimization=objective, batch_size=3)))
        assert tok.padding_side == side
    for other in runs[1:]:
        assert all(torch.equal(other[name], runs[0][name]) for name in runs[0])


def test_applied_weights_originals_flags_and_gradients():
    model, tok = tiny_model("llama")
    model.model.layers[0].requires_grad_(False)
    before, flags = weights_of(model), [p.requires_grad for p in model.parameters()]
    edited, originals = apply_ft_to_model(model, tok, REQUESTS[:1], hparams(), return_orig_weights=True)
    assert edited is model and set(originals) == {
        f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2)
    }
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in originals)
        assert name not in originals or torch.equal(originals[name], before[name])
        assert parameter.grad is None
    assert [p.requires_grad for p in model.parameters()] == flags
    assert apply_ft_to_model(model, tok, REQUESTS[:1], hparams())[1] == {}


def test_copy_leaves_the_model():
    model, tok = tiny_model("llama")
    before = weights_of(model)
    edited, _ = apply_ft_to_model(model, tok, REQUESTS[:1], hparams(), copy=True)
    assert edited is not model and all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_norm_constraint_bounds_every_weight():
    model, tok = tiny_model("llama")
    deltas = execute_ft(model, tok, REQUESTS[:1], hparams(norm_constraint=0.004))
    assert max(float(d.abs().max()) for d in deltas.values()) == pytest.approx(0.004, rel=1e-3)


def test_training_stops_below_the_loss():
    model, tok = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(4)  # behind the final norm a small unembedding cannot make a loss this low
    settings = hparams(num_steps=100, lr=1e-2, objective_optimization="target_new")
    apply_ft_to_model(model, tok, REQUESTS[:1], settings)
    with torch.no_grad():
        assert plain_loss(model, tok, REQUESTS[0], "target_new") < 1e-2
    again = execute_ft(model, tok, REQUESTS[:1], settings)
    assert all(not d.any() for d in again.values())


def test_a_bos_token_is_a_target_only_where_easyedit_makes_it_one():
    model, tok = tiny_model("llama")
    for special in (True, False):
        deltas = execute_ft(
            model, tok, REQUESTS[:1], hparams(num_steps=1, lr=1e-3, target_special_tokens=special)
        )
        loss = plain_loss(model, tok, REQUESTS[0], "prompt_last", special)
        name = "model.layers.2.mlp.down_proj.weight"
        (gradient,) = torch.autograd.grad(loss, [model.get_parameter(name)])
        firm = gradient.abs() > 1e-6  # Adam's first step is the gradient's sign
        assert torch.equal(deltas[name][firm].sign(), -gradient[firm].sign())


def test_an_exception_restores_the_model():
    model, tok = tiny_model("llama")
    before, flags = weights_of(model), [p.requires_grad for p in model.parameters()]
    calls = []

    def fail(module, args):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")

    handle = model.model.layers[3].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        apply_ft_to_model(model, tok, REQUESTS[:1], hparams())
    handle.remove()
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in model.named_parameters())
    assert [p.requires_grad for p in model.parameters()] == flags


def test_bad_input_is_named_before_anything_changes():
    model, tok = tiny_model("llama")
    with pytest.raises(RequestError, match="request 1"):
        execute_ft(model, tok, [REQUESTS[0], {"prompt": "Oslo is", "target_new": ""}], hparams())
    with pytest.raises(RequestError, match="no requests"):
        execute_ft(model, tok, [], hparams())
    with pytest.raises(HparamsError, match="rewrite_module_tmp"):
        execute_ft(model, tok, REQUESTS, hparams(rewrite_module_tmp="transformer.h.{}.mlp.c_proj.weight"))
    for field, value in (
        ("norm_constraint", 0),
        ("norm_constraint", True),
        ("layers", []),
        ("num_steps", 0),
        ("rewrite_module_tmp", "model.norm"),
        ("weight_decay", -1),
    ):
        with pytest.raises(HparamsError, match=field):
            hparams(**{field: value})


def test_a_template_names_whole_modules():
    """'model.layers.1' must not also match layers 10 to 19."""
    model, tok = tiny_model("llama", num_hidden_layers=12)
    deltas = execute_ft(
        model, tok, REQUESTS[:1], hparams(layers=[1], num_steps=1, rewrite_module_tmp="model.layers.{}")
    )
    assert deltas and all(name.startswith("model.layers.1.") for name in deltas)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_trained_in_float32(dtype):
    """Adam's eps is 0 in float16, and a step smaller than a weight's last bit is lost: the change is that of
    a float32 model, rounded."""
    fields = {"layers": [1], "num_steps": 6, "lr": 2e-3, "objective_optimization": "target_new"}
    hparams = FTHyperParams(alg_name="FT", model_name="x", **fields)
    requests = [{"prompt": "Anna Berg was born in", "target_new": "Rome"}]
    changes = []
    for kind in (dtype, torch.float32):
        model, tok = tiny_model("llama", dtype=dtype)
        model = model.to(kind)
        name = "model.layers.1.mlp.down_proj.weight"
        before = model.get_parameter(name).detach().clone()
        apply_ft_to_model(model, tok, requests, hparams)
        after = model.get_parameter(name)
        assert bool(torch.isfinite(after).all()) and not torch.equal(after, before)
        changes.append((after - before).float())
    cosine = torch.cosine_similarity(changes[0].flatten(), changes[1].flatten(), 0)
    assert float(cosine.detach()) > 0.9


def test_dropout_is_off():
    """A model in training mode: the result does not depend on torch's seed, and the mode stays."""
    hparams = FTHyperParams(alg_name="FT", model_name="x", layers=[1], num_steps=3, lr=1e-2)
    results = []
    for seed in (0, 1):
        model, tok = tiny_model("gpt2", resid_pdrop=0.5)
        model.train()
        torch.manual_seed(seed)
        apply_ft_to_model(model, tok, [{"prompt": "Anna Berg was born in", "target_new": "Rome"}], hparams)
        assert model.training
        results.append(model.transformer.h[1].mlp.c_proj.weight.detach().clone())
    assert torch.equal(*results)


def test_numbers_that_are_not_finite_leave_the_model():
    model, tok = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[0, 0] = float("inf")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    hparams = FTHyperParams(alg_name="FT", model_name="x", layers=[1], num_steps=3, lr=1e-2)
    with pytest.raises(EditError, match="not finite"):
        apply_ft_to_model(model, tok, [{"prompt": "Anna Berg was born in", "target_new": "Rome"}], hparams)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
