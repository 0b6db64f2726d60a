"""All callbacks of a run: told one after the other, without any effect on the run."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...utils.plain_trees import parse_json, read_json
from ...utils.random_state import random_states, set_random_states
from ..run_folder import RunFolder
from .callback import RunCallback, TrackedRun

LOG = logging.getLogger(__name__)
LONGEST = 400
"""Characters of a warning's reason."""


class Callbacks:
    """Tells every callback what happens; one that raises is left out, with a warning."""

    def __init__(self, callbacks: Sequence[RunCallback] = ()):
        self._active = list(callbacks)
        self._has_begun = False

    def begin(
        self, files: RunFolder, lines: list[dict], checkpoints: list[dict], readings: list[dict]
    ) -> None:
        """The run in ``files`` begins, or continues after these records."""
        if not self._active:
            return
        if self._has_begun:  # and was rolled back since
            self.end(None, [])
        self._has_begun = True
        run = read_json(files.run)
        config = {name: run[name] for name in ("command", "model")} | run["identity"]
        config = json.loads(_without_logins(json.dumps(config)))
        records = list(lines), list(checkpoints), list(readings)
        self._tell("on_begin", TrackedRun(files.folder, files.folder.resolve().name, config, *records))

    def begin_finished(self, files: RunFolder) -> None:
        """A finished run, for callbacks that do not have all of it (``RunCallback.is_complete``)."""
        self._active = [
            callback for callback in self._active if not self._is_complete(callback, files.folder)
        ]
        if self._active:
            self.begin(files, *map(_read_lines, (files.edits, files.checkpoints, files.guard)))

    def edits(self, lines: list[dict[str, Any]]) -> None:
        self._tell("on_edits", lines)

    def guard(self, reading: dict[str, Any]) -> None:
        self._tell("on_guard", reading)

    def checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._tell("on_checkpoint", checkpoint)

    def end(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        """The run is finished, or (``summary`` is None) this process leaves it."""
        self._tell("on_end", summary, pictures)
        self._has_begun = False

    def _is_complete(self, callback: RunCallback, folder: Path) -> bool:
        try:
            return callback.is_complete(folder)
        except Exception as problem:
            self._warn(callback, problem)
            return True

    def _tell(self, method: str, *args: Any) -> None:
        if not self._active or not self._has_begun:
            return
        states = random_states()
        try:
            for callback in list(self._active):
                try:
                    getattr(callback, method)(*args)
                except Exception as problem:
                    self._active.remove(callback)
                    self._warn(callback, problem)
        finally:
            set_random_states(states)

    def _warn(self, callback: RunCallback, problem: Exception) -> None:
        reason = " ".join(f"{type(problem).__name__}: {_without_logins(str(problem))}".split())[:LONGEST]
        LOG.warning("the callback %s is told nothing more, because it failed: %s", callback.name, reason)


def _without_logins(text: str) -> str:
    """The text with ``http://name:password@host`` as ``http://host``."""
    return re.sub(r"(://)[^/@\s\"]+@", r"\1", text)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
