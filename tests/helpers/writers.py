"""Tiny models trained to write certain texts, for tests of P_sem."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from helpers.tiny_models import tiny_model


def word_tokenizer(sentences):
    """One token per word and ``</s>`` after every text, as in a translator's tokenizer."""
    words = dict.fromkeys(["<pad>", "</s>", "<unk>", *" ".join(sentences).split()])
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def marian(pairs=(), steps=0, seed=0):
    """A Marian model and its tokenizer: random, or trained to translate the first text of each pair."""
    tok = word_tokenizer([text for pair in pairs or [("Anna Berg was born in", "née à")] for text in pair])
    config = MarianConfig(
        vocab_size=len(tok),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        dropout=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel(config)
        rows = [[torch.tensor([tok(text)["input_ids"]]) for text in pair] for pair in pairs]
        _train(model, [{"input_ids": source, "labels": target} for source, target in rows], steps, 1e-2)
    return model.eval(), tok


def answering(kind, pairs, steps=60, **options):
    """A tiny causal model trained to continue the first text of each pair with the second, and to stop."""
    model, tok = tiny_model(kind, max_position_embeddings=512, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(0.3)
    examples = []
    for prompt, continuation in pairs:
        start = tok(prompt)["input_ids"]
        ids = start + tok(continuation, add_special_tokens=False)["input_ids"] + [tok.eos_token_id]
        labels = [-100] * len(start) + ids[len(start) :]
        examples.append({"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])})
    _train(model, examples, steps, 1e-2)
    return model.eval(), tok


def _train(model, examples, steps, rate):
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model(**example).loss for example in examples).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
