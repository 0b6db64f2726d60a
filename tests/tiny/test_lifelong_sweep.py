"""Sweeps: isolated jobs, one table, unfinished jobs resumed; a job that cannot run does not take the others
along."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import easyedit_neuron
from easyedit_neuron.cli import main
from helpers.lifelong_runs import make_world, without_times


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), count=6)


@pytest.fixture
def arguments(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    return [
        "model=tiny-llama",
        f"model.path={world}/model",
        "data=file",
        f"data.path={world}/edits.json",
        "evaluation=quick",
        "edits=3",
        "runner.checkpoints=[2]",
        "runner.report=false",
        "runner.save_every_edits=1",
        "method.layers=[1,2]",
    ]


OURS = ["method.v_num_grad_steps=2", "method.nullspace_threshold=5", "method.mom2_n_samples=20"]


def results(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return summary["weights"], without_times(summary["results"])


def test_jobs_share_nothing_and_make_one_table(arguments, world, tmp_path, capfd):
    method_settings = [*OURS, f"method.mom2_dataset={world}/text.txt"]
    sweep = ["--multirun", "method=nmke,alphaedit", *arguments, *method_settings]
    assert main([*sweep, "run=sweep"]) == 0
    out = capfd.readouterr().out
    folder = tmp_path / "results" / "sweep"
    assert str(folder.relative_to(tmp_path) / "results.md") in out
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert len([row for row in rows if row["run"] != "untouched model"]) == 2
    # the second job alone
    assert main(["method=alphaedit", *arguments, *method_settings, "run=alone", "--quiet"]) == 0
    assert capfd.readouterr().out == ""
    assert results(folder / "1") == results(tmp_path / "results" / "alone") != results(folder / "0")
    # the same command once more: what is finished stays, what is not is made
    written = (folder / "0" / "edits.jsonl").stat().st_mtime_ns
    expected = results(folder / "1")
    shutil.rmtree(folder / "1")
    assert main([*sweep, "run=sweep"]) == 0
    assert (
        folder / "0" / "edits.jsonl"
    ).stat().st_mtime_ns == written and "0 is finished" in capfd.readouterr().err
    assert results(folder / "1") == expected


def test_jobs_in_processes_of_their_own(arguments, tmp_path, capfd, monkeypatch):
    """Hydra's submitit launcher on this machine: as its jobs on a cluster, with the GPUs that the launcher
    gives them."""
    alone = ["method=ft", "method.num_steps=2", *arguments, "method.layers=[1]", "--quiet"]
    assert main([*alone, "run=alone"]) == 0
    monkeypatch.setenv(
        "PYTHONPATH", str(Path(easyedit_neuron.__file__).parents[1])
    )  # where it is not installed
    launcher = [
        "hydra/launcher=submitit_local",
        "hydra.launcher.timeout_min=5",
        "hydra.launcher.gpus_per_node=1",
    ]
    sweep = ["--multirun", *launcher, *alone[:-2], "method.layers=[1],[9]", "run=sweep", "--quiet"]
    assert main(sweep) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err and "layer 9 is out of range" in err, err
    folder = tmp_path / "results" / "sweep"
    assert (
        results(folder / "0") == results(tmp_path / "results" / "alone")
        and not (folder / "1" / "summary.json").exists()
    )
    assert json.loads((folder / "0" / "run.json").read_text())["machine"]["CUDA_VISIBLE_DEVICES"] == "0"
    # what is finished stays
    assert main([*sweep[:-4], "method.layers=[1]", *sweep[-2:]]) == 0


def test_one_job_that_cannot_run(arguments, tmp_path, capfd):
    assert (
        main(
            [
                "--multirun",
                "method=ft",
                "method.num_steps=1",
                "seed=0,1",
                "run=sweep",
                *arguments[:-1],
                "method.layers=[1],[9]",
            ]
        )
        == 2
    )
    out, err = capfd.readouterr()
    assert err.count("layer 9 is out of range") == 2 and "Traceback" not in err
    finished = [path.parent.name for path in (tmp_path / "results" / "sweep").glob("*/summary.json")]
    assert sorted(finished) == ["0", "2"]


def test_names_of_runs(arguments, tmp_path, capfd):
    command = ["method=ft", "method.num_steps=1", *arguments]
    assert main([*command, "run=mine"]) == 0
    assert main([*command, "run=mine", "seed=3"]) == 2
    err = capfd.readouterr().err
    assert "settings.seed: 0 in the folder, 3 now" in err and "run=NAME" in err
    assert (
        main([*command, "run=mine", "runner.orders=file"]) == 2
        and "did you mean 'runner.order'" in capfd.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
