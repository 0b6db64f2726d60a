"""Prompts that belong to a fact given by hand: other phrasings of it, and facts beside it."""

from .real_world import FOLDER, Tables


def related_prompts(prompt: str, subject: str) -> tuple[list[str], list[str]]:
    """Rephrasings of a prompt, and prompts about other subjects, where real-world has its relation.

    A prompt belongs to a relation if it is one of the relation's phrasings with the subject filled in.
    Without such a relation both lists are empty. Neighbours whose object is the subject's own true object
    come first.
    """
    tables = Tables(FOLDER)
    for name, relation in tables.relations.items():
        phrasings = [*relation["edit"], *relation["rephrase"]]
        template = next((text for text in phrasings if text.replace("{}", subject) == prompt), None)
        if template is None:
            continue
        facts = tables.by_relation[name]
        truth = next((fact.object for fact in facts if fact.subject == subject), None)
        others = sorted(
            (fact for fact in facts if fact.subject != subject), key=lambda fact: fact.object != truth
        )
        rephrasings = [text.replace("{}", subject) for text in phrasings if text != template]
        return rephrasings, [template.replace("{}", fact.subject) for fact in others]
    return [], []
