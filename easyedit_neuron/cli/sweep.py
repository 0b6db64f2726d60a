"""A sweep: report the jobs that failed, which may be other processes, and write one table over all runs."""

import logging
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .output import fail, show

LOG = logging.getLogger(__name__)
FAILURE = "failed.txt"
"""In a job's folder: why it could not run. The processes of a launcher have no other way to tell."""

failed_jobs: set[str] = set()
"""Names of the folders of the present sweep's jobs whose failure has been reported."""


def note_failure(folder: Path, message: str) -> None:
    """In the process of a job: note that it has failed and has reported it."""
    failed_jobs.add(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).write_text(message, encoding="utf-8")


class ResultsTable(Callback):
    """Hydra calls it before and after the jobs of a multirun."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        """Forget the failures of an earlier start of the same sweep."""
        for note in Path(config.hydra.sweep.dir).glob(f"*/{FAILURE}"):
            note.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        """Report failures in other processes and unfinished runs; write the table over all runs."""
        folder = Path(config.hydra.sweep.dir)
        for note in sorted(folder.glob(f"*/{FAILURE}")):
            job = note.parent.name
            if job not in failed_jobs:
                failed_jobs.add(job)
                fail(f"job {job}: {note.read_text(encoding='utf-8')}")
        runs = [path.parent for path in folder.glob("*/run.json")]
        runs.sort(key=lambda run: (len(run.name), run.name))
        unfinished = [run.name for run in runs if not (run / "summary.json").is_file()]
        if unfinished:
            LOG.warning("not finished: %s; the same command continues them", ", ".join(unfinished))
        if runs:
            _write_results(runs, folder, config)


def _write_results(folders: list[Path], folder: Path, config: DictConfig) -> None:
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
