"""The public contract, method by method: small settings for tiny models and one way to call any of them."""

import json
import random

import numpy
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.arch.widen import widen
from easyedit_neuron.models.lasting.lasting_hparams import LastingHyperParams
from easyedit_neuron.registry import get_method
from helpers.editing import shared_fields
from helpers.tiny_models import tiny_model

KINDS = ("llama", "gpt2", "qwen2")
_TRAINED = {
    "FiNE": dict(last_layer=1, neuron_num=3, epochs=4, lr=0.05),
    "KNE": dict(layers=[1, 2], share_of_parameters=0.02, attribution_steps=2, num_steps=3, lr=0.02),
}
_LASTING = dict(v_num_grad_steps=2, layers=[1], name_templates=["{}"], capacity=8, others=2)
_LOCATE_THEN_EDIT = {"NMKE": dict(L2=0.1), "PNKE": dict(psem_sources=["dataset", "context"], ig_steps=2)}
METHODS = ("FiNE", "KNE", "PNKE", "NMKE")
CASES = [(method, kind) for method in (*METHODS, "Lasting") for kind in KINDS]
ROOM = 0
"""Neurons that ``fresh`` models have and do not use: a method that adds neurons then changes no shape."""


def settings(method, folder, **changes):
    """Hyperparameters of a method for a tiny model; statistics go below ``folder``."""
    fields = dict(alg_name=method, model_name="in memory", device="cpu")
    if method in _TRAINED:
        fields |= _TRAINED[method]
    elif method == "Lasting":
        fields |= {**shared_fields(folder), **_LASTING}
        fields = {
            name: value for name, value in fields.items() if name in LastingHyperParams.__dataclass_fields__
        }
    else:
        fields |= {**shared_fields(folder), "v_num_grad_steps": 2, "nullspace_threshold": 2.0}
        fields |= _LOCATE_THEN_EDIT[method]
    return get_method(method).load_hparams()(**{**fields, **changes})


def apply(model, tok, requests, hparams, **options):
    """The method's entry point; returns (model, weights, EditRecord)."""
    records = []
    edited, weights = get_method(hparams.alg_name).load_apply()(
        model, tok, requests, hparams, records=records, **options
    )
    (record,) = records
    return edited, weights, record


def fresh(kind, **options):
    """(model, tokenizer), the same ones each time."""
    model, tok = tiny_model(kind, seed=3, **options)
    if ROOM:
        view = ModelView.of(model)
        widen(view, view.d_ff + ROOM)
    return model, tok


def parameters(model):
    """Copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def differing(first, second):
    """Names of parameters that are not bit-identical."""
    assert first.keys() == second.keys()
    return sorted(name for name in first if not torch.equal(first[name], second[name]))


def tokenizer_state(tok):
    """Everything of a tokenizer that a method might have changed; each call sets padding and truncation of
    the backend anew."""
    backend = json.loads(tok.backend_tokenizer.to_str())
    return {
        "backend": {name: part for name, part in backend.items() if name not in ("padding", "truncation")},
        "size": len(tok),
        "special": dict(tok.special_tokens_map),
        "sides": (tok.padding_side, tok.truncation_side),
        "length": tok.model_max_length,
        "chat": tok.chat_template,
    }


def random_states():
    """Global random states, comparable with ``==``."""
    name, numbers, *rest = numpy.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (name, numbers.tolist(), *rest)
