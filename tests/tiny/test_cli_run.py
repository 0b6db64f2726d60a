"""The command from end to end on a tiny random model: what it writes, and that its numbers are those of the
parts."""

import json
import os
import subprocess
import sys

import pytest

from easyedit_neuron import NMKEHyperParams, apply_nmke_to_model, data, resources
from easyedit_neuron.cli import main
from easyedit_neuron.data.splits import sample
from easyedit_neuron.evaluation import evaluate_all, locality_reference
from helpers.tiny_models import tiny_model

PEOPLE = ("Anna Berg", "Peter Olsen", "Marie Lund")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    model, tok = tiny_model("llama")
    model.save_pretrained(folder / "model")
    tok.save_pretrained(folder / "model")
    edits = [
        {
            "subject": person,
            "prompt": f"{person} lives in",
            "target_new": "Oslo",
            "ground_truth": "Rome",
            "rephrase_prompt": f"The home of {person} is",
            "locality": {"Forgetfulness": [{"prompt": f"{person} plays", "ground_truth": "tennis"}]},
            "portability": {
                "Reasoning": [{"prompt": f"The country of {person} is", "ground_truth": "Norway"}]
            },
        }
        for person in PEOPLE
    ]
    (folder / "edits.json").write_text(json.dumps(edits))
    fact = {
        "prompt": "Anna Berg was born in",
        "ground_truth": "Paris",
        "subject": "Anna Berg",
        "relation": "born",
    }
    (folder / "facts.json").write_text(json.dumps([fact]))
    (folder / "text.txt").write_text(
        "".join(f"{person} was born in Paris and plays tennis.\n" for person in PEOPLE * 9)
    )
    return folder


@pytest.fixture
def arguments(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(world / "cache"))
    return [
        "model=tiny-llama",
        f"model.path={world}/model",
        "data=file",
        f"data.path={world}/edits.json",
        f"data.retained={world}/facts.json",
        f"data.text={world}/text.txt",
        f"method.mom2_dataset={world}/text.txt",
        "method.layers=[1,2]",
        "method.v_num_grad_steps=3",
        "method.nullspace_threshold=5",
        "edits=3",
        "evaluation.fluency=1",
        "evaluation.fluency_tokens=5",
        "output_dir=out",
        "runner.report=false",
    ]


def read(folder):
    lines = [json.loads(line) for line in (folder / "edits.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / "summary.json").read_text())


def test_the_first_records_can_be_left_out(world, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    command = [
        "method=ft",
        "method.num_steps=1",
        "method.layers=[1]",
        "model=tiny-llama",
        f"model.path={world}/model",
        "data=file",
        f"data.path={world}/edits.json",
        "evaluation=quick",
        "runner.report=false",
        "data.skip=1",
        "output_dir=out",
        "--quiet",
    ]
    assert main([*command, "edits=2"]) == 0
    assert [line["request"]["subject"] for line in read(tmp_path / "out")[0]] == list(PEOPLE[1:])
    assert main([*command, "edits=3"]) == 2 and "4 edits requested, the file has 3" in capfd.readouterr().err
    assert main([*command, "data.skip=-1"]) == 2 and "'skip': must be at least 0" in capfd.readouterr().err


def test_nmke_writes_what_the_parts_give(arguments, world, tmp_path, capfd):
    assert main(["method=nmke", *arguments[:-1], "runner.report=true"]) == 0
    out = capfd.readouterr().out
    assert (
        "NMKE on" in out
        and "mask density, layer 1" in out
        and out.rstrip().endswith("1 --out without-1")
        and "summary.json" in out
        and "report.html" in out
    )
    assert (
        "<svg" in (tmp_path / "out" / "report.html").read_text()
        and (tmp_path / "out" / "plots" / "edits.png").stat().st_size > 1000
    )
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    lines, summary = read(tmp_path / "out")
    assert [line["request"]["subject"] for line in lines] == list(PEOPLE)

    # The same edits by hand.
    hparams = NMKEHyperParams.from_dict(summary["hparams"])
    model, tok = tiny_model("llama")
    requests = data.load(world / "edits.json")
    reference = locality_reference(model, tok, requests)
    for line, request in zip(lines, requests):
        records = []
        apply_nmke_to_model(model, tok, [request], hparams, records=records)
        for layer, delta in records[0].layers.items():
            assert line["layers"][str(layer)]["density"] == pytest.approx(delta.density)
            # float32: weights read from disk lie at another alignment, for which BLAS rounds differently
            assert line["layers"][str(layer)]["leakage"] == pytest.approx(delta.leakage, rel=1e-5)
    final = evaluate_all(model, tok, requests, reference=reference)
    for line, metrics in zip(lines, final):
        assert line["final"]["rewrite_acc"] == metrics["rewrite_acc"]
        assert line["final"]["locality"]["Forgetfulness_acc"] == metrics["locality"]["Forgetfulness_acc"]
    mean = sum(metrics["rewrite_acc"][0] for metrics in final) / 3
    assert summary["results"]["final"]["rewrite_acc"] == pytest.approx(mean)
    assert summary["seed"] == 0 and summary["command"].startswith(
        "python -m easyedit_neuron method=nmke model=tiny-llama model.path="
    )


def test_overrides_reach_the_method(arguments, tmp_path, capfd):
    more = ["method.mask_stage=solve", "batch_size=2", "evaluation=quick", "seed=3"]
    assert main(["method=alphaedit", *arguments, *more]) == 0
    lines, summary = read(tmp_path / "out")
    assert (
        summary["hparams"]["mask_stage"],
        summary["hparams"]["batch_size"],
        summary["hparams"]["seed"],
    ) == ("solve", 2, 3)
    assert [line["batch"] for line in lines] == [0, 0, 1]
    assert all(line["immediate"] is None for line in lines) and "immediate" not in summary["results"]


def test_multirun_over_methods(arguments, tmp_path, capfd):
    assert main(["--multirun", "method=alphaedit,memit", *arguments, "edits=1"]) == 0
    summaries = [read(tmp_path / "out" / job)[1] for job in "01"]
    assert [summary["method"] for summary in summaries] == ["AlphaEdit", "MEMIT"]
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_fine_tuning_as_a_process(arguments, tmp_path):
    settings = [
        argument
        for argument in arguments
        if not argument.startswith(("method.mom2", "method.v_", "method.null"))
    ]
    environment = {**os.environ, "PYTHONPATH": str(resources.PACKAGE_DIR.parent)}
    command = [sys.executable, "-m", "easyedit_neuron", "method=ft", "method.num_steps=2", *settings]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines, summary = read(tmp_path / "out")
    assert "FT on" in done.stdout and summary["edits"] == 3
    assert lines[0]["layers"] == {} or set(lines[0]["layers"]) == {"1", "2"}


@pytest.mark.parametrize(
    "extra, part",
    [
        (["method=alphaedit", "edits=4"], "4 edits requested, the file has 3"),
        (["method=alphaedit", "method.layers=[1,9]"], "layer 9 is out of range"),
        (["method=alphaedit", "model.path=./nothing"], "there is no folder"),
        (["method=alphaedit", "data.retained=none.json"], "none.json"),
        (["method=alphaedit", "data.text=none.txt"], "none.txt"),
        (["method=alphaedit", "method.device=cuda:99"], "device"),
        (["method=rome", "batch_size=2"], "ROME edits one request at a time"),
    ],
)
def test_impossible_values(arguments, extra, part, capfd):
    assert main([*arguments, *extra]) == 2
    out, err = capfd.readouterr()
    assert out == "" and part in err and err.count("\n") == 1


def test_a_sample_is_drawn_and_noted(arguments, tmp_path, capfd):
    words = [*arguments, "method=fine", "edits=2", "data.sample_seed=1", "output_dir=drawn"]
    words = [word for word in words if not word.startswith("method.") and word != "edits=3"]
    assert main([*words, "method.last_layer=1", "method.neuron_num=3", "method.epochs=1"]) == 0, (
        capfd.readouterr()
    )
    lines = [json.loads(line) for line in (tmp_path / "drawn" / "edits.jsonl").read_text().splitlines()]
    numbers = [line["record"] for line in lines]
    assert numbers == sample(len(PEOPLE), 2, 1)
    assert [line["request"]["subject"] for line in lines] == [PEOPLE[number] for number in numbers]
