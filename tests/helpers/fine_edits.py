"""FiNE on tiny models: hyperparameters, a call, and what its record says about neurons and vectors."""

import torch

from easyedit_neuron import FiNEHyperParams, apply_fine_to_model
from helpers.editing import REQUESTS


def fine(**changes):
    """Hyperparameters for models of four layers; six steps."""
    usual = dict(
        alg_name="FiNE",
        model_name="in memory",
        device="cpu",
        last_layer=1,
        lr=0.03,
        epochs=6,
        early_stop_prob=None,
    )
    return FiNEHyperParams(**{**usual, **changes})


def edit(model, tok, hparams, requests=REQUESTS, **options):
    """The EditRecord of an edit in place."""
    records = []
    apply_fine_to_model(model, tok, requests, hparams, records=records, **options)
    return records[0]


def chosen(record, number=0):
    """[(layer, neuron), ...] of a request, in the order in which they were chosen."""
    return [(layer, neuron) for layer, neuron, _, _ in record.info["requests"][number]["neurons"]]


def summed(neurons, vectors):
    """{(layer, neuron): sum of its vectors}."""
    sums = {}
    for place, vector in zip(neurons, vectors):
        sums[place] = sums.get(place, 0) + vector
    return sums


def written(record):
    """{(layer, neuron): what was added to its column}."""
    return {
        (delta.info["layer"], unit): vector
        for delta in record.units.values()
        for unit, vector in zip(delta.units.tolist(), delta.vectors)
    }


def largest_relative_difference(ours, reference):
    """Over columns: |difference| / |vector|; both dictionaries name the same neurons."""
    assert ours.keys() == reference.keys()
    return max(
        float((ours[place].double() - reference[place].double()).norm() / reference[place].double().norm())
        for place in ours
    )


@torch.no_grad()
def terms_of_edited(model, clean, tok, request, hparams):
    """Unweighted (NLL of every token, KL(before || after) and KL(after || before) of every kept position,
    penalty of every token) from two models, the second unedited."""
    prompt, answer = (
        tok(request["prompt"])["input_ids"],
        tok(" " + request["target_new"], add_special_tokens=False)["input_ids"],
    )
    after, before = (
        m(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1) for m in (model, clean)
    )
    end = len(prompt) - 1
    nll = torch.stack([-after[end + step, token] for step, token in enumerate(answer)])
    prompt_positions = slice(0, end)
    there = (before[prompt_positions].exp() * (before[prompt_positions] - after[prompt_positions])).sum(-1)
    here = (after[prompt_positions].exp() * (after[prompt_positions] - before[prompt_positions])).sum(-1)
    return nll, there, here, -(1 - after[-1, answer].exp()).log()
