"""The studies as commands: rows of every setting, both protocols, and the model as it was in between."""

import csv

import pytest
import torch

from easyedit_neuron import data
from easyedit_neuron.errors import EditError
from easyedit_neuron.models.kne import kne_main
from easyedit_neuron.models.kne.kne_hparams import KNEHyperParams
from easyedit_neuron.studies import kne
from easyedit_neuron.studies.edit_bench import MEASURES, EditBenchmark
from easyedit_neuron.studies.untouched import Untouched

QUICK = ["--set", "num_steps=1", "--set", "attribution_steps=2", "--set", "layers=[3]"]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "arguments, name, column, values",
    [
        (
            ["--study", "modules", "--values", "[o_proj],[q_proj,up_proj]"],
            "modules",
            "target_modules",
            ["o_proj", "q_proj up_proj"],
        ),
        (
            ["--study", "batch", "--values", "1,2", "--sequential", "--texts", "2"],
            "batch",
            "batch_size",
            ["1", "2"],
        ),
        (
            ["--study", "set_size", "--values", "2", "--set", "stats_dir={stats}"],
            "set_size",
            "localization_set_size",
            ["2"],
        ),
        (
            ["--vary", "localize=shared", "--set", "localization_set_size=2", "--set", "stats_dir={stats}"],
            "localize",
            "localize",
            ["shared"],
        ),
        (["--vary", "lr=1e-3,0.003"], "lr", "lr", ["0.001", "0.003"]),
    ],
)
def test_a_study_leaves_a_table_and_a_plot(arguments, name, column, values, tmp_path, capsys):
    arguments = [text.replace("{stats}", str(tmp_path / "stats")) for text in arguments]
    assert kne.main([*arguments, "--edits", "2", "--out", str(tmp_path / "out"), *QUICK]) == 0
    rows = read(tmp_path / "out" / f"{name}.csv")
    written = [str(tmp_path / "out" / f"{name}.{ending}") for ending in ("csv", "png", "html")]
    assert [row[column] for row in rows] == values and capsys.readouterr().out.split() == written
    assert all(0 <= float(row[measure]) <= 1 for row in rows for measure in MEASURES)
    assert "fluency" not in rows[0]
    assert all(row["failed"] == "0" for row in rows)
    assert ("perplexity" in rows[0]) == ("--sequential" in arguments)
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("sequential", [False, True])
def test_fluency_is_of_what_the_edited_model_writes(shipped_model, sequential):
    """Of each prompt after its own edit, or of all after the last."""
    model, tok = shipped_model
    requests = data.load("tiny-world", size=2)
    hparams = KNEHyperParams.from_hparams("KNE/tiny-llama").override({"num_steps": 3, "layers": [3]})
    subject, prompts = Untouched(model, tok), [request["prompt"] for request in requests]
    measured = EditBenchmark(subject, requests, fluency_tokens=12).measure(hparams, sequential)
    expected = []
    for request in requests:
        subject.edit([request], hparams)
        if not sequential:
            expected.append(subject.fluency([request["prompt"]], 12))
            subject.restore()
    expected += [subject.fluency(prompts, 12)] if sequential else []
    subject.restore()
    assert measured["fluency"] == pytest.approx(sum(expected) / len(expected)) and measured["fluency"] > 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--vary", "learning=1"], "unknown field 'learning'"),
        (["--vary", "lr"], "'lr' must read field=value"),
        (["--study", "share", "--data", "nothing.json"], "no data file 'nothing.json'"),
        (["--study", "share", "--edits", "0"], "size"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, words, tmp_path, capsys):
    assert kne.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_single_edits_start_from_the_untouched_model_and_failures_are_counted(shipped_model, monkeypatch):
    model, tok = shipped_model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    hparams = KNEHyperParams.from_hparams("KNE/tiny-llama").override({"num_steps": 8, "layers": [3]})
    benchmark = EditBenchmark(Untouched(model, tok), data.load("tiny-world", size=3))
    untouched, execute = [], kne_main.train

    def second_fails(*arguments):
        untouched.append(all(torch.equal(p, before[name]) for name, p in model.named_parameters()))
        if len(untouched) % 3 == 2:
            raise EditError("no")
        return execute(*arguments)

    monkeypatch.setattr(kne_main, "train", second_fails)
    single, sequence = (benchmark.measure(hparams, sequential) for sequential in (False, True))
    assert single["failed"] == sequence["failed"] == 1 and untouched == [True, True, True, True, False, False]
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert single["steps"] <= 8
