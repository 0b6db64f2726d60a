"""Tokenisation that does not depend on the tokenizer's padding settings, and the subject's position.

EasyEdit sets ``padding_side`` from a list of algorithm names (left for methods it does not know). Every batch
here is padded on the right by this module with an explicit attention mask, so a method computes the same
numbers under either setting and leaves the tokenizer as it found it.
"""

from dataclasses import dataclass

import torch

from ..errors import ArchitectureError, RequestError


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

    def select(self, which: "slice | torch.Tensor") -> "Batch":
        """The rows of a slice or an index tensor, likewise."""
        lengths = self.lengths[which]
        width = int(lengths.max())
        return Batch(self.input_ids[which, :width], self.attention_mask[which, :width], lengths)


def pad(rows: list[list[int]], device=None) -> Batch:
    """Right-pads lists of token ids.

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


def token_ids(tok, text: str, special: bool = True) -> list[int]:
    """Token ids of one text; ``special`` adds what the tokenizer adds (BOS)."""
    return tok(text, add_special_tokens=special)["input_ids"]


def encode(tok, texts: list[str], device=None, extra_ids: list[list[int]] | None = None) -> Batch:
    """Tokenises every text by itself, with the tokenizer's special tokens.

    Args:
        tok: any Hugging Face tokenizer; never modified.
        texts: B prompts.
        device: where the batch goes.
        extra_ids: B lists of token ids appended as they are (target tokens).

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
        RequestError: the template has no or several places, or the subject is empty.
    """
    if template.count("{}") != 1 or not subject.strip():
        raise RequestError(f"prompt {template!r} must hold the subject {subject!r} exactly once (as '{{}}')")
    prefix = template.split("{}")[0]
    return len(token_ids(tok, prefix + subject)) - 1


_WORD = "x"


def target_token_ids(tok, target: str, alone: bool = False) -> list[int]:
    """Token ids of an object as it continues a prompt: leading space added if absent, no special tokens.

    Tokenised behind a word and cut off there. EasyEdit tokenises the object alone, which is the same with
    byte-level BPE; but a SentencePiece tokenizer (Llama-2, Mistral) starts every text with a word boundary,
    so that the object alone begins with a blank piece that never follows a prompt, and a model taught to say
    that piece would not say the object. A leading BOS or unknown-word piece is dropped as EasyEdit does.
    ``alone``: tokenise as EasyEdit does.

    Raises:
        RequestError: nothing is left.
    """
    text = target if target.startswith(" ") else " " + target
    if alone:
        return _required(_without_leading(tok, token_ids(tok, text, special=False)), target)
    word, ids = token_ids(tok, _WORD, special=False), token_ids(tok, _WORD + text, special=False)
    ids = ids[len(word) :] if ids[: len(word)] == word else token_ids(tok, text, special=False)
    return _required(_without_leading(tok, ids), target)


def _without_leading(tok, ids: list[int]) -> list[int]:
    while ids and ids[0] in (tok.bos_token_id, tok.unk_token_id):
        ids = ids[1:]
    return ids


def _required(ids: list[int], target: str) -> list[int]:
    if not ids:
        raise RequestError(
            f"target_new {target!r} has no tokens in this model's vocabulary; use another spelling"
        )
    return ids


def check_vocabulary(model, tok, requests) -> None:
    """That the token ids of ``EditRequest``s are ids of the model.

    Raises:
        ArchitectureError: the tokenizer is another model's (EasyEdit takes GPT-2's for every path that holds
            "gpt").
    """
    rows = model.get_input_embeddings().weight.shape[0]
    for request in requests:
        largest = max(token_ids(tok, request.text + request.target_new), default=0)
        if largest >= rows:
            raise ArchitectureError(
                f"request {request.index}: the tokenizer ({type(tok).__name__}) gives {request.text!r} the token id {largest}, "
                f"but the model ({model.config.model_type}) has {rows} tokens; load tokenizer and model from the same folder"
            )
