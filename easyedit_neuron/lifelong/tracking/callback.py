"""The interface through which a run of edits is followed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrackedRun:
    """A run as it is when it begins or continues in this process.

    Attributes:
        folder: the run's files; what a callback keeps belongs into ``folder / "tracking"``.
        name: name of the folder.
        config: what ``run.json`` says of the run: settings, hyperparameters, fingerprints, versions.
        lines: objects of ``edits.jsonl`` so far; a new run has none.
        checkpoints: objects of ``checkpoints.jsonl`` so far; the first is the untouched model.
        readings: objects of ``guard.jsonl`` so far.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    lines: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    readings: list[dict[str, Any]] = field(default_factory=list)


class RunCallback:
    """What a run of edits tells; every method does nothing here.

    An exception ends the callback and not the run: one warning, and it is told nothing more in this process.
    What a callback draws from Python's, numpy's and torch's global generators does not change the run. The
    objects that it is given belong to the run and must not be changed.
    """

    @property
    def name(self) -> str:
        """How warnings call it."""
        return type(self).__name__

    def on_begin(self, run: TrackedRun) -> None:
        """The run begins, or continues after the records in ``run``.

        Edits that were told before and are not in ``run.lines`` are made again. A guard that rolls the run
        back lets it begin once more in the same process.
        """

    def on_edits(self, lines: list[dict[str, Any]]) -> None:
        """A batch of edits was made: its objects of ``edits.jsonl``, with ``immediate`` metrics."""

    def on_guard(self, reading: dict[str, Any]) -> None:
        """The guard has asked its canaries: the object of ``guard.jsonl``."""

    def on_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """All edits so far were measured: the object of ``checkpoints.jsonl``."""

    def on_end(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        """The run is finished, or this process leaves it.

        ``summary``: the content of ``summary.json``; None where the run can be continued. ``pictures``: PNG
        files of the report.
        """

    def is_complete(self, folder: Path) -> bool:
        """Whether the finished run in ``folder`` has nothing more to tell; True by default.

        Otherwise the same command begins and ends it with all of its records.
        """
        return True
