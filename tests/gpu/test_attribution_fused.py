"""The kernel against everything materialised in float64, on sizes that no block divides; and when it is
used."""

import pytest
import torch

from easyedit_neuron.arch import ModelView
from easyedit_neuron.attribution import logsumexp, projection
from easyedit_neuron.attribution.projection import amplified_log_probs
from easyedit_neuron.attribution.readings import read_prompts
from helpers.prompts import right_padded
from helpers.tiny_models import tiny_model
from helpers.vocabulary import drawn, written_out

SIZES = [(1, 1, 1, 1), (150, 40, 70, 3), (64, 32, 64, 2), (65, 33, 65, 17)]


@pytest.fixture
def fused():
    """Imported when a test runs: the module needs Triton."""
    from easyedit_neuron.attribution import fused

    return fused


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cap", [None, 5.0])
def test_equals_the_sum_written_out(fused, device, sizes, cap):
    inputs = drawn(*sizes)
    result = fused.fused_logsumexp(*(x.to(device) for x in inputs), cap)
    torch.testing.assert_close(result.cpu().double(), written_out(*inputs, cap), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("programs", [1, 2])
def test_several_tiles_and_shares_of_the_vocabulary(fused, device, monkeypatch, programs):
    monkeypatch.setattr(fused, "PROGRAMS", programs)
    inputs = drawn(300, 8, 20, 2, size=500.0)  # also far outside of float32's range of exp
    result = fused.fused_logsumexp(*(x.to(device) for x in inputs), None)
    torch.testing.assert_close(result.cpu().double(), written_out(*inputs), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_unembedding_and_strided_inputs(fused, device, dtype):
    weight, columns, base, scale = drawn(90, 24, 30, 3, dtype)
    views = (
        weight.T.contiguous().T,
        columns.repeat(1, 2)[:, :30],
        base.T.contiguous().T,
        scale.repeat(1, 2)[:, :30],
    )
    result = fused.fused_logsumexp(*(x.to(device) for x in views), None)
    torch.testing.assert_close(
        result.cpu().double(), written_out(weight, columns, base, scale), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
def test_log_probabilities_of_a_model(fused, device, monkeypatch, model_type):
    """RMSNorm, LayerNorm with centred columns, soft cap."""
    model, tok = tiny_model(model_type)
    view = ModelView.of(model.to(device))
    readings = read_prompts(view, right_padded(tok), [2])
    monkeypatch.setattr(projection, "perturbed_logsumexp", logsumexp.plain_logsumexp)
    plain = amplified_log_probs(view, readings, readings.top1, 30.0)[2]
    monkeypatch.setattr(projection, "perturbed_logsumexp", lambda *inputs: fused.fused_logsumexp(*inputs[:5]))
    result = amplified_log_probs(view, readings, readings.top1, 30.0, neuron_chunk=40)[2]
    torch.testing.assert_close(result.amplified, plain.amplified, rtol=1e-4, atol=1e-4)
    assert (plain.amplified - plain.base).abs().max() > 1.0


def test_used_where_it_gives_the_right_numbers(fused, device):
    logsumexp.fused_kernel.cache_clear()
    assert logsumexp.fused_kernel(device) is fused.fused_logsumexp


@pytest.mark.parametrize("wrong", [lambda *inputs: torch.zeros_like(inputs[3]), lambda *inputs: inputs[9]])
def test_not_used_where_it_is_wrong_or_fails(fused, device, monkeypatch, caplog, wrong):
    logsumexp.fused_kernel.cache_clear()
    monkeypatch.setattr(fused, "fused_logsumexp", wrong)
    with caplog.at_level("WARNING", logger="easyedit_neuron"):
        assert logsumexp.fused_kernel(device) is None
    assert "going on without it" in caplog.text
    logsumexp.fused_kernel.cache_clear()
