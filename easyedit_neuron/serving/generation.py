"""Continue token ids by sampling or greedily, with stop texts, text by text."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from ..arch.vocabulary import positions
from ..errors import RequestError

MOST_CHARACTERS_OF_A_TOKEN = 100
"""A longer text than so many characters per position is refused before it is tokenised."""
CONTEXT_TOKENS = 8
"""Tokens of the prompt with which new ones are decoded: some tokenizers drop a blank at the beginning."""


@dataclass(frozen=True)
class Sampling:
    """How to continue a text.

    Attributes:
        max_tokens: longest continuation.
        temperature: 0: greedy.
        top_p: probability mass of the tokens to draw from, above 0, at most 1.
        stop: texts before which the continuation ends.
        seed: of the draws; None: another one each time.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Continuation:
    """A text, the number of its tokens, and why it ended: ``stop`` (also by a stop text) or ``length``."""

    text: str
    tokens: int
    finish_reason: str


def prompt_ids(model, tok, text: str, special: bool = True) -> list[int]:
    """Token ids of a text to continue; ``special``: with the tokenizer's BOS, if it adds one.

    Raises:
        RequestError: the text has no tokens, or more than the model has positions.
    """
    most = positions(model)
    if most is not None and len(text) > MOST_CHARACTERS_OF_A_TOKEN * most:
        raise RequestError(f"a text of {len(text):,} characters; the model has {most:,} positions")
    ids = list(tok(text, add_special_tokens=special, verbose=False)["input_ids"])
    if special and ids and ids[-1] == tok.eos_token_id and not text.endswith(tok.eos_token):
        ids.pop()  # the text goes on
    if not ids:
        raise RequestError("a text without tokens; there is nothing to continue")
    return ids


def check_room(model, ids: Sequence[int], max_tokens: int) -> None:
    """``RequestError`` where a prompt and its continuation may be longer than the model's positions."""
    most = positions(model)
    if most is not None and len(ids) + max_tokens > most:
        raise RequestError(
            f"{len(ids):,} tokens of the prompt and {max_tokens:,} of 'max_tokens' are more than the "
            f"model's {most:,} positions; shorten the prompt, or lower 'max_tokens'"
        )


@torch.no_grad()
def continue_text(
    model,
    tok,
    ids: Sequence[int],
    sampling: Sampling,
    on_text: Callable[[str], None] = lambda text: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Continuation:
    """Continue a prompt.

    Settings of the model's own generation config (penalties, top-k) are not used: without sampling the text
    is what the weights say, as measures and ``easyedit-neuron ask`` have it. The process's random state does
    not change.

    Args:
        model, tok: the model in eval mode, and its tokenizer.
        ids: token ids of the prompt.
        sampling: how to continue it.
        on_text: called with each piece of the text, as soon as it is settled that no stop text begins there.
        is_cancelled: asked after every token; True ends the continuation.
    """
    device = model.get_input_embeddings().weight.device
    prompt = torch.tensor([list(ids)], device=device)
    pieces = _Pieces(tok, list(ids[-CONTEXT_TOKENS:]), sampling.stop, on_text)
    end_ids = _end_ids(model, tok)

    def is_over(input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        token = int(input_ids[0, -1])
        if token not in end_ids:
            pieces.add(token)
        over = pieces.is_stopped or is_cancelled()
        return torch.full((1,), over, dtype=torch.bool, device=input_ids.device)

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**63)
        written = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=_config(tok, sampling, end_ids),
            stopping_criteria=[is_over],
        )
    new = written[0, len(ids) :].tolist()
    is_ended = pieces.is_stopped or (bool(new) and new[-1] in end_ids)
    return Continuation(pieces.end(), len(new), "stop" if is_ended else "length")


def _config(tok, sampling: Sampling, end_ids: set[int]) -> GenerationConfig:
    """All that a model's own config could set otherwise is named; without sampling by neutral values."""
    neutral: dict[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    neutral |= {"min_new_tokens": 0, "use_cache": True, "return_dict_in_generate": False}
    if sampling.temperature > 0:
        neutral |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        neutral |= {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
    else:
        neutral |= {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    ends = sorted(end_ids)
    pad = tok.pad_token_id if tok.pad_token_id is not None else (ends or [0])[0]
    return GenerationConfig(
        max_new_tokens=sampling.max_tokens, eos_token_id=ends or None, pad_token_id=pad, **neutral
    )


def _end_ids(model, tok) -> set[int]:
    """Ids of the tokens that end a text: the tokenizer's, and those that the model's config adds."""
    ids = {tok.eos_token_id}
    of_model = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids |= set(of_model) if isinstance(of_model, list) else {of_model}
    return {int(number) for number in ids if number is not None}


class _Pieces:
    """Text from tokens, in pieces that are given out once nothing can change them any more."""

    def __init__(self, tok, context: list[int], stop: Sequence[str], on_text: Callable[[str], None]):
        self._tok, self._context, self._stop, self._on_text = tok, context, stop, on_text
        self._ids: list[int] = []
        self._before = self._decode(context)
        self._given = 0
        self._text = ""
        self.is_stopped = False

    def add(self, token: int) -> None:
        self._ids.append(token)
        whole = self._decode(self._context + self._ids)
        starts_alike = whole.startswith(self._before)
        self._text = whole[len(self._before) :] if starts_alike else self._decode(self._ids)
        places = [place for place in map(self._text.find, self._stop) if place >= 0]
        if places:
            self._text, self.is_stopped = self._text[: min(places)], True
        self._give(len(self._text) if self.is_stopped else self._settled())

    def end(self) -> str:
        """Give out what is left; the whole text."""
        self._give(len(self._text))
        return self._text

    def _give(self, upto: int) -> None:
        if upto > self._given:
            self._on_text(self._text[self._given : upto])
            self._given = upto

    def _settled(self) -> int:
        """Characters that are whole, and behind which no stop text has begun."""
        text = self._text.rstrip("\ufffd")  # half a character
        begun = (
            length
            for stop in self._stop
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return len(text) - max(begun, default=0)

    def _decode(self, ids: list[int]) -> str:
        return self._tok.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
