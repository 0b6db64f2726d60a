"""Where each architecture keeps its modules. The only place in the package that spells module names.

A new architecture is one entry here, keyed by ``model.config.model_type`` (never by a part of the model's
name). A model without an entry can be described by hand: every field below is also an override of
``ModelView.of``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NormKind = Literal["rms", "rms_unit_offset", "layer", "layer_unit_offset"]
FFNQuirk = Literal["flat", "changed_in_place", "adds_residual"]

REQUIRED_FIELDS = (
    "rewrite_module_tmp",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "ln_f_module",
    "lm_head_module",
)
"""Fields that hyperparameters (EasyEdit's too) can set; a model without an entry needs all of them."""


@dataclass(frozen=True)
class Architecture:
    """Module names of one architecture. Templates (``_tmp``) hold one ``{}`` for the layer number.

    Attributes:
        model_type: ``config.model_type``.
        rewrite_module_tmp: the FFN's down projection, whose weight is edited.
        layer_module_tmp: one transformer block.
        mlp_module_tmp: the FFN.
        attn_module_tmp: the self-attention. ``a|b`` in a name: ``a`` in blocks that have it, else ``b``.
        ln_f_module: the norm before the unembedding.
        lm_head_module: the unembedding; may be the embedding module if the weights are tied.
        norm: kind of the final norm and of the post-FFN norm. ``rms`` multiplies by its weight,
            ``rms_unit_offset`` by ``1 + weight``; ``layer`` is LayerNorm with an optional bias,
            ``layer_unit_offset`` one that multiplies by ``1 + weight``. Default: detected from what the
            module computes.
        pre_ffn_norm_tmp: norm whose input is the residual stream between attention and FFN; ``None`` in a
            block that is always parallel.
        post_ffn_norm_tmp: norm between the FFN and the residual stream; ``None`` for most.
        attn_branch_tmp: module whose output attention adds to the residual stream; ``None``: the attention.
        parallel_residual: whether attention and FFN read the same input and are added together; a string
            names the config's flag for it.
        projections: the linear maps of a block under their common names ``q_proj``, ``k_proj``, ``v_proj``,
            ``o_proj``, ``gate_proj``, ``up_proj``, written as ``projections.py`` describes. ``down_proj`` is
            ``rewrite_module_tmp``.
        ffn_multiplier: field of the config with the factor that the block puts on what its FFN adds to the
            residual stream (Granite).
        logit_multiplier, logit_divisor: field of the config with a factor of the logits (Cohere, Granite).
        ffn_quirks: ``flat``: the block has no module for its FFN, which gets batch and tokens as one
            dimension (OPT; ``mlp_module_tmp`` is then the module that reads the FFN's input).
            ``changed_in_place``: the block adds to the tensor that the FFN returns (Falcon).
            ``adds_residual``: the FFN gets the residual stream as a second argument and adds it (BLOOM).
        needs: field of the config -> the value that it must have, or the name of a field with that value.
            Models with another value have blocks of another form and are refused.
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
    ffn_multiplier: str | None = None
    logit_multiplier: str | None = None
    logit_divisor: str | None = None
    ffn_quirks: tuple[FFNQuirk, ...] = ()
    needs: Mapping[str, bool | int | str] = field(default_factory=dict)


def _in_block(block: str, name: str) -> str:
    return "|".join(f"{block}.{alternative}" for alternative in name.split("|"))


def _entry(model_type: str, block: str, projections: Mapping[str, str], **names) -> Architecture:
    """An entry whose templates and projections are written without the name of the block."""
    names = {
        field: _in_block(block, name) if name is not None and field.endswith("_tmp") else name
        for field, name in names.items()
    }
    projections = {name: f"{block}.{module}" for name, module in projections.items()}
    return Architecture(model_type=model_type, layer_module_tmp=block, projections=projections, **names)


_QKV = ("q_proj", "k_proj", "v_proj")
_LLAMA = dict(
    block="model.layers.{}",
    rewrite_module_tmp="mlp.down_proj",
    mlp_module_tmp="mlp",
    attn_module_tmp="self_attn",
    ln_f_module="model.norm",
    lm_head_module="lm_head",
    norm="rms",
    pre_ffn_norm_tmp="post_attention_layernorm",
    projections={
        **{name: f"self_attn.{name}" for name in (*_QKV, "o_proj")},
        **{name: f"mlp.{name}" for name in ("gate_proj", "up_proj")},
    },
)
_GEMMA2 = _LLAMA | dict(
    norm="rms_unit_offset",
    pre_ffn_norm_tmp="pre_feedforward_layernorm",
    post_ffn_norm_tmp="post_feedforward_layernorm",
    attn_branch_tmp="post_attention_layernorm",  # acts on the branch before it joins the residual stream
)


def _without(projections: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: module for name, module in projections.items() if name not in names}


def _thirds(module: str, order: str = "") -> dict[str, str]:
    """q, k and v of a module that computes all three."""
    return {name: f"{module}[{part}/3{order}]" for part, name in enumerate(_QKV, 1)}


def _by_heads(module: str) -> dict[str, str]:
    """The same where the numbers of query and key heads differ."""
    return {name: f"{module}[{name[0]} of qkv]" for name in _QKV}


_FUSED = _LLAMA["projections"] | {"gate_proj": "mlp.gate_up_proj[1/2]", "up_proj": "mlp.gate_up_proj[2/2]"}
_PHI3 = _LLAMA | {"projections": _FUSED | _by_heads("self_attn.qkv_proj")}
_GLM4 = _LLAMA | dict(
    post_ffn_norm_tmp="post_mlp_layernorm", attn_branch_tmp="post_self_attn_layernorm", projections=_FUSED
)
_OLMO2 = _LLAMA | dict(
    pre_ffn_norm_tmp="mlp",  # no norm there: the FFN itself reads the residual stream
    post_ffn_norm_tmp="post_feedforward_layernorm",
    attn_branch_tmp="post_attention_layernorm",
)
_FFN_ONLY = {"projections": _without(_LLAMA["projections"], *_QKV, "o_proj")}
_NO_GATE = _LLAMA | {"projections": _without(_LLAMA["projections"], "gate_proj")}
_TWO_MATRICES = _LLAMA | dict(
    rewrite_module_tmp="mlp.c_proj",
    norm="layer",
    projections={**{name: f"self_attn.{name}" for name in (*_QKV, "o_proj")}, "up_proj": "mlp.c_fc"},
)
_PHI = _LLAMA | dict(
    rewrite_module_tmp="mlp.fc2",
    ln_f_module="model.final_layernorm",
    norm="layer",
    pre_ffn_norm_tmp=None,
    parallel_residual=True,
    projections={
        **{name: f"self_attn.{name}" for name in _QKV},
        "o_proj": "self_attn.dense",
        "up_proj": "mlp.fc1",
    },
)
_GRANITE = _LLAMA | dict(ffn_multiplier="residual_multiplier", logit_divisor="logits_scaling")
_COHERE = _LLAMA | dict(
    norm="layer", pre_ffn_norm_tmp=None, parallel_residual=True, logit_multiplier="logit_scale"
)
_QWEN3_5 = (
    _LLAMA
    | _FFN_ONLY
    | dict(
        norm="rms_unit_offset",
        attn_module_tmp="self_attn|linear_attn",  # three of four blocks have linear attention
    )
)
_LFM2 = _LLAMA | dict(
    rewrite_module_tmp="feed_forward.w2",
    mlp_module_tmp="feed_forward",
    attn_module_tmp="self_attn|conv",
    ln_f_module="model.embedding_norm",
    pre_ffn_norm_tmp="ffn_norm",
    projections={"gate_proj": "feed_forward.w1", "up_proj": "feed_forward.w3"},
)
_BAMBA = _LLAMA | dict(
    rewrite_module_tmp="feed_forward.down_proj",
    mlp_module_tmp="feed_forward",
    attn_module_tmp="self_attn|mamba",
    ln_f_module="model.final_layernorm",
    pre_ffn_norm_tmp="pre_ff_layernorm",
    projections={name: f"feed_forward.{name}" for name in ("gate_proj", "up_proj")},
)
_GRANITE_HYBRID = _GRANITE | dict(
    rewrite_module_tmp="shared_mlp.output_linear",
    mlp_module_tmp="shared_mlp",
    attn_module_tmp="self_attn|mamba",
    projections={"gate_proj": "shared_mlp.input_linear[1/2]", "up_proj": "shared_mlp.input_linear[2/2]"},
    needs={"num_local_experts": 0},
)
_PERSIMMON = _LLAMA | dict(
    rewrite_module_tmp="mlp.dense_4h_to_h",
    ln_f_module="model.final_layernorm",
    norm="layer",
    projections={
        **_thirds("self_attn.query_key_value", " by head"),
        "o_proj": "self_attn.dense",
        "up_proj": "mlp.dense_h_to_4h",
    },
)
_OPT = dict(
    block="model.decoder.layers.{}",
    rewrite_module_tmp="fc2",
    mlp_module_tmp="fc1",
    attn_module_tmp="self_attn",
    ln_f_module="model.decoder.final_layer_norm",
    lm_head_module="lm_head",
    norm="layer",
    pre_ffn_norm_tmp="final_layer_norm",
    projections={
        **{name: f"self_attn.{name}" for name in _QKV},
        "o_proj": "self_attn.out_proj",
        "up_proj": "fc1",
    },
    ffn_quirks=("flat",),
    needs={
        "do_layer_norm_before": True,
        "word_embed_proj_dim": "hidden_size",
        "_remove_final_layer_norm": False,
    },
)

_XGLM = _OPT | dict(block="model.layers.{}", ln_f_module="model.layer_norm", needs={})
_BIOGPT = _XGLM | dict(
    block="biogpt.layers.{}", ln_f_module="biogpt.layer_norm", lm_head_module="output_projection"
)

_GPT2 = dict(
    block="transformer.h.{}",
    rewrite_module_tmp="mlp.c_proj",
    mlp_module_tmp="mlp",
    attn_module_tmp="attn",
    ln_f_module="transformer.ln_f",
    lm_head_module="lm_head",
    norm="layer",
    pre_ffn_norm_tmp="ln_2",
    projections={**_thirds("attn.c_attn"), "o_proj": "attn.c_proj", "up_proj": "mlp.c_fc"},
)

_BLOOM = dict(
    block="transformer.h.{}",
    rewrite_module_tmp="mlp.dense_4h_to_h",
    mlp_module_tmp="mlp",
    attn_module_tmp="self_attention",
    ln_f_module="transformer.ln_f",
    lm_head_module="lm_head",
    norm="layer",
    pre_ffn_norm_tmp="post_attention_layernorm",
    projections={
        **_thirds("self_attention.query_key_value", " by head"),
        "o_proj": "self_attention.dense",
        "up_proj": "mlp.dense_h_to_4h",
    },
    ffn_quirks=("adds_residual",),
    needs={"apply_residual_connection_post_layernorm": False, "slow_but_exact": False},
)
_MPT = _BLOOM | dict(
    block="transformer.blocks.{}",
    rewrite_module_tmp="ffn.down_proj",
    mlp_module_tmp="ffn",
    attn_module_tmp="attn",
    ln_f_module="transformer.norm_f",
    pre_ffn_norm_tmp="norm_2",
    projections={**_thirds("attn.Wqkv"), "o_proj": "attn.out_proj", "up_proj": "ffn.up_proj"},
    needs={},
)
_FALCON = _BLOOM | dict(
    projections=_BLOOM["projections"] | _by_heads("self_attention.query_key_value"),
    parallel_residual="parallel_attn",
    ffn_quirks=("changed_in_place",),
    needs={},
)

_GPTJ = dict(
    block="transformer.h.{}",
    rewrite_module_tmp="mlp.fc_out",
    mlp_module_tmp="mlp",
    attn_module_tmp="attn",
    ln_f_module="transformer.ln_f",
    lm_head_module="lm_head",
    norm="layer",
    parallel_residual=True,
    projections={
        **{name: f"attn.{name}" for name in _QKV},
        "o_proj": "attn.out_proj",
        "up_proj": "mlp.fc_in",
    },
)
_CODEGEN = _GPTJ | {
    "projections": _GPTJ["projections"]
    | {name: f"attn.qkv_proj[{part}/3 by 4]" for name, part in zip(_QKV, (1, 3, 2))}
}

_GPT_NEO = _GPT2 | {
    "projections": {
        **{name: f"attn.attention.{name}" for name in _QKV},
        "o_proj": "attn.attention.out_proj",
        "up_proj": "mlp.c_fc",
    }
}

LIKE_LLAMA = (
    "llama", "mistral", "qwen2", "qwen3", "smollm3",
    "cwm", "diffllama", "ernie4_5", "helium", "hunyuan_v1_dense", "ministral", "ministral3", "seed_oss",
)  # fmt: skip
_ALL = [
    *(_entry(model_type, **_LLAMA) for model_type in LIKE_LLAMA),
    _entry("nemotron", **_NO_GATE | {"norm": "layer_unit_offset"}),
    _entry("gemma", **_LLAMA | {"norm": "rms_unit_offset"}),
    _entry("arcee", **_NO_GATE),
    _entry("jais2", **_NO_GATE | {"norm": "layer"}),
    _entry("youtu", **_LLAMA | {"projections": _without(_LLAMA["projections"], *_QKV)}),
    _entry("apertus", **_NO_GATE | {"pre_ffn_norm_tmp": "feedforward_layernorm"}),
    _entry(
        "vaultgemma", **_LLAMA | {"norm": "rms_unit_offset", "pre_ffn_norm_tmp": "pre_feedforward_layernorm"}
    ),
    *(_entry(model_type, **_GEMMA2) for model_type in ("gemma2", "gemma3_text")),
    _entry("phi3", **_PHI3),
    _entry("glm4", **_GLM4),
    _entry("glm", **_LLAMA | {"projections": _FUSED}),
    *(_entry(model_type, **_OLMO2) for model_type in ("olmo2", "olmo3", "exaone4")),
    _entry("starcoder2", **_TWO_MATRICES),
    _entry("phi", **_PHI),
    _entry("granite", **_GRANITE),
    *(_entry(model_type, **_COHERE) for model_type in ("cohere", "cohere2")),
    _entry("qwen3_5_text", **_QWEN3_5),
    _entry("lfm2", **_LFM2),
    _entry("bamba", **_BAMBA),
    _entry("granitemoehybrid", **_GRANITE_HYBRID),
    _entry("persimmon", **_PERSIMMON),
    _entry("opt", **_OPT),
    _entry("xglm", **_XGLM),
    _entry("biogpt", **_BIOGPT),
    _entry("bloom", **_BLOOM),
    _entry("falcon", **_FALCON),
    _entry("mpt", **_MPT),
    _entry("stablelm", **_LLAMA | {"norm": "layer", "parallel_residual": "use_parallel_residual"}),
    _entry("gpt2", **_GPT2),
    _entry("gpt_neo", **_GPT_NEO),
    _entry("gpt_bigcode", **_GPT2 | {"projections": _GPT2["projections"] | _by_heads("attn.c_attn")}),
    _entry("gptj", **_GPTJ),
    _entry("codegen", **_CODEGEN),
    _entry(
        "gpt_neox",
        block="gpt_neox.layers.{}",
        rewrite_module_tmp="mlp.dense_4h_to_h",
        mlp_module_tmp="mlp",
        attn_module_tmp="attention",
        ln_f_module="gpt_neox.final_layer_norm",
        lm_head_module="embed_out|lm_head",  # until transformers 5.5, and after
        norm="layer",
        pre_ffn_norm_tmp="post_attention_layernorm",
        attn_branch_tmp="post_attention_dropout",
        parallel_residual="use_parallel_residual",
        projections={
            **_thirds("attention.query_key_value", " by head"),
            "o_proj": "attention.dense",
            "up_proj": "mlp.dense_h_to_4h",
        },
    ),
]

TEXT_PARTS = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"}
"""Types that occur only as the text part of a model with pictures -> the type whose blocks they have."""
ARCHITECTURES: dict[str, Architecture] = {entry.model_type: entry for entry in _ALL}
