"""Recall of facts: what a model knows, by kind of phrasing."""

import random

from ..evaluation.batched import predict_targets
from .corpus import Corpus
from .relations import BY_NAME
from .world import World

KINDS = ("trained", "untrained", "alias", "hop_trained", "hop_untrained", "also", "inverse")


def recall(model, tok, pairs: list[tuple[str, str]]) -> float:
    """Share of (prompt, object) pairs whose whole object is the model's greedy continuation."""
    prompts, targets = zip(*pairs)
    predictions = predict_targets(model, tok, prompts, targets, batch_size=512)
    return sum(prediction.predicted == prediction.target for prediction in predictions) / len(predictions)


def recall_prompts(world: World, corpus: Corpus, sample: int | None = None) -> dict[str, list]:
    """(prompt, object) pairs by the ``KINDS`` of phrasing, at most ``sample`` of each."""
    pairs: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for (subject, name), objects in world.facts.items():
        relation = BY_NAME[name]
        for index, phrasing in enumerate(relation.phrasings):
            kind = "trained" if index in corpus.trained[subject, name] else "untrained"
            pairs[kind].append((phrasing.format(s=subject), objects[0]))
        if subject in world.alias:
            pairs["alias"].append((relation.edit[0].format(s=world.alias[subject]), objects[0]))
        for phrasing in relation.hop:
            kind = "hop_trained" if (subject, name) in corpus.hopped else "hop_untrained"
            pairs[kind].append((phrasing.format(s=subject), world.hop(name, objects[0])))
        for first, second in zip(objects, objects[1:]):
            pairs["also"].append((relation.also[0].format(s=subject, o=first), second))
        if relation.inverse:
            pairs["inverse"].append((relation.inverse[0].format(s=objects[0]), subject))
    rng = random.Random(0)
    if sample:
        pairs = {kind: rng.sample(texts, min(sample, len(texts))) for kind, texts in pairs.items()}
    return pairs


def measure_recall(model, tok, world: World, corpus: Corpus, sample: int | None = None) -> dict[str, float]:
    prompts = recall_prompts(world, corpus, sample)
    return {kind: recall(model, tok, pairs) for kind, pairs in prompts.items()}
