"""The benchmark for a GPU beside EasyEdit's own AlphaEdit, at a tiny shape on a CPU."""

import json

import torch

from benchmarks import editing, gpu
from benchmarks.models import random_llama
from easyedit_neuron.edits.write import clone_weights, down_names


def test_the_peer_is_measured_and_leaves_the_model(tmp_path, monkeypatch):
    original, weights = editing.settings, []
    monkeypatch.setattr(
        gpu, "settings", lambda *args, **changes: original(*args, v_num_grad_steps=2, **changes)
    )
    monkeypatch.setattr(gpu, "MOST_RUNS", 1)
    clean = gpu.Bench.clean
    monkeypatch.setattr(
        gpu.Bench, "clean", lambda bench: (clean(bench), weights.append(_weights(bench.model)))
    )
    assert gpu.main(["--tiny", "--batches", "1", "2", "--seconds", "300", "--out", str(tmp_path)]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["results"]}
    for batch in (1, 2):
        row = rows[f"{gpu.PEER}, batch {batch}"]
        assert row["status"] == "measured" and row["seconds"][0] > 0 and row["stages"] == {}
    untouched = _weights(random_llama("tiny", torch.bfloat16)[0])
    assert len(weights) == 8
    assert all(torch.equal(value, each[name]) for each in weights for name, value in untouched.items())


def _weights(model):
    return clone_weights(model, down_names(gpu.ModelView.of(model), editing.LAYERS))
