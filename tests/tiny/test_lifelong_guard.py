"""The guard of a run: what the canaries say; a run that warns, stops, or ends with its last good state."""

import dataclasses
import json

import pytest

from easyedit_neuron import LastingHyperParams
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.evaluation import guard as guard_module
from easyedit_neuron.evaluation.guard import Guard, Limits
from easyedit_neuron.lifelong.engine import Engine
from easyedit_neuron.utils.lists import mean
from helpers.lifelong_runs import make_world, outcome, start

RUN = dict(edits=30, checkpoints=[15], save_every_edits=None, save_every_minutes=None, measure={"fluency": 0})
LOUD = {"strength": 3.0}  # every edit of the dummy does harm
OFF = {"guard_retained": None, "guard_perplexity": None, "guard_rel": None}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def watched(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("watched") / "run"
    start(world, out, changes=LOUD, guard_every=5, **OFF, **RUN)
    return out


def readings_of(out):
    return [json.loads(line) for line in (out / "guard.jsonl").read_text().splitlines()]


def finals_of(out, edits):
    return [json.loads(line)["final"] for line in (out / "final" / f"{edits}.jsonl").read_text().splitlines()]


@pytest.fixture
def broken_after(monkeypatch):
    """Make the canaries break a limit after so many edits: what they say of the tiny model proves nothing."""
    read = Guard.read

    def at(edits):
        def broken(self, model, tok, count, requests):
            reading = read(self, model, tok, count, requests)
            breaches = ["perplexity 9.000, the limit is 1.1"] if len(requests) >= edits else []
            return dataclasses.replace(reading, breaches=breaches)

        monkeypatch.setattr(Guard, "read", broken)

    return at


def test_readings_are_what_the_run_measures(watched):
    readings = readings_of(watched)
    assert [reading["edits"] for reading in readings] == [5, 10, 15, 20, 25, 30]
    assert not any(reading["breaches"] for reading in readings)
    checkpoints = {
        line["edits"]: line["final"]
        for line in map(json.loads, (watched / "checkpoints.jsonl").read_text().splitlines())
    }
    for reading in readings:
        if reading["edits"] in checkpoints:
            final = checkpoints[reading["edits"]]
            assert reading["retained"] == final.get("retained")
            ratio = final["perplexity"] / checkpoints[0]["perplexity"]
            assert reading["perplexity"] == pytest.approx(ratio)
            live = [final for final in finals_of(watched, reading["edits"]) if final]
            assert reading["rel"] == pytest.approx(mean(mean(final["rewrite_acc"]) for final in live))
    assert json.loads((watched / "summary.json").read_text())["guard"] == {"readings": 6, "breaches": []}


def test_a_guard_changes_nothing_within_its_limits(world, watched, tmp_path):
    start(world, tmp_path / "run", changes=LOUD, **RUN)
    assert not (tmp_path / "run" / "guard.jsonl").exists()
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == (
        watched / "weights.safetensors"
    ).read_bytes()


def test_a_breach_warns(world, broken_after, tmp_path, caplog):
    broken_after(15)
    start(world, tmp_path / "run", changes=LOUD, guard_every=5, **RUN)
    assert "guard after edit 15: perplexity 9.000, the limit is 1.1" in caplog.text
    assert "guard after edit 10" not in caplog.text
    assert len((tmp_path / "run" / "edits.jsonl").read_text().splitlines()) == 30


def test_a_breach_stops_the_run_there(world, broken_after, tmp_path, monkeypatch):
    """Also where the process ends before the results are written."""
    broken_after(20)
    options = {**RUN, "guard_every": 5, "guard_action": "stop"}
    start(world, tmp_path / "short", changes=LOUD, **{**RUN, "edits": 20})
    start(world, tmp_path / "run", changes=LOUD, **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        start(world, tmp_path / "again", changes=LOUD, **options)
    start(world, tmp_path / "again", changes=LOUD, **options)
    short, stopped, again = (outcome(tmp_path / name) for name in ("short", "run", "again"))
    for results in (stopped, again):
        assert results["weights"] == short["weights"] and results["log"] == short["log"]
        assert results["results"]["final"] == short["results"]["final"]
        assert [line["final"] for line in results["edits.jsonl"]] == [
            line["final"] for line in short["edits.jsonl"]
        ]
    assert readings_of(tmp_path / "again") == readings_of(tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["edits"] == 20 and [reading["edits"] for reading in summary["guard"]["breaches"]] == [20]


def test_a_breach_rolls_the_run_back(world, broken_after, tmp_path):
    broken_after(20)
    options = {**RUN, "guard_every": 5, "guard_action": "roll_back"}
    start(world, tmp_path / "short", changes=LOUD, **{**RUN, "edits": 15})
    start(world, tmp_path / "run", changes=LOUD, **options)
    short, rolled = outcome(tmp_path / "short"), outcome(tmp_path / "run")
    assert rolled["weights"] == short["weights"] and rolled["log"] == short["log"]
    assert rolled["results"]["final"] == short["results"]["final"] and len(rolled["edits.jsonl"]) == 15
    readings = readings_of(tmp_path / "run")
    assert [reading["edits"] for reading in readings] == [5, 10, 15, 20] and readings[-1]["breaches"]


def test_without_a_good_state_there_is_nothing_to_roll_back_to(world, tmp_path):
    limits = {**OFF, "guard_perplexity": 0.1, "guard_action": "roll_back"}
    with pytest.raises(NeuronEditError, match="after edit 5: perplexity .* nothing is kept"):
        start(world, tmp_path / "run", changes=LOUD, guard_every=5, **limits, **RUN)


def test_limits_are_broken_on_their_side(monkeypatch):
    """Two known facts of which one is forgotten, perplexity 10 and then 16, edits at 0.8."""
    says = {"before": {"a": 1.0, "b": 0.3, "c": 1.0}, "after": {"a": 1.0, "c": 0.5, "edit": 0.8}}
    facts = [{"prompt": name, "ground_truth": "x"} for name in "abc"]
    guard = Guard(5, facts, ["text"], Limits(0.6, 1.5, 0.799))
    perplexities = {"before": 10.0, "after": 16.0}
    monkeypatch.setattr(guard_module, "perplexity", lambda model, *_: perplexities[model])
    monkeypatch.setattr(guard, "_accuracies", lambda model, _, pairs: [says[model][p] for p, _ in pairs])
    guard.begin("before", None)
    assert guard.facts == [facts[0], facts[2]], "the fact that the model never knew is not asked"
    reading = guard.read("after", None, 7, [{"prompt": "edit", "target_new": "y"}] * 7)
    assert (reading.retained, reading.perplexity, reading.edits) == (0.5, 1.6, 7)
    assert reading.rel == pytest.approx(0.8)
    assert reading.breaches == ["known facts 0.500, the limit is 0.6", "perplexity 1.600, the limit is 1.5"]
    assert guard.readings == [reading]
    assert guard.due(3, 5) and not guard.due(5, 9) and guard.due(9, 20)
    assert not Guard(None).due(0, 1000) and not Guard(None, action="roll_back").rolls_back


@pytest.mark.parametrize("wrong", [{"every": 0}, {"action": "shout"}])
def test_a_guard_with_wrong_values(wrong):
    with pytest.raises(NeuronEditError, match=f"guard: '{next(iter(wrong))}'"):
        Guard(**wrong)


def test_lasting_is_guarded_unless_told_otherwise(world, tmp_path):
    """``auto``: every 100 edits for Lasting, here every 3; never for the others."""
    quick = {"capacity": 8, "layers": [1], "device": "cpu"}
    options = {**RUN, "edits": 4, "checkpoints": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LastingHyperParams, "GUARD_EVERY", 3)
        for every, expected in (("auto", [3]), (None, []), (2, [2, 4])):
            out = tmp_path / str(every)
            changes = {**quick, "mom2_dataset": str(world / "text.txt")}
            start(world, out, changes=changes, method="Lasting", guard_every=every, **OFF, **options)
            edits = [reading["edits"] for reading in readings_of(out)] if expected else []
            assert edits == expected and (out / "guard.jsonl").exists() == bool(expected)
    start(world, tmp_path / "dummy", guard_every="auto", **options)
    assert not (tmp_path / "dummy/guard.jsonl").exists()
