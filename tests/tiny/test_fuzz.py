"""Damaged inputs end in success or in one clear line of ours, and change nothing else.

``make test`` tries a share of them, ``make fuzz`` all; ``FUZZ_SEED=1`` others, ``FUZZ_ONLY=NUMBER`` one of a
kind. The counts are printed (``pytest -s``).
"""

from easyedit_neuron.cli import run as cli_run
from helpers import fuzz_commands, fuzz_folders, fuzz_values
from helpers.fuzzing import fuzz


def check(tally):
    assert not tally.problems, f"{tally}\n" + "\n".join(tally.problems)


def test_requests(tmp_path, here):
    check(fuzz("requests", 360, fuzz_values.Requests(tmp_path).attempt))


def test_data_files(tmp_path):
    check(fuzz("data files", 360, fuzz_values.DataFiles(tmp_path / "data").attempt))


def test_hyperparameters(tmp_path):
    check(fuzz("hyperparameters", 360, fuzz_values.Hyperparameters(tmp_path / "hparams").attempt))


def test_overrides(tmp_path, monkeypatch):
    inputs = fuzz_values.Overrides(tmp_path / "overrides")
    (inputs.folder / "here").mkdir()
    monkeypatch.chdir(inputs.folder / "here")

    def begin(*_):
        raise SystemExit(0)

    monkeypatch.setattr(cli_run, "_edit", begin)
    check(fuzz("overrides", 240, inputs.attempt))


def test_states(tmp_path):
    check(fuzz("states", 150, fuzz_folders.States(tmp_path / "states").attempt))


def test_logs(tmp_path):
    check(fuzz("logs", 300, fuzz_folders.Logs(tmp_path / "logs").attempt))


def test_exports(tmp_path):
    check(fuzz("exports", 200, fuzz_folders.Exports(tmp_path / "exports").attempt))


def test_statistics(tmp_path):
    check(fuzz("statistics", 100, fuzz_folders.Statistics(tmp_path / "statistics").attempt))


def test_reports(tmp_path):
    check(fuzz("reports", 240, fuzz_folders.Reports(tmp_path / "reports").attempt))


def test_commands(tmp_path, monkeypatch):
    inputs = fuzz_commands.Commands(tmp_path / "commands", monkeypatch)
    monkeypatch.chdir(tmp_path)
    check(fuzz("commands", 360, inputs.attempt))


def test_models(tmp_path):
    check(fuzz("models", 150, fuzz_commands.Models(tmp_path / "models").attempt))


def test_chat_templates():
    check(fuzz("chat templates", 120, fuzz_commands.ChatTemplates().attempt))


def test_named_files(tmp_path):
    check(fuzz("named files", 240, fuzz_commands.NamedFiles(tmp_path / "files").attempt))
