"""Prompts with their targets as token rows, and the positions that predict the target tokens.

One set of rows serves attribution, the search for z*, and the training of FiNE's and KNE's vectors.
"""

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
        batch: B rows, prompt and target (without its last token unless asked for); right-padded.
        prompt_end: int64 ``[B]``, index of the prompt's last token.
        owner: int64 ``[R]``, number of the row an entry belongs to, ascending.
        position: int64 ``[R]``, index in that row of the token that predicts the entry's.
        token_ids: int64 ``[R]``, the target tokens.
    """

    batch: Batch
    prompt_end: Tensor
    owner: Tensor
    position: Tensor
    token_ids: Tensor

    @classmethod
    def of(
        cls, prompts: Sequence[list[int]], targets: Sequence[list[int]], device=None, whole: bool = False
    ) -> TargetTokens:
        """Rows of token ids: B prompts (none empty) and their targets; ``whole`` keeps a target's last
        token."""
        ends = [len(prompt) - 1 for prompt in prompts]
        rows = [prompt + (target if whole else target[:-1]) for prompt, target in zip(prompts, targets)]
        entries = [
            (row, end + i, token)
            for row, (end, target) in enumerate(zip(ends, targets))
            for i, token in enumerate(target)
        ]
        owner, position, ids = torch.tensor(entries, dtype=torch.long, device=device).view(-1, 3).unbind(1)
        return cls(pad(rows, device), torch.tensor(ends, device=device), owner, position, ids)

    def first(self) -> TargetTokens:
        """The first target token of every prompt alone; R = B."""
        first = self.is_first
        return replace(
            self, owner=self.owner[first], position=self.position[first], token_ids=self.token_ids[first]
        )

    @property
    def is_first(self) -> Tensor:
        """bool ``[R]``, whether an entry is its target's first token."""
        return self.position == self.prompt_end[self.owner]

    def rows(self, start: int, stop: int) -> TargetTokens:
        """The prompts ``start:stop``, numbered from 0."""
        inside = (self.owner >= start) & (self.owner < stop)
        return TargetTokens(
            self.batch.rows(start, stop),
            self.prompt_end[start:stop],
            self.owner[inside] - start,
            self.position[inside],
            self.token_ids[inside],
        )

    def earlier_positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """All positions of the prompts but their last ones, where a KL term keeps what the model says.

        Returns:
            (row ``[K]``, position ``[K]``, float64 share ``[K]``: one over the number of such positions of
            the row).
        """
        device, ends = self.prompt_end.device, self.prompt_end.tolist()
        places = [(row, at) for row, end in enumerate(ends) for at in range(end)]
        row, position = torch.tensor(places, dtype=torch.long, device=device).view(-1, 2).unbind(1)
        return row, position, 1.0 / self.prompt_end[row].double()

    def log_probabilities(
        self, view: ModelView, hidden: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log probabilities of the target tokens of some prompts, each behind those before it.

        Args:
            view: the model.
            hidden: ``[n, T, d_model]``, input of the final norm for the prompts ``rows``.
            rows: int64 ``[n]`` numbers of prompts; a number may stand there several times.

        Returns:
            ``(row [E], entry [E], log p [E])``: the place in ``rows`` and the entry (of R) of each.
        """
        row, entry = (rows[:, None] == self.owner).nonzero(as_tuple=True)
        logs = view.logits(take(hidden, row, self.position[entry])).log_softmax(-1)
        return row, entry, logs.gather(1, self.token_ids[entry].to(logs.device)[:, None])[:, 0]


def target_tokens(tok, prompts: Sequence[str], targets: Sequence[str], device=None) -> TargetTokens:
    """Tokenise prompts and targets; a target becomes what ``tokens.target_token_ids`` makes of it.

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
    prompt_ids = [token_ids(tok, text) for text in prompts]
    target_ids = [target_token_ids(tok, text) for text in targets]
    empty = next((number for number, ids in enumerate(prompt_ids) if not ids), None)
    if empty is not None:
        raise NeuronEditError(f"prompt {empty} has no tokens; give it at least one word")
    return TargetTokens.of(prompt_ids, target_ids, device)
