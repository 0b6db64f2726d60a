"""PNKE in tests: prompts that nobody has to write, hyperparameters, and neurons found by one plain forward at
a time."""

import pytest
import torch

from easyedit_neuron import PNKEHyperParams, apply_pnke_to_model
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.models.pnke import pnke_scores
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
    """``P_SEM`` for P_sem; the settings that were asked for are collected."""
    asked = []

    def semantic_prompts(requests, model, tok, settings):
        asked.append(settings)
        return [
            SemanticPrompts(
                P_SEM[r.subject][: settings.m],
                ["dataset"] * len(P_SEM[r.subject][: settings.m]),
                max(0, settings.m - len(P_SEM[r.subject])),
            )
            for r in requests
        ]

    monkeypatch.setattr(pnke_scores, "semantic_prompts", semantic_prompts)
    return asked


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
    keys = []
    handle = (
        ModelView.of(model)
        .down_proj(layer)
        .register_forward_pre_hook(lambda _module, args: keys.append(args[0][0]))
    )
    for text in texts:
        model(input_ids=torch.tensor([tok(text)["input_ids"]]))
    handle.remove()
    positions = [-1] * len(texts) if position is None else position
    return torch.stack([key[at] for key, at in zip(keys, positions)])
