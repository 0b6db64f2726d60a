"""Not running the blocks below the edited layer again changes nothing, on every architecture."""

import pytest
import torch

from easyedit_neuron.arch.capture import Capture
from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import ArchitectureError
from helpers.tiny_models import ALL_TYPES, tiny_model

TEXTS = ["the quick brown fox", "jumps over the lazy dog near the river", "why"]


@pytest.mark.parametrize("model_type", ALL_TYPES)
@pytest.mark.parametrize("layer", [0, 2])
def test_logits_and_gradients_are_bit_identical(model_type, layer):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    batch = encode(tok, TEXTS)
    delta = (0.1 * torch.randn(view.d_model, generator=torch.Generator().manual_seed(0))).requires_grad_()
    prefix, outcomes = None, []
    for _ in range(2):
        with Capture(
            view,
            [layer + 1],
            want=("layer_out", "key"),
            edit_layer_out={layer: lambda out: out + delta},
            prefix_of=layer,
            skip=prefix,
        ) as seen:
            logits = model(**batch.inputs, use_cache=False).logits
        (gradient,) = torch.autograd.grad(logits.square().mean(), delta)
        outcomes.append((logits.detach(), gradient, seen.key[layer + 1].detach()))
        prefix = seen.prefix
    for first, second in zip(*outcomes):
        assert torch.equal(first, second)
    assert all("forward" not in view.layer(layer).__dict__ for layer in range(view.n_layers))
    with torch.no_grad():
        assert not torch.equal(model(**batch.inputs, use_cache=False).logits, outcomes[0][0]), (
            "the model runs whole again"
        )


def test_forwards_come_back_after_an_exception():
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    batch = encode(tok, TEXTS)
    with Capture(view, [], want=(), prefix_of=1) as seen:
        hidden = model(**batch.inputs, output_hidden_states=True, use_cache=False).hidden_states[2]
    assert torch.equal(seen.prefix.hidden, hidden)
    marker = view.layer(0).forward
    view.layer(0).forward = marker  # as accelerate does
    with pytest.raises(RuntimeError, match="stop here"), Capture(view, [], want=(), skip=seen.prefix):
        raise RuntimeError("stop here")
    assert view.layer(0).__dict__["forward"] is marker and "forward" not in view.layer(1).__dict__


def test_what_is_not_run_cannot_be_captured():
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    with Capture(view, [], want=(), prefix_of=2) as seen:
        model(**encode(tok, TEXTS).inputs, use_cache=False)
    prefix = seen.prefix
    for capture in (
        {"layers": [1], "want": ("layer_out",)},
        {"layers": [2], "want": ("key",)},
        {"layers": [], "prefix_of": 1},
    ):
        with pytest.raises(ArchitectureError, match="not run"):
            Capture(view, skip=prefix, **capture)
