"""Random Llamas to measure speed on: what a step costs does not depend on the values of the weights."""

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from easyedit_neuron import resources

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
SHAPES = {
    "80m": dict(zip(SIZES, (512, 2048, 12, 8, 8, 32000))),
    "llama3-8b": dict(zip(SIZES, (4096, 14336, 32, 32, 8, 128256)), rope_theta=500000.0),
    "smollm2": dict(zip(SIZES, (576, 1536, 30, 9, 3, 49152))),
    "wide": dict(zip(SIZES, (512, 14336, 10, 8, 8, 2000))),
    "tiny": dict(zip(SIZES, (64, 160, 10, 4, 2, 2000))),
}
"""Sizes by name; embeddings are not tied. ``wide`` has the FFNs of Llama-3-8B in a model that a CPU
holds; ``tiny`` is for tests of the programs."""


def tokenizer():
    """The tokenizer of the shipped model."""
    return AutoTokenizer.from_pretrained(resources.model_path("tiny-llama"))


def random_llama(shape: str = "80m", dtype=torch.float32, device: str = "cpu", seed: int = 0, **overrides):
    """A model of a shape in eval mode, its weights drawn on the device, and the shipped tokenizer."""
    tok = tokenizer()
    config = LlamaConfig(
        **{
            **SHAPES[shape],
            "max_position_embeddings": 2048,
            "bos_token_id": tok.bos_token_id,
            "eos_token_id": tok.eos_token_id,
            "tie_word_embeddings": False,
            **overrides,
        }
    )
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(default)
    return model.eval(), tok
