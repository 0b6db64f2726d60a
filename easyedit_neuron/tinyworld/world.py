"""Draw the facts of tiny-world from one seed."""

import random
from dataclasses import dataclass, field

from . import names
from .relations import BY_NAME, RELATIONS, SECOND_HOP

FIRST_ENDINGS = ("a", "o", "i", "e", "us", "is")
LAST_ENDINGS = ("er", "sen", "ov", "ley", "man", "ski")
CITY_ENDINGS = ("burg", "ton", "ville", "stad", "mouth", "grad")
COUNTRY_ENDINGS = ("ia", "land", "istan")
ORGANISATION_NOUNS = ("Works", "Mills", "Group", "Brothers", "Labs", "Union")


@dataclass
class World:
    """Entities, in the order they were drawn, and facts.

    ``alias``: subject -> second name ("A. Berger" for people, the short name for organisations). ``facts``:
    (subject, relation) -> objects, two for ``collects``, else one. ``protected``: people and organisations
    that are never edited.
    """

    seed: int
    people: list[str]
    cities: list[str]
    countries: list[str]
    organisations: list[str]
    languages: list[str]
    alias: dict[str, str]
    facts: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()

    def objects(self, kind: str) -> list[str]:
        """All entities of a kind, e.g. the candidates for a counterfactual target."""
        entities = {"city": self.cities, "country": self.countries, "language": self.languages}
        entities |= {"organisation": self.organisations, "person": self.people}
        return entities[kind] if kind in entities else list(names.NOUNS[kind])

    def object(self, subject: str, relation: str) -> str:
        """The (first) object of a fact."""
        return self.facts[subject, relation][0]

    def hop(self, relation: str, target: str) -> str | None:
        """The second hop from the object of a relation: a city's country, an organisation's city."""
        second = SECOND_HOP.get(BY_NAME[relation].object)
        return self.object(target, second) if second else None


def _people(rng: random.Random, count: int, taken: set[str]) -> tuple[list[str], dict[str, str]]:
    """Composed names, unique as "First Last" and as "F. Last" (the alias)."""
    firsts = names.invent(rng, 64, FIRST_ENDINGS, taken)
    lasts = names.invent(rng, max(40, count // 8), LAST_ENDINGS, taken)
    full_names: dict[str, str] = {}
    while len(full_names) < count:
        first, last = rng.choice(firsts), rng.choice(lasts)
        full_names.setdefault(f"{first[0]}. {last}", f"{first} {last}")
    return list(full_names.values()), {full: short for short, full in full_names.items()}


def build_world(seed: int = 0, people: int = 600, protected: int = 120) -> World:
    """Draw a world of six facts a person, in which every object of a kind is used about equally often.

    At least 300 people, ``protected`` of which are never edited, nor a quarter of the organisations.
    """
    rng = random.Random(seed)
    taken: set[str] = set()
    # The order of the draws decides what a seed gives.
    countries = names.invent(rng, 12, COUNTRY_ENDINGS, taken)
    cities = names.invent(rng, 60, CITY_ENDINGS, taken)
    languages = names.invent(rng, 16, ("ish", "ese"), taken)
    short = names.invent(rng, 48, ("a", "o", "ex", "on"), taken)
    organisations = [f"{name} {rng.choice(ORGANISATION_NOUNS)}" for name in short]
    persons, alias = _people(rng, people, taken)
    alias.update(zip(organisations, short))
    world = World(seed, persons, cities, countries, organisations, languages, alias)
    # Relations whose objects are independent of each other: every object equally often.
    for relation in RELATIONS:
        if relation.name in ("married_to", "collects", "founded_by"):
            continue
        subjects, pool = world.objects(relation.subject), world.objects(relation.object)
        objects = [pool[i % len(pool)] for i in range(len(subjects))]
        rng.shuffle(objects)
        for subject, target in zip(subjects, objects):
            world.facts[subject, relation.name] = (target,)
    for subject in persons:
        world.facts[subject, "collects"] = tuple(rng.sample(names.COLLECTIBLES, 2))
    # Marriage is symmetric, and everybody founds at most one organisation.
    spouses = rng.sample(persons, len(persons) - len(persons) % 2)
    for first, second in zip(spouses[::2], spouses[1::2]):
        world.facts[first, "married_to"], world.facts[second, "married_to"] = (second,), (first,)
    for organisation, founder in zip(organisations, rng.sample(persons, len(organisations))):
        world.facts[organisation, "founded_by"] = (founder,)
    protected_people, quarter = rng.sample(persons, protected), len(organisations) // 4
    world.protected = frozenset(protected_people + rng.sample(organisations, quarter))
    return world
