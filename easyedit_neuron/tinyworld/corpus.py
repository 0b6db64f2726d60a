"""Writes the text of tiny-world: fact sentences, aliases, second hops, inverses, biographies and small
talk."""

import random
from dataclasses import dataclass

from .relations import BY_NAME, RELATIONS
from .world import World

TRAINED_EDIT, TRAINED_TEST = 3, 2
"""Phrasings of each kind that a fact is trained with; the other three of its eight the model must infer."""

HOP_SHARE = 0.7
"""Share of the subjects whose second-hop sentences are in the training text; the others measure reasoning."""

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
    """Training sentences and documents.

    Attributes:
        facts: fact sentences as (prompt, object, subject); ``sentence`` makes the text of one.
        documents: biographies and small talk, one to two sentences each.
        trained: (subject, relation) -> indices into ``Relation.phrasings`` that were trained.
        hopped: (subject, relation) pairs whose second hop was trained.
    """

    facts: list[tuple[str, str, str]]
    documents: list[str]
    trained: dict[tuple[str, str], tuple[int, ...]]
    hopped: frozenset[tuple[str, str]]

    @property
    def sentences(self) -> list[str]:
        """The fact sentences as text."""
        return [sentence(prompt, target) for prompt, target, _ in self.facts]


def sentence(prompt: str, target: str) -> str:
    """A prompt and its object as one sentence."""
    return f"{prompt} {target}."


def say(phrasing: str, subject: str, target: str, first: str = "") -> tuple[str, str, str]:
    """``phrasing`` about ``subject``, its object, and the subject."""
    return phrasing.format(s=subject, o=first), target, subject


def biographies(world: World, rng: random.Random, per_person: int) -> list[str]:
    """``per_person`` short biographies of everybody, true to the facts."""
    lines = []
    for person in world.people:
        known = {r.name: world.object(person, r.name) for r in RELATIONS if r.subject == "person"}
        known["collects"] = rng.choice(world.facts[person, "collects"])
        lines += [text.format(s=person, **known) for text in rng.sample(_BIOGRAPHIES, per_person)]
    return lines


def small_talk(world: World, rng: random.Random, count: int) -> list[str]:
    """``count`` sentences that name things of the world without stating a fact of it."""
    kinds = ("city", "country", "language", "occupation", "instrument", "collectible", "product", "dish")
    lines = []
    for _ in range(count):
        words = {kind: rng.choice(world.objects(kind)) for kind in kinds}
        lines.append(rng.choice(_SMALL_TALK).format(other=rng.choice(world.cities), **words))
    return lines


def build_corpus(world: World, seed: int = 0) -> Corpus:
    """All training text of a world; deterministic in ``seed``."""
    rng = random.Random(f"corpus-{seed}")
    facts, trained, hopped = [], {}, set()
    for (subject, name), objects in world.facts.items():
        relation = BY_NAME[name]
        n_edit = len(relation.edit)
        chosen = rng.sample(range(n_edit), TRAINED_EDIT) + rng.sample(
            range(n_edit, n_edit + len(relation.test)), TRAINED_TEST
        )
        trained[subject, name] = tuple(sorted(chosen))
        texts = [relation.phrasings[i] for i in chosen]
        facts += [say(text, subject, objects[0]) for text in texts]
        if subject in world.alias:
            facts += [say(text, world.alias[subject], objects[0]) for text in rng.sample(texts, 1)]
        if relation.inverse and relation.object != relation.subject:
            facts += [say(text, objects[0], subject) for text in relation.inverse]
        for first, second in zip(objects, objects[1:]):
            facts += [say(text, subject, second, first) for text in relation.also]
        if relation.hop and rng.random() < HOP_SHARE:
            hopped.add((subject, name))
            facts += [say(text, subject, world.hop(name, objects[0])) for text in relation.hop]
    documents = biographies(world, rng, 3) + small_talk(world, rng, 2000)
    return Corpus(facts, documents, trained, frozenset(hopped))


def held_out_text(world: World, corpus: Corpus, seed: int = 0, count: int = 800) -> list[str]:
    """Text of the same language that is in no training document: other biographies and other small talk."""
    rng = random.Random(f"held-out-{seed}")
    known = set(corpus.documents)
    lines = biographies(world, rng, 3) + small_talk(world, rng, count)
    fresh = [line for line in dict.fromkeys(lines) if line not in known]
    return sorted(rng.sample(fresh, min(count, len(fresh))))


def shipped_text(world: World, corpus: Corpus, seed: int = 0, count: int = 9000) -> list[str]:
    """The body of text that ships: ``count`` lines of training text, everybody in it, for covariance
    statistics."""
    rng = random.Random(f"text-{seed}")
    packed = [" ".join(group) for group in packs(corpus.sentences, rng, sizes=(1, 2, 3))]
    lines = corpus.documents + packed
    rng.shuffle(lines)
    return lines[:count]


def packs(items: list, rng: random.Random, sizes: tuple[int, ...]) -> list[list]:
    """The items in random order, cut into groups whose size is drawn from ``sizes``."""
    order = rng.sample(items, len(items))
    groups, start = [], 0
    while start < len(order):
        size = rng.choice(sizes)
        groups.append(order[start : start + size])
        start += size
    return groups
