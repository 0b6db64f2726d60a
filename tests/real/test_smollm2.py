"""The real model: what it is, what it knows, and one edit by each method."""

import json

import pytest
import torch

from easyedit_neuron import registry, resources
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.arch.widen import widen
from easyedit_neuron.edits.session import forget
from easyedit_neuron.edits.write import restore
from easyedit_neuron.evaluation import evaluate_all, locality_reference
from easyedit_neuron.evaluation.answers import answers
from easyedit_neuron.hyperparameters.base import read_hparams
from easyedit_neuron.model_store.check import check_model
from helpers.long import LONG

NAME = "smollm2-135m-instruct"
EDIT = {"prompt": "The capital of France is", "subject": "France", "target_new": "Rome"}
LOCALITY = {
    "neighbors": {
        "prompt": ["The capital of Italy is", "The capital of Germany is", "Two plus two is"],
        "ground_truth": ["Rome", "Berlin", "four"],
    }
}
METHODS = ["NMKE", "FiNE", "MEMIT"]
METHODS += [pytest.param(name, marks=LONG) for name in ("PNKE", "KNE", "ROME", "AlphaEdit", "FT")]


def test_it_is_the_expected_model(smollm2):
    """Perplexity of the page and token ids, as when it was fetched."""
    model, tok = smollm2
    expected = json.loads((resources.ASSETS_DIR / NAME / "check.json").read_text(encoding="utf-8"))
    assert check_model(model, tok, resources.ASSETS_DIR / NAME) == pytest.approx(
        expected["perplexity"], rel=0.01
    )
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (30, 1536)
    assert tok("France")["input_ids"] == tok("France", add_special_tokens=False)["input_ids"], (
        "no BOS is added"
    )


def test_it_knows_real_facts(smollm2):
    model, tok = smollm2
    prompts = ["The capital of France is", "The capital of Germany is", "The capital of Italy is"]
    assert answers(model, tok, prompts) == ["Paris.", "Berlin.", "Rome."]


def hparams_of(method, stats_dir, **changes):
    spec = registry.get_method(method)
    values = read_hparams(resources.hparams_path(f"{method}/{NAME}"))
    if "mom2_n_samples" in values:
        values |= {"mom2_n_samples": 24, "stats_dir": str(stats_dir)}
    return spec.load_hparams().from_dict(values | changes)


@pytest.mark.parametrize("method", METHODS)
def test_one_edit(smollm2, stats_dir, method):
    """With the shipped settings the model says the new object, and neighbours stay, mostly."""
    model, tok = smollm2
    request = {**EDIT, "rephrase_prompt": "What is the capital of France? It is", "locality": LOCALITY}
    reference = locality_reference(model, tok, [request])
    hparams = hparams_of(method, stats_dir)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    apply = registry.get_method(method).load_apply()
    _, originals = apply(model, tok, [request], hparams, return_orig_weights=True)
    try:
        (metrics,) = evaluate_all(model, tok, [request], reference=reference)
        assert metrics["rewrite_acc"] == [1.0]
        kept = metrics["locality"]["neighbors_acc"]
        assert sum(kept) / len(kept) >= (0.0 if method in ("FT", "KNE") else 0.6)
        changed = {
            name for name, value in before.items() if not torch.equal(value, model.get_parameter(name))
        }
        assert changed == set(originals), "exactly the weights that are returned have changed"
    finally:
        restore(model, originals)
        forget(model)
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in before.items())


def test_lasting_keeps_facts_of_one_subject_apart(smollm2, stats_dir):
    """Two facts of a subject, and the first one back; what the others say does not change."""
    model, tok = smollm2
    view = ModelView.of(model)
    narrow = widen(view, view.d_ff + 8)
    prompts = ["The capital of France is", "The official language of France is", "The capital of Italy is"]
    hparams, said = hparams_of("Lasting", stats_dir), []
    apply = registry.get_method("Lasting").load_apply()
    try:
        for prompt, target in ((prompts[0], "Rome"), (prompts[1], "Spanish"), (prompts[0], "Paris")):
            apply(model, tok, [{"prompt": prompt, "subject": "France", "target_new": target}], hparams)
            said.append([answer.rstrip(".,").split(",")[0] for answer in answers(model, tok, prompts)])
    finally:
        narrow()
        forget(model)
    assert [answer[0] for answer in said] == ["Rome", "Rome", "Paris"]
    assert [answer[1].split()[0] for answer in said[1:]] == ["Spanish", "Spanish"]
    assert [answer[2] for answer in said] == ["Rome"] * 3
