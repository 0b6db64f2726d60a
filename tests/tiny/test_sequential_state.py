"""Sequential state: earlier edits are protected, restored weights forget, foreign weights start anew, models
are let go."""

import copy
import dataclasses
import gc
import importlib
import logging
import weakref

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits import session
from easyedit_neuron.edits.session import ModelSession, forget, last_record
from easyedit_neuron.errors import StateError
from easyedit_neuron.locate_then_edit.sequential_state import METHOD_STATES, SequentialState, restore_session
from easyedit_neuron.statistics.cache import Statistics
from helpers.editing import REQUESTS, apply, make_hparams, put_back, snapshot
from helpers.tiny_models import tiny_model

FIRST, SECOND = REQUESTS[:1], REQUESTS[2:]


def states(model):
    return list(ModelSession.of(model).sequential_states.values())


@pytest.fixture
def setting(tmp_path):
    model, tok = tiny_model("llama")
    return model, tok, make_hparams("AlphaEdit", tmp_path, L2=0.01)


@pytest.mark.parametrize("method", ["AlphaEdit", "NMKE", "MEMIT"])
def test_the_same_edit_three_times_with_weights_put_back(method, tmp_path):
    model, tok = tiny_model("llama")
    hparams = make_hparams(method, tmp_path)
    results = []
    for _ in range(3):
        _, weights, record = apply(model, tok, FIRST, hparams, return_orig_weights=True)
        results.append(snapshot(model)["tensors"])
        put_back(model, weights)
    assert all(torch.equal(results[0][n], other[n]) for other in results[1:] for n in other)
    assert last_record(model) is record


def test_an_earlier_edit_is_protected(setting):
    """The second delta moves the first key by less than a tenth of what it moves without the state."""
    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    key = {1: states(model)[0].buffer(1).columns().clone()}
    unprotected, _ = tiny_model("llama")
    put_back(unprotected, {n: p.detach() for n, p in model.named_parameters()})
    _, _, with_state = apply(model, tok, SECOND, hparams)
    _, _, without = apply(unprotected, tok, SECOND, hparams)
    for layer in (1,):  # keys of the first edited layer are the same in both
        effects = [float((r.layers[layer].matrix() @ key[layer]).norm()) for r in (with_state, without)]
        assert effects[0] < 0.1 * effects[1]
    assert [len(s.steps) for s in states(model)] == [2]
    assert states(model)[0].buffer(1).columns().shape == (48, 2)


def test_keys_are_those_of_the_edited_model(setting):
    from easyedit_neuron.arch.view import ModelView
    from easyedit_neuron.edits.request import prepare
    from easyedit_neuron.locate_then_edit.compute_keys import compute_keys, key_prompts

    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    prompts = key_prompts(tok, prepare(FIRST), [["{}"], hparams.context_templates], "cpu")
    now = compute_keys(ModelView.of(model), prompts, [1, 2])
    for layer in (1, 2):
        torch.testing.assert_close(states(model)[0].buffer(layer).columns(), now[layer], rtol=1e-5, atol=1e-6)


def test_accumulation_can_be_turned_off(setting):
    model, tok, hparams = setting
    hparams = hparams.override({"accumulate_keys": False})
    apply(model, tok, FIRST, hparams)
    twin, _ = tiny_model("llama")
    put_back(twin, {n: p.detach() for n, p in model.named_parameters()})
    state = states(model)[0]
    # the same statistics: the twin's would be measured on the edited weights
    ModelSession.of(twin).sequential_states = {
        setting: SequentialState(state.steps[-1], state.contexts, state.statistics)
        for setting, state in ModelSession.of(model).sequential_states.items()
    }
    assert len(state.buffer(1)) == 0, "nothing is kept that nothing reads"
    records = [apply(m, tok, SECOND, hparams)[2] for m in (model, twin)]
    assert all(
        torch.equal(records[0].layers[layer].matrix(), records[1].layers[layer].matrix()) for layer in (1, 2)
    )


def test_a_method_that_protects_nothing_edits_facts_that_another_protects(setting, tmp_path):
    """The first edit's keys are in the state that both share; the second problem does not hold them."""
    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    plain = make_hparams("MEMIT", tmp_path, accumulate_keys=False)
    *_, again = apply(model, tok, FIRST, plain)
    assert max(delta.value_factor.abs().max() for delta in again.deltas.values()) > 0


def test_the_state_follows_restored_weights(setting, caplog):
    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    _, weights, second = apply(model, tok, SECOND, hparams, return_orig_weights=True)
    put_back(model, weights)
    with caplog.at_level(logging.INFO, "easyedit_neuron"):
        _, _, again = apply(model, tok, SECOND, hparams)
    assert "1 edit(s) forgotten" in caplog.text and "from outside" not in caplog.text
    assert [len(s.steps) for s in states(model)] == [2]
    assert all(torch.equal(second.layers[layer].matrix(), again.layers[layer].matrix()) for layer in (1, 2))


def test_foreign_weights_start_anew_with_a_warning(setting, caplog):
    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 1
    apply(model, tok, SECOND, hparams)
    assert "changed from outside" in caplog.text and [len(s.steps) for s in states(model)] == [1]


def test_a_copy_takes_the_state_along(setting):
    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    edited, _, on_copy = apply(model, tok, SECOND, hparams, copy=True)
    assert [len(s.steps) for s in states(edited)] == [2] and [len(s.steps) for s in states(model)] == [1]
    _, _, in_place = apply(model, tok, SECOND, hparams)
    assert all(
        torch.equal(on_copy.layers[layer].matrix(), in_place.layers[layer].matrix()) for layer in (1, 2)
    )


def test_models_do_not_share_state(setting, tmp_path):
    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    other, _ = tiny_model("llama")
    _, _, fresh = apply(other, tok, SECOND, hparams)
    reference, _ = tiny_model("llama")
    _, _, expected = apply(reference, tok, SECOND, hparams)
    assert all(torch.equal(fresh.layers[layer].matrix(), expected.layers[layer].matrix()) for layer in (1, 2))


def test_other_settings_have_another_state(setting):
    model, tok, hparams = setting
    apply(model, tok, FIRST, hparams)
    _, _, newest = apply(model, tok, SECOND, hparams.override({"layers": [1]}))
    assert sorted(len(s.steps) for s in states(model)) == [1, 1] and last_record(model) is newest


def test_last_record_is_none_once_taken_back(setting):
    model, tok, hparams = setting
    assert last_record(model) is None
    _, weights, record = apply(model, tok, FIRST, hparams, return_orig_weights=True)
    assert last_record(model) is record
    forget(model)
    assert last_record(model) is None and states(model) == []


def test_the_state_does_not_keep_a_model_alive(setting):
    model, tok, hparams = setting
    edited, _, _ = apply(copy.deepcopy(model), tok, FIRST, hparams)
    gc.collect()
    gone, count = weakref.ref(edited), len(session._SESSIONS)
    del edited
    gc.collect()
    assert gone() is None and len(session._SESSIONS) == count - 1


@pytest.mark.parametrize("method", ["AlphaEdit", "ROME"])
def test_statistics_of_a_second_layer_are_of_the_unedited_model(method, tmp_path):
    """Layer 1 has a file from an earlier run: layer 2 must not be measured once layer 1 has been changed."""
    (clean, tok), (model, _) = tiny_model("llama"), tiny_model("llama")
    Statistics(ModelView.of(clean), tok, make_hparams(method, tmp_path, layers=[1])).ready()
    apply(
        model, tok, REQUESTS[:1], make_hparams(method, tmp_path, nullspace_threshold=2.0, v_num_grad_steps=3)
    )
    (tmp_path / "other").mkdir()
    expected = Statistics(ModelView.of(clean), tok, make_hparams(method, tmp_path / "other")).covariance(2)
    (state,) = states(model)
    torch.testing.assert_close(state.statistics.covariance(2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "saved, message",
    [
        ({"class": "easyedit_neuron.utils.io:write_text", "fields": {}}, "which no method keeps"),
        ({"class": "os:system", "fields": {"command": "true"}}, "which no method keeps"),
        (
            {"class": "easyedit_neuron.models.lasting.state:ModelSession", "fields": {}},
            "which no method keeps",
        ),
        ({"fields": {}}, "which no method keeps"),
        ({"class": "easyedit_neuron.models.lasting.state:LastingState", "fields": {"x": 1}}, "is damaged"),
        ({"class": "easyedit_neuron.models.lasting.state:LastingState"}, "is damaged"),
    ],
)
def test_a_state_from_elsewhere_makes_nothing_but_what_methods_keep(saved, message, tmp_path):
    model, tok = tiny_model("llama")
    content = {"sequential": {}, "origins": {}, "kept": {"x": saved}}
    with pytest.raises(StateError, match=message):
        restore_session(ModelView.of(model), tok, make_hparams("MEMIT", tmp_path), content)
    assert ModelSession.of(model).method_state == {}


def test_every_class_that_a_method_keeps_is_in_the_table():
    """Whatever ``method_state`` is assigned to in the package is of these classes."""
    for target in METHOD_STATES:
        module, _, name = target.partition(":")
        assert dataclasses.is_dataclass(getattr(importlib.import_module(module), name))
