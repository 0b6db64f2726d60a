"""The results so far of a run that is continued: read back, and checked against the saved state."""

from typing import Any

from ..errors import StateError
from ..utils.fingerprint import key_fingerprint
from ..utils.plain_trees import parse_json, read_json
from .run_folder import RunFolder, finite

_REMEDY = "Put the right one back, or choose another folder (run=NAME)"


def before_digest(before: dict[str, Any]) -> str:
    return key_fingerprint(finite(before))


def edits_digest(lines: list[dict]) -> str:
    """Fingerprint of lines of ``edits.jsonl`` without what is filled in when the run ends."""
    filled_in = ("answers", "final", "superseded_by")
    return key_fingerprint(
        {"lines": [{name: value for name, value in line.items() if name not in filled_in} for line in lines]}
    )


def read_before(files: RunFolder, digest: str | None) -> dict[str, Any] | None:
    """The content of ``before.json``; None if the untouched model was not measured yet.

    ``digest`` is what the saved state says of the file, None without a state. ``StateError`` for a damaged
    file, or one that does not belong to the state.
    """
    if digest is None and not files.before.is_file():
        return None
    try:
        before = read_json(files.before)
        actual = before_digest(before)
    except (OSError, ValueError) as problem:
        raise StateError(f"{files.before}: not readable ({problem}). {_REMEDY}") from None
    if digest is not None and actual != digest:
        raise StateError(f"{files.before}: is not the one that the run's state belongs to. {_REMEDY}")
    return before


def read_lines(files: RunFolder, digest: str, count: int) -> list[dict]:
    """The first ``count`` lines of ``edits.jsonl``; ``StateError`` if they are not the saved state's."""
    try:
        text = files.edits.read_text(encoding="utf-8", errors="replace")
        lines = [parse_json(line) for line in text.split("\n")[:count] if line]
    except (OSError, ValueError) as problem:
        raise StateError(f"{files.edits}: not readable ({problem}). {_REMEDY}") from None
    if len(lines) < count or edits_digest(lines) != digest:
        problem = f"its first {count} lines are not those that the run's state belongs to"
        raise StateError(f"{files.edits}: {problem}. {_REMEDY}")
    return lines
