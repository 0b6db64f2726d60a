"""Further architectures: an edit by every method, the answer where it is not possible, and what has no entry.

Their parts are tested with those of the others (``test_arch_*``, ``test_cached_forward``,
``test_locate_then_edit``).
"""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from easyedit_neuron import FTHyperParams, apply_ft_to_model
from easyedit_neuron.arch.calls import ModelCalls
from easyedit_neuron.arch.capture import Capture
from easyedit_neuron.arch.projections import projection_names
from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.arch.view import ModelView, frozen_parameters
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import ArchitectureError
from easyedit_neuron.evaluation import predict_targets, token_accuracy
from easyedit_neuron.statistics import NAME_TEMPLATES
from helpers.contract import apply, settings
from helpers.editing import (
    REQUESTS,
    changed_tensors,
    find_target,
    make_hparams,
    put_back,
    snapshot,
    target_nll,
)
from helpers.editing import apply as apply_edit
from helpers.tiny_models import MORE_TYPES, RELATIVES, skip_without, tiny_model

NOT_WIDER = dict.fromkeys(("bloom", "mpt"), "its config does not say how many an FFN has")
POST_NORM = ("gemma3_text", "glm4", "olmo2")  # a norm behind the FFN: only the direction can be given
NO_GATE = ("starcoder2", "phi", "gpt_bigcode", "opt", "falcon", "gpt_neo")
REQUEST = REQUESTS[2]


@pytest.mark.parametrize("method", ["FiNE", "KNE", "PNKE"])
@pytest.mark.parametrize("model_type", MORE_TYPES)
def test_neurons_are_located_and_trained(model_type, method, tmp_path):
    """The new object gets likelier in these random models; only down projections change; put back exactly."""
    model, tok = tiny_model(model_type, seed=4)
    far = {"v_num_grad_steps": 15, "clamp_norm_factor": 4.0, "v_weight_decay": 0.0}
    stronger = {"FiNE": {"epochs": 12}, "KNE": {"num_steps": 8}, "PNKE": far}[method]
    hparams = settings(method, tmp_path, **stronger)
    before, nll = snapshot(model), target_nll(model, tok, REQUEST)
    _, weights, record = apply(model, tok, [REQUEST], hparams, return_orig_weights=True)
    assert target_nll(model, tok, REQUEST) < nll
    view = ModelView.of(model)
    down = {view.down_weight_name(layer) for layer in range(view.n_layers)}
    assert set(changed_tensors(model, before)) == set(record.deltas) <= down
    put_back(model, weights)
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize("model_type", MORE_TYPES)
def test_lasting_adds_a_neuron_or_says_why_not(model_type, tmp_path):
    model, tok = tiny_model(model_type, seed=2)
    before = snapshot(model)
    hparams = settings("Lasting", tmp_path, name_templates=list(NAME_TEMPLATES[:2]), v_num_grad_steps=8)
    if model_type in NOT_WIDER:
        with pytest.raises(ArchitectureError, match=NOT_WIDER[model_type]):
            apply(model, tok, [REQUEST], hparams)
        assert changed_tensors(model, before) == []
        return
    nll, ids = target_nll(model, tok, REQUEST), torch.tensor([[1, 5, 9, 3]])
    logits = model(ids).logits.clone()
    apply(model, tok, [REQUEST], hparams)
    assert target_nll(model, tok, REQUEST) < nll and ModelView.of(model).d_ff == 56
    is_gated = "gate_proj" in projection_names(ModelView.of(model))
    assert is_gated == (model_type not in NO_GATE)
    assert model(ids).logits.shape == logits.shape


@pytest.mark.parametrize("model_type", MORE_TYPES)
def test_fine_tuning(model_type):
    model, tok = tiny_model(model_type)
    nll = target_nll(model, tok, REQUEST)
    hparams = FTHyperParams(alg_name="FT", model_name="x", layers=[1], num_steps=10, lr=0.02)
    hparams.objective_optimization = "target_new"
    apply_ft_to_model(model, tok, [REQUEST], hparams)
    assert target_nll(model, tok, REQUEST) < nll


@pytest.mark.parametrize("model_type", MORE_TYPES)
def test_measured_alone_and_in_a_batch(model_type):
    """Padding and positions of the evaluation hold for the type."""
    model, tok = tiny_model(model_type)
    prompts = ["Anna Berg was born in", "Rome", "You know the capital of Norway is"]
    together = predict_targets(model, tok, prompts, ["Paris", "is Oslo", "London"])
    alone = [
        predict_targets(model, tok, [prompt], [target])[0]
        for prompt, target in zip(prompts, ["Paris", "is Oslo", "London"])
    ]
    assert [p.predicted for p in together] == [p.predicted for p in alone]
    assert len(token_accuracy(together)) == 3


EXACT = [(name, {}) for name in MORE_TYPES if name not in POST_NORM]
EXACT += [
    ("falcon", {"parallel_attn": False, "multi_query": False, "alibi": True, "bias": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("stablelm", {"use_parallel_residual": True}),
]


@pytest.mark.parametrize("model_type, overrides", EXACT)
def test_an_edit_without_a_ridge_gives_the_target_value(model_type, overrides, tmp_path):
    """With one layer, one key and nothing to preserve the block's output at the subject is z* itself."""
    model, tok = tiny_model(model_type, seed=2, dtype=torch.float64, **overrides)
    free = {"L2": 1e-9, "nullspace_threshold": 1e9, "context_templates": None, "context_length": 0}
    hparams = make_hparams("AlphaEdit", tmp_path, layers=[2], **free)
    z_star = find_target(ModelView.of(model), tok, prepare([REQUEST])[0], hparams, ["{}"], 2).value
    ids = torch.tensor([tok(REQUEST["prompt"])["input_ids"]])  # which ends with the subject

    @torch.no_grad()
    def block_output():
        seen = []
        handle = ModelView.of(model).layer(2).register_forward_hook(lambda *args: seen.append(args[-1]))
        model(ids)
        handle.remove()
        return (seen[0][0] if isinstance(seen[0], tuple) else seen[0])[0, -1]

    before = block_output()
    apply_edit(model, tok, [REQUEST], hparams)
    assert float((z_star - before).norm()) > 0.05 * float(before.norm())
    torch.testing.assert_close(block_output(), z_star, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", RELATIVES)
def test_relatives_are_edited(model_type, tmp_path):
    """What is written at the key moves the block's output towards z*, and only there."""
    model, tok = tiny_model(model_type, seed=3)
    before, nll = snapshot(model), target_nll(model, tok, REQUEST)
    free = {"L2": 0.01, "nullspace_threshold": 50.0, "v_weight_decay": 0.0, "clamp_norm_factor": 4.0}
    *_, record = apply_edit(model, tok, [REQUEST], make_hparams("AlphaEdit", tmp_path, **free))
    assert target_nll(model, tok, REQUEST) < nll
    assert set(changed_tensors(model, before)) == set(record.names.values())


@pytest.mark.parametrize(
    "model_type, changes, words",
    [
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before = False"),
        ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim = 16, and only .* = 32"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "post_layernorm = True"),
        ("granitemoehybrid", {"num_local_experts": 4}, "num_local_experts = 4, and only .* = 0"),
    ],
)
def test_other_forms_of_a_block_are_a_clear_no(model_type, changes, words):
    """OPT-350m has its norms behind attention and FFN, and projects its embeddings."""
    model, _ = tiny_model(model_type, **changes)
    with pytest.raises(ArchitectureError, match=f"this {model_type} model cannot be edited.*{words}"):
        ModelView.of(model)


def test_adam_needs_an_ffn_of_its_own(tmp_path):
    model, tok = tiny_model("opt")
    before = snapshot(model)
    with pytest.raises(ArchitectureError, match="use solver closed_form"):
        apply(model, tok, [REQUEST], settings("PNKE", tmp_path, solver="adam"))
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize(
    "model_type", ["mixtral", "qwen2_moe", "qwen3_moe", "qwen3_5_moe_text", "granitemoe", "olmoe"]
)
def test_experts_are_a_clear_no(model_type):
    skip_without(model_type)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, num_hidden_layers=2))
    with pytest.raises(ArchitectureError, match=f"'{model_type}' has experts .*no single down projection"):
        ModelView.of(model)


def test_adam_leaves_no_gradients_in_an_activations_own_parameters(tmp_path):
    """Apertus learns the shape of its activation."""
    model, tok = tiny_model("apertus", seed=2)
    before = snapshot(model)
    apply(model, tok, [REQUEST], settings("PNKE", tmp_path, solver="adam", v_num_grad_steps=8))
    assert changed_tensors(model, before)  # which compares flags and gradients too
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("model_type", ["llama", "opt"])
def test_passes_are_counted_by_rows(model_type):
    """3 rows through 4 blocks forwards; backwards through blocks 2 and 3. OPT's FFN gets no rows."""
    model, tok = tiny_model(model_type)
    view, delta = ModelView.of(model), torch.zeros(32, requires_grad=True)
    batch = encode(tok, ["Rome", "Anna Berg was born in", "You know"])
    with (
        frozen_parameters(model),
        ModelCalls(view) as calls,
        Capture(view, [], edit_layer_out={1: lambda hidden: hidden + delta}),
    ):
        model(**batch.inputs, use_cache=False).logits.sum().backward()
    assert calls.to_json() == {
        "forward_calls": 1,
        "backward_calls": 1,
        "forward_equivalents": 3.0,
        "backward_equivalents": 3 * 2 / 4,
    }
