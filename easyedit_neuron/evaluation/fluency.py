"""Fluency: n-gram entropy of text that the model writes (ROME's GE, EasyEdit's ``ngram_entropy``)."""

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

import torch

from ..arch.tokens import text_ids
from .batching import by_length, evaluating
from .decoding import top_k_tokens
from .word_tokenizer import words

TOP_K = 5
"""Tokens that a text is drawn from, as in ROME's code and in EasyEdit."""


def ngram_entropy(text: str) -> float:
    """``(2/3 H_2 + 4/3 H_3) / 2`` in bits, ``H_n`` the entropy of the text's n-grams of words.

    High for varied text, 0 for a repeated word. An order of which the text has no n-gram counts 0.
    """
    tokens = words(text)
    total = 0.0
    for order, weight in ((2, 2 / 3), (3, 4 / 3)):
        counts = Counter(zip(*(tokens[i:] for i in range(order))))
        size = sum(counts.values())
        total += weight * -sum(n / size * math.log2(n / size) for n in counts.values())
    return total / 2


def sample_texts(model, tok, prompts: Sequence[str], total_tokens: int, top_k: int = TOP_K) -> list[str]:
    """Each prompt continued by top-k sampling, prompt included, to ``total_tokens`` tokens.

    One prompt after the other, with the draws of EasyEdit's ``generate_fast`` under the same global seed.
    End-of-text tokens do not end a text, so that repetition shows.
    """
    texts = []
    with evaluating(model):
        for row in text_ids(tok, prompts):
            (written,) = top_k_tokens(model, [row], max(0, total_tokens - len(row)), top_k, [None])
            texts.append(_text(tok, row + written))
    return texts


def _text(tok, ids: list[int]) -> str:
    text = unicodedata.normalize("NFKD", tok.decode(ids, skip_special_tokens=True))
    return text.replace("\n\n", " ").replace("<|endoftext|>", "")


def generation_entropy(model, tok, prompts: Sequence[str], total_tokens: int) -> float:
    """Mean n-gram entropy (bits) of a text per prompt, as EasyEdit's ``test_generation_quality``."""
    texts = sample_texts(model, tok, prompts, total_tokens)
    return sum(ngram_entropy(text) for text in texts) / len(texts)


def fluency(
    model, tok, prompts: Sequence[str], max_new_tokens: int = 100, seed: int = 0, batch_size: int = 32
) -> list[float]:
    """N-gram entropy (bits) of each prompt with ``max_new_tokens`` sampled tokens after it.

    Reproducible: every prompt draws from a generator of its own, seeded with ``seed``; torch's global state
    is not used. EasyEdit counts 100 tokens of prompt and text together; here the new ones are counted.
    """
    rows, values = text_ids(tok, prompts), [0.0] * len(prompts)
    with evaluating(model):
        for batch in by_length([len(row) for row in rows], batch_size):
            generators = [torch.Generator().manual_seed(seed) for _ in batch]
            written = top_k_tokens(model, [rows[i] for i in batch], max_new_tokens, TOP_K, generators)
            for i, ids in zip(batch, written):
                values[i] = ngram_entropy(_text(tok, rows[i] + ids))
    return values
