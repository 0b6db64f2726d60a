"""Trackers of a run: their records are the run's own numbers, also of a run that was killed and continued."""

import json
import logging

import pytest

from easyedit_neuron.evaluation.guard import Guard
from helpers import tracked_runs
from helpers.lifelong_runs import make_world, outcome, start, warm_up
from helpers.tracked_runs import KILLED_AFTER, RUN, differences, exit_code, expected, pictures_of

REASON = "pip install 'easyedit-neuron[{}]': too large for 'make test'"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def untracked(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("untracked") / "run"
    start(world, out, **RUN)
    return out


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_a_killed_and_continued_run(world, untracked, tmp_path, tracker):
    """Two batches up to ``KILLED_AFTER`` were tracked and are made again. Every step is there once, in the
    table too, which is written beside each."""
    pytest.importorskip(tracker, reason=REASON.format(tracker))
    warm_up()
    out, uri = tmp_path / "run", (tmp_path / "mlruns").as_uri()
    environment = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    environment |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_FILE_STORE": "true"}
    callbacks = ["csv", tracker, "helpers.tracked_runs:Killer"]
    assert exit_code(environment, world, out, callbacks=callbacks, **RUN) == -9
    lines = (out / "edits.jsonl").read_text().splitlines()
    assert len(lines) == KILLED_AFTER and not (out / "summary.json").exists()
    note = (
        json.loads((out / "tracking" / f"{tracker}.json").read_text())
        if tracker in ("wandb", "mlflow")
        else {}
    )
    assert exit_code(environment, world, out, callbacks=callbacks, report=True, **RUN) == 0

    if tracker == "mlflow":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
            values, pictures, config = tracked_runs.read_mlflow(out, uri)
    else:
        values, pictures, config = getattr(tracked_runs, f"read_{tracker}")(out)
    truth = expected(out)
    assert {"edit/rel", "guard/perplexity", "checkpoint/drift_l2"} <= set(truth)
    assert list(truth["edit/rel"]) == [2, 4, 6, 8, 10, 12, 13] and set(truth["guard/rel"]) == {4, 6, 10, 12}
    # MLflow keeps what it was given first, so the seconds of these batches are of the time before the kill.
    again = [("edit/seconds", 8), ("edit/seconds", KILLED_AFTER)] if tracker == "mlflow" else []
    precision = 1e-6 if tracker == "tensorboard" else 0.0  # float32
    assert differences(values, truth, precision, again) == []
    extra = {name for name in values if name not in truth}
    assert all(name.startswith(("edit/stage/", "edit/density", "edit/leakage")) for name in extra)
    assert set(pictures) == pictures_of(out) != set()
    assert "strength" in config and "weights" in config
    assert differences(tracked_runs.read_csv(out)[0], truth) == []
    now = json.loads((out / "tracking" / f"{tracker}.json").read_text())
    assert now["complete"] is True and now.get("id") == note.get("id")
    assert outcome(out)["weights"] == outcome(untracked)["weights"]


def test_callbacks_are_told_and_change_nothing(world, tmp_path, caplog):
    """Noise of the method from all global generators, and callbacks that draw from them or fail."""
    options = dict(method="Noisy", edits=8, checkpoints=[4], guard_every=4, measure={"perplexity": 2})
    start(world, tmp_path / "plain", **options)
    from easyedit_neuron.cli import run as cli_run
    from helpers.lifelong_runs import hparams_of, settings_of

    settings, noisy = settings_of(world, tmp_path / "told", **options), tracked_runs.Noisy()
    hparams = hparams_of(world, tmp_path / "told", settings)
    with caplog.at_level(logging.WARNING):
        told = [tracked_runs.Broken(), noisy]
        cli_run.run(settings, hparams, tmp_path / "none", str(tmp_path / "told"), [], told)
    assert outcome(tmp_path / "told") == outcome(tmp_path / "plain")
    (warning,) = [record.message for record in caplog.records if "callback" in record.message]
    assert (
        warning == "the callback Broken is told nothing more, because it failed: OSError: http://host is gone"
    )
    edits = [("edits", [number]) for number in range(8)]
    checkpoints = [("guard", 4), ("checkpoint", 4)], [("guard", 8), ("checkpoint", 8)]
    begin = ("begin", 0, 1, "told", 8)
    assert noisy.told == [begin, *edits[:4], *checkpoints[0], *edits[4:], *checkpoints[1], ("end", 8, [])]


def test_a_run_that_is_finished_already(world, untracked, tmp_path):
    """The same command with a tracker tells it everything, once."""
    import shutil

    out = tmp_path / "run"
    shutil.copytree(untracked, out)
    start(world, out, callbacks=["csv"], **RUN)
    values, _, _ = tracked_runs.read_csv(out)
    assert differences(values, expected(out)) == []
    (out / "tracking" / "metrics.csv").write_text("mine")
    start(world, out, callbacks=["csv"], **RUN)
    assert (out / "tracking" / "metrics.csv").read_text() == "mine"


def test_a_run_that_is_rolled_back(world, tmp_path, monkeypatch):
    """What was tracked after the state that is kept is dropped."""
    import dataclasses

    read = Guard.read

    def broken(self, model, tok, count, requests):
        breaches = ["Rel 0.000, the limit is 0.9"] if count > 10 else []
        return dataclasses.replace(read(self, model, tok, count, requests), breaches=breaches)

    monkeypatch.setattr(Guard, "read", broken)
    options = {**RUN, "guard_action": "roll_back", "callbacks": ["csv", "tensorboard"]}
    pytest.importorskip("tensorboard")
    start(world, tmp_path / "run", **options)
    truth = expected(tmp_path / "run")
    assert list(truth["edit/rel"]) == [2, 4, 6, 8, 10] and set(truth["checkpoint/rel"]) == {0, 6, 10}
    for reader, precision in ((tracked_runs.read_csv, 0.0), (tracked_runs.read_tensorboard, 1e-6)):
        values, _, _ = reader(tmp_path / "run")
        assert differences(values, truth, precision) == []


def test_a_tracker_that_cannot_write(world, untracked, tmp_path, caplog):
    out = tmp_path / "run"
    out.mkdir()
    (out / "tracking").write_text("a file, where the folder should be")
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="holds tracking but no run.json"):
        start(world, out, callbacks=["csv"], **RUN)
    (out / "tracking").unlink()
    (out / "tracking.part").touch()

    def denied(*args, **options):
        raise PermissionError(13, "Permission denied", "tracking")

    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr("easyedit_neuron.lifelong.tracking.csv_tracker.append_text", denied)
        start(world, out, callbacks=["csv"], **RUN)
    (warning,) = [record.message for record in caplog.records if "callback" in record.message]
    assert warning.startswith("the callback csv is told nothing more") and "Permission denied" in warning
    assert outcome(out)["weights"] == outcome(untracked)["weights"]
    # The next time it gets everything.
    start(world, out, callbacks=["csv"], **RUN)
    assert differences(tracked_runs.read_csv(out)[0], expected(out)) == []
