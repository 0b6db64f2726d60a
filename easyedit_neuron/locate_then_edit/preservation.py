"""Other facts of an edit's subject, which the search for z* keeps.

An edit is written at its subject's last token, where all facts of the subject are looked up: a z* that is
searched for with the new fact alone in view loses half of the others, those of earlier edits among them.
Earlier edits are known with their objects, so the search can ask for them again (``keep_edits``); of other
facts prompts are known, and what the model says there is what it shall go on saying (``keep_prompts``).
"""

import random
from typing import NamedTuple

from ..edits.request import EditRequest, Fact


class Kept(NamedTuple):
    """Another prompt of an edit's subject.

    Attributes:
        template: with ``{}`` for the subject.
        target: the object that is wanted behind it; None: whatever the model says now.
    """

    template: str
    target: str | None = None


def keeps(hparams) -> bool:
    """Whether anything is kept; keys of the subject's earlier edits then give way."""
    return bool(hparams.keep_edits or hparams.keep_prompts)


def kept_prompts(requests: list[EditRequest], edited: list[list[Fact]], hparams) -> list[list[Kept]]:
    """Per request the other prompts of its subject that are kept. Never the edited prompt itself.

    With ``keep_edits`` all prompts of earlier edits of the subject and of the batch's other requests about
    it, with their objects; where a prompt was edited more than once, the newest object. Then at most
    ``keep_prompts`` prompts without an object: those of the subject's earlier edits, the newest first, unless
    they are there already, and others, drawn by ``seed`` from ``keep_templates`` or, where there are none,
    from the prompts of all edits so far, this batch's included.

    Args:
        requests: the batch.
        edited: what earlier edits said, the oldest step first.
    """
    if not keeps(hparams):
        return [[] for _ in requests]
    facts = [fact for step in edited for fact in step]
    known = hparams.keep_templates
    pool = dict.fromkeys(
        known if known is not None else [prompt for _, prompt, _ in facts] + [r.prompt for r in requests]
    )
    return [_of_one(request, facts, requests, pool, hparams) for request in requests]


def _of_one(
    request: EditRequest, facts: list[Fact], requests: list[EditRequest], pool: dict[str, None], hparams
) -> list[Kept]:
    beside = [other.fact for other in requests if other is not request] if hparams.keep_edits else []
    own: dict[str, str] = {}
    for subject, prompt, target in reversed([*facts, *beside]):
        if subject == request.subject and prompt != request.prompt:
            own.setdefault(prompt, target)
    if hparams.keep_edits:
        first, more = [Kept(prompt, target) for prompt, target in own.items()], hparams.keep_prompts
    else:
        first = [Kept(prompt) for prompt in own][: hparams.keep_prompts]
        more = hparams.keep_prompts - len(first)
    left_out = {request.prompt, *(one.template for one in first)}
    rest = [prompt for prompt in pool if prompt not in left_out]
    draw = random.Random(f"{hparams.seed} {request.subject} {request.prompt}")
    return first + [Kept(prompt) for prompt in draw.sample(rest, min(len(rest), more))]


def own_keys(requests: list[EditRequest], edited: list[list[Fact]], counts: list[int]) -> list[int]:
    """Numbers of the keys in the buffers that are of earlier edits of these requests' subjects.

    Args:
        counts: keys that each step added; a step without keys was not protected.
    """
    subjects, found, start = {request.subject for request in requests}, [], 0
    for step, count in zip(edited, counts):
        found += [
            start + number for number, (subject, _, _) in enumerate(step) if count and subject in subjects
        ]
        start += count
    return found
