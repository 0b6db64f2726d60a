"""Whole edits of tiny models: every architecture, padding, precision, copies, and exactly the recorded
change."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.compute_keys import LayerwiseKeys, compute_keys, key_prompts
from helpers.editing import REQUESTS, apply, changed_tensors, make_hparams, put_back, snapshot, target_nll
from helpers.tiny_models import ALL_TYPES, FFN_WIDTH, tiny_model

SUBJECT_LAST = REQUESTS[2:]
VARIANTS = {
    "alphaedit": ("AlphaEdit", {}),
    "memit": ("MEMIT", {"L2": 0.0}),
    "nmke-post": ("NMKE", {"mask_stage": "post"}),
    "nmke-solve": ("NMKE", {"mask_stage": "solve"}),
    "rome": ("ROME", {"L2": 0.0}),
    "nmke-rome": ("NMKE", {"path": "rome", "mask_stage": "solve"}),
}


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_every_architecture_can_be_edited(model_type, variant, tmp_path):
    """The new object gets likelier; down_proj of the two layers changes by the recorded delta, nothing else
    does."""
    method, changes = VARIANTS[variant]
    if model_type == "opt":  # ReLU: neurons that the text never switches on leave the covariance singular
        changes = {**changes, "L2": changes.get("L2") or 0.01}
    # gemma, olmo2, qwen3.5: larger keys, and with the weights of seed 0 the search gains next to nothing
    threshold, seed = 2.0, 0
    if model_type in ("gemma2", "gemma3_text", "olmo2", "qwen3_5_text", "gemma"):
        threshold, seed = 50.0, 2
    model, tok = tiny_model(model_type, seed=seed)
    hparams = make_hparams(
        method,
        tmp_path,
        clamp_norm_factor=4.0,
        v_weight_decay=0.0,
        v_num_grad_steps=15,
        nullspace_threshold=threshold,
        **{"L2": 0.01, **changes},
    )
    before, nll = snapshot(model), target_nll(model, tok, SUBJECT_LAST[0])
    edited, weights, record = apply(model, tok, SUBJECT_LAST, hparams, return_orig_weights=True)
    assert edited is model and target_nll(model, tok, SUBJECT_LAST[0]) < nll - 0.005
    names = [record.names[layer] for layer in (1, 2)]
    assert sorted(changed_tensors(model, before)) == sorted(names) == sorted(weights)
    for layer, name in record.names.items():
        change = model.get_parameter(name) - before["tensors"][name]
        recorded = record.layers[layer].matrix()
        torch.testing.assert_close(
            change.T if model_type == "gpt2" else change, recorded, rtol=1e-4, atol=1e-5
        )
        assert recorded.shape == (32, FFN_WIDTH[model_type]) and torch.equal(
            weights[name], before["tensors"][name]
        )
    put_back(model, weights)
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize("method", ["AlphaEdit", "MEMIT", "NMKE", "ROME"])
def test_left_and_right_padding_give_the_same_bits(method, tmp_path):
    weights = []
    for side in ("left", "right"):
        model, tok = tiny_model("llama")
        tok.padding_side = side
        settings = dict(vars(tok))
        (tmp_path / side).mkdir()  # statistics of its own
        apply(model, tok, REQUESTS, make_hparams(method, tmp_path / side, v_num_grad_steps=3))
        assert dict(vars(tok)) == settings
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


def test_a_tokenizer_without_a_pad_token(tmp_path):
    model, tok = tiny_model("gpt2")
    tok.pad_token = None
    apply(model, tok, REQUESTS, make_hparams("NMKE", tmp_path))
    assert tok.pad_token is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_give_the_same_edit_within_theirs(dtype, tmp_path):
    """bfloat16 has 8 bits: the delta agrees in direction and size; float64 is not rounded to float32 on the
    way."""
    deltas = []
    for kind in (torch.float32, dtype):
        model, tok = tiny_model("llama", dtype=kind)
        with torch.no_grad():
            for p in model.parameters():  # the same weights in both
                p.copy_(p.to(torch.bfloat16))
        folder = tmp_path / str(kind)
        folder.mkdir()
        before = snapshot(model)
        _, _, record = apply(
            model, tok, SUBJECT_LAST, make_hparams("AlphaEdit", folder, nullspace_threshold=1.0)
        )
        assert all(p.dtype == kind for p in model.parameters())
        untouched = record.layers[1].matrix() == 0
        name = record.names[1]
        assert torch.equal(model.get_parameter(name)[untouched], before["tensors"][name][untouched])
        deltas.append(torch.cat([delta.matrix().flatten() for delta in record.layers.values()]))
    difference = float((deltas[0] - deltas[1]).norm() / deltas[0].norm())
    assert difference < (0.15 if dtype == torch.bfloat16 else 1e-3)


def test_float64_weights_keep_their_precision(tmp_path):
    model, tok = tiny_model("llama", dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1e-10)
    before = snapshot(model)
    _, _, record = apply(model, tok, SUBJECT_LAST, make_hparams("AlphaEdit", tmp_path))
    for layer, name in record.names.items():
        expected = before["tensors"][name] + record.layers[layer].matrix()
        torch.testing.assert_close(model.get_parameter(name), expected, rtol=0, atol=1e-14)


def test_a_float64_covariance(tmp_path):
    deltas = []
    for dtype in ("float32", "float64"):
        model, tok = tiny_model("llama")
        _, _, record = apply(model, tok, SUBJECT_LAST, make_hparams("AlphaEdit", tmp_path, mom2_dtype=dtype))
        deltas.append(record.layers[2].matrix())
    torch.testing.assert_close(deltas[0], deltas[1], rtol=1e-3, atol=1e-5)


def test_a_batch_writes_all_of_its_requests(tmp_path):
    """W k is moved by the share of the residual that the record claims, for each key."""
    model, tok = tiny_model("llama")
    requests = [
        REQUESTS[2],
        {"prompt": "Because I know Marie Lund", "subject": "Marie Lund", "target_new": "plays tennis"},
    ]
    nll = [target_nll(model, tok, r) for r in requests]
    hparams = make_hparams(
        "AlphaEdit",
        tmp_path,
        layers=[2],
        L2=1e-4,
        clamp_norm_factor=4.0,
        v_weight_decay=0.0,
        nullspace_threshold=2.0,
    )
    view = ModelView.of(model)
    prompts = key_prompts(tok, prepare(requests), [["{}"], hparams.context_templates], "cpu")
    keys = compute_keys(view, prompts, [2])
    _, _, record = apply(model, tok, requests, hparams)
    delta = record.layers[2]
    assert (
        delta.value_factor.shape == (32, 2)
        and delta.key_factor.shape == (48, 2)
        and len(record.losses) == len(record.probability) == 2
    )
    moved = delta.matrix() @ keys[2]
    for n in range(2):
        assert (
            float((moved[:, n] * delta.value_factor[:, n]).sum() / delta.value_factor[:, n].norm() ** 2) > 0.9
        )
    assert delta.residual_share == pytest.approx(
        float((moved * delta.value_factor).sum() / delta.value_factor.norm() ** 2), rel=1e-4
    )
    assert all(target_nll(model, tok, r) < old for r, old in zip(requests, nll))


def test_layers_get_equal_shares_of_the_residual(tmp_path):
    """Two layers: the first writes half of the way to z*, the second what is left."""
    model, tok = tiny_model("llama")
    hparams = make_hparams("AlphaEdit", tmp_path)
    _, _, record = apply(model, tok, SUBJECT_LAST, hparams)
    clean, _ = tiny_model("llama")
    prompts = key_prompts(tok, prepare(SUBJECT_LAST), [["{}"], hparams.context_templates], "cpu")
    z = LayerwiseKeys(ModelView.of(clean), prompts, 2).at(1).z
    with torch.no_grad():
        clean.model.layers[1].mlp.down_proj.weight += record.layers[1].matrix()
    z_after = LayerwiseKeys(ModelView.of(clean), prompts, 2).at(1).z
    torch.testing.assert_close(
        record.layers[2].value_factor, z + 2 * record.layers[1].value_factor - z_after, rtol=1e-4, atol=1e-4
    )


def test_a_copy_leaves_the_original_alone(tmp_path):
    model, tok = tiny_model("llama")
    before = snapshot(model)
    edited, weights, record = apply(model, tok, SUBJECT_LAST, make_hparams("AlphaEdit", tmp_path), copy=True)
    assert edited is not model and weights == {} and changed_tensors(model, before) == []
    assert sorted(changed_tensors(edited, before)) == sorted(record.names.values())


def test_unknown_keywords_of_a_host_are_ignored(tmp_path):
    model, tok = tiny_model("llama")
    apply(
        model,
        tok,
        SUBJECT_LAST,
        make_hparams("NMKE", tmp_path),
        keep_original_weight=True,
        train_ds=None,
        reset_cache=False,
    )


def test_the_record_says_what_was_done(tmp_path):
    model, tok = tiny_model("llama")
    hparams = make_hparams("NMKE", tmp_path, seed=5)
    _, _, record = apply(model, tok, REQUESTS[:1], hparams)
    assert record.method == "NMKE" and record.hparams == hparams.to_dict() and record.seed == 5
    assert record.requests == [
        {
            "prompt": "Anna Berg was born in",
            "subject": "Anna Berg",
            "target_new": "Oslo",
            "ground_truth": "Paris",
        }
    ]
    assert record.contexts == ["{}", *hparams.context_templates] and set(record.seconds) == {
        "statistics",
        "target",
        "mask",
        "keys",
        "solve",
        "write",
    }
    assert record.fingerprint_before != record.fingerprint_after
    plain = record.to_json()
    assert (
        plain["layers"]["1"]["rank"] == 1
        and 0 < plain["layers"]["1"]["density"] < 1
        and plain["layers"]["1"]["leakage"] > 0
    )


def test_a_norm_behind_the_ffn_is_reckoned_with(tmp_path):
    """gemma2: what the norm makes of the edited FFN output points where its output plus the residual did; the
    length is the norm's own."""
    model, tok = tiny_model("gemma2", dtype=torch.float64)
    view = ModelView.of(model)
    hparams = make_hparams(
        "AlphaEdit",
        tmp_path,
        layers=[2],
        L2=1e-9,
        nullspace_threshold=1e9,
        context_templates=None,
        context_length=0,
    )
    prompts = key_prompts(tok, prepare(SUBJECT_LAST), [["{}"]], "cpu")
    before = LayerwiseKeys(view, prompts, 2).at(2)
    _, _, record = apply(model, tok, SUBJECT_LAST, hparams)
    after = LayerwiseKeys(view, prompts, 2).at(2)
    norm = model.model.layers[2].post_feedforward_layernorm
    gain = 1 + norm.weight.detach()[:, None]

    def output(ffn_out):
        return gain * ffn_out / (ffn_out.pow(2).mean(0) + norm.eps).sqrt()

    residual = record.layers[2].value_factor * gain / (before.ffn_out.pow(2).mean(0) + norm.eps).sqrt()
    before_norm = output(before.ffn_out) + residual
    torch.testing.assert_close(
        output(after.ffn_out), before_norm / (before_norm / gain).pow(2).mean(0).sqrt(), rtol=1e-4, atol=1e-6
    )
    # the block's output goes most of the way to z*: here z* - z is the residual
    moved = after.z - before.z
    assert float((moved * residual).sum() / residual.pow(2).sum()) > 0.7
    torch.testing.assert_close(
        after.z - output(after.ffn_out), before.z - output(before.ffn_out), rtol=1e-5, atol=1e-6
    )
