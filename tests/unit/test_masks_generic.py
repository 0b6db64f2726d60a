"""The generic masks: the best neurons of scores small enough to sort by eye, none, random and fixed ones."""

import pytest
import torch

from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.masks import get_mask
from easyedit_neuron.masks.generic import (
    FixedOptions,
    RandomOptions,
    TopOptions,
    fixed_mask,
    no_mask,
    random_mask,
)

SCORES = torch.tensor(
    [
        [5.0, 1.0, 4.0, -9.0, 0.0, 2.0, 3.0, -1.0, -2.0, -3.0],
        [0.0, 0.0, 9.0, 8.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0],
    ]
)
ZEROS = torch.zeros(2, 20)


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


def test_none_keeps_every_neuron():
    assert no_mask(ZEROS).full and no_mask(ZEROS).size == 20


def test_random_masks_are_of_the_given_density_and_repeat_under_a_seed():
    options = RandomOptions(density=0.3, seed=5)
    first = random_mask(ZEROS, options, 2)
    assert first.size == 6 and first.density == 0.3 and first.mask.dtype == torch.bool
    assert torch.equal(first.mask, random_mask(ZEROS + 1, options, 2).mask)
    for seed, layer in ((6, 2), (5, 3)):
        other = random_mask(ZEROS, RandomOptions(density=0.3, seed=seed), layer)
        assert not torch.equal(first.mask, other.mask)
    assert random_mask(ZEROS, RandomOptions(density=0.001), 0).size == 1
    assert random_mask(ZEROS, RandomOptions(density=1.0), 0).full


def test_random_masks_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    random_mask(ZEROS, RandomOptions(), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_fixed_masks_by_list_and_by_layer():
    assert fixed_mask(ZEROS, FixedOptions(indices=[3, 0]), 0).indices.tolist() == [0, 3]
    by_layer = FixedOptions(indices={2: [1], "3": [4, 5]})
    assert fixed_mask(ZEROS, by_layer, 2).indices.tolist() == [1]
    assert fixed_mask(ZEROS, by_layer, 3).indices.tolist() == [4, 5]


@pytest.mark.parametrize(
    "cls, options, words",
    [
        (RandomOptions, dict(density=0.0), "'density': must be in"),
        (RandomOptions, dict(density=1.1), "'density': must be in"),
        (RandomOptions, dict(density=True), "'density': must be a number"),
        (RandomOptions, dict(seed=-1), "'seed': must be in .0, 4294967295."),
        (FixedOptions, dict(indices=["a"]), "'indices': .*must be an integer"),
        (FixedOptions, dict(indices="12"), "'indices': must be a list"),
        (FixedOptions, dict(indices=[0.5]), "'indices': .*must be an integer"),
    ],
)
def test_bad_options_of_random_and_fixed_are_refused(cls, options, words):
    with pytest.raises(HparamsError, match=words):
        cls(**options)


@pytest.mark.parametrize(
    "indices, words",
    [
        ([], "list is empty"),
        ([20], "20 is not a neuron; the layer has neurons 0 to 19"),
        ([1, 2, 1], "neuron 1 is given twice"),
        ({1: [2]}, "no entry for layer 4; there are entries for 1"),
    ],
)
def test_neurons_that_the_layer_does_not_have(indices, words):
    with pytest.raises(MaskError, match=words):
        fixed_mask(ZEROS, FixedOptions(indices=indices), 4)
