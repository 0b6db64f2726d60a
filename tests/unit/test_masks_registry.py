"""The mask registry, and the masks that do not look at the scores."""

from dataclasses import dataclass

import pytest
import torch

from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.hyperparameters.options import Options, doc
from easyedit_neuron.masks import (
    NeuronMask,
    get_mask,
    mask_names,
    mask_spec,
    register_mask,
    register_scores,
    registry,
)
from easyedit_neuron.masks.generic import FixedOptions, RandomOptions, fixed_mask, no_mask, random_mask
from easyedit_neuron.models.nmke.nmke_mask import nmke_mask

SCORES = torch.zeros(2, 20)


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_MASKS", dict(registry._MASKS))
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))


def test_the_shipped_masks_and_their_scores():
    kinds = {name: mask_spec(name).scores for name in mask_names()}
    assert {
        "nmke": "lps",
        "contribution": "contribution",
        "ig": "ig",
        "activation": "activation",
        "none": "none",
        "random": "none",
        "fixed": "none",
        "pnke": "pnke",
    }.items() <= kinds.items()
    assert get_mask("nmke") is nmke_mask and get_mask("none") is no_mask


def test_every_built_in_entry_can_be_loaded():
    for spec in (*registry._MASKS.values(), *registry._SCORES.values()):
        assert callable(registry.load(spec.function))
        assert spec.options is None or issubclass(registry.load(spec.options), Options)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(
        MaskError, match="'nmkee' is unknown: did you mean 'nmke'.*fixed, ig, nmke, none, pnke, random"
    ):
        get_mask("nmkee")


@dataclass(kw_only=True)
class CountOptions(Options):
    count: int = doc("neurons", 2)


def test_a_new_mask_is_one_registration(own_registry):
    @register_mask("strongest", options=CountOptions)
    def strongest(scores, options, layer):
        best = scores.max(dim=0).values.topk(options.count).indices
        return NeuronMask.from_indices(best, scores.shape[1], scores.device)

    mask = get_mask("strongest")(torch.tensor([[0.0, 5.0, 1.0, 3.0]]), CountOptions(), 0)
    assert mask.indices.tolist() == [1, 3] and mask.density == 0.5
    assert mask.counts == {"selected": 2}
    assert mask.to_json()["ratios"] == {"general": None, "specific": None}


def test_a_taken_name_is_an_error_and_the_same_registration_is_not(own_registry):
    def mine(scores):
        return scores[0] > 0

    assert register_mask("mine", mine) is mine and register_mask("mine", mine) is mine
    with pytest.raises(MaskError, match="'mine' is already registered .*scores='lps'"):
        register_mask("mine", mine, scores="mpc")
    with pytest.raises(MaskError, match="scores 'lpd' are unknown: did you mean 'lps'"):
        register_mask("other", mine, scores="lpd")
    with pytest.raises(MaskError, match="'nmke' is already registered"):
        register_mask("nmke", mine)
    with pytest.raises(MaskError, match="expected a name"):
        register_mask("", mine)


def test_new_scores_are_one_registration(own_registry):
    def ones(context):
        return {layer: torch.ones(1, 4) for layer in context.layers}

    register_scores("ones", ones)
    register_mask("on_ones", lambda scores: scores[0] > 0, scores="ones")
    assert mask_spec("on_ones").scores == "ones"
    with pytest.raises(MaskError, match="scores 'lps' is already registered"):
        register_scores("lps", ones)
    with pytest.raises(MaskError, match="register_scores: expected a name"):
        register_scores(" ", ones)


def test_none_keeps_every_neuron():
    assert no_mask(SCORES).full and no_mask(SCORES).size == 20


def test_random_masks_are_of_the_given_density_and_repeat_under_a_seed():
    options = RandomOptions(density=0.3, seed=5)
    first = random_mask(SCORES, options, 2)
    assert first.size == 6 and first.density == 0.3 and first.mask.dtype == torch.bool
    assert torch.equal(first.mask, random_mask(SCORES + 1, options, 2).mask)
    for seed, layer in ((6, 2), (5, 3)):
        other = random_mask(SCORES, RandomOptions(density=0.3, seed=seed), layer)
        assert not torch.equal(first.mask, other.mask)
    assert random_mask(SCORES, RandomOptions(density=0.001), 0).size == 1
    assert random_mask(SCORES, RandomOptions(density=1.0), 0).full


def test_random_masks_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    random_mask(SCORES, RandomOptions(), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_fixed_masks_by_list_and_by_layer():
    assert fixed_mask(SCORES, FixedOptions(indices=[3, 0]), 0).indices.tolist() == [0, 3]
    by_layer = FixedOptions(indices={2: [1], "3": [4, 5]})
    assert fixed_mask(SCORES, by_layer, 2).indices.tolist() == [1]
    assert fixed_mask(SCORES, by_layer, 3).indices.tolist() == [4, 5]


@pytest.mark.parametrize(
    "cls, options, words",
    [
        (RandomOptions, dict(density=0.0), "'density': must be in"),
        (RandomOptions, dict(density=1.1), "'density': must be in"),
        (RandomOptions, dict(density=True), "'density': must be a number"),
        (RandomOptions, dict(seed=-1), "'seed': must not be negative"),
        (FixedOptions, dict(indices=["a"]), "'indices': .*must be an integer"),
        (FixedOptions, dict(indices="12"), "'indices': must be a list"),
        (FixedOptions, dict(indices=[0.5]), "'indices': .*must be an integer"),
    ],
)
def test_bad_options_are_refused(cls, options, words):
    with pytest.raises(HparamsError, match=words):
        cls(**options)


@pytest.mark.parametrize(
    "indices, words",
    [
        ([], "list is empty"),
        ([20], "20 is not a neuron; the layer has neurons 0 to 19"),
        ([-1], "-1 is not a neuron"),
        ([1, 2, 1], "neuron 1 is given twice"),
        ({1: [2]}, "no entry for layer 4; there are entries for 1"),
    ],
)
def test_neurons_that_the_layer_does_not_have(indices, words):
    with pytest.raises(MaskError, match=words):
        fixed_mask(SCORES, FixedOptions(indices=indices), 4)
