"""A run as event files of TensorBoard."""

from pathlib import Path
from typing import Any

from .callback import TrackedRun
from .records import Row, flat_config
from .tracker import Tracker

FOLDER = "tensorboard"


class TensorBoardTracker(Tracker):
    """``tracking/tensorboard``: scalars, the configuration as text, pictures of the report.

    A run that continues writes a further file. It tells TensorBoard to drop all earlier steps, and has them
    once more.
    """

    NAME = "tensorboard"

    def _open(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        folder = self.folder / FOLDER
        continues = folder.is_dir() and any(folder.iterdir())
        self._writer = SummaryWriter(str(folder), purge_step=0 if continues else None)
        table = ["| | |", "|---|---|"]
        table += [f"| {name} | {value} |" for name, value in flat_config(run.config).items()]
        self._writer.add_text("config", "\n".join(table), 0)
        self._edits = 0

    def _log(self, rows: list[Row]) -> None:
        for step, values in rows:
            self._edits = step
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def _close(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        if pictures:
            import numpy
            from PIL import Image  # there with matplotlib, which has drawn them

            for path in pictures:
                pixels = numpy.asarray(Image.open(path).convert("RGB"))
                self._writer.add_image(f"plots/{path.stem}", pixels, self._edits, dataformats="HWC")
        self._writer.close()
