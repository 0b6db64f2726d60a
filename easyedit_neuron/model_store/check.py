"""Whether a converted model is the model that it should be: its tokenizer and its probabilities."""

import json
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError

TOLERANCE = 0.01
"""Largest relative difference of the perplexity from the recorded one."""


def check_model(model: torch.nn.Module, tok: Any, assets: Path) -> float:
    """Check tokenizer and perplexity on ``page.txt``, and token ids, against ``check.json`` in ``assets``.

    Returns:
        The perplexity of the page: exp of the mean negative log-likelihood of its tokens after the first.

    Raises:
        DataError: the page is not decoded to itself, a text has other token ids, or the perplexity is more
            than ``TOLERANCE`` from the recorded one.
    """
    page = (assets / "page.txt").read_text(encoding="utf-8")
    expected = json.loads((assets / "check.json").read_text(encoding="utf-8"))
    ids = tok(page)["input_ids"]
    if tok.decode(ids) != page:
        raise _differs("the tokenizer does not give back the page of text that it was given")
    for text, numbers in expected["token_ids"].items():
        if tok(text)["input_ids"] != numbers:
            raise _differs(f"{text!r} has the token ids {tok(text)['input_ids']}, expected {numbers}")
    perplexity = page_perplexity(model, ids)
    if abs(perplexity / expected["perplexity"] - 1) > TOLERANCE:
        raise _differs(f"perplexity of the page {perplexity:.2f}, expected {expected['perplexity']:.2f}")
    return perplexity


@torch.no_grad()
def page_perplexity(model: torch.nn.Module, ids: list[int]) -> float:
    """Perplexity of a sequence of token ids in one pass, computed in float32."""
    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    logits = model(input_ids=tokens).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:]).exp())


def _differs(problem: str) -> DataError:
    remedy = (
        "another version of transformers or gguf may convert it otherwise; constraints.txt has the tested"
    )
    return DataError(f"the converted model is not the expected one: {problem}; {remedy}")
