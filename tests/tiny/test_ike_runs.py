"""IKE where methods are compared: in the runner, beside others in single edits, resumed after a kill."""

import json

import pytest
import torch

from easyedit_neuron import data
from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.evaluation import evaluate_all, locality_reference, perplexity
from easyedit_neuron.models.ike.facts import Facts
from easyedit_neuron.models.ike.ike_hparams import IKEHyperParams
from easyedit_neuron.models.ike.retrieval import mean_states
from easyedit_neuron.studies.single_edits import measure_edit
from easyedit_neuron.studies.untouched import PromptUntouched
from helpers.lifelong_runs import make_world, outcome, start, start_again_after_interruption

COUNTS = dict(edits=12, method="IKE", measure={"answers": 4, "fluency": 2, "first_token": 1})


def hparams(**fields):
    return IKEHyperParams(**{"alg_name": "IKE", "model_name": "tiny-llama", "device": "cpu", **fields})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def asked_by_hand(request, before):
    """The new fact in front of every prompt of a request."""
    fact = f"New Fact: {request['prompt']} {request['target_new']}\nPrompt: "

    def changed(value):
        return fact + value if isinstance(value, str) else [fact + text for text in value]

    groups = {
        group: {kind: part | {"prompt": changed(part["prompt"])} for kind, part in request[group].items()}
        for group in ("locality", "portability")
    }
    prompts = {name: changed(request[name]) for name in ("prompt", "rephrase_prompt")}
    return request | prompts | groups


def test_a_single_edit_is_the_fact_before_each_question(shipped_model):
    model, tok = shipped_model
    request, other = data.load("tiny-world", size=2)
    subject = PromptUntouched(model, tok, hparams())
    measure_edit(subject, other, hparams())
    row = measure_edit(subject, request, hparams(), ["It rains."])
    reference = locality_reference(model, tok, [request])
    (metrics,) = evaluate_all(model, tok, [asked_by_hand(request, other)], reference=reference)
    assert row["rel"] == metrics["rewrite_acc"][0] and row["gen"] == metrics["rephrase_acc"][0]
    assert row["kinds"]["locality.Neighborhood"] == pytest.approx(
        sum(metrics["locality"]["Neighborhood_acc"]) / 2
    )
    assert row["perplexity"] == perplexity(model, tok, ["It rains."], 32), "plain text is asked as it is"


def test_a_run_measures_behind_the_facts_and_changes_no_weight(world, tmp_path):
    start(world, tmp_path / "run", **COUNTS)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "edits.jsonl").read_text().splitlines()]
    assert summary["failed"] == 0 and len(lines) == 12
    assert any(line["before"] != line["final"] for line in lines if line["final"])
    checkpoints = [
        json.loads(line) for line in (tmp_path / "run" / "checkpoints.jsonl").read_text().splitlines()
    ]
    assert checkpoints[0]["final"]["perplexity"] == checkpoints[-1]["final"]["perplexity"]
    assert not (tmp_path / "run" / "weights.safetensors").is_file() or not any(
        checkpoints[-1]["drift"].values()
    )
    shown = next(line["answers"]["rewrite"]["prompt"] for line in lines if "answers" in line)
    assert "New Fact" not in shown, "a reader is shown the question"


def test_a_run_that_was_killed_goes_on_with_its_facts(world, tmp_path, monkeypatch):
    options = COUNTS | {"save_every_edits": 1, "save_every_minutes": None}
    start(world, tmp_path / "whole", **options)
    before = start_again_after_interruption(world, tmp_path / "run", monkeypatch, 7, **options)
    assert before == list(range(7))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_hidden_states_are_means_over_tokens_but_the_first(shipped_model):
    model, tok = shipped_model
    texts = ["Baimo Nuser works", "Liro"]
    states = mean_states(model, tok, texts, 2)
    for text, state in zip(texts, states):
        with torch.no_grad():
            hidden = model(**encode(tok, [text]).inputs, output_hidden_states=True).hidden_states[2][0]
        assert torch.allclose(state, hidden[1:].float().mean(0), atol=1e-2), "its weights are bfloat16"


def test_facts_are_found_by_hidden_states_or_an_encoder(shipped_model, world):
    model, tok = shipped_model
    requests = data.load("tiny-world", size=20)
    for fields in (
        {"retriever": "hidden_states", "layer": 0},
        {"retriever": "sentence_encoder", "sentence_model_name": str(world / "model")},
    ):
        settings = hparams(facts=1, **fields)
        facts = Facts.of(settings, model, tok)
        facts.add(requests)
        asked = facts.asked([f"{request['prompt']} {request['target_new']}" for request in requests])
        for text, request in zip(asked, requests):
            assert text.startswith(f"New Fact: {request['prompt']} {request['target_new']}\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"retriever": "hidden_states", "layer": 99}, "layer 99 is out of range, the model has layers 0 to"),
        (
            {"retriever": "sentence_encoder", "sentence_model_name": "/nowhere"},
            "'sentence_model_name': '/nowhere' cannot be loaded",
        ),
    ],
)
def test_what_cannot_look_up_is_refused(shipped_model, fields, message):
    with pytest.raises(HparamsError, match=message):
        Facts.of(hparams(**fields), *shipped_model)
