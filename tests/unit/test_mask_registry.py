"""The mask registry, and the masks that do not look at the scores."""

import pytest
import torch

from easyedit_neuron.errors import MaskError
from easyedit_neuron.masks import (
    NeuronMask,
    fixed_mask,
    get_mask,
    mask_names,
    mask_spec,
    nmke_mask,
    no_mask,
    random_mask,
    register_mask,
    registry,
)
from easyedit_neuron.masks.contract import mask_function

SCORES = torch.zeros(2, 20)


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_MASKS", dict(registry._MASKS))


def test_the_shipped_masks_and_their_scores():
    kinds = {name: mask_spec(name).scores for name in mask_names()}
    assert kinds == {
        "nmke": "lps",
        "contribution": "contribution",
        "ig": "ig",
        "activation": "activation",
        "none": "none",
        "random": "none",
        "fixed": "none",
        "pnke": "pnke",
    }
    assert get_mask("nmke") is nmke_mask and get_mask("none") is no_mask


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(
        MaskError, match="'nmkee' is unknown: did you mean 'nmke'.*fixed, ig, nmke, none, pnke, random"
    ):
        get_mask("nmkee")


def test_a_new_mask_is_one_registration(own_registry):
    @register_mask("strongest")
    @mask_function
    def strongest(scores, *, layer=None, count=2):
        best = scores.max(dim=0).values.topk(count).indices
        return NeuronMask(torch.zeros(scores.shape[1], dtype=torch.bool).scatter(0, best, True))

    found = get_mask("strongest")(torch.tensor([[0.0, 5.0, 1.0, 3.0]]))
    assert found.indices.tolist() == [1, 3] and found.density == 0.5
    assert found.counts == {"selected": 2} and found.ratios == {"general": None, "specific": None}
    with pytest.raises(MaskError, match="no option 'counts': did you mean 'count'"):
        get_mask("strongest")(SCORES, counts=3)


def test_a_taken_name_is_an_error_and_the_same_function_is_not(own_registry):
    register_mask("nmke", nmke_mask)
    with pytest.raises(MaskError, match="'nmke' is already registered by .*nmke_mask with scores 'lps'"):
        register_mask("nmke", nmke_mask, scores="mpc")
    with pytest.raises(MaskError, match="scores 'lpd' are unknown: did you mean 'lps'"):
        register_mask("other", nmke_mask, scores="lpd")
    with pytest.raises(MaskError, match="'nmke' is already registered by .*nmke_mask"):
        register_mask("nmke", random_mask)
    with pytest.raises(MaskError, match="expected a name"):
        register_mask("", random_mask)


def test_none_keeps_every_neuron():
    assert no_mask(SCORES).full and no_mask(SCORES, layer=3).size == 20


def test_random_masks_are_of_the_given_density_and_repeat_under_a_seed():
    first = random_mask(SCORES, density=0.3, seed=5, layer=2)
    assert first.size == 6 and first.density == 0.3 and first.mask.dtype == torch.bool
    assert torch.equal(first.mask, random_mask(SCORES + 1, density=0.3, seed=5, layer=2).mask)
    for other in (dict(seed=6, layer=2), dict(seed=5, layer=3), dict(seed=5)):
        assert not torch.equal(first.mask, random_mask(SCORES, density=0.3, **other).mask)
    assert random_mask(SCORES, density=0.001).size == 1 and random_mask(SCORES, density=1.0).full


def test_random_masks_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    random_mask(SCORES)
    assert torch.equal(before, torch.get_rng_state())


def test_fixed_masks_by_list_and_by_layer():
    assert fixed_mask(SCORES, indices=[3, 0]).indices.tolist() == [0, 3]
    by_layer = {2: [1], "3": torch.tensor([4, 5])}
    assert fixed_mask(SCORES, indices=by_layer, layer=2).indices.tolist() == [1]
    assert fixed_mask(SCORES, indices=by_layer, layer=3).indices.tolist() == [4, 5]


@pytest.mark.parametrize(
    "name,options,words",
    [
        ("random", dict(density=0.0), "density: must be greater than 0"),
        ("random", dict(density=1.1), "density: .*at most 1"),
        ("random", dict(density=True), "density: expected a finite number"),
        ("random", dict(seed=-1), "seed"),
        ("random", dict(sede=1), "no option 'sede': did you mean 'seed'"),
        ("fixed", {}, "needs the option 'indices'"),
        ("fixed", dict(indices=[]), "list is empty"),
        ("fixed", dict(indices=[20]), "20 is not a neuron; the layer has neurons 0 to 19"),
        ("fixed", dict(indices=[-1]), "-1 is not a neuron"),
        ("fixed", dict(indices=[1, 2, 1]), "neuron 1 is given twice"),
        ("fixed", dict(indices=["a"]), "expected neuron numbers"),
        ("fixed", dict(indices="12"), "expected neuron numbers"),
        ("fixed", dict(indices=[0.5]), "expected neuron numbers"),
        ("fixed", dict(indices={1: [2]}, layer=4), "no entry for layer 4; there are entries for 1"),
        ("none", dict(density=1), "no option 'density'"),
    ],
)
def test_bad_options_are_refused(name, options, words):
    with pytest.raises(MaskError, match=words):
        get_mask(name)(SCORES, **options)
