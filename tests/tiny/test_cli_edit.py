"""Edits by hand: edit, ask, undo, on the small model that ships with the package."""

import json

import pytest

from easyedit_neuron import data, resources
from easyedit_neuron.cli import main
from easyedit_neuron.editlog import EditLog
from easyedit_neuron.hyperparameters.base import read_hparams

LOG = "easyedit-neuron-edits"


@pytest.fixture
def facts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return data.load("tiny-world", size=2)


def command(fact, *options):
    words = [fact["prompt"], "--subject", fact["subject"], "--target", fact["target_new"]]
    return ["edit", *words, "--model", "tiny-llama", "--method", "FiNE", *options]


def test_edit_ask_undo_and_ask_again(facts, capsys):
    first, second = facts
    neighbour = first["locality"]["Neighborhood"]["prompt"][0]
    options = ["--rephrase", first["rephrase_prompt"], "--neighbour", neighbour]
    assert main(command(first, *options)) == 0
    shown = capsys.readouterr().out
    assert f"Edit 1 with FiNE, kept in {LOG}: {first['prompt']} -> {first['target_new']}" in shown
    blocks = shown.split("edited  ")[1].splitlines()
    assert blocks[1].strip() == f"before ... {first['ground_truth']}."
    assert blocks[2].strip() == f"now    ... {first['target_new']}."
    rephrased = shown.split("rephrased")[1].splitlines()
    assert first["rephrase_prompt"] in rephrased[0] and first["target_new"] in rephrased[2]
    beside = shown.split("neighbour")[1].splitlines()
    assert neighbour in beside[0] and beside[1].split("...")[1] == beside[2].split("...")[1]
    assert f"easyedit-neuron undo {LOG} 1" in shown

    # The second edit is made on top of the first.
    assert main(command(second)) == 0
    assert "Edit 2 with FiNE" in capsys.readouterr().out
    assert EditLog(LOG).ids == [1, 2]
    assert main(["ask", LOG, first["prompt"], second["prompt"]]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("2 edits") and f"now    ... {first['target_new']}." in shown
    assert f"now    ... {second['target_new']}." in shown

    assert main(["squash", LOG, "--out", "/dev/null/x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["undo", LOG, "1"]) == 0
    assert "edit 1 taken out" in capsys.readouterr().out
    assert EditLog(LOG).ids == [2]
    assert main(["ask", LOG, first["prompt"], second["prompt"]]) == 0
    shown = capsys.readouterr().out
    assert f"now    ... {first['ground_truth']}." in shown and f"now    ... {second['target_new']}." in shown


def test_an_edit_that_adds_a_neuron_is_shared_as_rows(facts, capsys):
    assert main(command(facts[0], "--method", "lasting")) == 0
    shown = capsys.readouterr().out
    assert f"easyedit-neuron export {LOG} --to sparse --out shared-edits" in shown
    neighbour = facts[0]["locality"]["Neighborhood"]["prompt"][0]
    assert main(["ask", LOG, facts[0]["prompt"], neighbour]) == 0
    asked, beside = capsys.readouterr().out.split("asked")[1:]
    assert f"the neuron of edit 1 ({facts[0]['subject']}) responds at " in asked and asked.rstrip().endswith(
        ": 1.00"
    )
    assert "neuron" not in beside
    assert main(["export", LOG, "--to", "sparse", "--out", "shared-edits"]) == 0
    assert main(["undo", LOG, "1"]) == 0 and EditLog(LOG).ids == []


def test_the_method_is_the_files_or_the_first_that_has_settings(facts, tmp_path, capsys):
    """Without --method: that of --hparams; Lasting where it has settings for the model; else AlphaEdit."""
    words = [word for word in command(facts[0]) if word not in ("--method", "FiNE")]
    assert main(words) == 0
    assert "Edit 1 with Lasting" in capsys.readouterr().out
    file = tmp_path / "mine.json"
    values = read_hparams(resources.hparams_path("FiNE/tiny-llama")) | {"epochs": 2}
    file.write_text(json.dumps(values))
    assert main([*words, "--hparams", str(file), "--log", "other"]) == 0
    assert "Edit 1 with FiNE" in capsys.readouterr().out
    assert main([*words, "--model", "gpt2-xl", "--log", "third"]) == 2
    # AlphaEdit's settings are there, the model is not
    assert "model_name 'openai-community/gpt2-xl' cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--subject", "Nobody"], "does not occur in prompt"),
        (["--method", "FT"], "FT gives no record of its edits, so that none can be kept"),
        (["--method", "AlphaEditt"], "did you mean 'AlphaEdit'"),
        (["--model", "./nowhere"], "no hyperparameters for FiNE on './nowhere'"),
        (["--model", "smollm2-135m-instruct"], "easyedit-neuron model get smollm2-135m-instruct"),
    ],
)
def test_mistakes_leave_no_log(facts, options, part, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    assert main([*command(facts[0]), *options]) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
    assert not (tmp_path / LOG).exists()


def test_undo_of_a_run_needs_a_folder(facts, tmp_path, capsys):
    assert main(command(facts[0], "--log", "run/log")) == 0
    assert main(["undo", "run", "1"]) == 2
    assert "--out DIR is needed" in capsys.readouterr().err
    assert EditLog("run/log").ids == [1]
