"""A method that is quick and plain: it adds to one weight per edit what depends only on the request and the
weight."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from easyedit_neuron.hyperparameters.base import HyperParams
from easyedit_neuron.registry import MethodSpec, register_method


@dataclass
class DummyHyperParams(HyperParams):
    ALG_NAME: ClassVar[str] = "Dummy"

    alg_name: str = "Dummy"
    model_name: str = "in memory"
    device: str = "cpu"
    model_parallel: bool = False
    max_length: int = 40
    batch_size: int = 1
    layer: int = 1
    strength: float = 0.2
    fail_at: str = ""


def apply_dummy_to_model(
    model, tok, requests, hparams, copy=False, return_orig_weights=False, keep_original_weight=False, **kwargs
):
    """A rank-one change along the unembedding of the target's first token, per request."""
    names = [
        n
        for n, _ in model.named_parameters()
        if f".{hparams.layer}.mlp." in n and n.endswith(("down_proj.weight", "c_proj.weight"))
    ]
    weight = model.get_parameter(names[0])
    original = weight.detach().clone()
    with torch.no_grad():
        for request in requests:
            if hparams.fail_at and hparams.fail_at in request["prompt"]:
                raise RuntimeError("the dummy fails here")
            token = tok(" " + request["target_new"], add_special_tokens=False)["input_ids"][0]
            direction = model.get_output_embeddings().weight[token]
            delta = torch.outer(direction, torch.ones(weight.numel() // direction.numel()))
            weight += hparams.strength * (delta if delta.shape == weight.shape else delta.t())
    if kwargs.get("records") is not None:
        kwargs["records"].append([request["prompt"] for request in requests])
    return model, ({names[0]: original} if return_orig_weights else {})


SPEC = MethodSpec(
    "Dummy",
    "helpers.dummy_method:apply_dummy_to_model",
    "helpers.dummy_method:DummyHyperParams",
    batchable=True,
    plugin=True,
)


def register_dummy():
    """Make the method known (idempotent)."""
    register_method(SPEC)
