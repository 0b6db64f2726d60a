"""General ability within a run: when it is measured, where it lands, and that nothing else changes by it."""

import csv
import json

import pytest

from easyedit_neuron.ability import tasks
from easyedit_neuron.cli.load import with_ability
from easyedit_neuron.cli.settings import EvaluationSettings
from easyedit_neuron.errors import HostError, HparamsError
from easyedit_neuron.hyperparameters.base import HyperParams
from easyedit_neuron.report.page import page
from easyedit_neuron.report.panels import sections
from easyedit_neuron.report.runs import read_runs
from helpers.lifelong_runs import make_world, outcome, settings_of, start

MEASURED = {"fluency": 0, "ability": ["tiny_world"], "ability_limit": 3, "ability_checkpoints": [10]}
SHORT = dict(method="Noisy", edits=12, checkpoints=[5, 10], save_every_edits=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    start(world, out, measure=MEASURED, **SHORT)
    return out


def test_where_it_lands(run):
    checkpoints = [json.loads(line) for line in (run / "checkpoints.jsonl").read_text().splitlines()]
    assert [line["edits"] for line in checkpoints] == [0, 5, 10, 12]
    assert ["ability" in line["final"] for line in checkpoints] == [True, False, True, True]
    entry = checkpoints[0]["final"]["ability"]["tiny_world_hops"]
    assert (entry["metric"], entry["documents"], entry["shots"]) == ("acc", 3, 0)
    rows = list(csv.DictReader((run / "checkpoints.csv").open()))
    assert [row["ability:tiny_world_hops"] == "" for row in rows] == [False, True, False, False]
    assert (
        float(rows[2]["ability:tiny_world_cloze"])
        == checkpoints[2]["final"]["ability"]["tiny_world_cloze"]["value"]
    )
    summary = json.loads((run / "summary.json").read_text())
    assert summary["results"]["final"]["ability"] == checkpoints[3]["final"]["ability"]
    assert summary["results"]["before"]["ability"] == checkpoints[0]["final"]["ability"]
    assert (
        0
        < summary["seconds"]["measure ability"]
        < summary["evaluation_share"] * sum(summary["seconds"].values())
    )
    (run_of,) = read_runs([run])
    (panel,) = [
        panel
        for section in sections([run_of])
        for panel in section.panels
        if panel.name == "ability:tiny_world_cloze"
    ]
    assert (
        panel.series[0].x == [10, 12]
        and panel.reference == checkpoints[0]["final"]["ability"]["tiny_world_cloze"]["value"]
    )
    assert "tiny_world_cloze: perplexity" in page([run_of], plots=False)


def test_edits_are_those_of_a_run_that_does_not_measure_it(world, run, tmp_path):
    """The dummy's noise comes from all global generators."""
    start(world, tmp_path / "run", measure={**MEASURED, "ability": []}, **SHORT)
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == (
        run / "weights.safetensors"
    ).read_bytes()


def test_stopped_and_continued(world, tmp_path):
    trap = {"changes": {"fail_at": "year 0"}, "measure": MEASURED, **SHORT}
    with pytest.raises(ValueError, match="failed and was rolled back"):
        start(world, tmp_path / "a", on_failure="stop", **trap)
    for name in ("a", "b"):
        start(world, tmp_path / name, on_failure="continue", **trap)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


@pytest.mark.parametrize(
    "measure, error, match",
    [
        ({"ability": ["mlu"], "ability_data": "here"}, HparamsError, "did you mean 'mmlu'"),
        ({"ability": ["mmlu"], "ability_data": "nowhere"}, HparamsError, "there is no such folder"),
        ({"ability": ["humaneval"], "ability_data": "here"}, HparamsError, "ability_run_code=true"),
        (
            {"ability": ["tiny_world"], "ability_checkpoints": [7]},
            HparamsError,
            "7 is not among runner.checkpoints",
        ),
        (
            {"ability": ["tiny_world"], "ability_limit": 0},
            HparamsError,
            "'ability_limit': must be at least 1",
        ),
    ],
)
def test_refused_before_any_edit(world, tmp_path, monkeypatch, measure, error, match):
    (tmp_path / "here" / "humaneval").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    with pytest.raises(error, match=match):
        start(world, tmp_path / "out", measure={"fluency": 0, **measure}, **SHORT)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_without_lm_eval(world, tmp_path, monkeypatch):
    """Nothing is measured unless it was asked for; then the message says what to install."""
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None)
    settings = settings_of(world, tmp_path / "out")
    settings.data.retained = "tiny-world"
    hparams = HyperParams()
    hparams.model_name = "tiny-llama"
    assert with_ability(settings, hparams)[0].evaluation.ability == []
    settings.evaluation = EvaluationSettings(ability=["tiny_world"])
    with pytest.raises(HostError, match=r"pip install 'easyedit-neuron\[eval\]'"):
        with_ability(settings, hparams)
    monkeypatch.undo()
    settings.evaluation = EvaluationSettings()
    assert with_ability(settings, hparams)[0].evaluation.ability == ["tiny_world"]
    settings.data.retained = None
    changed, read = with_ability(settings, hparams)
    assert changed.evaluation.ability == [] and read == {}
