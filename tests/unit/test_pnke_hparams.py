"""PNKE's hyperparameters: what goes together, where a mistake is found, and how they reach the mask."""

import inspect

import pytest

from easyedit_neuron import PNKEHyperParams
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.masks import pnke_mask
from easyedit_neuron.models.pnke.pnke_scores import causal


def hparams(**changes):
    return PNKEHyperParams(
        **{"alg_name": "PNKE", "model_name": "in memory", "device": "cpu", "layers": [1], **changes}
    )


def test_the_defaults_are_those_of_mask_and_scores():
    made = hparams()
    choice = made.mask_choice()
    for function, options in ((pnke_mask, choice.mask_options), (causal, choice.score_options)):
        defaults = {
            name: p.default
            for name, p in inspect.signature(function).parameters.items()
            if p.kind is p.KEYWORD_ONLY
        }
        for name, value in options.items():
            if name != "psem_cache_dir":
                assert (list(value) if isinstance(value, (list, tuple)) else value) == (
                    list(defaults[name]) if isinstance(defaults[name], tuple) else defaults[name]
                ), name
        assert set(defaults) - set(options) <= {"layer", "prompt_batch"}
    assert choice.score_options["psem_cache_dir"].endswith("psem")


def test_fields_reach_the_mask_under_their_options_names():
    choice = hparams(ig_steps=7, ig_rule="right", ig_step_batch=3, gamma=2.0, seed=5).mask_choice()
    assert (
        choice.score_options["steps"],
        choice.score_options["rule"],
        choice.score_options["step_batch"],
    ) == (7, "right", 3)
    assert choice.mask_options["gamma"] == 2.0 and choice.score_options["seed"] == 5


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, "covariance"),
        ({"preserve": "nullspace", "L2": 0.1}, "nullspace"),
        ({"path": "alphaedit", "L2": 0.1}, "covariance"),
        ({"path": "alphaedit", "L2": 0.1, "mask_stage": "post"}, "nullspace"),
        ({"mask_stage": "post"}, "covariance"),
        ({"path": "alphaedit", "L2": 0.1, "mask": "none"}, "nullspace"),
    ],
)
def test_what_is_preserved(changes, expected):
    assert hparams(**changes).preserves == expected


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"alpha": 1.1}, "'alpha'"),
        ({"trigger_activation": 101}, "'trigger_activation'"),
        ({"q_base": -1}, "'q_base'"),
        ({"gamma": -1}, "'gamma'"),
        ({"activation_share": 0}, "'activation_share'"),
        ({"min_neurons": 0}, "'min_neurons'"),
        ({"psem_size": 0}, "'psem_size'"),
        ({"psem_sources": ["dataset", "dataset"]}, "'psem_sources'"),
        ({"psem_sources": ["data"]}, "psem_sources"),
        ({"psem_translation_models": ["one"]}, "'psem_translation_models'"),
        ({"strategy": "entropi"}, "'strategy'"),
        ({"whole_target": True, "attribution_target": "predicted"}, "'whole_target'"),
        ({"ig_steps": 0}, "'ig_steps'"),
        ({"preserve": "nullspace"}, "'L2'"),
        ({"preserve": "nullspace", "L2": 1.0, "mask_stage": "post"}, "'preserve'"),
        ({"preserve": "nullspace", "L2": 1.0, "path": "rome"}, "'preserve'"),
        ({"solve_preserve": "covariance"}, "'solve_preserve'"),
        ({"solver": "adam", "path": "rome"}, "'solver'"),
        ({"solver": "adam", "adam_trains": []}, "'adam_trains'"),
        ({"mask_options": {"gamma": 1.0}}, "set 'gamma' by the field 'gamma'"),
        ({"mask_options": {"steps": 3}}, "by the field 'ig_steps'"),
        ({"mask": "ig", "whole_target": True}, "'whole_target': is read by mask 'pnke'"),
        ({"mask_options": {"attribution": "lps"}}, "is made from scores 'pnke'"),
    ],
)
def test_mistakes_name_their_field(changes, words):
    with pytest.raises(HparamsError, match=words):
        hparams(**changes)
