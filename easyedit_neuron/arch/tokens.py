"""Tokenisation that does not depend on the tokenizer's padding settings, and the subject's position.

EasyEdit sets ``padding_side`` by the name of the method (left for methods that it does not know). This module
pads every batch on the right, with an explicit attention mask. A method therefore computes the same numbers
under either setting and does not change the tokenizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import RequestError
from .chat import ChatTokenizer

_WORD = "x"


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids.

    Attributes:
        input_ids: int64 [B, T]; padded with 0, which the mask hides.
        attention_mask: int64 [B, T], 1 at real tokens.
        lengths: int64 [B]; row b's last real token is at ``lengths[b] - 1``.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    lengths: torch.Tensor

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments for the model."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    @property
    def last(self) -> torch.Tensor:
        """int64 [B], index of the last real token of every row."""
        return self.lengths - 1

    def rows(self, start: int, stop: int) -> "Batch":
        """Rows ``start:stop``, with columns that are padding in all of them cut off."""
        return self.select(slice(start, stop))

    def select(self, rows: slice | torch.Tensor) -> "Batch":
        """The rows of a slice or an index tensor, with columns that are padding in all of them cut off."""
        lengths = self.lengths[rows]
        width = int(lengths.max())
        return Batch(self.input_ids[rows, :width], self.attention_mask[rows, :width], lengths)


def pad(rows: list[list[int]], device=None) -> Batch:
    """Right-pad lists of token ids.

    Raises:
        RequestError: a row is empty (a prompt without any token cannot be run).
    """
    if not rows:
        raise RequestError("no prompts to tokenise")
    empty = next((i for i, row in enumerate(rows) if not row), None)
    if empty is not None:
        raise RequestError(f"prompt {empty} has no tokens; give it at least one word")
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    return Batch(ids.to(device), mask.to(device), lengths.to(device))


def left_pad(rows: list[list[int]], device=None, filler: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 [B, T], of rows padded on the left: all end at the last column."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[filler] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def token_ids(tok, text: str, special: bool = True) -> list[int]:
    """Token ids of one text, with the tokenizer's special tokens in front of it (BOS) if ``special``.

    Special tokens that the tokenizer puts behind a text (``add_eos_token``) are left out: behind a prompt
    follows its answer, and a text up to the subject goes on. The text is the user's turn if ``tok`` is a
    ``ChatTokenizer``, unless ``special`` is off.
    """
    return text_ids(tok, [text])[0] if special else list(tok(text, add_special_tokens=False)["input_ids"])


def text_ids(tok, texts: Sequence[str]) -> list[list[int]]:
    """``token_ids`` of every text; no padding, no truncation."""
    if isinstance(tok, ChatTokenizer):
        return [tok.prompt_ids(text) for text in texts]
    rows = tok(list(texts), verbose=False)["input_ids"] if texts else []
    behind = _special_ids_behind(tok)
    return [list(ids[: len(ids) - behind]) for ids in rows]


def unfinished_ids(tok, text: str) -> list[int]:
    """``token_ids`` of a text that goes on, as up to a subject's end: the user's turn is not closed."""
    return tok.unfinished_ids(text) if isinstance(tok, ChatTokenizer) else token_ids(tok, text)


def pair_ids(tok, prompts: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt with its answer, a blank between them (in a chat what its template has)."""
    if isinstance(tok, ChatTokenizer):
        return [tok.pair_ids(*pair) for pair in zip(prompts, answers)]
    return text_ids(tok, [f"{prompt} {answer}" for prompt, answer in zip(prompts, answers)])


def _special_ids_behind(tok) -> int:
    """Number of special tokens that the tokenizer puts behind a text."""
    whole, own = tok(_WORD)["input_ids"], tok(_WORD, add_special_tokens=False)["input_ids"]
    for behind in range(len(whole) - len(own), 0, -1):
        if whole[len(whole) - behind - len(own) : len(whole) - behind] == own:
            return behind
    return 0


def encode(tok, texts: list[str], device=None, extra_ids: list[list[int]] | None = None) -> Batch:
    """Tokenise every text by itself, with the tokenizer's special tokens.

    Args:
        tok: any Hugging Face tokenizer; never modified.
        texts: B prompts.
        device: where the batch goes.
        extra_ids: B lists of token ids (target tokens) that are appended to the rows.

    Returns:
        Batch, right-padded.
    """
    rows = [token_ids(tok, text) for text in texts]
    if extra_ids is not None:
        rows = [row + list(extra) for row, extra in zip(rows, extra_ids, strict=True)]
    return pad(rows, device)


def subject_last_index(tok, template: str, subject: str) -> int:
    """Index of the subject's last token in ``template.format(subject)``.

    Counted as EasyEdit counts it (``fact_token: subject_last``): the tokens of everything up to the end of
    the subject, minus one. ``template`` has exactly one ``{}``.

    Raises:
        RequestError: the template has no ``{}`` or several, or the subject is empty.
    """
    if template.count("{}") != 1 or not subject.strip():
        raise RequestError(f"prompt {template!r} must hold the subject {subject!r} exactly once (as '{{}}')")
    prefix = template.split("{}")[0]
    return len(unfinished_ids(tok, prefix + subject)) - 1


def target_token_ids(tok, target: str, alone: bool = False) -> list[int]:
    """Token ids of an object as it continues a prompt: leading space added if absent, no special tokens.

    The object is tokenised behind a word, whose tokens are cut off. EasyEdit tokenises the object alone
    (``alone``), which is the same with byte-level BPE. A SentencePiece tokenizer (Llama-2, Mistral) starts
    every text with a word boundary, so that the object alone begins with a blank piece that never follows a
    prompt. A model that learns this piece does not learn the object. A leading BOS or unknown-word piece is
    dropped, as in EasyEdit. In a chat the object is the assistant's answer, and begins as the template says.

    Raises:
        RequestError: no token is left.
    """
    text = target if target.startswith(" ") else " " + target
    in_chat = isinstance(tok, ChatTokenizer)
    ids = tok.answer_ids(text) if in_chat else token_ids(tok, text, special=False)
    if not alone and not in_chat:
        word, behind_word = (token_ids(tok, tokenised, special=False) for tokenised in (_WORD, _WORD + text))
        if behind_word[: len(word)] == word:
            ids = behind_word[len(word) :]
    while ids and ids[0] in (tok.bos_token_id, tok.unk_token_id):
        ids = ids[1:]
    if not ids:
        raise RequestError(
            f"target_new {target!r} has no tokens in this model's vocabulary; use another spelling"
        )
    return ids
