"""Draws the facts of tiny-world from one seed."""

import random
from dataclasses import dataclass, field

from . import names
from .relations import BY_NAME, RELATIONS

FIRST_ENDINGS = ("a", "o", "i", "e", "us", "is")
LAST_ENDINGS = ("er", "sen", "ov", "ley", "man", "ski")
CITY_ENDINGS = ("burg", "ton", "ville", "stad", "mouth", "grad")
COUNTRY_ENDINGS = ("ia", "land", "istan")
ORGANISATION_NOUNS = ("Works", "Mills", "Group", "Brothers", "Labs", "Union")


@dataclass
class World:
    """Entities and facts.

    Attributes:
        people, cities, countries, organisations, languages: names, in the order they were drawn.
        alias: subject -> second name ("A. Berger" for people, the short name for organisations).
        facts: (subject, relation name) -> objects; one object, two for the one-to-many relation ``collects``.
        protected: people and organisations that are never edited; their facts measure what an edit does to
            others.
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
        """All objects of a kind, e.g. the candidates for a counterfactual target."""
        return {
            "city": self.cities,
            "country": self.countries,
            "organisation": self.organisations,
            "person": self.people,
            "language": self.languages,
            "occupation": list(names.OCCUPATIONS),
            "instrument": list(names.INSTRUMENTS),
            "collectible": list(names.COLLECTIBLES),
            "product": list(names.PRODUCTS),
            "dish": list(names.DISHES),
        }[kind]

    def subjects(self, kind: str) -> list[str]:
        """All subjects of a kind (``person``, ``organisation``, ``city``)."""
        return self.objects(kind)

    def object(self, subject: str, relation: str) -> str:
        """The (first) object of a fact."""
        return self.facts[subject, relation][0]

    def hop(self, relation: str, target: str) -> str | None:
        """Second hop from an object: the country of a city, the city of an organisation."""
        kind = BY_NAME[relation].object
        following = {"city": "located_in", "organisation": "based_in"}.get(kind)
        return self.object(target, following) if following else None


def _people(rng: random.Random, count: int, taken: set[str]) -> tuple[list[str], dict[str, str]]:
    """Composed names, unique as "First Last" and as "F. Last" (the alias)."""
    firsts = names.invent(rng, 64, FIRST_ENDINGS, taken, syllables=1)
    lasts = names.invent(rng, max(40, count // 8), LAST_ENDINGS, taken, syllables=1)
    people, alias, used = [], {}, set()
    while len(people) < count:
        first, last = rng.choice(firsts), rng.choice(lasts)
        short = f"{first[0]}. {last}"
        if short not in used:
            used.add(short)
            people.append(f"{first} {last}")
            alias[people[-1]] = short
    return people, alias


def build_world(seed: int = 0, people: int = 600, protected: int = 120) -> World:
    """The world of ``seed``.

    Args:
        seed: everything random comes from it.
        people: number of people, at least 300.
        protected: number of them that are never edited; a quarter of the organisations is protected too.

    Returns:
        World with six facts a person, balanced: every object of a class is used about equally often.
    """
    rng = random.Random(seed)
    taken: set[str] = set()
    countries = names.invent(rng, 12, COUNTRY_ENDINGS, taken)
    cities = names.invent(rng, 60, CITY_ENDINGS, taken)
    languages = names.invent(rng, 16, ("ish", "ese"), taken)
    short = names.invent(rng, 48, ("a", "o", "ex", "on"), taken)
    organisations = [f"{name} {rng.choice(ORGANISATION_NOUNS)}" for name in short]
    persons, alias = _people(rng, people, taken)
    alias.update(zip(organisations, short))
    world = World(seed, persons, cities, countries, organisations, languages, alias)

    def balanced(kind: str, count: int) -> list[str]:
        pool = world.objects(kind)
        drawn = [pool[i % len(pool)] for i in range(count)]
        rng.shuffle(drawn)
        return drawn

    for relation in RELATIONS:
        subjects = world.subjects(relation.subject)
        if relation.name in ("married_to", "collects", "founded_by"):
            continue
        for subject, target in zip(subjects, balanced(relation.object, len(subjects))):
            world.facts[subject, relation.name] = (target,)
    for subject in persons:
        world.facts[subject, "collects"] = tuple(rng.sample(names.COLLECTIBLES, 2))
    couples = rng.sample(persons, len(persons) - len(persons) % 2)
    for one, other in zip(couples[::2], couples[1::2]):
        world.facts[one, "married_to"], world.facts[other, "married_to"] = (other,), (one,)
    for organisation, founder in zip(organisations, rng.sample(persons, len(organisations))):
        world.facts[organisation, "founded_by"] = (founder,)
    world.protected = frozenset(
        rng.sample(persons, protected) + rng.sample(organisations, len(organisations) // 4)
    )
    return world
