"""Random Llamas to measure speed on: what a step costs does not depend on the values of the weights."""

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from easyedit_neuron import resources

SHAPES = {
    "80m": dict(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=32000,
    ),
    "llama3-8b": dict(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        rope_theta=500000.0,
    ),
    "tiny": dict(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=2000,
    ),
}
"""Sizes by name; embeddings are not tied. ``tiny`` is for tests of the programs."""


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
