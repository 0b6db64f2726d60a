"""Settings for a model: what z* does at each depth, and a search that ends in time."""

import argparse
import csv
import time
from pathlib import Path

import pytest
import torch
import yaml

from easyedit_neuron import AlphaEditHyperParams, data
from easyedit_neuron.arch.capture import Capture
from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.cli import main
from easyedit_neuron.cli.commands import tune
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.hyperparameters.base import read_hparams
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from easyedit_neuron.studies.patching import Probe, SubjectPrompts, patched_accuracy
from easyedit_neuron.tuning.layers import probe_keys, probe_z, score_of
from easyedit_neuron.tuning.search import GAIN, Search, Trial, layer_candidates, space_of
from helpers.tiny_models import tiny_model


def test_harmonic_mean():
    assert score_of(1.0, 0.5) == pytest.approx(2 / 3)
    assert score_of(0.9, None, 0.9) == pytest.approx(0.9)
    assert score_of(0.0, 1.0) == 0.0 == score_of(None)


def test_windows_of_layers_end_at_the_layer():
    windows = [[2, 3, 4, 5, 6], [4, 5, 6], [6]]
    assert layer_candidates(6, (5, 3, 1)) == [{"layers": window} for window in windows]
    assert layer_candidates(1, (5, 3, 1)) == [{"layers": [1]}]


def test_patched_answers_are_those_of_a_plain_forward():
    """z* of layer 1 put in by hand, prompt by prompt, against the batched measure."""
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    raw = [
        {"prompt": "Anna Berg lives in", "subject": "Anna Berg", "target_new": "Oslo"},
        {"prompt": "The home of Marie Lund is", "subject": "Marie Lund", "target_new": "London and Paris"},
    ]
    requests = prepare(raw)
    texts = [[request.text, f"I know that {request.subject} is from"] for request in requests]
    prompts = SubjectPrompts.of(tok, requests, [[*pair, "nobody is named here"] for pair in texts])
    assert prompts.request == [0, 0, 1, 1], "a text without the subject is left out"
    z = torch.randn(32, 2)
    shares = patched_accuracy(view, prompts, 1, z)
    flat = [(number, text) for number, pair in enumerate(texts) for text in pair]
    for (number, text), row, share in zip(flat, prompts.rows, shares):
        position = (
            len(
                tok(text[: text.index(requests[number].subject) + len(requests[number].subject)])["input_ids"]
            )
            - 1
        )

        def put(hidden, number=number, position=position):
            hidden = hidden.clone()
            hidden[0, position] = z[:, number]
            return hidden

        with torch.no_grad(), Capture(view, [], want=(), edit_layer_out={1: put}):
            logits = model(torch.tensor([row])).logits[0]
        start = encode(tok, [text]).input_ids.shape[1]
        right = (logits[start - 1 : -1].argmax(-1) == torch.tensor(row[start:])).float().mean()
        assert share == pytest.approx(float(right))
    unpatched = patched_accuracy(view, prompts, 1, None)
    assert len(unpatched) == 4


@pytest.fixture(scope="module")
def shipped():
    from types import SimpleNamespace

    from easyedit_neuron.arch.load_model import load_model

    model, tok, _ = load_model(SimpleNamespace(model_name="tiny-llama", device="cpu"))
    return ModelView.of(model), tok


def test_the_probe_tells_where_the_shipped_model_looks_facts_up(shipped):
    """At layer 1 z* brings the new object into other phrasings; at the last layer it is too late."""
    view, tok = shipped
    hparams = AlphaEditHyperParams.from_hparams("AlphaEdit/tiny-llama")
    contexts = [["{}"], ["It is so. {}"]]
    probe = Probe.of(tok, data.load("tiny-world", size=8), contexts)
    early, late = (probe_z(view, tok, probe, hparams, layer) for layer in (1, 4))
    assert early["rel"] > 0.9 and early["gen"] > 0.8
    assert late["gen"] < 0.3
    flat = [context for group in contexts for context in group]
    targets = compute_z(view, tok, probe.requests, hparams, flat, 1).targets
    assert early["loss"] == pytest.approx(sum(t.losses[-1] for t in targets) / 8, rel=1e-4)
    cosines = probe_keys(view, tok, probe, [1])[1]
    assert cosines["same_subject"] > 0.9 > cosines["other_subject"]


class Bench:
    """Stands for ``EditBenchmark``: the score is a known function of the settings."""

    requests = (None,) * 4

    def __init__(self):
        self.seen = []

    def measure(self, hparams, sequential):
        assert sequential
        self.seen.append((hparams.nullspace_threshold, hparams.v_lr))
        # Best at a threshold of 8 times the start's and half its rate; layers do not matter.
        distance = abs(torch.tensor(hparams.nullspace_threshold / 0.16).log2()) + abs(
            torch.tensor(hparams.v_lr / 1.0).log2()
        )
        share = float(1 / (1 + 0.2 * distance))
        return {"edit_success": share, "generality": share, "locality": 1.0, "perplexity": 2.0, "failed": 0}


def test_the_search_climbs_and_stops_at_its_deadline():
    start = AlphaEditHyperParams.from_hparams("AlphaEdit/tiny-llama").override(
        {"v_lr": 2.0, "nullspace_threshold": 0.02}
    )
    bench, trials = Bench(), []
    search = Search(bench, start, 2.0, time.monotonic() + 60, after_trial=trials.append)
    best = search.run([{"layers": [0]}])
    assert best.changes["nullspace_threshold"] == pytest.approx(0.16, rel=0.3)
    assert best.changes["v_lr"] == pytest.approx(1.0, rel=0.3)
    assert search.trials == trials and len(bench.seen) == len(trials), "no setting is tried twice"
    assert best.score == max(trial.score for trial in trials)
    late = Search(Bench(), start, 2.0, time.monotonic() - 1)
    assert late.run([{"layers": [0]}]).changes == {} and len(late.trials) == 1


def test_a_setting_that_cannot_be_is_a_trial_without_a_score():
    start = AlphaEditHyperParams.from_hparams("AlphaEdit/tiny-llama")
    search = Search(Bench(), start, 2.0, time.monotonic() + 60)
    trial = search._try({"v_lr": -1.0})
    assert trial == Trial({"v_lr": -1.0}, trial.values, 0.0) and "v_lr" in trial.values["problem"]


def test_the_command_writes_a_file_that_loads(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    words = ["tune", "tiny-llama", "--data", "tiny-world", "--text", "tiny-world", "--out", "tuned"]
    start = tmp_path / "start.yaml"
    settings = read_hparams(Path(__file__).parents[2] / "hparams" / "AlphaEdit" / "tiny-llama.yaml")
    start.write_text(yaml.safe_dump(settings | {"mom2_n_samples": 100}))
    more = ["--edits", "4", "--batch-size", "2", "--minutes", "0.2", "--start", str(start)]
    assert main([*words, *more]) == 0
    out = capfd.readouterr().out
    assert (
        out.splitlines()[-2:] == ["tuned/tiny-llama.yaml", "tuned/tune.png"]
        and (tmp_path / "tuned" / "tune.png").is_file()
    )
    written = AlphaEditHyperParams.from_hparams(tmp_path / "tuned" / "tiny-llama.yaml")
    rows = list(csv.DictReader((tmp_path / "tuned" / "trials.csv").open()))
    top = max(float(row["score"]) for row in rows)
    names = ("nullspace_threshold", "L2", "v_lr", "clamp_norm_factor")
    fitting = [
        float(row["score"])
        for row in rows
        if all(getattr(written, name) == float(row[name]) for name in names if row.get(name))
    ]
    assert max(fitting) >= top - GAIN
    assert main(["tune", "tiny-llama", "--method", "PNKEE", "--out", "x"]) == 2
    assert "did you mean 'PNKE'" in capfd.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "method", ["FT", "ROME", "MEMIT", "AlphaEdit", "NMKE", "PNKE", "FiNE", "KNE", "Lasting"]
)
def test_every_method_has_settings_to_begin_with(method):
    parser = argparse.ArgumentParser()
    tune.add_arguments(parser)
    hparams = tune._first_hparams(parser.parse_args(["tiny-llama", "--method", method]))
    assert hparams.alg_name == method and space_of(hparams)
