"""The log of a run's edits, cut back to the edit from which an interrupted run continues."""

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
    """``log/`` of a run's folder; absent where the settings say so or the method gives no ``EditRecord``.

    ``fingerprint`` is of the untouched model; ``batches`` is for a warning if the log will not fit the disk.
    """

    def __init__(self, folder: Path, enabled: bool, fingerprint: str | None, batches: int):
        self.folder, self.enabled, self.fingerprint, self.batches = folder, enabled, fingerprint, batches
        self._log: EditLog | None = None

    def begin(self) -> None:
        self._remove()
        if self.enabled:
            self._log = EditLog(self.folder, fingerprint=self.fingerprint)

    def resume(self, saved: dict[str, Any]) -> None:
        """Continue the log, without the entries after the saved state; their edits are made again.

        ``StateError`` where the log does not belong to the run's state; nothing is changed then.
        """
        count = saved["entries"]
        if self.enabled and count is None:
            LOG.info("the run was begun without a log of its edits, and continues without one")
        if not self.enabled or count is None:
            self._remove()
        elif count == 0:
            self.begin()
        else:
            log = EditLog(self.folder)
            if len(log.entries) < count or _digest(log.entries[count - 1]) != saved["head"]:
                raise StateError(
                    f"{self.folder}: not the log that the run's state belongs to (entry {count} is missing "
                    "or another one). Put the right one back, or go on without a log: runner.edit_log=false"
                )
            log.truncate(count)
            self._log = log

    def add(self, records: list, positions: range, metrics: list[dict | None]) -> None:
        """Add the batch of edits at ``positions`` of the stream, with its immediate metrics."""
        if self._log is None:
            return
        if not records or not all(isinstance(record, EditRecord) and record.weights for record in records):
            LOG.info("the method gives no records of its edits: no log")
            self._remove()
            return
        for record in records:
            record.info["run"] = {"edits": list(positions)}
            record.metrics = {"immediate": metrics} if any(metrics) else {}
            if self._log.append(record) == 1:
                self._warn_of_full_disk(self._log.entries[0]["bytes"])

    def saved_state(self) -> dict[str, Any]:
        """Number of entries and digest of the newest, for ``resume``; None for both without a log."""
        if self._log is None:
            return {"entries": None, "head": None}
        entries = self._log.entries
        return {"entries": len(entries), "head": _digest(entries[-1]) if entries else None}

    def _warn_of_full_disk(self, entry_bytes: int) -> None:
        needed, free = entry_bytes * self.batches, shutil.disk_usage(self.folder).free
        if needed > free:
            LOG.warning(
                "%s: the log takes %.1f MiB an edit, %.1f GiB in all, and %.1f GiB of the disk are free; "
                "runner.edit_log=false does without",
                *(self.folder, entry_bytes / 2**20, needed / 2**30, free / 2**30),
            )

    def _remove(self) -> None:
        self._log = None
        if self.folder.exists():
            remove_folder(self.folder)
        # A process may have been killed while it removed the folder.
        shutil.rmtree(self.folder.with_name(self.folder.name + PART), ignore_errors=True)


def _digest(entry: dict[str, Any]) -> str | None:
    """SHA-256 of the entry's file; for an entry of an earlier version, the hash of its line."""
    return entry.get("hash") or entry.get("sha256")
