"""The log of a sequence of edits on disk."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..edits.record import EditRecord
from ..errors import StateError
from ..utils.io import append_text, refusing, sync, write_text
from . import chain
from .base import Base, check_weights, portable_name
from .content import about_change, content_of

LOG = logging.getLogger(__name__)


class EditLog:
    """Opens a log, or begins one with the first ``append``.

    Iterating gives the records of the edits that are in the weights, in the order in which they were added;
    ``ids`` are their ids and ``len`` their number. ``log[id]`` is the record of any edit, also one that was
    taken back. Files are checked as they are read.

    Args:
        folder: the log's own folder; made with the first entry.
        model: name of the base model, for a new log; unset: that of the first record's hyperparameters.
        fingerprint: ``model_fingerprint`` of the whole base model, for a new log; unset: only the edited
            weights tell it.

    Raises:
        StateError: the folder holds no log of this format, or a damaged one. A last entry that was not
            written to its end is left out with a warning.
    """

    def __init__(self, folder: str | Path, model: str | None = None, fingerprint: str | None = None):
        self.folder = Path(folder).expanduser()
        self._lines: list[dict[str, Any]] = []
        self._bytes = 0
        self._first: dict[
            str, dict[str, Any]
        ] = {}  # of every edited parameter: what is known of it before the first edit
        self._now: dict[str, str | None] = {}
        self._head = chain.read_head(self.folder)
        if self._head is None:
            self._new = model, fingerprint
            return
        self._lines, self._bytes = chain.read_lines(self.folder / chain.LINES, chain.hash_of(self._head))
        self._drop_torn_file()
        self._note_all()

    # -- reading
    # ---------------------------------------------------------------------------------------------------------

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All lines, oldest first; not to be changed."""
        return list(self._lines)

    @property
    def head(self) -> str | None:
        """Hash of the newest entry; None while there is none."""
        return self._lines[-1]["hash"] if self._lines else None

    @property
    def base(self) -> Base:
        """The model before the first edit."""
        head = self._head or {"model": self._new[0] or "unknown", "fingerprint": self._new[1]}
        return Base(head["model"], head["fingerprint"], dict(self._first))

    def weights_at(self, upto: int | None = None) -> dict[str, str | None]:
        """Parameter name -> fingerprint after entry ``upto`` (unset: the newest; 0: the base), of all edited
        parameters.

        None where the log does not know it (after ``squash`` without the model).
        """
        if upto is None:
            return dict(self._now)
        found: dict[str, str | None] = {name: about["fingerprint"] for name, about in self._first.items()}
        for line in self._lines[: self.number(upto)]:
            found |= {name: about["after"] for name, about in line["weights"].items()}
        return found

    def steps(self, upto: int | None = None) -> list[tuple[int, int]]:
        """What makes the weights after entry ``upto`` from the base: (1, id) adds an edit's change, (-1, id)
        takes it out."""
        return chain.steps(self._lines[: self.number(upto)])

    def ids_at(self, upto: int | None = None) -> list[int]:
        """Ids of the edits that are in the weights after entry ``upto``, in the order in which they were
        added."""
        found: list[int] = []
        for sign, number in self.steps(upto):
            if sign > 0:
                found.append(number)
            else:
                found.remove(number)
        return found

    @property
    def ids(self) -> list[int]:
        """Ids of the edits that are in the weights now."""
        return self.ids_at()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[EditRecord]:
        return (self[number] for number in self.ids)

    def __getitem__(self, number: int) -> EditRecord:
        """The record of an edit; its file is checked.

        Raises:
            StateError: no such edit, or a file that is missing or was changed.
        """
        line = self.line(number)
        path = self.folder / line["file"]
        if not path.is_file():
            raise StateError(f"{path}: missing, and entry {number} needs it; put it back")
        if chain.file_hash(path) != line["sha256"]:
            raise StateError(
                f"{path}: was changed after entry {number} was written (its SHA-256 does not fit); put the right "
                f"file back"
            )
        return EditRecord.load(path)

    def line(self, number: int) -> dict[str, Any]:
        """The line of an edit; ``StateError`` for another entry, or none."""
        if 1 <= number <= len(self._lines):
            if "file" in self._lines[number - 1]:
                return self._lines[number - 1]
            raise StateError(
                f"{self.folder}: entry {number} is no edit but of type {self._lines[number - 1]['type']}"
            )
        edits = [line["id"] for line in self._lines if "file" in line]
        raise StateError(f"{self.folder}: there is no edit {number}; {_known(edits)}")

    def number(self, upto: int | None) -> int:
        """``upto`` as a number of entries; ``StateError`` unless the log has so many."""
        if upto is None:
            return len(self._lines)
        if not 0 <= upto <= len(self._lines):
            raise StateError(
                f"{self.folder}: there is no entry {upto}; the log has entries 1 to {len(self._lines)} (0 is the "
                f"base model)"
            )
        return upto

    def check_weights(self, model: torch.nn.Module) -> None:
        """``StateError`` unless the edited parameters of ``model`` are those that the newest entry left."""
        wanted = {
            name: {**about, "now": after}
            for (name, about), after in zip(self._first.items(), self._now.values())
        }
        unknown = [name for name, about in wanted.items() if about["now"] is None]
        if unknown:
            raise StateError(
                f"{self.folder}: the log does not know the weights that it leaves ({unknown[0]}): it was squashed "
                "without the model; squash again with it"
            )
        check_weights(
            model,
            wanted,
            "now",
            f"the one that {self.folder} describes after its newest entry",
            "give the model that the log was written with, or make it again from the base (replay)",
        )

    def verify(self) -> None:
        """Reads every file; ``StateError`` for the first that is missing or was changed."""
        for line in self._lines:
            if "file" in line:
                self[line["id"]]

    # -- writing
    # ---------------------------------------------------------------------------------------------------------

    def append(self, record: EditRecord) -> int:
        """Adds an edit; returns its id. It is on the disk when this returns.

        Raises:
            StateError: the record knows nothing of its weights, or was made on others than the newest entry
                left (an edit between them is not in the log). Nothing is changed.
        """
        if not record.weights:
            raise StateError(
                "the record has no fingerprints of its weights: it was not made by an edit of this version"
            )
        self._check_follows(record)
        self._begin(record)
        number = len(self._lines) + 1
        path = self.folder / f"{number:06d}.safetensors"
        with refusing(path):
            record.save(path)
            sync(path)
            sync(self.folder)
        kept = ("dtype", "shape", "before", "after")
        weights = {name: {key: about[key] for key in kept} for name, about in record.weights.items()}
        self._append(
            {
                "id": number,
                "type": "edit",
                "file": path.name,
                "bytes": path.stat().st_size,
                "sha256": chain.file_hash(path),
                "content": content_of(record),
                "method": record.method,
                "requests": record.requests,
                "changes": {name: about_change(delta) for name, delta in record.deltas.items()},
                "metrics": record.metrics,
                "run": record.info.get("run", {}),
                "weights": weights,
            }
        )
        return number

    def note(self, kind: str, after: dict[str, str], **about: Any) -> int:
        """Adds an entry without a file (``undo``, ``redo``: ``of=id``; ``restore``: ``to=number``).

        Args:
            kind: its type.
            after: parameter name -> fingerprint now, of what has changed.
        """
        first = self._first
        weights = {
            name: {
                "dtype": first[name]["dtype"],
                "shape": first[name]["shape"],
                "before": self._now[name],
                "after": value,
            }
            for name, value in after.items()
        }
        number = len(self._lines) + 1
        self._append({"id": number, "type": kind, **about, "weights": weights})
        return number

    def cut(self, count: int) -> None:
        """Drops the entries behind the first ``count``: for a run that goes on from an earlier state."""
        if count == len(self._lines) or self._head is None:
            return
        kept = self._lines[: self.number(count)]
        write_text(self.folder / chain.LINES, "".join(chain.as_text(line) for line in kept))
        for line in self._lines[count:]:
            if "file" in line:
                (self.folder / line["file"]).unlink(missing_ok=True)
        self._lines, self._bytes = kept, (self.folder / chain.LINES).stat().st_size
        self._note_all()

    def copy(self, folder: str | Path, upto: int | None = None) -> EditLog:
        """The entries up to ``upto`` in another folder, which must not hold a log yet."""
        count, folder = self.number(upto), Path(folder)
        self.refuse_taken(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for line in self._lines[:count]:
            if "file" in line:
                self[line["id"]]  # checks it
                shutil.copyfile(self.folder / line["file"], folder / line["file"])
        if self._head is not None:
            write_text(folder / chain.LINES, "".join(chain.as_text(line) for line in self._lines[:count]))
            write_text(folder / chain.HEAD, json.dumps(self._head, indent=2) + "\n")
        return EditLog(folder, *(() if self._head else self._new))

    @staticmethod
    def refuse_taken(folder: Path) -> None:
        """``StateError`` if a folder holds a log."""
        if (folder / chain.HEAD).exists() or (folder / chain.LINES).exists():
            raise StateError(f"{folder} holds a log already; nothing was changed, choose another folder")

    def _begin(self, record: EditRecord) -> None:
        if self._head is not None:
            return
        name, fingerprint = self._new
        name = name or portable_name(str(record.hparams.get("model_name", "unknown")))
        head = {"format": chain.FORMAT, "model": name, "fingerprint": fingerprint}
        with refusing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / chain.HEAD, json.dumps(head, indent=2) + "\n")
        self._head = head

    def _append(self, line: dict[str, Any]) -> None:
        line = chain.sealed(line, self.head or chain.hash_of(self._head))
        path, text = self.folder / chain.LINES, chain.as_text(line)
        if path.is_file() and path.stat().st_size > self._bytes:
            os.truncate(path, self._bytes)  # an entry that was not written to its end
        append_text(path, text)
        self._lines.append(line)
        self._bytes += len(text.encode())
        self._note(line)

    def _note_all(self) -> None:
        self._first, self._now = {}, {}
        for line in self._lines:
            self._note(line)

    def _note(self, line: dict[str, Any]) -> None:
        for name, about in line["weights"].items():
            self._first.setdefault(
                name, {"fingerprint": about["before"], "dtype": about["dtype"], "shape": about["shape"]}
            )
            self._now[name] = about["after"]

    def _check_follows(self, record: EditRecord) -> None:
        now = self._now
        for name, about in record.weights.items():
            if name not in now:
                if about["before"] != about["base"]:
                    LOG.warning(
                        "%s: %s had been edited before the log began; those weights are its base",
                        self.folder,
                        name,
                    )
            elif now[name] is None:
                raise StateError(
                    f"{self.folder}: the log does not know the weights that its newest entry left (squashed without "
                    "the model), so that nothing can follow"
                )
            elif now[name] != about["before"]:
                where = "; they are the base's" if about["before"] == self._first[name]["fingerprint"] else ""
                raise StateError(
                    f"the edit was made on other weights of {name} than entry {len(self._lines)} of {self.folder} "
                    f"left"
                    f"{where}: an edit between the two is not in the log, or was taken back without it"
                )

    def _drop_torn_file(self) -> None:
        """The newest entry does not count if its file was not written to its end."""
        if self._lines and "file" in self._lines[-1]:
            line = self._lines[-1]
            path = self.folder / line["file"]
            if not path.is_file() or path.stat().st_size < line["bytes"]:
                LOG.warning(
                    "%s: entry %d was not written to its end (its file is missing or short) and is left out",
                    self.folder,
                    line["id"],
                )
                self._lines.pop()
                self._bytes -= len(chain.as_text(line).encode())


def _known(edits: list[int]) -> str:
    if not edits:
        return "the log has no edits"
    return (
        f"the edits are {edits[0]} to {edits[-1]}"
        if len(edits) > 8
        else f"the edits are {', '.join(map(str, edits))}"
    )
