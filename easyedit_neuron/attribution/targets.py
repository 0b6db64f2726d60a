"""The tokens that scores are about, and the positions that predict them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..arch import ModelView, take
from ..arch.tokens import Batch, pad, target_token_ids, token_ids
from ..errors import NeuronEditError


@dataclass(frozen=True)
class TargetTokens:
    """B prompts, each followed by its target (teacher forcing), and one entry for every target token.

    Attributes:
        batch: B rows, prompt and all but the last token of the target; right-padded.
        prompt_end: int64 ``[B]``, index of the prompt's last token.
        owner: int64 ``[R]``, number of the prompt an entry belongs to, ascending.
        position: int64 ``[R]``, index in that row of the token that predicts the entry's.
        token_ids: int64 ``[R]``, the target tokens.
    """

    batch: Batch
    prompt_end: Tensor
    owner: Tensor
    position: Tensor
    token_ids: Tensor

    def first(self) -> TargetTokens:
        """The first target token of every prompt alone; R = B."""
        kept = self.position == self.prompt_end[self.owner]
        return replace(
            self, owner=self.owner[kept], position=self.position[kept], token_ids=self.token_ids[kept]
        )

    def rows(self, start: int, stop: int) -> TargetTokens:
        """The prompts ``start:stop``, numbered from 0."""
        mine = (self.owner >= start) & (self.owner < stop)
        return TargetTokens(
            self.batch.rows(start, stop),
            self.prompt_end[start:stop],
            self.owner[mine] - start,
            self.position[mine],
            self.token_ids[mine],
        )

    def log_probabilities(
        self, view: ModelView, hidden: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the target tokens of some prompts, each behind those before it.

        Args:
            view: the model.
            hidden: ``[n, T, d_model]``, input of the final norm for the prompts ``rows``.
            rows: int64 ``[n]`` numbers of prompts; one may stand there several times.

        Returns:
            ``(row [E], entry [E], log p [E])``: where in ``rows`` and which of the R entries each of them is.
        """
        row, entry = (rows[:, None] == self.owner).nonzero(as_tuple=True)
        logs = view.logits(take(hidden, row, self.position[entry])).log_softmax(-1)
        return row, entry, logs.gather(1, self.token_ids[entry].to(logs.device)[:, None])[:, 0]


def target_tokens(tok, prompts: Sequence[str], targets: Sequence[str], device=None) -> TargetTokens:
    """Tokenise prompts and targets; a target is what ``tokens.target_token_ids`` makes of it.

    Args:
        tok: tokenizer, not changed.
        prompts: B prompts, subject filled in.
        targets: B targets, with or without their leading space.
        device: where the tensors go.

    Raises:
        NeuronEditError: no prompts, or another number of targets.
        RequestError: a prompt or a target without tokens.
    """
    if not prompts or len(prompts) != len(targets):
        raise NeuronEditError(
            f"expected as many targets as prompts and at least one, got {len(prompts)} and {len(targets)}"
        )
    starts, answers = (
        [token_ids(tok, text) for text in prompts],
        [target_token_ids(tok, text) for text in targets],
    )
    batch = pad([start + answer[:-1] for start, answer in zip(starts, answers)], device)
    entries = [
        (row, len(start) - 1 + i, token)
        for row, (start, answer) in enumerate(zip(starts, answers))
        for i, token in enumerate(answer)
    ]
    owner, position, ids = torch.tensor(entries, device=device).unbind(1)
    ends = torch.tensor([len(start) - 1 for start in starts], device=device)
    if int(ends.min()) < 0:
        raise NeuronEditError(f"prompt {int(ends.argmin())} has no tokens; give it at least one word")
    return TargetTokens(batch, ends, owner, position, ids)
