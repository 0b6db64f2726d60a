"""KNE written out on the weights themselves (functional calls with changed parameters), for tests to compare
with."""

import math

import torch
from torch.func import functional_call
from torch.nn import functional

from easyedit_neuron.models.kne.attribute import mean_attributions
from easyedit_neuron.models.kne.kne_hparams import AttributionOptions, KNEHyperParams


def kne_hparams(**changes):
    """Two layers, few steps; nothing is read from or written to disk."""
    return KNEHyperParams(
        **{
            "alg_name": "KNE",
            "model_name": "in memory",
            "device": "cpu",
            "layers": [1, 2],
            "num_steps": 8,
            "lr": 0.05,
            "alpha": 1.0,
            "attribution_steps": 5,
            "share_of_parameters": 0.02,
            "stop_probability": None,
            **changes,
        }
    )


def attributions(view, targets, sites, **options):
    """Scores of KNE with some options changed from their defaults."""
    return mean_attributions(view, targets, sites, AttributionOptions(**options))


def ids(tok, request, answer="target_new"):
    """(prompt, answer) as token ids."""
    return tok(request["prompt"])["input_ids"], tok(" " + request[answer], add_special_tokens=False)[
        "input_ids"
    ]


def answer_log_probabilities(model, tok, request, parameters=None, answer="target_new"):
    """``log p(y_j | x, y_<j)`` of every token of the answer, with some parameters replaced."""
    start, tokens = ids(tok, request, answer)
    logits = functional_call(
        model, parameters or {}, kwargs={"input_ids": torch.tensor([start + tokens])}
    ).logits[0]
    logs = logits.log_softmax(-1)
    return torch.stack([logs[len(start) - 1 + i, token] for i, token in enumerate(tokens)])


def kl_to(model, parameters, tok, request, on, direction, before):
    """Mean KL of one request; ``before``: parameters of the unedited model."""
    start = tok(request["prompt"] if on == "prompt" else f"{request['subject']} is a")["input_ids"]
    at = list(range(len(start) - 1)) if on == "prompt" else [len(tok(request["subject"])["input_ids"]) - 1]
    p, q = (
        functional_call(model, weights, kwargs={"input_ids": torch.tensor([start])})
        .logits[0, at]
        .log_softmax(-1)
        for weights in (before, parameters)
    )
    first, second = (p.detach(), q) if direction == "before_after" else (q, p.detach())
    return functional.kl_div(second, first, reduction="sum", log_target=True) / len(at)


def plain_training(model, tok, requests, members, hparams, stop=None):
    """``{parameter: delta [its own layout]}``, losses: Adam on zero matrices added to whole weights, one
    request at a time.

    ``members``: ``(parameter name, neuron numbers in the parameter, all rows of the map, Conv1D?)``.
    """
    trained, opt_over, losses = [], [], []
    for name, units, rows, transposed in members:
        d_in = model.get_parameter(name).shape[0 if transposed else 1]
        length = d_in if hparams.neuron_axis == "output" else len(rows)
        vectors = torch.zeros(len(units), length, dtype=torch.float64, requires_grad=True)
        trained.append((name, units, rows, transposed, vectors))
        opt_over.append(vectors)
    opt = torch.optim.Adam(opt_over, lr=hparams.lr)

    def deltas():
        changes = {}
        for name, units, rows, transposed, vectors in trained:
            shape = model.get_parameter(name).T.shape if transposed else model.get_parameter(name).shape
            change = torch.zeros(shape, dtype=torch.float64)
            if hparams.neuron_axis == "output":
                change = change.index_put((units,), vectors)
            else:
                change = change.index_put((rows[:, None], units[None]), vectors.T)
            change = hparams.alpha / math.sqrt(len(units)) * (change.T if transposed else change)
            changes[name] = changes.get(name, 0) + change
        return changes

    for step in range(hparams.num_steps + 1):
        now = {name: model.get_parameter(name).detach() + change for name, change in deltas().items()}
        loss = sum(-answer_log_probabilities(model, tok, r, now).mean() for r in requests) / len(requests)
        if hparams.kl_factor:
            kl = sum(
                kl_to(model, now, tok, r, hparams.kl_on, hparams.kl_direction, {}) for r in requests
            ) / len(requests)
            loss = loss + hparams.kl_factor * kl
        losses.append(float(loss.detach()))
        if step < hparams.num_steps:
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {name: change.detach() for name, change in deltas().items()}, losses
