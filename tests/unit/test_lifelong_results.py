"""Means, overlap of masks, rows of the CSV and the summary, from hand-made metrics and records."""

import csv
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from easyedit_neuron.cli.load import check_layers
from easyedit_neuron.cli.settings import DataSettings, EvaluationSettings, ModelSettings, Settings
from easyedit_neuron.edits.record import LayerDelta, UnitDelta
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.evaluation.intervals import mean_interval
from easyedit_neuron.hyperparameters.base import HyperParams
from easyedit_neuron.lifelong import layer_statistics
from easyedit_neuron.lifelong import measurer as measurer_module
from easyedit_neuron.lifelong.answers import questions
from easyedit_neuron.lifelong.measurer import Measurer, ReferenceData, intervals, means
from easyedit_neuron.lifelong.results import RunOrigin, RunResults, examples, summarise
from easyedit_neuron.lifelong.run_folder import CSV_COLUMNS, RunFolder
from easyedit_neuron.utils.lists import evenly


def metrics(rewrite, near=None, far=None):
    locality = {"near_acc": near, "far_acc": far}
    return {
        "rewrite_acc": [rewrite],
        "locality": {k: [v] for k, v in locality.items() if v is not None},
        "portability": {},
    }


def test_intervals_are_those_of_the_means_over_edits():
    rels, nears = [1.0, 0.5, 0.0, 1.0, 1.0], [0.25, 0.5, None, 1.0, 0.75]
    metrics = [
        {
            "rewrite_acc": [rel, rel],
            "locality": {"near_acc": [near]} if near is not None else {},
            "portability": {"hop_acc": [None]},
        }
        for rel, near in zip(rels, nears)
    ]
    bounds = intervals(metrics)
    assert bounds["rewrite_acc"] == list(mean_interval(rels)[1:])
    assert bounds["locality"]["near_acc"] == bounds["loc"] == list(mean_interval(nears)[1:])
    assert set(bounds) == {"rewrite_acc", "locality", "loc"} and intervals([]) == {}


def test_means():
    values = means([metrics(1.0, near=1.0), metrics(0.5, near=0.0, far=0.5), metrics(None, far=1.0)])
    assert values["rewrite_acc"] == pytest.approx(0.75)  # a null does not count
    assert values["locality"] == {"near_acc": 0.5, "far_acc": 0.75}
    assert values["loc"] == pytest.approx((1.0 + 0.25 + 1.0) / 3)  # every edit weighs the same
    assert "port" not in values and "rephrase_acc" not in values and means([]) == {}


def test_plain_metrics():
    plain = measurer_module.plain_metrics(
        {
            "rewrite_acc": [float("nan")],
            "metric_meta": {},
            "locality": {"near_output": [[1]], "near_acc": [1.0]},
        }
    )
    assert plain == {"rewrite_acc": [None], "locality": {"near_acc": [1.0]}, "portability": {}}


def record(mask, leakage=None, units=None):
    delta = LayerDelta(
        torch.zeros(2, 1), torch.zeros(len(mask), 1), torch.tensor(mask), sum(mask) / len(mask), leakage
    )
    return SimpleNamespace(layers={4: delta}, units=units or {}, seconds={"solve": 0.5})


def test_overlap_of_masks_against_all_pairs():
    torch.manual_seed(0)
    masks = [(torch.rand(40) < p).tolist() for p in (0.2, 0.5, 0.3, 0.9)]
    counts = layer_statistics.MaskCounts()
    counts.add([record(masks[0])])
    assert counts.overlap("4") is None and counts.overlap("5") is None
    for mask in masks[1:]:
        counts.add([record(mask)])
    pairs = list(itertools.combinations([{i for i, on in enumerate(mask) if on} for mask in masks], 2))
    expected = sum(len(a & b) for a, b in pairs) / sum((len(a) + len(b)) / 2 for a, b in pairs)
    assert counts.overlap("4") == pytest.approx(expected)
    assert counts.touched("4") == sum(map(any, zip(*masks))) / 40
    twin = layer_statistics.MaskCounts()
    twin.load_state(counts.saved_state())
    twin.add([record(masks[0])])
    assert twin.overlap("4") != counts.overlap("4") == pytest.approx(expected)


def test_single_rows_count_by_parameter():
    counts = layer_statistics.MaskCounts()
    for units in ([0, 2], [2, 3]):
        delta = UnitDelta(torch.tensor(units), torch.zeros(2, 5), "output", (4, 5))
        counts.add([SimpleNamespace(units={"w": delta})])
    assert counts.overlap("w") == 0.5 and counts.touched("w") == 0.75
    assert layer_statistics.layer_values([SimpleNamespace(units={"w": delta})]) == {
        "w": {"density": 0.5, "leakage": None, "delivered": None}
    }
    grown = UnitDelta(torch.tensor([3, 5]), torch.zeros(2, 5), "output", (6, 5))  # two neurons were added
    counts.add([SimpleNamespace(units={"w": grown})])
    assert counts.touched("w") == 4 / 6 and counts.overlap("w") == pytest.approx(2 / 6)
    assert layer_statistics.layer_values(["a record of another form"]) == {}
    assert layer_statistics.stage_seconds([record([True])]) == {"solve": 0.5}


def line(batch, density, leakage):
    values = {"density": density, "leakage": leakage, "delivered": None}
    return {"batch": batch, "seconds": 3.0 - 2 * batch, "layers": {} if density is None else {"4": values}}


LINES = [
    line(0, 0.5, 0.2),
    line(0, 0.5, 0.2),
    line(1, 0.3, None),
    line(2, None, None),
]  # two edits in the first batch; the last failed


def test_layers_are_means_over_batches():
    assert layer_statistics.layer_means(LINES, layer_statistics.MaskCounts()) == {
        "4": {
            "density": pytest.approx(0.4),
            "leakage": pytest.approx(0.2),
            "delivered": None,
            "overlap": None,
            "touched": None,
        }
    }


@pytest.fixture
def checkpoints():
    common = {
        "failed": 0,
        "superseded": 0,
        "layers": {},
        "drift": {},
        "stages": {},
        "evaluation_share": 0.5,
        "seconds": {"edit": 2.0, "measure before": 1.0, "measure checkpoints": 3.0, "load": 1.0},
        "memory": {"rss_peak_mib": 100.0, "cuda_peak_mib": None},
    }
    drift = {
        "a": {"wasserstein": [0.2, 0], "cosine": [0.9, 0], "l2": [1.0, 0]},
        "b": {"wasserstein": [0.4, 0], "cosine": [0.7, 0], "l2": [3.0, 0]},
    }
    return [
        {**common, "edits": 0, "final": {"rewrite_acc": 0.1, "perplexity": float("inf")}, "immediate": {}},
        {
            **common,
            "edits": 4,
            "final": {"rewrite_acc": 0.75, "loc": 0.5, "port": 0.4, "rewrite_generation_exact_match": 0.25},
            "immediate": {"rewrite_acc": 1.0, "loc": 0.6},
            "layers": {"4": {"density": 0.4, "leakage": None}},
            "drift": drift,
            "failed": 1,
        },
    ]


def test_files_of_checkpoints(checkpoints, tmp_path):
    files = RunFolder(tmp_path)
    files.write_checkpoints(checkpoints)

    def refuse(constant):
        raise AssertionError(constant)

    lines = [json.loads(text, parse_constant=refuse) for text in files.checkpoints.read_text().splitlines()]
    assert lines[0]["final"]["perplexity"] is None and lines[1] == checkpoints[1]
    first, last = csv.DictReader(files.table.open())
    assert tuple(last) == CSV_COLUMNS
    assert (first["edits"], first["rel"], first["perplexity"], first["rel_immediate"]) == ("0", "0.1", "", "")
    expected = dict(
        edits="4",
        failed="1",
        rel="0.75",
        gen="",
        loc="0.5",
        portability="0.4",
        rel_immediate="1.0",
        loc_immediate="0.6",
        rel_exact_match_generated="0.25",
        drift_cosine="0.8",
        drift_l2="2.0",
        density="0.4",
        leakage="",
        seconds_edit="2.0",
        seconds_evaluate="4.0",
        seconds_total="7.0",
        memory_mib="100.0",
        cuda_mib="",
    )
    assert {name: last[name] for name in expected} == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints.csv", "checkpoints.jsonl"]


def settings(**options):
    return Settings(
        model=ModelSettings("tiny-llama"),
        data=DataSettings("tiny-world"),
        evaluation=EvaluationSettings(**options),
        output_dir="out",
        method_name="NMKE",
        edits=4,
        batch_size=2,
    )


def test_summary(checkpoints):
    origin = RunOrigin(settings(), HyperParams(), Path("file.yaml"), "python -m ...")
    summary = summarise(origin, RunResults(LINES, checkpoints, (2, 1), 3, {"w": "ab"}))
    assert summary["results"]["before"]["rewrite_acc"] == 0.1 and summary["results"]["final"]["loc"] == 0.5
    assert (summary["failed"], summary["duplicates"], summary["contradictions"], summary["resumed"]) == (
        1,
        2,
        1,
        3,
    )
    assert (summary["seconds_per_edit"], summary["seconds_per_edit_first_batch"]) == (0.0, 3.0)
    assert [row["edits"] for row in summary["checkpoints"]] == [0, 4] and summary["weights"] == {"w": "ab"}


def test_examples_are_spread_over_the_edits_with_answers():
    lines = [{"edit": i, "request": {"target_new": f"t{i}"}} for i in range(20)]
    assert examples(lines) == []
    for line in lines[1::2]:
        line["answers"] = {"rewrite": {"prompt": f"p{line['edit']}", "before": "a", "final": "b"}}
    assert [example["edit"] for example in examples(lines)] == [1, 5, 11, 15]
    assert examples(lines[:2]) == [{"edit": 1, "target_new": "t1", "answers": lines[1]["answers"]}]


@pytest.mark.parametrize(
    "request_, expected",
    [
        ({}, {"rewrite": "p"}),
        ({"rephrase_prompt": "r"}, {"rewrite": "p", "rephrase": "r"}),
        ({"rephrase_prompt": ["r", "s"], "locality": {}}, {"rewrite": "p", "rephrase": "r"}),
        ({"rephrase_prompt": []}, {"rewrite": "p"}),
        (
            {"locality": {"far": {"prompt": "f", "ground_truth": "x"}}, "portability": {}},
            {"rewrite": "p", "neighbor": "f"},
        ),
        (
            {
                "locality": {
                    "far": {"prompt": "f", "ground_truth": "x"},
                    "Neighborhood": {"prompt": ["n", "m"], "ground_truth": ["x", "y"]},
                }
            },
            {"rewrite": "p", "neighbor": "n"},
        ),
    ],
)
def test_questions(request_, expected):
    assert questions({"prompt": "p", "target_new": "t", **request_}) == expected


def test_retained_counts_only_what_was_known(monkeypatch):
    answers = iter([[1.0, 0.5, 1.0], [1.0, 0.0]])
    monkeypatch.setattr(measurer_module, "pair_accuracies", lambda *args: next(answers))
    facts = [{"prompt": name, "ground_truth": "x"} for name in "abc"]
    monkeypatch.setattr(measurer_module, "evaluate_all", lambda *args, **options: [])
    measurer = Measurer(None, None, [], ReferenceData(facts, [], []), settings(fluency=0))
    before = measurer.measure_untouched(None)
    assert before["known"] == [True, False, True]
    assert before["beside"] == {"retained": 0.5, "retained_facts": 2, "retained_asked": 3}


def test_evenly():
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 5) == [1, 2] and evenly([1, 2], None) == [1, 2] and evenly([1, 2], 0) == []


@pytest.mark.parametrize(
    "fields, name", [({"layers": [1, 4]}, "layers"), ({"layers": [1], "v_loss_layer": 4}, "v_loss_layer")]
)
def test_layers_out_of_range(monkeypatch, fields, name):
    monkeypatch.setattr("easyedit_neuron.cli.load.ModelView.of", lambda model: SimpleNamespace(n_layers=4))
    with pytest.raises(HparamsError, match=f"'{name}': layer 4 is out of range, the model has layers 0 to 3"):
        check_layers(None, SimpleNamespace(**fields))
    check_layers(None, SimpleNamespace(layers=[0, 3], v_loss_layer=3))
    check_layers(None, SimpleNamespace())
