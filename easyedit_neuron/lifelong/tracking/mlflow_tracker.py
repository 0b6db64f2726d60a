"""A run in MLflow."""

import os
import re
import time
from pathlib import Path
from typing import Any

from .callback import TrackedRun
from .records import Row, flat_config
from .tracker import Tracker

EXPERIMENT = "easyedit-neuron"
LONGEST = 6000
"""Characters of a parameter's value that MLflow takes."""
MOST_PARAMETERS, MOST_METRICS = 100, 1000
"""Of one call."""


class MLflowTracker(Tracker):
    """A run of the experiment ``MLFLOW_EXPERIMENT_NAME``, at ``MLFLOW_TRACKING_URI`` or MLflow's default.

    MLflow keeps every value that it was given. A run that continues asks for the last step of each metric,
    and logs later ones alone.
    """

    NAME = "mlflow"

    def _open(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient  # takes seconds
        from mlflow.entities import Param

        self._client = MlflowClient()
        self._last_steps: dict[str, int] = {}
        self._continues = "id" in self._note
        if self._continues:
            self._client.update_run(self._note["id"], status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            self._write_note(id=self._client.create_run(number, run_name=run.name).info.run_id)
        config = flat_config(run.config).items()
        parameters = [Param(_valid(name), value[:LONGEST]) for name, value in config]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            part = parameters[start : start + MOST_PARAMETERS]
            self._client.log_batch(self._note["id"], params=part)

    def _log(self, rows: list[Row]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(_valid(name), value, now, step)
            for step, values in rows
            for name, value in values.items()
            if step > self._last_step(_valid(name))
        ]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._note["id"], metrics=metrics[start : start + MOST_METRICS])

    def _last_step(self, name: str) -> int:
        """Step of a metric's last value when this process began; -1 for none."""
        if not self._continues:
            return -1
        if name not in self._last_steps:
            history = self._client.get_metric_history(self._note["id"], name)
            self._last_steps[name] = max((metric.step for metric in history), default=-1)
        return self._last_steps[name]

    def _close(self, summary: dict[str, Any] | None, pictures: list[Path]) -> None:
        for path in pictures:
            self._client.log_artifact(self._note["id"], str(path), "plots")
        status = "KILLED" if summary is None else "FINISHED"
        self._client.set_terminated(self._note["id"], status)


def _valid(name: str) -> str:
    """The name without what MLflow refuses in names."""
    return re.sub(r"[^\w\-. /]", "_", name)
