"""reference_quirks against the released NMKE code's formula, written again in other words, prompt by prompt
in float32."""

import pytest
import torch

from easyedit_neuron.arch import Capture, ModelView
from easyedit_neuron.attribution import neuron_scores
from helpers.prompts import TEXTS, right_padded
from helpers.tiny_models import tiny_model

LAYERS = [0, 2]


def _released_lps(model, text_ids, layer, llama):
    """Score of each neuron for one prompt: amplify, normalise with the last block's output, softmax, clamp,
    log."""
    view = ModelView.of(model)
    with torch.no_grad(), Capture(view, [layer], want={"key", "resid_mid", "final_hidden"}) as seen:
        winner = model(input_ids=text_ids).logits[0, -1].argmax()
        stream, last = seen.resid_mid[layer][0, -1], seen.final_hidden[0, -1]
        if llama:
            down, weight, head = (
                model.model.layers[layer].mlp.down_proj.weight.T,
                model.model.norm.weight,
                model.lm_head,
            )

            def readout(h):
                return head(h / (last.square().mean() + 1e-6).sqrt() * weight)
        else:
            down, weight, head = (
                model.transformer.h[layer].mlp.c_proj.weight,
                model.transformer.ln_f.weight,
                model.lm_head,
            )

            def readout(h):
                return head((h - h.mean(-1, keepdim=True)) / (last.std(unbiased=False) + 1e-5) * weight)

        pushed = stream + 30 * seen.key[layer][0, -1, :, None] * down
        probabilities = [readout(h).softmax(-1)[..., winner].clamp(1e-8, 1 - 1e-8) for h in (pushed, stream)]
        return probabilities[0].log() - probabilities[1].log()


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_quirks_give_the_released_scores(model_type):
    model, tok = tiny_model(
        model_type, **({"rms_norm_eps": 0.1} if model_type == "llama" else {"layer_norm_epsilon": 0.1})
    )
    view = ModelView.of(model)
    quirky = neuron_scores(view, right_padded(tok), LAYERS, reference_quirks=True).scores
    clean = neuron_scores(view, right_padded(tok), LAYERS).scores
    worst = 0.0
    for layer in LAYERS:
        for row, text in enumerate(TEXTS):
            ids = torch.tensor([tok(text)["input_ids"]])
            expected = _released_lps(model, ids, layer, model_type == "llama")
            worst = max(worst, ((quirky[layer][row] - expected).abs() / (expected.abs() + 1e-2)).max().item())
        assert (quirky[layer] - clean[layer]).abs().max() > 1e-2
    assert worst < 2e-3, worst
