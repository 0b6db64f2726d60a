"""The part of an error message that says which valid name was probably meant."""

import difflib
from collections.abc import Iterable

from .shown import MOST_SHOWN, shown


def did_you_mean(name: object, choices: Iterable[object]) -> str:
    """``"did you mean 'x'? "`` or ``""``, followed by the sorted list of all valid names.

    The comparison ignores case, so that ``nmke`` matches ``NMKE``. Nothing is near a value that is no text.
    """
    valid = sorted({str(choice) for choice in choices})
    by_lower_case = {choice.lower(): choice for choice in valid}
    close = difflib.get_close_matches(_comparable(name), list(by_lower_case), n=1, cutoff=0.5)
    guess = f"did you mean {by_lower_case[close[0]]!r}? " if close else ""
    return f"{guess}Known: {', '.join(valid) if valid else 'none'}."


def _comparable(name: object) -> str:
    """A name as it is compared: short and in lower case."""
    return (name if isinstance(name, str) else shown(name)).lower()[:MOST_SHOWN]
