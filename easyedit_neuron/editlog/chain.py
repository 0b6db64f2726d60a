"""The lines of a log: each holds the hash of the one before, so that none can be lost, changed or moved
unnoticed."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from ..errors import StateError

LOG = logging.getLogger(__name__)
FORMAT = 1
HEAD, LINES = "log.json", "entries.jsonl"
ADDS = {"edit": 1, "redo": 1, "undo": -1}
"""Types of entries that add a change to the weights, or take it away."""


def hash_of(value: dict[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sealed(line: dict[str, Any], previous: str) -> dict[str, Any]:
    """The line with its place in the chain."""
    line = json.loads(json.dumps({**line, "previous": previous}))
    return {**line, "hash": hash_of(line)}


def as_text(line: dict[str, Any]) -> str:
    """The line as it is written."""
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def read_head(folder: Path) -> dict[str, Any] | None:
    """``log.json``; None where there is no log. ``StateError`` for one that is damaged, of another format, or
    lost."""
    path = folder / HEAD
    if not path.is_file():
        if (folder / LINES).is_file():
            raise StateError(
                f"{folder}: {HEAD} is missing, which tells the base model of {LINES}; put it back"
            )
        return None
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        form = head["format"]
        head["model"], head["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise StateError(f"{path}: not the head of a log ({type(problem).__name__}: {problem})") from None
    if form != FORMAT:
        raise StateError(f"{path}: a log of format {form}, this version reads {FORMAT}")
    return head


def read_lines(path: Path, root: str) -> tuple[list[dict[str, Any]], int]:
    """The complete lines of a file, and how many bytes they take.

    Args:
        path: ``entries.jsonl``; none is an empty log.
        root: hash that the first line must name.

    Raises:
        StateError: a line is damaged or missing, and others follow it; or a complete line was changed. A last
            one that was not written to its end (the process was killed) is left out, and a warning says so.
    """
    if not path.is_file():
        return [], 0
    lines: list[dict[str, Any]] = []
    previous, good = root, 0
    raw = path.read_bytes().split(b"\n")
    torn = bool(raw.pop())  # what stands behind the last end of a line: nothing, or a part of one
    for number, text in enumerate(raw, start=1):
        try:
            line = json.loads(text)
            claimed = {key: value for key, value in line.items() if key != "hash"}
            line["hash"], line["previous"], line["id"], line["type"], line["weights"]
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            if number == len(raw) and not torn:
                torn = True
                break
            raise StateError(
                f"{path}: line {number} is damaged ({problem}), and entries follow it: the log cannot be trusted "
                "from there on; put the right file back"
            ) from None
        if line["id"] != number or line["previous"] != previous:
            raise StateError(
                f"{path}: entry {line['id']} does not follow on what stands before it (line {number}): its "
                "predecessor is missing or was changed; put the right file back"
            )
        if hash_of(claimed) != line["hash"]:
            raise StateError(
                f"{path}: entry {line['id']} was changed after it was written (its hash does not fit); put the "
                "right file back"
            )
        lines.append(line)
        previous, good = line["hash"], good + len(text) + 1
    if torn:
        LOG.warning("%s: entry %d was not written to its end and is left out", path, len(lines) + 1)
    return lines, good


def steps(lines: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """What makes the weights after these entries from the base: (1, id) adds the change of that edit, (-1,
    id) takes it out."""
    known: list[tuple | None] = [
        None
    ]  # after every entry a linked list, newest first: a restore goes back to one
    for line in lines:
        if line["type"] == "restore":
            known.append(known[line["to"]])
        else:
            known.append(((ADDS[line["type"]], line.get("of", line["id"])), known[-1]))
    found, at = [], known[-1]
    while at is not None:
        found.append(at[0])
        at = at[1]
    return found[::-1]
