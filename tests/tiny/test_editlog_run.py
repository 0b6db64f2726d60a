"""The log of a run, killed or not, and the commands on it as a user types them."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from easyedit_neuron.cli import main
from easyedit_neuron.editlog import EditLog, replay
from easyedit_neuron.errors import StateError
from helpers.lifelong_runs import Child, make_world, outcome, start, warm_up

OPTIONS = dict(
    method="NMKE", edits=5, checkpoints=[3], save_every_edits=2, measure={"fluency": 0, "perplexity": 0}
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    warm_up()
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "run"
    start(world, out, **OPTIONS)
    return out


def base_of(world):
    return AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32).eval()


def test_a_run_keeps_its_edits(run, world):
    """Every edit with its metrics; replayed on the base they are the run's weights."""
    log = EditLog(run / "log")
    lines = [json.loads(line) for line in (run / "edits.jsonl").read_text().splitlines()]
    assert log.ids == [1, 2, 3, 4, 5]
    for number, (entry, line) in enumerate(zip(log.entries, lines)):
        assert entry["run"] == {"edits": [number]} and entry["metrics"]["immediate"] == [line["immediate"]]
        assert (
            entry["requests"][0]["prompt"] == line["request"]["prompt"]
            and log[entry["id"]].metrics == entry["metrics"]
        )
    model = base_of(world)
    assert replay(log, model).exact
    assert all(
        torch.equal(value, model.get_parameter(name))
        for name, value in load_file(run / "weights.safetensors").items()
    )
    run_file = json.loads((run / "run.json").read_text())
    assert log.base.fingerprint == run_file["model"]["weights"] and log.base.name == str(world / "model")


@pytest.mark.parametrize("fault", [("replace", 14), ("replace", -17), ("fsync", 31), ("fsync", 46)])
def test_killed_and_continued(run, world, tmp_path, fault):
    """Dead at a write: before and after renames, with an entry in the log that the results do not know, with
    a file that no entry names. Continued, everything is that of the run that was not."""
    child = Child(world, tmp_path / "run", fault=fault, **OPTIONS)
    assert child.end() is None
    assert (tmp_path / "run" / "log").is_dir()
    assert Child(world, tmp_path / "run", **OPTIONS).end() == "finished"
    assert outcome(tmp_path / "run") == outcome(run)


def test_a_log_that_is_not_the_state_s_is_refused(world, tmp_path):
    out = tmp_path / "run"
    assert Child(world, out, fault=("fsync", 45), **OPTIONS).end() is None
    file = out / "log" / "entries.jsonl"
    first = file.read_text().splitlines(keepends=True)[0]
    file.write_text(first)
    with pytest.raises(
        StateError, match="not the log that the run's state belongs to .*runner.edit_log=false"
    ):
        start(world, out, **OPTIONS)
    assert file.read_text() == first
    start(world, out, **OPTIONS, edit_log=False)
    assert not (out / "log").exists() and (out / "summary.json").is_file()


def test_methods_without_records_have_no_log(world, tmp_path):
    start(world, tmp_path / "dummy", **{**OPTIONS, "method": "Dummy", "edits": 2})
    assert not (tmp_path / "dummy" / "log").exists()


# -- commands
# ------------------------------------------------------------------------------------------------------------


def call(capsys, *arguments, code=0):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_log(run, capsys):
    output = call(capsys, "log", run, "--verify")
    assert "5 edits in the weights, 5 entries" in output and "5 entries verified" in output
    row = next(line for line in output.splitlines() if line.startswith("3 "))
    assert "NMKE" in row and "2 weights, rank 1" in row
    entries = [json.loads(line) for line in call(capsys, "log", run / "log", "--json").splitlines()]
    assert entries == EditLog(run / "log").entries


def test_undo_replay_diff_squash(run, world, tmp_path, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    output = call(capsys, "undo", run, 4, 2, "--out", tmp_path / "minus")
    assert "edit 4 taken out" in output and "2 weights with 3 edits" in output
    log = EditLog(tmp_path / "minus" / "log")
    assert log.ids == [1, 3, 5] and [entry.get("of") for entry in log.entries[5:]] == [4, 2]
    weights, model = load_file(tmp_path / "minus" / "weights.safetensors"), base_of(world)
    assert replay(log, model).exact
    assert (
        all(torch.equal(value, model.get_parameter(name)) for name, value in weights.items())
        and len(weights) == 2
    )
    assert "not in the weights" in call(capsys, "log", tmp_path / "minus")

    assert "bit for bit" in call(capsys, "replay", run, "--out", tmp_path / "again")
    assert (tmp_path / "again" / "weights.safetensors").exists()
    for name, value in load_file(tmp_path / "again" / "weights.safetensors").items():
        assert torch.equal(value, load_file(run / "weights.safetensors")[name])
    assert "3 edits on" in call(
        capsys, "replay", run, "--upto", 4, "--without", 2, "--out", tmp_path / "some"
    )
    assert len(EditLog(tmp_path / "some" / "log")) == 3

    output = call(capsys, "diff", f"{run}@4", tmp_path / "minus")
    assert "edits in both: 2; only in A: 2 (2, 4); only in B: 1 (5)" in output
    difference = json.loads(call(capsys, "diff", run, tmp_path / "minus", "--json"))
    assert difference["only_a"] == [2, 4] and difference["only_b"] == []

    assert "5 edits as one" in call(capsys, "squash", run, "--out", tmp_path / "one")
    squashed = load_file(tmp_path / "one" / "weights.safetensors")
    for name, value in load_file(run / "weights.safetensors").items():
        torch.testing.assert_close(squashed[name], value, rtol=0, atol=1e-6)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_undo_without_kept_weights(run, tmp_path, capsys):
    """They are made again from the log."""
    EditLog(run / "log").copy(tmp_path / "bare" / "log")
    call(capsys, "undo", tmp_path / "bare", 4, "--out", tmp_path / "bare-minus")
    call(capsys, "undo", run, 4, "--out", tmp_path / "minus")
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("bare-minus", "minus"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_refusals(run, world, tmp_path, capsys):
    for arguments, reason in (
        (("undo", run, 9, "--out", tmp_path / "x"), "there is no edit 9; the edits are 1, 2, 3, 4, 5"),
        (
            ("undo", run, 2, 2, "--out", tmp_path / "x"),
            "edit 2 is not in the weights any more: entry 6 took it back",
        ),
        (("undo", run, 2, "--out", run), "exists already; name another folder"),
        (("undo", run, 2, "--out", tmp_path / "x", "--model", "tiny-llama"), "not the log's base"),
        (
            ("undo", run, 2, "--out", tmp_path / "x", "--model", "./nowhere"),
            "there is no folder './nowhere'; --model",
        ),
        (
            ("replay", run, "--only", "7-9", "--out", tmp_path / "x"),
            "--only 7-9: no edit 7-9 is in the weights",
        ),
        (("log", world), "holds no log of edits"),
        (("log", tmp_path / "nowhere"), "there is no such folder"),
        (("diff", run, f"{run}@9"), "there is no entry 9"),
        (("udno", run, 2), "unknown command 'udno': did you mean 'undo'?"),
    ):
        output = call(capsys, *arguments, code=2)
        assert reason in output and output.count("\n") == 1, output
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.part").exists()
    assert "usage: easyedit-neuron undo" in call(capsys, "undo", run, code=2)


def test_from_the_shell(run, tmp_path):
    """As typed, in a process of its own: the help names the commands, and undo works."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "easyedit_neuron", "undo", str(run), "1", "--out", "minus"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "edit 1 taken out" in done.stdout and (tmp_path / "minus" / "weights.safetensors").is_file()
    helped = subprocess.run(
        [sys.executable, "-m", "easyedit_neuron", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (
        "easyedit-neuron edit|ask|serve|demo|tune|bench|paper|model|arch|log|undo|replay|diff"
        in helped.stdout
    )
