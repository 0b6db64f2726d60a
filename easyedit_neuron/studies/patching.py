"""What a target value can do at best: the model's answers with z* put in at the subject's last token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arch.capture import Capture
from ..arch.tokens import pad, target_token_ids, token_ids
from ..arch.view import ModelView
from ..edits.request import EditRequest, prepare

ROWS_PER_FORWARD = 64


@dataclass(frozen=True)
class SubjectPrompts:
    """Prompts with their requests' new objects appended, and where each subject ends.

    Attributes:
        rows: token ids of every prompt and its target.
        request: number of the request that a row belongs to.
        subject_end: position of the subject's last token in each row.
        target_start: position of the first target token in each row.
    """

    rows: list[list[int]]
    request: list[int]
    subject_end: list[int]
    target_start: list[int]

    @classmethod
    def of(cls, tok, requests: Sequence[EditRequest], prompts: Sequence[Sequence[str]]) -> "SubjectPrompts":
        """``prompts[i]`` are texts for request i; those without its subject are left out."""
        rows, numbers, ends, starts = [], [], [], []
        for number, (request, texts) in enumerate(zip(requests, prompts)):
            target = target_token_ids(tok, request.target_new)
            for text in texts:
                before, subject, _ = text.rpartition(request.subject)
                if not subject:
                    continue
                ids = token_ids(tok, text)
                ends.append(len(token_ids(tok, before + subject)) - 1)
                starts.append(len(ids))
                rows.append(ids + target)
                numbers.append(number)
        return cls(rows, numbers, ends, starts)


@dataclass(frozen=True)
class Probe:
    """Requests with what is asked about them, prepared once.

    Attributes:
        requests: n edits.
        rewrite, rephrase: the edited prompts, and their rephrasings.
        templates: per request the rephrasings that hold its subject, with ``{}`` for it.
        contexts: groups of context templates.
    """

    requests: list[EditRequest]
    rewrite: SubjectPrompts
    rephrase: SubjectPrompts
    contexts: list[list[str]]

    @classmethod
    def of(cls, tok, requests: Sequence[dict], contexts: list[list[str]]) -> "Probe":
        prepared = prepare(list(requests))
        texts = [_rephrasings(request) for request in requests]
        rewrite = SubjectPrompts.of(tok, prepared, [[request.text] for request in prepared])
        return cls(prepared, rewrite, SubjectPrompts.of(tok, prepared, texts), contexts)


def _rephrasings(request: dict) -> list[str]:
    texts = request.get("rephrase_prompt") or []
    return [texts] if isinstance(texts, str) else list(texts)


@torch.no_grad()
def patched_accuracy(view: ModelView, prompts: SubjectPrompts, layer: int, z: Tensor | None) -> list[float]:
    """Share of target tokens that are the most likely ones, by row, teacher-forced.

    Args:
        view: the model; nothing of it changes.
        prompts: the rows.
        layer: whose output at the subject's last token is replaced.
        z: [d_model, n], one column per request; None: nothing is replaced.
    """
    shares: list[float] = []
    for start in range(0, len(prompts.rows), ROWS_PER_FORWARD):
        numbers = range(start, min(start + ROWS_PER_FORWARD, len(prompts.rows)))
        batch = pad([prompts.rows[number] for number in numbers], view.input_device)
        edits = {}
        if z is not None:
            values = z[:, [prompts.request[number] for number in numbers]].T
            ends = torch.tensor([prompts.subject_end[number] for number in numbers])
            edits = {layer: lambda hidden, values=values, ends=ends: _put(hidden, ends, values)}
        with Capture(view, [], want=("final_hidden",), edit_layer_out=edits, stop_after="final") as seen:
            view.model(**batch.inputs, use_cache=False)
        for place, number in enumerate(numbers):
            row, first = prompts.rows[number], prompts.target_start[number]
            best = view.logits(seen.final_hidden[place, first - 1 : len(row) - 1]).argmax(-1).tolist()
            target = row[first:]
            shares.append(sum(a == b for a, b in zip(best, target)) / len(target))
    return shares


def _put(hidden: Tensor, positions: Tensor, values: Tensor) -> Tensor:
    hidden = hidden.clone()
    hidden[torch.arange(len(positions)), positions] = values.to(hidden)
    return hidden
