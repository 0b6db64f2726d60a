"""What the model knows: recall of facts by kind of phrasing."""

import random

from .corpus import Corpus
from .relations import BY_NAME
from .training import recall
from .world import World


def recall_prompts(
    world: World, corpus: Corpus, sample: int | None = None, seed: int = 0
) -> dict[str, list[tuple]]:
    """(prompt, object) pairs by kind: ``trained`` and ``untrained`` phrasings, ``alias``, ``hop_trained``,
    ``hop_untrained``, ``also`` (second object), ``inverse``. At most ``sample`` of each."""
    kinds: dict[str, list[tuple]] = {
        k: [] for k in ("trained", "untrained", "alias", "hop_trained", "hop_untrained", "also", "inverse")
    }
    for (subject, name), objects in world.facts.items():
        relation = BY_NAME[name]
        for index, phrasing in enumerate(relation.phrasings):
            kind = "trained" if index in corpus.trained[subject, name] else "untrained"
            kinds[kind].append((phrasing.format(s=subject), objects[0]))
        if subject in world.alias:
            kinds["alias"].append((relation.edit[0].format(s=world.alias[subject]), objects[0]))
        for phrasing in relation.hop:
            kind = "hop_trained" if (subject, name) in corpus.hopped else "hop_untrained"
            kinds[kind].append((phrasing.format(s=subject), world.hop(name, objects[0])))
        for first, second in zip(objects, objects[1:]):
            kinds["also"].append((relation.also[0].format(s=subject, o=first), second))
        if relation.inverse:
            kinds["inverse"].append((relation.inverse[0].format(s=objects[0]), subject))
    rng = random.Random(seed)
    if sample:
        kinds = {k: rng.sample(v, min(sample, len(v))) for k, v in kinds.items()}
    return kinds


def measure_recall(model, tok, world: World, corpus: Corpus, sample: int | None = None) -> dict[str, float]:
    """Recall by kind, each in [0, 1]."""
    return {
        kind: recall(model, tok, *map(list, zip(*pairs)))
        for kind, pairs in recall_prompts(world, corpus, sample).items()
    }
