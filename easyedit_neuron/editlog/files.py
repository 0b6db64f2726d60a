"""The text files of a log: ``log.json`` names the base model, ``entries.jsonl`` has one line per entry."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from ..errors import StateError
from ..utils.io import write_text
from ..utils.plain_trees import parse_json, read_json
from ..utils.schema import mismatch
from ..utils.shown import shown

LOG = logging.getLogger(__name__)
FORMAT = 2
READABLE_FORMATS = (1, FORMAT)
"""Entries of format 1 also hold a chain of hashes (``previous``, ``hash``), which is ignored."""
HEADER_FILE, ENTRIES_FILE = "log.json", "entries.jsonl"


_WEIGHT = {"dtype": str, "shape": [int], "before": (None, str), "after": (None, str)}
_ANY = {"id": int, "type": str, "weights": {str: _WEIGHT}}
_EDIT = {"file": object, "bytes": int, "sha256": str, "content": str, "method": str}
_EDIT |= {"requests": [{"prompt": str, "target_new": str}]}
_EDIT |= {"changes": {str: {"norm": float, "neurons": int, "rank?": int}}}
_EDIT |= {"metrics": {"immediate?": [(None, {"rewrite_acc?": [float]})]}}
TYPES: dict[str, dict[str, Any]] = {
    "edit": _ANY | _EDIT,
    "undo": _ANY | {"of": int},
    "redo": _ANY | {"of": int},
    "restore": _ANY | {"to": int},
}
"""Form of the entries of each type, see ``utils.schema``."""
_HEADER = {"format": int, "model": (None, str), "fingerprint": (None, str)}


def file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_name(entry_id: int) -> str:
    """The file of an entry with a change, in the log's own folder; no entry may name another."""
    return f"{entry_id:06d}.safetensors"


def write_header(folder: Path, header: dict[str, Any]) -> None:
    write_text(folder / HEADER_FILE, json.dumps(header, indent=2) + "\n")


def entry_text(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def read_header(folder: Path) -> dict[str, Any] | None:
    """Read ``log.json``; None if the folder holds no log."""
    path = folder / HEADER_FILE
    if not path.is_file():
        if (folder / ENTRIES_FILE).is_file():
            problem = f"{HEADER_FILE} is missing, which names the base of {ENTRIES_FILE}"
            raise StateError(f"{folder}: {problem}; put it back")
        return None
    try:
        header = read_json(path)
    except (OSError, ValueError) as problem:
        raise StateError(f"{path}: not the head of a log ({type(problem).__name__}: {problem})") from None
    damage = mismatch(header, _HEADER)
    if damage:
        raise StateError(f"{path}: not the head of a log ({damage})")
    if header["format"] not in READABLE_FORMATS:
        raise StateError(
            f"{path}: a log of format {header['format']}; this version reads formats 1 to {FORMAT}"
        )
    return header


def read_entries(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the complete entries of a log, and how many bytes their lines take.

    A last entry whose line or file was not written to its end is left out with a warning. ``StateError``
    where a line is damaged and others follow it, or an entry is missing or out of order.
    """
    path = folder / ENTRIES_FILE
    if not path.is_file():
        return [], 0
    lines = path.read_bytes().split(b"\n")
    torn = bool(lines.pop())  # text after the last line end
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line, finite=True)
            if missing := mismatch(entry, {"id": object, "type": object, "weights": object}):
                raise ValueError(missing)
        except ValueError as problem:
            if number == len(lines) and not torn:
                torn = True
                break
            detail = "and entries follow it: the log cannot be trusted from there on; put the right file back"
            raise StateError(f"{path}: line {number} is damaged ({problem}), {detail}") from None
        damage = _damage(entry, entries)
        if damage:
            raise StateError(f"{path}: line {number} is no entry of a log: {damage}; put the right file back")
        entry_id = entry["id"]
        if entry_id != number:
            raise StateError(
                f"{path}: line {number} holds entry {entry_id}, which does not follow the lines before it: "
                "an entry is missing or out of order; put the right file back"
            )
        if "file" in entry and entry["file"] != file_name(entry_id):
            raise StateError(
                f"{path}: line {number} names the file {entry['file']!r}; an entry's file is "
                f"{file_name(entry_id)!r} in the log's own folder. Nothing is read or written elsewhere"
            )
        entries.append(entry)
    if torn:
        LOG.warning("%s: entry %d was not written to its end and is left out", path, len(entries) + 1)
    if entries and not _has_whole_file(folder, entries[-1]):
        LOG.warning("%s: entry %d is left out: its file is missing or short", folder, len(entries))
        entries.pop()
    return entries, sum(len(line) + 1 for line in lines[: len(entries)])


def _damage(entry: Any, earlier: list[dict[str, Any]]) -> str | None:
    """What is wrong with the form of an entry, or with the entries that it names."""
    problem = mismatch(entry, {"type": str})
    if problem is None and entry["type"] not in TYPES:
        problem = f"its type {shown(entry['type'])} is none of {', '.join(TYPES)}"
    problem = problem or mismatch(entry, TYPES[entry["type"]])
    for name, weight in entry["weights"].items() if problem is None else ():
        if not isinstance(getattr(torch, weight["dtype"], None), torch.dtype):
            problem = f"'weights.{name}.dtype' is {shown(weight['dtype'])}, which torch does not have"
    if problem is None and entry["type"] == "edit" and not entry["requests"]:
        problem = "it has no requests"
    if problem is None and entry["type"] in ("undo", "redo"):
        is_edit = 1 <= entry["of"] <= len(earlier) and earlier[entry["of"] - 1]["type"] == "edit"
        problem = None if is_edit else f"'of' is {entry['of']}, which is no edit before it"
    if problem is None and entry["type"] == "restore" and entry["to"] > len(earlier):
        problem = f"'to' is {entry['to']}, which is no entry before it"
    return problem


def _has_whole_file(folder: Path, entry: dict[str, Any]) -> bool:
    if "file" not in entry:
        return True
    path = folder / entry["file"]
    return path.is_file() and path.stat().st_size >= entry["bytes"]
