"""All numbers of a run as one long table."""

import csv
import io
from pathlib import Path
from typing import Any

from ...utils.io import append_text, write_text
from .callback import TrackedRun
from .records import Row
from .tracker import Tracker

FILE = "metrics.csv"


class CSVTracker(Tracker):
    """``tracking/metrics.csv``: a line for each number, ``edits,metric,value``.

    A run that continues writes the file anew, so that no line is repeated.
    """

    NAME = "csv"

    def _open(self, run: TrackedRun) -> None:
        write_text(self.folder / FILE, "edits,metric,value\n")

    def _log(self, rows: list[Row]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for step, values in rows:
            writer.writerows((step, name, repr(value)) for name, value in values.items())
        append_text(self.folder / FILE, text.getvalue())

    def _close(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        """Every line is on the disk already."""
