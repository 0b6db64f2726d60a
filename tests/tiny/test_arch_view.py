"""ModelView: sizes, matrices that are views, and modules named by hand."""

import pytest
import torch

from easyedit_neuron.arch import ARCHITECTURES, Capture, ModelView
from easyedit_neuron.errors import ArchitectureError
from helpers.tiny_models import ALL_TYPES, FFN_WIDTH, RELATIVES, tiny_model

LLAMA_BY_HAND = dict(
    rewrite_module_tmp="model.layers.{}.mlp.down_proj",
    layer_module_tmp="model.layers.{}",
    mlp_module_tmp="model.layers.{}.mlp",
    attn_module_tmp="model.layers.{}.self_attn",
    ln_f_module="model.norm",
    lm_head_module="lm_head",
)


def test_the_factory_covers_the_table():
    assert {*ALL_TYPES, *RELATIVES} == set(ARCHITECTURES)


@pytest.mark.parametrize("model_type", ALL_TYPES)
@torch.no_grad()
def test_down_matrix_is_a_view_of_the_named_parameter(model_type):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    assert (view.n_layers, view.d_model, view.d_ff, view.vocab_size) == (
        4,
        32,
        FFN_WIDTH[model_type],
        len(tok),
    )
    parameter = dict(model.named_parameters())[view.down_weight_name(2)]
    matrix = view.down_matrix(2)
    assert matrix.shape == (32, FFN_WIDTH[model_type]) and matrix.data_ptr() == parameter.data_ptr()
    ids = torch.tensor([tok("Anna Berg")["input_ids"]])
    with Capture(view, [2], {"key", "ffn_out"}) as before:
        plain = model(input_ids=ids).logits
    matrix[:, 7] += 1.0
    with Capture(view, [2], {"key", "ffn_out"}) as after:
        assert not torch.equal(plain, model(input_ids=ids).logits)
    # column 7 is neuron 7: each output changed by that neuron's activation
    change = after.ffn_out[2] - before.ffn_out[2]
    torch.testing.assert_close(change, before.key[2][..., 7:8].expand_as(change), rtol=1e-4, atol=1e-5)
    assert view.device_of(2) == parameter.device


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_modules_are_what_they_are_called(model_type):
    model, _ = tiny_model(model_type)
    view = ModelView.of(model)
    inside = dict(view.layer(1).named_modules()).values()
    assert any(view.mlp(1) is m for m in inside) and any(view.attn(1) is m for m in inside)
    if model_type == "opt":  # no module of its own: the first of its two matrices stands for it
        assert view.mlp(1) is view.layer(1).fc1 and view.down_proj(1) is view.layer(1).fc2
    else:
        assert any(view.down_proj(1) is m for m in view.mlp(1).modules())
    head, bias = view.unembedding()
    assert head.shape == (view.vocab_size, 32)
    assert (bias is not None) == (model_type in ("gptj", "phi"))


def test_gpt_neox_reads_its_parallel_flag_from_the_config():
    assert ModelView.of(tiny_model("gpt_neox")[0]).arch.parallel_residual is True
    assert (
        ModelView.of(tiny_model("gpt_neox", use_parallel_residual=False)[0]).arch.parallel_residual is False
    )


def test_an_unknown_architecture_can_be_named_by_hand():
    model, tok = tiny_model("llama")
    expected = ModelView.of(model)
    model.config.model_type = "llamoid"
    with pytest.raises(
        ArchitectureError, match="'llamoid'.*known: apertus.*rewrite_module_tmp.*parallel_residual"
    ):
        ModelView.of(model)
    with pytest.raises(ArchitectureError, match="Missing now: ln_f_module, lm_head_module"):
        ModelView.of(model, **{k: v for k, v in LLAMA_BY_HAND.items() if k.endswith("_tmp")})
    with pytest.raises(ArchitectureError, match="pre_ffn_norm_tmp is unset"):
        ModelView.of(model, **LLAMA_BY_HAND)
    view = ModelView.of(model, **LLAMA_BY_HAND, pre_ffn_norm_tmp="model.layers.{}.post_attention_layernorm")
    assert view.arch.model_type == "llamoid" and view.n_layers == 4
    ids = torch.tensor([tok("Anna Berg")["input_ids"]])
    with torch.no_grad(), Capture(view, [1], {"resid_mid"}) as by_hand:
        model(input_ids=ids)
    with torch.no_grad(), Capture(expected, [1], {"resid_mid"}) as table:
        model(input_ids=ids)
    assert torch.equal(by_hand.resid_mid[1], table.resid_mid[1])
    assert view.final_norm_parameters().centred is False


def test_overrides_of_easyedits_hyperparameters():
    model, _ = tiny_model("gpt2")
    view = ModelView.of(
        model,
        lm_head_module="transformer.wte",
        rewrite_module_tmp="transformer.h.{}.mlp.c_proj.weight",
        ln_f_module=None,
    )
    assert view.unembedding()[0].data_ptr() == model.transformer.wte.weight.data_ptr()
    assert view.down_weight_name(0) == "transformer.h.0.mlp.c_proj.weight"


@pytest.mark.parametrize(
    "overrides,words",
    [
        (
            dict(rewrite_module_tmp="model.layers.{}.mlp.down"),
            "rewrite_module_tmp: .*'model.layers.0.mlp.down'",
        ),
        (dict(rewrite_module_tmp="model.layers.0.mlp.down_proj"), "rewrite_module_tmp: .*must hold"),
        (
            dict(rewrite_module_tmp="model.layers.{}.mlp.up_proj"),
            "writes 48 numbers where the residual stream has 32",
        ),
        (dict(rewrite_module_tmp="model.layers.{}.mlp.act_fn"), "not a floating-point matrix"),
        (dict(ln_f_module="model.ln_f"), "ln_f_module: .*'model.ln_f'"),
        (dict(lm_head_module=3), "lm_head_module: expected a module name"),
        (dict(layer_module_tmp="model.blocks.{}"), "layer_module_tmp: .*'model.blocks'"),
        (dict(rewrite_module="x"), "did you mean 'rewrite_module_tmp'"),
    ],
)
def test_a_wrong_name_is_an_error_that_names_the_field(overrides, words):
    with pytest.raises(ArchitectureError, match=words):
        ModelView.of(tiny_model("llama")[0], **overrides)


def test_sizes_come_from_the_model_not_its_name():
    model, _ = tiny_model("gpt_neox", num_hidden_layers=2)
    model.name_or_path = model.config._name_or_path = "/data/gpt2-and-llama-files/x"
    assert ModelView.of(model).n_layers == 2


@pytest.mark.parametrize("model_type", ALL_TYPES)
@torch.no_grad()
def test_logits_are_the_models_own(model_type):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    ids = torch.tensor([tok("Anna Berg was born in")["input_ids"]])
    with Capture(view, [], want={"final_hidden"}) as seen:
        expected = model(input_ids=ids).logits
    torch.testing.assert_close(view.logits(seen.final_hidden), expected)
    assert (
        ModelView.of(tiny_model(model_type, dtype=torch.bfloat16)[0])
        .logits(seen.final_hidden.bfloat16())
        .dtype
        == torch.float32
    )
