"""What all trackers share: the rows of a run in order, and a note in its folder."""

import json
from pathlib import Path
from typing import Any

from ...utils.io import write_text
from ...utils.plain_trees import read_json
from ..run_folder import RunFolder
from .callback import RunCallback, TrackedRun
from .records import Row, checkpoint_row, edit_row, guard_row, rows_of


class Tracker(RunCallback):
    """Brings rows of numbers to one place.

    ``tracking/NAME.json`` notes the ``id`` of the tracked run and, at the end, that the tracker was told
    everything.
    """

    NAME = ""

    def __init__(self) -> None:
        self.folder = Path()
        self._note: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return self.NAME

    def on_begin(self, run: TrackedRun) -> None:
        self.folder = RunFolder(run.folder).tracking
        self.folder.mkdir(exist_ok=True)
        self._note = self._read_note(run.folder)
        self._open(run)
        self._log(rows_of(run))

    def on_edits(self, lines: list[dict[str, Any]]) -> None:
        self._log([edit_row(lines)])

    def on_guard(self, reading: dict[str, Any]) -> None:
        self._log([guard_row(reading)])

    def on_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._log([checkpoint_row(checkpoint)])

    def on_end(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        self._close(summary, pictures)
        if summary is not None:
            self._write_note(complete=True)

    def is_complete(self, folder: Path) -> bool:
        return bool(self._read_note(folder).get("complete"))

    def _open(self, run: TrackedRun) -> None:
        """Begin or continue; afterwards all rows of ``run`` are logged, also those that were before."""
        raise NotImplementedError

    def _log(self, rows: list[Row]) -> None:
        """Take in rows, in ascending order of steps."""
        raise NotImplementedError

    def _close(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        """Write what is left; ``summary`` and ``pictures`` as in ``on_end``."""
        raise NotImplementedError

    def _write_note(self, **values: Any) -> None:
        self._note |= values
        write_text(self.folder / f"{self.NAME}.json", json.dumps(self._note) + "\n")

    def _read_note(self, folder: Path) -> dict[str, Any]:
        path = RunFolder(folder).tracking / f"{self.NAME}.json"
        note = read_json(path) if path.is_file() else {}
        return note if isinstance(note, dict) else {}
