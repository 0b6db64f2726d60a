"""The benchmark for a GPU, at a tiny shape on a CPU: every cell has a number or a reason."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import editing, gpu, memory
from benchmarks.models import random_llama
from easyedit_neuron.edits.write import clone_weights, down_names
from easyedit_neuron.locate_then_edit.sequential_state import sequential_state

SCRIPT = Path(gpu.__file__).with_name("gpu.sh")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    original = editing.settings
    monkeypatch.setattr(
        gpu, "settings", lambda *args, **changes: original(*args, **{"v_num_grad_steps": 3, **changes})
    )
    monkeypatch.delenv("EASYEDIT_HOME", raising=False)
    monkeypatch.setattr(gpu, "find_easyeditor", lambda: None)


def run(out, *arguments):
    assert gpu.main(["--tiny", "--out", str(out), *arguments]) == 0
    written = json.loads((out / "gpu.json").read_text())
    return {row["name"]: row for row in written["results"]}, (out / "gpu.md").read_text(), written


def test_all_cells_of_a_dry_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "MOST_RUNS", 1)
    rows, page, written = run(tmp_path, "--batches", "1", "3", "--seconds", "60")
    measured = {name: row for name, row in rows.items() if row["status"] == "measured"}
    assert set(measured) == {
        f"{name}, batch {batch}" for name in ("NMKE", "AlphaEdit", "MEMIT") for batch in (1, 3)
    }
    for row in measured.values():
        assert set(row["stages"]) == {"target", "mask", "keys", "solve", "rest"} and row["peak"]["host"] > 0
        assert min(row["seconds"]) > 0 and 1 <= len(row["seconds"]) <= gpu.MOST_RUNS
        assert 0 < row["stages"]["target"] < max(row["seconds"])
        assert 0 <= row["stages"]["rest"] < max(row["seconds"])
    assert measured["NMKE, batch 1"]["stages"]["mask"] > 10 * measured["MEMIT, batch 1"]["stages"]["mask"]
    others = {name: row["status"] for name, row in rows.items() if name not in measured}
    assert others == {
        **{
            f"EasyEdit's AlphaEdit, batch {n}": "not run: EASYEDIT_HOME names no clone of EasyEdit"
            for n in (1, 3)
        },
        **{f"{name}, batch 1, 2 devices": "not run: 0 CUDA devices here" for name in gpu.METHODS},
    }
    lines = page.splitlines()
    assert lines[0].startswith("`benchmarks/gpu.sh --tiny`: tiny, bfloat16, CPU, torch ")
    assert len({line.count("|") for line in lines[2:]}) == 1 and len(lines) == 4 + len(rows)
    assert all(f"| {name} | " in page for name in rows) and written["settings"]["target"] == 1.0
    assert page in capsys.readouterr().out


def test_one_run_adds_up():
    """The stages of a run and the rest are its seconds."""
    cell = gpu.Cell("NMKE", 2, seconds=[1.0])
    record = SimpleNamespace(
        seconds={"target": 0.8, "keys": 0.4, "solve": 0.2, "write": 0.1, "statistics": 0.1}
    )
    stages = gpu.stages_of(cell, [record])
    assert stages == pytest.approx({"target": 0.4, "mask": 0.0, "keys": 0.2, "solve": 0.1, "rest": 0.3})


def test_what_is_not_reached_is_named(tmp_path):
    rows, page, _ = run(tmp_path, "--batches", "1", "--seconds", "0.001")
    statuses = {rows[f"{name}, batch 1"]["status"] for name in gpu.METHODS}
    assert (
        statuses == {"not reached: the time was over"}
        and "| NMKE, batch 1 | not reached: the time was" in page
    )


def test_cells_that_stop_or_fail_leave_the_model(tmp_path, monkeypatch):
    """One takes too long in the middle of an edit, one fails, one is out of memory; the next is measured."""

    def spoil(model):
        with torch.no_grad():
            model.get_parameter("model.layers.5.mlp.down_proj.weight").fill_(7.0)

    def endless(model, *args, **options):
        spoil(model)
        try:
            time.sleep(60)
        except Exception:  # as a method that rolls back
            pytest.fail("the end of the time looks like a failed edit")

    def failing(model, *args, **options):
        spoil(model)
        raise RuntimeError("no\nkernel")

    def greedy(model, *args, **options):
        spoil(model)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 PiB")

    good = gpu.METHODS["AlphaEdit"]
    methods = {name: (good[0], apply, {}) for name, apply in dict(a=endless, b=failing, c=greedy).items()}
    monkeypatch.setattr(gpu, "METHODS", {**methods, "AlphaEdit": good})
    monkeypatch.setattr(gpu, "MOST_RUNS", 1)
    weights = []
    monkeypatch.setattr(
        gpu.Bench,
        "clean",
        lambda self, clean=gpu.Bench.clean: (clean(self), weights.append(_weights(self.model))),
    )
    monkeypatch.setattr(gpu, "SHARES", 0.3)
    rows, _, _ = run(tmp_path, "--batches", "1", "--seconds", "15")
    assert rows["a, batch 1"]["status"].startswith("stopped: took longer than ")
    assert rows["b, batch 1"]["status"] == "failed: RuntimeError: no kernel"
    assert rows["c, batch 1"]["status"] == "out of memory: CUDA out of memory"
    assert rows["AlphaEdit, batch 1"]["status"] == "measured"
    expected = _weights(random_llama("tiny", torch.bfloat16)[0])
    assert len(weights) == 4
    assert all(torch.equal(value, found[name]) for found in weights for name, value in expected.items())


def _weights(model):
    return clone_weights(model, down_names(gpu.ModelView.of(model), editing.LAYERS))


def test_the_model_over_its_devices():
    """On a CPU all of them are the CPU; the edit is the same."""
    args, take = SimpleNamespace(shape="tiny", device="cpu"), editing.requests()
    deltas = []
    for devices in (1, 2):
        bench, records = gpu.Bench(args), []
        bench.start(gpu.Cell("NMKE", 1, devices))(editing.requests()(1), records)
        assert hasattr(bench.model, "hf_device_map") == (devices == 2)
        state, _ = sequential_state(gpu.ModelView.of(bench.model), bench.tok, bench.hyperparameters("NMKE"))
        assert state.statistics is bench.statistics
        deltas.append(records[0].layers[8].value_factor)
    assert torch.equal(*deltas) and take(1)


@pytest.mark.parametrize(
    "cuda, free, words",
    [(False, 1 << 50, "there is no CUDA device"), (True, 1 << 30, "1.0 GiB are free on cuda:0")],
)
def test_it_refuses_before_it_loads_anything(monkeypatch, capsys, tmp_path, cuda, free, words):
    def never(*_args):
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr(gpu, "random_llama", never)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert words in output.err and not (tmp_path / "out").exists()
    assert not cuda or ("weights" in output.out and "15.0 GiB" in output.out)  # 8,030,261,248 of 2 bytes


def test_the_script(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable}
    command = [str(SCRIPT), "--tiny", "--seconds", "0.001", "--out", str(tmp_path / "out")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "gpu.md").read_text() in result.stdout
    result = subprocess.run(command, env=environment | {"PYTHON": "false"}, capture_output=True, text=True)
    assert result.returncode == 2 and "false has no torch; PYTHON=... names one that has" in result.stderr
