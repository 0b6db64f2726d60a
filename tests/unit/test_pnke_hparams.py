"""PNKE's hyperparameters: what goes together, where a mistake is found, and how they reach the mask."""

import pytest

from easyedit_neuron import PNKEHyperParams
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.masks import chosen_mask
from easyedit_neuron.models.pnke.pnke_options import PNKEOptions


def hparams(**changes):
    return PNKEHyperParams(
        **{"alg_name": "PNKE", "model_name": "in memory", "device": "cpu", "layers": [1], **changes}
    )


def test_fields_are_the_options_of_mask_and_scores():
    checked = hparams(ig_steps=7, gamma=2.0, seed=5)
    chosen = chosen_mask(checked)
    assert chosen.options.gamma == 2.0 and chosen.scores_options.ig_steps == 7
    assert chosen.scores_options.seed == 5 and chosen.scores_options.prompt_cache.endswith("psem")
    for name in PNKEOptions.field_names():
        assert getattr(chosen.scores_options, name) == getattr(checked, name)


def test_mask_options_leave_the_fields_of_the_scores():
    both = hparams(psem_cache_dir="texts", ig_steps=7, mask_options={"prompt_batch": 4})
    options = chosen_mask(both).scores_options
    assert (options.prompt_cache, options.ig_steps, options.prompt_batch) == ("texts", 7, 4)
    assert chosen_mask(hparams(mask_options={"psem_cache_dir": None})).scores_options.prompt_cache is None


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
