"""The masks of the best neurons, on scores small enough to sort by eye."""

import pytest
import torch

from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.masks import get_mask
from easyedit_neuron.masks.generic import TopOptions

SCORES = torch.tensor(
    [
        [5.0, 1.0, 4.0, -9.0, 0.0, 2.0, 3.0, -1.0, -2.0, -3.0],
        [0.0, 0.0, 9.0, 8.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0],
    ]
)


@pytest.mark.parametrize("name", ["contribution", "ig", "activation"])
@pytest.mark.parametrize(
    "options, chosen",
    [
        (dict(top_k=1), [0, 2]),  # best of the first row, best of the second
        (dict(top_k=2), [0, 2, 3]),
        (dict(top_share=0.3), [0, 2, 3, 6]),  # 0 2 6 and 2 3 0: the first of the two equal neurons
        (dict(top_share=0.01), [0, 2]),  # at least one per row
        (dict(top_k=10), list(range(10))),
    ],
)
def test_best_of_every_row_united(name, options, chosen):
    mask = get_mask(name)(SCORES, TopOptions(**options), 3)
    assert (
        mask.indices.tolist() == chosen and mask.mask.dtype == torch.bool and mask.density == len(chosen) / 10
    )


def test_defaults_are_those_of_the_papers():
    scores = torch.arange(100.0)[None]
    assert get_mask("contribution")(scores, TopOptions(), 0).indices.tolist() == [95, 96, 97, 98, 99]
    assert get_mask("ig")(scores, TopOptions(), 0).indices.tolist() == list(range(90, 100))


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(top_k=2, top_share=0.1), "give top_k or top_share, not both"),
        (dict(top_k=0), "'top_k': must be at least 1"),
        (dict(top_k=True), "'top_k': must be an integer"),
        (dict(top_share=0.0), "'top_share': must be in"),
        (dict(top_share=1.5), "'top_share': must be in"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(HparamsError, match=words):
        TopOptions(**options)


def test_more_neurons_than_the_layer_has():
    with pytest.raises(MaskError, match="top_k: the layer has 10 neurons, got 11"):
        get_mask("contribution")(SCORES, TopOptions(top_k=11), 0)
