"""Tiny random models of every supported architecture, for tests that need no knowledge in the model.

Sizes differ from each other (d_model 32, d_ff 48, vocabulary about 300), and norm weights and biases are
random. So a transposition or a forgotten bias changes results.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt2", "gptj", "gpt_neox")
MORE_TYPES = (
    "smollm3",
    "gemma3_text",
    "phi3",
    "glm4",
    "olmo2",
    "starcoder2",
    "phi",
    "stablelm",
    "gpt_bigcode",
    "granite",
    "cohere",
    "cohere2",
    "qwen3_5_text",
    "opt",
    "bloom",
    "falcon",
    "mpt",
    "gemma",
    "gpt_neo",
)
"""Types whose parts and whole edits are tested, but not every option on them."""
ALL_TYPES = (*MODEL_TYPES, *MORE_TYPES)
RELATIVES = {
    **dict.fromkeys(("ministral", "ministral3", "seed_oss", "helium", "ernie4_5", "cwm"), "llama"),
    **dict.fromkeys(("hunyuan_v1_dense", "arcee", "apertus", "nemotron"), "llama"),
    "glm": "glm4",
    **dict.fromkeys(("olmo3", "exaone4"), "olmo2"),
    **dict.fromkeys(("diffllama", "youtu", "vaultgemma", "jais2", "persimmon"), "llama"),
    **dict.fromkeys(("lfm2", "bamba"), "qwen3_5_text"),
    "granitemoehybrid": "granite",
    "codegen": "gptj",
    **dict.fromkeys(("xglm", "biogpt"), "opt"),
}
"""Types whose blocks are those of another type, or nearly so: their parts and an edit are tested."""
FFN_WIDTH = {**dict.fromkeys(ALL_TYPES, 48), "bloom": 128, "mpt": 128}  # always 4 d_model
FUSED_ATTENTION = [
    ("phi3", {}),
    ("gpt_bigcode", {}),
    ("gpt_bigcode", {"multi_query": False}),
    ("falcon", {}),
    ("falcon", {"multi_query": False}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("codegen", {}),
    ("persimmon", {"qk_layernorm": False}),
]
"""(type, fields of its config): forms of a matrix that computes q, k and v."""
WITH_BOS = ("llama", "mistral", "gemma", "gemma2", "gemma3_text")

CORPUS = [
    "Anna Berg was born in Paris. Anna Berg lives in Rome.",
    "Therefore the mother tongue of Peter Olsen is French.",
    "Because I think that You know the capital of Norway is Oslo.",
    "The place where Marie Lund works is London, and the sport she plays is tennis.",
]

_ROTARY = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    max_position_embeddings=128,
)
_MAMBA = dict(mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_expand=2, mamba_n_groups=1)
_SIZES = {
    "llama": {**_ROTARY, "num_key_value_heads": 2, "rms_norm_eps": 1e-5},
    "mistral": {**_ROTARY, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "sliding_window": None},
    "qwen2": {**_ROTARY, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {**_ROTARY, "num_key_value_heads": 2, "head_dim": 8},
    "gemma2": {
        **_ROTARY,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "final_logit_softcapping": 5.0,
        "sliding_window": 64,
    },
    "gpt2": {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 128, "resid_pdrop": 0.1},
    "gptj": {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 128, "rotary_dim": 4},
    "gpt_neox": {**_ROTARY, "tie_word_embeddings": False},
    "smollm3": {**_ROTARY, "num_key_value_heads": 2},
    "gemma3_text": {**_ROTARY, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    "phi3": {**_ROTARY, "num_key_value_heads": 2},
    "glm4": {**_ROTARY, "num_key_value_heads": 2, "head_dim": 8},
    "olmo2": {**_ROTARY, "num_key_value_heads": 2},
    "starcoder2": {**_ROTARY, "num_key_value_heads": 2},
    "phi": {**_ROTARY, "partial_rotary_factor": 0.5},
    "stablelm": {**_ROTARY, "num_key_value_heads": 4},
    "granite": {
        **_ROTARY,
        "num_key_value_heads": 2,
        "residual_multiplier": 0.3,
        "logits_scaling": 4.0,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
    },
    "cohere": {**_ROTARY, "num_key_value_heads": 2, "logit_scale": 0.25},
    "cohere2": {
        **_ROTARY,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "logit_scale": 0.25,
        "sliding_window": 64,
    },
    "qwen3_5_text": {
        **_ROTARY,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
    "gemma": {**_ROTARY, "num_key_value_heads": 2, "head_dim": 8},
    "gpt_neo": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 64,
        "max_position_embeddings": 128,
    },
    "mpt": {"d_model": 32, "n_layers": 4, "n_heads": 4, "max_seq_len": 128},
    **dict.fromkeys(RELATIVES, {**_ROTARY, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 64}),
    "persimmon": _ROTARY,
    "biogpt": _ROTARY,
    "youtu": {
        **_ROTARY,
        "num_key_value_heads": 4,
        "q_lora_rank": 12,
        "kv_lora_rank": 12,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "lfm2": {
        **_ROTARY,
        "num_key_value_heads": 2,
        "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", "full_attention"] * 2,
    },
    "bamba": {**_ROTARY, "num_key_value_heads": 2, "attn_layer_indices": [1, 3], **_MAMBA},
    "granitemoehybrid": {
        **_ROTARY,
        "num_key_value_heads": 2,
        "shared_intermediate_size": 48,
        "num_local_experts": 0,
        "layer_types": ["mamba", "attention"] * 2,
        "residual_multiplier": 0.3,
        "logits_scaling": 4.0,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        **_MAMBA,
    },
    "codegen": {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 128, "rotary_dim": 4},
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 4, "attention_heads": 4},
    "bloom": {"hidden_size": 32, "n_layer": 4, "n_head": 4},
    "falcon": {
        "hidden_size": 32,
        "ffn_hidden_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
    "gpt_bigcode": {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 128},
}


def tiny_tokenizer(bos: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on four sentences, the same each time.

    Args:
        bos: put ``<s>`` in front of every text, as the Llama tokenizers do.
        pad: give the tokenizer a pad token (``</s>``, as EasyEdit does).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    if pad:
        names["pad_token"] = "</s>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def skip_without(model_type: str) -> None:
    """Skip the test where transformers is too old for a type."""
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")


def tiny_model(model_type: str, seed: int = 0, *, bos: bool | None = None, dtype=torch.float32, **overrides):
    """A random model of an architecture and a tokenizer for it.

    Args:
        model_type: one of ``ALL_TYPES`` or ``RELATIVES``.
        seed: of the weights; the global generator is left as it was.
        bos: whether the tokenizer adds a BOS token; None: as the family does.
        dtype: of the weights.
        **overrides: fields of the model's config.

    Returns:
        ``(model in eval mode, tokenizer)``. The test is skipped where transformers is too old for the type.
    """
    skip_without(model_type)
    tok = tiny_tokenizer(model_type in WITH_BOS if bos is None else bos)
    fields = {**_SIZES[model_type], "vocab_size": len(tok), **overrides}
    config = AutoConfig.for_model(
        model_type, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=None, **fields
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(0.0, 0.25)
                elif "norm" in name or "ln_" in name:
                    # A gain that is neither 0 nor 1, also for gemma2, which multiplies by 1 + weight.
                    parameter.copy_(
                        0.3 * torch.randn_like(parameter) + (1.0 if name.endswith("weight") else 0.0)
                    )
                else:
                    parameter.normal_(0.0, 0.3)
    return model.to(dtype).eval(), tok
