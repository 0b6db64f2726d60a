"""The authors' FiNE out of a clone of their repository, on the CPU: their files as they are, what they need
of CUDA and of their modified modelling files put in its place."""

import contextlib
import importlib
import io
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import torch

PACKAGE = "fine_release"
TEMPLATES = {"llama": "model.layers.{}.mlp.down_proj", "gptj": "transformer.h.{}.mlp.fc_out"}
NAMES = {"llama": "tiny-llama", "gptj": "tiny-gpt-j"}  # theirs goes by substrings


def load(home: Path):
    """Their ``fine_main``; the packages above it are not run, they import all of EasyEdit."""
    for name in ("", ".util", ".models", ".models.fine"):
        module = types.ModuleType(PACKAGE + name)
        module.__path__ = [str(home / "easyeditor" / name.strip(".").replace(".", "/"))]
        sys.modules[PACKAGE + name] = module
    sys.modules[f"{PACKAGE}.util.generate"] = types.ModuleType("generate")
    sys.modules[f"{PACKAGE}.util.generate"].generate_fast = None  # only for contexts, which it does not use
    return importlib.import_module(f"{PACKAGE}.models.fine.fine_main")


def on_the_cpu(monkeypatch, vectors: torch.dtype):
    """``.cuda()`` stays where it is; their bfloat16 vectors become another dtype."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, *_args, **_kwargs: self)
    monkeypatch.setattr(torch, "bfloat16", vectors)


def _with_activations(model, model_type):
    """What their modelling files add: after ``set_get_activations`` a forward keeps the activations, in half
    precision."""
    activations = {}

    def keep(layer):
        def hook(_module, args, _out):
            activations.setdefault(layer, args[0].detach().half())

        return hook

    for layer in range(model.config.num_hidden_layers):
        model.get_submodule(TEMPLATES[model_type].format(layer)).register_forward_hook(keep(layer))
    model.set_get_activations = activations.clear
    type(model).activations = property(lambda self: [activations[layer] for layer in sorted(activations)])


def run(module, model, model_type, tok, request, hparams):
    """Their ``execute_fine``: ([(layer, neuron), ...], vectors [N, d_model])."""
    released = SimpleNamespace(
        **{**hparams.to_dict(), "model_name": NAMES[model_type], "rewrite_module_tmp": TEMPLATES[model_type]}
    )
    _with_activations(model, model_type)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            vectors, neurons, _ = module.execute_fine(model, tok, dict(request), released, 0)
    finally:
        del type(model).activations
    return [tuple(place) for place in neurons.tolist()], vectors
