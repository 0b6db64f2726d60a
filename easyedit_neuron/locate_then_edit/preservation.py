"""Other facts of an edit's subject, which the search for z* preserves.

An edit is written at its subject's last token, where the model looks up all facts of the subject. A search
for z* with the new fact alone loses half of the others, including those of earlier edits. The objects of
earlier edits are known, so the loss can contain them (``keep_edits``). Of other facts only prompts are known;
for these the loss preserves the model's present answer (``keep_prompts``).
"""

import random
from typing import NamedTuple

from ..edits.request import EditRequest, Fact


class PreservedPrompt(NamedTuple):
    """Another prompt of an edit's subject.

    Attributes:
        template: with ``{}`` for the subject.
        target: the object that must follow; None: the model's present answer.
    """

    template: str
    target: str | None = None


def preserved_prompts(
    requests: list[EditRequest], edited: list[list[Fact]], hparams
) -> list[list[PreservedPrompt]]:
    """Other prompts of each request's subject that are preserved; never the edited prompt itself.

    With ``keep_edits``: all prompts of earlier edits of the subject, and of the batch's other requests about
    it, with their objects. Of a prompt that was edited more than once, the newest object counts.

    Then at most ``keep_prompts`` prompts without an object: first those of the subject's earlier edits, from
    the newest on, then others drawn by ``seed``. These come from ``keep_templates`` or, if that is unset,
    from the prompts of all edits so far and of this batch.

    Args:
        requests: the batch.
        edited: facts of earlier edits, oldest step first.
        hparams: ``PathHyperParams``.
    """
    facts = [fact for step in edited for fact in step]
    templates = hparams.keep_templates
    if templates is None:
        templates = [prompt for _, prompt, _ in facts] + [request.prompt for request in requests]
    pool = list(dict.fromkeys(templates))
    return [_of_request(request, facts, requests, pool, hparams) for request in requests]


def _of_request(
    request: EditRequest, facts: list[Fact], batch: list[EditRequest], pool: list[str], hparams
) -> list[PreservedPrompt]:
    if hparams.keep_edits:
        facts = facts + [other.fact for other in batch if other is not request]
    objects: dict[str, str] = {}
    for subject, prompt, target in reversed(facts):
        if subject == request.subject and prompt != request.prompt:
            objects.setdefault(prompt, target)
    if hparams.keep_edits:
        chosen = [PreservedPrompt(prompt, target) for prompt, target in objects.items()]
        draws = hparams.keep_prompts
    else:
        chosen = [PreservedPrompt(prompt) for prompt in objects][: hparams.keep_prompts]
        draws = hparams.keep_prompts - len(chosen)
    taken = {request.prompt, *(prompt.template for prompt in chosen)}
    rest = [prompt for prompt in pool if prompt not in taken]
    generator = random.Random(f"{hparams.seed} {request.subject} {request.prompt}")
    return chosen + [PreservedPrompt(prompt) for prompt in generator.sample(rest, min(len(rest), draws))]


def superseded_key_indices(
    requests: list[EditRequest], edited: list[list[Fact]], counts: list[int], whole_subject: bool
) -> list[int]:
    """Indices of the buffered keys that belong to earlier edits of these requests' facts.

    A key that is protected against its own successor would keep the first object of a fact that is edited
    back.

    Args:
        requests: the batch.
        edited: facts of earlier edits, per step.
        counts: number of keys that each step added; 0 for a step that is not protected.
        whole_subject: also of earlier edits of other facts of the same subject.
    """
    facts_now = {request.fact[:2] for request in requests}
    subjects = {request.subject for request in requests} if whole_subject else set()
    indices, start = [], 0
    for facts, count in zip(edited, counts):
        if count:
            indices += [
                start + i
                for i, (subject, prompt, _) in enumerate(facts)
                if subject in subjects or (subject, prompt) in facts_now
            ]
        start += count
    return indices
