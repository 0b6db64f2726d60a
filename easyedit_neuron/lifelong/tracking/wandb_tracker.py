"""A run in Weights & Biases, online or in its offline files."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from .callback import TrackedRun
from .records import Row
from .tracker import Tracker

PROJECT = "easyedit-neuron"
FINISH_SECONDS = 120.0
"""How long the end of a run waits for what is not uploaded yet."""


class WandbTracker(Tracker):
    """A run of the project ``WANDB_PROJECT``, with W&B's own settings (``WANDB_MODE`` and others).

    W&B takes each step once. Rows are therefore sent when they are complete, that is when the next batch
    begins. A run that continues online sends what the server does not have. Offline files cannot be
    continued: they are replaced by ones with the whole run.
    """

    NAME = "wandb"

    def _open(self, run: TrackedRun) -> None:
        import wandb  # takes a second

        if "id" not in self._note:
            self._write_note(id=secrets.token_hex(4))
        number = self._note["id"]
        for folder in (self.folder / "wandb").glob(f"offline-run-*-{number}"):
            shutil.rmtree(folder)
        options = {"console": "off", "save_code": False}
        options |= {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
        self._run = wandb.init(
            id=number,
            name=run.name,
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=str(self.folder),
            config=run.config,
            resume="allow",
            settings=wandb.Settings(**options),
        )
        # Of a run that continues online: its first step that the server does not have.
        self._first = self._run.starting_step
        self._edits, self._pending = -1, {}  # a row that may not be complete
        self._last: dict[str, float] = {}

    def _log(self, rows: list[Row]) -> None:
        for step, values in rows:
            if step != self._edits:
                self._send()
                self._edits, self._pending = step, {}
            self._pending |= values
            self._last |= values

    def _send(self) -> None:
        if self._pending and self._edits >= self._first:
            self._run.log(self._pending, step=self._edits, commit=True)
        self._pending = {}

    def _close(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        if summary is None:
            self._run.finish(exit_code=1)
            return
        import wandb

        self._pending |= {f"plots/{path.stem}": wandb.Image(str(path)) for path in pictures}
        self._edits = max(self._edits, self._first)  # the server may have the last row, without the pictures
        self._send()
        # Also where the run was rolled back, to a step that W&B has left behind.
        self._run.summary.update(self._last)
        self._run.finish(exit_code=0)
