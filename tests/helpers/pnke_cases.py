"""PNKE in tests: prompts that nobody has to write, hyperparameters, and neurons found by one plain forward at
a time."""

import pytest
import torch

from easyedit_neuron import PNKEHyperParams, apply_pnke_to_model
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.models.pnke import pnke_scores as causal
from easyedit_neuron.models.pnke.prompts import SemanticPrompts
from helpers.editing import METHODS, apply, make_hparams

METHODS["PNKE"] = PNKEHyperParams, apply_pnke_to_model
P_SEM = {
    "Anna Berg": [
        "The birth place of Anna Berg is",
        "You know Anna Berg was born in",
        "It is there that she was born: Anna Berg",
    ],
    "Peter Olsen": ["Peter Olsen speaks", "I think that the mother tongue of Peter Olsen is"],
    "Norway": ["Norway has a capital, which"],
}


@pytest.fixture
def own_prompts(monkeypatch):
    """``P_SEM`` for P_sem; the options and contexts of every call are collected."""
    calls = []

    def semantic_prompts(requests, model, tok, options, contexts):
        calls.append((options, contexts))
        m, prompts = options.psem_size, []
        for request in requests:
            texts = P_SEM[request.subject][:m]
            prompts.append(SemanticPrompts(texts, ["dataset"] * len(texts), m - len(texts)))
        return prompts

    monkeypatch.setattr(causal, "semantic_prompts", semantic_prompts)
    return calls


def pnke_hparams(folder, **changes):
    """Two layers of a tiny model, some neurons more than the paper's percentiles give of 48."""
    usual = dict(L2=0.0, mom2_update_weight=0.1, v_num_grad_steps=3, min_neurons=5, ig_steps=4)
    return make_hparams("PNKE", folder, **{**usual, **changes})


def edit(model, tok, requests, folder, **changes):
    """(EditRecord, weights that were returned) of one call."""
    _, weights, record = apply(
        model, tok, requests, pnke_hparams(folder, **changes), return_orig_weights=True
    )
    return record, weights


@torch.no_grad()
def plain_activations(model, tok, layer, texts, position=None):
    """``[texts, d_ff]``: one prompt at a time through the whole model, a hook placed by hand; ``position``:
    of each one's token."""
    down_proj, rows = ModelView.of(model).down_proj(layer), []
    for number, text in enumerate(texts):
        seen = []
        handle = down_proj.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0][0]))
        model(input_ids=torch.tensor([tok(text)["input_ids"]]))
        handle.remove()
        rows.append(seen[0][-1 if position is None else position[number]])
    return torch.stack(rows)
