"""The sum over the vocabulary in tiles against everything materialised in float64."""

import pytest
import torch

from easyedit_neuron.attribution import logsumexp
from easyedit_neuron.attribution.logsumexp import CAP, REACH, plain_logsumexp
from helpers.vocabulary import drawn, written_out


@pytest.mark.parametrize("tokens,elements", [(11, 1), (11, 11 * 7 * 2), (64, 1 << 20), (1000, 1 << 20)])
@pytest.mark.parametrize("size", [1.0, 500.0])
@pytest.mark.parametrize("cap", [None, 5.0, 2 * CAP])
def test_tiles_do_not_change_the_sum(tokens, elements, size, cap):
    inputs = drawn(101, 13, 7, 5, torch.float64, size)
    torch.testing.assert_close(
        plain_logsumexp(*inputs, cap, tokens, elements), written_out(*inputs, cap), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 8.0, 500.0])
@pytest.mark.parametrize("cap", [None, 5.0, 30.0])
def test_float32(dtype, size, cap):
    inputs = drawn(301, 16, 33, 4, dtype, size)
    result = plain_logsumexp(*inputs, cap, 50, 5000)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), written_out(*inputs, cap), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("share", [0.999, 1.001])
@pytest.mark.parametrize("gap", [0.0, 40.0, 80.0, 100.0, 300.0])
@pytest.mark.parametrize("tokens", [1, 2])
def test_at_the_edge_of_the_reach(share, gap, tokens):
    """The likeliest token pushed down and one ``gap`` nats below it up, by as much as the short way takes,
    and just not."""
    move = share * REACH / logsumexp.LOG2E
    weight, columns = torch.tensor([[1.0], [-1.0]]), torch.tensor([[-1.0, 1.0, 0.0]])
    base, scale = torch.tensor([[0.0, -gap], [-gap, 0.0]]), torch.full((2, 3), move)
    result = plain_logsumexp(weight, columns, base, scale, None, tokens, 1)
    torch.testing.assert_close(
        result.double(), written_out(weight, columns, base, scale), rtol=1e-6, atol=4e-6
    )


def test_one_neuron_out_of_reach_among_others():
    weight, columns, base, scale = drawn(200, 8, 6, 3)
    scale[1, 4] = 300.0
    result = plain_logsumexp(weight, columns, base, scale, None, 30, 1000)
    torch.testing.assert_close(
        result.double(), written_out(weight, columns, base, scale), rtol=2e-6, atol=2e-6
    )


def test_what_is_not_a_number_stays_with_its_neuron():
    weight, columns, base, scale = drawn(50, 8, 6, 3)
    columns[2, 4] = float("nan")
    result = plain_logsumexp(weight, columns, base, scale, None, 20, 1000)
    assert result.isnan().nonzero()[:, 1].unique().tolist() == [4]
    columns[2, 4] = 0.0
    torch.testing.assert_close(
        result[:, :4].double(), written_out(weight, columns, base, scale)[:, :4], rtol=2e-6, atol=2e-6
    )
