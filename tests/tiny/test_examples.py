"""Every script of ``examples/`` on two edits of tiny-world, under the built-in editor."""

import json
import os
import subprocess
import sys

import numpy
import pytest

from easyedit_neuron import data, resources
from easyedit_neuron.errors import NeuronEditError
from helpers.examples import EXAMPLES, quick, run


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYEDIT_NEURON_HOST", "builtin")
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hparams")
    return lambda method, **changes: quick(method, folder, **changes)


@pytest.mark.parametrize("method", ["NMKE", "PNKE", "FiNE", "KNE", "AlphaEdit", "MEMIT", "ROME", "FT"])
def test_zsre(files, method, tmp_path, capsys):
    run(
        "run_nmke_zsre.py",
        "--editing_method",
        method,
        "--hparams_dir",
        files(method),
        "--ds_size",
        2,
        "--metrics_save_dir",
        "out",
    )
    metrics = json.loads((tmp_path / "out" / f"{method}_results.json").read_text())
    assert [metric["requested_rewrite"] for metric in metrics] == data.load("tiny-world", "zsre", 2)
    assert all("neighborhood_acc" in metric["post"]["locality"] for metric in metrics)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[:2]] == [
        "before",
        "after",
    ]


def test_zsre_finds_its_file_in_a_folder(files, tmp_path):
    records = json.loads((resources.data_dir("tiny-world") / "edits_zsre.json").read_text())
    (tmp_path / "zsre_mend_eval_portability_gpt4.json").write_text(json.dumps(records[7:9]))
    run(
        "run_nmke_zsre.py",
        "--editing_method",
        "FT",
        "--hparams_dir",
        files("FT"),
        "--ds_size",
        1,
        "--data_dir",
        tmp_path,
    )
    (metric,) = json.loads((tmp_path / "output" / "FT_results.json").read_text())
    assert metric["requested_rewrite"]["subject"] == records[7]["subject"]


def test_counterfact(files, tmp_path, capsys):
    arguments = ["--editing_method", "FT", "--hparams_dir", files("FT", num_steps=10), "--ds_size", 2]
    run("run_counterfact.py", *arguments)
    run("run_counterfact.py", *arguments, "--sequential_edit", "--metrics_save_dir", "out")
    single = json.loads((tmp_path / "outputs" / "tiny-llama_FT_N=2_Sequential=False.json").read_text())
    sequential = json.loads((tmp_path / "out" / "tiny-llama_FT_N=2_Sequential=True.json").read_text())
    assert [metric["post"] for metric in single][0] == [metric["post"] for metric in sequential][0]
    # the last edit is measured on the same model twice; the first has had another edit since
    assert "final" not in single[0] and sequential[1]["final"] == sequential[1]["post"]
    assert sequential[0]["final"]["rewrite_acc"] and "neighborhood_acc" in sequential[0]["final"]["locality"]
    assert "all edits in the end" in capsys.readouterr().out


def test_knowedit(files, tmp_path, capsys):
    arguments = [
        "--editing_method",
        "FiNE",
        "--hparams_dir",
        files("FiNE", epochs=25),
        "--ds_size",
        2,
        "--pre_file",
        "pre.json",
    ]
    run("run_knowedit.py", *arguments, "--datatype", "recent", "--test_generation")
    metrics = json.loads((tmp_path / "output" / "FiNE_recent_tiny-llama_results.json").read_text())
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines() if ": " in line)

    def overall(
        section,
    ):  # as EasyEdit's script: mean over an edit's kinds, then over the edits that have any
        edits = [
            [
                100 * sum(values) / len(values)
                for name, values in metric["post"][section].items()
                if name.endswith("_acc")
            ]
            for metric in metrics
        ]
        return numpy.mean([numpy.mean(kinds) for kinds in edits if kinds])

    edited = [metric["post"] for metric in metrics]
    assert float(printed["Edit_Succ"]) == pytest.approx(
        100 * numpy.mean([post["rewrite_acc"][0] for post in edited]), abs=0.01
    )
    for section in ("portability", "locality"):
        assert float(printed[f"Overall_{section}"]) == pytest.approx(overall(section), abs=0.01)
    fluency = 100 * numpy.mean([post["fluency"]["ngram_entropy"] for post in edited])
    assert float(printed["Fluency"]) == pytest.approx(fluency, abs=0.01)
    assert float(printed["Edit_Succ"]) > 50

    pre = json.loads((tmp_path / "pre.json").read_text())
    pre[0]["pre"]["rewrite_acc"] = [0.123]
    (tmp_path / "pre.json").write_text(json.dumps(pre))
    run("run_knowedit.py", *arguments)
    assert json.loads((tmp_path / "output" / "FiNE_zsre_tiny-llama_results.json").read_text())[0]["pre"][
        "rewrite_acc"
    ] == [0.123]


def test_lifelong(files, tmp_path, capsys):
    edits = tmp_path / "a file, and 'more'=x.json"
    edits.write_text((resources.data_dir("tiny-world") / "edits_counterfact.json").read_text())
    arguments = [
        "--editing_method",
        "FT",
        "--hparams_dir",
        files("FT"),
        "--data_dir",
        edits,
        "--ds_size",
        4,
        "--batch_size",
        2,
        "--output_dir",
        "out=1",
        "--",
        "evaluation=quick",
        "runner.report=false",
    ]
    for said in ("4 sequential edits", "is finished"):
        with pytest.raises(SystemExit) as stop:
            run("run_lifelong.py", *arguments)
        captured = capsys.readouterr()
        assert stop.value.code == 0 and said in captured.out + captured.err
    summary = json.loads((tmp_path / "out=1" / "summary.json").read_text())
    assert summary["batch_size"] == 2 and summary["edits"] == 4 and summary["hparams"]["num_steps"] == 3


def test_what_a_script_cannot_do_is_said(files):
    with pytest.raises(NeuronEditError, match="unknown method 'GRACE'"):
        run("run_nmke_zsre.py", "--editing_method", "GRACE", "--hparams_dir", files("FT"))
    with pytest.raises(NeuronEditError, match="unknown field 'averaged_keys' for FTHyperParams"):
        run("run_nmke_zsre.py", "--editing_method", "FT", "--hparams_dir", files("ROME"))


def test_sweep(tmp_path):
    options = {"METHODS": "ft", "EDITS": "2", "RUN": "one", "PYTHON": sys.executable}
    path = os.pathsep.join(filter(None, [str(EXAMPLES.parent), os.environ.get("PYTHONPATH")]))
    quick = [
        "method.num_steps=1",
        "evaluation=quick",
        "evaluation.retained=5",
        "evaluation.perplexity=0",
        "runner.report=false",
    ]
    done = subprocess.run(
        [str(EXAMPLES / "sweep.sh"), "model=tiny-llama", "data=tiny-world", *quick],
        cwd=tmp_path,
        env={**os.environ, **options, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "results" / "one" / "0" / "summary.json").read_text())["edits"] == 2
    table = (tmp_path / "results" / "one" / "results.md").read_text()
    assert done.stdout.endswith(table) and "| FT |" in table
