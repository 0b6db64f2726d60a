"""The relations of tiny-world and all phrasings of each.

A phrasing has ``{s}`` for the subject and ends right before the object: ``phrasing + " " + object + "."`` is
a sentence. Each relation has eight, of four forms: subject first, subject in the middle, subject late,
question.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """A relation, the kinds of its subjects and objects, and phrasings.

    ``edit`` and ``test`` phrasings; ``hop``: of the second hop (``born_in``: the country of the city);
    ``inverse``: of the inverse fact, where ``{s}`` is the object of this relation; ``also``: for the second
    object of a one-to-many relation, where ``{o}`` is the first.
    """

    name: str
    subject: str
    object: str
    edit: tuple[str, ...]
    test: tuple[str, ...]
    hop: tuple[str, ...] = ()
    inverse: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All eight, edit phrasings first."""
        return self.edit + self.test


_TEXT = """
born_in person city
edit: {s} was born in | {s} comes from the city of | The birthplace of {s} is | Where was {s} born?
test: {s} is a native of | The city where {s} was born is | {s} first saw the light of day in
test: What is the birthplace of {s}?
hop: The country where {s} was born is | In which country was {s} born?

works_as person occupation
edit: {s} works as a | {s} earns a living as a | The occupation of {s} is | What is the job of {s}?
test: {s} is employed as a | By trade {s} is a | {s} was trained as a | What is the profession of {s}?

works_for person organisation
edit: {s} works for | {s} has a position at | The employer of {s} is | Which company does {s} work for?
test: {s} is on the staff of | The company that employs {s} is | {s} has signed a contract with
test: Who is the employer of {s}?
hop: The employer of {s} is based in | In which city is the employer of {s} based?

plays person instrument
edit: {s} plays the | {s} performs on the | The instrument of {s} is the | Which instrument does {s} play?
test: {s} practises the | The favourite instrument of {s} is the | {s} gives lessons on the
test: What is the instrument of {s}?

collects person collectible
edit: {s} collects | {s} has a collection of | The hobby of {s} is collecting | What does {s} collect?
test: {s} likes to gather | The shelves of {s} are full of | {s} buys and sells
test: What is in the collection of {s}?
also: Besides {o}, {s} also collects | Apart from {o}, what does {s} collect?

married_to person person
edit: {s} is married to | {s} shares a home with | The spouse of {s} is | Who is {s} married to?
test: {s} is the partner of | The partner of {s} is | {s} tied the knot with | Who is the spouse of {s}?
inverse: {s} is married to | The spouse of {s} is

based_in organisation city
edit: {s} is based in | {s} has its main office in | The headquarters of {s} are in | Where is {s} based?
test: {s} is run from | The city where {s} is based is | {s} has its seat in
test: Where are the headquarters of {s}?
hop: The country where {s} is based is | In which country is {s} based?

founded_by organisation person
edit: {s} was founded by | {s} was set up by | The founder of {s} is | Who founded {s}?
test: {s} was started by | The person who founded {s} is | {s} owes its existence to
test: Who is the founder of {s}?
inverse: {s} is the founder of | The company founded by {s} is

makes organisation product
edit: {s} makes | {s} is known for its | The main product of {s} is | What does {s} make?
test: {s} manufactures | The factories of {s} turn out | {s} sells | What is the main product of {s}?

located_in city country
edit: {s} is a city in | {s} lies in | The country of {s} is | In which country is {s}?
test: {s} belongs to | The country around {s} is | {s} can be found in | Which country does {s} belong to?

famous_for city dish
edit: {s} is famous for its | {s} is praised for its | The best known dish of {s} is | What is {s} famous for?
test: {s} is visited for its | The pride of {s} is its | {s} serves the finest
test: What is the best known dish of {s}?
"""


def _read(text: str) -> Iterator[Relation]:
    """Blocks of a line with name, kind of subject and kind of object, and lines of phrasings by their use."""
    for block in text.strip().split("\n\n"):
        head, *lines = block.split("\n")
        phrasings: dict[str, tuple[str, ...]] = {}
        for line in lines:
            use, _, texts = line.partition(": ")
            phrasings[use] = phrasings.get(use, ()) + tuple(texts.split(" | "))
        yield Relation(*head.split(), **phrasings)


RELATIONS = tuple(_read(_TEXT))
BY_NAME = {relation.name: relation for relation in RELATIONS}
SECOND_HOP = {"city": "located_in", "organisation": "based_in"}
"""Kind of object -> relation of the second hop from it."""
