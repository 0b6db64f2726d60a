"""A batch that is written into the layers more than once."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.locate_then_edit import edit as module
from easyedit_neuron.locate_then_edit.compute_keys import LayerwiseKeys, key_prompts
from helpers.contract import fresh, parameters
from helpers.editing import CONTEXTS, REQUESTS, apply, make_hparams, put_back

METHODS = ["MEMIT", "AlphaEdit", "NMKE"]


@pytest.fixture
def same_targets(monkeypatch):
    """Every search for z* gives what the first one gave."""
    searched, kept = module.compute_z, []

    def compute_z(*args, **options):
        if not kept:
            kept.append(searched(*args, **options))
        return kept[0]

    monkeypatch.setattr(module, "compute_z", compute_z)
    return kept


@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_is_an_edit_with_the_same_target(method, same_targets, tmp_path):
    """Two sweeps, against two edits that do not protect each other; the record holds the sum."""
    mask = {"mask": "random", "mask_density": 0.4} if method == "NMKE" else {}
    hparams = make_hparams(method, tmp_path, accumulate_keys=False, v_num_grad_steps=3, **mask)
    model, tok = fresh("llama")
    for _ in range(2):
        apply(model, tok, REQUESTS, hparams)
    twice, tok = fresh("llama")
    _, weights, record = apply(
        twice, tok, REQUESTS, hparams.override({"sweeps": 2}), return_orig_weights=True
    )
    for name, value in parameters(twice).items():
        torch.testing.assert_close(value, parameters(model)[name], rtol=1e-4, atol=1e-5)
    for layer, delta in record.layers.items():
        name = record.names[layer]
        torch.testing.assert_close(
            twice.get_parameter(name) - weights[name], delta.matrix(), rtol=1e-4, atol=1e-5
        )
    put_back(twice, weights)
    base, _ = fresh("llama")
    assert all(torch.equal(value, base.get_parameter(name)) for name, value in parameters(twice).items())


def left(model, tok, targets):
    """|z* - z| at the last edited layer, for every request."""
    view = ModelView.of(model)
    prompts = key_prompts(tok, prepare(REQUESTS), [["{}"], CONTEXTS], "cpu")
    reading = LayerwiseKeys(view, prompts, 2).at(2)
    return (targets.z - reading.z).norm(dim=0)


def test_the_target_is_approached(same_targets, tmp_path):
    missing = []
    for sweeps in (1, 2, 4):
        model, tok = fresh("llama")
        hparams = make_hparams(
            "MEMIT", tmp_path, sweeps=sweeps, mom2_update_weight=0.1, v_num_grad_steps=3, accumulate_keys=True
        )
        _, _, record = apply(model, tok, REQUESTS, hparams)
        missing.append(left(model, tok, same_targets[0]))
        assert all(delta.keys.shape == (48, len(REQUESTS)) for delta in record.layers.values())
        assert all(delta.value_factor.shape[1] <= 32 for delta in record.layers.values()), "d_model columns"
    assert (missing[1] < missing[0]).all() and missing[2].sum() < missing[1].sum()


def test_with_error_compensation_what_is_cut_off_stays_owed(tmp_path):
    """A second sweep does not write again what later edits will write."""
    model, tok = fresh("llama")
    hparams = make_hparams(
        "NMKE",
        tmp_path,
        sweeps=2,
        mask="random",
        mask_density=0.5,
        error_compensation=True,
        v_num_grad_steps=2,
    )
    _, _, record = apply(model, tok, REQUESTS, hparams)
    for delta in record.layers.values():
        own, written = delta.own[0] @ delta.own[1].T, delta.matrix()
        torch.testing.assert_close(written[:, delta.mask], own[:, delta.mask], rtol=1e-3, atol=1e-5)
        assert not written[:, ~delta.mask].any()


@pytest.mark.parametrize("method, sweeps", [("ROME", 2), ("MEMIT", 0)])
def test_where_sweeps_make_no_sense(method, sweeps, tmp_path):
    with pytest.raises(HparamsError, match="sweeps"):
        make_hparams(method, tmp_path, sweeps=sweeps)
