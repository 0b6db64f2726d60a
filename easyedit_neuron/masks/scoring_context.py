"""The batch that scores are computed from, on the model before the edit."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..arch.tokens import subject_last_index
from ..arch.view import ModelView
from ..arch.widen import own_width
from ..attribution import Readings, TargetTokens, target_tokens
from ..edits.request import EditRequest
from ..errors import RequestError
from ..hyperparameters.score_options import Prompts


@dataclass(frozen=True)
class ScoringContext:
    """The batch that is about to be edited.

    Attributes:
        view, tok: model and tokenizer.
        requests: the batch.
        contexts: groups of context templates, the first of them ``["{}"]``.
        layers: edited layers.
        readings: ``attribution.Readings`` of every context of every request (request-major) at its last
            token, or None where these prompts have not been run.
        report: filled by the scores with plain JSON values, which go into ``EditRecord.info``.
    """

    view: ModelView
    tok: Any
    requests: list[EditRequest]
    contexts: list[list[str]]
    layers: list[int]
    readings: Readings | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def own(self, scores: Any) -> Any:
        """Scores [..., neurons] without those of neurons that edits have added, which no mask chooses; scores
        that are no tensor (a list of ``CausalScores``) are without them already."""
        return scores[..., : own_width(self.view)] if isinstance(scores, Tensor) else scores

    def prompts(self, templates: Prompts) -> list[tuple[str, EditRequest]]:
        """(template, request), request-major: the prompt behind every context, or only the ``bare`` one."""
        contexts = ["{}"] if templates == "bare" else sum(self.contexts, [])
        # Replaced, not formatted: the prompt itself holds the subject's '{}'.
        return [
            (context.replace("{}", request.prompt), request)
            for request in self.requests
            for context in contexts
        ]

    def object_tokens(self, prompts: list[tuple[str, EditRequest]], target: str) -> TargetTokens:
        """The prompts, each followed by its request's new or old object; errors as ``objects``."""
        texts = [template.format(request.subject) for template, request in prompts]
        return target_tokens(self.tok, texts, objects(prompts, target), self.view.input_device)

    def subject_ends(self, prompts: list[tuple[str, EditRequest]]) -> Tensor:
        """int64 [B], index of the subject's last token in every prompt."""
        return torch.tensor(
            [subject_last_index(self.tok, template, request.subject) for template, request in prompts]
        )


def objects(prompts: list[tuple[str, EditRequest]], target: str) -> list[str]:
    """The new or the old object of every prompt's request.

    Raises:
        RequestError: ``ground_truth`` for a request without one.
    """
    texts = [getattr(request, target) for _, request in prompts]
    for text, (_, request) in zip(texts, prompts):
        if text is None:
            raise RequestError(
                f"request {request.index}: attribution_target {target!r} needs field {target!r}"
            )
    return texts
