"""Mistakes under EasyEdit's own editor: the errors of tests/tiny/test_traps.py, before any work."""

import pytest

from helpers import traps
from helpers.contract import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_requests_batches_and_tokenizers(easyeditor, method, folder):
    for check in (traps.check_requests, traps.check_batch_size, traps.check_foreign_tokenizer):
        check(easyeditor.BaseEditor, method, folder)


@pytest.mark.parametrize("method", METHODS)
def test_before_loading(easyeditor, method, folder, tmp_path, monkeypatch):
    traps.check_before_loading(easyeditor.BaseEditor, method, folder, tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["NMKE", "PNKE"])
def test_unreadable_statistics(easyeditor, method, folder, tmp_path):
    traps.check_statistics(easyeditor.BaseEditor, method, folder, tmp_path)


def test_misleading_paths(easyeditor, folder, tmp_path, monkeypatch):
    traps.check_misleading_paths(easyeditor.BaseEditor, "FiNE", folder, tmp_path, monkeypatch)


def test_their_files_number_as_text(easyeditor, folder, tmp_path):
    """``v_lr: 1e-1`` is a string for YAML; EasyEdit's loaders make floats of every numeric string, ours of
    what is a float."""
    from easyedit_neuron import NMKEHyperParams

    text = "alg_name: NMKE\nmodel_name: 1e3\ndevice: cpu\nlayers: [1]\nv_lr: 1e-1\nmom2_n_samples: 1e2\n"
    (tmp_path / "a.yaml").write_text(text)
    hparams = NMKEHyperParams.from_hparams(tmp_path / "a.yaml")
    assert (hparams.model_name, hparams.v_lr, hparams.mom2_n_samples) == ("1e3", 0.1, 100)
    converted = easyeditor.HyperParams.construct_float_from_scientific_notation({"v_lr": "1e-1"})
    assert converted["v_lr"] == hparams.v_lr
