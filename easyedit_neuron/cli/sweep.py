"""A sweep: its jobs may be processes of their own; what failed is said, and the end is one table over all
runs."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .fail import fail

LOG = logging.getLogger(__name__)
FAILURE = "failed.txt"
"""In a job's folder: why it could not run. A launcher's processes have no other way to say it here."""

failed: set[str] = set()
"""Names of the jobs' folders, of the sweep under way."""


def note_failure(folder: Path, message: str) -> None:
    """Notes, in the process of a job, that it has failed and has said so."""
    failed.add(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).write_text(message, encoding="utf-8")


class ResultsTable(Callback):
    """Hydra calls it before and after the jobs of a multirun."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        """Forgets failures of the same sweep's last start."""
        for note in Path(config.hydra.sweep.dir).glob(f"*/{FAILURE}"):
            note.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        """Says what other processes have failed at and which runs are not finished; writes the table over all
        runs."""
        folder = Path(config.hydra.sweep.dir)
        for note in sorted(folder.glob(f"*/{FAILURE}")):
            job = note.parent.name
            if job not in failed:
                failed.add(job)
                fail(f"job {job}: {note.read_text(encoding='utf-8')}")
        folders = sorted(
            (path.parent for path in folder.glob("*/run.json")), key=lambda run: (len(run.name), run.name)
        )
        unfinished = [run.name for run in folders if not (run / "summary.json").is_file()]
        if unfinished:
            LOG.warning("not finished: %s; the same command goes on with them", ", ".join(unfinished))
        if not folders:
            return
        from ..report.page import write_look  # imports torch, which --help does without
        from ..report.runs import read_runs
        from ..report.table import write_table
        from .report import show

        runs = read_runs(folders)
        for name in ("results.csv", "results.md"):
            write_table(runs, folder / name)
        if config.runner.report:
            write_look(runs, folder)
        if not config.runner.quiet:
            show(f"\n{folder / 'results.md'}\n")
