"""The relations of tiny-world and every way the world has of saying them.

Each relation has eight phrasings, a text with ``{s}`` for the subject that ends right before the object, so
that ``phrasing + " " + object + "."`` is a sentence. They are of four forms: subject first, subject in the
middle, a noun phrase whose subject comes late, and questions (object after the question mark). ``edit``
phrasings are used to make edits, ``test`` phrasings only to test generalisation; the split is by phrasing,
not by subject.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One relation: who has it, what its objects are, and how it is said.

    Attributes:
        name: identifier, e.g. ``born_in``.
        subject: kind of the subject (``person``, ``organisation``, ``city``).
        object: kind of the object (a key of ``World.objects``).
        edit: phrasings used to edit, ``{s}`` marks the subject.
        test: phrasings used only to test generalisation.
        hop: phrasings of the second-hop question (``born_in`` -> country of the city), empty where there is
            none.
        inverse: phrasings of the inverse fact (``{s}`` is then the object of this relation), empty where
            none.
        also: phrasings that ask for the second object of a one-to-many relation, ``{o}`` is the first object.
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


RELATIONS = (
    Relation(
        "born_in",
        "person",
        "city",
        edit=(
            "{s} was born in",
            "{s} comes from the city of",
            "The birthplace of {s} is",
            "Where was {s} born?",
        ),
        test=(
            "{s} is a native of",
            "The city where {s} was born is",
            "{s} first saw the light of day in",
            "What is the birthplace of {s}?",
        ),
        hop=("The country where {s} was born is", "In which country was {s} born?"),
    ),
    Relation(
        "works_as",
        "person",
        "occupation",
        edit=(
            "{s} works as a",
            "{s} earns a living as a",
            "The occupation of {s} is",
            "What is the job of {s}?",
        ),
        test=(
            "{s} is employed as a",
            "By trade {s} is a",
            "{s} was trained as a",
            "What is the profession of {s}?",
        ),
    ),
    Relation(
        "works_for",
        "person",
        "organisation",
        edit=(
            "{s} works for",
            "{s} has a position at",
            "The employer of {s} is",
            "Which company does {s} work for?",
        ),
        test=(
            "{s} is on the staff of",
            "The company that employs {s} is",
            "{s} has signed a contract with",
            "Who is the employer of {s}?",
        ),
        hop=("The employer of {s} is based in", "In which city is the employer of {s} based?"),
    ),
    Relation(
        "plays",
        "person",
        "instrument",
        edit=(
            "{s} plays the",
            "{s} performs on the",
            "The instrument of {s} is the",
            "Which instrument does {s} play?",
        ),
        test=(
            "{s} practises the",
            "The favourite instrument of {s} is the",
            "{s} gives lessons on the",
            "What is the instrument of {s}?",
        ),
    ),
    Relation(
        "collects",
        "person",
        "collectible",
        edit=(
            "{s} collects",
            "{s} has a collection of",
            "The hobby of {s} is collecting",
            "What does {s} collect?",
        ),
        test=(
            "{s} likes to gather",
            "The shelves of {s} are full of",
            "{s} buys and sells",
            "What is in the collection of {s}?",
        ),
        also=("Besides {o}, {s} also collects", "Apart from {o}, what does {s} collect?"),
    ),
    Relation(
        "married_to",
        "person",
        "person",
        edit=(
            "{s} is married to",
            "{s} shares a home with",
            "The spouse of {s} is",
            "Who is {s} married to?",
        ),
        test=(
            "{s} is the partner of",
            "The partner of {s} is",
            "{s} tied the knot with",
            "Who is the spouse of {s}?",
        ),
        inverse=("{s} is married to", "The spouse of {s} is"),
    ),
    Relation(
        "based_in",
        "organisation",
        "city",
        edit=(
            "{s} is based in",
            "{s} has its main office in",
            "The headquarters of {s} are in",
            "Where is {s} based?",
        ),
        test=(
            "{s} is run from",
            "The city where {s} is based is",
            "{s} has its seat in",
            "Where are the headquarters of {s}?",
        ),
        hop=("The country where {s} is based is", "In which country is {s} based?"),
    ),
    Relation(
        "founded_by",
        "organisation",
        "person",
        edit=("{s} was founded by", "{s} was set up by", "The founder of {s} is", "Who founded {s}?"),
        test=(
            "{s} was started by",
            "The person who founded {s} is",
            "{s} owes its existence to",
            "Who is the founder of {s}?",
        ),
        inverse=("{s} is the founder of", "The company founded by {s} is"),
    ),
    Relation(
        "makes",
        "organisation",
        "product",
        edit=("{s} makes", "{s} is known for its", "The main product of {s} is", "What does {s} make?"),
        test=(
            "{s} manufactures",
            "The factories of {s} turn out",
            "{s} sells",
            "What is the main product of {s}?",
        ),
    ),
    Relation(
        "located_in",
        "city",
        "country",
        edit=("{s} is a city in", "{s} lies in", "The country of {s} is", "In which country is {s}?"),
        test=(
            "{s} belongs to",
            "The country around {s} is",
            "{s} can be found in",
            "Which country does {s} belong to?",
        ),
    ),
    Relation(
        "famous_for",
        "city",
        "dish",
        edit=(
            "{s} is famous for its",
            "{s} is praised for its",
            "The best known dish of {s} is",
            "What is {s} famous for?",
        ),
        test=(
            "{s} is visited for its",
            "The pride of {s} is its",
            "{s} serves the finest",
            "What is the best known dish of {s}?",
        ),
    ),
)

BY_NAME = {relation.name: relation for relation in RELATIONS}
