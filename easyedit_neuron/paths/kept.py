"""Other facts of an edit's subject, which the search for z* keeps.

An edit is written at its subject's last token, where all facts of the subject are looked up: a z* that is searched for with the new
fact alone in view loses half of the others, those of earlier edits among them. Prompts about them are all that is needed to keep
them: what the model says there is what it shall go on saying.
"""

import random

from ..requests import EditRequest

Edited = list[list[tuple[str, str]]]
"""(subject, prompt template) of every request of every step of a sequence."""


def kept_templates(requests: list[EditRequest], edited: Edited, hparams) -> list[list[str]]:
    """Per request the templates of at most ``keep_prompts`` prompts of its subject.

    First those of earlier edits of the subject, the newest first; the rest is drawn, by ``seed``, from ``keep_templates`` or, where
    there are none, from the prompts of all edits so far, this batch's included. Never the edited prompt itself.
    """
    if not hparams.keep_prompts:
        return [[] for _ in requests]
    steps = [pair for step in edited for pair in step]
    known = hparams.keep_templates
    pool = dict.fromkeys(known if known is not None else [prompt for _, prompt in steps] + [r.prompt for r in requests])
    found = []
    for request in requests:
        earlier = [prompt for subject, prompt in reversed(steps) if subject == request.subject]
        first = [prompt for prompt in dict.fromkeys(earlier) if prompt != request.prompt][:hparams.keep_prompts]
        rest = [prompt for prompt in pool if prompt != request.prompt and prompt not in first]
        draw = random.Random(f"{hparams.seed} {request.subject} {request.prompt}")
        found.append(first + draw.sample(rest, min(len(rest), hparams.keep_prompts - len(first))))
    return found


def own_keys(requests: list[EditRequest], edited: Edited, counts: list[int]) -> list[int]:
    """Numbers of the keys in the buffers that are of earlier edits of these requests' subjects.

    Args:
        counts: keys that each step added; a step without keys was not protected.
    """
    subjects, found, start = {request.subject for request in requests}, [], 0
    for step, count in zip(edited, counts):
        found += [start + number for number, (subject, _) in enumerate(step) if count and subject in subjects]
        start += count
    return found
