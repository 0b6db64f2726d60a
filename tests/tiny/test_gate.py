"""The plain gate: hidden states against the formula written out, no weight changed, runs that go on."""

import copy
import json

import pytest
import torch
from torch.nn import functional

from easyedit_neuron import data
from easyedit_neuron.arch.capture import Capture
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import HostError, HparamsError, RequestError
from easyedit_neuron.evaluation.answers import answers
from easyedit_neuron.models.gate.gate import Gate
from easyedit_neuron.models.gate.gate_hparams import GateHyperParams
from easyedit_neuron.models.gate.gate_main import apply_gate_to_model
from easyedit_neuron.studies.single_edits import measure_edit
from easyedit_neuron.studies.untouched import GateUntouched
from easyedit_neuron.utils.fingerprint import model_fingerprint
from helpers.lifelong_runs import make_world, outcome, start, start_again_after_interruption

COUNTS = dict(edits=12, method="Gate", measure={"answers": 4, "fluency": 2, "first_token": 1})


def hparams(**fields):
    shipped = GateHyperParams.from_hparams("Gate/tiny-llama").to_dict()
    return GateHyperParams(**shipped | fields)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def gate(shipped_model):
    model, tok = shipped_model
    gate = Gate(ModelView.of(copy.deepcopy(model).float()), tok, hparams())
    yield gate
    gate.remove()


def states(gate, text):
    """Keys and outputs of the gate's layers, per token, of the untouched model."""
    layer, key_layer = gate.layer, gate.hparams.key_layer
    with torch.no_grad(), gate._silent():
        with Capture(gate.view, [layer], want={"layer_out"}) as outputs:
            gate.view.model(**gate.tok(text, return_tensors="pt"))
        with Capture(gate.view, [key_layer]) as keys:
            gate.view.model(**gate.tok(text, return_tensors="pt"))
    return keys.key[key_layer][0].float(), outputs.layer_out[layer][0].float()


def test_the_nearest_key_opens_the_gate_where_its_cosine_passes_the_threshold(gate):
    requests = data.load("tiny-world", size=6)
    before = model_fingerprint(gate.view.model)
    gate.add(requests)
    opened = 0
    for request in requests:
        keys, untouched = states(gate, request["prompt"])
        with torch.no_grad(), Capture(gate.view, [gate.layer], want={"layer_out"}) as seen:
            gate.view.model(**gate.tok(request["prompt"], return_tensors="pt"))
        edited = seen.layer_out[gate.layer][0].float()
        for token, (key, z) in enumerate(zip(keys, untouched)):
            cosines = [float(functional.cosine_similarity(key, stored, dim=0)) for stored in gate.keys]
            best = max(range(len(cosines)), key=cosines.__getitem__)
            sink = float(functional.cosine_similarity(key, gate.sink, dim=0)) > 0.9
            opens = cosines[best] > 0.75 and not sink
            expected = z + gate.changes[best] if opens else z
            assert torch.allclose(edited[token], expected, atol=1e-4)
            opened += opens
    assert opened >= len(requests)
    assert model_fingerprint(gate.view.model) == before


def test_a_batch_of_prompts_and_a_cache_of_keys_change_no_answer(gate):
    requests = data.load("tiny-world", size=6)
    gate.add(requests)
    prompts = [request["prompt"] for request in requests] + ["It rains.", "Liro"]
    alone = [answers(gate.view.model, gate.tok, [prompt])[0] for prompt in prompts]
    assert answers(gate.view.model, gate.tok, prompts) == alone
    assert sum(text.startswith(request["target_new"]) for text, request in zip(alone, requests)) >= 5


def test_a_fact_edited_again_takes_the_place_of_the_first(gate):
    first, other = data.load("tiny-world", size=2)
    gate.add([first, other])
    gate.add([first | {"target_new": other["target_new"]}])
    assert len(gate.facts) == len(gate.keys) == len(gate.changes) == 2
    assert answers(gate.view.model, gate.tok, [first["prompt"]])[0].startswith(other["target_new"])


def test_a_refused_edit_and_an_emptied_gate_leave_the_model_as_it_was(gate):
    request, other = data.load("tiny-world", size=2)
    before = answers(gate.view.model, gate.tok, [request["prompt"], other["prompt"]])
    empty = gate.state()
    gate.add([request])
    kept = gate.state()
    with pytest.raises(RequestError, match="'target_new'"):
        gate.add([other | {"target_new": ""}])
    assert gate.facts == kept["facts"] or [list(fact) for fact in gate.facts] == kept["facts"]
    gate.load(empty)
    assert answers(gate.view.model, gate.tok, [request["prompt"], other["prompt"]]) == before


def test_single_edits_are_taken_back(shipped_model):
    model, tok = shipped_model
    request, other = data.load("tiny-world", size=2)
    subject = GateUntouched(model, tok, hparams())
    before = answers(model, tok, [request["prompt"]])
    row = measure_edit(subject, request, hparams())
    assert row["rel"] == 1.0 and answers(model, tok, [request["prompt"]]) == before
    assert measure_edit(subject, other, hparams())["loc"] is not None


def test_a_run_that_was_killed_goes_on_with_its_keys(world, tmp_path, monkeypatch):
    options = COUNTS | {"save_every_edits": 1, "save_every_minutes": None}
    start(world, tmp_path / "whole", **options)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["failed"] == 0
    before = start_again_after_interruption(world, tmp_path / "run", monkeypatch, 7, **options)
    assert before == list(range(7))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": [0, 1]}, "'layers': name one layer"),
        ({"key_layer": 2}, "'key_layer': must not lie behind the layer that is written"),
    ],
)
def test_fields_that_do_not_go_together(fields, message):
    with pytest.raises(HparamsError, match=message):
        hparams(**fields)


def test_an_editor_has_no_place_for_a_gate():
    with pytest.raises(HostError, match="method=gate"):
        apply_gate_to_model(None, None, [], hparams())
