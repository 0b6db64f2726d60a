"""Error compensation in whole edits: what is written, what is left, and undo, replay, resume and restored
weights with it."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.editlog import EditLog, redo, replay, squash, undo
from easyedit_neuron.edits.session import ModelSession
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.locate_then_edit.sequential_state import restore_session, saved_session
from helpers.contract import apply, fresh, parameters, settings
from helpers.editing import REQUESTS, make_hparams, put_back
from helpers.editlogs import FIRST, SECOND, THIRD, edited

PATHS = ["memit", "alphaedit", "rome"]


def state_of(model):
    (state,) = ModelSession.of(model).sequential_states.values()
    return state


def rest_of(state, layer):
    values, keys = state.compensation(layer).rest
    return (values @ keys.T).double()


def cut_off(records, layer):
    """Sum over edits of own - written, in float64."""
    deltas = [record.layers[layer] for record in records]
    return sum(delta.own[0].double() @ delta.own[1].double().T - delta.matrix().double() for delta in deltas)


def agree(state, records, layers):
    for layer in layers:
        expected = cut_off(records, layer)
        scale = max(float(record.layers[layer].own[0].abs().max()) for record in records)
        torch.testing.assert_close(rest_of(state, layer), expected, rtol=1e-4, atol=1e-5 * scale)


def compensated(tmp_path, path="alphaedit", requests=REQUESTS, name="log"):
    return edited(
        "llama", "NMKE post", tmp_path, requests, name, path=path, error_compensation=True, v_num_grad_steps=2
    )


@pytest.mark.parametrize("path", PATHS)
def test_what_is_written_and_what_is_left(path, tmp_path):
    """A mask's neurons get what earlier masks kept from them, and are then owed nothing; the others do not
    change and are owed the rest."""
    model, tok, hparams, _, records = compensated(tmp_path, path)
    masks = {layer: [record.layers[layer].mask for record in records] for layer in hparams.layers}
    earlier_rows = 0
    for layer in hparams.layers:
        whole = sum(r.layers[layer].own[0].double() @ r.layers[layer].own[1].double().T for r in records)
        written = sum(r.layers[layer].matrix().double() for r in records)
        last = masks[layer][-1]
        torch.testing.assert_close(written[:, last], whole[:, last], rtol=1e-4, atol=1e-6)
        for record, mask in zip(records, masks[layer]):
            assert not record.layers[layer].matrix()[:, ~mask].any()
        assert not rest_of(state_of(model), layer)[:, last].any()
        assert rest_of(state_of(model), layer)[:, ~last].any()
        earlier_rows += int((masks[layer][1] & ~masks[layer][0]).sum())
    assert earlier_rows, "some neuron must get what the first mask kept from it"
    agree(state_of(model), records, hparams.layers)


@pytest.mark.parametrize("path", PATHS)
def test_the_residual_is_that_of_the_weights_with_the_rest(path, tmp_path):
    """R - Q K for the second edit: R is what the same edit of the same model gets without compensation."""
    model, tok, hparams, _, _ = compensated(tmp_path, path, [FIRST])
    state, layer = state_of(model), hparams.layers[0]
    before, rest = parameters(model), rest_of(state, layer)
    _, weights, plain = apply(
        model, tok, [SECOND], hparams.override({"error_compensation": False}), return_orig_weights=True
    )
    put_back(model, weights)
    assert all(torch.equal(value, before[name]) for name, value in parameters(model).items())
    *_, record = apply(model, tok, [SECOND], hparams)
    own_value, own_key = record.layers[layer].own
    assert plain.layers[layer].own is None
    plain_delta = plain.layers[layer]
    mask = plain_delta.mask
    torch.testing.assert_close(own_key[mask], plain_delta.key_factor[mask])
    if path != "rome":  # whose keys are not in the record
        keys = plain_delta.keys.double()
        expected = plain_delta.value_factor.double() - rest @ keys
        torch.testing.assert_close(own_value.double(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(own_value, plain_delta.value_factor)


def test_several_requests_of_one_rome_call(tmp_path):
    """They are edited one after the other; each writes what the masks before it cut off."""
    model, tok = fresh("llama")
    hparams = settings("NMKE", tmp_path, path="rome", error_compensation=True, v_num_grad_steps=2)
    *_, record = apply(model, tok, REQUESTS, hparams)
    agree(state_of(model), [record], hparams.layers)
    single, tok = fresh("llama")
    for request in REQUESTS:
        apply(single, tok, [request], hparams)
    for name, value in parameters(single).items():
        torch.testing.assert_close(value, parameters(model)[name], rtol=1e-4, atol=1e-6)


def test_a_full_mask_leaves_nothing(tmp_path):
    whole = {"mask": "fixed", "mask_options": {"indices": {1: list(range(48)), 2: list(range(48))}}}
    results = []
    for compensation in (False, True):
        model, tok = fresh("llama")
        hparams = make_hparams(
            "AlphaEdit", tmp_path, v_num_grad_steps=2, error_compensation=compensation, **whole
        )
        for request in (FIRST, SECOND):
            apply(model, tok, [request], hparams)
        results.append(parameters(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert all(not rest_of(state_of(model), layer).any() for layer in hparams.layers)


def test_undo_redo_replay_and_squash(tmp_path):
    model, tok, hparams, log, records = compensated(tmp_path)
    undo(model, log, 2)
    agree(state_of(model), [records[0], records[2]], hparams.layers)
    redo(model, log, 2)
    agree(state_of(model), records, hparams.layers)
    undo(model, log, 3)
    agree(state_of(model), records[:2], hparams.layers)

    again, tok = fresh("llama")
    assert replay(EditLog(log.folder), again, tok).state
    agree(state_of(again), records[:2], hparams.layers)
    chosen, tok = fresh("llama")
    assert replay(EditLog(log.folder), chosen, tok, only=[2]).state
    agree(state_of(chosen), [records[1]], hparams.layers)

    squashed, model = squash(log, tmp_path / "squashed"), fresh("llama")[0]
    assert replay(squashed, model, tok).state
    agree(state_of(model), records[:2], hparams.layers)


def test_undoing_the_newest_gives_the_earlier_rest(tmp_path):
    model, tok, hparams, log, records = compensated(tmp_path, requests=[FIRST, SECOND])
    expected = {layer: rest_of(state_of(model), layer) for layer in hparams.layers}
    log.append(apply(model, tok, [THIRD], hparams)[2])
    undo(model, log, 3)
    for layer, rest in expected.items():
        torch.testing.assert_close(rest_of(state_of(model), layer), rest, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_weights_that_a_host_puts_back(path, tmp_path):
    """As after every edit that EasyEdit does not keep: the next edit does what it did."""
    model, tok, hparams, _, _ = compensated(tmp_path, path, [FIRST])
    rest = {layer: rest_of(state_of(model), layer) for layer in hparams.layers}
    results = []
    for _ in range(2):
        _, weights, _ = apply(model, tok, [SECOND], hparams, return_orig_weights=True)
        results.append(parameters(model))
        put_back(model, weights)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    apply(model, tok, [THIRD], hparams, return_orig_weights=True)
    steps = state_of(model).steps
    state_of(model).sync_with_weights(steps[0])
    assert all(torch.equal(rest_of(state_of(model), layer), rest[layer]) for layer in hparams.layers)


def test_a_failed_edit_leaves_the_rest(tmp_path, monkeypatch):
    from easyedit_neuron.locate_then_edit import edit as module

    model, tok, hparams, _, _ = compensated(tmp_path, "memit", [FIRST])
    before = dict(state_of(model).compensations)

    def failing(*args):
        raise RuntimeError("full")

    monkeypatch.setattr(module, "add_delta", failing)
    with pytest.raises(RuntimeError, match="full"):
        apply(model, tok, [SECOND], hparams)
    assert state_of(model).compensations == before


def test_another_process_goes_on(tmp_path):
    """The state saved after two edits and restored: the third has the same bits."""
    model, tok, hparams, _, _ = compensated(tmp_path, requests=[FIRST, SECOND])
    saved, weights = saved_session(model), {n: p.clone() for n, p in parameters(model).items()}
    apply(model, tok, [THIRD], hparams)
    twin, tok = fresh("llama")
    restore_session(ModelView.of(twin), tok, hparams, saved)
    put_back(twin, weights)
    apply(twin, tok, [THIRD], hparams)
    assert all(torch.equal(value, parameters(twin)[name]) for name, value in parameters(model).items())


@pytest.mark.parametrize("changes", [{"mask": "none"}, {"mask": "random", "mask_stage": "solve"}])
def test_it_needs_a_mask_behind_the_solve(changes, tmp_path):
    with pytest.raises(HparamsError, match="error_compensation"):
        make_hparams("MEMIT", tmp_path, error_compensation=True, **changes)
