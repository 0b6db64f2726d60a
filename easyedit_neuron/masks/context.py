"""What masks are made for: an edit that is about to be made, its prompts and its objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..arch.tokens import subject_last_index
from ..arch.view import ModelView
from ..attribution import Readings, TargetTokens, target_tokens
from ..edits.request import EditRequest
from ..errors import RequestError

Prompts = Literal["contexts", "bare"]


@dataclass(frozen=True)
class Edit:
    """What is about to be edited.

    Attributes:
        view, tok: the unedited model and its tokenizer.
        requests: the batch.
        contexts: groups of context templates, the first of them ``["{}"]``.
        layers: edited layers.
        readings: ``attribution.Readings`` of every context of every request (request-major) at its last
            token, where a caller has run these prompts already; else None.
        report: what a kind of scores has to say about the edit, as plain JSON values; it ends up in
            ``EditRecord.info``.
    """

    view: ModelView
    tok: object
    requests: list[EditRequest]
    contexts: list[list[str]]
    layers: list[int]
    readings: Readings | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def prompts(self, which: Prompts) -> list[tuple[str, EditRequest]]:
        """(template, request), request-major: every context in front of the prompt, or the ``bare``
        prompts."""
        flat = ["{}"] if which == "bare" else [context for group in self.contexts for context in group]
        # a context is applied by replacement, not by format: the prompt itself holds the subject's '{}'
        return [
            (context.replace("{}", request.prompt), request) for request in self.requests for context in flat
        ]


def objects(prompts: list[tuple[str, EditRequest]], which: str) -> list[str]:
    """The new or the old object of every prompt's request.

    Raises:
        RequestError: ``ground_truth`` for a request without one.
    """
    texts = [getattr(request, which) for _, request in prompts]
    for text, (_, request) in zip(texts, prompts):
        if text is None:
            raise RequestError(f"request {request.index}: attribution_target {which!r} needs field {which!r}")
    return texts


def object_tokens(edit: Edit, prompts: list[tuple[str, EditRequest]], which: str) -> TargetTokens:
    """The prompts, followed by their new or old objects; errors as ``objects``."""
    texts = [template.format(request.subject) for template, request in prompts]
    return target_tokens(edit.tok, texts, objects(prompts, which), edit.view.input_device)


def subject_ends(edit: Edit, prompts: list[tuple[str, EditRequest]]) -> Tensor:
    """int64 ``[B]``, index of the subject's last token in every prompt."""
    return torch.tensor(
        [subject_last_index(edit.tok, template, request.subject) for template, request in prompts]
    )
