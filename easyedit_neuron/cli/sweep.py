"""The end of a sweep: one table over its runs."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

LOG = logging.getLogger(__name__)


class ResultsTable(Callback):
    """Hydra calls it when all jobs of a multirun have ended."""

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        """Writes the table over the finished runs below the sweep's folder."""
        folder = Path(config.hydra.sweep.dir)
        runs = sorted((path.parent for path in folder.glob("*/run.json")), key=lambda run: (len(run.name), run.name))
        finished = [run for run in runs if (run / "summary.json").is_file()]
        unfinished = [run.name for run in runs if run not in finished]
        if unfinished:
            LOG.warning("not finished: %s; the same command goes on with them", ", ".join(unfinished))
