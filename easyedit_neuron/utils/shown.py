"""Values in messages: those of others short and without an error of their own, and counts."""

import reprlib
from typing import Any

MOST_SHOWN = 80


def shown(value: Any) -> str:
    """``repr`` of a value, shortened; also of one that is too deep or too long to be written."""
    try:
        text = repr(value) if isinstance(value, (str, int, float)) else reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"a {type(value).__name__} of too many digits"
    except Exception:  # an object's own repr
        return f"a {type(value).__name__}"
    text = " ".join(text.split("\n"))
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN // 2]}... ({len(text):,} characters)"


def count_edits(count: int) -> str:
    """``1 edit``, ``2 edits``."""
    return f"{count} edit{'' if count == 1 else 's'}"
