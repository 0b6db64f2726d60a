"""What a model says to an edit's prompts, in words."""

from collections.abc import Callable, Sequence
from typing import Any

from ..evaluation.answers import answers
from ..evaluation.sections import Section, sections

Answers = dict[str, dict[str, str]]
"""``{"rewrite", "rephrase", "neighbor": {"prompt", "text"}}``; without the kinds that a request lacks"""


def read_answers(
    model,
    tok,
    requests: list[dict[str, Any]],
    batch_size: int,
    asked_as: Callable[[Sequence[str]], list[str]] = list,
) -> list[Answers]:
    """Greedy answers to the prompts of each request; see ``questions``. The model is asked them as
    ``asked_as`` says."""
    asked = [questions(request) for request in requests]
    prompts = [prompt for by_kind in asked for prompt in by_kind.values()]
    texts = iter(answers(model, tok, asked_as(prompts), batch_size=batch_size))
    return [
        {kind: {"prompt": prompt, "text": next(texts)} for kind, prompt in by_kind.items()}
        for by_kind in asked
    ]


def questions(request: dict[str, Any]) -> dict[str, str]:
    """The prompts that show an edit to a reader, by kind: the edited one, its first rephrasing, a neighbor.

    The neighbor is the first prompt of the locality kind "neighborhood", else of the first kind.
    """
    by_name: dict[str, list[Section]] = {}
    for section in sections([request]):
        by_name.setdefault(section.name, []).append(section)
    local = sorted(by_name.get("locality", []), key=lambda section: section.kind.lower() != "neighborhood")
    shown = {"rewrite": by_name["rewrite"], "rephrase": by_name.get("rephrase", []), "neighbor": local}
    return {kind: parts[0].prompts[0] for kind, parts in shown.items() if parts and parts[0].prompts}


def compare_answers(before: Answers, final: Answers) -> dict[str, dict[str, str]]:
    """By kind the ``prompt``, and what was said ``before`` the first edit and at the end, ``final``."""
    return {
        kind: {"prompt": entry["prompt"], "before": entry["text"], "final": final[kind]["text"]}
        for kind, entry in before.items()
    }
