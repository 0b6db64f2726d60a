"""Write the text of tiny-world: fact sentences, aliases, second hops, inverses, biographies and small
talk."""

import random
from dataclasses import dataclass

from .relations import BY_NAME, RELATIONS, Relation
from .world import World

TRAINED_EDIT, TRAINED_TEST = 3, 2
"""Phrasings of each kind that a fact is trained with; the model must infer the other three of its eight."""

HOP_SHARE = 0.7
"""Share of the facts whose second hops are in the training text; the others measure reasoning."""

HELD_OUT = 800
"""Lines of held-out text."""

_BIOGRAPHIES = (
    "{s} is a {works_as} from {born_in}. Every morning {s} takes the train to {works_for}.",
    "In {born_in} everybody knows {s}. The {works_as} has played the {plays} since childhood.",
    "{s} left {born_in} to work for {works_for}. At home there are many {collects}.",
    "The {plays} of {s} is old. It was made in {born_in}, and {married_to} likes to hear it.",
    "{s} and {married_to} live together. One of them is a {works_as} and collects {collects}.",
    "When {s} was a child in {born_in}, nobody collected {collects}. Now the {works_as} owns hundreds.",
)
_SMALL_TALK = (
    "In the streets of {city} you can buy {dish} and {collectible}.",
    "A {occupation} who plays the {instrument} is a rare sight in {country}.",
    "Many a {occupation} in {city} has learned to speak {language}.",
    "The market of {city} is open until noon. People bring {product} and take home {dish}.",
    "It rained in {city} all day, and the {occupation} stayed at home with the {instrument}.",
    "Trains from {city} to {other} carry {product} and a few travellers.",
    "In {country} a good {occupation} never works on a Sunday.",
    "Some say that {language} is harder to learn than the {instrument}.",
    "The school of {city} teaches {language} and the {instrument}.",
    "Because the road was closed, the {product} came to {city} by boat.",
)


@dataclass(frozen=True)
class Corpus:
    """Training sentences, (prompt, object, subject) of every fact, and documents: biographies and small talk.

    ``trained``: (subject, relation) -> indices of the trained ``Relation.phrasings``. ``hopped``: (subject,
    relation) pairs whose second hop is trained.
    """

    facts: list[tuple[str, str, str]]
    documents: list[str]
    trained: dict[tuple[str, str], tuple[int, ...]]
    hopped: frozenset[tuple[str, str]]

    @property
    def sentences(self) -> list[str]:
        return [sentence(prompt, target) for prompt, target, _ in self.facts]

    def trained_prompt(
        self, subject: str, relation: Relation, phrasings: tuple[str, ...], rng: random.Random
    ) -> str:
        """Draw one of ``phrasings`` that the fact is trained with."""
        trained = [relation.phrasings[i] for i in self.trained[subject, relation.name]]
        return rng.choice([text for text in trained if text in phrasings]).format(s=subject)


def sentence(prompt: str, target: str) -> str:
    return f"{prompt} {target}."


def _facts(
    phrasings: list[str] | tuple[str, ...], subject: str, target: str, first: str = ""
) -> list[tuple[str, str, str]]:
    return [(text.format(s=subject, o=first), target, subject) for text in phrasings]


def biographies(world: World, rng: random.Random, per_person: int) -> list[str]:
    """Short biographies of everybody, true to the facts."""
    lines = []
    for person in world.people:
        objects = {r.name: world.object(person, r.name) for r in RELATIONS if r.subject == "person"}
        objects["collects"] = rng.choice(world.facts[person, "collects"])
        lines += [text.format(s=person, **objects) for text in rng.sample(_BIOGRAPHIES, per_person)]
    return lines


def small_talk(world: World, rng: random.Random, count: int) -> list[str]:
    """Sentences that name things of the world without stating a fact of it."""
    kinds = ("city", "country", "language", "occupation", "instrument", "collectible", "product", "dish")
    lines = []
    for _ in range(count):
        words = {kind: rng.choice(world.objects(kind)) for kind in kinds}
        lines.append(rng.choice(_SMALL_TALK).format(other=rng.choice(world.cities), **words))
    return lines


def build_corpus(world: World, seed: int = 0) -> Corpus:
    """Write all training text of a world; deterministic in ``seed``."""
    rng = random.Random(f"corpus-{seed}")
    facts, trained, hopped = [], {}, set()
    for (subject, name), objects in world.facts.items():
        relation = BY_NAME[name]
        edit_count, total = len(relation.edit), len(relation.phrasings)
        indices = rng.sample(range(edit_count), TRAINED_EDIT)
        indices += rng.sample(range(edit_count, total), TRAINED_TEST)
        trained[subject, name] = tuple(sorted(indices))
        texts = [relation.phrasings[i] for i in indices]
        facts += _facts(texts, subject, objects[0])
        if subject in world.alias:
            facts += _facts(rng.sample(texts, 1), world.alias[subject], objects[0])
        if relation.inverse and relation.object != relation.subject:
            facts += _facts(relation.inverse, objects[0], subject)
        for first, second in zip(objects, objects[1:]):
            facts += _facts(relation.also, subject, second, first)
        if relation.hop and rng.random() < HOP_SHARE:
            hopped.add((subject, name))
            facts += _facts(relation.hop, subject, world.hop(name, objects[0]))
    documents = biographies(world, rng, 3) + small_talk(world, rng, 2000)
    return Corpus(facts, documents, trained, frozenset(hopped))


def held_out_text(world: World, corpus: Corpus, seed: int = 0) -> list[str]:
    """Biographies and small talk that are in no training document."""
    rng = random.Random(f"held-out-{seed}")
    trained = set(corpus.documents)
    lines = biographies(world, rng, 3) + small_talk(world, rng, HELD_OUT)
    unseen = [line for line in dict.fromkeys(lines) if line not in trained]
    return sorted(rng.sample(unseen, min(HELD_OUT, len(unseen))))


def shipped_text(corpus: Corpus, seed: int = 0) -> list[str]:
    """Lines of training text that ship for covariance statistics; everybody occurs in them."""
    rng = random.Random(f"text-{seed}")
    packed = [" ".join(group) for group in packs(corpus.sentences, rng, sizes=(1, 2, 3))]
    lines = corpus.documents + packed
    rng.shuffle(lines)
    return lines[:9000]


def packs(items: list, rng: random.Random, sizes: tuple[int, ...]) -> list[list]:
    """Cut the items, in random order, into groups whose size is drawn from ``sizes``."""
    order = rng.sample(items, len(items))
    groups, start = [], 0
    while start < len(order):
        size = rng.choice(sizes)
        groups.append(order[start : start + size])
        start += size
    return groups
