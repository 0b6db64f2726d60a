"""Whether an edit answers what it was not asked: FiNE's over-editing and unchanging rates (appendix B).

Asked are other facts of the edited subject, for which the relation changes and the subject does not.
"""

from collections.abc import Sequence
from typing import Any

from ..evaluation.answers import says
from ..utils.lists import mean

KIND = "relation_specificity"
"""KnowEdit's kind of locality with other facts of the subject, in any case."""


def other_facts(request: dict[str, Any]) -> list[str]:
    """Prompts of the request's locality that ask for other facts of its subject; empty without any."""
    prompts: list[str] = []
    for kind, probes in request.get("locality", {}).items():
        if kind.casefold() == KIND:
            asked = probes["prompt"]
            prompts += [asked] if isinstance(asked, str) else asked
    return prompts


def rates(before: Sequence[str], after: Sequence[str], target: str) -> dict[str, float | None]:
    """``over_edited``: share of answers that begin with the new object; ``unchanging``: share that are what
    they were before the edit, word for word. None without answers."""
    return {
        "over_edited": mean(float(says(answer, target)) for answer in after),
        "unchanging": mean(float(old == new) for old, new in zip(before, after, strict=True)),
    }
