"""A method that notes how it is called, and then does what the dummy method does."""

import copy
from dataclasses import dataclass
from typing import ClassVar

from easyedit_neuron.edits.write import fingerprint
from easyedit_neuron.registry import MethodSpec, register_method
from helpers.dummy_method import DummyHyperParams, apply_dummy_to_model

CALLS = []


@dataclass
class RecorderHyperParams(DummyHyperParams):
    ALG_NAME: ClassVar[str] = "Recorder"

    alg_name: str = "Recorder"


def apply_recorder_to_model(*args, **kwargs):
    """Notes types and values of all arguments, the requests, the weights at that time and the tokenizer's
    padding."""
    model, tok, requests, hparams = args
    CALLS.append(
        {
            "arguments": [type(arg).__name__ for arg in args],
            "keywords": dict(kwargs),
            "requests": copy.deepcopy(requests),
            "hparams": hparams.to_dict(),
            "weights": fingerprint(model, [name for name, _ in model.named_parameters()]),
            "padding": (tok.padding_side, tok.pad_token_id),
            "training": model.training,
        }
    )
    return apply_dummy_to_model(*args, **kwargs)


def register_recorder():
    """Make the method known (idempotent)."""
    register_method(
        MethodSpec(
            "Recorder",
            "helpers.recorder:apply_recorder_to_model",
            "helpers.recorder:RecorderHyperParams",
            batchable=True,
            plugin=True,
        )
    )
