"""One sentence for error messages: which known name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, choices: Iterable[object]) -> str:
    """Return ``"did you mean 'x'? "`` or ``""``, followed by the list of valid names.

    The comparison ignores case, so that ``nmke`` finds ``NMKE``; the list is sorted and complete, because a
    message that hides half of the valid names sends its reader back to the source.
    """
    known = sorted({str(choice) for choice in choices})
    lowered = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(str(name).lower(), list(lowered), n=1, cutoff=0.5)
    guess = f"did you mean {lowered[close[0]]!r}? " if close else ""
    return f"{guess}Known: {', '.join(known) if known else 'none'}."
