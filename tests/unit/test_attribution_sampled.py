"""The sampled sum over the vocabulary, against the sum itself in float64."""

import pytest
import torch

from easyedit_neuron.attribution.sampled import VocabularySample, exact_where

VOCABULARY, WIDTH, NEURONS, PROMPTS = 5000, 24, 40, 3


@pytest.fixture(scope="module")
def case():
    random = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    weight, columns, scale = draw(VOCABULARY, WIDTH), draw(WIDTH, NEURONS), 0.1 * draw(PROMPTS, NEURONS)
    base = 3 * draw(PROMPTS, VOCABULARY)
    moved = base[:, :, None] + scale[:, None] * (weight @ columns)
    return weight, columns, scale, base, moved.logsumexp(1)


def test_with_all_tokens_on_top_the_sum_is_exact(case):
    weight, columns, scale, base, exact = case
    sample = VocabularySample.of(weight, base, top=VOCABULARY, drawn=2)
    sums, errors = sample.logsumexp(weight, columns, scale)
    torch.testing.assert_close(sums, exact)
    assert float(errors.max()) < 1e-9, "nothing is left to estimate"


def test_the_error_is_as_large_as_it_says(case):
    weight, columns, scale, base, exact = case
    sums, errors = VocabularySample.of(weight, base).logsumexp(weight, columns, scale)
    deviations = (sums - exact) / errors
    assert 0.2 < float(deviations.square().mean().sqrt()) < 2.0
    # The mean effect is exact, so that only the curvature is estimated: far better than the top tokens alone.
    plain = VocabularySample.of(weight, base, drawn=4000).logsumexp(weight, columns, scale)[0]
    assert float((plain - exact).abs().mean()) < float((sums - exact).abs().mean())


def test_small_moves_have_their_first_order_exactly(case):
    weight, columns, _, base, _ = case
    scale = torch.full((PROMPTS, NEURONS), 1e-5, dtype=torch.float64)
    sums, _ = VocabularySample.of(weight, base, top=8, drawn=8).logsumexp(weight, columns, scale)
    expected = base.logsumexp(1)[:, None] + 1e-5 * (base.softmax(1) @ weight @ columns)
    torch.testing.assert_close(sums, expected, rtol=0, atol=2e-8)


def test_large_moves_do_not_overflow(case):
    weight, columns, scale, base, _ = case
    arguments = (tensor.float() for tensor in (weight, columns, 300 * scale))
    sums, errors = VocabularySample.of(weight.float(), base.float()).logsumexp(*arguments)
    assert torch.isfinite(sums).all() and not torch.isnan(errors).any()


@pytest.mark.parametrize("elements", [1, 1 << 20])
def test_the_exact_sum_of_some_prompts_and_neurons(case, elements):
    weight, columns, scale, base, exact = case
    asked = torch.rand(PROMPTS, NEURONS, generator=torch.Generator().manual_seed(1)) < 0.2
    sums = exact_where(asked, weight, columns, base, scale, elements)
    torch.testing.assert_close(sums, exact[asked])
    assert exact_where(torch.zeros_like(asked), weight, columns, base, scale, elements).shape == (0,)
