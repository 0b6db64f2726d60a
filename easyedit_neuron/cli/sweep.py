"""The end of a sweep: one table over its runs."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .report import show

LOG = logging.getLogger(__name__)


class ResultsTable(Callback):
    """Hydra calls it when all jobs of a multirun have ended."""

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        """Writes the table over all runs below the sweep's folder, and says which of them are not finished."""
        folder = Path(config.hydra.sweep.dir)
        folders = sorted((path.parent for path in folder.glob("*/run.json")), key=lambda run: (len(run.name), run.name))
        unfinished = [run.name for run in folders if not (run / "summary.json").is_file()]
        if unfinished:
            LOG.warning("not finished: %s; the same command goes on with them", ", ".join(unfinished))
        if not folders:
            return
        from ..report.page import write_look  # imports torch, which --help does without
        from ..report.runs import read_runs
        from ..report.table import write_table

        runs = read_runs(folders)
        for name in ("results.csv", "results.md"):
            write_table(runs, folder / name)
        if config.runner.report:
            write_look(runs, folder)
        if not config.runner.quiet:
            show(f"\n{folder / 'results.md'}\n")
