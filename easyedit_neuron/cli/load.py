"""Load what a run needs, and refuse what cannot work before anything is measured."""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import data
from ..arch.view import ModelView
from ..errors import HparamsError, NeuronEditError
from ..hparams_base import HyperParams
from .settings import Settings


def seed_everything(seed: int) -> None:
    """The global random states; methods with a seed of their own do not use them."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def load_model(hparams: HyperParams) -> tuple[torch.nn.Module, Any]:
    """The model named in the hyperparameters, in evaluation mode on its device, and its tokenizer."""
    device = hparams.device
    device = torch.device(f"cuda:{device}" if isinstance(device, int) else device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise HparamsError(f"field 'device': {hparams.device!r} means {device}, but CUDA is not available here; method.device=cpu")
    dtype = torch.float32
    if getattr(hparams, "fp16", False):
        dtype = torch.float16
    elif getattr(hparams, "bf16", False):
        dtype = torch.bfloat16
    try:
        tok = AutoTokenizer.from_pretrained(hparams.model_name)
        options = {"device_map": "auto"} if hparams.model_parallel else {}
        # torch_dtype is the name that every supported version of transformers understands.
        model = AutoModelForCausalLM.from_pretrained(hparams.model_name, torch_dtype=dtype, **options)
    except (OSError, ValueError) as problem:
        first = str(problem).strip().splitlines()[0]
        raise NeuronEditError(f"model {hparams.model_name!r} cannot be loaded (model.path=... names a local copy): {first}") from None
    if not hparams.model_parallel:
        model = model.to(device)
    return model.eval(), tok


def check_layers(model: torch.nn.Module, hparams: HyperParams) -> None:
    """The layers of the hyperparameters exist in the model; ``HparamsError`` otherwise."""
    count = ModelView.of(model).n_layers
    wanted = list(getattr(hparams, "layers", []))
    last = getattr(hparams, "v_loss_layer", None)
    for name, layers in (("layers", wanted), ("v_loss_layer", [] if last is None else [last])):
        bad = [layer for layer in layers if not 0 <= layer < count]
        if bad:
            raise HparamsError(f"field '{name}': layer {bad[0]} is out of range, the model has layers 0 to {count - 1}")


def evenly(items: list, count: int | None) -> list:
    """At most ``count`` items, spread over the whole list (the shipped files are ordered by subject)."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def load_probes(settings: Settings) -> tuple[list[dict[str, str]], list[str]]:
    """Facts that are never edited, and held-out text; empty where the settings ask for none."""
    facts, texts = [], []
    if settings.data.retained is not None:
        facts = evenly(data.retained(settings.data.retained), settings.evaluation.retained)
    if settings.data.text is not None and settings.evaluation.perplexity:
        texts = evenly(data.text(settings.data.text, "heldout"), settings.evaluation.perplexity)
    return facts, texts
