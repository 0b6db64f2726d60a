"""Fluency: n-gram entropy of text that the model writes (ROME's GE, EasyEdit's ``ngram_entropy``)."""

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

import torch

from ..arch.tokens import text_ids
from .batching import accepted, evaluating, input_device
from .word_tokenizer import words


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


def sample_texts(
    model,
    tok,
    prompts: Sequence[str],
    total_tokens: int,
    top_k: int = 5,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Each prompt continued by top-k sampling, prompt included, to ``total_tokens`` tokens.

    One prompt at a time, so that a text depends on nothing but its prompt and the random state. With
    ``generator=None`` the draws are those of EasyEdit's ``generate_fast`` under the same global seed.
    End-of-text tokens do not end a text, so that repetition shows.
    """
    device, texts = input_device(model), []
    with evaluating(model):
        for row in text_ids(tok, prompts):
            step, cache, ids = torch.tensor([row], device=device), None, list(row)
            while len(ids) < total_tokens:
                inputs = {"input_ids": step, "past_key_values": cache, "logits_to_keep": 1}
                out = model(**accepted(model, inputs), use_cache=True)
                cache = out.past_key_values
                # Draw from the k most probable tokens.
                probabilities = out.logits[:, -1].softmax(-1)
                best = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=1).indices
                weights = probabilities.gather(1, best)
                weights = weights / weights.sum(1, keepdim=True)
                if generator is not None:
                    weights = weights.to(generator.device)
                drawn = torch.multinomial(weights, 1, generator=generator)
                step = best.gather(1, drawn.to(best.device))
                ids.append(int(step))
            texts.append(_clean(tok.decode(ids, skip_special_tokens=True)))
    return texts


def _clean(text: str) -> str:
    return unicodedata.normalize("NFKD", text).replace("\n\n", " ").replace("<|endoftext|>", "")


def generation_entropy(model, tok, prompts: Sequence[str], total_tokens: int) -> float:
    """Mean n-gram entropy (bits) of a text per prompt, as EasyEdit's ``test_generation_quality``."""
    texts = sample_texts(model, tok, prompts, total_tokens)
    return sum(ngram_entropy(text) for text in texts) / len(texts)


def fluency(model, tok, prompts: Sequence[str], max_new_tokens: int = 100, seed: int = 0) -> list[float]:
    """N-gram entropy (bits) of each prompt with ``max_new_tokens`` sampled tokens after it.

    Reproducible: every prompt draws from a generator of its own, seeded with ``seed``; torch's global state
    is not used. EasyEdit counts 100 tokens of prompt and text together; here the new ones are counted.
    """
    values = []
    for prompt, row in zip(prompts, text_ids(tok, prompts)):
        generator = torch.Generator().manual_seed(seed)
        (text,) = sample_texts(model, tok, [prompt], len(row) + max_new_tokens, generator=generator)
        values.append(ngram_entropy(text))
    return values
