"""The public contract of ``apply_<method>_to_model``, the same for every method and architecture."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits import write as write_module
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.edits.session import last_record
from easyedit_neuron.edits.write import write
from easyedit_neuron.errors import NeuronEditError, RequestError
from easyedit_neuron.host.base_editor import BaseEditor
from easyedit_neuron.registry import get_method
from helpers import contract
from helpers.contract import (
    CASES,
    METHODS,
    apply,
    differing,
    fresh,
    parameters,
    random_states,
    settings,
    tokenizer_state,
)
from helpers.editing import REQUESTS, changed_tensors, put_back, snapshot

PROMPTS, TARGETS, SUBJECTS, TRUTHS = (
    [r[name] for r in REQUESTS] for name in ("prompt", "target_new", "subject", "ground_truth")
)
ARGUMENTS = dict(prompts=PROMPTS, target_new=TARGETS, subject=SUBJECTS, ground_truth=TRUTHS, verbose=False)
cases = pytest.mark.parametrize("method, kind", CASES)


@pytest.fixture(autouse=True)
def room(request, monkeypatch):
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("method") == "Lasting":
        monkeypatch.setattr(contract, "ROOM", 16)


def editor(method, kind, folder, **changes):
    hparams = settings(method, folder, **changes)
    hparams.model_name = fresh(kind)
    return BaseEditor.from_hparams(hparams)


VARIANTS = {
    "as it is": {method: {} for method in (*METHODS, "Lasting")},
    "many parameters": {
        "PNKE": dict(solver="adam", adam_steps=3),
        "KNE": dict(target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]),
    },
    "the other axis": {"KNE": dict(neuron_axis="input")},
}


@pytest.mark.parametrize(
    "variant, method, kind",
    [
        (name, method, kind)
        for name, changes in VARIANTS.items()
        for method, kind in CASES
        if method in changes
    ],
)
def test_one_call(variant, method, kind, folder, tmp_path):
    """What it changes, returns, records and leaves alone."""
    model, tok = fresh(kind)
    model.train()
    list(model.children())[0].eval()
    next(model.parameters()).requires_grad_(False)
    before, tokenizer, hparams = (
        snapshot(model),
        tokenizer_state(tok),
        settings(method, folder, **VARIANTS[variant][method]),
    )
    requests, fields, states = [dict(r) for r in REQUESTS[:2]], hparams.to_dict(), random_states()
    edited, weights, record = apply(model, tok, requests, hparams, return_orig_weights=True)

    changed = changed_tensors(model, before)
    assert edited is model and len(changed) > (2 if variant == "many parameters" else 0)
    assert type(weights) is dict and sorted(weights) == sorted(changed)
    assert all(torch.equal(value, before["tensors"][name]) for name, value in weights.items())
    assert not any(
        value.data_ptr() == model.get_parameter(name).data_ptr() for name, value in weights.items()
    )
    assert tokenizer_state(tok) == tokenizer and hparams.to_dict() == fields and random_states() == states
    assert requests == REQUESTS[:2]

    assert last_record(model) is record and sorted(record.deltas) == sorted(changed)
    assert (record.method, record.hparams, record.seed) == (method, fields, hparams.seed)
    assert [r["target_new"] for r in record.requests] == TARGETS[
        :2
    ] and record.fingerprint_before != record.fingerprint_after
    assert len(record.probability) == 2 and all(0 <= p <= 1 for p in record.probability)

    record.save(tmp_path / "edit.safetensors")
    loaded = EditRecord.load(tmp_path / "edit.safetensors")
    assert loaded.to_json() == record.to_json() and loaded.deltas.keys() == record.deltas.keys()
    for name, delta in record.deltas.items():
        assert torch.equal(loaded.deltas[name].matrix(), delta.matrix()) and delta.matrix().any()
    copy, _ = fresh(kind)
    originals = write(ModelView.of(copy), loaded.deltas)
    assert differing(parameters(copy), parameters(model)) == []
    put_back(copy, originals)
    put_back(model, weights)
    assert changed_tensors(model, before) == [] and differing(parameters(copy), parameters(model)) == []


@cases
def test_a_copy_is_edited_in_place_of_the_model(method, kind, folder):
    model, tok = fresh(kind)
    before, hparams = snapshot(model), settings(method, folder)
    copy, weights, record = apply(model, tok, REQUESTS[:1], hparams, copy=True)
    assert copy is not model and weights == {} and changed_tensors(model, before) == []
    assert last_record(model) is None and last_record(copy) is record
    assert apply(model, tok, REQUESTS[:1], hparams)[0] is model
    assert changed_tensors(model, before) and differing(parameters(model), parameters(copy)) == []


@cases
def test_padding_makes_no_difference(method, kind, folder):
    """Three prompts of different lengths as one batch, under either side, and without a pad token."""
    results = []
    for side, pad in (("left", True), ("right", True), ("left", False)):
        model, tok = fresh(kind)
        tok.padding_side = side
        if not pad:
            tok.pad_token = None
        tokenizer = tokenizer_state(tok)
        apply(model, tok, REQUESTS, settings(method, folder))
        assert tokenizer_state(tok) == tokenizer
        results.append(parameters(model))
    assert differing(results[0], results[1]) == [] and differing(results[0], results[2]) == []


@cases
def test_the_editor_puts_single_edits_back(method, kind, folder):
    e = editor(method, kind, folder)
    before, results, records = snapshot(e.model), [], []
    for _ in range(2):
        metrics, edited, weights = e.edit(records=records, **ARGUMENTS)
        assert edited is e.model and changed_tensors(e.model, before) == []
        assert all(torch.equal(value, before["tensors"][name]) for name, value in weights.items())
        results.append(metrics)
    assert results[0] == results[1] and len(records) == 6
    for first, second in zip(records[:3], records[3:]):
        assert all(
            torch.equal(delta.matrix(), second.deltas[name].matrix()) for name, delta in first.deltas.items()
        )


@cases
def test_sequential_edits_add_up(method, kind, folder):
    """Through the editor as by hand; every record starts where the one before ended, if it is of the same
    weights."""
    e = editor(method, kind, folder)
    records = []
    metrics, edited, weights = e.edit(sequential_edit=True, records=records, **ARGUMENTS)
    model, tok = fresh(kind)
    for request, record in zip(REQUESTS, records):
        before = parameters(model)
        _, by_hand, again = apply(model, tok, [request], settings(method, folder), return_orig_weights=True)
        assert differing(before, parameters(model)) == sorted(again.deltas) == sorted(record.deltas)
    assert differing(parameters(model), parameters(edited)) == [] and differing(weights, by_hand) == []
    assert len(metrics) == 3 and all("rewrite_acc" in metric["post"] for metric in metrics)
    if records[0].deltas.keys() == records[1].deltas.keys():
        assert records[1].fingerprint_before == records[0].fingerprint_after


@cases
def test_batches(method, kind, folder):
    """Two at once and then one; put back unless the edits are sequential."""
    e = editor(method, kind, folder, batch_size=2)
    before = snapshot(e.model)
    metrics, *_ = e.batch_edit(**ARGUMENTS)
    assert changed_tensors(e.model, before) == [] and len(metrics) == 3
    records = []
    _, edited, _ = e.batch_edit(sequential_edit=True, records=records, **ARGUMENTS)
    assert [len(record.requests) for record in records] == [2, 1]
    model, tok = fresh(kind)
    for chunk in (REQUESTS[:2], REQUESTS[2:]):
        apply(model, tok, chunk, settings(method, folder, batch_size=2))
    assert changed_tensors(e.model, before) and differing(parameters(model), parameters(edited)) == []


BAD = {
    "no subject": ({"subject": None}, "subject"),
    "an empty subject": ({"subject": "  "}, "subject"),
    "a subject that is not in the prompt": ({"subject": "Marie Lund"}, "subject"),
    "an empty target": ({"target_new": ""}, "target_new"),
    "a blank target": ({"target_new": " "}, "target_new"),
    "a target that is no text": ({"target_new": ["Oslo"]}, "target_new"),
    "no prompt": ({"prompt": None}, "prompt"),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_request_is_named_and_nothing_changes(method, folder):
    model, tok = fresh("llama")
    hparams = settings(method, folder)
    apply(model, tok, REQUESTS[:1], hparams)
    before, tokenizer, record = snapshot(model), tokenizer_state(tok), last_record(model)
    function = get_method(method).load_apply()
    for changes, field in BAD.values():
        requests = [
            REQUESTS[1],
            {name: value for name, value in {**REQUESTS[2], **changes}.items() if value is not None},
        ]
        records = []
        with pytest.raises(RequestError, match=f"request 1: .*{field}"):
            function(model, tok, requests, hparams, records=records)
        assert records == [] and last_record(model) is record
    for nothing in ([], None):
        with pytest.raises(RequestError, match="requests"):
            function(model, tok, nothing, hparams)
    assert changed_tensors(model, before) == [] and tokenizer_state(tok) == tokenizer


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("changes, field", [BAD["no subject"], BAD["a blank target"]])
def test_the_editor_finds_a_bad_request_before_the_first_edit(method, changes, field, folder):
    e = editor(method, "llama", folder)
    before = snapshot(e.model)
    requests = [
        REQUESTS[0],
        {name: value for name, value in {**REQUESTS[1], **changes}.items() if value is not None},
    ]
    with pytest.raises(RequestError, match=f"request 1: .*{field}"):
        e.edit(requests=requests, sequential_edit=True, verbose=False)
    assert changed_tensors(e.model, before) == []


@cases
def test_a_write_that_fails_is_taken_back(method, kind, folder, monkeypatch):
    model, tok = fresh(kind)
    hparams, plain, calls = settings(method, folder), write_module.add_delta, []
    _, _, record = apply(model, tok, REQUESTS[:1], hparams)
    before = snapshot(model)

    def last_fails(view, name, delta):
        calls.append(name)
        plain(view, name, delta)
        if len(calls) >= 2:
            raise RuntimeError("in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(write_module, "add_delta", last_fails)
        with pytest.raises(RuntimeError, match="in the middle"):
            apply(model, tok, REQUESTS[1:], hparams)
    assert len(calls) == 2 and changed_tensors(model, before) == [] and last_record(model) is record
    apply(model, tok, REQUESTS[1:], hparams)
    other, _ = fresh(kind)
    for requests in (REQUESTS[:1], REQUESTS[1:]):
        apply(other, tok, requests, hparams)
    assert differing(parameters(model), parameters(other)) == []


@cases
def test_low_precision_weights_keep_their_type(method, kind, folder):
    model, tok = fresh(kind, dtype=torch.bfloat16)
    before = snapshot(model)
    _, weights, record = apply(model, tok, REQUESTS[:1], settings(method, folder), return_orig_weights=True)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert sorted(changed_tensors(model, before)) == sorted(weights) and weights
    put_back(model, weights)
    assert changed_tensors(model, before) == []
    assert all(torch.isfinite(delta.matrix()).all() for delta in record.deltas.values())


@pytest.mark.parametrize("method", METHODS)
def test_hyperparameters_that_do_not_fit_the_model_change_nothing(method, folder):
    model, tok = fresh("llama")
    before = snapshot(model)
    wrong = {"layer_start": 7} if method == "FiNE" else {"layers": [1, 7]}
    with pytest.raises(NeuronEditError, match="layer"):
        apply(model, tok, REQUESTS[:1], settings(method, folder, **wrong))
    assert changed_tensors(model, before) == [] and last_record(model) is None
