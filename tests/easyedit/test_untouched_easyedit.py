"""EasyEdit's methods in the studies and in tune: edits on a copy, and everything as before afterwards."""

import copy
import csv

import pytest
import torch

from easyedit_neuron import data
from easyedit_neuron.cli import main
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.host.hparams import load_hparams
from easyedit_neuron.studies.single_edits import main as single_edits
from easyedit_neuron.studies.single_edits import measure_edit
from easyedit_neuron.studies.untouched import EasyEditUntouched

CHEAP = {
    "FT": {"num_steps": 5},
    "GRACE": {"n_iter": 20},
    "LoRA": {"num_steps": 5},
    "ROME": {"v_num_grad_steps": 3},
}


def subject_of(name, **changes):
    subject = EasyEditUntouched(f"EasyEdit:{name}", "tiny-llama")
    hparams = copy.deepcopy(subject.hparams)
    for field, value in (CHEAP[name] | changes).items():
        setattr(hparams, field, value)
    return subject, hparams


@pytest.mark.parametrize("name", CHEAP)
def test_an_edit_leaves_nothing_behind(name, easyeditor, monkeypatch, tmp_path):
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    changes = {"mom2_n_samples": 100} if name == "ROME" else {}
    subject, hparams = subject_of(name, **changes)
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    first, second = data.load("tiny-world", size=2)
    rows = [measure_edit(subject, request, hparams) for request in (first, second, first)]
    for row in rows:
        assert row.pop("seconds") > 0 and not row["failed"]
    assert rows[0] == rows[2] and subject.edited is subject.model
    after = subject.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(before[key], after[key]) for key in before)
    subject.edit([first], hparams)
    edited = subject.edited.state_dict()
    assert edited.keys() != before.keys() or any(not torch.equal(before[key], edited[key]) for key in before)


def test_sequential_edits_are_easyedits_own(easyeditor):
    """Two edits in a row give the weights that EasyEdit's function gives on a model of its own."""
    from easyeditor.models.ft import apply_ft_to_model

    subject, hparams = subject_of("FT")
    model = copy.deepcopy(subject.model)
    requests = data.load("tiny-world", size=2)
    for request in requests:
        subject.edit([request], hparams)
        apply_ft_to_model(model, subject.tok, [copy.deepcopy(request)], hparams)
    expected, actual = model.state_dict(), subject.edited.state_dict()
    assert all(torch.equal(expected[key], actual[key]) for key in expected)


def test_the_command_names_easyedits_methods(easyeditor, tmp_path, monkeypatch):
    monkeypatch.setattr("easyedit_neuron.studies.single_edits.evenly", lambda texts, n: texts[:2])
    words = ["--model", "tiny-llama", "--data", "tiny-world", "--edits", "1", "--text", "tiny-world"]
    assert single_edits([*words, "--methods", "EasyEdit:FT", "FiNE", "--out", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "single-tiny-world.csv").open()))
    assert [row["method"] for row in rows] == ["EasyEdit:FT", "FiNE"]
    assert (tmp_path / "out" / "tiny-world-EasyEdit-FT.jsonl").is_file()


def test_tune_writes_a_file_that_easyedit_reads(easyeditor, tmp_path, capfd):
    words = [
        "tune",
        "tiny-llama",
        "--method",
        "EasyEdit:GRACE",
        "--data",
        "tiny-world",
        "--text",
        "tiny-world",
    ]
    assert main([*words, "--edits", "2", "--minutes", "0.1", "--out", "tuned"]) == 0
    rows = list(csv.DictReader((tmp_path / "tuned" / "trials.csv").open()))
    best = max(rows, key=lambda row: float(row["score"]))
    written = load_hparams("GRACE", tmp_path / "tuned" / "tiny-llama.yaml", "easyedit")
    shipped = load_hparams("GRACE", "GRACE/tiny-llama", "easyedit")
    assert written.eps == float(best.get("eps") or shipped.eps) and written.val_train == shipped.val_train
    assert capfd.readouterr().out.splitlines()[-1] == "tuned/tune.png"


def test_a_method_without_a_file_is_named(easyeditor):
    with pytest.raises(HparamsError, match="have a file of its MEND for 'tiny-llama'"):
        EasyEditUntouched("EasyEdit:MEND", "tiny-llama")
