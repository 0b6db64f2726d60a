"""An edit that fails leaves weights, flags, modes, hooks and sequential state exactly as they were."""

import pytest
import torch

from easyedit_neuron.edits import edit as edit_record_module
from easyedit_neuron.edits import write as write_module
from easyedit_neuron.edits.session import ModelSession
from easyedit_neuron.errors import ArchitectureError, HparamsError, NeuronEditError, RequestError, StateError
from easyedit_neuron.locate_then_edit import edit as edit_module
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model
from easyedit_neuron.registry import get_method
from helpers.editing import REQUESTS, apply, changed_tensors, make_hparams, snapshot
from helpers.tiny_models import tiny_model


class Broken(RuntimeError):
    """An error that the package does not raise itself."""


def nan(*args, **kwargs):
    return torch.full((48, 1), float("nan"))


def second_call_fails(plain):
    calls = []

    def function(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise Broken("in the middle")
        return plain(*args, **kwargs)

    return function


def fail(*args, **kwargs):
    raise Broken("here")


FAILURES = {
    "a delta that is not finite": (edit_module.SequentialSolver, "key_factor", nan, StateError),
    "the second layer of the loop": (
        edit_module,
        "layer_delta",
        second_call_fails(edit_module.layer_delta),
        Broken,
    ),
    "keys of the second layer": (
        edit_module.LayerwiseKeys,
        "at",
        second_call_fails(edit_module.LayerwiseKeys.at),
        Broken,
    ),
    "the second write": (write_module, "add_delta", second_call_fails(write_module.add_delta), Broken),
    "the record": (edit_record_module, "EditRecord", fail, Broken),
    "z*": (edit_module, "compute_z", fail, Broken),
}


@pytest.mark.parametrize("failure", list(FAILURES))
def test_nothing_is_left_behind(failure, tmp_path, monkeypatch):
    module, name, broken, error = FAILURES[failure]
    model, tok = tiny_model("llama")
    hparams = make_hparams("NMKE", tmp_path, v_num_grad_steps=2)
    apply(model, tok, REQUESTS[:1], hparams)
    model.train()
    model.model.layers[0].eval()
    model.lm_head.weight.requires_grad_(False)
    before = snapshot(model)
    (state,) = ModelSession.of(model).sequential_states.values()
    steps, counts = list(state.steps), list(state.counts)
    records = []
    with monkeypatch.context() as patched:
        patched.setattr(module, name, broken)
        with pytest.raises(error):
            apply_nmke_to_model(model, tok, REQUESTS[2:], hparams, records=records)
    assert changed_tensors(model, before) == [] and records == []
    assert list(ModelSession.of(model).sequential_states.values()) == [state] and (
        state.steps,
        state.counts,
        len(state.buffer(1)),
    ) == (steps, counts, 1)
    _, _, record = apply(model, tok, REQUESTS[2:], hparams)
    assert sorted(changed_tensors(model, before)) == sorted(record.names.values())
    assert len(state.steps) == len(state.buffer(2)) == 2


def test_after_a_failure_the_edit_is_the_same_as_without_one(tmp_path, monkeypatch):
    weights = []
    for broken in (False, True):
        model, tok = tiny_model("llama")
        hparams = make_hparams("AlphaEdit", tmp_path, v_num_grad_steps=2)
        if broken:
            with monkeypatch.context() as patched:
                patched.setattr(edit_module.SequentialSolver, "key_factor", nan)
                with pytest.raises(
                    StateError, match="layers.1.mlp.down_proj.weight: the computed delta is not finite"
                ):
                    apply(model, tok, REQUESTS[:1], hparams)
        apply(model, tok, REQUESTS[:1], hparams)
        weights.append(snapshot(model)["tensors"])
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"subject": "Nobody"}, "request 1: subject 'Nobody' does not occur"),
        ({"target_new": ""}, "request 1: field 'target_new'"),
    ],
)
def test_one_bad_request_stops_the_batch(bad, message, tmp_path):
    model, tok = tiny_model("llama")
    before = snapshot(model)
    with pytest.raises(RequestError, match=message):
        apply(model, tok, [REQUESTS[0], {**REQUESTS[1], **bad}], make_hparams("NMKE", tmp_path))
    assert (
        changed_tensors(model, before) == []
        and not ModelSession.of(model).sequential_states
        and not (tmp_path / "stats").exists()
    )


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"layers": [1, 4]}, HparamsError, "'layers'.*0 to 3, got \\[4\\]"),
        ({"v_loss_layer": 4}, HparamsError, "'v_loss_layer'.*0 to 3, got 4"),
        ({"nullspace_threshold": 0.0}, HparamsError, "'nullspace_threshold'.*raise it"),
        ({"rewrite_module_tmp": "model.{}.x"}, ArchitectureError, "rewrite_module_tmp"),
        ({"mom2_dataset": "nowhere.txt"}, NeuronEditError, "mom2_dataset: no file"),
        (
            {"attribution_target": "ground_truth"},
            RequestError,
            "request 0: attribution_target 'ground_truth' needs field 'ground_truth'",
        ),
    ],
)
def test_impossible_settings(changes, error, message, tmp_path):
    model, tok = tiny_model("llama")
    before = snapshot(model)
    with pytest.raises(error, match=message):
        apply(
            model,
            tok,
            [{**REQUESTS[0], "ground_truth": None}],
            make_hparams("NMKE", tmp_path, v_num_grad_steps=1, **changes),
        )
    assert changed_tensors(model, before) == []


def test_a_float16_weight_that_would_overflow(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.half())
    model.half()
    before = snapshot(model)
    monkeypatch.setattr(edit_module.SequentialSolver, "key_factor", lambda *a: torch.full((48, 1), 1e6))
    with pytest.raises(StateError, match="overflows torch.float16"):
        apply(model, tok, REQUESTS[:1], make_hparams("AlphaEdit", tmp_path, v_num_grad_steps=2))
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize(
    "field, value",
    [
        ("kl_prompt", "no place"),
        ("kl_prompt", "{} {x}"),
        ("context_templates", ["{} and {}"]),
        ("context_templates", ["{a}. {}"]),
        ("L2", 0.0),
        ("layers", [2, 1]),
        ("layers", []),
    ],
)
def test_hyperparameters_out_of_range(field, value, tmp_path):
    with pytest.raises(HparamsError, match=f"'{field}'"):
        make_hparams("AlphaEdit", tmp_path, **{field: value})


@pytest.mark.parametrize("method", ["MEMIT", "AlphaEdit", "ROME", "NMKE", "PNKE", "FiNE", "KNE", "Lasting"])
def test_a_loss_that_is_not_finite_is_no_success(method, tmp_path):
    """Infinity above the edited layers: the search would end at once, with an edit that changes nothing."""
    from helpers.contract import settings

    model, tok = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[0, 0] = float("inf")
    before = snapshot(model)
    ours = method in ("MEMIT", "AlphaEdit", "ROME")
    hparams = make_hparams(method, tmp_path, context_length=0) if ours else settings(method, tmp_path)
    with pytest.raises(NeuronEditError):
        get_method(method).load_apply()(model, tok, REQUESTS, hparams)
    tensors = snapshot(model)["tensors"]
    assert all(torch.equal(value, tensors[name]) for name, value in before["tensors"].items())
