"""Folders in which a run may not go on, failures of single edits, and what a finished run says."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from easyedit_neuron.cli import run as cli_run
from easyedit_neuron.errors import NeuronEditError, StateError
from easyedit_neuron.lifelong import checkpoint
from easyedit_neuron.lifelong.engine import Engine
from easyedit_neuron.lifelong.measurer import Measurer
from easyedit_neuron.lifelong.stream import Stream
from easyedit_neuron.utils import io
from helpers.dummy_method import DummyHyperParams
from helpers.lifelong_runs import NAMES, hparams_of, make_world, outcome, settings_of, start, without_times

SHORT = dict(edits=12, checkpoints=[5], save_every_edits=4)
TRAP = {"fail_at": f"{NAMES[0]} works"}  # edit 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def _stopped(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(
        NeuronEditError,
        match="edit 6 failed and was rolled back: RuntimeError: the dummy fails here.*tries it again",
    ):
        start(world, out, changes=TRAP, on_failure="stop", **SHORT)
    return out


@pytest.fixture
def stopped(_stopped, tmp_path):
    """A run that has stopped at edit 6, with its state."""
    shutil.copytree(_stopped, tmp_path / "run")
    return tmp_path / "run"


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(world, out, match, changes=TRAP, **options):
    """The command refuses with this message and leaves every file as it was."""
    before = files_of(out)
    with pytest.raises(StateError, match=match):
        start(world, out, changes=changes, **{**SHORT, **options})
    assert files_of(out) == before


def test_stopped_and_continued_is_as_never_stopped(world, stopped, tmp_path):
    lines = [json.loads(line) for line in (stopped / "edits.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 6 + ["failed"]
    start(world, stopped, changes=TRAP, on_failure="continue", **SHORT)
    start(world, tmp_path / "whole", changes=TRAP, on_failure="continue", **SHORT)
    assert outcome(stopped) == outcome(tmp_path / "whole")
    summary = json.loads((stopped / "summary.json").read_text())
    assert (summary["resumed"], summary["failed"]) == (1, 1)


def test_a_finished_run_says_so(world, stopped, capsys):
    start(world, stopped, changes=TRAP, **SHORT)
    before = files_of(stopped)
    start(world, stopped, changes=TRAP, quiet=False, **SHORT)
    out, err = capsys.readouterr()
    assert "is finished" in err and out.startswith("Dummy on") and files_of(stopped) == before
    refused(world, stopped, r"settings.edits: 12 in the folder, 11 now", edits=11)


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(changes={**TRAP, "strength": 0.3}), r"hparams.strength: 0.2 in the folder, 0.3 now"),
        (dict(seed=1), r"settings.seed: 0 in the folder, 1 now"),
        (dict(checkpoints=[6]), r"settings.runner.checkpoints: \[5\] in the folder, \[6\] now"),
        (dict(order="shuffled"), r"settings.runner.order"),
        (dict(measure={"perplexity": 3}), r"evaluation.perplexity.*data.text"),
        (dict(method="Noisy", changes={}), r"settings.method_name: Dummy in the folder, Noisy now"),
    ],
)
def test_other_settings(world, stopped, change, match):
    refused(world, stopped, match, **change)


def test_other_data_and_model(world, stopped, tmp_path):
    """The same paths with other content."""
    moved = tmp_path / "kept"
    shutil.copytree(world, moved)
    try:
        edits = json.loads((world / "edits.json").read_text())
        edits[3]["target_new"] = "Norway"
        (world / "edits.json").write_text(json.dumps(edits))
        refused(world, stopped, r"data.edits: \w+ in the folder, \w+ now")
        shutil.copy(moved / "edits.json", world / "edits.json")
        model = AutoModelForCausalLM.from_pretrained(world / "model")
        with torch.no_grad():
            model.lm_head.weight[0, 0] += 1
        model.save_pretrained(world / "model")
        refused(world, stopped, r"another model.*model.weights: \w+ in the folder")
    finally:
        shutil.copytree(moved, world, dirs_exist_ok=True)


def state_of(out):
    (folder,) = (out / "state").iterdir()
    return folder


@pytest.mark.parametrize(
    "name, match",
    [
        ("tensors.safetensors", "not a readable state"),
        ("state.json", "not a readable state"),
        ("../../edits.jsonl", "first 6 lines are not those"),
        ("../../before.json", "before.json: not readable"),
        ("../../run.json", "run.json: not readable"),
    ],
)
def test_truncated_files(world, stopped, name, match):
    path = (state_of(stopped) / name).resolve()
    path.write_bytes(
        path.read_bytes()[:-300]
        if path.name != "edits.jsonl"
        else b"".join(path.read_bytes().splitlines(True)[:4])
    )
    refused(world, stopped, match)


def test_foreign_and_damaged_states(world, stopped, tmp_path):
    with pytest.raises(NeuronEditError):
        start(world, tmp_path / "other", changes={**TRAP, "strength": 0.3}, on_failure="stop", **SHORT)
    state, foreign_state = state_of(stopped), state_of(tmp_path / "other")
    shutil.move(state, tmp_path / "ours")
    shutil.copytree(foreign_state, state)
    refused(world, stopped, "the state of another run")
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "ours", state)
    damaged = bytearray((state / "tensors.safetensors").read_bytes())
    damaged[-5] ^= 1
    (state / "tensors.safetensors").write_bytes(damaged)
    refused(world, stopped, "is damaged: its fingerprint")


def test_a_folder_of_somebody_else(world, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("{}")
    refused(world, tmp_path / "run", "holds summary.json but no run.json")


def test_one_process_at_a_time(world, stopped):
    import fcntl
    import os

    handle = os.open(stopped, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    refused(world, stopped, "another process works on this run")
    os.close(handle)


def test_saving_changes_nothing_and_minutes_count(world, tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr(checkpoint.StateFolder, "save", lambda self, tree: saves.append(tree["position"]))
    start(
        world,
        tmp_path / "often",
        method="Noisy",
        **{**SHORT, "save_every_edits": None, "save_every_minutes": 1e-9},
    )
    assert saves == list(range(1, 13))
    saves.clear()
    start(
        world,
        tmp_path / "never",
        method="Noisy",
        **{**SHORT, "save_every_edits": None, "save_every_minutes": None},
    )
    assert saves == [5, 12]
    assert outcome(tmp_path / "often") == outcome(tmp_path / "never")


def test_a_batch_fails_as_one(world, tmp_path):
    start(world, tmp_path / "run", changes=TRAP, batch_size=4, **SHORT)
    lines = [json.loads(line) for line in (tmp_path / "run" / "edits.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 4 + ["failed"] * 4 + ["ok"] * 4
    assert {line["reason"] for line in lines[4:8]} == {"RuntimeError: the dummy fails here"} and {
        line["batch"] for line in lines[4:8]
    } == {1}
    rows = [json.loads(line) for line in (tmp_path / "run" / "checkpoints.jsonl").read_text().splitlines()]
    assert [(row["edits"], row["failed"]) for row in rows] == [(0, 0), (8, 4), (12, 4)]
    # a checkpoint wanted inside a batch comes at its end; the failed batch left nothing
    settings = settings_of(world, tmp_path / "hand", batch_size=4, **SHORT)
    model = AutoModelForCausalLM.from_pretrained(world / "model")
    hparams = hparams_of(world, tmp_path, settings)
    from transformers import AutoTokenizer

    from helpers.dummy_method import apply_dummy_to_model

    tok = AutoTokenizer.from_pretrained(world / "model")
    for first in (0, 8):
        apply_dummy_to_model(model, tok, [line["request"] for line in lines[first : first + 4]], hparams)
    (name,) = load_file(tmp_path / "run" / "weights.safetensors")
    assert torch.equal(load_file(tmp_path / "run" / "weights.safetensors")[name], model.get_parameter(name))


def test_the_last_of_a_fact_is_measured(world, tmp_path):
    start(world, tmp_path / "run", edits=40, checkpoints=[20], save_every_edits=None)
    lines = [json.loads(line) for line in (tmp_path / "run" / "edits.jsonl").read_text().splitlines()]
    stream = Stream.of([line["request"] for line in lines])
    superseded = stream.superseded()
    assert (
        superseded
        and {line["edit"]: line["superseded_by"] for line in lines if line["superseded_by"] is not None}
        == superseded
    )
    assert all(
        (line["final"] is None) == (line["edit"] in superseded) and line["immediate"] for line in lines
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "checkpoints.jsonl").read_text().splitlines()]
    assert [row["superseded"] for row in rows] == [0, len(stream.superseded(20)), len(superseded)]
    final = [line["final"]["rewrite_acc"][0] for line in lines if line["final"]]
    assert rows[-1]["final"]["rewrite_acc"] == pytest.approx(sum(final) / len(final))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["duplicates"], summary["contradictions"]) == stream.repeats() and sum(
        stream.repeats()
    ) > 0


def test_errors_that_no_edit_would_escape_end_the_run(world, tmp_path):
    settings = settings_of(world, tmp_path / "run", method="AlphaEdit", **SHORT)
    hparams = hparams_of(world, tmp_path / "run", settings, nullspace_threshold=0.0)
    with pytest.raises(NeuronEditError, match="nullspace_threshold"):
        cli_run.run(settings, hparams, tmp_path, str(tmp_path / "run"), [])
    assert not (tmp_path / "run" / "edits.jsonl").read_text()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    io.write_text(tmp_path / "a", "old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io.os, "fsync", full)
    for write in (
        lambda: io.write_text(tmp_path / "a", "new"),
        lambda: io.append_text(tmp_path / "b", "x"),
        lambda: io.write_folder(tmp_path / "c", lambda part: (part / "x").write_text("x")),
    ):
        with pytest.raises(
            StateError, match="cannot be written: No space left on device. What was saved before is kept"
        ):
            write()
    assert (
        (tmp_path / "a").read_text() == "old"
        and not (tmp_path / "c").exists()
        and not list(tmp_path.glob("*.part"))
    )


def test_runs_in_one_process_do_not_meet(world, tmp_path):
    """A run after another one of another method and seed is, bit for bit, what it is alone."""
    small = dict(edits=4, checkpoints=[2], save_every_edits=None)
    start(world, tmp_path / "a" / "run", method="AlphaEdit", **small)
    start(world, tmp_path / "b" / "run", method="NMKE", seed=5, **small)
    start(world, tmp_path / "c" / "run", method="AlphaEdit", **small)
    assert outcome(tmp_path / "a" / "run") == outcome(tmp_path / "c" / "run")
    assert without_times({"seconds": 1, "x": [{"memory": 2, "y": 3}]}) == {"x": [{"y": 3}]}
    assert DummyHyperParams().strength == 0.2


def test_the_untouched_model_is_measured_once_for_several_runs(world, tmp_path, monkeypatch):
    """Another run on the same edits takes ``before.json`` over; one on others is refused."""
    first, second, alone = tmp_path / "first", tmp_path / "second", tmp_path / "alone"
    start(world, first, **SHORT)
    start(world, alone, changes={"strength": 3.0}, **SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(Measurer, "measure_untouched", lambda *_: pytest.fail("measured again"))
        start(world, second, changes={"strength": 3.0}, untouched=str(first), **SHORT)
    assert (second / "before.json").read_bytes() == (first / "before.json").read_bytes()
    assert outcome(second) == outcome(alone)
    for options in ({"edits": 11}, {"measure": {"fluency": 0}}):
        with pytest.raises(StateError, match="is no run on the same edits: .*Leave it out"):
            start(world, tmp_path / "other", untouched=str(first), **{**SHORT, **options})
        assert not (tmp_path / "other").exists(), "nothing was written"
    with pytest.raises(StateError, match="run.json"):
        start(world, tmp_path / "other", untouched=str(tmp_path), **SHORT)


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_a_run_whose_ffns_grow_with_every_edit(kind, tmp_path):
    """Weights, masks and states have other shapes after each edit; Phi-3's gate and up are one matrix."""
    world = make_world(tmp_path, model_type=kind)
    changes = {"capacity": 1, "layers": [1], "mom2_dataset": str(world / "text.txt"), "mom2_n_samples": 20}
    changes |= {
        "device": "cpu",
        "context_templates": ["The. {}"],
        "name_templates": ["{}"],
        "text_share": 0.9,
    }
    options = dict(method="Lasting", edits=4, checkpoints=[2], save_every_edits=1)
    start(world, tmp_path / "whole", changes=changes, **options)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        record = Engine._record_batch
        calls = []

        def interrupted(self, *arguments):
            record(self, *arguments)
            calls.append(arguments)
            if len(calls) == 3:
                raise KeyboardInterrupt

        patch.setattr(Engine, "_record_batch", interrupted)
        start(world, tmp_path / "run", changes=changes, **options)
    start(world, tmp_path / "run", changes=changes, **options)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "run" / "edits.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 4


@pytest.mark.parametrize("damage", ["cut short", "a changed number", "a folder that cannot be made"])
def test_broken_statistics_end_the_run(world, damage, tmp_path):
    """Every edit would meet them: no run "finishes" with all edits failed, and the same command goes on once
    they are mended."""
    options = {"method": "MEMIT", "edits": 3, "checkpoints": []}
    stats = tmp_path / "stats"
    start(world, tmp_path / "whole", **options)
    (path, *_) = sorted(stats.glob("covariance*.safetensors"))
    content = path.read_bytes()
    changes = {}
    if damage == "cut short":
        path.write_bytes(content[:1000])
    elif damage == "a changed number":
        path.write_bytes(content[:-4] + bytes([content[-4] ^ 1]) + content[-3:])
    else:
        (tmp_path / "file").write_text("")
        changes = {"stats_dir": str(tmp_path / "file" / "stats")}
    with pytest.raises(StateError, match="delete it to measure anew|cannot be"):
        start(world, tmp_path / "run", changes=changes, **options)
    assert not (tmp_path / "run/summary.json").exists()
    if not changes:
        path.write_bytes(content)
        start(world, tmp_path / "run", **options)
        whole, mended = (tmp_path / name / "weights.safetensors" for name in ("whole", "run"))
        assert whole.read_bytes() == mended.read_bytes()


def test_a_state_one_number_of_which_has_changed(world, stopped):
    """Tensors have a fingerprint; everything else in the state has one too."""
    plain = state_of(stopped) / "state.json"
    content = json.loads(plain.read_text())
    content["tree"]["position"] += 1
    plain.write_text(json.dumps(content))
    refused(world, stopped, "state.json is damaged: its numbers have changed")


def test_a_report_that_was_not_drawn_to_its_end(world, tmp_path, monkeypatch):
    """The summary says that the run is finished; the same command draws the report."""
    pytest.importorskip("matplotlib")
    options = {"report": True, "edits": 2, "checkpoints": []}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cli_run, "_write_report", lambda files: (_ for _ in ()).throw(KeyboardInterrupt))
        start(world, tmp_path / "run", **options)
    assert (tmp_path / "run/summary.json").is_file() and not (tmp_path / "run/report.html").exists()
    start(world, tmp_path / "run", **options)
    drawn = (tmp_path / "run/report.html").stat().st_mtime_ns
    start(world, tmp_path / "run", **options)
    assert (tmp_path / "run/report.html").stat().st_mtime_ns == drawn
