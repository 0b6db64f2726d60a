"""The mask registry: names, options, and what is refused."""

from dataclasses import dataclass

import pytest
import torch

from easyedit_neuron.errors import MaskError
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
from easyedit_neuron.masks.generic import no_mask
from easyedit_neuron.models.nmke.nmke_mask import nmke_mask


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
    def positive(scores):
        return scores[0] > 0

    assert register_mask("mine", positive) is positive and register_mask("mine", positive) is positive
    with pytest.raises(MaskError, match="'mine' is already registered .*scores='lps'"):
        register_mask("mine", positive, scores="mpc")
    with pytest.raises(MaskError, match="scores 'lpd' are unknown: did you mean 'lps'"):
        register_mask("other", positive, scores="lpd")
    with pytest.raises(MaskError, match="'nmke' is already registered"):
        register_mask("nmke", positive)
    with pytest.raises(MaskError, match="expected a name"):
        register_mask("", positive)


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
