"""The token rows of FiNE, prompt and object, and the positions of them that are in the loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...arch.tokens import Batch, pad, target_token_ids, token_ids
from ...attribution import TargetTokens
from ...edits.request import EditRequest
from ...errors import HparamsError, RequestError


@dataclass(frozen=True)
class Row:
    """One request: token ids of its prompt and of the object behind it, and what an error calls it."""

    prompt: list[int]
    answer: list[int]
    name: str


def rows_of(
    tok, requests: list[EditRequest], hparams, model_type: str, which: str = "target_new"
) -> list[Row]:
    """Tokenises the requests.

    Args:
        tok: tokenizer, not changed.
        requests: n edits.
        hparams: ``FiNEHyperParams``: ``add_eos``, ``eos_before_prompt``.
        model_type: ``config.model_type``.
        which: ``target_new``, or ``ground_truth`` (the old object).

    Raises:
        RequestError: a prompt or an object without tokens, or a request without the old object where that is
            asked for.
        HparamsError: an end-of-text token is asked for, and the tokenizer has none.
    """
    opens = model_type == "gptj" if hparams.eos_before_prompt is None else hparams.eos_before_prompt
    for name, wanted in (("add_eos", hparams.add_eos), ("eos_before_prompt", opens)):
        if wanted and tok.eos_token_id is None:
            raise HparamsError(f"field '{name}': the tokenizer has no end-of-text token; set it to false")
    eos, rows = [tok.eos_token_id], []
    for request in requests:
        text = getattr(request, which)
        if text is None:
            raise RequestError(f"request {request.index}: locate_on {which!r} needs field {which!r}")
        prompt = (eos if opens else []) + token_ids(tok, request.text)
        if not prompt:
            raise RequestError(
                f"request {request.index}: prompt {request.text!r} has no tokens; give it at least one word"
            )
        name = f"request {request.index} ({request.text!r} -> {text.strip()!r})"
        rows.append(Row(prompt, target_token_ids(tok, text) + (eos if hparams.add_eos else []), name))
    return rows


@dataclass(frozen=True)
class Places:
    """Positions of m rows, right-padded.

    Attributes:
        batch: prompt and whole object of every row.
        prompt_end: int64 [m], index of the prompt's last token.
        kept_row, kept_at: int64 [K], every position of the prompts but its last: what follows there shall
            stay as it was.
        kept_share: [K] float64, one over the number of such positions of the row.
        answer_row, answer_at, answer_id: int64 [A], the tokens of the objects and the positions that predict
            them.
        first: bool [A], an object's first token.
    """

    batch: Batch
    prompt_end: Tensor
    kept_row: Tensor
    kept_at: Tensor
    kept_share: Tensor
    answer_row: Tensor
    answer_at: Tensor
    answer_id: Tensor
    first: Tensor

    @classmethod
    def of(cls, rows: list[Row], device) -> "Places":
        """Of m rows, in their order."""
        ends = [len(row.prompt) - 1 for row in rows]
        kept = [(i, at) for i, end in enumerate(ends) for at in range(end)]
        answers = [
            (i, end + step, token)
            for i, (row, end) in enumerate(zip(rows, ends))
            for step, token in enumerate(row.answer)
        ]

        def columns(entries, width):
            return torch.tensor(entries, dtype=torch.long, device=device).view(-1, width).unbind(1)

        prompt_end = torch.tensor(ends, device=device)
        kept_row, kept_at = columns(kept, 2)
        answer_row, answer_at, answer_id = columns(answers, 3)
        return cls(
            pad([row.prompt + row.answer for row in rows], device),
            prompt_end,
            kept_row,
            kept_at,
            1.0 / prompt_end[kept_row].double(),
            answer_row,
            answer_at,
            answer_id,
            answer_at == prompt_end[answer_row],
        )

    @property
    def targets(self) -> TargetTokens:
        """For ``contribution_scores``; the object's last token is in the rows too, which changes nothing
        before it."""
        return TargetTokens(self.batch, self.prompt_end, self.answer_row, self.answer_at, self.answer_id)
