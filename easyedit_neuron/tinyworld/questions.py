"""Multiple-choice questions about what no edit changes: the general ability of a model of tiny-world."""

import random

from .corpus import Corpus
from .records import retained_facts
from .relations import BY_NAME
from .world import World

CHOICES = 4


def questions(world: World, corpus: Corpus, count: int, seed: int = 0) -> list[dict]:
    """Questions as ``{"kind", "subject", "relation", "prompt", "choices", "answer"}``, ``answer`` a position
    in ``choices``.

    ``kind`` "fact": the ``count`` facts of :func:`.records.retained_facts`; "hop": second hops that the model
    was trained with, in every phrasing, and of which no edit changes the truth: neither the subject nor what
        lies between is ever edited.

    The wrong choices are other objects that the relation (of the second hop: the last one) has in this world,
    drawn from the seed, never another true one. The order is drawn too, so that the first n questions of a
    kind are a fair sample.
    """
    rng = random.Random(f"questions-{seed}")
    found = []
    for fact in retained_facts(world, corpus, count, seed):
        subject, name = fact["subject"], fact["relation"]
        pool = _objects(world, name)
        found.append(
            _question(
                "fact",
                fact["prompt"],
                subject,
                name,
                fact["ground_truth"],
                [other for other in pool if other not in (*world.facts[subject, name], subject)],
                rng,
            )
        )
    hops = [
        (subject, name)
        for subject, name in sorted(corpus.hopped)
        if subject in world.protected and _fixed(world, subject, name)
    ]
    asked = [(subject, name, phrasing) for subject, name in hops for phrasing in BY_NAME[name].hop]
    rng.shuffle(asked)
    for subject, name, phrasing in asked:
        truth = world.hop(name, world.object(subject, name))
        pool = _objects(world, {"city": "located_in", "organisation": "based_in"}[BY_NAME[name].object])
        found.append(
            _question(
                "hop",
                phrasing.format(s=subject),
                subject,
                name,
                truth,
                [other for other in pool if other != truth],
                rng,
            )
        )
    return found


def _fixed(world: World, subject: str, name: str) -> bool:
    """What lies between is never edited: no city is, and not the protected organisations."""
    return BY_NAME[name].object == "city" or world.object(subject, name) in world.protected


def _objects(world: World, name: str) -> list[str]:
    return sorted({objects[0] for (_, relation), objects in world.facts.items() if relation == name})


def _question(
    kind: str, prompt: str, subject: str, name: str, truth: str, wrong: list[str], rng: random.Random
) -> dict:
    choices = [truth, *rng.sample(wrong, CHOICES - 1)]
    rng.shuffle(choices)
    return {
        "kind": kind,
        "subject": subject,
        "relation": name,
        "prompt": prompt,
        "choices": choices,
        "answer": choices.index(truth),
    }
