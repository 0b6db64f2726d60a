"""Projections by their common names: the rows that a block really uses, fused ones included, and names given
by hand."""

import sys

import pytest
import torch
from torch.nn import functional

from easyedit_neuron.arch import Capture, ModelView, projection, projection_names
from easyedit_neuron.errors import ArchitectureError
from helpers.tiny_models import ALL_TYPES, FUSED_ATTENTION, tiny_model

PLAIN = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "smollm3", "gemma3_text", "phi3", "glm4", "olmo2")
GATED += ("stablelm", "granite", "cohere", "cohere2", "qwen3_5_text", "gemma")
FUSED = {
    **dict.fromkeys(("gpt2", "gpt_neox", "bloom", "mpt", "falcon", "gpt_bigcode"), PLAIN[:3]),
    "phi3": [*PLAIN[:3], "gate_proj", "up_proj"],
    "glm4": ["gate_proj", "up_proj"],
}
WITHOUT = {"qwen3_5_text": set(PLAIN[:4])}  # which only a few blocks have


@pytest.mark.parametrize("model_type", ALL_TYPES)
@torch.no_grad()
def test_every_map_gives_what_its_module_gives_at_its_rows(model_type):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    names = projection_names(view)
    expected = {*PLAIN, *(["gate_proj"] if model_type in GATED else [])}
    assert set(names) == expected - WITHOUT.get(model_type, set())
    ids = torch.tensor([tok("Anna Berg was born")["input_ids"]])
    parameters = dict(model.named_parameters())
    for name in names:
        linear_map, seen = projection(view, 2, name), {}

        def keep(output, x, seen=seen):
            seen.update(x=x, y=output)
            return output

        with Capture(view, [], edit_modules=[(2, linear_map.module, keep)]):
            model(input_ids=ids)
        assert (
            linear_map.parameter in parameters
            and linear_map.rows.dtype == torch.int64
            and bool((linear_map.rows.diff() > 0).all())
        )
        bias = linear_map.bias(view)
        expected = functional.linear(
            seen["x"], linear_map.weight(view), None if bias is None else bias[linear_map.rows]
        )
        torch.testing.assert_close(seen["y"][..., linear_map.rows], expected, rtol=1e-4, atol=1e-5)
        assert linear_map.weight(view).shape == (len(linear_map.rows), linear_map.d_in)
        assert linear_map.fused == (name in FUSED.get(model_type, ()))


@pytest.mark.parametrize(
    "model_type, forward", [("gpt2", "in blocks"), ("gpt_neox", "by head"), ("bloom", "by head")]
)
@torch.no_grad()
def test_the_rows_of_fused_maps(model_type, forward):
    """d_model 32, 4 heads of 8: GPT-2 keeps q, k, v one after the other, GPT-NeoX and BLOOM head by head."""
    view = ModelView.of(tiny_model(model_type)[0])
    rows = [projection(view, 1, name).rows.tolist() for name in PLAIN[:3]]
    if forward == "by head":
        assert rows[1] == [*range(8, 16), *range(32, 40), *range(56, 64), *range(80, 88)]
    else:
        assert rows[1] == list(range(32, 64))
    assert sorted(sum(rows, [])) == list(range(96))


def attention_inputs(model_type, model, ids, monkeypatch):
    """q, k and v [tokens, heads, head size] as block 1 hands them to its attention; rotation is left out."""
    module, calls = sys.modules[type(model).__module__], []
    monkeypatch.setattr(
        module,
        "apply_rotary_pos_emb",
        lambda x, *others: (x, others[0]) if len(others) > 2 else x,
        raising=False,
    )
    if model_type == "falcon":
        attention = model.transformer.h[1].self_attention
        split = attention._split_heads
        monkeypatch.setattr(attention, "_split_heads", lambda x: calls.append(split(x)) or calls[-1])
        model(input_ids=ids)
        return [states[0] for states in calls[0]]
    if model_type == "codegen" and hasattr(model.transformer.h[1].attn, "_attn"):  # older transformers
        attention = model.transformer.h[1].attn
        inner = attention._attn
        monkeypatch.setattr(attention, "_attn", lambda *states: calls.append(states) or inner(*states))
        model(input_ids=ids)
        return [states[0].transpose(0, 1) for states in calls[0][:3]]
    attend = module.eager_attention_forward

    def keep(attention, q, k, v, *args, **options):
        calls.append([states[0].transpose(0, 1) for states in (q, k, v)])
        return attend(attention, q, k, v, *args, **options)

    monkeypatch.setattr(module, "eager_attention_forward", keep)
    model(input_ids=ids)
    return calls[1]


@pytest.mark.parametrize("model_type, form", FUSED_ATTENTION)
@torch.no_grad()
def test_fused_rows_are_what_attention_reads(model_type, form, monkeypatch):
    model, tok = tiny_model(model_type, **form)
    view, seen = ModelView.of(model), {}
    maps = [projection(view, 1, name) for name in PLAIN[:3]]
    assert sorted(torch.cat([each.rows for each in maps]).tolist()) == list(
        range(len(view.matrix(maps[0].parameter)))
    )

    def keep(output, x):
        seen["x"] = x[0]
        return output

    ids = torch.tensor([tok("Anna Berg was born")["input_ids"]])
    with Capture(view, [], edit_modules=[(1, maps[0].module, keep)]):
        read = attention_inputs(model_type, model, ids, monkeypatch)
    for each, states in zip(maps, read, strict=True):
        bias = each.bias(view)
        rows = functional.linear(seen["x"], each.weight(view), None if bias is None else bias[each.rows])
        heads = rows.unflatten(-1, (-1, 8))
        if form.get("new_decoder_architecture"):  # Falcon repeats keys and values for the heads of a group
            heads = heads.repeat_interleave(4 // heads.shape[1], 1)
        torch.testing.assert_close(heads, states, rtol=1e-4, atol=1e-5)


def test_rows_that_are_no_heads():
    with pytest.raises(ArchitectureError, match="weight with 50 rows has no 1 groups of 8 heads"):
        model, _ = tiny_model("phi3", intermediate_size=25)
        projection(
            ModelView.of(model, projections={"own": "model.layers.{}.mlp.gate_up_proj[q of qkv]"}), 1, "own"
        )


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox"])
@torch.no_grad()
def test_without_its_query_a_layer_attends_evenly(model_type):
    """q = 0 makes every score 0, so the last token attends to all tokens alike: v's mean is what the output
    projection reads."""
    model, tok = tiny_model(model_type)
    view, seen = ModelView.of(model), {}
    query, value = projection(view, 1, "q_proj"), projection(view, 1, "v_proj")
    module = model.get_submodule(query.module)
    view.matrix(query.parameter)[query.rows] = 0.0
    module.bias[query.rows] = 0.0

    def keep(name):
        def edit(output, x):
            seen[name] = output if name == "fused" else x
            return output

        return edit

    ids = torch.tensor([tok("Anna Berg was born")["input_ids"]])
    out = projection(view, 1, "o_proj")
    with Capture(view, [], edit_modules=[(1, query.module, keep("fused")), (1, out.module, keep("read"))]):
        model(input_ids=ids)
    torch.testing.assert_close(
        seen["read"][0, -1], seen["fused"][0, :, value.rows].mean(0), rtol=1e-4, atol=1e-5
    )


def test_several_edits_of_one_module_act_one_after_the_other_and_leave_no_hook():
    model, tok = tiny_model("gpt2")
    view, calls = ModelView.of(model), []
    module = projection(view, 0, "q_proj").module
    with (
        pytest.raises(RuntimeError, match="stop"),
        Capture(
            view,
            [],
            edit_modules=[
                (0, module, lambda y, x: calls.append("first") or y),
                (0, module, lambda y, x: calls.append("second") or y),
            ],
        ),
    ):
        model(input_ids=torch.tensor([[1, 2]]))
        raise RuntimeError("stop")
    assert calls == ["first", "second"] and not any(m._forward_hooks for m in model.modules())


def test_what_a_model_does_not_have():
    view = ModelView.of(tiny_model("gpt2")[0])
    with pytest.raises(
        ArchitectureError,
        match="no projection 'gate_proj' .its FFN has no gate.; it has q_proj, k_proj, v_proj",
    ):
        projection(view, 0, "gate_proj")
    with pytest.raises(ArchitectureError, match="did you mean 'down_proj'"):
        projection(view, 0, "downproj")
    with pytest.raises(ArchitectureError, match="layer 7 does not exist"):
        projection(view, 7, "q_proj")


def test_names_by_hand():
    model, _ = tiny_model("gpt2")
    view = ModelView.of(
        model,
        projections={
            "first": "transformer.h.{}.attn.c_attn[0:5]",
            "qk": "transformer.h.{}.attn.c_attn.weight",
            "down_proj": "transformer.h.{}.attn.c_proj",
        },
    )
    assert projection(view, 1, "first").rows.tolist() == [0, 1, 2, 3, 4]
    whole = projection(view, 1, "qk")
    assert (
        len(whole.rows) == 96 and not whole.fused and whole.parameter == "transformer.h.1.attn.c_attn.weight"
    )
    assert projection(view, 0, "down_proj").parameter == "transformer.h.0.attn.c_proj.weight"
    assert projection(view, 1, "k_proj").rows.tolist() == list(range(32, 64))  # the table's own stay


def test_an_unknown_architecture():
    model, _ = tiny_model("llama")
    model.config.model_type = "unheard_of"
    names = {
        name: template
        for name, template in vars(ModelView.of(tiny_model("llama")[0]).arch).items()
        if name != "model_type"
    }
    bare = ModelView.of(model, **{**names, "projections": None})
    assert projection(bare, 1, "down_proj").module == "model.layers.1.mlp.down_proj"
    with pytest.raises(
        ArchitectureError, match="no projection 'q_proj'.*The field 'projections' adds one by hand"
    ):
        projection(bare, 1, "q_proj")
    added = ModelView.of(model, **{**names, "projections": {"q_proj": "model.layers.{}.self_attn.q_proj"}})
    assert projection(added, 1, "q_proj").d_in == 32


@pytest.mark.parametrize(
    "spelled, words",
    [
        ("model.layers.0.self_attn.q_proj", "with '{}' for the layer"),
        ("model.layers.{}.nothing", "no module 'model.layers.1.nothing'"),
        ("model.layers.{}.mlp.up_proj[4/3]", "part 4 of 3"),
        ("model.layers.{}.mlp.up_proj[1/5 by head]", "part 1 of 5 of each of 4 heads"),
        ("model.layers.{}.mlp.up_proj[0:99]", "rows 0:99 of a weight with 48 rows"),
        ("model.layers.{}.mlp.up_proj[x]", "may end in"),
        ("model.layers.{}.input_layernorm", "not a floating-point matrix"),
    ],
)
def test_wrong_spellings(spelled, words):
    with pytest.raises(ArchitectureError, match=words.replace("[", "\\[")):
        projection(ModelView.of(tiny_model("llama")[0], projections={"own": spelled}), 1, "own")
