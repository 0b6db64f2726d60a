"""What is plotted, worked out by hand from small runs."""

import dataclasses
import json

import pytest

from easyedit_neuron.errors import DataError
from easyedit_neuron.report.panels import BINS, Bars, sections
from easyedit_neuron.report.runs import read_runs
from helpers.run_folders import run_folder

WEIGHTS = tuple(
    f"model.layers.{layer}.mlp.{kind}.weight" for layer in (2, 11) for kind in ("up_proj", "down_proj")
)


def panels(folder):
    runs = read_runs([folder])
    return runs, {section.name: section for section in sections(runs)}


def named(section, name):
    return next(panel for panel in section.panels if panel.name == name)


@pytest.fixture
def two(tmp_path):
    run_folder(tmp_path / "0", "MEMIT", 130, layers=("4",))
    run_folder(
        tmp_path / "1",
        "PNKE",
        130,
        done=105,
        layers=(*WEIGHTS, "lm_head.weight"),
        leave_out=("fluency",),
        stages={"train": 0.5, "target": 0.1},
    )
    return tmp_path


def test_checkpoints_against_edits(two):
    runs, sections_by_name = panels(two)
    rel = named(sections_by_name["edits"], "rel")
    assert (
        [series.x for series in rel.series] == [[10, 100, 130], [10, 100]]
        and rel.reference is None
        and rel.axis == "share"
    )
    assert rel.series[1].y == [checkpoint["final"]["rewrite_acc"] for checkpoint in runs[1].checkpoints[1:]]
    assert [series.run for series in rel.series] == [0, 1]
    lost = named(sections_by_name["forgetting"], "rel_lost")
    row = runs[0].rows[2]
    assert lost.series[0].y[1] == row["rel_immediate"] - row["rel"]


def test_what_was_not_measured_is_named_and_not_drawn(two):
    _, sections_by_name = panels(two)
    fluency = named(sections_by_name["ability"], "fluency")
    assert [series.label for series in fluency.series] == ["MEMIT"] and fluency.missing == ["PNKE"]
    assert "Peak memory of the GPU, MiB" in sections_by_name["time"].missing
    # the final protocol's scores of single edits come with the end of the run
    assert named(sections_by_name["forgetting"], "rel_by_position").missing == ["PNKE"]


def test_reference_only_where_the_untouched_models_agree(two):
    _, sections_by_name = panels(two)
    assert (
        named(sections_by_name["ability"], "perplexity").reference == 4.2
        and named(sections_by_name["ability"], "fluency").reference == 5.9
    )
    path = two / "1" / "checkpoints.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["final"]["perplexity"] = 4.3
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert named(panels(two)[1]["ability"], "perplexity").reference is None


def test_means_by_layer(two):
    runs, sections_by_name = panels(two)
    density = named(sections_by_name["mask"], "density_by_layer")
    assert density.series[0].x == [4] and density.series[1].x == [2, 11]
    values = [summary["density"] for summary in runs[1].checkpoints[-1]["layers"].values()]
    assert density.series[1].y == pytest.approx([(values[0] + values[1]) / 2, (values[2] + values[3]) / 2])
    drift = named(sections_by_name["drift"], "l2_by_layer")
    norms = [summary["l2"][0] for summary in runs[1].checkpoints[-1]["drift"].values()]
    assert drift.series[1].y == pytest.approx([(norms[0] + norms[1]) / 2, (norms[2] + norms[3]) / 2])


def test_stretches_of_the_stream(tmp_path):
    run_folder(tmp_path / "0", "MEMIT", 2 * BINS + 1)
    run_folder(tmp_path / "1", "NMKE", 5)
    runs, sections_by_name = panels(tmp_path)
    rel = named(sections_by_name["forgetting"], "rel_by_position")
    edits = runs[0].edits
    assert rel.series[0].x == [
        *range(3, 2 * BINS + 1, 3),
        2 * BINS + 1,
    ]  # of three edits each, the same ones for both runs
    assert rel.series[1].x == [3, 5] and rel.series[0].y[0] == sum(edit.final for edit in edits[:3]) / 3
    time = named(sections_by_name["time"], "seconds_per_edit")
    assert time.series[0].y[1] == sorted(edit.seconds for edit in edits[3:6])[1]


def test_bars_are_seconds_by_part_and_stage(two):
    runs, sections_by_name = panels(two)
    parts, stages = sections_by_name["time"].panels[:2]
    assert isinstance(parts, Bars) and parts.labels == ["MEMIT", "PNKE"]
    assert {name: values[0] for name, values in parts.parts.items()} == runs[0].checkpoints[-1]["seconds"]
    assert stages.parts["train"] == [0.0, pytest.approx(0.5)] and stages.parts["solve"] == [
        pytest.approx(0.02),
        0.0,
    ]


def test_a_run_without_checkpoints_takes_part_in_nothing(two):
    (two / "1" / "checkpoints.jsonl").unlink()
    runs, sections_by_name = panels(two)
    drawn = [
        panel
        for section in sections_by_name.values()
        for panel in section.panels
        if not isinstance(panel, Bars)
    ]
    assert {series.run for panel in drawn for series in panel.series if panel.name != "seconds_per_edit"} == {
        0
    }
    assert sections_by_name["time"].panels[0].labels == ["MEMIT"]
    assert dataclasses.is_dataclass(runs[1]) and runs[1].last == {}


def test_what_the_guard_read(two):
    """Only where a run has a guard; a value that was not measured is not drawn."""
    assert "guard" not in panels(two)[1]
    readings = [
        {"edits": 50, "retained": 1.0, "perplexity": 1.01, "rel": None, "breaches": []},
        {"edits": 100, "retained": 0.8, "perplexity": 1.2, "rel": 0.7, "breaches": ["known facts 0.800"]},
    ]
    (two / "0" / "guard.jsonl").write_text("".join(json.dumps(reading) + "\n" for reading in readings))
    _, by_name = panels(two)
    section = by_name["guard"]
    (known,), (rel,) = named(section, "guard_retained").series, named(section, "guard_rel").series
    assert (known.x, known.y, rel.x, rel.y) == ([50, 100], [1.0, 0.8], [100], [0.7])
    assert known.run == 0 and list(by_name).index("guard") == list(by_name).index("ability") + 1
    (two / "0" / "guard.jsonl").write_text('{"edits": 50}\n')
    with pytest.raises(DataError, match="guard.jsonl, line 1: not a reading of the guard"):
        read_runs([two])
