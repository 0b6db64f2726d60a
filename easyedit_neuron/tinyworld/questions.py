"""Multiple-choice questions about what no edit changes: the general ability of a model of tiny-world."""

import random

from .corpus import Corpus
from .records import retained_facts
from .relations import BY_NAME, SECOND_HOP
from .world import World

CHOICES = 4


def questions(world: World, corpus: Corpus, count: int, seed: int = 0) -> list[dict]:
    """Questions as ``{"kind", "subject", "relation", "prompt", "choices", "answer": position in choices}``.

    ``kind`` "fact": the ``count`` facts of ``records.retained_facts``. "hop": every phrasing of the trained
    second hops whose subject and first object are never edited. The wrong choices are other objects of the
    relation (of the second hop: the last one), never a true one. The first n questions of a kind are a fair
    sample.
    """
    rng = random.Random(f"questions-{seed}")
    result = []
    for fact in retained_facts(world, corpus, count, seed):
        subject, name = fact["subject"], fact["relation"]
        question = {"kind": "fact", "subject": subject, "relation": name, "prompt": fact["prompt"]}
        excluded = (*world.facts[subject, name], subject)
        wrong = [target for target in _objects(world, name) if target not in excluded]
        result.append(_with_choices(question, fact["ground_truth"], wrong, rng))
    hops = [
        (subject, name, phrasing)
        for subject, name in sorted(corpus.hopped)
        if subject in world.protected and _first_object_is_fixed(world, subject, name)
        for phrasing in BY_NAME[name].hop
    ]
    rng.shuffle(hops)
    for subject, name, phrasing in hops:
        prompt = phrasing.format(s=subject)
        question = {"kind": "hop", "subject": subject, "relation": name, "prompt": prompt}
        truth = world.hop(name, world.object(subject, name))
        wrong = [target for target in _objects(world, SECOND_HOP[BY_NAME[name].object]) if target != truth]
        result.append(_with_choices(question, truth, wrong, rng))
    return result


def _first_object_is_fixed(world: World, subject: str, name: str) -> bool:
    """No city is ever edited, and no protected organisation."""
    return BY_NAME[name].object == "city" or world.object(subject, name) in world.protected


def _objects(world: World, name: str) -> list[str]:
    return sorted({objects[0] for (_, relation), objects in world.facts.items() if relation == name})


def _with_choices(question: dict, truth: str, wrong: list[str], rng: random.Random) -> dict:
    choices = [truth, *rng.sample(wrong, CHOICES - 1)]
    rng.shuffle(choices)
    return {**question, "choices": choices, "answer": choices.index(truth)}
