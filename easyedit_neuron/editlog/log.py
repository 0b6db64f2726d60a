"""The log of a sequence of edits on disk."""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .. import resources
from ..edits.record import EditRecord
from ..errors import StateError
from ..utils.io import append_text, refusing, sync, write_text
from . import files
from .base import Base, check_weights
from .summary import content_digest, summarize_delta

LOG = logging.getLogger(__name__)
STEP_SIGNS = {"edit": 1, "redo": 1, "undo": -1}
"""Types of entries that add the change of an edit to the weights (1), or take it out (-1)."""


class EditLog:
    """Open a log, or begin one with the first ``append``.

    Iterating gives the records of the edits that are in the weights, in the order in which they were added;
    ``ids`` are their ids and ``len`` their number. ``log[id]`` is the record of any edit, also one that was
    undone. The file of a record is checked against its SHA-256 whenever it is read.

    Args:
        folder: the log's own folder; created with the first entry.
        model: name of the base model, for a new log; unset: that of the first record's ``hparams``.
        fingerprint: ``model_fingerprint`` of the base model; unset: the edited weights alone identify it.
    """

    def __init__(self, folder: str | Path, model: str | None = None, fingerprint: str | None = None):
        self.folder = Path(folder).expanduser()
        header = files.read_header(self.folder)
        self._exists = header is not None
        self._header = header or {"format": files.FORMAT, "model": model, "fingerprint": fingerprint}
        self._entries, self._bytes = files.read_entries(self.folder)

    # -- reading

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first; not to be changed."""
        return list(self._entries)

    @property
    def base(self) -> Base:
        weights: dict[str, dict[str, Any]] = {}
        for entry in self._entries:
            for name, weight in entry["weights"].items():
                if name not in weights:
                    weights[name] = {key: weight[key] for key in ("dtype", "shape")}
                    weights[name]["fingerprint"] = weight["before"]
        return Base(self._header["model"] or "unknown", self._header["fingerprint"], weights)

    def weights_at(self, upto: int | None = None) -> dict[str, str | None]:
        """Fingerprints of all edited parameters after entry ``upto`` (unset: the newest; 0: the base), None
        where the log does not know one (after ``squash`` without the model)."""
        weights: dict[str, str | None] = {name: w["fingerprint"] for name, w in self.base.weights.items()}
        for entry in self._entries[: self._count(upto)]:
            weights |= {name: weight["after"] for name, weight in entry["weights"].items()}
        return weights

    def steps(self, upto: int | None = None) -> list[tuple[int, int]]:
        """The steps from the base to entry ``upto``: (1, id) adds an edit, (-1, id) takes it out."""
        steps, number = [], self._count(upto)
        while number > 0:
            entry = self._entries[number - 1]
            if entry["type"] == "restore":
                number = entry["to"]
            else:
                steps.append((STEP_SIGNS[entry["type"]], entry.get("of", entry["id"])))
                number -= 1
        return steps[::-1]

    def ids_at(self, upto: int | None = None) -> list[int]:
        """Ids of the edits in the weights after entry ``upto``, in the order in which they were added."""
        ids: list[int] = []
        for sign, number in self.steps(upto):
            if sign > 0:
                ids.append(number)
            elif number in ids:
                ids.remove(number)
            else:
                problem = f"an entry takes edit {number} out, which is not in the weights there"
                raise StateError(f"{self.folder}: {problem}; put the right file back")
        return ids

    @property
    def ids(self) -> list[int]:
        """Ids of the edits that are in the weights now."""
        return self.ids_at()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[EditRecord]:
        return (self[number] for number in self.ids)

    def __getitem__(self, number: int) -> EditRecord:
        """Read the record of an edit; ``StateError`` for none, or a file that is missing or was changed."""
        entry = self.edit_entry(number)
        path = self.folder / entry["file"]
        if not path.is_file():
            raise StateError(f"{path}: missing, and entry {number} needs it; put it back")
        if files.file_digest(path) != entry["sha256"]:
            remedy = "put back the file with its SHA-256"
            raise StateError(f"{path}: was changed after entry {number} was written; {remedy}")
        return EditRecord.load(path)

    def edit_entry(self, number: int) -> dict[str, Any]:
        """The entry of an edit; ``StateError`` if there is none, or one of another type."""
        if 1 <= number <= len(self._entries):
            entry = self._entries[number - 1]
            if "file" in entry:
                return entry
            raise StateError(f"{self.folder}: entry {number} is no edit but of type {entry['type']}")
        ids = [entry["id"] for entry in self._entries if "file" in entry]
        listed = f"{ids[0]} to {ids[-1]}" if len(ids) > 8 else ", ".join(map(str, ids))
        reason = f"the edits are {listed}" if ids else "the log has no edits"
        raise StateError(f"{self.folder}: there is no edit {number}; {reason}")

    def check_weights(self, model: torch.nn.Module) -> None:
        """Raise a ``StateError`` unless the edited parameters of ``model`` are those of the newest entry."""
        base, newest = self.base.weights, self.weights_at()
        for name, fingerprint in newest.items():
            if fingerprint is None:
                raise StateError(
                    f"{self.folder}: the log does not know the weights that it leaves ({name}): it was "
                    "squashed without the model; squash again with it"
                )
        expected = {name: base[name] | {"fingerprint": digest} for name, digest in newest.items()}
        description = f"the one that {self.folder} describes after its newest entry"
        remedy = "give the model that the log was written with, or make it again from the base (replay)"
        check_weights(model, expected, description, remedy)

    def verify(self) -> None:
        """Read every file; ``StateError`` for the first that is missing or was changed."""
        for entry in self._entries:
            if "file" in entry:
                self[entry["id"]]

    # -- writing

    def append(self, record: EditRecord) -> int:
        """Add an edit and return its id. It is on the disk when this returns.

        ``StateError`` where the record has no fingerprints of its weights, or was made on other weights than
        the newest entry left (an edit between them is not in the log). Nothing is changed then.
        """
        if not record.weights:
            problem = "it was not made by an edit of this version"
            raise StateError(f"the record has no fingerprints of its weights: {problem}")
        self._check_follows(record)
        changes = {name: summarize_delta(delta) for name, delta in record.deltas.items()}
        for name, change in changes.items():
            if not math.isfinite(change["norm"]):
                raise StateError(f"the edit's change of {name} is not finite; nothing was written")
        if not self._exists:
            self._create(str(record.hparams.get("model_name", "unknown")))
        number = len(self._entries) + 1
        path = self.folder / files.file_name(number)
        with refusing(path):
            record.save(path)
            sync(path)
            sync(self.folder)
        # The file is on the disk before the line that names it is written.
        entry = {"id": number, "type": "edit", "file": path.name, "bytes": path.stat().st_size}
        entry |= {"sha256": files.file_digest(path), "content": content_digest(record)}
        entry |= {"method": record.method, "requests": record.requests}
        if record.made_in_chat:
            entry["use_chat_template"] = True
        entry |= {"changes": changes, "metrics": record.metrics, "run": record.info.get("run", {})}
        keys = ("dtype", "shape", "before", "after")
        weights = {name: {key: weight[key] for key in keys} for name, weight in record.weights.items()}
        self._append(entry | {"weights": weights})
        return number

    def append_event(self, kind: str, after: dict[str, str], **reference: int) -> int:
        """Add an entry without a file: ``undo`` or ``redo`` (``of=id``), or ``restore`` (``to=id``).

        ``after``: parameter name -> fingerprint now, of what has changed.
        """
        base, before = self.base.weights, self.weights_at()
        weights: dict[str, dict[str, Any]] = {}
        for name, fingerprint in after.items():
            form = {key: base[name][key] for key in ("dtype", "shape")}
            weights[name] = {**form, "before": before[name], "after": fingerprint}
        number = len(self._entries) + 1
        self._append({"id": number, "type": kind, **reference, "weights": weights})
        return number

    def truncate(self, count: int) -> None:
        """Drop the entries after the first ``count``: for a run that goes on from an earlier state."""
        if count == len(self._entries) or not self._exists:
            return
        remaining, dropped = self._entries[: self._count(count)], self._entries[count:]
        text = "".join(map(files.entry_text, remaining))
        write_text(self.folder / files.ENTRIES_FILE, text)
        for entry in dropped:
            if "file" in entry:
                (self.folder / entry["file"]).unlink(missing_ok=True)
        self._entries, self._bytes = remaining, len(text.encode())

    def copy(self, folder: str | Path, upto: int | None = None) -> "EditLog":
        """Copy the entries up to ``upto`` into another folder, which must not hold a log yet."""
        entries, folder = self._entries[: self._count(upto)], Path(folder)
        self.refuse_taken(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            if "file" in entry:
                self[entry["id"]]  # raises if the file was changed
                shutil.copyfile(self.folder / entry["file"], folder / entry["file"])
        write_text(folder / files.ENTRIES_FILE, "".join(map(files.entry_text, entries)))
        files.write_header(folder, self._header)
        return EditLog(folder)

    @staticmethod
    def refuse_taken(folder: Path) -> None:
        if (folder / files.HEADER_FILE).exists() or (folder / files.ENTRIES_FILE).exists():
            raise StateError(f"{folder} holds a log already; nothing was changed, choose another folder")

    def _count(self, upto: int | None) -> int:
        """``upto`` as a number of entries; ``StateError`` unless the log has so many."""
        total = len(self._entries)
        if upto is None:
            return total
        if not 0 <= upto <= total:
            entries = f"the log has entries 1 to {total} (0: the base)"
            raise StateError(f"{self.folder}: there is no entry {upto}; {entries}")
        return upto

    def _create(self, model_name: str) -> None:
        # The folder of a shipped or fetched model differs between machines, its short name does not.
        name = self._header["model"] or resources.model_short_name(model_name)
        header = {**self._header, "model": name}
        with refusing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        files.write_header(self.folder, header)
        self._header, self._exists = header, True

    def _append(self, entry: dict[str, Any]) -> None:
        path, text = self.folder / files.ENTRIES_FILE, files.entry_text(entry)
        if path.is_file() and path.stat().st_size > self._bytes:
            os.truncate(path, self._bytes)  # an entry that was not written to its end
        append_text(path, text)
        self._entries.append(json.loads(text))  # as it will be read again
        self._bytes += len(text.encode())

    def _check_follows(self, record: EditRecord) -> None:
        base, newest = self.base.weights, self.weights_at()
        for name, weight in record.weights.items():
            if name not in base:
                if weight["before"] != weight["base"]:
                    text = "%s: %s had been edited before the log began; those weights are its base"
                    LOG.warning(text, self.folder, name)
            elif newest[name] is None:
                problem = "no edit can follow an entry that was squashed without the model"
                raise StateError(f"{self.folder}: {problem}")
            elif newest[name] != weight["before"]:
                hint = "; they are the base's" if weight["before"] == base[name]["fingerprint"] else ""
                raise StateError(
                    f"the edit was made on other weights of {name} than entry {len(self._entries)} of "
                    f"{self.folder} left{hint}: an edit between the two is not in the log, or was undone "
                    "without it"
                )
