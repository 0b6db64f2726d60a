"""The relations of tiny-world and all phrasings of each.

A phrasing has ``{s}`` for the subject and ends right before the object: ``phrasing + " " + object + "."`` is
a sentence. Each relation has eight, of four forms: subject first, subject in the middle, subject late,
question.
"""

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


def _split(phrasings: str) -> tuple[str, ...]:
    return tuple(phrasings.split(" | "))


RELATIONS = (
    Relation(
        "born_in",
        "person",
        "city",
        edit=_split(
            "{s} was born in | {s} comes from the city of | The birthplace of {s} is | Where was {s} born?"
        ),
        test=_split(
            "{s} is a native of | The city where {s} was born is | "
            "{s} first saw the light of day in | What is the birthplace of {s}?"
        ),
        hop=_split("The country where {s} was born is | In which country was {s} born?"),
    ),
    Relation(
        "works_as",
        "person",
        "occupation",
        edit=_split(
            "{s} works as a | {s} earns a living as a | The occupation of {s} is | What is the job of {s}?"
        ),
        test=_split(
            "{s} is employed as a | By trade {s} is a | {s} was trained as a | What is the profession of {s}?"
        ),
    ),
    Relation(
        "works_for",
        "person",
        "organisation",
        edit=_split(
            "{s} works for | {s} has a position at | The employer of {s} is | "
            "Which company does {s} work for?"
        ),
        test=_split(
            "{s} is on the staff of | The company that employs {s} is | "
            "{s} has signed a contract with | Who is the employer of {s}?"
        ),
        hop=_split("The employer of {s} is based in | In which city is the employer of {s} based?"),
    ),
    Relation(
        "plays",
        "person",
        "instrument",
        edit=_split(
            "{s} plays the | {s} performs on the | The instrument of {s} is the | "
            "Which instrument does {s} play?"
        ),
        test=_split(
            "{s} practises the | The favourite instrument of {s} is the | {s} gives lessons on the | "
            "What is the instrument of {s}?"
        ),
    ),
    Relation(
        "collects",
        "person",
        "collectible",
        edit=_split(
            "{s} collects | {s} has a collection of | The hobby of {s} is collecting | What does {s} collect?"
        ),
        test=_split(
            "{s} likes to gather | The shelves of {s} are full of | {s} buys and sells | "
            "What is in the collection of {s}?"
        ),
        also=_split("Besides {o}, {s} also collects | Apart from {o}, what does {s} collect?"),
    ),
    Relation(
        "married_to",
        "person",
        "person",
        edit=_split(
            "{s} is married to | {s} shares a home with | The spouse of {s} is | Who is {s} married to?"
        ),
        test=_split(
            "{s} is the partner of | The partner of {s} is | {s} tied the knot with | "
            "Who is the spouse of {s}?"
        ),
        inverse=_split("{s} is married to | The spouse of {s} is"),
    ),
    Relation(
        "based_in",
        "organisation",
        "city",
        edit=_split(
            "{s} is based in | {s} has its main office in | The headquarters of {s} are in | "
            "Where is {s} based?"
        ),
        test=_split(
            "{s} is run from | The city where {s} is based is | {s} has its seat in | "
            "Where are the headquarters of {s}?"
        ),
        hop=_split("The country where {s} is based is | In which country is {s} based?"),
    ),
    Relation(
        "founded_by",
        "organisation",
        "person",
        edit=_split("{s} was founded by | {s} was set up by | The founder of {s} is | Who founded {s}?"),
        test=_split(
            "{s} was started by | The person who founded {s} is | {s} owes its existence to | "
            "Who is the founder of {s}?"
        ),
        inverse=_split("{s} is the founder of | The company founded by {s} is"),
    ),
    Relation(
        "makes",
        "organisation",
        "product",
        edit=_split("{s} makes | {s} is known for its | The main product of {s} is | What does {s} make?"),
        test=_split(
            "{s} manufactures | The factories of {s} turn out | {s} sells | What is the main product of {s}?"
        ),
    ),
    Relation(
        "located_in",
        "city",
        "country",
        edit=_split("{s} is a city in | {s} lies in | The country of {s} is | In which country is {s}?"),
        test=_split(
            "{s} belongs to | The country around {s} is | {s} can be found in | "
            "Which country does {s} belong to?"
        ),
    ),
    Relation(
        "famous_for",
        "city",
        "dish",
        edit=_split(
            "{s} is famous for its | {s} is praised for its | The best known dish of {s} is | "
            "What is {s} famous for?"
        ),
        test=_split(
            "{s} is visited for its | The pride of {s} is its | {s} serves the finest | "
            "What is the best known dish of {s}?"
        ),
    ),
)

BY_NAME = {relation.name: relation for relation in RELATIONS}
SECOND_HOP = {"city": "located_in", "organisation": "based_in"}
"""Kind of object -> relation of the second hop from it."""
