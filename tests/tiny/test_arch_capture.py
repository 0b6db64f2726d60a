"""Captured states against hooks placed by hand and formulas written out, for every architecture."""

import gc
import weakref

import pytest
import torch
from transformers import DynamicCache

from easyedit_neuron.arch import Capture, ModelView
from easyedit_neuron.arch.capture import Prefix
from easyedit_neuron.errors import ArchitectureError
from helpers.prompts import right_padded
from helpers.tiny_models import ALL_TYPES, FFN_WIDTH, tiny_model

ALL = {"key", "resid_mid", "ffn_out", "layer_out", "final_hidden"}
FALCONS = [
    {"parallel_attn": False},
    {"parallel_attn": False, "multi_query": False, "alibi": True, "bias": True},
    {"new_decoder_architecture": True, "num_kv_heads": 2},
]
CASES = [(name, {}) for name in ALL_TYPES]
CASES += [("gpt_neox", {"use_parallel_residual": False}), ("stablelm", {"use_parallel_residual": True})]
CASES += [("falcon", changes) for changes in FALCONS]
# what each family calls: blocks, FFN's last matrix, attention, norm in front of the FFN, final norm
BY_HAND = {
    "gpt2": ("transformer.h", "mlp.c_proj", "attn", "ln_2", "transformer.ln_f"),
    "gptj": ("transformer.h", "mlp.fc_out", "attn", None, "transformer.ln_f"),
    "gpt_neox": (
        "gpt_neox.layers",
        "mlp.dense_4h_to_h",
        "attention",
        "post_attention_layernorm",
        "gpt_neox.final_layer_norm",
    ),
}
BY_HAND["gpt_bigcode"] = BY_HAND["gpt2"]
BY_HAND["starcoder2"] = ("model.layers", "mlp.c_proj", "self_attn", "post_attention_layernorm", "model.norm")
BY_HAND["phi"] = ("model.layers", "mlp.fc2", "self_attn", None, "model.final_layernorm")
BY_HAND["opt"] = ("model.decoder.layers", "fc2", "self_attn", None, "model.decoder.final_layer_norm")
BY_HAND["bloom"] = ("transformer.h", "mlp.dense_4h_to_h", "self_attention", None, "transformer.ln_f")
BY_HAND["falcon"] = BY_HAND["bloom"]
BY_HAND["mpt"] = ("transformer.blocks", "ffn.down_proj", "attn", "norm_2", "transformer.norm_f")
BY_HAND["gpt_neo"] = BY_HAND["gpt2"]
# families that put a norm on what attention and FFN add: attention's
BRANCH_NORMS = {
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2"), "post_attention_layernorm"),
    "glm4": "post_self_attn_layernorm",
}
LLAMA = ("model.layers", "mlp.down_proj", "self_attn", "post_attention_layernorm", "model.norm")
TEXTS = ["Anna Berg was born in", "The capital of Norway is", "I"]


def _batch(tok):
    batch = right_padded(tok, TEXTS, filler=1)
    return batch.input_ids, batch.attention_mask


def _hand_hooked(model, model_type, ids, mask):
    """Everything by plain torch hooks on named modules; the residual in the middle from its formula."""
    blocks, down, attention, _, final = BY_HAND.get(model_type, LLAMA)
    attention_of = dict.fromkeys(range(4), attention)
    if model_type == "qwen3_5_text":
        attention_of |= dict.fromkeys((0, 2), "linear_attn")
    seen = {}

    def by_token(states):  # OPT's FFN gets batch and tokens as one dimension
        return states if states is None or states.dim() == 3 else states.view(*ids.shape, -1)

    def keep(name):
        def hook(_module, args, output):
            seen[name + ".in"] = by_token(args[0] if args else None)
            # A copy: Falcon's block adds to the tensor in place.
            seen[name + ".out"] = by_token(output[0] if isinstance(output, tuple) else output).clone()

        return hook

    names = [final] + [
        f"{blocks}.{layer}{part}"
        for layer in range(4)
        for part in ("", "." + down, "." + attention_of[layer])
        + ((f".{BRANCH_NORMS[model_type]}",) if model_type in BRANCH_NORMS else ())
    ]
    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    logits = model(input_ids=ids, attention_mask=mask).logits
    for handle in handles:
        handle.remove()
    expected = {"final_hidden": seen[final + ".in"]}
    for layer in range(4):
        block = f"{blocks}.{layer}"
        branch = seen[f"{block}.{attention_of[layer]}.out"]
        if model_type in BRANCH_NORMS:
            branch = seen[f"{block}.{BRANCH_NORMS[model_type]}.out"]
        expected[layer] = {
            "key": seen[f"{block}.{down}.in"],
            "ffn_out": seen[f"{block}.{down}.out"],
            "layer_out": seen[f"{block}.out"],
            # BLOOM's attention adds the residual stream itself, Granite scales what is added.
            "resid_mid": branch
            if model_type == "bloom"
            else seen[f"{block}.in"] + (0.3 if model_type == "granite" else 1.0) * branch,
        }
    return logits, expected


@pytest.mark.parametrize("model_type,overrides", CASES)
@torch.no_grad()
def test_captured_states_equal_those_of_hooks_placed_by_hand(model_type, overrides):
    model, tok = tiny_model(model_type, **overrides)
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    logits, expected = _hand_hooked(model, model_type, ids, mask)
    with Capture(view, range(4), want=ALL) as seen:
        again = model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(logits, again)
    assert torch.equal(seen.final_hidden, expected["final_hidden"])
    for layer in range(4):
        for name in ("key", "ffn_out", "layer_out"):
            assert torch.equal(getattr(seen, name)[layer], expected[layer][name]), (layer, name)
        torch.testing.assert_close(seen.resid_mid[layer], expected[layer]["resid_mid"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type,overrides", CASES)
@torch.no_grad()
def test_the_parts_add_up(model_type, overrides):
    """layer_out = resid_mid + FFN(q), with W_down, its bias and the post-FFN norm as the view gives them."""
    model, tok = tiny_model(model_type, **overrides)
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    with Capture(view, range(4), want=ALL) as seen:
        logits = model(input_ids=ids, attention_mask=mask).logits
    for layer in range(4):
        ffn = seen.key[layer] @ view.down_matrix(layer).T
        if view.down_bias(layer) is not None:
            ffn = ffn + view.down_bias(layer)
        torch.testing.assert_close(ffn, seen.ffn_out[layer], rtol=1e-5, atol=1e-5)
        post_ffn_norm = view.post_ffn_norm_parameters(layer)
        assert (post_ffn_norm is not None) == (model_type in BRANCH_NORMS)
        if post_ffn_norm is not None:
            eps = model.config.rms_norm_eps
            ffn = post_ffn_norm.gain * ffn / torch.sqrt(ffn.pow(2).mean(-1, keepdim=True) + eps)
        ffn = 0.3 * ffn if model_type == "granite" else ffn
        torch.testing.assert_close(seen.resid_mid[layer] + ffn, seen.layer_out[layer], rtol=1e-5, atol=2e-5)
    norm, (matrix, bias) = view.final_norm_parameters(), view.unembedding()
    hidden = seen.final_hidden
    centred = hidden - hidden.mean(-1, keepdim=True) if norm.centred else hidden
    normed = norm.gain * centred / norm.scale(hidden)[..., None]
    normed = normed if norm.bias is None else normed + norm.bias
    expected = normed @ matrix.T + (0 if bias is None else bias)
    expected = expected / 4.0 if model_type in ("granite", "cohere", "cohere2") else expected
    if view.logit_softcap:
        expected = view.logit_softcap * torch.tanh(expected / view.logit_softcap)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type,overrides", CASES)
@torch.no_grad()
def test_right_padding_does_not_change_real_tokens(model_type, overrides):
    model, tok = tiny_model(model_type, **overrides)
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    with Capture(view, [0, 3], want=ALL) as batch:
        model(input_ids=ids, attention_mask=mask)
    for row in range(len(TEXTS)):
        length = int(mask[row].sum())
        with Capture(view, [0, 3], want=ALL) as single:
            model(input_ids=ids[row : row + 1, :length])
        for layer in (0, 3):
            for name in ("key", "resid_mid", "ffn_out", "layer_out"):
                torch.testing.assert_close(
                    getattr(batch, name)[layer][row, :length],
                    getattr(single, name)[layer][0],
                    rtol=1e-4,
                    atol=1e-4,
                )
        torch.testing.assert_close(
            batch.final_hidden[row, :length], single.final_hidden[0], rtol=1e-4, atol=1e-4
        )


def _hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@torch.no_grad()
def test_hooks_are_gone_afterwards_also_after_an_exception():
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    ids, _ = _batch(tok)
    before = _hooks(model)
    with Capture(view, range(4), want=ALL):
        model(input_ids=ids)
        assert _hooks(model) > before
    assert _hooks(model) == before
    with (
        pytest.raises(RuntimeError, match="in the block"),
        Capture(view, range(4), want=ALL, stop_after=None),
    ):
        raise RuntimeError("in the block")
    assert _hooks(model) == before

    def broken(_hidden):
        raise KeyError("inside the forward")

    with pytest.raises(KeyError), Capture(view, [1], edit_layer_out={1: broken}):
        model(input_ids=ids)
    assert _hooks(model) == before


@pytest.mark.parametrize("model_type", ALL_TYPES)
@torch.no_grad()
def test_stop_after_ends_the_forward(model_type):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    ran = []
    handles = [view.mlp(layer).register_forward_hook(lambda *_, n=layer: ran.append(n)) for layer in range(4)]
    with Capture(view, [0, 1], want={"key", "layer_out"}, stop_after=1) as seen:
        model(input_ids=ids, attention_mask=mask)
        raise AssertionError("the forward must not return")
    assert ran == [0, 1] and set(seen.key) == set(seen.layer_out) == {0, 1}
    head = view.model.get_submodule(view.arch.lm_head_module)
    handles.append(head.register_forward_hook(lambda *_: ran.append("head")))
    with Capture(view, [3], want={"final_hidden"}, stop_after="final") as seen:
        model(input_ids=ids, attention_mask=mask)
    assert ran == [0, 1, 0, 1, 2, 3] and seen.final_hidden.shape == (*ids.shape, 32)
    for handle in handles:
        handle.remove()
    plain = model(input_ids=ids, attention_mask=mask).logits
    assert torch.isfinite(plain).all()


@pytest.mark.parametrize("model_type", ALL_TYPES)
@torch.no_grad()
def test_stop_after_key_leaves_out_the_last_down_projection(model_type):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    with Capture(view, [2, 0], stop_after=2) as whole:
        model(input_ids=ids, attention_mask=mask)
    ran = []
    handles = [
        view.down_proj(layer).register_forward_hook(lambda *_, n=layer: ran.append(n)) for layer in range(4)
    ]
    with Capture(view, [2, 0], stop_after="key") as seen:
        model(input_ids=ids, attention_mask=mask)
        raise AssertionError("the forward must not return")
    for handle in handles:
        handle.remove()
    assert ran == [0, 1] and all(torch.equal(seen.key[layer], whole.key[layer]) for layer in (0, 2))


@torch.no_grad()
def test_a_stop_inside_another_capture_is_not_swallowed_by_it():
    model, tok = tiny_model("gpt2")
    view = ModelView.of(model)
    ids, _ = _batch(tok)
    with Capture(view, [0], stop_after=0):
        with Capture(view, [0], want={"key"}) as inner:
            model(input_ids=ids)
        raise AssertionError("not reached: the inner block passes the outer one's stop on")
    assert 0 in inner.key


@torch.no_grad()
def test_what_a_stopped_forward_held_is_freed_with_the_capture_and_not_by_the_garbage_collector():
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": DynamicCache(), "use_cache": True}
    cache = weakref.ref(inputs["past_key_values"])
    gc.collect()
    gc.disable()
    try:
        with Capture(view, [], want={"final_hidden"}, stop_after="final") as seen:
            model(**inputs)
        del inputs
        assert seen.final_hidden is not None and cache() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_edit_layer_out_replaces_the_output_and_lets_gradients_through(model_type):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    delta = torch.zeros(32, requires_grad=True)
    plain = model(input_ids=ids, attention_mask=mask).logits
    with Capture(view, [1, 2], want={"layer_out"}, edit_layer_out={1: lambda h: h + delta}) as seen:
        logits = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(logits, plain, rtol=1e-5, atol=1e-5)
    loss = logits.log_softmax(-1)[0, -1, 5]
    (gradient,) = torch.autograd.grad(loss, delta)
    assert gradient.abs().max() > 1e-4 and seen.layer_out[2].requires_grad
    # central difference along the gradient
    step = 1e-2 * gradient / gradient.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad(), Capture(view, [], edit_layer_out={1: lambda h, s=sign: h + s * step}):
            values.append(model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)[0, -1, 5])
    assert (values[0] - values[1]).item() == pytest.approx(2e-2 * gradient.norm().item(), rel=0.05)


def test_captured_layer_out_is_the_edited_one():
    model, tok = tiny_model("gptj")
    view = ModelView.of(model)
    ids, _ = _batch(tok)
    with (
        torch.no_grad(),
        Capture(view, [2], {"layer_out"}, stop_after=2, edit_layer_out={2: torch.zeros_like}) as seen,
    ):
        model(input_ids=ids)
    assert not seen.layer_out[2].any()


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_edit_key_replaces_the_input_of_the_down_projection(model_type):
    """Zeroed activations leave the down projection's bias; gradients of replaced ones follow its matrix."""
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    ids, mask = _batch(tok)
    with (
        torch.no_grad(),
        Capture(view, [1], want={"key", "ffn_out"}, stop_after=1, edit_key={1: torch.zeros_like}) as seen,
    ):
        model(input_ids=ids, attention_mask=mask)
    bias = view.down_bias(1)
    assert not seen.key[1].any()
    assert torch.equal(seen.ffn_out[1], torch.zeros_like(seen.ffn_out[1]) + (0 if bias is None else bias))
    point = torch.randn(FFN_WIDTH[model_type], requires_grad=True)
    with Capture(
        view, [1], want={"key", "ffn_out"}, stop_after=1, edit_key={1: lambda q: q * 0 + point}
    ) as seen:
        model(input_ids=ids, attention_mask=mask)
    assert torch.equal(seen.key[1][0, 0], point)
    (gradient,) = torch.autograd.grad(seen.ffn_out[1][0, 0, 3], point)
    torch.testing.assert_close(gradient, view.down_matrix(1)[3])


@pytest.mark.parametrize(
    "arguments,words",
    [
        (dict(layers=[4]), "layer 4 does not exist"),
        (dict(layers=[-1]), "layer -1 does not exist"),
        (dict(layers=[0], want={"keys"}), "unknown \\['keys'\\]"),
        (dict(layers=[2], stop_after=1), "before layer 2"),
        (dict(layers=[0], want={"final_hidden"}, stop_after=1), "before final_hidden"),
        (dict(layers=[0], want={"key", "ffn_out"}, stop_after="key"), "may only be 'key'"),
        (dict(layers=[], stop_after="key"), "may only be 'key'"),
        (
            dict(layers=[1], stop_after="key", edit_layer_out={1: None}),
            "no output of that layer can be edited",
        ),
        (dict(layers=[0], edit_layer_out={9: None}), "layer 9 does not exist"),
        (dict(layers=[0], edit_key={9: None}), "layer 9 does not exist"),
        (dict(layers=[0], stop_after=0, edit_key={1: None}), "before layer 1"),
        (
            dict(layers=[], want=(), skip=Prefix(1, torch.zeros(1, 1, 32), None), edit_key={1: None}),
            "layer 1 is not run",
        ),
    ],
)
def test_impossible_captures_are_refused(arguments, words):
    view = ModelView.of(tiny_model("llama")[0])
    with pytest.raises(ArchitectureError, match=words):
        Capture(view, **arguments)
