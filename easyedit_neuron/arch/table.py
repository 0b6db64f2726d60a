"""Where each architecture keeps its modules. The only place in the package that spells module names.

A new architecture is one entry here, keyed by ``model.config.model_type`` (never by a piece of the model's
name). A model without an entry can be described by hand: every field below is also an override of
``ModelView.of``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NormKind = Literal["rms", "rms_unit_offset", "layer"]

LAYER_TEMPLATES = ("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp", "attn_module_tmp")
SINGLE_MODULES = ("ln_f_module", "lm_head_module")
EASYEDIT_FIELDS = LAYER_TEMPLATES + SINGLE_MODULES
"""The names under which EasyEdit's hyperparameters (and ours) set modules."""


@dataclass(frozen=True)
class Architecture:
    """Module names of one architecture; templates hold one ``{}`` for the layer number.

    Attributes:
        model_type: ``config.model_type``.
        rewrite_module_tmp: the FFN's down projection, whose weight is edited.
        layer_module_tmp: one transformer block.
        mlp_module_tmp: the FFN.
        attn_module_tmp: the self-attention.
        ln_f_module: the norm before the unembedding.
        lm_head_module: the unembedding (an embedding module does for tied weights).
        norm: kind of the final norm (and of the post-FFN norm): ``rms`` multiplies by its weight,
            ``rms_unit_offset`` by ``1 + weight``, ``layer`` is LayerNorm with an optional bias.
        pre_ffn_norm_tmp: norm whose input is the residual stream between attention and FFN; ``None`` in a
            block that is always parallel.
        post_ffn_norm_tmp: norm between the FFN and the residual stream; ``None`` for most.
        attn_branch_tmp: module whose output is what attention adds to the residual stream; ``None`` = the
            attention itself.
        parallel_residual: attention and FFN read the same input and are added together; a string names the
            flag of the config that says so.
        projections: the linear maps of a block under their common names ``q_proj``, ``k_proj``, ``v_proj``,
            ``o_proj``, ``gate_proj``, ``up_proj``; ``down_proj`` is ``rewrite_module_tmp``.
            ``projections.py`` says how fused ones are written.
    """

    model_type: str
    rewrite_module_tmp: str
    layer_module_tmp: str
    mlp_module_tmp: str
    attn_module_tmp: str
    ln_f_module: str
    lm_head_module: str
    norm: NormKind | None = None
    pre_ffn_norm_tmp: str | None = None
    post_ffn_norm_tmp: str | None = None
    attn_branch_tmp: str | None = None
    parallel_residual: bool | str = False
    projections: Mapping[str, str] = field(default_factory=dict)


_LLAMA_PROJECTIONS = {
    **{name: f"model.layers.{{}}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{name: f"model.layers.{{}}.mlp.{name}" for name in ("gate_proj", "up_proj")},
}


def _llama_like(model_type: str) -> Architecture:
    return Architecture(
        model_type=model_type,
        rewrite_module_tmp="model.layers.{}.mlp.down_proj",
        layer_module_tmp="model.layers.{}",
        mlp_module_tmp="model.layers.{}.mlp",
        attn_module_tmp="model.layers.{}.self_attn",
        ln_f_module="model.norm",
        lm_head_module="lm_head",
        norm="rms",
        pre_ffn_norm_tmp="model.layers.{}.post_attention_layernorm",
        projections=_LLAMA_PROJECTIONS,
    )


_ALL = [
    *(_llama_like(name) for name in ("llama", "mistral", "qwen2", "qwen3")),
    Architecture(
        model_type="gemma2",
        rewrite_module_tmp="model.layers.{}.mlp.down_proj",
        layer_module_tmp="model.layers.{}",
        mlp_module_tmp="model.layers.{}.mlp",
        attn_module_tmp="model.layers.{}.self_attn",
        ln_f_module="model.norm",
        lm_head_module="lm_head",
        norm="rms_unit_offset",
        pre_ffn_norm_tmp="model.layers.{}.pre_feedforward_layernorm",
        post_ffn_norm_tmp="model.layers.{}.post_feedforward_layernorm",
        # post_attention_layernorm acts on the branch before it joins the residual stream
        attn_branch_tmp="model.layers.{}.post_attention_layernorm",
        projections=_LLAMA_PROJECTIONS,
    ),
    Architecture(
        model_type="gpt2",
        rewrite_module_tmp="transformer.h.{}.mlp.c_proj",
        layer_module_tmp="transformer.h.{}",
        mlp_module_tmp="transformer.h.{}.mlp",
        attn_module_tmp="transformer.h.{}.attn",
        ln_f_module="transformer.ln_f",
        lm_head_module="lm_head",
        norm="layer",
        pre_ffn_norm_tmp="transformer.h.{}.ln_2",
        projections={
            **{
                name: f"transformer.h.{{}}.attn.c_attn[{part}/3]"
                for part, name in enumerate(("q_proj", "k_proj", "v_proj"), 1)
            },
            "o_proj": "transformer.h.{}.attn.c_proj",
            "up_proj": "transformer.h.{}.mlp.c_fc",
        },
    ),
    Architecture(
        model_type="gptj",
        rewrite_module_tmp="transformer.h.{}.mlp.fc_out",
        layer_module_tmp="transformer.h.{}",
        mlp_module_tmp="transformer.h.{}.mlp",
        attn_module_tmp="transformer.h.{}.attn",
        ln_f_module="transformer.ln_f",
        lm_head_module="lm_head",
        norm="layer",
        parallel_residual=True,
        projections={
            **{
                name: f"transformer.h.{{}}.attn.{module}"
                for name, module in (
                    ("q_proj", "q_proj"),
                    ("k_proj", "k_proj"),
                    ("v_proj", "v_proj"),
                    ("o_proj", "out_proj"),
                )
            },
            "up_proj": "transformer.h.{}.mlp.fc_in",
        },
    ),
    Architecture(
        model_type="gpt_neox",
        rewrite_module_tmp="gpt_neox.layers.{}.mlp.dense_4h_to_h",
        layer_module_tmp="gpt_neox.layers.{}",
        mlp_module_tmp="gpt_neox.layers.{}.mlp",
        attn_module_tmp="gpt_neox.layers.{}.attention",
        ln_f_module="gpt_neox.final_layer_norm",
        lm_head_module="embed_out",
        norm="layer",
        pre_ffn_norm_tmp="gpt_neox.layers.{}.post_attention_layernorm",
        attn_branch_tmp="gpt_neox.layers.{}.post_attention_dropout",
        parallel_residual="use_parallel_residual",
        projections={
            **{
                name: f"gpt_neox.layers.{{}}.attention.query_key_value[{part}/3 by head]"
                for part, name in enumerate(("q_proj", "k_proj", "v_proj"), 1)
            },
            "o_proj": "gpt_neox.layers.{}.attention.dense",
            "up_proj": "gpt_neox.layers.{}.mlp.dense_h_to_4h",
        },
    ),
]

ARCHITECTURES: dict[str, Architecture] = {entry.model_type: entry for entry in _ALL}
