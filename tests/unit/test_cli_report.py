"""The table, the summary and the files, from hand-made lines."""

import json
from types import SimpleNamespace

import pytest

from easyedit_neuron.cli import report, run
from easyedit_neuron.cli.load import check_layers, evenly
from easyedit_neuron.cli.settings import DataSettings, EvaluationSettings, ModelSettings, Settings
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.hparams_base import HyperParams


def settings(**options):
    return Settings(
        model=ModelSettings("tiny-llama"), data=DataSettings("tiny-world"), evaluation=EvaluationSettings(**options),
        output_dir="out", method_name="NMKE", edits=3, batch_size=2,
    )


def metrics(rewrite, locality=None):
    found = {"rewrite_acc": [rewrite], "locality": {"near_output": [[1, 2]]}, "portability": {}, "metric_meta": {"x": 1}}
    if locality is not None:
        found["locality"]["near_acc"] = [locality]
    return found


def record(density, leakage):
    layer = SimpleNamespace(density=density, leakage=leakage, delivered=None)
    return SimpleNamespace(layers={4: layer}, seconds={"solve": 0.5})


@pytest.fixture
def lines():
    # Two batches: the first with edits 0 and 1, the second with edit 2.
    made = [
        report.edit_line(0, 0, {"prompt": "a"}, metrics(0.0), metrics(1.0, 1.0), [record(0.5, 0.2)], 3.0),
        report.edit_line(1, 0, {"prompt": "b"}, metrics(0.0), metrics(0.5, 1.0), [record(0.5, 0.2)], 3.0),
        report.edit_line(2, 1, {"prompt": "c"}, metrics(0.3), metrics(1.0, 0.4), [record(0.3, None)], 1.0),
    ]
    for line, value in zip(made, (1.0, 0.0, 0.5)):
        line["final"] = report.slim(metrics(value, 0.5))
    return made


@pytest.fixture
def summary(lines):
    beside = {"retained": 0.75, "retained_facts": 8, "fluency": 5.0, "perplexity": float("inf")}
    return report.summarise(settings(), HyperParams(), "file.yaml", lines, {"retained": 1.0}, beside, {"edit": 7.0})


def test_means(summary):
    results = summary["results"]
    assert results["before"]["rewrite_acc"] == pytest.approx(0.1)
    assert results["immediate"]["rewrite_acc"] == pytest.approx(2.5 / 3)
    assert results["immediate"]["locality"] == {"near_acc": pytest.approx(0.8)}
    assert results["final"]["rewrite_acc"] == pytest.approx(0.5) and results["final"]["retained"] == 0.75
    # One value per batch, not per edit; layers without a value do not count.
    assert summary["layers"] == {"4": {"density": pytest.approx(0.4), "leakage": pytest.approx(0.2)}}
    assert (summary["seconds_per_edit"], summary["seconds_per_edit_first_batch"]) == (1.0, 3.0)


def test_table(summary):
    rows = {line[:30].strip(): line[30:].split() for line in report.table(summary).splitlines()[2:]}
    assert rows["Rel   rewrite"] == ["0.100", "0.833", "0.500"]
    assert rows["Loc   near"] == ["-", "0.800", "0.500"]
    assert rows["retained facts (of 8 known)"] == ["1.000", "-", "0.750"]
    assert rows["mask density, layer 4"] == ["0.400"]


def test_files_are_strict_json(lines, summary, tmp_path):
    paths = report.write(tmp_path / "new" / "folder", lines, summary)
    assert [path.name for path in paths] == ["edits.jsonl", "summary.json"]

    def refuse(constant):
        raise AssertionError(constant)

    read = [json.loads(line, parse_constant=refuse) for line in paths[0].read_text().splitlines()]
    assert [line["edit"] for line in read] == [0, 1, 2] and read[2]["layers"]["4"]["leakage"] is None
    assert "near_output" not in read[0]["final"]["locality"] and read[0]["stages_of_batch"] == {"solve": 0.5}
    final = json.loads(paths[1].read_text(), parse_constant=refuse)
    assert final["results"]["final"]["perplexity"] is None and final["versions"]["easyedit_neuron"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["edits.jsonl", "summary.json"]


def test_retained_counts_only_what_was_known(monkeypatch):
    answers = iter([[1.0, 0.5, 1.0], [1.0, 0.0]])
    monkeypatch.setattr(run, "predict_targets", lambda *args: next(answers))
    monkeypatch.setattr(run, "token_accuracy", lambda found: found)
    facts = [{"prompt": name, "ground_truth": "x"} for name in "abc"]
    probes = run.Probes(None, None, facts, [], [], settings(fluency=0))
    assert [fact["prompt"] for fact in probes.facts] == ["a", "c"]
    assert probes.measure() == {"retained": 0.5, "retained_facts": 2, "retained_asked": 3}


def test_evenly():
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 5) == [1, 2] and evenly([1, 2], None) == [1, 2] and evenly([1, 2], 0) == []


@pytest.mark.parametrize("fields, name", [({"layers": [1, 4]}, "layers"), ({"layers": [1], "v_loss_layer": 4}, "v_loss_layer")])
def test_layers_out_of_range(monkeypatch, fields, name):
    monkeypatch.setattr("easyedit_neuron.cli.load.ModelView.of", lambda model: SimpleNamespace(n_layers=4))
    with pytest.raises(HparamsError, match=f"'{name}': layer 4 is out of range, the model has layers 0 to 3"):
        check_layers(None, SimpleNamespace(**fields))
    check_layers(None, SimpleNamespace(layers=[0, 3], v_loss_layer=3))
    check_layers(None, SimpleNamespace())
