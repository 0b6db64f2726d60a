"""The log of a run's edits, cut with everything else to where the run goes on."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from ..editlog import EditLog
from ..edits.record import EditRecord
from ..errors import StateError
from ..utils.io import PART, remove_folder

LOG = logging.getLogger(__name__)


class RunLog:
    """``log/`` of a run's folder, or none: where the settings say so, and where the method gives no
    ``EditRecord``.

    Args:
        folder: of the log.
        wanted: ``runner.edit_log``.
        fingerprint: of the whole untouched model.
        batches: how many entries there will be, for a warning where they will not fit on the disk.
    """

    def __init__(self, folder: Path, wanted: bool, fingerprint: str | None, batches: int):
        self.folder, self.wanted, self.fingerprint, self.batches = folder, wanted, fingerprint, batches
        self._log: EditLog | None = None

    def begin(self, saved: dict[str, Any] | None = None) -> None:
        """A new log, or with what ``saved`` gave the entries up to there; those behind it are of edits that
        are made again.

        Raises:
            StateError: the log is not the one that the run's state belongs to. Nothing is changed.
        """
        if not self.wanted or saved is not None and saved["entries"] is None:
            if self.wanted:
                LOG.info("the run was begun without a log of its edits, and goes on without one")
            self._drop()
        elif saved is None or not saved["entries"]:
            self._drop()
            self._log = EditLog(self.folder, fingerprint=self.fingerprint)
        else:
            log, count = EditLog(self.folder), saved["entries"]
            if len(log.entries) < count or _digest(log.entries[count - 1]) != saved["head"]:
                raise StateError(
                    f"{self.folder}: not the log that the run's state belongs to (entry {count} is missing or "
                    f"another one). "
                    "Put the right one back, or go on without a log: runner.edit_log=false"
                )
            log.truncate(count)
            self._log = log

    def add(self, records: list, positions: range, metrics: list[dict | None]) -> None:
        """The batch of edits at ``positions`` of the stream, with what was measured right after it."""
        if self._log is None:
            return
        if not records or not all(isinstance(record, EditRecord) and record.weights for record in records):
            LOG.info("the method gives no records of its edits: no log")
            self._drop()
            return
        for record in records:
            record.info["run"] = {"edits": list(positions)}
            record.metrics = {"immediate": metrics} if any(metrics) else {}
            number = self._log.append(record)
            if number == 1:
                self._warn(self._log.entries[0]["bytes"])

    def saved(self) -> dict[str, Any]:
        """For ``begin``."""
        if self._log is None:
            return {"entries": None, "head": None}
        entries = self._log.entries
        return {"entries": len(entries), "head": _digest(entries[-1]) if entries else None}

    def _warn(self, size: int) -> None:
        needed, free = size * self.batches, shutil.disk_usage(self.folder).free
        if needed > free:
            LOG.warning(
                "%s: the log takes %.1f MiB an edit, %.1f GiB in all, and %.1f GiB of the disk are free; "
                "runner.edit_log=false "
                "does without",
                self.folder,
                size / 2**20,
                needed / 2**30,
                free / 2**30,
            )

    def _drop(self) -> None:
        self._log = None
        if self.folder.exists():
            remove_folder(self.folder)
        # of a process that was killed at it
        shutil.rmtree(self.folder.with_name(self.folder.name + PART), ignore_errors=True)


def _digest(entry: dict[str, Any]) -> str | None:
    """SHA-256 of the entry's file; for an entry of an earlier version, the hash of its line."""
    return entry.get("hash") or entry.get("sha256")
