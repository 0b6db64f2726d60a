"""The ensemble by its quantile or by its share of the parameters, and the checks of KNE's hyperparameters."""

import numpy
import pytest
import torch
from torch import nn

from easyedit_neuron.arch import Projection
from easyedit_neuron.errors import EditError, HparamsError
from easyedit_neuron.models.kne.ensemble import choose
from easyedit_neuron.models.kne.kne_hparams import KNEHyperParams

# 4 rows of 10 numbers and 6 rows of 3: 58 parameters, in a model of 100
SITES = [
    Projection(0, "down_proj", "a", "a.weight", torch.arange(4), 10, False),
    Projection(1, "q_proj", "b", "b.weight", torch.arange(6), 3, False),
]
SCORES = {
    "0.down_proj": torch.tensor([5.0, -1.0, 9.0, 0.5]),
    "1.q_proj": torch.tensor([7.0, 6.0, 0.0, -8.0, 2.0, 1.0]),
}
MODEL = nn.Linear(10, 10, bias=False)


def members(ensemble):
    return {site.key: units.tolist() for site, units in ensemble.members}


def test_the_share_of_the_parameters_counts_what_every_neuron_holds():
    # in order: 9 (10 parameters), 7 (3), 6 (3), 5 (10), 2 (3), 1 (3) ...
    assert members(choose(SCORES, SITES, "output", MODEL, 0.15)) == {"0.down_proj": [2], "1.q_proj": [0]}
    ensemble = choose(SCORES, SITES, "output", MODEL, 0.26)
    assert members(ensemble) == {"0.down_proj": [0, 2], "1.q_proj": [0, 1]}
    assert (ensemble.parameters, ensemble.share, ensemble.p, ensemble.threshold) == (26, 0.26, 0.4, 5.0)
    assert members(choose(SCORES, SITES, "output", MODEL, 0.01)) == {"0.down_proj": [2]}  # never none
    assert choose(SCORES, SITES, "output", MODEL, 1.0).parameters == 58
    assert choose(SCORES, SITES, "output", MODEL, 0.16).to_info() == {
        "neurons": {"0.down_proj": 1, "1.q_proj": 2},
        "threshold": 6.0,
        "p": 0.3,
        "parameters_moved": 16,
        "share_moved": 0.16,
    }


@pytest.mark.parametrize("p", [0.05, 0.1, 0.25, 0.3, 0.5, 0.999, 1.0])
def test_p_is_the_joint_quantile(p):
    flat = torch.cat([SCORES[site.key] for site in SITES]).double().numpy()
    expected = flat >= numpy.quantile(flat, 1 - p) - 1e-12
    selected = members(choose(SCORES, SITES, "output", MODEL, 0.01, p))
    assert selected.get("0.down_proj", []) == expected[:4].nonzero()[0].tolist()
    assert selected.get("1.q_proj", []) == expected[4:].nonzero()[0].tolist()


def test_columns():
    scores = {"0.down_proj": torch.arange(10.0), "1.q_proj": torch.tensor([20.0, 0.0, 5.5])}
    ensemble = choose(
        scores, SITES, "input", MODEL, 0.19
    )  # a column of the first holds 4 parameters, one of the second 6
    assert members(ensemble) == {"0.down_proj": [7, 8, 9], "1.q_proj": [0]} and ensemble.parameters == 18


def test_ties_at_the_threshold_all_count():
    scores = {"0.down_proj": torch.tensor([1.0, 1.0, 1.0, 0.0]), "1.q_proj": torch.zeros(6)}
    ensemble = choose(scores, SITES, "output", MODEL, 0.10)
    assert members(ensemble) == {"0.down_proj": [0, 1, 2]} and ensemble.share == 0.3


def test_equal_scores_are_nothing_to_choose_by():
    with pytest.raises(EditError, match="all scores are equal"):
        choose({key: torch.zeros_like(scores) for key, scores in SCORES.items()}, SITES, "output", MODEL, 0.1)


def hparams(**changes):
    return KNEHyperParams(**{"alg_name": "KNE", "model_name": "x", "device": "cpu", **changes})


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"target_modules": ["down_porj"]},
            "'target_modules': unknown module 'down_porj': did you mean 'down_proj'",
        ),
        ({"target_modules": []}, "'target_modules': must name different modules"),
        ({"target_modules": ["q_proj", "q_proj"]}, "'target_modules': must name different modules"),
        ({"layers": [1, 1]}, "'layers': must be different layer numbers"),
        ({"layers": [-1]}, "'layers'"),
        ({"share_of_parameters": 0}, "'share_of_parameters': must be in .0, 1."),
        ({"p": 1.5}, "'p': must be in .0, 1."),
        ({"stop_probability": 1.0}, "'stop_probability': must be in .0, 1."),
        ({"kl_prompt": "is a"}, "'kl_prompt'"),
        ({"lr": 0}, "'lr': must be greater than 0"),
        ({"kl_factor": -1}, "'kl_factor': must be at least 0"),
        ({"localize": "share"}, "'localize'.*did you mean 'shared'"),
        ({"alg_name": "NMKE"}, "KNEHyperParams is for 'KNE'"),
    ],
)
def test_wrong_hyperparameters_are_named(changes, words):
    with pytest.raises(HparamsError, match=words):
        hparams(**changes)


def test_modules_named_by_hand_are_known():
    named = hparams(projections={"fused": "model.layers.{}.qkv"}, target_modules=["fused"])
    assert named.module_overrides() == {"projections": {"fused": "model.layers.{}.qkv"}}
    assert hparams().module_overrides() == {}
